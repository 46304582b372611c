//! How states and causes of sessions are called outside. The names are part of the product.

use lockstep_core::replicate::event::{EndCause, EventKind, EvictCause, SwitchCause};
use lockstep_core::replicate::leg::Loss;
use lockstep_core::replicate::session::{ReplicaState, SessionState};

/// A session's state.
pub const fn session(state: SessionState) -> &'static str {
    match state {
        SessionState::Opening => "opening",
        SessionState::Protected => "protected",
        SessionState::Degraded => "degraded",
        SessionState::Unprotected => "unprotected",
        SessionState::Orphaned => "orphaned",
        SessionState::Closed => "closed",
    }
}

/// A replica's state, and why it has it where that is to be told.
pub const fn replica(state: ReplicaState) -> (&'static str, &'static str) {
    match state {
        ReplicaState::Joining => ("joining", ""),
        ReplicaState::InSync => ("in-sync", ""),
        ReplicaState::Lagging => ("lagging", ""),
        ReplicaState::Evicted(cause) => ("evicted", evict(cause)),
    }
}

/// What happened.
pub const fn kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Opened { .. } => "opened",
        EventKind::Switched { .. } => "switched",
        EventKind::Resumed { .. } => "resumed",
        EventKind::Diverged { .. } => "diverged",
        EventKind::Lagging { .. } => "lagging",
        EventKind::Evicted { .. } => "evicted",
        EventKind::Joined { .. } => "joined",
        EventKind::LogCut => "log-cut",
        EventKind::Orphaned => "orphaned",
        EventKind::Ended(_) => "ended",
    }
}

/// Why another replica became primary.
pub const fn switch(cause: SwitchCause) -> &'static str {
    match cause {
        SwitchCause::Lost(loss) => lost(loss),
        SwitchCause::Stalled => "stalled",
        SwitchCause::LeftEarly => "left early",
        SwitchCause::Verdict => "down by its health check",
        SwitchCause::Lagging => "lagging",
        SwitchCause::Diverged => "differs",
        SwitchCause::Removed => "removed from the service",
        SwitchCause::Group => "lost in another session of its group",
        SwitchCause::Asked => "asked for",
    }
}

/// Why a replica was evicted.
pub const fn evict(cause: EvictCause) -> &'static str {
    match cause {
        EvictCause::Lost(loss) => lost(loss),
        EvictCause::LeftEarly => "left early",
        EvictCause::Lagging => "lagging",
        EvictCause::LogCut => "what it had not read is no longer kept",
        EvictCause::Diverged => "differs",
        EvictCause::Verdict => "down by its health check",
        EvictCause::Removed => "removed from the service",
        EvictCause::Group => "evicted from another session of its group",
    }
}

/// Why a session ended.
pub const fn end(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Closed => "closed",
        EndCause::ClientReset => "client reset",
        EndCause::ClientGone => "client gone",
        EndCause::OpenFailed => "too few replicas accepted",
        EndCause::Orphaned => "too few replicas were left",
        EndCause::ServersReset => "reset by all replicas",
        EndCause::Diverged => "outputs differed",
        EndCause::Removed => "service removed",
    }
}

const fn lost(loss: Loss) -> &'static str {
    match loss {
        Loss::Refused => "refused",
        Loss::Reset => "reset",
        Loss::TimedOut => "timed out",
        Loss::Aborted => "aborted",
    }
}
