//! A session as `lockstep sessions` shows it.

use super::replica::ReplicaState;
use super::{MAX_REPLICAS, Session, Stage};
use crate::Micros;
use crate::replicate::event::{ReplicaIndex, SessionId};
use crate::tables::BackendRef;
use arrayvec::ArrayVec;
use core::time::Duration;

/// How well a session is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The client waits for an answer.
    Opening,
    /// More replicas are in sync than are needed.
    Protected,
    /// Just as many as are needed.
    Degraded,
    /// Fewer than `min_sync`.
    Unprotected,
    /// Too few to go on.
    Orphaned,
    /// The client was sent a FIN, or the session is over.
    Closed,
}

impl SessionState {
    /// Every state, in the order of the counters.
    pub const ALL: [SessionState; 6] = [
        SessionState::Opening,
        SessionState::Protected,
        SessionState::Degraded,
        SessionState::Unprotected,
        SessionState::Orphaned,
        SessionState::Closed,
    ];
}

/// A replica of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which backend.
    pub backend: BackendRef,
    /// Whether it counts.
    pub state: ReplicaState,
    /// Since when it has that state.
    pub since: Micros,
    /// Whether the client gets its bytes.
    pub primary: bool,
    /// Whether its output differs from what the client was sent.
    pub diverged: bool,
    /// Whether it has sent its FIN.
    pub ended: bool,
    /// Input bytes given to it.
    pub fed: u64,
    /// Output bytes received from it.
    pub produced: u64,
    /// Its round trip, when it is known.
    pub rtt: Option<Duration>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Its name.
    pub id: SessionId,
    /// How well it is protected.
    pub state: SessionState,
    /// When its client's SYN came.
    pub began_at: Micros,
    /// Input bytes, a PROXY protocol header included.
    pub input: u64,
    /// Output bytes that the client was sent.
    pub output: u64,
    /// The first input byte that is kept: 0 while a replica can join.
    pub kept_from: u64,
    /// Memory its log holds, in bytes.
    pub memory: usize,
    /// Switchovers so far.
    pub switchovers: u32,
    /// Who is primary.
    pub primary: Option<ReplicaIndex>,
    /// All it has, or had.
    pub replicas: ArrayVec<ReplicaReport, MAX_REPLICAS>,
}

impl Session {
    /// How well it is protected.
    pub fn state(&self) -> SessionState {
        match self.stage {
            Stage::Opening => return SessionState::Opening,
            Stage::Draining { .. } | Stage::Ended(_) => return SessionState::Closed,
            Stage::Serving if self.closed => return SessionState::Closed,
            Stage::Serving => {}
        }
        let in_sync = self.usable();
        if in_sync < self.quorum() {
            SessionState::Orphaned
        } else if in_sync < self.needed() {
            SessionState::Unprotected
        } else if in_sync == self.needed() {
            SessionState::Degraded
        } else {
            SessionState::Protected
        }
    }

    /// What there is to know of it.
    pub fn report(&self) -> SessionReport {
        let replicas = self.replicas.iter().enumerate().map(|(index, replica)| {
            let rtt = replica.rtt();
            ReplicaReport {
                backend: replica.candidate.backend,
                state: replica.state,
                since: replica.since,
                primary: self.primary == Some(index),
                diverged: replica.differs.is_some(),
                ended: replica.ended,
                fed: replica.fed,
                produced: replica.position,
                rtt: (rtt != Duration::MAX).then_some(rtt),
            }
        });
        SessionReport {
            id: self.id,
            state: self.state(),
            began_at: self.began_at,
            input: self.log.end(),
            output: self.committed(),
            kept_from: self.log.start(),
            memory: self.log.memory(),
            switchovers: self.switchovers,
            primary: self.primary.map(|primary| primary as ReplicaIndex),
            replicas: replicas.collect(),
        }
    }
}
