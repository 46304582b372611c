//! Times as a histogram: one writer, any number of readers, no locks.

use crate::counters::Count;

/// Buckets of each power of two, as a power of two: a value is known to within an eighth.
const PRECISION: u32 = 3;
const STEPS: usize = 1 << PRECISION;
/// Values from here on are in the last bucket: 2^36 is 69 seconds in nanoseconds, 19 hours in
/// microseconds.
const LARGEST: u32 = 36;
/// Buckets: those below [`STEPS`] hold one value each.
pub const BUCKETS: usize = STEPS * (LARGEST - PRECISION + 1) as usize;

/// How often which time was seen, in the unit of whoever records.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum: Count,
}

impl Histogram {
    /// Adds a value; only ever called by the worker that owns it.
    pub fn record(&self, value: u64) {
        self.buckets[bucket(value)].add(1);
        self.sum.add(value);
    }

    /// How often each bucket's values were seen, each with the first value past it; empty ones left
    /// out.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.buckets.iter().map(Count::get);
        let filled = counts.enumerate().filter(|(_, count)| *count > 0);
        filled.map(|(index, count)| (end(index), count))
    }

    /// Values seen.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Count::get).sum()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// The value that this share of all stays below, to within an eighth; none of no values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = (share * self.count() as f64) as u64;
        let mut seen = 0;
        let mut last = None;
        for (end, count) in self.buckets() {
            seen += count;
            last = Some(end);
            if seen > wanted {
                break;
            }
        }
        last
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: core::array::from_fn(|_| Count::default()),
            sum: Count::default(),
        }
    }
}

fn bucket(value: u64) -> usize {
    let power = value.max(1).ilog2();
    if power < PRECISION {
        return value as usize;
    }
    let shift = power - PRECISION;
    let step = (value >> shift) as usize - STEPS;
    ((shift as usize + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The first value past a bucket.
fn end(bucket: usize) -> u64 {
    let (row, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    match row.checked_sub(1) {
        None => step + 1,
        Some(shift) => (STEPS as u64 + step + 1) << shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_ends_behind_it() {
        for value in (0..5000).chain((13..36).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1])) {
            let index = bucket(value);
            let first = index.checked_sub(1).map_or(0, end);
            assert!(first <= value && value < end(index), "{value}");
            assert!(end(index) - first <= 1 + value / STEPS as u64, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (0..100).for_each(|value| histogram.record(value * 10));
        assert_eq!((histogram.count(), histogram.sum()), (100, 49_500));
        let median = histogram.quantile(0.5).unwrap();
        assert!((500..=576).contains(&median), "{median}");
    }
}
