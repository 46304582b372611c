//! Rules 2, 3 and 4: who is primary, and when another one has to be.

use super::replica::ReplicaState;
use super::{Drive, Session, Stall};
use crate::replicate::event::{EventKind, EvictCause, ReplicaIndex, SwitchCause};
use crate::replicate::leg::Leg;
use core::cmp::Reverse;
use core::time::Duration;
use lockstep_plan::Commit;

/// What is better comes first: output that is the client's, not ended, not doubted by its group,
/// wanted, furthest past the committed offset, the shortest round trip.
pub(super) type Rank = (bool, bool, bool, bool, Reverse<u64>, Duration, usize);

impl Session {
    pub(super) fn rank(&self, index: usize) -> Rank {
        let replica = &self.replicas[index];
        (
            replica.differs.is_some(),
            replica.ended,
            replica.doubted,
            !replica.is_wanted(),
            Reverse(replica.position.max(self.committed())),
            replica.rtt(),
            index,
        )
    }

    /// The best replica in sync, but for one.
    pub(super) fn best(&self, except: Option<usize>) -> Option<usize> {
        (0..self.replicas.len())
            .filter(|i| Some(*i) != except && self.replicas[*i].is_in_sync())
            .min_by_key(|i| self.rank(*i))
    }

    /// Elects another primary where there has to be one. Whether anything changed.
    pub(super) fn replace<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        if let Some(asked) = self.asked.take() {
            let asked = usize::from(asked);
            if self.replicas[asked].agrees() && self.primary != Some(asked) {
                self.switch(drive, asked, SwitchCause::Asked);
                return true;
            }
        }
        match self.primary {
            None => self.fill_vacancy(drive),
            Some(primary) => self.retire(drive, primary),
        }
    }

    fn fill_vacancy<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        // One that lags is better than none: what it has not read is still kept.
        let lagging = |i: &usize| self.replicas[*i].state == ReplicaState::Lagging;
        let best = self.best(None).or_else(|| {
            (0..self.replicas.len())
                .filter(lagging)
                .min_by_key(|i| self.rank(*i))
        });
        let Some(best) = best else {
            return false;
        };
        if !self.replicas[best].is_in_sync() {
            self.replicas[best].set(ReplicaState::InSync, drive.now);
            let replica = best as ReplicaIndex;
            self.tell(drive, EventKind::Joined { replica });
        }
        self.switch(drive, best, self.vacancy);
        true
    }

    /// Whether a primary that is in sync has to go all the same.
    fn retire<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, primary: usize) -> bool {
        let Some(other) = self.best(Some(primary)) else {
            self.stalled = None;
            return false;
        };
        let (replica, candidate) = (&self.replicas[primary], &self.replicas[other]);
        let quorum = matches!(self.policy.commit, Commit::Quorum(_));
        if quorum && replica.differs.is_some() && candidate.differs.is_none() {
            self.switch(drive, other, SwitchCause::Diverged);
            return true;
        }
        if !replica.is_wanted() && candidate.is_wanted() && candidate.agrees() && !candidate.ended {
            let cause = if replica.candidate.down && !replica.removed {
                SwitchCause::Verdict
            } else {
                SwitchCause::Removed
            };
            self.switch(drive, other, cause);
            return true;
        }
        let trusted = replica.doubted && !candidate.doubted && candidate.agrees();
        if trusted && !candidate.ended && candidate.position >= replica.position {
            self.switch(drive, other, SwitchCause::Group);
            return true;
        }
        if !self.is_stalled(drive, primary, other, quorum) {
            self.stalled = None;
            return false;
        }
        let position = replica.position;
        // One whose output differs is not lightly preferred to one that is only slow.
        let doubtful = candidate.differs.is_some() && replica.differs.is_none();
        let wait = if doubtful {
            self.policy.dead_after.max(self.policy.stall_timeout)
        } else {
            self.policy.stall_timeout
        };
        let fresh = drive.now + wait;
        let until = match self.stalled {
            Some(stall) if stall.position == position => stall.until.min(fresh),
            _ => fresh,
        };
        self.stalled = Some(Stall { until, position });
        let due = drive.now >= until;
        if due {
            self.switch(drive, other, SwitchCause::Stalled);
        }
        due
    }

    /// Whether the primary has nothing to give where the best of the others has.
    fn is_stalled<L: Leg>(
        &self,
        drive: &Drive<'_, '_, L>,
        primary: usize,
        other: usize,
        quorum: bool,
    ) -> bool {
        let (primary, other) = (&self.replicas[primary], &self.replicas[other]);
        let committed = self.committed();
        if primary.position > committed || other.position <= primary.position || self.closed {
            return false;
        }
        // One that has ended has nothing more to give either: whether that is the end, votes tell.
        if other.ended {
            return false;
        }
        let gains = other.position > committed && drive.client.room() > 0;
        gains || (quorum && primary.position < committed)
    }

    /// Makes a replica primary.
    pub(super) fn switch<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        to: usize,
        cause: SwitchCause,
    ) {
        let from = self.last_primary;
        self.primary = Some(to);
        self.last_primary = to as ReplicaIndex;
        self.stalled = None;
        self.switchovers += 1;
        self.resumes = true;
        if self.waited_from.is_none() && self.available_at.is_some() {
            self.waited_from = self.committed_at.or(Some(drive.now));
        }
        // From here on the client's stream is this one's.
        self.replicas[to].forgiven = self.replicas[to].differs.is_some();
        self.forgive(to);
        let to = self.last_primary;
        self.tell(drive, EventKind::Switched { from, to, cause });
    }

    /// Takes a replica out of the session.
    pub(super) fn evict<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        index: usize,
        cause: EvictCause,
    ) {
        let replica = &mut self.replicas[index];
        if matches!(replica.state, ReplicaState::Evicted(_)) && !replica.connected {
            return;
        }
        // One that is tried again and again is told of once.
        let counted = replica.first || replica.state != ReplicaState::Joining;
        let counted = counted || cause == EvictCause::Diverged;
        self.spread(drive, index, cause);
        let replica = &mut self.replicas[index];
        replica.back_off(drive.now);
        replica.set(ReplicaState::Evicted(cause), drive.now);
        replica.first = false;
        replica.running = None;
        replica.ended = false;
        replica.ended_at = None;
        replica.position = replica.out;
        if core::mem::take(&mut replica.connected) {
            if let Some(leg) = drive.leg(index) {
                leg.abort();
            }
            drive
                .actions
                .push(super::Action::Release(index as ReplicaIndex));
        }
        if self.primary == Some(index) {
            self.primary = None;
            self.vacancy = switch_cause(cause);
        }
        if counted {
            let replica = index as ReplicaIndex;
            self.tell(drive, EventKind::Evicted { replica, cause });
        }
    }
}

/// Why a switchover follows an eviction of the primary.
fn switch_cause(cause: EvictCause) -> SwitchCause {
    match cause {
        EvictCause::Lost(loss) => SwitchCause::Lost(loss),
        EvictCause::LeftEarly => SwitchCause::LeftEarly,
        EvictCause::Lagging | EvictCause::LogCut => SwitchCause::Lagging,
        EvictCause::Diverged => SwitchCause::Diverged,
        EvictCause::Verdict => SwitchCause::Verdict,
        EvictCause::Removed => SwitchCause::Removed,
        EvictCause::Group => SwitchCause::Group,
    }
}
