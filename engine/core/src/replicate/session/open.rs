//! Rules 1 and 8: who is connected to, when the client is answered, who joins and comes back.

use super::replica::{Replica, ReplicaState, Running};
use super::{Action, Candidate, Drive, MAX_REPLICAS, Session, Stage};
use crate::Micros;
use crate::replicate::event::{EndCause, EventKind, EvictCause, ReplicaIndex};
use crate::replicate::leg::{Leg, Loss, Phase};

impl Session {
    /// Takes candidates: those that are replicas already, and those that may become one.
    pub(super) fn invite(&mut self, now: Micros, candidates: impl Iterator<Item = Candidate>) {
        for candidate in candidates {
            let known = |r: &Replica| r.candidate.backend == candidate.backend;
            if let Some(index) = self.replicas.iter().position(known) {
                let replica = &mut self.replicas[index];
                if !replica.is_wanted() && !candidate.down && !candidate.draining {
                    // It has become healthy: no need to wait for what it was before.
                    replica.retry_at = now;
                }
                replica.candidate = candidate;
                replica.removed = false;
                continue;
            }
            let mut replica = Replica::new(candidate, now);
            replica.first = self.stage == Stage::Opening;
            if !replica.is_wanted() {
                let cause = if candidate.draining {
                    EvictCause::Removed
                } else {
                    EvictCause::Verdict
                };
                replica.set(ReplicaState::Evicted(cause), now);
            }
            let gone = |r: &Replica| r.removed && !r.connected;
            if self.replicas.len() < MAX_REPLICAS {
                self.replicas.push(replica);
            } else if let Some(index) = self.replicas.iter().position(gone) {
                self.replicas[index] = replica;
            }
        }
        // The daemon may be wrong about all of them (a firewall that drops its pings).
        let wanted = self.replicas.iter().filter(|r| r.is_wanted()).count();
        if self.stage == Stage::Opening && wanted < self.needed() {
            for replica in &mut self.replicas {
                replica.candidate.down = false;
            }
        }
    }

    /// Sees how far the connections have come.
    pub(super) fn observe<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        self.hear_last_words(drive);
        for index in 0..self.replicas.len() {
            let (now, replica) = (drive.now, &mut self.replicas[index]);
            let Some(leg) = drive.legs.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if !replica.connected {
                continue;
            }
            match leg.phase() {
                Phase::Opening if now < replica.connected_at + self.policy.open_timeout => {}
                Phase::Opening => self.evict(drive, index, EvictCause::Lost(Loss::TimedOut)),
                Phase::Lost(loss) => self.evict(drive, index, EvictCause::Lost(loss)),
                Phase::Open | Phase::Closed => {
                    if !replica.accepted {
                        replica.accepted = true;
                        replica.handshake = Some(now.since(replica.connected_at));
                        self.welcome(drive, index);
                    }
                }
            }
        }
        self.heed_verdicts(drive);
    }

    /// A replica has accepted. One that was there from the start is in sync with it: nothing was
    /// given to anybody that it will not get.
    fn welcome<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, index: usize) {
        let whole = self.log.is_whole();
        let replica = &mut self.replicas[index];
        let opening = self.stage == Stage::Opening;
        let alone = self.membership.is_none();
        if opening || (replica.first && whole && alone && self.primary.is_some()) {
            replica.set(ReplicaState::InSync, drive.now);
            if !opening {
                let replica = index as ReplicaIndex;
                self.tell(drive, EventKind::Joined { replica });
            }
        }
    }

    /// Answers the client once enough replicas have accepted.
    pub(super) fn open<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let in_sync = self.replicas.iter().filter(|r| r.is_in_sync()).count();
        let possible = self.replicas.iter().filter(|r| r.is_wanted()).count();
        if in_sync >= self.needed() {
            if !self.prefix.is_empty() {
                let taken = self.log.append(&self.prefix, drive.resources.pool);
                self.prefix.drain(..taken);
                if !self.prefix.is_empty() {
                    self.again = true;
                    return;
                }
            }
            self.stage = Stage::Serving;
            drive.actions.push(Action::Answer);
            let Some(primary) = self.best(None) else {
                return;
            };
            self.primary = Some(primary);
            self.last_primary = primary as ReplicaIndex;
            let primary = self.last_primary;
            self.tell(drive, EventKind::Opened { primary });
            self.serve(drive);
        } else if possible < self.needed()
            || drive.now >= self.began_at + self.policy.open_timeout
            || self.is_given_up(drive.now, false)
        {
            self.refuse(drive);
        }
    }

    /// Ends the session before its client was answered.
    pub(super) fn refuse<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        drive.actions.push(Action::Refuse);
        drive.resources.counters.refused.add(1);
        self.end(drive, EndCause::OpenFailed);
    }

    /// Connects to replicas that are due, when what they have missed is still kept.
    pub(super) fn reconnect<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let opening = self.stage == Stage::Opening;
        let serving = self.stage == Stage::Serving && !self.closed;
        if !(opening || serving) || !self.log.is_whole() {
            return;
        }
        let (committed, compares) = (self.committed(), self.compares());
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            let joining = replica.state == ReplicaState::Joining;
            // One that waited for its group all the time has missed nothing.
            let wanted = replica.is_wanted() && (opening || self.policy.rejoin || replica.first);
            let due = wanted && !replica.connected && drive.now >= replica.retry_at;
            if !due || !self.may_connect(drive, index) {
                continue;
            }
            let replica = &mut self.replicas[index];
            replica.first &= joining;
            replica.connect(drive.now, committed);
            if committed > 0 && compares {
                replica.running = Some(Running::new(self.seed, &self.masks));
            }
            drive.actions.push(Action::Connect(index as ReplicaIndex));
        }
    }

    /// Joining replicas that have caught up, with their output checked, are in sync; so are
    /// lagging ones that have caught up.
    pub(super) fn admit<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        if self.closed {
            return false;
        }
        let committed = self.committed();
        let close = u64::from(self.policy.max_lag);
        let near = self.lag_limit() / 2;
        let mut changed = false;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if !replica.is_live() || replica.differs.is_some() {
                continue;
            }
            let fed = self.log.end() - replica.fed <= near;
            let checked = replica.is_level(committed)
                || ((replica.verified >= replica.target || !self.compares())
                    && replica.out >= replica.target
                    && committed - replica.out <= close);
            let joins = match replica.state {
                ReplicaState::Joining => fed && checked,
                ReplicaState::Lagging => fed,
                ReplicaState::InSync | ReplicaState::Evicted(_) => false,
            };
            if joins && self.is_complete(drive, index) {
                self.replicas[index].set(ReplicaState::InSync, drive.now);
                let replica = index as ReplicaIndex;
                self.tell(drive, EventKind::Joined { replica });
                changed = true;
            }
        }
        changed
    }
}
