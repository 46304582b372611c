//! HTTP through every way to balance it, on the same veths.
//!
//! ```text
//!   client ──────── in0  balancer  out0 ──────── servers
//!     │ 198.18.0.2                    198.19.1.1 to .4 │
//!     └───────────────────────────────────────────────┘
//!              answers that need not pass the balancer
//! ```
//!
//! wrk asks an nginx with an address for each backend, over connections that stay open and over one
//! for each request. Links and CPUs are those of [`crate::replicate`]: packets of at most 1,500 bytes
//! that nobody puts together, the balancer on a CPU of its own, client and servers on the other one.
//! The loop is closed: a request follows an answer.

mod case;
mod network;
mod trial;

use crate::measure::{median, needs_root, rounded, run_ahead_of_others, write};
use crate::replicate::Cpus;
use anyhow::{Context, Result, ensure};
use case::Case;
use clap::ValueEnum;
use lockstep_tests::lab::interrupted;
use network::Network;
use serde::Serialize;
use std::path::PathBuf;
use trial::{Load, Trial};

/// What `lockstep-perf http` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the results go.
    #[arg(long, default_value = "perf/results/http.json")]
    output: PathBuf,
    /// Rounds, each with every case; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each trial.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// The cases to measure: all, unless said otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
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

/// A row of `perf/results/http.json`.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    load: &'static str,
    /// Medians of the rounds.
    requests_per_second: f64,
    /// To HAProxy's with the same load; none when it was not measured.
    ratio_to_haproxy: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    /// The balancer's CPU time for a million requests.
    cpu_s_per_million_requests: f64,
    /// The share of the time for which the balancer's CPU was not idle: 1 is all of it.
    balancer_cpu: f64,
    /// Requests without a good answer, of all rounds.
    errors: u64,
    /// Requests a second of each round.
    rounds: Vec<f64>,
}

/// A case with one load: its rounds.
#[derive(Debug)]
struct Series {
    case: Case,
    load: Load,
    trials: Vec<Trial>,
}

/// Measures every case in every round, in turns, and writes the results.
pub fn run(arguments: &Arguments) -> Result<()> {
    needs_root()?;
    let cpus = Cpus {
        endpoints: arguments.endpoints_cpu,
        balancer: arguments.balancer_cpu,
    };
    ensure!(
        cpus.endpoints != cpus.balancer,
        "the balancer needs a CPU of its own"
    );
    interrupted::take_down_labs()?;
    run_ahead_of_others()?;
    // All that this process starts runs there, but for what is told otherwise.
    let id = cpus.endpoints;
    let on_core = core_affinity::set_for_current(core_affinity::CoreId { id });
    ensure!(on_core, "cannot run on CPU {id}");
    let cases = if arguments.cases.is_empty() {
        Case::value_variants()
    } else {
        &arguments.cases
    };
    let series = |&case: &Case| {
        Load::ALL.map(|load| Series {
            case,
            load,
            trials: Vec::new(),
        })
    };
    let mut all: Vec<[Series; 2]> = cases.iter().map(series).collect();
    let rounds = arguments.rounds.max(1);
    for round in 0..rounds {
        eprintln!("HTTP, round {} of {rounds}", round + 1);
        // Every other round backwards, so that no case is always the first.
        let mut order: Vec<_> = all.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for series in order {
            let name = series[0].case.name();
            trials(series, cpus, arguments).with_context(|| format!("cannot measure {name}"))?;
        }
    }
    let rows = rows(&all.into_iter().flatten().collect::<Vec<_>>());
    print(&rows);
    write(&arguments.output, &rows)
}

/// A trial of each load, in a network of the case's own.
fn trials(series: &mut [Series; 2], cpus: Cpus, arguments: &Arguments) -> Result<()> {
    let case = series[0].case;
    let network = Network::build(case.answers_directly(), cpus)?;
    let _balancer = case.start(&network, cpus)?;
    network.answers().context("no request is answered")?;
    for series in series {
        let (load, seconds) = (series.load, arguments.seconds);
        let trial = trial::run(&network, load, arguments.connections, seconds, cpus)?;
        if arguments.verbose {
            let text = serde_json::to_string(&trial)?;
            eprintln!("{:<23} {:<24} {text}", case.name(), load.name());
        }
        series.trials.push(trial);
    }
    Ok(())
}

/// The rows of one load after those of the other.
fn rows(series: &[Series]) -> Vec<Row> {
    let of_load = |load: Load| series.iter().filter(move |series| series.load == load);
    let loads = Load::ALL.into_iter().flat_map(|load| {
        let peer = of_load(load).find(|series| series.case == Case::Haproxy);
        let peer = peer.map(|peer| row(peer).requests_per_second);
        of_load(load).map(move |series| {
            let mut row = row(series);
            row.ratio_to_haproxy = peer.map(|peer| rounded(row.requests_per_second / peer, 2));
            row
        })
    });
    loads.collect()
}

fn row(series: &Series) -> Row {
    let of = |value: fn(&Trial) -> f64| series.trials.iter().map(value).collect::<Vec<_>>();
    let rates = of(|trial| trial.requests_per_second);
    Row {
        case: series.case.name(),
        load: series.load.name(),
        requests_per_second: median(rates.clone()),
        ratio_to_haproxy: None,
        p50_us: median(of(|trial| trial.p50_us)),
        p99_us: median(of(|trial| trial.p99_us)),
        cpu_s_per_million_requests: median(of(|trial| trial.cpu_s_per_million_requests)),
        balancer_cpu: median(of(|trial| trial.balancer_cpu)),
        errors: series.trials.iter().map(|trial| trial.errors).sum(),
        rounds: rates,
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<23} {:<24} {:>10} {:>6} {:>9} {:>9} {:>7} {:>5} {:>7}",
        "case", "load", "requests/s", "ratio", "p50 µs", "p99 µs", "CPU s/M", "CPU", "errors"
    );
    for row in rows {
        println!(
            "{:<23} {:<24} {:>10.0} {:>6} {:>9.0} {:>9.0} {:>7.1} {:>4.0}% {:>7}",
            row.case,
            row.load,
            row.requests_per_second,
            row.ratio_to_haproxy
                .map_or("-".into(), |ratio| format!("{ratio:.2}")),
            row.p50_us,
            row.p99_us,
            row.cpu_s_per_million_requests,
            row.balancer_cpu * 100.0,
            row.errors,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(case: Case, load: Load, rates: [f64; 3]) -> Series {
        let trials = rates.map(|rate| Trial {
            requests_per_second: rate,
            p50_us: 1e6 / rate,
            p99_us: 2e6 / rate,
            cpu_s_per_million_requests: 1e6 / rate,
            balancer_cpu: 1.0,
            errors: 1,
        });
        Series {
            case,
            load,
            trials: trials.to_vec(),
        }
    }

    #[test]
    fn a_row_is_the_median_of_the_rounds_beside_haproxys_with_its_load() {
        let rows = rows(&[
            series(Case::Tunnel, Load::KeepAlive, [100.0, 300.0, 200.0]),
            series(Case::Tunnel, Load::ConnectionPerRequest, [60.0, 40.0, 50.0]),
            series(Case::Haproxy, Load::KeepAlive, [400.0, 100.0, 100.0]),
            series(
                Case::Haproxy,
                Load::ConnectionPerRequest,
                [20.0, 25.0, 30.0],
            ),
        ]);
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.load, row.requests_per_second, row.ratio_to_haproxy))
            .collect();
        let expected = [
            ("keep-alive", 200.0, Some(2.0)),
            ("keep-alive", 100.0, Some(1.0)),
            ("connection-per-request", 50.0, Some(2.0)),
            ("connection-per-request", 25.0, Some(1.0)),
        ];
        assert_eq!(found, expected);
        assert_eq!(rows[0].rounds, [100.0, 300.0, 200.0]);
        assert_eq!(rows[0].errors, 3);
    }

    #[test]
    fn without_haproxy_there_is_no_ratio() {
        let rows = rows(&[series(Case::Nat, Load::KeepAlive, [1.0, 2.0, 3.0])]);
        assert_eq!(rows[0].ratio_to_haproxy, None);
    }
}
