//! Switchovers under load: the longest time in which the client got nothing.

use super::balancer::{Engine, Policy, sessions};
use super::client::{Direction, Transfer};
use super::network::Network;
use super::{Arguments, Cpus};
use crate::measure::{percentile, rounded};
use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::lab::{Process, wait_until};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::time::{Duration, Instant};

const REPLICAS: usize = 3;
/// How long the client is watched after, and before, each.
const WATCHED: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(10);

/// What happens to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: its kernel closes its connections.
    Killed,
    /// SIGSTOP: its kernel goes on acknowledging.
    Silent,
    /// Nothing reaches its address any more, and nothing from there gets out.
    Cut,
}

impl Fault {
    const fn case(self) -> &'static str {
        match self {
            Fault::Killed => "switchover-killed",
            Fault::Silent => "switchover-silent",
            Fault::Cut => "switchover-cut",
        }
    }

    /// What the project set itself for the 99th percentile.
    const fn goal_ms(self) -> f64 {
        match self {
            Fault::Killed => 5.0,
            Fault::Silent | Fault::Cut => 50.0,
        }
    }
}

/// Whose bytes the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The primary's.
    Primary,
    /// Those that two replicas have produced alike.
    QuorumOfTwo,
}

impl Commit {
    const fn policy(self) -> &'static str {
        match self {
            Commit::Primary => "",
            Commit::QuorumOfTwo => "commit = { quorum = 2 }",
        }
    }

    /// Replicas without which a session does not go on.
    const fn needs(self) -> usize {
        match self {
            Commit::Primary => 1,
            Commit::QuorumOfTwo => 2,
        }
    }
}

/// A row of the results.
#[derive(Debug, Serialize)]
pub struct Row {
    case: &'static str,
    replicas: usize,
    /// Switchovers.
    switches: usize,
    /// The longest time between two reads of the client, around a switchover.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    goal_p99_ms: f64,
    /// The same in as long a time before each, without any fault.
    undisturbed_p50_ms: f64,
    undisturbed_p99_ms: f64,
}

/// The longest times between two reads of the client.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// Each around a fault of its primary.
    pub switched: Vec<Duration>,
    /// Each in as long a time before it.
    pub undisturbed: Vec<Duration>,
}

/// Measures one kind of fault.
pub fn run(fault: Fault, cpus: Cpus, arguments: &Arguments) -> Result<Row> {
    let gaps = measure(fault, Commit::Primary, cpus, arguments.switches)?;
    if arguments.verbose {
        eprintln!("{gaps:.1?}");
    }
    let ms = |times: &[Duration], share| {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        rounded(percentile(&times, share), 2)
    };
    Ok(Row {
        case: fault.case(),
        replicas: REPLICAS,
        switches: gaps.switched.len(),
        p50_ms: ms(&gaps.switched, 0.5),
        p99_ms: ms(&gaps.switched, 0.99),
        max_ms: ms(&gaps.switched, 1.0),
        goal_p99_ms: fault.goal_ms(),
        undisturbed_p50_ms: ms(&gaps.undisturbed, 0.5),
        undisturbed_p99_ms: ms(&gaps.undisturbed, 0.99),
    })
}

/// So many faults at least.
pub fn measure(fault: Fault, commit: Commit, cpus: Cpus, switches: usize) -> Result<Gaps> {
    let network = Network::build(REPLICAS, cpus)?;
    let mut servers = (0..REPLICAS)
        .map(|index| network.start_server(Some(index), cpus.endpoints))
        .collect::<Result<Vec<_>>>()?;
    let mut replicas = Policy::replicas(REPLICAS);
    replicas.replicate = commit.policy().to_owned();
    let engine = Engine::start(&network, &replicas, cpus)?;
    let cut = Cut::prepare(&network)?;
    let mut gaps = Gaps::default();
    while gaps.switched.len() < switches {
        let transfer = Transfer::start(&network, Direction::Download, cpus.endpoints)?;
        for left in (commit.needs() + 1..=REPLICAS).rev() {
            let primary = primary(&network, left)?;
            gaps.undisturbed.push(watch(&transfer, || Ok(()))?);
            let server = &mut servers[primary];
            gaps.switched.push(watch(&transfer, || match fault {
                Fault::Killed => server.kill(),
                Fault::Silent => server.signal(Signal::SIGSTOP),
                Fault::Cut => cut.off(primary),
            })?);
        }
        transfer.stop()?;
        heal(fault, &network, &cut, &mut servers, cpus)?;
        wait_until("the session is over", SOON, || {
            Ok(sessions(&network)?.is_empty().then_some(()))
        })
        .with_context(|| engine.process().log())?;
    }
    Ok(gaps)
}

/// The longest gap in the time that follows `begin`.
fn watch(transfer: &Transfer, begin: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let bytes = transfer.bytes();
    transfer.longest_gap();
    let start = Instant::now();
    begin()?;
    wait_until("the download has gone on", SOON, || {
        ensure!(!transfer.has_ended(), "the download has ended");
        let over = start.elapsed() >= WATCHED && transfer.bytes() > bytes;
        Ok(over.then_some(()))
    })?;
    Ok(transfer.longest_gap())
}

/// All servers as they were.
fn heal(
    fault: Fault,
    network: &Network,
    cut: &Cut<'_>,
    servers: &mut [Process],
    cpus: Cpus,
) -> Result<()> {
    if fault == Fault::Cut {
        return cut.end();
    }
    for (index, server) in servers.iter_mut().enumerate() {
        match fault {
            Fault::Silent => server.signal(Signal::SIGCONT)?,
            Fault::Killed if server.must_run().is_err() => {
                *server = restart(network, index, cpus)?;
            }
            Fault::Killed | Fault::Cut => {}
        }
    }
    Ok(())
}

/// Starts the server of a replica that was killed, and waits until it listens.
pub fn restart(network: &Network, index: usize, cpus: Cpus) -> Result<Process> {
    let mut server = network.start_server(Some(index), cpus.endpoints)?;
    let args = ["-Hltn", "src", &super::network::server(index).to_string()];
    wait_until("the server listens again", SOON, || {
        server.must_run()?;
        let sockets = network.servers.output("ss", &args)?;
        Ok((!sockets.is_empty()).then_some(()))
    })?;
    Ok(server)
}

/// Cuts servers off by nftables where they are.
#[derive(Debug)]
pub struct Cut<'a>(&'a Network);

impl<'a> Cut<'a> {
    /// Nobody is cut off so far.
    pub fn prepare(network: &'a Network) -> Result<Self> {
        let rules = "table ip cut {\nset off { type ipv4_addr; }\n\
             chain to { type filter hook prerouting priority -300; ip daddr @off drop; }\n\
             chain from { type filter hook postrouting priority 300; ip saddr @off drop; }\n}\n";
        network.servers.output("nft", &[rules])?;
        Ok(Cut(network))
    }

    /// Cuts off a server.
    pub fn off(&self, index: usize) -> Result<()> {
        let element = format!(
            "add element ip cut off {{ {} }}",
            super::network::server(index)
        );
        self.0.servers.output("nft", &[&element]).map(drop)
    }

    /// Lets everything pass again.
    pub fn end(&self) -> Result<()> {
        let words = ["flush", "set", "ip", "cut", "off"];
        self.0.servers.output("nft", &words).map(drop)
    }
}

/// The primary of the only session, once that has so many replicas in sync.
fn primary(network: &Network, in_sync: usize) -> Result<usize> {
    let what = format!("a session has {in_sync} replicas in sync");
    wait_until(&what, SOON, || {
        let sessions = sessions(network)?;
        let [session] = &sessions[..] else {
            return Ok(None);
        };
        let replicas = session["replicas"].as_array().into_iter().flatten();
        let there = replicas.filter(|r| r["state"] == "in-sync").count();
        if there < in_sync {
            return Ok(None);
        }
        let name = session["primary"].as_str().unwrap_or_default();
        match name.strip_prefix('s').and_then(|index| index.parse().ok()) {
            Some(index) => Ok(Some(index)),
            None => bail!("the session's primary is {name:?}"),
        }
    })
}
