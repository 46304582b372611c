//! When a backend is asked, and how often until a verdict is another one.

use super::Check;
use crate::config::health::Defaults;
use std::time::Duration;

/// The times and counts of a check, every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From one check to the next, at most.
    pub interval: Duration,
    /// The same, while checks speak against the verdict.
    pub fast_interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Checks in a row that make a backend up.
    pub rise: u8,
    /// Checks in a row that make a backend down.
    pub fall: u8,
}

impl Pace {
    /// The interval where nobody names one.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// `rise` where nobody names one; HAProxy's.
    pub const RISE: u8 = 2;
    /// `fall` where nobody names one; HAProxy's.
    pub const FALL: u8 = 3;

    /// What a check says, then what `[health]` says, then the defaults. Half the interval is the
    /// fast one and the timeout: a backend that has stopped answering is then noticed within
    /// `interval` times `fall`, the last check's timeout included.
    pub fn of(check: &Check, defaults: &Defaults) -> Self {
        let interval = check
            .interval
            .or(defaults.interval)
            .unwrap_or(Self::INTERVAL);
        let half = (interval / 2).max(Duration::from_millis(1));
        // A default that is longer than a check's own interval is as long as that.
        let within = |own: Option<Duration>, default: Option<Duration>| {
            own.or(default).unwrap_or(half).min(interval)
        };
        Pace {
            interval,
            fast_interval: within(check.fast_interval, defaults.fast_interval),
            timeout: within(check.timeout, defaults.timeout),
            rise: check.rise.or(defaults.rise).unwrap_or(Self::RISE),
            fall: check.fall.or(defaults.fall).unwrap_or(Self::FALL),
        }
    }
}
