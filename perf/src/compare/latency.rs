//! Latency at loads that every case can carry: a fixed rate, whatever comes of it, and each time
//! counted from when the packet or the request was due ([`crate::load`]).
//!
//! Datagrams go one way, from the generator to the sink. Requests go over connections that are open
//! already, and come back as responses of 1,000 bytes: all cases have them in common. Rates are shares
//! of what the slowest case carried in the same run; of packets, of these ([`most`]) with a loss of 1 % at most. A case that
//! loses more of them at every rate has no say in that, and what it loses is told beside its latency. Where
//! each does, there is no rate, and the results say so in place of a latency
//! ([`NoLatency`](super::caveats::NoLatency)).

use super::case::Case;
use super::engine::IN;
use super::packets::{self, CALM, DEVICE, mtu, place};
use super::requests::{self, DIRECT, MTU, Servers};
use super::results::{LatencyRound, Share};
use super::{Arguments, Cpus};
use crate::host;
use crate::load::{self, Goal, Load, Mac, Mix, Outcome, Protocol, Scenario};
use crate::measure::rounded;
use crate::replicate::network::{CLIENT_DEVICE, PORT, VIP};
use crate::written::grouped;
use anyhow::{Context, Result, anyhow, ensure};

/// Frames of datagrams whose latency is measured.
const BYTES: usize = 64;

/// How long, and with how many flows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of each trial.
    pub seconds: f64,
    /// Of the search for what a case carries ([`Goal::resolution`]).
    pub resolution: f64,
    /// At each rate, one after the other.
    pub trials: usize,
    /// Of datagrams.
    pub flows: u32,
    /// Of requests.
    pub connections: u32,
    /// Prints every trial.
    pub verbose: bool,
}

impl Settings {
    /// Of a run.
    pub fn of(arguments: &Arguments) -> Self {
        Settings {
            // A host takes a virtual machine's CPUs away for milliseconds now and then, which is the p99 of a
            // trial that has it, whatever the case: most trials are to have none. And it has to be less than
            // the second after which the kernel gives a CPU that has been taken from all others to them for
            // up to 50 ms (its fair server), which would be the p99 of whatever polls.
            seconds: 0.25,
            resolution: match arguments.results.quick {
                true => 0.5,
                false => 0.1,
            },
            trials: match arguments.results.quick {
                true => 1,
                false => 6,
            },
            flows: arguments.flows,
            connections: arguments.connections,
            verbose: arguments.verbose,
        }
    }
}

/// The most datagrams a second that one case carries, of those that latency is measured with, and with no more
/// than [`CALM`] lost. None where it loses more at every rate.
pub fn most(case: Case, cpus: Cpus, settings: &Settings) -> Result<Option<u64>> {
    let network = packets::Network::build(mtu(BYTES), false)?;
    let _balancer = packets::start(case, &network, cpus)?;
    let mut scenario = paced(case, &network, cpus, settings)?;
    let goal = Goal {
        loss: CALM,
        resolution: settings.resolution,
    };
    let found = load::search(HIGHEST, goal, |rate| {
        scenario.load.packets_per_second = rate;
        let mut outcome = load::run_child(&scenario)?;
        if !goal.is_met(&outcome) {
            // A pause of a host's is a loss, too.
            outcome = load::run_child(&scenario)?;
        }
        if settings.verbose {
            eprintln!("{case:<24} {rate:>7} {:.4} lost", missed(&outcome));
        }
        Ok(Some(outcome))
    })?;
    Ok(found.rate)
}

/// The first rate that is tried, a second, and so the highest: about what a socket sends here.
pub const HIGHEST: u64 = 1_280_000;

fn paced(
    case: Case,
    network: &packets::Network,
    cpus: Cpus,
    settings: &Settings,
) -> Result<Scenario> {
    let mut scenario = packets::scenario(case, network, cpus, settings.flows, BYTES)?;
    scenario.sink = Some(place(&network.sink, DEVICE));
    scenario.load.seconds = settings.seconds;
    Ok(scenario)
}

/// Datagrams at each rate through one case.
pub fn datagrams(
    case: Case,
    rates: &[(Share, u64)],
    cpus: Cpus,
    settings: &Settings,
) -> Result<Vec<(Share, LatencyRound)>> {
    let network = packets::Network::build(mtu(BYTES), false)?;
    let _balancer = packets::start(case, &network, cpus)?;
    let scenario = paced(case, &network, cpus, settings)?;
    at_each(case, scenario, rates, settings)
}

/// Requests at each rate through one case.
pub fn requests(
    case: Case,
    rates: &[(Share, u64)],
    cpus: Cpus,
    settings: &Settings,
) -> Result<Vec<(Share, LatencyRound)>> {
    let direct = case.answers_directly();
    let network = requests::Network::build(direct, cpus, MTU, Servers::Http)?;
    let _balancer = requests::start(case, &network, cpus)?;
    network.answers().context("no request is answered")?;
    let client = network.client();
    if case == Case::XdpForwarding {
        // The generator's program takes its place, and makes the same of the veth.
        client.ip(&format!("link set dev {CLIENT_DEVICE} xdpdrv off"))?;
    }
    let load = Load {
        protocol: Protocol::Rr,
        destinations: vec![(VIP, PORT).into()],
        sources: Vec::new(),
        flows: settings.connections,
        sizes: Mix::one(BYTES).map_err(|error| anyhow!(error))?,
        packets_per_second: 0,
        seconds: settings.seconds,
        path: "/".to_owned(),
        next_hop: Some(Mac(network.balancer().mac(IN)?)),
        sink_ports: Vec::new(),
    };
    let scenario = Scenario {
        source: place(client, CLIENT_DEVICE),
        sink: direct.then(|| place(client, DIRECT)),
        cpu: cpus.generator,
        observed_cpu: Some(cpus.balancer),
        load,
    };
    at_each(case, scenario, rates, settings)
}

fn at_each(
    case: Case,
    mut scenario: Scenario,
    rates: &[(Share, u64)],
    settings: &Settings,
) -> Result<Vec<(Share, LatencyRound)>> {
    let mut rounds = Vec::new();
    // What opens a flow is another question: each has had packets before its latency is measured.
    if let Some(&(_, rate)) = rates.first() {
        let seconds = scenario.load.seconds;
        let each = 2.0 * f64::from(scenario.load.flows) / rate.max(1) as f64;
        scenario.load.packets_per_second = rate;
        scenario.load.seconds = each.clamp(0.2, LONGEST_WARM_UP);
        load::run_child(&scenario).context("before the latency")?;
        scenario.load.seconds = seconds;
    }
    let cpus: Vec<usize> = scenario
        .observed_cpu
        .into_iter()
        .chain([scenario.cpu])
        .collect();
    for &(share, rate) in rates {
        scenario.load.packets_per_second = rate;
        let made = trials(settings.trials, || {
            let (outcome, stolen) = host::beside(&cpus, || load::run_child(&scenario))?;
            let round =
                round(&outcome, stolen).with_context(|| format!("{} a second", grouped(rate)))?;
            if settings.verbose {
                eprintln!("{case:<24} {rate:>7} {}", serde_json::to_string(&round)?);
            }
            Ok(round)
        })?;
        rounds.extend(made.into_iter().map(|round| (share, round)));
    }
    Ok(rounds)
}

/// What comes before the first trial takes no longer, in seconds: below the second of the fair server, too.
const LONGEST_WARM_UP: f64 = 0.8;

/// How many trials more there are at most where something stood still.
const AGAIN: usize = 2;

/// So many trials, and another one for each in which something stood still. All of them count: one that
/// is picked from them would hide what the case itself may have done. Those in which a host took a CPU
/// away do not: there are others in their place, as many as were asked for at most.
fn trials(
    count: usize,
    mut trial: impl FnMut() -> Result<LatencyRound>,
) -> Result<Vec<LatencyRound>> {
    let mut made = Vec::new();
    let (mut wanted, mut again) = (count, AGAIN);
    while wanted > 0 && made.len() < 2 * count + AGAIN {
        let round = trial()?;
        if round.stalled() && again > 0 && !round.disturbed() {
            again -= 1;
        } else if !round.disturbed() {
            wanted -= 1;
        }
        made.push(round);
    }
    Ok(made)
}

/// The share of what was due that did not come back.
fn missed(outcome: &Outcome) -> f64 {
    let due = (outcome.sent + outcome.unsent).max(1);
    // A refusal is an answer of the wrong kind, however fast it comes.
    let missed = outcome.lost + outcome.unsent + outcome.resets + outcome.errors;
    missed as f64 / due as f64
}

fn round(outcome: &Outcome, stolen_ms: f64) -> Result<LatencyRound> {
    ensure!(outcome.received > 0, "nothing arrived: it does not forward");
    let latency = outcome
        .latency
        .as_ref()
        .context("no latency was measured")?;
    let cpu = outcome.observed_cpu_seconds;
    Ok(LatencyRound {
        per_second: outcome.received_per_second().round(),
        p50_us: latency.p50_us,
        p90_us: latency.p90_us,
        p99_us: latency.p99_us,
        p999_us: latency.p999_us,
        max_us: latency.max_us,
        lost: rounded(missed(outcome), 7),
        connections: outcome.connections,
        cpu_s_per_million: cpu.map(|cpu| rounded(cpu / outcome.received as f64 * 1e6, 2)),
        stolen_ms: rounded(stolen_ms, 0),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::fixtures::late;
    use super::*;

    /// The longest latency of each trial that is made, where those have these, and a host takes so much.
    fn beside_a_host(count: usize, of_each: &[(f64, f64)]) -> Vec<f64> {
        let mut of_each = of_each.iter();
        let made = trials(count, || {
            let &(max_us, stolen_ms) = of_each.next().unwrap();
            Ok(LatencyRound {
                max_us,
                stolen_ms,
                ..late(100.0)
            })
        });
        made.unwrap().iter().map(|round| round.max_us).collect()
    }

    fn longest(count: usize, of_each: &[f64]) -> Vec<f64> {
        let alone: Vec<_> = of_each.iter().map(|&max_us| (max_us, 0.0)).collect();
        beside_a_host(count, &alone)
    }

    #[test]
    fn what_was_due_and_got_no_good_answer_is_lost_for_whatever_reason() {
        let good = Outcome {
            sent: 90,
            received: 80,
            latency: Some(Default::default()),
            seconds: 1.0,
            ..Outcome::default()
        };
        let lost = |outcome: Outcome| round(&outcome, 0.0).unwrap().lost;
        assert_eq!(lost(good.clone()), 0.0);
        let unsent = Outcome {
            unsent: 10,
            ..good.clone()
        };
        assert_eq!(lost(unsent.clone()), 0.1);
        for of_sent in [
            |outcome: &mut Outcome| outcome.lost = 5,
            |outcome: &mut Outcome| outcome.resets = 5,
            |outcome: &mut Outcome| outcome.errors = 5,
        ] {
            let mut outcome = unsent.clone();
            of_sent(&mut outcome);
            assert_eq!(lost(outcome), 0.15);
        }
        let nothing = Outcome {
            received: 0,
            ..good
        };
        assert!(round(&nothing, 0.0).is_err());
    }

    #[test]
    fn a_trial_in_which_something_stood_still_is_made_again_twice_at_most_and_counts() {
        assert_eq!(longest(1, &[100.0]), [100.0]);
        assert_eq!(longest(1, &[50_000.0, 200.0]), [50_000.0, 200.0]);
        let all = [50_000.0, 40_000.0, 60_000.0];
        assert_eq!(longest(1, &all), all);
        let later = [100.0, 50_000.0, 300.0, 40.0];
        assert_eq!(longest(3, &later), later);
        let all = [50_000.0; 5];
        assert_eq!(longest(3, &all), all);
    }

    #[test]
    fn a_trial_whose_cpus_a_host_took_away_is_made_again_as_often_as_was_asked_for() {
        let some = [
            (1.0, 0.0),
            (9.0, 10.0),
            (2.0, 0.0),
            (50_000.0, 20.0),
            (3.0, 0.0),
        ];
        assert_eq!(beside_a_host(3, &some), [1.0, 9.0, 2.0, 50_000.0, 3.0]);
        assert_eq!(beside_a_host(3, &[(7.0, 10.0); 8]), [7.0; 8]);
    }
}
