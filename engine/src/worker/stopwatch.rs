//! How long packets take from their receipt to their sending, as samples.

use arrayvec::ArrayVec;
use lockstep_core::histogram::Histogram;
use std::time::Instant;

/// One burst in so many is timed, and of those under RPS the first packet that goes to another worker.
pub const SAMPLE: u32 = 16;

/// What is timed and comes to its end in this turn, at most: a burst of each of some sockets, and a
/// packet from each of some workers. Beyond that, samples are left out.
const NOTES: usize = 8;

/// Times packets from the start of the turn that received them to the moment when the kernel has all
/// that its last turn sent. The clock is read once more in turns with a sample, and only in those.
#[derive(Debug, Default)]
pub struct Stopwatch {
    bursts: u32,
    notes: ArrayVec<Instant, NOTES>,
}

impl Stopwatch {
    /// Whether this burst is timed.
    #[inline]
    pub fn samples(&mut self) -> bool {
        self.bursts = self.bursts.wrapping_add(1);
        self.bursts.is_multiple_of(SAMPLE)
    }

    /// Notes that something is on its way out, with when it was received if it is timed.
    #[inline]
    pub fn note(&mut self, received: Option<Instant>) {
        if let Some(received) = received {
            // One more is left out.
            let _ = self.notes.try_push(received);
        }
    }

    /// Everything of this turn is sent. Values are nanoseconds.
    #[inline]
    pub fn stop(&mut self, latency: &Histogram) {
        if self.notes.is_empty() {
            return;
        }
        let now = Instant::now();
        for received in self.notes.drain(..) {
            let taken = now.duration_since(received).as_nanos();
            latency.record(u64::try_from(taken).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_burst_in_sixteen_is_timed_to_the_end_of_its_turn() {
        let (mut stopwatch, latency) = (Stopwatch::default(), Histogram::default());
        let long_ago = Instant::now() - Duration::from_millis(3);
        let mut sampled = 0;
        for _ in 0..10 * SAMPLE {
            let samples = stopwatch.samples();
            sampled += u64::from(samples);
            stopwatch.note(samples.then_some(long_ago));
            stopwatch.stop(&latency);
        }
        assert_eq!((sampled, latency.count()), (10, 10));
        assert!(latency.sum() >= 30_000_000);
    }

    #[test]
    fn more_samples_than_fit_in_a_turn_are_left_out() {
        let (mut stopwatch, latency) = (Stopwatch::default(), Histogram::default());
        for _ in 0..2 * NOTES {
            stopwatch.note(Some(Instant::now()));
        }
        stopwatch.stop(&latency);
        assert_eq!(latency.count(), NOTES as u64);
        stopwatch.stop(&latency);
        assert_eq!(latency.count(), NOTES as u64);
    }
}
