//! Rules 4, 10 and 12: how a session ends.

use super::{Action, Drive, Session, Stage};
use crate::Micros;
use crate::replicate::event::{EndCause, EventKind, EvictCause, ReplicaIndex, SwitchCause};
use crate::replicate::leg::{Leg, Loss, Phase};
use crate::replicate::log::InputLog;
use crate::replicate::session::replica::{Replica, ReplicaState};
use core::cmp::Ordering;

impl Session {
    /// A FIN is a vote. Whether anything changed.
    pub(super) fn vote<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        if self.closed {
            return false;
        }
        let mut changed = self.evict_passed(drive);
        self.note_votes(drive.now);
        let committed = self.committed();
        let due = self.policy.fin_timeout;
        let voters = || self.replicas.iter().filter(|r| self.counts(r));
        let total = voters().count();
        let ended = voters().filter(|r| r.ended_at.is_some()).count();
        let ripe = |r: &Replica| r.ended_at.is_some_and(|at| drive.now >= at + due);
        let decided = voters().filter(|r| ripe(r)).count();
        let against = voters()
            .filter(|r| !r.ended && r.is_level(committed))
            .count();
        let ahead = voters().any(|r| r.position > committed && r.is_level(committed));
        if ended == 0 {
            return changed;
        }
        if ended == total && ended >= self.quorum() {
            self.close(drive);
            return true;
        }
        // Bytes past it show that the end is none. The primary cannot give them.
        let leaves = self.primary.is_some_and(|p| self.replicas[p].ended);
        if leaves && ahead {
            changed |= self.leave_primary(drive);
        }
        if ahead || decided == 0 {
            return changed;
        }
        match (2 * decided).cmp(&total) {
            Ordering::Greater if decided >= self.quorum() => {
                self.close(drive);
                true
            }
            // One that has not come as far has no opinion yet. After a tie the session goes on
            // without those that have ended: replicas that die one by one must not add up to a
            // majority.
            Ordering::Less | Ordering::Equal if against + ended == total || 2 * against > total => {
                for index in 0..self.replicas.len() {
                    let replica = &self.replicas[index];
                    let since = replica.ended_at.filter(|_| self.counts(replica));
                    if since.is_some_and(|at| drive.now >= at + due) {
                        self.evict(drive, index, EvictCause::LeftEarly);
                    }
                }
                true
            }
            Ordering::Less | Ordering::Equal | Ordering::Greater => {
                changed | (leaves && self.leave_primary(drive))
            }
        }
    }

    /// Since when each replica says that the stream ends here. Every vote has its own time: servers
    /// that end the stream do so together, and ones that die do not.
    fn note_votes(&mut self, now: Micros) {
        let committed = self.committed();
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            let votes = self.counts(replica) && replica.ended && replica.is_level(committed);
            let replica = &mut self.replicas[index];
            replica.ended_at = votes.then(|| replica.ended_at.unwrap_or(now));
        }
    }

    /// Replicas that ended before the client's stream does.
    fn evict_passed<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let mut changed = false;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if replica.is_live() && replica.ended && replica.out < self.committed() {
                self.evict(drive, index, EvictCause::LeftEarly);
                changed = true;
            }
        }
        changed
    }

    /// From a primary that has ended to the best one that has not.
    fn leave_primary<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        match self.best(self.primary) {
            Some(other) if !self.replicas[other].ended => {
                self.switch(drive, other, SwitchCause::LeftEarly);
                true
            }
            _ => false,
        }
    }

    fn close<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        drive.client.finish();
        self.closed = true;
        self.stalled = None;
    }

    /// Whether the client is gone, and the session with it.
    pub(super) fn has_lost_client<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        if matches!(self.stage, Stage::Draining { .. }) {
            return false;
        }
        let cause = match drive.client.phase() {
            Phase::Lost(Loss::TimedOut) => EndCause::ClientGone,
            Phase::Lost(Loss::Refused | Loss::Reset | Loss::Aborted) => EndCause::ClientReset,
            Phase::Opening | Phase::Open | Phase::Closed => return false,
        };
        self.end(drive, cause);
        true
    }

    /// What stands at the end of a drive: whether the session is without a replica, or closed.
    pub(super) fn finish<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        if self.closed {
            self.discard(drive);
            if drive.client.phase() == Phase::Closed {
                self.stage = Stage::Draining { since: drive.now };
                self.drain(drive, drive.now);
            } else if !self.replicas.iter().any(|r| r.is_live()) {
                self.outlive(drive);
            }
            return;
        }
        if self.usable() >= self.quorum() {
            self.orphaned_at = None;
            self.orphan_told = false;
        } else {
            self.orphaned_at.get_or_insert(drive.now);
            // Servers that end a connection have not left it alone.
            if !self.orphan_told && !self.has_resets() {
                self.orphan_told = true;
                self.tell(drive, EventKind::Orphaned);
            }
        }
        let due = |deadline: Option<Micros>| deadline.is_some_and(|at| drive.now >= at);
        let orphaned = due(self.orphan_deadline());
        let delivered = drive.client.unacknowledged() == 0;
        let given_up = self.is_given_up(drive.now, orphaned);
        let cause = if given_up && (delivered || orphaned) {
            EndCause::ServersReset
        } else if orphaned {
            EndCause::Orphaned
        } else if due(self.dispute_deadline()) {
            EndCause::Diverged
        } else {
            return;
        };
        drive.client.abort();
        self.end(drive, cause);
    }

    /// When a session is given up whose replicas contradict each other: nobody is left who could
    /// tell who is right.
    pub(super) fn dispute_deadline(&self) -> Option<Micros> {
        Some(self.last_movement(self.disputed_at?) + self.policy.orphan_timeout)
    }

    /// When a replica last gave something, or `since`, whichever is later: as long as one moves it
    /// may still decide.
    fn last_movement(&self, since: Micros) -> Micros {
        let live = self.replicas.iter().filter(|r| r.is_live());
        since.max(live.map(|r| r.moved_at).max().unwrap_or(since))
    }

    /// The servers have ended, and are gone. The client gets all they have said; what it still says
    /// itself nobody can take, and it is told so, as one server alone would tell it.
    fn outlive<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let since = *self.orphaned_at.get_or_insert(drive.now);
        let late = drive.now >= since + self.policy.orphan_timeout;
        let delivered = drive.client.unacknowledged() == 0;
        let unheard = drive.client.readable() > 0;
        if delivered && !drive.client.is_finished() && (unheard || late) {
            drive.client.abort();
            self.end(drive, EndCause::Closed);
        }
    }

    /// When a session without enough replicas is given up. One that is being fed, or gives, may save
    /// it.
    pub(super) fn orphan_deadline(&self) -> Option<Micros> {
        Some(self.last_movement(self.orphaned_at?) + self.policy.orphan_timeout)
    }

    /// Reads what replicas send behind the end of the client's stream, so that they can end too.
    fn discard<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            let Some(leg) = drive.legs.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if !replica.is_live() {
                continue;
            }
            while let length @ 1.. = leg.front().len() {
                leg.consume(length);
                replica.out += length as u64;
            }
            replica.position = replica.out;
            replica.running = None;
        }
    }

    /// The client is gone in peace. What it has sent is given to everyone in sync before the session
    /// is over, within bounds.
    pub(super) fn drain<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, since: Micros) {
        self.discard(drive);
        self.feed(drive);
        self.discard(drive);
        let mut waits = false;
        let mut delivers = false;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if !replica.connected {
                continue;
            }
            let counts =
                replica.is_in_sync() || (replica.state == ReplicaState::Lagging && !replica.ended);
            let (finished, differs) = (replica.finished, replica.differs.is_some());
            let Some(leg) = drive.leg(index) else {
                continue;
            };
            if counts && leg.phase() == Phase::Open {
                waits = true;
                delivers |= !differs && (!finished || leg.unacknowledged() > 0);
            }
        }
        let late = drive.now >= since + self.policy.fin_timeout;
        let too_late = drive.now >= since + self.policy.lag_timeout;
        if !waits || (late && !delivers) || too_late {
            self.end(drive, EndCause::Closed);
        }
    }

    /// Ends the session: aborts what is not closed, gives everything back.
    pub(super) fn end<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, cause: EndCause) {
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            if !core::mem::take(&mut replica.connected) {
                continue;
            }
            if let Some(leg) = drive.legs.get_mut(index).and_then(Option::as_mut)
                && leg.phase() != Phase::Closed
            {
                leg.abort();
            }
            drive.actions.push(Action::Release(index as ReplicaIndex));
        }
        let answered = self.stage != Stage::Opening;
        if !answered && cause != EndCause::OpenFailed {
            drive.resources.counters.refused.add(1);
        }
        self.stage = Stage::Ended(cause);
        self.primary = None;
        self.leave_group(drive);
        let log = core::mem::replace(&mut self.log, InputLog::new(0, 0, self.id));
        log.close(drive.resources.pool, drive.resources.spill);
        if answered {
            self.tell(drive, EventKind::Ended(cause));
        }
        drive.actions.push(Action::Ended(cause));
    }
}
