//! Many sessions: what an idle one takes, and what a packet costs beside 10,000 of them.

use super::balancer::{Engine, Policy};
use super::network::Network;
use super::server::Wish;
use super::{Arguments, Cpus, client};
use crate::measure::rounded;
use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const REPLICAS: usize = 3;
/// The sessions that many are compared with.
const FEW: usize = 10;
/// Requests under way at once.
const AT_ONCE: usize = 10;
/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
/// What the project set itself for an idle session.
const GOAL_KIB: f64 = 64.0;
/// And for the cost of a packet, beside that with few sessions.
const GOAL_RATIO: f64 = 1.5;

/// A row of the results.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// What sessions take that have made one small exchange.
    Idle {
        case: &'static str,
        replicas: usize,
        sessions: usize,
        kib_per_session: f64,
        goal_kib: f64,
    },
    /// What packets cost.
    Cost {
        case: &'static str,
        replicas: usize,
        sessions: usize,
        /// CPU time of the engine.
        ns_per_packet: f64,
        requests_per_second: f64,
        cpu_us_per_request: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ratio_to_few: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        goal_ratio: Option<f64>,
    },
}

/// One engine, first with few sessions, then with many.
pub fn run(cpus: Cpus, arguments: &Arguments) -> Result<Vec<Row>> {
    let many = arguments.sessions;
    raise_file_limit(many as u64 + 1_000)?;
    let network = Network::build(REPLICAS, cpus)?;
    let _servers = (0..REPLICAS)
        .map(|index| network.start_server(Some(index), cpus.endpoints))
        .collect::<Result<Vec<_>>>()?;
    let mut policy = Policy::replicas(REPLICAS);
    // Waiting must cost nothing, or it would be counted.
    policy.poll = "interrupt";
    policy.sessions = format!(
        "max = {}\nconnections = {}",
        many + 100,
        (many + 100) * REPLICAS
    );
    let engine = Engine::start(&network, &policy, cpus)?;
    let empty = engine.resident()?;
    let mut sessions = Vec::new();
    open(&network, &mut sessions, FEW)?;
    let few = cost(&network, &engine, &mut sessions, arguments)?;
    open(&network, &mut sessions, many)?;
    let full = engine.resident()?;
    let crowd = cost(&network, &engine, &mut sessions, arguments)?;
    let ratio = crowd.ns_per_packet / few.ns_per_packet;
    let idle = full.saturating_sub(empty) as f64 / many as f64 / 1024.0;
    Ok(vec![
        Row::Idle {
            case: "idle-session",
            replicas: REPLICAS,
            sessions: many,
            kib_per_session: rounded(idle, 1),
            goal_kib: GOAL_KIB,
        },
        few.row(FEW, None),
        crowd.row(many, Some(ratio)),
    ])
}

fn raise_file_limit(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("cannot have {wanted} open files"))?;
    }
    Ok(())
}

/// Opens sessions up to `count`, each with one exchange.
fn open(network: &Network, sessions: &mut Vec<TcpStream>, count: usize) -> Result<()> {
    while sessions.len() < count {
        let so_far = sessions.len();
        let mut socket = client::connect(network, Wish::Echo)
            .with_context(|| format!("cannot open session {}", so_far + 1))?;
        exchange(std::slice::from_mut(&mut socket))?;
        sessions.push(socket);
    }
    Ok(())
}

/// A request on each, then the answers.
fn exchange(sockets: &mut [TcpStream]) -> Result<()> {
    let request = [0x5a; REQUEST];
    for socket in &mut *sockets {
        socket.write_all(&request)?;
    }
    for socket in sockets {
        let mut answer = [0; REQUEST];
        socket.read_exact(&mut answer).context("no answer")?;
    }
    Ok(())
}

struct Cost {
    ns_per_packet: f64,
    requests_per_second: f64,
    cpu_us_per_request: f64,
}

impl Cost {
    fn row(&self, sessions: usize, ratio: Option<f64>) -> Row {
        Row::Cost {
            case: "requests",
            replicas: REPLICAS,
            sessions,
            ns_per_packet: rounded(self.ns_per_packet, 0),
            requests_per_second: self.requests_per_second.round(),
            cpu_us_per_request: rounded(self.cpu_us_per_request, 2),
            ratio_to_few: ratio.map(|ratio| rounded(ratio, 2)),
            goal_ratio: ratio.map(|_| GOAL_RATIO),
        }
    }
}

/// Requests over all sessions in turns, some at once.
fn cost(
    network: &Network,
    engine: &Engine,
    sessions: &mut [TcpStream],
    arguments: &Arguments,
) -> Result<Cost> {
    let packets = || -> Result<f64> {
        Ok(engine.metric(network, "lockstep_worker_rx_packets_total")?
            + engine.metric(network, "lockstep_worker_tx_packets_total")?)
    };
    let (packets_before, cpu_before) = (packets()?, engine.cpu_seconds()?);
    let start = Instant::now();
    let enough = Duration::from_millis(2 * arguments.milliseconds);
    let mut requests = 0_usize;
    // At least one turn over all, or some sessions would not have been measured.
    while start.elapsed() < enough || requests < sessions.len() {
        for batch in sessions.chunks_mut(AT_ONCE) {
            exchange(batch)?;
            requests += batch.len();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = engine.cpu_seconds()? - cpu_before;
    let packets = packets()? - packets_before;
    Ok(Cost {
        ns_per_packet: cpu * 1e9 / packets,
        requests_per_second: requests as f64 / seconds,
        cpu_us_per_request: cpu * 1e6 / requests as f64,
    })
}
