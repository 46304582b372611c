//! Rule 9: a session as one of a group, or alone.

use super::replica::ReplicaState;
use super::{Drive, Session};
use crate::replicate::event::EvictCause;
use crate::replicate::group::{Member, Stamp};
use crate::replicate::leg::Leg;

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
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            let Some(group) = drive.resources.group.as_deref_mut() else {
                break;
            };
            let generation = group.generation(replica.candidate.backend);
            if core::mem::replace(&mut replica.generation, generation) != generation {
                self.evict(drive, index, EvictCause::Group);
            }
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

    /// Tells the group what the client was sent.
    pub(super) fn tell_group<L>(&mut self, drive: &mut Drive<'_, '_, L>) {
        if let (Some(membership), Some(group)) = (self.membership, &mut drive.resources.group) {
            group.commit(membership.member, self.chain.len());
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
                (group.is_whole() || (pending && replica.generation == 0))
                    && group.cleared(backend) >= membership.connected
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
    /// end of this connection, in whatever way, is no reason.
    pub(super) fn spread<L>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        index: usize,
        cause: EvictCause,
    ) {
        let replica = &mut self.replicas[index];
        let ends = self.closed || self.log.is_finished() || replica.ended;
        let alone = matches!(cause, EvictCause::Lost(_)) && ends;
        let backend = replica.candidate.backend;
        match (self.membership, &mut drive.resources.group) {
            (Some(_), Some(_)) if cause == EvictCause::Group => {}
            (Some(membership), Some(group)) if alone => group.uncover(membership.member, backend),
            (Some(_), Some(group)) => replica.generation = group.evict(backend),
            _ => {}
        }
    }
}
