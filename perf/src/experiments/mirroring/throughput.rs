//! Figure 7: what a mirror costs.

use super::requests::{Clients, Pace};
use super::{LAB, SEED};
use crate::experiments::Settings;
use crate::experiments::engine::{Mode, cpus, start_engine};
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::{median, percentile, rounded};
use crate::reading::Reading;
use crate::replicate::Cpus;
use crate::replicate::balancer::sessions;
use crate::replicate::network::Network;
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Process, wait_until};
use std::process::Command;
use std::time::Duration;

/// Connections with a request under way each.
const CONNECTIONS: usize = 8;
/// CPU time of a request at the server, about as in theirs: 500 requests a second of each CPU.
const WORK_US: u64 = 2_000;
const SOON: Duration = Duration::from_secs(10);

/// Where requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// To one server; the engine rewrites packets.
    Nat,
    /// To one server; the engine answers the client itself.
    Unmirrored,
    /// To two, the second one on a CPU that the first does not use.
    Apart,
    /// To two on one CPU.
    Together,
}

impl Case {
    const ALL: [Case; 4] = [Case::Nat, Case::Unmirrored, Case::Apart, Case::Together];

    const fn name(self) -> &'static str {
        match self {
            Case::Nat => "no mirror, NAT",
            Case::Unmirrored => "no mirror",
            Case::Apart => "mirror on another CPU",
            Case::Together => "mirror on the same CPU",
        }
    }

    const fn servers(self) -> usize {
        match self {
            Case::Nat | Case::Unmirrored => 1,
            Case::Apart | Case::Together => 2,
        }
    }

    fn mode(self) -> Mode {
        match self {
            Case::Nat => Mode::Nat,
            Case::Unmirrored | Case::Apart | Case::Together => Mode::Replicate {
                replicas: self.servers(),
                // What is measured is that many: the client waits for one that is slow.
                policy: "grace = \"1m\"\n".to_owned(),
            },
        }
    }
}

/// The rounds of a case.
#[derive(Debug, Clone, Default)]
struct Measured {
    /// Requests a second, with work and without.
    rates: [Vec<f64>; 2],
    /// Milliseconds, of one connection without work, of all rounds.
    latencies: Vec<f64>,
}

/// Measures every case in every round, in turns.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let cpus = cpus()?;
    let time = match settings.quick {
        true => Duration::from_millis(700),
        false => Duration::from_secs(3),
    };
    let mut all: Vec<Measured> = vec![Measured::default(); Case::ALL.len()];
    for round in 0..settings.rounds {
        let mut order: Vec<usize> = (0..Case::ALL.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let case = Case::ALL[index];
            trial(case, &mut all[index], time, cpus)
                .with_context(|| format!("cannot measure: {}", case.name()))?;
        }
    }
    Ok(vec![
        rates("002-7", &all, 0),
        rates("002-7-bare", &all, 1),
        latency(all),
    ])
}

fn trial(case: Case, measured: &mut Measured, time: Duration, cpus: Cpus) -> Result<()> {
    let network = Network::build(case.servers(), cpus)?;
    let mut servers = vec![network.start_server(Some(0), cpus.endpoints)?];
    if case.servers() == 2 {
        servers.push(mirror(&network, case, cpus)?);
    }
    let _engine = start_engine(&network, &case.mode(), cpus)?;
    for (rates, work) in measured.rates.iter_mut().zip([WORK_US, 0]) {
        // Without work the engine needs all of its CPU, and a mirror there would have none.
        if work > 0 || case != Case::Apart {
            rates.push(saturated(&network, case, work, time, cpus)?);
        }
    }
    let client = Clients::start(&network, 1, Pace::AnswerByAnswer, 0, cpus.endpoints)?;
    until(&client, time)?;
    let answered = client.stop()?;
    ensure!(answered.len() > 10, "only {} requests", answered.len());
    measured
        .latencies
        .extend(answered.iter().map(|a| a.latency_ms));
    Ok(())
}

/// The second server.
fn mirror(network: &Network, case: Case, cpus: Cpus) -> Result<Process> {
    if case == Case::Together {
        return network.start_server(Some(1), cpus.endpoints);
    }
    let server = network.start_server(Some(1), cpus.balancer)?;
    // It gets what the balancer leaves, instead of taking turns with it.
    let pid = server.pid().to_string();
    let status = Command::new("chrt")
        .args(["--other", "--pid", "0", &pid])
        .status()?;
    ensure!(status.success(), "chrt failed: {status}");
    Ok(server)
}

/// Requests a second, with as many under way as there are connections.
fn saturated(network: &Network, case: Case, work: u64, time: Duration, cpus: Cpus) -> Result<f64> {
    let pace = Pace::AnswerByAnswer;
    let clients = Clients::start(network, CONNECTIONS, pace, work, cpus.endpoints)?;
    until(&clients, time / 4)?;
    let answered = || Reading::make(|| Ok(clients.answered()));
    let before = answered()?;
    until(&clients, time / 4 + time)?;
    let after = answered()?;
    let rate = (after.value - before.value) as f64 / after.seconds_since(&before);
    if case != Case::Nat {
        let sessions = sessions(network)?;
        let replicas = sessions
            .iter()
            .flat_map(|s| s["replicas"].as_array())
            .flatten();
        let in_sync = replicas.filter(|r| r["state"] == "in-sync" && r["diverged"] == false);
        let wanted = CONNECTIONS * case.servers();
        let in_sync = in_sync.count();
        ensure!(
            in_sync == wanted,
            "only {in_sync} of {wanted} replicas are in sync"
        );
    }
    clients.stop()?;
    ensure!(rate > 0.0, "no request was answered");
    Ok(rounded(rate, 1))
}

/// Waits until the clients have been at it for so long.
fn until(clients: &Clients, time: Duration) -> Result<()> {
    wait_until("the trial is over", time + SOON, || {
        clients.must_run()?;
        Ok((clients.elapsed() >= time).then_some(()))
    })
}

fn rates(id: &str, all: &[Measured], load: usize) -> Figure {
    let works = load == 0;
    let measured = Case::ALL.into_iter().zip(all);
    let measured = measured.filter(|(_, case)| !case.rates[load].is_empty());
    let (labels, points): (Vec<String>, Vec<Point>) = (measured.enumerate())
        .map(|(x, (case, measured))| {
            let point = Point::of_rounds(x as f64, &measured.rates[load]);
            (case.name().to_owned(), point)
        })
        .unzip();
    let rate = |case: Case| {
        let index = Case::ALL.iter().position(|c| *c == case);
        index.map_or(f64::NAN, |index| median(all[index].rates[load].clone()))
    };
    let lost = |case: Case, theirs: f64| {
        Fact::new(
            format!("throughput lost: {}", case.name()),
            rounded(100.0 * (1.0 - rate(case) / rate(Case::Unmirrored)), 1),
            works.then_some(theirs),
            "%",
        )
    };
    let title = match works {
        true => "Requests of 7 kB with answers of 35 kB, with and without a mirror",
        false => "The same, with servers that do nothing but answer",
    };
    let mut differs = vec![LAB.to_owned()];
    differs.push(match works {
        true => format!(
            "A request costs a server {} ms of CPU time here: theirs handle about 500 a second \
             per CPU.",
            WORK_US / 1_000
        ),
        false => "Theirs has no such case: there, requests cost the servers much more than the \
                  network does."
            .to_owned(),
    });
    differs.push(
        "Their values for requests a second are in a picture only; the losses are from the text. The \
         mirror on another CPU shares that one with the engine, theirs has a cluster of its own."
            .to_owned(),
    );
    Figure {
        id: id.to_owned(),
        title: title.to_owned(),
        kind: Kind::Bars,
        x: Axis::new("", ""),
        y: Axis::new("requests", "1/s"),
        labels,
        ours: vec![Series {
            name: format!("{CONNECTIONS} connections"),
            points,
        }],
        theirs: Vec::new(),
        theirs_from: format!("{SEED}, 3.4.2: \"17 %\" and \"around 55 %\""),
        differs,
        facts: match works {
            true => vec![lost(Case::Apart, 17.0), lost(Case::Together, 55.0)],
            false => vec![lost(Case::Together, 55.0)],
        },
        quick: false,
    }
}

fn latency(all: Vec<Measured>) -> Figure {
    let mut facts = Vec::new();
    let mut ours = Vec::new();
    for (case, measured) in Case::ALL.into_iter().zip(all) {
        let mut values = measured.latencies;
        values.sort_by(f64::total_cmp);
        for (name, share) in [("median", 0.5), ("99th percentile", 0.99)] {
            facts.push(Fact::new(
                format!("{name}, {}", case.name()),
                rounded(percentile(&values, share), 3),
                None,
                "ms",
            ));
        }
        ours.push(Series::distribution(case.name(), &values));
    }
    Figure {
        id: "002-7-latency".to_owned(),
        title: "Latency of a request, one at a time".to_owned(),
        kind: Kind::Distribution,
        x: Axis::new("latency", "ms"),
        y: Axis::new("share of requests", ""),
        labels: Vec::new(),
        ours,
        theirs: Vec::new(),
        theirs_from: format!("{SEED}, 3.4.1"),
        differs: vec![
            LAB.to_owned(),
            "Theirs has no values: \"negligible additional latency to the primary path\"."
                .to_owned(),
        ],
        facts,
        quick: false,
    }
}
