//! The replicator alone: one session in memory, without a network, and what its packets cost.

use crate::output;
use crate::turn::Turn;
use crate::written::grouped;
use anyhow::{Context, Result};
use lockstep_counts::session::{Bench, Direction, Trial};
use serde::Serialize;
use std::path::PathBuf;

/// As usual: what whole results are of.
const REPLICAS: [usize; 3] = [1, 3, 10];
const MEGABYTES: u64 = 250;
const ROUNDS: usize = 3;
const FILE: &str = "perf/results/session.json";

/// What `lockstep-perf session` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the results go: perf/results/session.json, unless said otherwise; those of a run of not
    /// everything to perf/results/partial.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Numbers of replicas.
    #[arg(long, value_delimiter = ',', default_values_t = REPLICAS)]
    replicas: Vec<usize>,
    /// Megabytes that the client gets, or sends, in each round.
    #[arg(long, default_value_t = MEGABYTES)]
    megabytes: u64,
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
}

/// A row of `perf/results/session.json`.
#[derive(Debug, Serialize)]
struct Row {
    direction: &'static str,
    replicas: usize,
    /// In and out, at the replicator.
    packets: u64,
    ns_per_packet: f64,
    /// CPU seconds for a gigabyte that the client gets or sends.
    s_per_gb: f64,
}

/// What keeps a run from taking the place of a whole one.
fn lacks(arguments: &Arguments) -> Option<&'static str> {
    let has = |count: &usize| arguments.replicas.contains(count);
    if !REPLICAS.iter().all(has) {
        Some("not all numbers of replicas")
    } else if arguments.rounds < ROUNDS || arguments.megabytes < MEGABYTES {
        Some("less than is usually measured")
    } else {
        None
    }
}

/// The trial in the middle by its time, the slower of two: packets and bytes are those of one trial, as its time is.
fn middle(trials: &mut [Trial]) -> &Trial {
    trials.sort_by_key(|trial| trial.spent);
    &trials[trials.len() / 2]
}

/// Measures and writes the results.
pub fn run(arguments: &Arguments) -> Result<()> {
    let to = output::place(arguments.output.as_ref(), FILE, lacks(arguments));
    output::file_must_be_writable(&to)?;
    let _turn = Turn::take("session")?;
    let mut rows = Vec::new();
    println!(
        "{:<9} {:>8} {:>10} {:>9} {:>8}",
        "", "replicas", "packets", "ns/packet", "s/GB"
    );
    for &replicas in &arguments.replicas {
        for (direction, name) in [
            (Direction::Download, "download"),
            (Direction::Upload, "upload"),
        ] {
            let mut trials = (0..arguments.rounds.max(1))
                .map(|_| Bench::new(replicas, direction)?.run(arguments.megabytes * 1_000_000))
                .collect::<Result<Vec<_>>>()
                .with_context(|| format!("{name} with {replicas} replicas"))?;
            let trial = middle(&mut trials);
            let ns = trial.spent.as_nanos() as f64;
            let row = Row {
                direction: name,
                replicas,
                packets: trial.packets,
                ns_per_packet: (ns / trial.packets as f64 * 10.0).round() / 10.0,
                s_per_gb: (ns / trial.bytes as f64 * 1e3).round() / 1e3,
            };
            println!(
                "{name:<9} {replicas:>8} {:>10} {:>9} {:>8}",
                grouped(row.packets),
                row.ns_per_packet,
                row.s_per_gb
            );
            rows.push(row);
        }
    }
    crate::origin::write(&to, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_row_is_of_one_trial_the_slower_of_two_in_the_middle() {
        let packets_of = |of_each: &[u64]| {
            let trial = |&seconds: &u64| Trial {
                spent: Duration::from_secs(seconds),
                packets: 100 + seconds,
                bytes: 1,
            };
            let mut trials: Vec<Trial> = of_each.iter().map(trial).collect();
            middle(&mut trials).packets
        };
        assert_eq!(packets_of(&[7]), 107);
        assert_eq!(packets_of(&[3, 9, 5]), 105);
        assert_eq!(packets_of(&[9, 2]), 109);
        assert_eq!(packets_of(&[1, 4, 8, 6]), 106);
    }
}
