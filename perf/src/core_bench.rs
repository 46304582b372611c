//! The dataplane alone: how long a packet takes on each of its paths, and how many instructions.

use crate::handover_bench;
use crate::written::{grouped, thousands};
use anyhow::bail;
use lockstep_core::BURST;
use lockstep_counts::callgrind;
use lockstep_counts::packets::{Bench, Case, MEASURED, PATHS};
use serde::Serialize;
use std::path::Path;

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

/// Packets per round: enough that 1,000,000 flows each see two.
const PACKETS: usize = 2_000_000;

/// Measures every path with `only` in its name and writes the results.
pub fn run(output: &Path, rounds: usize, instructions: bool, only: &str) -> anyhow::Result<()> {
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
            let mut times: Vec<f64> = (0..rounds.max(1)).map(|_| bench.round(PACKETS)).collect();
            times.sort_by(f64::total_cmp);
            let row = Row {
                path,
                flows,
                ns_per_packet: (times[times.len() / 2] * 100.0).round() / 100.0,
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
    crate::origin::write(output, &rows)
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
