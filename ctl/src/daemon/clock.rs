//! Wall-clock time that does not jump while the daemon runs.

use lockstep_ctl_core::drains::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The wall clock as read once at the start, and monotonic time from there: a deadline given as
/// "in 60 s" then comes in 60 s, also when NTP sets the clock in between.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    at: Instant,
}

impl Clock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        // A clock before 1970 is one that was never set.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            wall: Timestamp(0).after(since),
            at: Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.at.elapsed())
    }

    /// When to wake for `time`: the instant after which [`Clock::now`] has reached it.
    pub fn instant(&self, time: Timestamp) -> Option<Instant> {
        self.at.checked_add(time.since(self.wall))
    }

    /// How long the daemon has been running.
    pub fn uptime(&self) -> std::time::Duration {
        self.at.elapsed()
    }
}
