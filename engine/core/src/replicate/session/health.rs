//! Rules 4 and 5: verdicts, slow replicas, and when to look again.

use super::replica::ReplicaState;
use super::{Drive, RETRY, Session, Stage};
use crate::Micros;
use crate::replicate::event::{EventKind, EvictCause, ReplicaIndex, SwitchCause};
use crate::replicate::leg::Leg;
use crate::replicate::log::MIN_MEMORY;

impl Session {
    /// Bytes a replica in sync may be behind: not more than half of what is kept in memory, so that
    /// the others can go on while it is waited for.
    pub(super) fn lag_limit(&self) -> u64 {
        let memory = u64::from(self.policy.log_memory).max(MIN_MEMORY as u64);
        u64::from(self.policy.max_lag).clamp(2, memory / 4)
    }

    /// Takes out replicas that are gone from the service, or that the daemon says are down. The last
    /// ones stay in spite of a verdict: they may be the client's only hope.
    pub(super) fn heed_verdicts<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if matches!(replica.state, ReplicaState::Evicted(_)) {
                continue;
            }
            let spare = !replica.is_in_sync() || self.usable() > self.quorum();
            if replica.removed {
                self.evict(drive, index, EvictCause::Removed);
            } else if replica.candidate.down && spare {
                self.evict(drive, index, EvictCause::Verdict);
            }
        }
    }

    /// Waits for slow replicas for a while, then goes on without them. Whether anything changed.
    pub(super) fn keep_pace<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let ended = self.end_lagging(drive);
        if self.log.is_finished() {
            self.slowed_at = None;
            return ended;
        }
        // Once it is waited for, it has to come back well below the limit.
        let limit = match self.slowed_at {
            Some(_) => self.lag_limit() / 2,
            None => self.lag_limit(),
        };
        let (end, fastest) = (self.log.end(), self.fastest());
        let refused = self.refused_at.is_some() && !self.log.is_spilling();
        let is_slow = |s: &Self, i: usize| {
            let replica = &s.replicas[i];
            let behind = replica.fed < fastest;
            replica.is_in_sync() && behind && (end - replica.fed > limit || refused)
        };
        let mut in_sync = self.replicas.iter().filter(|r| r.is_in_sync()).count();
        if in_sync <= self.needed() || !(0..self.replicas.len()).any(|i| is_slow(self, i)) {
            // Whoever was waited for has come: the client is read again.
            return ended | self.slowed_at.take().is_some();
        }
        let since = *self.slowed_at.get_or_insert(drive.now);
        if drive.now < since + self.policy.grace {
            return ended;
        }
        while in_sync > self.needed() {
            let slow = (0..self.replicas.len()).filter(|i| is_slow(self, *i));
            let Some(slowest) = slow.min_by_key(|i| self.replicas[*i].fed) else {
                break;
            };
            self.replicas[slowest].set(ReplicaState::Lagging, drive.now);
            let replica = slowest as ReplicaIndex;
            self.tell(drive, EventKind::Lagging { replica });
            in_sync -= 1;
            if self.primary == Some(slowest) {
                self.primary = None;
                self.vacancy = SwitchCause::Lagging;
            }
        }
        self.slowed_at = None;
        true
    }

    /// Evicts who lags, or joins, for too long.
    fn end_lagging<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let mut changed = false;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            let since = match replica.state {
                ReplicaState::Lagging => replica.since,
                ReplicaState::Joining if replica.is_live() => replica.moved_at,
                ReplicaState::Joining | ReplicaState::InSync | ReplicaState::Evicted(_) => continue,
            };
            if drive.now >= since + self.policy.lag_timeout {
                self.evict(drive, index, EvictCause::Lagging);
                changed = true;
            }
        }
        changed
    }

    /// When to be driven again, if nothing happens before.
    pub(super) fn earliest(&self, now: Micros) -> Option<Micros> {
        let policy = &self.policy;
        let stage = match self.stage {
            Stage::Opening => [Some(self.began_at + policy.open_timeout), None],
            Stage::Serving => [None, None],
            Stage::Draining { since } => [
                Some(since + policy.fin_timeout),
                Some(since + policy.lag_timeout),
            ],
            Stage::Ended(_) => return None,
        };
        let ours = [
            self.stalled.map(|stall| stall.until),
            self.orphan_deadline(),
            self.dispute_deadline(),
            self.slowed_at.map(|at| at + policy.grace),
            self.again.then_some(now + RETRY),
        ];
        let may_join = self.stage == Stage::Opening || self.log.is_whole() && !self.closed;
        let theirs = self.replicas.iter().map(|replica| match replica.state {
            ReplicaState::Joining if replica.is_live() => {
                Some(replica.moved_at + policy.lag_timeout)
            }
            ReplicaState::Joining if replica.connected => {
                Some(replica.connected_at + policy.open_timeout)
            }
            ReplicaState::Lagging => Some(replica.since + policy.lag_timeout),
            ReplicaState::Evicted(_) if replica.is_wanted() && may_join => Some(replica.retry_at),
            ReplicaState::Joining | ReplicaState::InSync | ReplicaState::Evicted(_) => None,
        });
        // What was due was dealt with: what is left of it waits for something else.
        let votes = (self.replicas.iter()).map(|r| Some(r.ended_at? + policy.fin_timeout));
        let all = stage.into_iter().chain(ours).chain(theirs).chain(votes);
        let all = all.flatten().chain(self.reset_deadlines());
        all.filter(|at| *at > now).min()
    }
}
