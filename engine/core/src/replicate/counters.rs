//! Counters of sessions: one set per worker, written by it alone, read by the agent at any time.

use crate::counters::Count;

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
    /// Bytes received from clients.
    pub input_bytes: Count,
    /// Bytes sent to clients.
    pub output_bytes: Count,
}
