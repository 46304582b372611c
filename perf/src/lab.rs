//! The engine in a lab of network namespaces, beside what the kernel does on the same links.
//!
//! ```text
//!   generator ──────── in0  balancer  out0 ──────── sink
//!   198.18.0.2         198.18.0.1     198.19.0.1    198.19.0.11 to .14
//! ```
//!
//! The generator offers 64-byte UDP of many flows at a fixed rate, whatever comes of it (open
//! loop). A trial offers one rate; trials with growing rates go on until the generator can do no
//! more or the balancer sinks under the load, and the most that arrived in any of them is the
//! result: the maximum forwarding rate of RFC 2285, section 3.6.2. What arrives is counted the
//! same way for every case, by a rule on the sink's end of the last link.
//!
//! A veth's receiving side runs on the CPU that sends, as a driver's would on the CPU of the
//! queue's interrupt. So the generator's CPU also takes packets in; the balancer's work, a worker of
//! the engine or the kernel by way of RPS, has the other CPU, and the sink's side with it.

mod balancer;
mod generator;
mod network;
mod trial;

pub use generator::{Load, send};

use anyhow::{Context, Result, ensure};
use balancer::Case;
use clap::ValueEnum;
use lockstep_tests::lab::{Run, interrupted};
use network::Network;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trial::Trial;

/// The CPUs of a measurement.
#[derive(Debug, Clone, Copy)]
struct Cpus {
    generator: usize,
    balancer: usize,
}

/// What `lockstep-perf lab` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the results go.
    #[arg(long, default_value = "perf/results/lab.json")]
    output: PathBuf,
    /// Rounds, each with every case; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of each trial.
    #[arg(long, default_value_t = 1_000)]
    milliseconds: u64,
    /// Flows.
    #[arg(long, default_value_t = 1_000)]
    flows: u32,
    /// The cases to measure: all, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// The CPU of the generator.
    #[arg(long, default_value_t = 0)]
    generator_cpu: usize,
    /// The CPU of the balancer.
    #[arg(long, default_value_t = 1)]
    balancer_cpu: usize,
    /// Prints every trial.
    #[arg(long)]
    verbose: bool,
}

/// A row of `perf/results/lab.json`.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    /// The median of `rounds`.
    packets_per_second: f64,
    /// To the faster of the nftables cases; none when there was none.
    ratio_to_nftables: Option<f64>,
    /// The maximum forwarding rate of each round, in packets a second.
    rounds: Vec<f64>,
    /// The median over the rounds of the most that arrived with a loss of 1 % at most.
    packets_per_second_within_1_percent_loss: f64,
    /// The trial with the maximum forwarding rate, of the median round.
    best: Trial,
}

/// Measures every case in every round, in turns, and writes the results.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "The lab makes network namespaces and loads XDP programs, which needs root: run it with \
         sudo."
    );
    let cpus = cpus(arguments)?;
    interrupted::take_down_labs()?;
    let cases = if arguments.cases.is_empty() {
        Case::value_variants()
    } else {
        &arguments.cases
    };
    let mut rounds: Vec<(Case, Vec<Vec<Trial>>)> =
        cases.iter().map(|&case| (case, Vec::new())).collect();
    for round in 0..arguments.rounds.max(1) {
        eprintln!("round {} of {}", round + 1, arguments.rounds.max(1));
        // Every other round backwards, so that no case is always the first.
        let mut order: Vec<_> = rounds.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (case, results) in order {
            let trials = ramp(*case, cpus, arguments)
                .with_context(|| format!("cannot measure {}", case.name()))?;
            results.push(trials);
        }
    }
    let rows = rows(rounds);
    print(&rows);
    write(&arguments.output, &rows)
}

fn cpus(arguments: &Arguments) -> Result<Cpus> {
    let (generator, balancer) = (arguments.generator_cpu, arguments.balancer_cpu);
    let there = core_affinity::get_core_ids().context("cannot list the CPUs")?;
    for cpu in [generator, balancer] {
        ensure!(
            there.iter().any(|core| core.id == cpu),
            "there is no CPU {cpu} for this process; name others with --generator-cpu and \
             --balancer-cpu"
        );
    }
    ensure!(
        generator != balancer,
        "generator and balancer need a CPU each"
    );
    Ok(Cpus {
        generator,
        balancer,
    })
}

/// The first rate that is offered, in packets a second.
const FIRST: u64 = 200_000;
/// No rate above this is offered: more than a veth carries on any machine of today.
const LAST: u64 = 5_000_000;

/// One case in a network of its own: trials at growing rates.
fn ramp(case: Case, cpus: Cpus, arguments: &Arguments) -> Result<Vec<Trial>> {
    let run = Arc::new(Run::start()?);
    let network = Network::build(&run)?;
    let balancer = case.start(&network, cpus)?;
    let mut trials = Vec::new();
    let mut best = 0.0_f64;
    let mut beyond = 0;
    let mut offered = FIRST;
    // One trial beyond can be somebody else's doing, who had the CPU meanwhile.
    while offered <= LAST && beyond < 2 {
        let load = Load {
            flows: arguments.flows,
            packets_per_second: offered,
            milliseconds: arguments.milliseconds,
        };
        let trial = trial::run(&network, &balancer, case, cpus, &load)?;
        if arguments.verbose {
            eprintln!("{:<20} {}", case.name(), serde_json::to_string(&trial)?);
        }
        best = best.max(trial.packets_per_second);
        let exhausted = trial.sent_per_second < 0.9 * offered as f64;
        let sunk = trial.packets_per_second < 0.7 * best;
        beyond += usize::from(exhausted || sunk);
        trials.push(trial);
        offered = offered * 5 / 4;
    }
    Ok(trials)
}

fn rows(rounds: Vec<(Case, Vec<Vec<Trial>>)>) -> Vec<Row> {
    let mut rows: Vec<(Case, Row)> = rounds
        .into_iter()
        .map(|(case, rounds)| (case, row(case, rounds)))
        .collect();
    let nftables = rows
        .iter()
        .filter(|(case, _)| case.is_nftables())
        .map(|(_, row)| row.packets_per_second)
        .max_by(f64::total_cmp);
    for (_, row) in &mut rows {
        let ratio = nftables.map(|nftables| row.packets_per_second / nftables);
        row.ratio_to_nftables = ratio.map(|ratio| (ratio * 100.0).round() / 100.0);
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(case: Case, rounds: Vec<Vec<Trial>>) -> Row {
    let within = |trials: &Vec<Trial>| {
        let good = trials.iter().filter(|trial| trial.loss <= 0.01);
        good.map(|trial| trial.packets_per_second)
            .fold(0.0, f64::max)
    };
    let mut calm: Vec<f64> = rounds.iter().map(within).collect();
    calm.sort_by(f64::total_cmp);
    let by_rate = |a: &Trial, b: &Trial| a.packets_per_second.total_cmp(&b.packets_per_second);
    let mut best: Vec<Trial> = rounds
        .into_iter()
        .filter_map(|trials| trials.into_iter().max_by(by_rate))
        .collect();
    let rates = best.iter().map(|trial| trial.packets_per_second).collect();
    best.sort_by(by_rate);
    let median = best.swap_remove(best.len() / 2);
    Row {
        case: case.name(),
        packets_per_second: median.packets_per_second,
        ratio_to_nftables: None,
        rounds: rates,
        packets_per_second_within_1_percent_loss: calm[calm.len() / 2],
        best: median,
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<20} {:>9} {:>6} {:>9} {:>7} {:>6} {:>13} {:>14}",
        "case", "packets/s", "ratio", "≤1% loss", "loss", "CPU", "packets/burst", "packets/wakeup"
    );
    let figure = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    for row in rows {
        println!(
            "{:<20} {:>9.0} {:>6} {:>9.0} {:>6.1}% {:>6} {:>13} {:>14}",
            row.case,
            row.packets_per_second,
            row.ratio_to_nftables
                .map_or("-".into(), |ratio| format!("{ratio:.2}")),
            row.packets_per_second_within_1_percent_loss,
            row.best.loss * 100.0,
            row.best
                .engine
                .as_ref()
                .map_or("-".into(), |engine| format!("{:.0}%", engine.cpu * 100.0)),
            figure(row.best.engine.as_ref().map(|e| e.packets_per_burst)),
            figure(row.best.engine.as_ref().map(|e| e.packets_per_wakeup)),
        );
    }
}

fn write(output: &Path, rows: &[Row]) -> Result<()> {
    if let Some(parent) = output.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(output, serde_json::to_string_pretty(rows)? + "\n")
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("written to {}", output.display());
    Ok(())
}

#[cfg(test)]
mod tests;
