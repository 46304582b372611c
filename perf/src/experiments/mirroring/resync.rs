//! A replica that was away catches up.

use super::requests::{Answered, Clients, Pace};
use super::{LAB, SEED};
use crate::experiments::Settings;
use crate::experiments::engine::{Mode, cpus, start_engine};
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::{median, rounded};
use crate::replicate::Cpus;
use crate::replicate::balancer::sessions;
use crate::replicate::network::Network;
use crate::replicate::server::REQUEST;
use crate::replicate::switchover::{Cut, restart};
use anyhow::{Context, Result, bail};
use lockstep_tests::lab::wait_until;
use serde_json::Value;
use std::time::Duration;

/// Requests a second, as in theirs.
const RATE: f64 = 13.1;
/// CPU time of a request at a server.
const WORK_US: u64 = 2_000;
/// Room for all requests of a run.
const POLICY: &str = "log_memory = \"64MiB\"\n";
/// For a replica to be in sync again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a replica was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// Its link was cut: it kept its connection and its state.
    Cut,
    /// It was killed and started again, with nothing.
    Restarted,
}

impl Away {
    const fn name(self) -> &'static str {
        match self {
            Away::Cut => "cut",
            Away::Restarted => "restart",
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
struct Run {
    answered: Vec<Answered>,
    seconds: f64,
    /// When the primary failed, could be reached again, and was in sync.
    failed: f64,
    back: f64,
    joined: f64,
    /// When the last attempt to join began; none when it was over before it was seen.
    joining: Option<f64>,
    /// Requests answered when it failed, and when it was in sync.
    before: usize,
    at_join: usize,
}

/// Both kinds, one after the other.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let cpus = cpus()?;
    let rounds = settings.rounds.min(2);
    let mut figures = Vec::new();
    for away in [Away::Cut, Away::Restarted] {
        let runs = (0..rounds)
            .map(|_| trial(away, settings.quick, cpus))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("a {} and what follows", away.name()))?;
        figures.push(figure(away, &runs));
    }
    Ok(figures)
}

fn trial(away: Away, quick: bool, cpus: Cpus) -> Result<Run> {
    let (lead, gone) = match quick {
        true => (1.0, 4.0),
        false => (5.0, 10.0),
    };
    let network = Network::build(2, cpus)?;
    let mut servers = (0..2)
        .map(|index| network.start_server(Some(index), cpus.endpoints))
        .collect::<Result<Vec<_>>>()?;
    let mode = Mode::Replicate {
        replicas: 2,
        policy: POLICY.to_owned(),
    };
    let _engine = start_engine(&network, &mode, cpus)?;
    let cut = Cut::prepare(&network)?;
    let clients = Clients::start(&network, 1, Pace::PerSecond(RATE), WORK_US, cpus.endpoints)?;
    until(&clients, lead)?;
    let primary = primary(&network)?;
    let (failed, before) = (clients.elapsed().as_secs_f64(), clients.answered());
    match away {
        Away::Cut => cut.off(primary)?,
        Away::Restarted => servers[primary].kill()?,
    }
    until(&clients, failed + gone)?;
    match away {
        Away::Cut => cut.end()?,
        Away::Restarted => servers[primary] = restart(&network, primary, cpus)?,
    }
    let back = clients.elapsed().as_secs_f64();
    let mut joining = None;
    let joined = wait_until("the replica is in sync again", PATIENCE, || {
        clients.must_run()?;
        let (replica, received) = replica(&network, primary)?;
        let now = clients.elapsed().as_secs_f64();
        let since = now - replica["since_seconds"].as_f64().unwrap_or_default();
        let state = replica["state"].as_str().unwrap_or_default();
        if state == "joining" {
            joining = Some(since.max(back));
        }
        // One that was away for a short time only may have been in sync all along by its state.
        let has_all = replica["input"].as_u64() >= Some(received.saturating_sub(REQUEST as u64));
        Ok((state == "in-sync" && has_all).then_some(if since > back { since } else { now }))
    })?;
    let at_join = clients.answered();
    // A second more, to see that nothing follows.
    until(&clients, clients.elapsed().as_secs_f64() + 1.0)?;
    let seconds = clients.elapsed().as_secs_f64();
    Ok(Run {
        answered: clients.stop()?,
        seconds,
        failed,
        back,
        joined,
        joining,
        before,
        at_join,
    })
}

/// Waits until the clients have been at it for so many seconds.
fn until(clients: &Clients, seconds: f64) -> Result<()> {
    wait_until("the time has come", PATIENCE, || {
        clients.must_run()?;
        Ok((clients.elapsed().as_secs_f64() >= seconds).then_some(()))
    })
}

fn session(network: &Network) -> Result<Value> {
    match &mut sessions(network)?[..] {
        [session] => Ok(session.take()),
        other => bail!("{} sessions instead of one", other.len()),
    }
}

/// The index of the primary.
fn primary(network: &Network) -> Result<usize> {
    let session = session(network)?;
    let name = session["primary"].as_str().unwrap_or_default();
    let index = name.strip_prefix('s').and_then(|index| index.parse().ok());
    index.with_context(|| format!("the session's primary is {name:?}"))
}

/// A replica, and the bytes that came from the client.
fn replica(network: &Network, index: usize) -> Result<(Value, u64)> {
    let mut session = session(network)?;
    let received = session["received"].as_u64().context("no bytes received")?;
    let replicas = session["replicas"].as_array_mut();
    let mut replicas = replicas.into_iter().flatten();
    let replica = replicas.find(|r| r["name"] == format!("s{index}"));
    let replica = replica.context("the replica is gone")?;
    Ok((replica.take(), received))
}

fn figure(away: Away, runs: &[Run]) -> Figure {
    let fact = |name: &str, of: &dyn Fn(&Run) -> f64, theirs: Option<f64>, unit: &str| {
        Fact::new(
            name,
            rounded(median(runs.iter().map(of).collect()), 3),
            theirs,
            unit,
        )
    };
    let (each, title, quote) = match away {
        Away::Cut => (
            95.0,
            "Requests while the primary is cut off and comes back",
            "95ms per request with overall throughput of 13.1 requests per second",
        ),
        Away::Restarted => (
            235.0,
            "Requests while the primary is killed and started again",
            "request replay time is longer at 235ms",
        ),
    };
    let longest = |run: &Run| {
        run.answered
            .iter()
            .map(|a| a.latency_ms)
            .fold(0.0, f64::max)
    };
    // Where the replay was too quick to be seen, all the time until it was over is taken.
    let replay = |run: &Run| (run.joined - run.joining.unwrap_or(run.back)) * 1e3;
    let mut facts = vec![
        fact(
            "replay, for each request replayed",
            &|run| replay(run) / run.at_join.max(1) as f64,
            Some(each),
            "ms",
        ),
        fact("requests replayed", &|run| run.at_join as f64, None, ""),
        fact(
            "of them new to the replica",
            &|run| (run.at_join - run.before) as f64,
            None,
            "",
        ),
        fact(
            "from when it could be reached until it was in sync",
            &|run| run.joined - run.back,
            None,
            "s",
        ),
        fact("of which the replay", &|run| replay(run) / 1e3, None, "s"),
        fact("time away", &|run| run.back - run.failed, None, "s"),
        fact(
            "longest latency of a request",
            &longest,
            Some(1_700.0),
            "ms",
        ),
    ];
    if away == Away::Cut {
        let rate = |run: &Run| run.answered.len() as f64 / run.seconds;
        facts.push(fact("requests answered", &rate, Some(RATE), "1/s"));
    }
    let series = runs.iter().enumerate().map(|(index, run)| Series {
        name: match runs.len() {
            1 => "requests".to_owned(),
            _ => format!("requests, run {}", index + 1),
        },
        points: (run.answered.iter())
            .map(|a| Point::new(rounded(a.at, 3), rounded(a.latency_ms, 3)))
            .collect(),
    });
    let y = Axis::logarithmic("latency of a request", "ms");
    Figure {
        id: format!("002-resync-{}", away.name()),
        title: title.to_owned(),
        kind: Kind::Time,
        x: Axis::new("time", "s"),
        y,
        labels: Vec::new(),
        ours: series.collect(),
        theirs: Vec::new(),
        theirs_from: format!("{SEED}, 3.4.3: \"{quote}\""),
        differs: vec![
            LAB.to_owned(),
            "Theirs replays the requests that a replica missed, one HTTP request after the other, from \
             a database. Ours gives a new connection everything from the session's first byte on, \
             and compares the answers with what the client was sent."
                .to_owned(),
            format!(
                "Requests come at the rate that theirs had; each costs a server {} ms of CPU time. \
                 Latency is counted from when a request was due.",
                WORK_US / 1_000
            ),
        ],
        facts,
        quick: false,
    }
}
