//! Bulk transfers: one connection, as fast as it goes.

use super::balancer::{Balancer, Case};
use super::client::{Direction, Transfer};
use super::network::Network;
use super::{Arguments, Cpus};
use crate::cpu;
use crate::measure::{median, rounded};
use crate::reading::Reading;
use anyhow::{Context, Result};
use lockstep_tests::lab::{Process, wait_until};
use nix::unistd::Pid;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Before anything is measured: congestion windows and buffers grow.
const WARM_UP: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(10);

/// One transfer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Trial {
    /// Payload, as the client has it.
    pub gbit_s: f64,
    /// CPU seconds of the balancer for a gigabyte that the client got or sent.
    pub cpu_s_per_gb: f64,
    /// The same of everybody who took part: balancer, client, servers.
    pub machine_cpu_s_per_gb: f64,
    /// Replicas in sync at its end. Those that are not were not given all of it.
    pub in_sync: usize,
}

/// A row of the results.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    case: &'static str,
    balancer: &'static str,
    replicas: usize,
    /// Medians of the rounds.
    gbit_s: f64,
    cpu_s_per_gb: f64,
    machine_cpu_s_per_gb: f64,
    /// Of the balancer: for each gigabyte times the replicas it went to or came from; none when
    /// some were out of sync at the end.
    cpu_s_per_replicated_gb: Option<f64>,
    /// The fewest replicas that were in sync at the end of any round.
    in_sync: usize,
    /// Throughput of each round.
    rounds: Vec<f64>,
    /// HAProxy in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
}

/// What is compared with.
#[derive(Debug, Clone, Serialize)]
struct Peer {
    name: &'static str,
    gbit_s: f64,
    cpu_s_per_gb: f64,
    machine_cpu_s_per_gb: f64,
}

/// A case with all its rounds.
#[derive(Debug)]
pub struct Series {
    case: Case,
    replicas: usize,
    trials: Vec<[Trial; 2]>,
}

impl Series {
    /// One without a round so far.
    pub const fn new(case: Case, replicas: usize) -> Self {
        Series {
            case,
            replicas,
            trials: Vec::new(),
        }
    }

    /// One more round: a transfer each way in a network of its own.
    pub fn round(&mut self, cpus: Cpus, arguments: &Arguments) -> Result<()> {
        let name = format!("{} with {} servers", self.case.name(), self.replicas);
        let trials = round(self.case, self.replicas, cpus, arguments)
            .with_context(|| format!("cannot measure {name}"))?;
        if arguments.verbose {
            eprintln!("{name}: {}", serde_json::to_string(&trials)?);
        }
        self.trials.push(trials);
        Ok(())
    }

    fn row(&self, case: &'static str, direction: usize) -> Row {
        let of = |value: fn(&Trial) -> f64| -> Vec<f64> {
            let trials = self.trials.iter();
            trials.map(|trials| value(&trials[direction])).collect()
        };
        let cpu = median(of(|trial| trial.cpu_s_per_gb));
        let in_sync = self.trials.iter().map(|trials| trials[direction].in_sync);
        let in_sync = in_sync.min().unwrap_or(0);
        Row {
            case,
            balancer: self.case.name(),
            replicas: self.replicas,
            gbit_s: rounded(median(of(|trial| trial.gbit_s)), 2),
            cpu_s_per_gb: rounded(cpu, 3),
            machine_cpu_s_per_gb: rounded(median(of(|trial| trial.machine_cpu_s_per_gb)), 3),
            cpu_s_per_replicated_gb: (in_sync == self.replicas)
                .then(|| rounded(cpu / self.replicas as f64, 3)),
            in_sync,
            rounds: (of(|trial| trial.gbit_s).into_iter())
                .map(|rate| rounded(rate, 2))
                .collect(),
            peer: None,
        }
    }
}

/// The rows of all cases, those of the engine beside HAProxy's.
pub fn rows(series: &[Series]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (direction, case) in ["bulk-download", "bulk-upload"].into_iter().enumerate() {
        let peer = (series.iter())
            .find(|series| series.case == Case::Haproxy)
            .map(|series| series.row(case, direction));
        for series in series {
            let mut row = series.row(case, direction);
            if matches!(series.case, Case::Lockstep | Case::LockstepInterrupt) {
                row.peer = peer.as_ref().map(|peer| Peer {
                    name: peer.balancer,
                    gbit_s: peer.gbit_s,
                    cpu_s_per_gb: peer.cpu_s_per_gb,
                    machine_cpu_s_per_gb: peer.machine_cpu_s_per_gb,
                });
            }
            rows.push(row);
        }
    }
    rows
}

fn round(case: Case, replicas: usize, cpus: Cpus, arguments: &Arguments) -> Result<[Trial; 2]> {
    let network = Network::build(replicas, cpus)?;
    let server = network.start_server(None, cpus.endpoints)?;
    let balancer = Balancer::start(case, &network, replicas, cpus)?;
    let bench = Bench {
        network: &network,
        server: &server,
        balancer: &balancer,
        replicas,
        cpus,
        threads: [
            cpu::ksoftirqd(cpus.balancer)?,
            cpu::ksoftirqd(cpus.endpoints)?,
        ],
        duration: Duration::from_millis(arguments.milliseconds),
    };
    Ok([
        bench
            .trial(Direction::Download)
            .context("cannot download")?,
        bench.trial(Direction::Upload).context("cannot upload")?,
    ])
}

struct Bench<'a> {
    network: &'a Network,
    server: &'a Process,
    balancer: &'a Balancer,
    replicas: usize,
    cpus: Cpus,
    /// The kernel's for software interrupts, of the balancer's CPU and of the endpoints': to look for them
    /// takes longer than a reading may.
    threads: [Pid; 2],
    duration: Duration,
}

impl Bench<'_> {
    fn trial(&self, direction: Direction) -> Result<Trial> {
        let transfer = Transfer::start(self.network, direction, self.cpus.endpoints)?;
        let begin = Instant::now();
        wait_until("the transfer is under way", SOON, || {
            let under_way = transfer.bytes() > 0 && begin.elapsed() >= WARM_UP;
            Ok((under_way || transfer.has_ended()).then_some(()))
        })?;
        let before = self.read(&transfer)?;
        wait_until("the trial is over", self.duration + SOON, || {
            let over = before.at.elapsed() >= self.duration || transfer.has_ended();
            Ok(over.then_some(()))
        })?;
        let after = self.read(&transfer);
        let in_sync = self.balancer.in_sync(self.network, self.replicas);
        transfer.stop()?;
        Ok(since(&before, &after?, in_sync?))
    }

    fn read(&self, transfer: &Transfer) -> Result<Reading<Counts>> {
        let client = transfer.thread().context("the client does not run")?;
        let [of_balancer, of_endpoints] = &self.threads;
        Reading::make(|| {
            let balancer = self.balancer.cpu_seconds()? + cpu::of_process(*of_balancer)?;
            let endpoints = cpu::of_process(self.server.pid())?
                + cpu::of_thread(client)?
                + cpu::of_process(*of_endpoints)?;
            Ok(Counts {
                bytes: transfer.bytes(),
                balancer,
                everybody: balancer + endpoints,
            })
        })
    }
}

/// What was counted at one time.
#[derive(Debug, Clone, Copy)]
struct Counts {
    bytes: u64,
    balancer: f64,
    everybody: f64,
}

fn since(before: &Reading<Counts>, after: &Reading<Counts>, in_sync: usize) -> Trial {
    let seconds = after.seconds_since(before);
    let (before, after) = (before.value, after.value);
    let bytes = (after.bytes - before.bytes) as f64;
    let gigabytes = (bytes / 1e9).max(1e-9);
    Trial {
        gbit_s: bytes * 8.0 / 1e9 / seconds,
        cpu_s_per_gb: (after.balancer - before.balancer) / gigabytes,
        machine_cpu_s_per_gb: (after.everybody - before.everybody) / gigabytes,
        in_sync,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_time_between_two_readings_and_cpu_time_of_the_bytes() {
        let begin = Instant::now();
        let reading = |ms, bytes, balancer, everybody| Reading {
            at: begin + Duration::from_millis(ms),
            value: Counts {
                bytes,
                balancer,
                everybody,
            },
        };
        let before = reading(400, 1_000_000_000, 3.0, 10.0);
        let trial = since(&before, &reading(2_400, 2_500_000_000, 4.5, 13.0), 3);
        assert!((trial.gbit_s - 6.0).abs() < 1e-9, "{trial:?}");
        assert!((trial.cpu_s_per_gb - 1.0).abs() < 1e-9, "{trial:?}");
        assert!((trial.machine_cpu_s_per_gb - 2.0).abs() < 1e-9, "{trial:?}");
    }

    #[test]
    fn a_round_in_which_a_replica_was_left_behind_is_of_fewer_replicas() {
        let trial = |gbit_s, in_sync| Trial {
            gbit_s,
            cpu_s_per_gb: 3.0,
            machine_cpu_s_per_gb: 6.0,
            in_sync,
        };
        let mut engine = Series::new(Case::Lockstep, 3);
        engine.trials = [(2.0, 3), (1.0, 2), (4.0, 3)]
            .map(|(gbit_s, in_sync)| [trial(gbit_s, 3), trial(gbit_s, in_sync)])
            .to_vec();
        let mut haproxy = Series::new(Case::Haproxy, 1);
        haproxy.trials.push([trial(5.0, 1), trial(6.0, 1)]);
        let rows = rows(&[engine, haproxy]);
        let of = |row: &Row| (row.gbit_s, row.in_sync, row.cpu_s_per_replicated_gb);
        assert_eq!(of(&rows[0]), (2.0, 3, Some(1.0)));
        assert_eq!(of(&rows[2]), (2.0, 2, None));
        let peers: Vec<_> = rows
            .iter()
            .map(|row| row.peer.as_ref().map(|peer| peer.gbit_s))
            .collect();
        assert_eq!(peers, [Some(5.0), None, Some(6.0), None]);
    }
}
