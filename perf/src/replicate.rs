//! Replicated sessions in a lab of network namespaces, beside HAProxy's TCP mode.
//!
//! ```text
//!   client ──────── in0  balancer  out0 ──────── servers
//!   198.18.0.2      198.18.0.1     198.19.0.1    198.19.1.1 and on, one for each replica
//! ```
//!
//! Every device sends packets of at most 1,500 bytes and puts none together (no TSO, GSO, GRO), as
//! they are on a wire. The balancer, one thread of HAProxy or one worker of the engine, has a CPU of
//! its own; client and servers share the other one. All of them run ahead of what else this machine
//! does.

pub mod balancer;
mod bulk;
pub mod client;
mod crowd;
mod delay;
pub mod network;
pub mod server;
pub mod switchover;

pub use client::{Direction, Transfer};
pub use server::serve;

use crate::measure::{KernelAhead, needs_root, run_ahead_of_others};
use crate::origin;
use crate::output;
use crate::programs;
use crate::turn::Turn;
use anyhow::{Result, ensure};
use balancer::Case;
use clap::ValueEnum;
use lockstep_tests::lab::interrupted;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use switchover::Fault;

/// The CPUs of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// Of client and servers.
    pub endpoints: usize,
    /// Of the balancer.
    pub balancer: usize,
}

/// As usual: what whole results are of.
const ROUNDS: usize = 3;
const MILLISECONDS: u64 = 1_200;
const REPLICAS: [usize; 5] = [1, 3, 10, 30, 100];
const SWITCHES: usize = 120;
const SESSIONS: usize = 10_000;
const FILE: &str = "perf/results/replicate.json";

/// What `lockstep-perf replicate` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the results go: perf/results/replicate.json, unless said otherwise; those of a run of not
    /// everything to perf/results/partial.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Rounds, each with every case; the median is reported.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Milliseconds of each transfer, after those in which it gets up to speed.
    #[arg(long, default_value_t = MILLISECONDS)]
    milliseconds: u64,
    /// Numbers of replicas.
    #[arg(long, value_delimiter = ',', default_values_t = REPLICAS)]
    replicas: Vec<usize>,
    /// Switchovers of each kind.
    #[arg(long, default_value_t = SWITCHES)]
    switches: usize,
    /// Sessions that are open at once.
    #[arg(long, default_value_t = SESSIONS)]
    sessions: usize,
    /// What stands between in bulk transfers: all of them, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// What to measure: everything, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// The CPU of client and servers.
    #[arg(long, default_value_t = 0)]
    endpoints_cpu: usize,
    /// The CPU of the balancer.
    #[arg(long, default_value_t = 1)]
    balancer_cpu: usize,
    /// Prints every trial.
    #[arg(long)]
    verbose: bool,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Bulk,
    Switchover,
    Delay,
    Crowd,
}

impl Arguments {
    fn has(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    /// What it starts.
    fn programs(&self) -> BTreeSet<&'static str> {
        let ours = programs::LAB.iter().chain(programs::OURS).copied();
        let haproxy = self.cases.is_empty() || self.cases.contains(&Case::Haproxy);
        let haproxy = self.has(Part::Bulk) && haproxy;
        ours.chain(haproxy.then_some("haproxy")).collect()
    }

    /// What keeps a run from taking the place of a whole one.
    fn lacks(&self) -> Option<&'static str> {
        let has_case = |case: &Case| self.cases.is_empty() || self.cases.contains(case);
        if !Part::value_variants().iter().all(|&part| self.has(part)) {
            Some("not all parts")
        } else if !Case::value_variants().iter().all(has_case) {
            Some("not all cases")
        } else if !REPLICAS.iter().all(|count| self.replicas.contains(count)) {
            Some("not all numbers of replicas")
        } else if self.rounds < ROUNDS
            || self.milliseconds < MILLISECONDS
            || self.switches < SWITCHES
            || self.sessions < SESSIONS
        {
            Some("less than is usually measured")
        } else {
            None
        }
    }
}

/// A row of `perf/results/replicate.json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Bulk(bulk::Row),
    Switchover(switchover::Row),
    Delay(delay::Row),
    Crowd(crowd::Row),
}

/// Measures every case in every round, in turns, and writes the results.
pub fn run(arguments: &Arguments) -> Result<()> {
    needs_root()?;
    programs::must_be_there(&arguments.programs())?;
    let to = output::place(arguments.output.as_ref(), FILE, arguments.lacks());
    output::file_must_be_writable(&to)?;
    let _turn = Turn::take("replicate")?;
    interrupted::take_down_labs()?;
    let cpus = Cpus {
        endpoints: arguments.endpoints_cpu,
        balancer: arguments.balancer_cpu,
    };
    ensure!(
        cpus.endpoints != cpus.balancer,
        "the balancer needs a CPU of its own"
    );
    run_ahead_of_others()?;
    let _kernel = KernelAhead::on(&[cpus.endpoints, cpus.balancer])?;
    let rows = rows(cpus, arguments);
    // What a signal has cut short is not told.
    interrupted::end_if_begun();
    let rows = rows?;
    let written = origin::write(&to, &rows);
    // And printed where it cannot be written.
    println!("{}", serde_json::to_string_pretty(&rows)?);
    written?;
    Ok(())
}

fn rows(cpus: Cpus, arguments: &Arguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if arguments.has(Part::Bulk) {
        rows.extend(bulk(cpus, arguments)?.into_iter().map(Row::Bulk));
    }
    if arguments.has(Part::Switchover) {
        for fault in [Fault::Killed, Fault::Silent] {
            eprintln!("switchovers: {fault:?}");
            rows.push(Row::Switchover(switchover::run(fault, cpus, arguments)?));
        }
    }
    if arguments.has(Part::Delay) {
        eprintln!("commit delay");
        rows.push(Row::Delay(delay::run(cpus)?));
    }
    if arguments.has(Part::Crowd) {
        eprintln!("many sessions");
        rows.extend(crowd::run(cpus, arguments)?.into_iter().map(Row::Crowd));
    }
    Ok(rows)
}

fn bulk(cpus: Cpus, arguments: &Arguments) -> Result<Vec<bulk::Row>> {
    let cases = if arguments.cases.is_empty() {
        Case::value_variants()
    } else {
        &arguments.cases
    };
    let mut series = Vec::new();
    for &case in cases {
        match case {
            Case::Forward | Case::Haproxy | Case::LockstepInterrupt => {
                series.push(bulk::Series::new(case, 1))
            }
            Case::Lockstep => {
                let counts = arguments.replicas.iter();
                series.extend(counts.map(|&count| bulk::Series::new(case, count)));
            }
        }
    }
    let rounds = arguments.rounds.max(1);
    for round in 0..rounds {
        eprintln!("bulk transfers, round {} of {rounds}", round + 1);
        // Every other round backwards, so that no case is always the first.
        let mut order: Vec<_> = series.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for series in order {
            series.round(cpus, arguments)?;
        }
    }
    Ok(bulk::rows(&series))
}

#[cfg(test)]
mod tests;
