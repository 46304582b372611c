//! What a quorum adds to the time of an answer: from when the slower of the two replicas that agree
//! has sent it, to when the client has it.
//!
//! Both programs' own clock readings are compared, so the figure has the way through two stacks and
//! two links in it; the same way with one replica is measured beside it.

use super::balancer::{Engine, Policy};
use super::network::Network;
use super::server::{TIMES, Wish, now};
use super::{Cpus, client};
use crate::measure::percentile;
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Process, wait_until};
use serde::Serialize;
use std::io::{Read, Write};
use std::time::Duration;

const REPLICAS: usize = 3;
const QUORUM: usize = 2;
const REQUESTS: usize = 5_000;
/// The first requests are not counted.
const WARM_UP: usize = 200;
const REQUEST: usize = 64;
const SOON: Duration = Duration::from_secs(5);
/// What the project set itself for the 99th percentile.
const GOAL_US: f64 = 100.0;

/// A row of the results.
#[derive(Debug, Serialize)]
pub struct Row {
    case: &'static str,
    replicas: usize,
    quorum: usize,
    p50_us: f64,
    p99_us: f64,
    goal_p99_us: f64,
    /// The same way with one replica, which is primary.
    primary_p50_us: f64,
    primary_p99_us: f64,
}

/// Measures both.
pub fn run(cpus: Cpus) -> Result<Row> {
    let primary = delays(1, 1, cpus).context("with one replica")?;
    let quorum = delays(REPLICAS, QUORUM, cpus).context("with a quorum")?;
    Ok(Row {
        case: "commit-delay",
        replicas: REPLICAS,
        quorum: QUORUM,
        p50_us: percentile(&quorum, 0.5),
        p99_us: percentile(&quorum, 0.99),
        goal_p99_us: GOAL_US,
        primary_p50_us: percentile(&primary, 0.5),
        primary_p99_us: percentile(&primary, 0.99),
    })
}

/// Microseconds from the replica that completes the quorum to the client, sorted.
fn delays(replicas: usize, quorum: usize, cpus: Cpus) -> Result<Vec<f64>> {
    let network = Network::build(replicas, cpus)?;
    let servers = (0..replicas)
        .map(|index| network.start_server(Some(index), cpus.endpoints))
        .collect::<Result<Vec<_>>>()?;
    let mut policy = Policy::replicas(replicas);
    if quorum > 1 {
        policy.replicate = format!("commit = {{ quorum = {quorum} }}\nmin_sync = {quorum}\n");
    }
    let _engine = Engine::start(&network, &policy, cpus)?;
    let arrived = requests(&network)?;
    let sent = servers
        .iter()
        .map(sent_by)
        .collect::<Result<Vec<Vec<u64>>>>()?;
    ensure!(
        sent.iter().all(|times| times.len() == arrived.len()),
        "a replica has answered another number of times than the client was answered"
    );
    let mut delays: Vec<f64> = (arrived.iter().enumerate().skip(WARM_UP))
        .map(|(at, arrived)| {
            let mut times: Vec<u64> = sent.iter().map(|times| times[at]).collect();
            times.sort_unstable();
            arrived.saturating_sub(times[quorum - 1]) as f64
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}

/// One request after the other; when each answer was there.
fn requests(network: &Network) -> Result<Vec<u64>> {
    let mut socket = client::connect(network, Wish::TimedEcho)?;
    let mut bytes = [0x5a; REQUEST];
    (0..REQUESTS)
        .map(|_| {
            socket.write_all(&bytes)?;
            socket.read_exact(&mut bytes).context("no answer")?;
            now()
        })
        .collect()
}

/// When a server has sent each answer.
fn sent_by(server: &Process) -> Result<Vec<u64>> {
    wait_until("the server says when it sent what", SOON, || {
        let log = server.log();
        let line = log.lines().find_map(|line| line.strip_prefix(TIMES));
        let times = line.map(|line| line.split(' ').filter_map(|time| time.parse().ok()));
        Ok(times.map(Iterator::collect))
    })
}
