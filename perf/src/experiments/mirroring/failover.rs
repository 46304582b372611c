//! How long a client gets nothing when its primary fails.

use super::{LAB, SEED};
use crate::experiments::Settings;
use crate::experiments::engine::cpus;
use crate::figure::{Axis, Fact, Figure, Kind, Series};
use crate::measure::{percentile, rounded};
use crate::replicate::switchover::{Commit, Fault, measure};
use anyhow::{Context, Result};
use std::time::Duration;

/// Kinds of failure, their names, and how many of them: in a full and in a quick run.
const FAULTS: [(Fault, &str, Commit, [usize; 2]); 4] = [
    (Fault::Killed, "killed", Commit::Primary, [60, 4]),
    (Fault::Silent, "frozen", Commit::Primary, [60, 4]),
    (Fault::Cut, "cut off", Commit::Primary, [24, 2]),
    (
        Fault::Killed,
        "killed, two of three must agree",
        Commit::QuorumOfTwo,
        [24, 1],
    ),
];

/// One kind after the other.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let cpus = cpus()?;
    let milliseconds = |times: &[Duration]| {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let (mut ours, mut facts, mut undisturbed) = (Vec::new(), Vec::new(), Vec::new());
    let mut fact = |name: String, ours: f64, theirs: Option<f64>, unit: &str| {
        facts.push(Fact {
            name,
            ours: rounded(ours, 2),
            theirs,
            unit: unit.to_owned(),
        });
    };
    for (fault, name, commit, counts) in FAULTS {
        let count = counts[usize::from(settings.quick)];
        let gaps = measure(fault, commit, cpus, count).with_context(|| name.to_owned())?;
        let switched = milliseconds(&gaps.switched);
        undisturbed.extend(gaps.undisturbed);
        fact(
            format!("{name}: median"),
            percentile(&switched, 0.5),
            None,
            "ms",
        );
        fact(
            format!("{name}: longest"),
            percentile(&switched, 1.0),
            Some(2_000.0),
            "ms",
        );
        fact(format!("{name}: failures"), switched.len() as f64, None, "");
        ours.push(Series::distribution(name, &switched));
    }
    let undisturbed = milliseconds(&undisturbed);
    fact(
        "nothing: median".to_owned(),
        percentile(&undisturbed, 0.5),
        None,
        "ms",
    );
    fact(
        "nothing: longest".to_owned(),
        percentile(&undisturbed, 1.0),
        None,
        "ms",
    );
    ours.push(Series::distribution("nothing happens", &undisturbed));
    let x = Axis::logarithmic("longest time without a byte", "ms");
    Ok(vec![Figure {
        id: "002-failover".to_owned(),
        title: "Time without a byte when the primary fails".to_owned(),
        kind: Kind::Distribution,
        x,
        y: Axis::new("share of failures", ""),
        labels: Vec::new(),
        ours,
        theirs: Vec::new(),
        theirs_from: format!("{SEED}, 3.4.3: \"typically configured to respond in <2 seconds\""),
        differs: vec![
            LAB.to_owned(),
            "Theirs is what timeouts can be set to, and fails requests that were under way; here a \
             download goes on through three replicas, and every byte of it is checked."
                .to_owned(),
            "The client is watched for 0.2 s from each failure on, and as long before it, when \
             nothing happens."
                .to_owned(),
        ],
        facts,
        quick: false,
    }])
}
