//! Streams of several rounds, as series of a figure.

use super::path::Way;
use super::stream::{Interval, Sender, Stream};
use crate::experiments::machine::Sample;
use crate::figure::{Axis, Figure, Kind, Point, Series};
use crate::measure::{median, rounded};
use lockstep_tests::lab::Direction;

/// Before this, a stream is not yet at its speed.
const STEADY: f64 = 0.5;

/// A way's streams in one direction, one of each round.
#[derive(Debug, Clone)]
pub struct Rounds {
    /// The way.
    pub way: Way,
    /// Where the bytes go.
    pub direction: Direction,
    /// The streams.
    pub streams: Vec<Stream>,
}

/// A value of each step, with its time.
type Steps = Vec<(f64, f64)>;

/// Something that is measured in every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Megabytes a second.
    Bytes,
    /// Segments sent again, a second.
    Retransmits,
    /// Smoothed round-trip time, in microseconds.
    Rtt,
    /// Its mean deviation, likewise.
    RttVariance,
    /// The share of both CPUs that was not idle.
    Cpu,
    /// Context switches a second.
    Switches,
}

impl Measure {
    /// All, in the order of theirs.
    pub const ALL: [Measure; 6] = [
        Measure::Cpu,
        Measure::Switches,
        Measure::Bytes,
        Measure::Retransmits,
        Measure::Rtt,
        Measure::RttVariance,
    ];

    /// What the names of its figures end with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Measure::Bytes => "bytes",
            Measure::Retransmits => "retransmits",
            Measure::Rtt => "rtt",
            Measure::RttVariance => "rtt-variance",
            Measure::Cpu => "cpu",
            Measure::Switches => "switches",
        }
    }

    /// What it is, for titles and axes.
    pub const fn name(self) -> &'static str {
        match self {
            Measure::Bytes => "megabytes transmitted",
            Measure::Retransmits => "retransmits",
            Measure::Rtt => "RTT of the client",
            Measure::RttVariance => "RTT variance of the client",
            Measure::Cpu => "CPU of the machine",
            Measure::Switches => "context switches",
        }
    }

    /// Its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Measure::Bytes => "MB/s",
            Measure::Retransmits | Measure::Switches => "1/s",
            Measure::Rtt | Measure::RttVariance => "µs",
            Measure::Cpu => "%",
        }
    }

    /// Whether only the sending client knows it.
    pub const fn of_sender(self) -> bool {
        matches!(
            self,
            Measure::Retransmits | Measure::Rtt | Measure::RttVariance
        )
    }

    fn steps(self, stream: &Stream) -> Steps {
        let of_sender = |value: fn(Sender) -> f64| -> Steps {
            let intervals = stream.intervals.iter();
            let sent = intervals.filter_map(|i| i.sender.map(|sender| (i.at, value(sender))));
            sent.collect()
        };
        let of_intervals = |value: fn(&Interval) -> f64| -> Steps {
            (stream.intervals.iter())
                .map(|i| (i.at, value(i)))
                .collect()
        };
        let of_samples = |value: fn(&Sample) -> f64| -> Steps {
            stream.samples.iter().map(|s| (s.at, value(s))).collect()
        };
        match self {
            Measure::Bytes => of_intervals(|interval| interval.megabytes),
            Measure::Retransmits => of_sender(|sender| sender.retransmits),
            Measure::Rtt => of_sender(|sender| sender.rtt_us),
            Measure::RttVariance => of_sender(|sender| sender.rtt_variance_us),
            Measure::Cpu => of_samples(|sample| sample.cpu),
            Measure::Switches => of_samples(|sample| sample.switches),
        }
    }

    /// A figure of it, still without anything in it.
    pub fn figure(self, id: &str, title: &str, kind: Kind, x: Axis) -> Figure {
        Figure {
            id: format!("{id}-{}", self.suffix()),
            title: format!("{title}: {}", self.name()),
            kind,
            x,
            y: Axis::new(self.name(), self.unit()),
            labels: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
            theirs_from: String::new(),
            differs: super::LAB.map(str::to_owned).to_vec(),
            facts: Vec::new(),
            quick: false,
        }
    }
}

/// Seconds from the beginning.
pub fn seconds() -> Axis {
    Axis::new("time", "s")
}

impl Rounds {
    /// One without a round so far.
    pub const fn new(way: Way, direction: Direction) -> Self {
        Rounds {
            way,
            direction,
            streams: Vec::new(),
        }
    }

    /// A measure over the time; each step is the median of the rounds.
    pub fn over_time(&self, measure: Measure) -> Series {
        let rounds: Vec<Steps> = self.streams.iter().map(|s| measure.steps(s)).collect();
        Series {
            name: self.way.name(),
            points: median_steps(&rounds),
        }
    }

    /// The mean of each round's steps, its beginning left out.
    pub fn means(&self, measure: Measure) -> Vec<f64> {
        let steps = self.streams.iter().map(|stream| measure.steps(stream));
        steps.map(|steps| rounded(mean(&steps), 3)).collect()
    }

    /// The median of the rounds' means.
    pub fn mean(&self, measure: Measure) -> f64 {
        median(self.means(measure))
    }

    /// The median over the rounds of something of their samples' means.
    pub fn of_samples(&self, value: fn(&Sample) -> f64) -> f64 {
        let of_round = |stream: &Stream| {
            let steps: Steps = stream.samples.iter().map(|s| (s.at, value(s))).collect();
            mean(&steps)
        };
        rounded(median(self.streams.iter().map(of_round).collect()), 3)
    }

    /// CPU seconds of the machine for a gigabyte of the client's.
    pub fn cpu_seconds_per_gigabyte(&self) -> f64 {
        // Percent of two CPUs; megabytes a second.
        let cpu_seconds = 2.0 * self.mean(Measure::Cpu) / 100.0;
        rounded(cpu_seconds / (self.mean(Measure::Bytes) / 1_000.0), 3)
    }
}

/// The mean of the steps after the beginning; of all, where there are no others.
fn mean(steps: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = (steps.iter())
        .filter(|(at, _)| *at > STEADY)
        .map(|(_, value)| *value)
        .collect();
    if values.is_empty() {
        values = steps.iter().map(|(_, value)| *value).collect();
    }
    values.iter().sum::<f64>() / values.len() as f64
}

/// The steps that all rounds have.
fn median_steps(rounds: &[Steps]) -> Vec<Point> {
    let count = rounds.iter().map(Vec::len).min().unwrap_or(0);
    let step = |index: usize| {
        let times: Vec<f64> = rounds.iter().map(|steps| steps[index].0).collect();
        let values: Vec<f64> = (rounds.iter())
            .map(|steps| rounded(steps[index].1, 3))
            .collect();
        Point::of_rounds(rounded(median(times), 2), &values)
    };
    (0..count).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_medians_of_the_rounds_as_far_as_all_have_them() {
        let rounds = [
            vec![(0.25, 1.0), (0.75, 10.0)],
            vec![(0.26, 3.0), (0.76, 30.0), (1.0, 0.0)],
            vec![(0.27, 2.0), (0.74, 20.0)],
        ];
        let points = median_steps(&rounds);
        let found: Vec<_> = points.iter().map(|p| (p.x, p.y, p.low, p.high)).collect();
        assert_eq!(found, [(0.26, 2.0, 1.0, 3.0), (0.75, 20.0, 10.0, 30.0)]);
        assert!(median_steps(&[]).is_empty());
    }

    #[test]
    fn the_beginning_of_a_stream_is_not_in_its_mean() {
        assert_eq!(mean(&[(0.25, 100.0), (0.75, 1.0), (1.25, 3.0)]), 2.0);
        assert_eq!(mean(&[(0.25, 100.0)]), 100.0);
    }
}
