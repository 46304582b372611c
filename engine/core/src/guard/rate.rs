//! Token buckets, kept as a moment: the one at which the bucket is full again.
//!
//! That is one word instead of two, needs no timer, and tells how spent two buckets of different
//! rates are by one comparison (it is the GCRA of ITU-T I.371, the virtual scheduling algorithm).

use crate::time::Micros;
use core::num::NonZeroU32;

/// Bits behind the microsecond: the error of a rate of ten million a second is 0.02 %. What is
/// left in front lasts for nine years.
const FRACTION: u32 = 16;
const SECOND: u64 = 1_000_000 << FRACTION;

/// How fast a bucket fills, and how much it holds: one second's worth, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time in which one comes in.
    interval: u64,
    /// The time in which an empty bucket fills.
    depth: u64,
}

impl Pace {
    /// One worker's part of a rate a second.
    pub fn new(rate: NonZeroU32, workers: NonZeroU32) -> Self {
        let interval = SECOND * u64::from(workers.get()) / u64::from(rate.get());
        let interval = interval.max(1);
        Pace {
            interval,
            depth: SECOND.max(interval),
        }
    }
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level {
    /// In microseconds and fractions; a moment that has passed is a full bucket.
    full_at: u64,
}

impl Level {
    /// A bucket that nothing was taken out of.
    pub const FULL: Level = Level { full_at: 0 };

    /// Takes one out; `false` when there is none.
    #[inline]
    #[must_use]
    pub fn take(&mut self, pace: Pace, now: Micros) -> bool {
        let now = now.get() << FRACTION;
        let full_at = self.full_at.max(now) + pace.interval;
        let is_there = full_at - now <= pace.depth;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    /// Whether it is full, so that forgetting it changes nothing.
    pub fn is_full(self, now: Micros) -> bool {
        self.full_at <= now.get() << FRACTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(rate: u32, workers: u32) -> Pace {
        Pace::new(
            NonZeroU32::new(rate).unwrap(),
            NonZeroU32::new(workers).unwrap(),
        )
    }

    /// How many of `tries` within a second beginning at `from` are let through.
    fn in_a_second(level: &mut Level, pace: Pace, from: u64, tries: u64) -> u64 {
        (0..tries)
            .filter(|n| level.take(pace, Micros::new(from + n * 1_000_000 / tries)))
            .count() as u64
    }

    #[test]
    fn one_seconds_worth_at_once_and_then_the_rate() {
        let (mut level, pace) = (Level::FULL, pace(100, 1));
        let now = Micros::new(5_000_000);
        assert_eq!((0..1_000).filter(|_| level.take(pace, now)).count(), 100);
        assert_eq!(in_a_second(&mut level, pace, 5_000_000, 10_000), 99);
        assert_eq!(in_a_second(&mut level, pace, 6_000_000, 10_000), 100);
        assert!(!level.is_full(Micros::new(7_900_000)));
        assert!(level.is_full(Micros::new(8_000_000)));
    }

    #[test]
    fn workers_share_a_rate_also_one_smaller_than_their_number() {
        let (mut level, pace) = (Level::FULL, pace(3, 4));
        let taken: u64 = (0..400)
            .map(|s| in_a_second(&mut level, pace, s * 1_000_000, 50))
            .sum();
        // Tries come 50 a second: some of the last are a little early.
        assert!((298..=301).contains(&taken), "{taken}");
    }

    #[test]
    fn a_high_rate_is_met_to_a_thousandth() {
        let (mut level, pace) = (Level::FULL, pace(10_000_000, 1));
        assert!((0..10_000_000).all(|_| level.take(pace, Micros::ZERO)));
        let more = (0..200_000)
            .filter(|_| level.take(pace, Micros::new(10_000)))
            .count();
        // Exact but for what the fraction cuts off: one eight-thousandth of the burst too.
        assert!((100_000..101_250).contains(&more), "{more}");
    }

    proptest! {
        /// Whatever comes when: never more than a second's worth and what has come in since.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            rate in 1..5_000_u32,
            workers in 1..9_u32,
            gaps in prop::collection::vec(0..200_000_u64, 1..300),
        ) {
            let (mut level, pace) = (Level::FULL, pace(rate, workers));
            let (mut now, mut taken) = (0, 0);
            for gap in gaps {
                now += gap;
                taken += u64::from(level.take(pace, Micros::new(now)));
                let burst = u64::from(rate).div_ceil(u64::from(workers)).max(1);
                let since = now * u64::from(rate) / u64::from(workers) / 1_000_000;
                prop_assert!(taken <= burst + since + 1, "{} of {}", taken, burst + since);
            }
        }
    }
}
