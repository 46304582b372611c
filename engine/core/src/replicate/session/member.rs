//! Rule 9: a session as one of a group, or alone.

use super::replica::ReplicaState;
use super::{Drive, Session};
use crate::replicate::event::EvictCause;
use crate::replicate::group::{Member, Stamp};
use crate::replicate::leg::{Leg, Loss};

/// A session's place in its group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership {
    pub member: Member,
    /// What the client may have seen when it connected.
    pub connected: Stamp,
}

impl Session {
    /// Joins the group, and follows it: who was evicted from another connection is from this one.
    /// False when the group is full.
    pub(super) fn follow_group<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let Some(group) = drive.resources.group.as_deref_mut() else {
            return true;
        };
        if self.membership.is_none() {
            let Some((member, connected)) = group.join(self.id) else {
                return false;
            };
            self.membership = Some(Membership { member, connected });
            for replica in &mut self.replicas {
                replica.generation = group.generation(replica.candidate.backend);
            }
        }
        let mut shaken = false;
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            let Some(group) = drive.resources.group.as_deref_mut() else {
                break;
            };
            let backend = replica.candidate.backend;
            let doubted = group.is_doubted(backend);
            let before = core::mem::replace(&mut replica.doubted, doubted);
            shaken |= doubted && !before && self.primary == Some(index);
            let generation = group.generation(backend);
            if core::mem::replace(&mut replica.generation, generation) != generation {
                replica.reset_at = None;
                self.evict(drive, index, EvictCause::Group);
            }
        }
        if shaken {
            self.distrust_primary(drive);
        }
        true
    }

    /// Leaves the group at its end.
    pub(super) fn leave_group<L>(&mut self, drive: &mut Drive<'_, '_, L>) {
        if let (Some(membership), Some(group)) =
            (self.membership.take(), &mut drive.resources.group)
        {
            group.leave(membership.member);
        }
    }

    /// Tells the group what the client was sent, and who has sent a FIN.
    pub(super) fn tell_group<L>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let (Some(Membership { member, .. }), Some(group)) =
            (self.membership, &mut drive.resources.group)
        else {
            return;
        };
        group.commit(member, self.chain.len());
        for replica in self.replicas.iter().filter(|r| r.is_live()) {
            let (backend, ending) = (replica.candidate.backend, replica.ended && !self.closed);
            // It is followed in the next drive.
            self.again |= group.set_ending(member, backend, replica.generation, ending);
        }
    }

    /// The gate for an event of the client, that had acknowledged this much: what a replica has to
    /// cover to be given it.
    pub(super) fn gate<L>(&self, drive: &mut Drive<'_, '_, L>, acknowledged: u64) -> u64 {
        match (self.membership, &mut drive.resources.group) {
            (Some(membership), Some(group)) => group.stamp(membership.member, acknowledged),
            _ => acknowledged,
        }
    }

    /// What a replica covers that has this much output here, in the terms of [`Session::gate`].
    pub(super) fn covers<L>(
        &self,
        drive: &mut Drive<'_, '_, L>,
        index: usize,
        covered: u64,
    ) -> u64 {
        let replica = &self.replicas[index];
        let backend = replica.candidate.backend;
        match (self.membership, &mut drive.resources.group) {
            (Some(membership), Some(group)) => {
                group.cover(membership.member, backend, replica.generation, covered);
                group.cleared(backend)
            }
            _ => covered,
        }
    }

    /// Whether a replica may be connected to: it has said what the client had seen when it
    /// connected. One that was evicted has to be fed all connections of the group.
    pub(super) fn may_connect<L>(&self, drive: &mut Drive<'_, '_, L>, index: usize) -> bool {
        let replica = &self.replicas[index];
        let backend = replica.candidate.backend;
        match (self.membership, &mut drive.resources.group) {
            (Some(membership), Some(group)) => {
                let pending = replica.first && replica.state == ReplicaState::Joining;
                // One that has reset this connection lives on with the others: it would take
                // this for another one.
                (group.is_whole() || (pending && replica.generation == 0))
                    && group.cleared(backend) >= membership.connected
                    && !group.has_reset(membership.member, backend)
            }
            _ => true,
        }
    }

    /// Whether a replica takes part in the whole group, so that it can count in one connection.
    pub(super) fn is_complete<L>(&self, drive: &mut Drive<'_, '_, L>, index: usize) -> bool {
        let backend = self.replicas[index].candidate.backend;
        match (self.membership, &mut drive.resources.group) {
            (Some(_), Some(group)) => group.is_everywhere(backend),
            _ => true,
        }
    }

    /// Evicts a replica from the group's other connections, too: it is not to be believed there. The
    /// end of this connection, in whatever way, is no reason; and after a reset time will tell.
    pub(super) fn spread<L>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        index: usize,
        cause: EvictCause,
    ) {
        let replica = &mut self.replicas[index];
        let ends = self.closed || self.log.is_finished() || replica.ended;
        let backend = replica.candidate.backend;
        let (Some(Membership { member, .. }), Some(group)) =
            (self.membership, &mut drive.resources.group)
        else {
            return;
        };
        match cause {
            EvictCause::Group => {}
            EvictCause::Lost(Loss::Reset) => {
                // Its last words, too, it has said.
                if replica.is_live() {
                    group.cover(member, backend, replica.generation, replica.position);
                }
                match group.reset(member, backend, ends) {
                    Some(generation) => replica.generation = generation,
                    None => replica.reset_at = Some(drive.now),
                }
            }
            EvictCause::Lost(_) if ends => group.uncover(member, backend),
            _ => replica.generation = group.evict(backend),
        }
    }
}
