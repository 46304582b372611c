//! Counters of sessions: one set per worker, written by it alone, read by the agent at any time.

use super::session::SessionState;
use crate::counters::{BACKEND_SLOTS, Count, VIP_SLOTS};
use crate::histogram::Histogram;
use crate::tables::{BackendRef, VipRef};
use alloc::boxed::Box;

/// What happened to the sessions of a worker.
#[derive(Debug, Default)]
pub struct ReplicateCounters {
    /// Sessions whose client was answered.
    pub opened: Count,
    /// Sessions whose client was refused.
    pub refused: Count,
    /// Sessions that ended after their client was answered.
    pub ended: Count,
    /// Switchovers.
    pub switched: Count,
    /// Differences between a replica's output and what its client was sent.
    pub diverged: Count,
    /// Replicas that were too far behind to count as in sync.
    pub lagging: Count,
    /// Replicas evicted from a session.
    pub evicted: Count,
    /// Replicas that joined a session, or joined it again.
    pub joined: Count,
    /// Sessions that nobody can join any more.
    pub log_cuts: Count,
    /// Sessions that were without a replica.
    pub orphaned: Count,
    /// Sessions there are.
    pub sessions: Count,
    /// The same by state, in the order of [`SessionState::ALL`].
    pub by_state: [Count; SessionState::ALL.len()],
    /// The same by VIP slot.
    pub by_vip: ByVip,
    /// Sessions whose client has not acknowledged the SYN-ACK.
    pub half_open: Count,
    /// Connections to replicas that are in use.
    pub connections: Count,
    /// Connections in TIME-WAIT.
    pub time_wait: Count,
    /// Bytes of memory that input logs hold.
    pub log_memory: Count,
    /// SYNs answered with a cookie.
    pub cookies_sent: Count,
    /// Sessions opened by the answer to a cookie.
    pub cookies_accepted: Count,
    /// RSTs sent for packets of no session.
    pub resets: Count,
    /// Connections to replicas that could not be opened: no connection, port or route left.
    pub unconnected: Count,
    /// Packets that found no frame or no room on the ring, and wait for their retransmission.
    pub unsent: Count,
    /// Events that nobody took in time.
    pub events_lost: Count,
    /// From when the first replica has a byte until it is committed.
    pub commit_delay: Histogram,
    /// Of a switchover: from the last byte to the client before it to the first one after.
    pub gap: Histogram,
    /// Bytes of each replica, by backend slot.
    pub by_backend: ByBackend,
    /// Bytes received from clients.
    pub input_bytes: Count,
    /// Bytes sent to clients.
    pub output_bytes: Count,
}

/// A number for each VIP, by its slot.
#[derive(Debug)]
pub struct ByVip(Box<[Count]>);

impl ByVip {
    /// A VIP's number.
    pub fn of(&self, vip: VipRef) -> &Count {
        // Every VIP's slot is below the length; slot 0 is nobody's.
        self.0.get(vip.slot()).unwrap_or(&self.0[0])
    }
}

impl Default for ByVip {
    fn default() -> Self {
        ByVip((0..VIP_SLOTS).map(|_| Count::default()).collect())
    }
}

/// What went to a replica and came from it, over all sessions. A slot that another backend gets
/// goes on from where it was.
#[derive(Debug, Default)]
pub struct ReplicaBytes {
    /// Bytes given to it.
    pub input: Count,
    /// Bytes that it has answered.
    pub output: Count,
}

/// The bytes of each backend, by its slot.
#[derive(Debug)]
pub struct ByBackend(Box<[ReplicaBytes]>);

impl ByBackend {
    /// A backend's.
    pub fn of(&self, backend: BackendRef) -> &ReplicaBytes {
        // Every backend's slot is below the length; slot 0 is nobody's.
        self.0.get(backend.slot()).unwrap_or(&self.0[0])
    }
}

impl Default for ByBackend {
    fn default() -> Self {
        ByBackend(
            (0..BACKEND_SLOTS)
                .map(|_| ReplicaBytes::default())
                .collect(),
        )
    }
}
