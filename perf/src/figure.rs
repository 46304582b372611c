//! A figure: what was measured, beside what others have published, as JSON that is drawn and tabled
//! by the report.

use crate::measure::rounded;
use crate::origin::{Origin, Saved};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// What stands on a terminal, a page and a picture of a short run.
pub const SHORT_RUN: &str = "From a short run, to try the tool out: no result.";

/// How a figure is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Points joined by lines: y over x.
    Lines,
    /// A bar for each point of each series; `labels` names the points by their x, from 0 on. On a logarithmic
    /// axis a sign instead of a bar: there is no zero that its length could be counted from.
    Bars,
    /// A cumulative distribution: x a value, y the share of samples at most that large.
    Distribution,
    /// y over the seconds since a beginning.
    Time,
}

/// A measured value, with what it came apart by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where on the axis.
    pub x: f64,
    /// The median of the rounds.
    pub y: f64,
    /// The least of the rounds.
    pub low: f64,
    /// The most of the rounds.
    pub high: f64,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What they are of.
    pub name: String,
    /// In the order of x.
    pub points: Vec<Point>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// What it shows.
    pub label: String,
    /// Its unit; empty for plain numbers.
    pub unit: String,
    /// Whether it is logarithmic.
    #[serde(default)]
    pub logarithmic: bool,
}

/// A number that a figure is about, beside theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// As measured here.
    pub ours: f64,
    /// As published; none where it is not.
    pub theirs: Option<f64>,
    /// Of both.
    pub unit: String,
}

/// What was measured for one figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The name of its file: `003-4.2`, `000-4`, `compare-packets-64`, `model-hosts`.
    pub id: String,
    /// One line.
    pub title: String,
    /// How it is drawn.
    pub kind: Kind,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The names of x's values, in bars.
    #[serde(default)]
    pub labels: Vec<String>,
    /// As measured here.
    pub ours: Vec<Series>,
    /// As published.
    #[serde(default)]
    pub theirs: Vec<Series>,
    /// Where that stands: the seed, and its figure, table or page.
    #[serde(default)]
    pub theirs_from: String,
    /// What was not the same, a sentence each.
    pub differs: Vec<String>,
    /// What the figure comes to.
    pub facts: Vec<Fact>,
    /// Whether the run was a short one, to try the tool out.
    pub quick: bool,
}

impl Axis {
    /// One with even steps.
    pub fn new(label: &str, unit: &str) -> Self {
        Axis {
            label: label.to_owned(),
            unit: unit.to_owned(),
            logarithmic: false,
        }
    }

    /// One with a logarithmic scale.
    pub fn logarithmic(label: &str, unit: &str) -> Self {
        Axis {
            logarithmic: true,
            ..Axis::new(label, unit)
        }
    }
}

impl Fact {
    /// With theirs, where it is published.
    pub fn new(name: impl Into<String>, ours: f64, theirs: Option<f64>, unit: &str) -> Self {
        Fact {
            name: name.into(),
            ours,
            theirs,
            unit: unit.to_owned(),
        }
    }
}

/// Steps of a distribution: enough to draw it.
const STEPS: usize = 200;
/// The shares near its end that are told apart as well.
const ENDS: [f64; 2] = [0.999, 0.9999];

impl Series {
    /// The share of sorted values that are at most as large, up to 1.
    pub fn distribution(name: &str, sorted: &[f64]) -> Self {
        let count = sorted.len();
        let steps = count.min(STEPS);
        let ranks = (1..=steps).map(|step| (step * count).div_ceil(steps));
        let ends = ENDS.map(|share| (share * count as f64).ceil() as usize);
        let ends = ends.into_iter().filter(|&rank| rank > 0);
        let ranks: BTreeSet<usize> = ranks.chain(ends).collect();
        let point = |rank: usize| {
            let share = rank as f64 / count as f64;
            Point::new(rounded(sorted[rank - 1], 4), rounded(share, 5))
        };
        Series {
            name: name.to_owned(),
            points: ranks.into_iter().map(point).collect(),
        }
    }
}

impl Point {
    /// A value of one round.
    pub fn new(x: f64, y: f64) -> Self {
        Point {
            x,
            y,
            low: y,
            high: y,
        }
    }

    /// The median of rounds, and how far they came apart.
    pub fn of_rounds(x: f64, rounds: &[f64]) -> Self {
        Point {
            x,
            y: crate::measure::median(rounds.to_vec()),
            low: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            high: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl Figure {
    /// What least and most are of: a model has no rounds, and latency beside others several trials in each.
    pub fn spread_over(&self) -> &'static str {
        match self.id.as_str() {
            id if id.starts_with("compare-latency") => "the trials",
            _ if self.is_model() => "the simulated course",
            _ => "the rounds",
        }
    }

    /// Whether it is reckoned or simulated, not measured.
    pub fn is_model(&self) -> bool {
        self.id.starts_with("model-")
    }

    /// Writes it below the directory of results, as `figures/ID.json`, with its origin.
    ///
    /// # Errors
    ///
    /// When nothing can be written there.
    pub fn save(&self, results: &Path) -> Result<()> {
        let saved = Saved {
            origin: Some(Origin::look()),
            what: self,
        };
        let file = format!("figures/{}.json", self.id);
        crate::output::write(&results.join(file), &saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(sorted: &[f64]) -> Vec<(f64, f64)> {
        let series = Series::distribution("x", sorted);
        series.points.iter().map(|p| (p.x, p.y)).collect()
    }

    #[test]
    fn a_distribution_ends_with_the_largest_value_and_never_goes_down() {
        let values: Vec<f64> = (1..=10_000).map(f64::from).collect();
        let points = points(&values);
        assert_eq!(points.len(), STEPS + ENDS.len());
        assert_eq!(
            points[STEPS - 1..],
            [(9_990.0, 0.999), (9_999.0, 0.9999), (10_000.0, 1.0)]
        );
        let mut pairs = points.windows(2);
        assert!(pairs.all(|p| p[0].0 < p[1].0 && p[0].1 < p[1].1));
    }

    #[test]
    fn a_distribution_of_few_values_has_all_of_them() {
        let found = points(&[0.1, 0.2, 0.2, 0.4]);
        assert_eq!(found, [(0.1, 0.25), (0.2, 0.5), (0.2, 0.75), (0.4, 1.0)]);
        assert!(points(&[]).is_empty());
    }
}
