//! What has grown, and what has shrunk: a baseline that keeps the length of before lets a path grow back to it unseen.

use super::Counts;
use std::collections::BTreeSet;
use std::fmt;

/// By how much a path may grow or shrink: 5 %.
const TOLERANCE: f64 = 0.05;

/// All paths, of the baseline and of now.
#[derive(Debug)]
pub struct Comparison(Vec<Row>);

#[derive(Debug)]
struct Row {
    path: String,
    baseline: Option<f64>,
    now: Option<f64>,
}

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    Shrunk,
    Grown,
    /// Not in the baseline.
    Unknown,
    /// In the baseline only.
    Gone,
}

/// Compares what is counted now with what is right.
pub fn compare(baseline: &Counts, now: &Counts) -> Comparison {
    let paths: BTreeSet<&String> = baseline.keys().chain(now.keys()).collect();
    let row = |path: &String| Row {
        path: path.clone(),
        baseline: baseline.get(path).copied(),
        now: now.get(path).copied(),
    };
    Comparison(paths.into_iter().map(row).collect())
}

impl Comparison {
    /// Whether each path needs as much as in the baseline, and the baseline has exactly the paths that there are.
    pub fn is_passed(&self) -> bool {
        self.0.iter().all(|row| row.outcome() == Outcome::Same)
    }

    /// Whether a path needs more than before.
    pub fn has_grown(&self) -> bool {
        self.0.iter().any(|row| row.outcome() == Outcome::Grown)
    }

    /// A sentence for each path that does not pass.
    pub fn what_is_wrong(&self) -> Vec<String> {
        self.0.iter().filter_map(Row::complaint).collect()
    }
}

impl Row {
    /// How much more there is now, as a share of the baseline.
    fn change(&self) -> Option<f64> {
        Some(self.now? / self.baseline? - 1.0)
    }

    fn outcome(&self) -> Outcome {
        match (self.baseline, self.now, self.change()) {
            (Some(_), None, _) => Outcome::Gone,
            (None, _, _) => Outcome::Unknown,
            (Some(_), Some(_), Some(change)) if change <= TOLERANCE => {
                if change < -TOLERANCE {
                    Outcome::Shrunk
                } else {
                    Outcome::Same
                }
            }
            (Some(_), Some(_), _) => Outcome::Grown,
        }
    }

    fn complaint(&self) -> Option<String> {
        let path = &self.path;
        match self.outcome() {
            Outcome::Same => None,
            Outcome::Shrunk => Some(format!(
                "{path} needs {} instructions, {} on the baseline's {}: it stays so short once that is the baseline.",
                number(self.now),
                percent(self.change()),
                number(self.baseline),
            )),
            Outcome::Grown => Some(format!(
                "{path} needs {} instructions, {} on the baseline's {}: over {:.0} %.",
                number(self.now),
                percent(self.change()),
                number(self.baseline),
                TOLERANCE * 100.0,
            )),
            Outcome::Unknown => Some(format!("{path} is not in the baseline.")),
            Outcome::Gone => Some(format!(
                "{path} is in the baseline, and there is no such path."
            )),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = ("instructions of", "baseline", "now", "change");
        writeln!(
            f,
            "{:<20} {:>12} {:>12} {:>8}",
            title.0, title.1, title.2, title.3
        )?;
        for row in &self.0 {
            let (baseline, now) = (number(row.baseline), number(row.now));
            let change = percent(row.change());
            let mark = match row.outcome() {
                Outcome::Same => "",
                Outcome::Shrunk => "  SHORTER",
                Outcome::Grown => "  GROWN",
                Outcome::Unknown => "  NOT IN THE BASELINE",
                Outcome::Gone => "  NO SUCH PATH",
            };
            writeln!(
                f,
                "{:<20} {baseline:>12} {now:>12} {change:>8}{mark}",
                row.path
            )?;
        }
        Ok(())
    }
}

/// Of a packet with its tenths, of a megabyte in thousands.
fn number(count: Option<f64>) -> String {
    match count {
        None => "-".to_owned(),
        Some(count) if count < 100_000.0 => format!("{count:.1}"),
        Some(count) => format!("{:.1} k", count / 1e3),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:+.1} %", share * 100.0))
}
