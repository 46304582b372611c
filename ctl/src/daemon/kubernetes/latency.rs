//! How long it takes from a change that is heard of to an engine that has it in force.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The bounds of the histogram's buckets, in milliseconds. The goal is 300.
pub const BOUNDS: [u64; 12] = [5, 10, 25, 50, 100, 200, 300, 400, 600, 1_000, 3_000, 10_000];

/// Sets of services that are under way to the engine. More than these are not measured.
const UNDER_WAY: usize = 1_024;

/// A histogram, and what is not in it yet.
#[derive(Debug, Default)]
pub struct Latency {
    under_way: VecDeque<(u64, Vec<Instant>)>,
    /// Observations at or under each bound, and those over all of them.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Latency {
    /// Something was told that follows from what was heard at these times.
    pub fn told(&mut self, revision: u64, heard: Vec<Instant>) {
        if !heard.is_empty() && self.under_way.len() < UNDER_WAY {
            self.under_way.push_back((revision, heard));
        }
    }

    /// The engine has all up to this revision in force.
    pub fn in_force(&mut self, revision: Option<u64>, now: Instant) {
        let Some(revision) = revision else {
            return;
        };
        let is_later = |(told, _): &(u64, Vec<Instant>)| *told > revision;
        let done = self.under_way.iter().take_while(|told| !is_later(told));
        let done = done.count();
        let heard: Vec<Instant> = self.under_way.drain(..done).flat_map(|(_, h)| h).collect();
        for at in heard {
            self.observe(now.duration_since(at));
        }
    }

    fn observe(&mut self, time: Duration) {
        let is_over = |bound: &&u64| Duration::from_millis(**bound) < time;
        let bucket = BOUNDS.iter().take_while(is_over).count();
        self.buckets[bucket] += 1;
        self.sum += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_counted_once_by_how_long_it_took() {
        let (mut latency, now) = (Latency::default(), Instant::now());
        let ago = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
        latency.told(1, vec![ago(300), ago(20)]);
        latency.told(2, vec![ago(11_000)]);
        latency.told(3, vec![ago(1)]);
        latency.in_force(None, now);
        assert_eq!(latency.buckets.iter().sum::<u64>(), 0);
        latency.in_force(Some(2), now);
        latency.in_force(Some(2), now);
        assert_eq!(latency.buckets, [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(latency.sum, Duration::from_millis(11_320));
    }
}
