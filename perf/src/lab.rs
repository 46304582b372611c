//! The engine in a lab of network namespaces, beside what the kernel does on the same links.
//!
//! ```text
//!   generator ──────── in0  balancer  out0 ──────── sink
//!   198.18.0.2         198.18.0.1     198.19.0.1    198.19.0.11 to .14
//! ```
//!
//! The generator offers UDP of many flows in frames of one size at a fixed rate, whatever comes of it
//! (open loop). A trial offers one rate; trials with growing rates go on until the generator can do
//! no more or the balancer sinks under the load, and the most that arrived in any of them is the
//! result: the maximum forwarding rate of RFC 2285, section 3.6.2. What arrives is counted the
//! same way for every case, by a rule on the sink's end of the last link.
//!
//! A veth's receiving side runs on the CPU that sends, as a driver's would on the CPU of the
//! queue's interrupt. So the generator's CPU also takes packets in; the balancer's work, a worker of
//! the engine or the kernel by way of RPS, has the other CPU, and the sink's side with it. What an
//! XDP program does before it gives packets to a worker is on the generator's CPU too, but for the
//! cases in which a kernel thread on the balancer's CPU takes packets in.

mod balancer;
mod generator;
mod network;
mod trial;

pub use generator::{Load, send};

use crate::measure::{median, needs_root, rounded, run_ahead_of_others, write};
use anyhow::{Context, Result, ensure};
use balancer::Case;
use clap::ValueEnum;
use lockstep_tests::lab::{Run, interrupted};
use network::Network;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use trial::Trial;

/// The CPUs of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// Of the generator.
    pub generator: usize,
    /// Of the balancer.
    pub balancer: usize,
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
    #[arg(long, default_value_t = 500)]
    milliseconds: u64,
    /// Flows.
    #[arg(long, default_value_t = 1_000)]
    flows: u32,
    /// Sizes of frames in bytes, their checksum sequences included.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1_400])]
    bytes: Vec<usize>,
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
    /// Bytes of each frame, its checksum sequence included.
    bytes: usize,
    /// The median of `rounds`.
    packets_per_second: f64,
    /// To the faster of the nftables cases with such frames; none when there was none.
    ratio_to_nftables: Option<f64>,
    /// The maximum forwarding rate of each round, in packets a second.
    rounds: Vec<f64>,
    /// The median over the rounds of the most that arrived with a loss of 1 % at most.
    packets_per_second_within_1_percent_loss: f64,
    /// The balancer's CPU time for a million packets at the maximum, the median of the rounds.
    cpu_s_per_million_packets: Option<f64>,
    /// The trial with the maximum forwarding rate, of the median round.
    best: Trial,
}

/// A case with frames of one size: the trials of each round.
#[derive(Debug)]
struct Series {
    case: Case,
    bytes: usize,
    rounds: Vec<Vec<Trial>>,
}

/// Measures every case in every round, in turns, and writes the results.
pub fn run(arguments: &Arguments) -> Result<()> {
    needs_root()?;
    let cpus = cpus(arguments)?;
    interrupted::take_down_labs()?;
    run_ahead_of_others()?;
    let cases = if arguments.cases.is_empty() {
        Case::value_variants()
    } else {
        &arguments.cases
    };
    let of_case = |&case: &Case| {
        let series = arguments.bytes.iter().map(|&bytes| Series {
            case,
            bytes,
            rounds: Vec::new(),
        });
        (case, series.collect::<Vec<_>>())
    };
    let mut all: Vec<(Case, Vec<Series>)> = cases.iter().map(of_case).collect();
    let rounds = arguments.rounds.max(1);
    for round in 0..rounds {
        eprintln!("packets, round {} of {rounds}", round + 1);
        // Every other round backwards, so that no case is always the first.
        let mut order: Vec<_> = all.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (case, series) in order {
            ramps(*case, series, cpus, arguments)
                .with_context(|| format!("cannot measure {}", case.name()))?;
        }
    }
    let rows = rows(all.into_iter().flat_map(|(_, series)| series).collect());
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
/// No rate below this is looked for.
const LEAST: u64 = 10_000;

/// One case in a network of its own: a ramp with frames of each size.
fn ramps(case: Case, series: &mut [Series], cpus: Cpus, arguments: &Arguments) -> Result<()> {
    let run = Arc::new(Run::start()?);
    let network = Network::build(&run)?;
    let balancer = case.start(&network, cpus)?;
    for series in series {
        let trial = |offered| {
            let load = Load {
                flows: arguments.flows,
                bytes: series.bytes,
                packets_per_second: offered,
                milliseconds: arguments.milliseconds,
            };
            let trial = trial::run(&network, &balancer, case, cpus, &load)?;
            if arguments.verbose {
                eprintln!("{:<20} {}", case.name(), serde_json::to_string(&trial)?);
            }
            Ok(trial)
        };
        let trials = ramp(trial, series.rounds.last().map(|last| most(last)))?;
        series.rounds.push(trials);
    }
    Ok(())
}

/// Trials at growing rates; where the round before had its maximum at `last`, most of those far
/// below it are left out.
fn ramp(mut trial: impl FnMut(u64) -> Result<Trial>, last: Option<f64>) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    let mut beyond = 0;
    let mut offered = FIRST;
    // One trial beyond can be somebody else's doing, who had the CPU meanwhile.
    while offered <= LAST && beyond < 2 {
        let outcome = trial(offered)?;
        let exhausted = outcome.sent_per_second < 0.9 * offered as f64;
        let sunk = outcome.packets_per_second < 0.7 * most(&trials) || outcome.loss > 0.4;
        beyond += usize::from(exhausted || sunk);
        trials.push(outcome);
        let jump = last.filter(|_| trials.len() == 1).unwrap_or(0.0) * 0.64;
        offered = (offered * 5 / 4).max(jump as u64);
    }
    // Where even the first rate was too much: what is not.
    let mut offered = FIRST / 2;
    while offered >= LEAST && trials.iter().all(|trial| trial.loss > CALM) {
        trials.push(trial(offered)?);
        offered /= 2;
    }
    ensure!(
        most(&trials) > 0.0,
        "no packet arrived: it does not forward"
    );
    Ok(trials)
}

/// The share of packets that may be lost where next to none are.
const CALM: f64 = 0.01;

/// The most that arrived in any trial, in packets a second.
fn most(trials: &[Trial]) -> f64 {
    let rates = trials.iter().map(|trial| trial.packets_per_second);
    rates.fold(0.0, f64::max)
}

/// The rows of one size after those of the other.
fn rows(series: Vec<Series>) -> Vec<Row> {
    let mut rows: Vec<(Case, Row)> = (series.into_iter())
        .map(|series| (series.case, row(series)))
        .collect();
    rows.sort_by_key(|(_, row)| row.bytes);
    let nftables = |bytes: usize| {
        let those = (rows.iter()).filter(|(case, row)| case.is_nftables() && row.bytes == bytes);
        let rates = those.map(|(_, row)| row.packets_per_second);
        rates.max_by(f64::total_cmp)
    };
    let ratios: Vec<Option<f64>> = (rows.iter())
        .map(|(_, row)| Some(rounded(row.packets_per_second / nftables(row.bytes)?, 2)))
        .collect();
    let rows = rows.into_iter().zip(ratios);
    rows.map(|((_, mut row), ratio)| {
        row.ratio_to_nftables = ratio;
        row
    })
    .collect()
}

fn row(series: Series) -> Row {
    let within = |trials: &Vec<Trial>| {
        let good = trials.iter().filter(|trial| trial.loss <= CALM);
        good.map(|trial| trial.packets_per_second)
            .fold(0.0, f64::max)
    };
    let calm = series.rounds.iter().map(within).collect();
    let by_rate = |a: &Trial, b: &Trial| a.packets_per_second.total_cmp(&b.packets_per_second);
    let mut best: Vec<Trial> = (series.rounds.into_iter())
        .filter_map(|trials| trials.into_iter().max_by(by_rate))
        .collect();
    let rates = best.iter().map(|trial| trial.packets_per_second).collect();
    let cpu = best.iter().map(|trial| trial.cpu_s_per_million_packets);
    let cpu: Option<Vec<f64>> = cpu.collect();
    best.sort_by(by_rate);
    let middle = best.swap_remove(best.len() / 2);
    Row {
        case: series.case.name(),
        bytes: series.bytes,
        packets_per_second: middle.packets_per_second,
        ratio_to_nftables: None,
        rounds: rates,
        packets_per_second_within_1_percent_loss: median(calm),
        cpu_s_per_million_packets: cpu.map(median),
        best: middle,
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<20} {:>5} {:>9} {:>6} {:>9} {:>7} {:>6} {:>7} {:>13} {:>14}",
        "case",
        "bytes",
        "packets/s",
        "ratio",
        "≤1% loss",
        "loss",
        "CPU",
        "CPU s/M",
        "packets/burst",
        "packets/wakeup"
    );
    let figure = |value: Option<f64>, digits: usize| {
        value.map_or("-".into(), |value| format!("{value:.digits$}"))
    };
    for row in rows {
        let engine = row.best.engine.as_ref();
        println!(
            "{:<20} {:>5} {:>9.0} {:>6} {:>9.0} {:>6.1}% {:>5.0}% {:>7} {:>13} {:>14}",
            row.case,
            row.bytes,
            row.packets_per_second,
            figure(row.ratio_to_nftables, 2),
            row.packets_per_second_within_1_percent_loss,
            row.best.loss * 100.0,
            row.best.balancer_cpu * 100.0,
            figure(row.cpu_s_per_million_packets, 2),
            figure(engine.map(|e| e.packets_per_burst), 1),
            figure(engine.map(|e| e.packets_per_wakeup), 1),
        );
    }
}

#[cfg(test)]
mod tests;
