//! What happens to sessions, for `lockstep events`, counters and histograms.

use super::leg::Loss;
use crate::Micros;
use core::fmt;

/// A session's name: the worker that owns it, and a number that worker never gives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The worker.
    pub worker: u8,
    /// From 1 on.
    pub number: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker, self.number)
    }
}

/// A replica of a session, by its place in the session's list.
pub type ReplicaIndex = u16;

/// Why another replica became primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SwitchCause {
    /// The connection to the primary ended without FIN.
    Lost(Loss),
    /// Others were ahead of it for longer than `stall_timeout`.
    Stalled,
    /// It sent a FIN and others went on.
    LeftEarly,
    /// The daemon says it is down.
    Verdict,
    /// It is past `max_lag`.
    Lagging,
    /// A quorum produced something else.
    Diverged,
    /// It was taken out of the service.
    Removed,
    /// It was evicted from another session of the same group, or has reset it.
    Group,
    /// An operator asked for it.
    Asked,
}

/// Why a replica was evicted from a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvictCause {
    /// The connection ended without FIN.
    Lost(Loss),
    /// It sent a FIN where the others went on.
    LeftEarly,
    /// It was lagging for longer than `lag_timeout`.
    Lagging,
    /// What it had not read yet was no longer kept.
    LogCut,
    /// Its output differed.
    Diverged,
    /// The daemon says it is down.
    Verdict,
    /// It was taken out of the service.
    Removed,
    /// It was evicted from another session of the same group.
    Group,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// By FIN on both sides.
    Closed,
    /// The client sent RST.
    ClientReset,
    /// The client was silent past `client_timeout`, or left what was sent unacknowledged.
    ClientGone,
    /// Fewer than `min_sync` replicas accepted within `open_timeout`.
    OpenFailed,
    /// No replica was left for `orphan_timeout`.
    Orphaned,
    /// All replicas have reset it, and go on with other connections of the group.
    ServersReset,
    /// The outputs differed, and the policy is `reset`.
    Diverged,
    /// The service is gone from the snapshot, or no longer replicated.
    Removed,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The client was answered.
    Opened {
        /// Who is primary.
        primary: ReplicaIndex,
    },
    /// Another replica is primary.
    Switched {
        /// Who was.
        from: ReplicaIndex,
        /// Who is.
        to: ReplicaIndex,
        /// Why.
        cause: SwitchCause,
    },
    /// The first byte after a switchover went to the client.
    Resumed {
        /// Microseconds that the client waited: since the last byte before it, or, when there was
        /// nothing to send at the switchover, since there was.
        gap: u64,
    },
    /// A replica's output differs from what the client was sent.
    Diverged {
        /// Which.
        replica: ReplicaIndex,
        /// Output offset at which the difference was noticed; it is at or before this byte.
        offset: u64,
    },
    /// A replica is too far behind to count as in sync.
    Lagging {
        /// Which.
        replica: ReplicaIndex,
    },
    /// A replica is out of the session.
    Evicted {
        /// Which.
        replica: ReplicaIndex,
        /// Why.
        cause: EvictCause,
    },
    /// A replica has been fed the log and its output is checked: it is in sync.
    Joined {
        /// Which.
        replica: ReplicaIndex,
    },
    /// Input is no longer kept from the start: nobody can join this session any more.
    LogCut,
    /// No replica is left.
    Orphaned,
    /// The session is over.
    Ended(EndCause),
}

/// What happened to which session, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, by the worker's clock.
    pub at: Micros,
    /// To which session.
    pub session: SessionId,
    /// What.
    pub kind: EventKind,
}
