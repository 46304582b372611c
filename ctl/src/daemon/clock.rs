//! Wall-clock time that does not jump, but where somebody says so.

use lockstep_ctl_core::drains::{Shift, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// What the wall clock may differ by before it is taken to have been set.
const SET: Duration = Duration::from_millis(500);

/// The wall clock as read at the start or when it was set, and monotonic time from there: a deadline given as
/// "in 60 s" then comes in 60 s, also when NTP sets the clock in between. Times that others give
/// mean the wall clock as it is now: [`Clock::wall`], or [`Clock::follow`] from time to time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    /// When that was.
    at: Instant,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        let start = Instant::now();
        Clock {
            wall: Self::wall(),
            at: start,
            start,
        }
    }

    /// The wall clock.
    pub fn wall() -> Timestamp {
        // A clock before 1970 is one that was never set.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(0).after(since)
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.at.elapsed())
    }

    /// Goes on from what the wall clock is, where it has been set. Returns by how much: what is to
    /// come as long after something as before is to be shifted.
    pub fn follow(&mut self, wall: Timestamp) -> Option<Shift> {
        let shift = Shift::between(self.now(), wall);
        if shift.size() <= SET {
            return None;
        }
        (self.wall, self.at) = (wall, Instant::now());
        Some(shift)
    }

    /// When to wake for `time`: the instant after which [`Clock::now`] has reached it.
    pub fn instant(&self, time: Timestamp) -> Option<Instant> {
        self.at.checked_add(time.since(self.wall))
    }

    /// How long the daemon has been running.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_is_followed_and_one_that_is_not_quite_the_same_is_not() {
        let mut clock = Clock::start();
        let (before, hour) = (clock.now(), Duration::from_secs(3_600));
        assert_eq!(clock.follow(Clock::wall()), None);
        assert_eq!(clock.follow(before.after(SET / 2)), None);
        let shift = clock.follow(before.after(hour)).unwrap();
        assert!(
            shift.size() > hour - SET && shift.size() <= hour,
            "{shift:?}"
        );
        let late = clock.now().since(before.after(hour));
        assert!(clock.now() >= before.after(hour) && late < SET, "{late:?}");
        let wakes = clock.instant(before.after(hour + hour)).unwrap();
        assert!(wakes <= Instant::now() + hour);
        // And back, to where it was never set.
        let shift = clock.follow(Timestamp(0)).unwrap();
        assert!(shift.of(before.after(hour)) < Timestamp(1_000));
        assert!(clock.now() < Timestamp(1_000));
    }

    #[test]
    fn a_wall_clock_that_is_set_to_earlier_than_the_daemon_has_run_is_followed_once() {
        let hour = Duration::from_secs(3_600);
        let start = Instant::now().checked_sub(hour).unwrap();
        let mut clock = Clock {
            wall: Clock::wall(),
            at: start,
            start,
        };
        assert!(clock.follow(Timestamp(1)).is_some());
        assert_eq!(clock.follow(Timestamp(1)), None);
        assert!(clock.now() < Timestamp(1_000));
        assert!(clock.uptime() >= hour);
    }
}
