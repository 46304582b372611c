//! What a worker's sessions look like, for `lockstep sessions`.

use super::Replicator;
use crate::Micros;
use crate::replicate::event::{ReplicaIndex, SessionId};
use crate::replicate::session::{SessionReport, SwitchError};
use crate::tables::{Tables, VipRef};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// A session with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDetails {
    /// The client.
    pub client: SocketAddr,
    /// The address and port it connected to.
    pub destination: SocketAddr,
    /// The VIP they belong to.
    pub vip: VipRef,
    /// What the machine tells.
    pub report: SessionReport,
    /// Bytes sent to the client that it has not acknowledged.
    pub unacknowledged: usize,
}

/// Why a session was not switched over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SwitchoverError {
    /// The number is no session's.
    #[error("there is no session {0} (any more); see `lockstep sessions`")]
    NoSuchSession(SessionId),
    /// It has no such replica.
    #[error("session {session} has no replica {backend}; see `lockstep session {session}`")]
    NoSuchReplica {
        /// The session.
        session: SessionId,
        /// What was asked for.
        backend: IpAddr,
    },
    /// That replica cannot be primary.
    #[error(transparent)]
    Refused(#[from] SwitchError),
}

impl Replicator {
    /// Appends sessions to `page`, from `cursor` on (0 at first), as many as `page` has room for
    /// without taking memory. Returns where to go on, `None` when there are no more.
    ///
    /// Sessions that come or go meanwhile may be missing; none is there twice.
    pub fn sessions(&self, cursor: u32, page: &mut Vec<SessionDetails>) -> Option<u32> {
        for place in cursor..self.sessions.len() as u32 {
            if page.len() == page.capacity() {
                return Some(place);
            }
            page.extend(self.details(place));
        }
        None
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<SessionDetails> {
        self.details(self.place(id)?)
    }

    fn details(&self, place: u32) -> Option<SessionDetails> {
        use crate::replicate::leg::Leg;
        let served = self.sessions.get(place as usize)?.as_ref()?;
        Some(SessionDetails {
            client: served.client_address(),
            destination: served.vip_address(),
            vip: served.vip,
            report: served.session.report(),
            unacknowledged: served.client.unacknowledged(),
        })
    }

    /// Makes the replica at an address the primary of a session.
    pub fn switch_to(
        &mut self,
        now: Micros,
        tables: &Tables,
        id: SessionId,
        backend: IpAddr,
    ) -> Result<(), SwitchoverError> {
        let place = self.place(id).ok_or(SwitchoverError::NoSuchSession(id))?;
        let served = self.sessions[place as usize]
            .as_mut()
            .ok_or(SwitchoverError::NoSuchSession(id))?;
        let ring = tables.ring(served.vip);
        let is_it = |replica: &ReplicaIndex| {
            let reference = served.session.backend(*replica);
            let member = reference.and_then(|r| ring?.member(r));
            member.is_some_and(|m| m.backend.address == backend)
        };
        let replica = (0..served.session.replicas() as ReplicaIndex)
            .find(is_it)
            .ok_or(SwitchoverError::NoSuchReplica {
                session: id,
                backend,
            })?;
        served.session.switch_to(now, replica)?;
        self.mark(place);
        Ok(())
    }
}
