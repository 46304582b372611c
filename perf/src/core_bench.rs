//! The dataplane alone: how long a packet takes on each of its paths, and how many instructions.

use crate::handover_bench;
use crate::measure::{median, rounded};
use crate::output;
use crate::programs;
use crate::turn::Turn;
use crate::written::{grouped, thousands};
use anyhow::{bail, ensure};
use lockstep_core::BURST;
use lockstep_counts::callgrind;
use lockstep_counts::packets::{Bench, Case, MEASURED, PATHS};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A row of `perf/results/core.json`.
#[derive(Debug, Serialize)]
struct Row {
    path: &'static str,
    flows: u32,
    ns_per_packet: f64,
    instructions_per_packet: Option<f64>,
}

/// The path that [`handover_bench`] counts.
const HANDOVER: &str = "handover";

/// As usual; results of fewer rounds are no whole ones.
pub const ROUNDS: usize = 7;
const FILE: &str = "perf/results/core.json";

/// Packets per round: enough that 1,000,000 flows each see two.
const PACKETS: usize = 2_000_000;

/// Measures every path with `only` in its name and writes the results.
///
/// # Errors
///
/// When there is no such path, or something cannot be measured or written.
pub fn run(
    named: Option<&PathBuf>,
    rounds: usize,
    instructions: bool,
    only: &str,
) -> anyhow::Result<()> {
    let known = || PATHS.iter().map(|case| case.name).chain([HANDOVER]);
    ensure!(
        known().any(|name| name.contains(only)),
        "no path has {only:?} in its name; there are {}",
        known().collect::<Vec<_>>().join(", ")
    );
    if instructions {
        programs::must_be_there(&BTreeSet::from(["valgrind"]))?;
    }
    let to = &output::place(named, FILE, lacks(rounds, instructions, only));
    output::file_must_be_writable(to)?;
    let _turn = Turn::take("core")?;
    let mut rows = Vec::new();
    println!(
        "{:<20} {:>9} {:>12} {:>20}",
        "path", "flows", "ns/packet", "instructions/packet"
    );
    for case in PATHS.iter().filter(|case| case.name.contains(only)) {
        let &Case {
            name: path,
            flows: sizes,
            ..
        } = case;
        for &flows in sizes {
            let mut bench = bench(case, flows);
            bench.round(PACKETS / 4);
            let times: Vec<f64> = (0..rounds.max(1)).map(|_| bench.round(PACKETS)).collect();
            let row = Row {
                path,
                flows,
                ns_per_packet: rounded(median(times), 2),
                instructions_per_packet: (instructions && is_counted(flows, sizes))
                    .then(|| count_instructions(path, flows))
                    .transpose()?,
            };
            let counted = row.instructions_per_packet.map_or("-".into(), thousands);
            println!(
                "{path:<20} {:>9} {:>12.1} {counted:>20}",
                grouped(flows.into()),
                row.ns_per_packet
            );
            rows.push(row);
        }
    }
    let handovers = match HANDOVER.contains(only) {
        true => handover_bench::run(rounds.max(1))?.to_vec(),
        false => Vec::new(),
    };
    for (path, ns_per_packet) in handovers {
        let flows = handover_bench::FLOWS;
        let counts = instructions && path == HANDOVER;
        let counted = counts.then(|| count_handover(flows)).transpose()?;
        println!(
            "{path:<20} {:>9} {ns_per_packet:>12.1} {:>20}",
            grouped(flows.into()),
            counted.map_or("-".into(), thousands)
        );
        rows.push(Row {
            path,
            flows,
            ns_per_packet: (ns_per_packet * 100.0).round() / 100.0,
            instructions_per_packet: counted,
        });
    }
    crate::origin::write(to, &rows)
}

/// What keeps a run from taking the place of a whole one.
fn lacks(rounds: usize, instructions: bool, only: &str) -> Option<&'static str> {
    if !only.is_empty() {
        Some("not all paths")
    } else if rounds < ROUNDS {
        Some("fewer rounds than usual")
    } else if !instructions {
        Some("no instruction counts")
    } else {
        None
    }
}

/// Under callgrind, opening flows takes fifty times as long, and the number of them hardly changes what
/// is counted: with many, each path is counted once.
fn is_counted(flows: u32, sizes: &[u32]) -> bool {
    flows <= 100_000 || sizes.first() == Some(&flows)
}

/// Packets that callgrind counts: every instruction of them, so few suffice.
const COUNTED: usize = 64 * 1000;

/// The measured part alone, for callgrind.
pub fn count(path: &str, flows: u32) -> anyhow::Result<()> {
    if path == HANDOVER {
        return handover_bench::count();
    }
    let Some(case) = PATHS.iter().find(|known| known.name == path) else {
        bail!("no path {path}");
    };
    bench(case, flows).round(COUNTED);
    Ok(())
}

/// Instructions per packet, as callgrind counts them inside the dataplane.
fn count_instructions(path: &str, flows: u32) -> anyhow::Result<f64> {
    let total = callgrind::count(&["count", path, &flows.to_string()], &[MEASURED])?;
    Ok((total as f64 / COUNTED as f64 * 10.0).round() / 10.0)
}

/// Those of the hand-over without the processing.
fn count_handover(flows: u32) -> anyhow::Result<f64> {
    let toggles = handover_bench::TOGGLES.map(|name| format!("*handover_bench*::{name}*"));
    let total = callgrind::count(&["count", HANDOVER, &flows.to_string()], &toggles)?;
    let packets = handover_bench::COUNTED * BURST;
    Ok((total as f64 / packets as f64 * 10.0).round() / 10.0)
}

/// A dataplane with room for a busy service's flows.
fn bench(case: &Case, flows: u32) -> Bench {
    Bench::new(case.traffic, flows, flows.max(1_000_000) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_those_that_are() {
        let named = PathBuf::from("/dev/null");
        let error = run(Some(&named), 1, false, "nothing").expect_err("no such path");
        let text = error.to_string();
        assert!(
            text.contains("nothing") && text.contains("tunnel-v4"),
            "{text}"
        );
    }

    #[test]
    fn only_a_run_of_everything_is_whole() {
        assert_eq!(lacks(ROUNDS, true, ""), None);
        assert!(lacks(ROUNDS - 1, true, "").is_some());
        assert!(lacks(ROUNDS, false, "").is_some());
        assert!(lacks(ROUNDS, true, "tunnel").is_some());
    }
}
