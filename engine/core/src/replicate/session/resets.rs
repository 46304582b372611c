//! Rule 9: a replica that resets one connection of a group.
//!
//! It may have died, or have decided to end that one connection. A process that dies loses all its
//! connections at about the same time, and the group sees that. Here is what follows otherwise:
//! where the session goes on with others, the one that has reset it is out of step and evicted from
//! the whole group after `fin_timeout`; where none is left, the servers have ended it.

use super::replica::{Replica, ReplicaState};
use super::{Drive, Session, Stage};
use crate::Micros;
use crate::replicate::event::SwitchCause;
use crate::replicate::leg::Leg;

impl Session {
    /// The primary has reset another connection: on with one that has not, if there is one.
    pub(super) fn distrust_primary<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        if self.stage != Stage::Serving || self.closed {
            return;
        }
        let Some(best) = self.primary.and_then(|_| self.best(self.primary)) else {
            return;
        };
        let replica = &self.replicas[best];
        if !replica.doubted && !replica.ended && replica.agrees() {
            self.switch(drive, best, SwitchCause::Group);
        }
    }

    /// Decides about replicas that have reset this connection.
    pub(super) fn judge_resets<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let (Some(membership), Some(group)) = (self.membership, &mut drive.resources.group) else {
            return;
        };
        if !self.has_resets() {
            return;
        }
        let ends = self.closed || self.log.is_finished();
        if ends {
            group.excuse(membership.member);
        }
        if !self.replicas.iter().any(|r| r.is_in_sync()) {
            return;
        }
        for replica in &mut self.replicas {
            let due = |at: Micros| drive.now >= at + self.policy.fin_timeout;
            if !replica.reset_at.is_some_and(due) {
                continue;
            }
            replica.reset_at = None;
            if !ends && group.has_reset(membership.member, replica.candidate.backend) {
                replica.generation = group.evict(replica.candidate.backend);
            }
        }
    }

    /// Whether a replica has reset this connection, and it is not decided what that means.
    pub(super) fn has_resets(&self) -> bool {
        self.replicas.iter().any(|r| r.reset_at.is_some())
    }

    /// When those that have reset this connection are to be decided about.
    pub(super) fn reset_deadlines(&self) -> impl Iterator<Item = Micros> {
        let resets = self.replicas.iter().filter_map(|r| r.reset_at);
        resets.map(|at| at + self.policy.fin_timeout)
    }

    /// Whether the servers have ended this connection by reset: none is left on it, or, before it is
    /// too late, still to come to it, and who has reset it lives on.
    pub(super) fn is_given_up(&self, now: Micros, late: bool) -> bool {
        let decided = self.reset_deadlines().max().is_some_and(|at| now >= at);
        // One that waits for its group has not even been asked.
        let waits = |r: &Replica| r.state == ReplicaState::Joining && r.is_wanted() && !late;
        decided && !self.replicas.iter().any(|r| r.connected || waits(r))
    }
}
