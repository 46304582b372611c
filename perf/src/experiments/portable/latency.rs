//! Figure 4.7: latency at two constant loads.

use super::balanced::{Balanced, on_endpoints};
use super::case::Case;
use super::paced;
use super::sweep::{place, seconds, theirs};
use super::throughput::slow_link;
use crate::experiments::Settings;
use crate::figure::{Axis, Fact, Figure, Kind, Series};
use crate::measure::{percentile, rounded};
use crate::written::thousands;
use anyhow::{Context, Result};

/// The loads, as shares of what the slowest of the cases carries: the seed's 160,000 and 180,000 were such
/// shares of the 190,000 that filled its link.
const SHARES: [f64; 2] = [0.84, 0.95];
/// What is offered to see how much is carried: more than the link takes.
const TOO_MUCH: f64 = 30_000.0;
const SERVERS: usize = 16;
/// A load that a busy machine did not carry is tried again, so often.
const AGAIN: usize = 2;
/// The balancers.
const CASES: [Case; 3] = [Case::Nat, Case::Nftables, Case::Tunnel];
/// The seed's medians of IPVS and iptables DNAT in ms, at each load.
const THEIRS: [[f64; 2]; 2] = [[1.14, 1.24], [1.39, 1.45]];
/// What the seed's both carried: requests a second.
const THEIR_MOST: f64 = 190_000.0;

/// The figure.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let measured = on_endpoints(|| measure(settings))?;
    Ok(vec![figure(&measured)])
}

fn figure(measured: &Measured) -> Figure {
    let mut ours = Vec::new();
    let mut facts = Vec::new();
    for (case, most) in CASES.iter().zip(&measured.carried) {
        facts.push(Fact::new(
            format!("{}: carried at most", case.name()),
            most.round(),
            (*case != Case::Tunnel).then_some(THEIR_MOST),
            "requests/s",
        ));
    }
    for ((case, load), values) in &measured.latencies {
        let name = format!(
            "{}, {}/s",
            CASES[*case].name(),
            thousands(measured.loads[*load])
        );
        facts.push(Fact::new(
            format!("{name}: median"),
            rounded(percentile(values, 0.5), 3),
            THEIRS[*load].get(*case).copied(),
            "ms",
        ));
        facts.push(Fact::new(
            format!("{name}: p99"),
            rounded(percentile(values, 0.99), 3),
            None,
            "ms",
        ));
        ours.push(Series::distribution(&name, values));
    }
    let of_theirs = |name: &str, median| theirs(name, &[(median, 0.5)]);
    Figure {
        id: "003-4.7".into(),
        title: "Latency at two constant loads".into(),
        kind: Kind::Distribution,
        x: Axis::logarithmic("latency", "ms"),
        y: Axis::new("share of requests", ""),
        labels: Vec::new(),
        ours,
        theirs: vec![
            of_theirs("IPVS, 160,000/s, median", THEIRS[0][0]),
            of_theirs("iptables DNAT, 160,000/s, median", THEIRS[0][1]),
            of_theirs("IPVS, 180,000/s, median", THEIRS[1][0]),
            of_theirs("iptables DNAT, 180,000/s, median", THEIRS[1][1]),
        ],
        theirs_from: place(
            "section 4.1, p. 45: the medians only (the text names 160K for both loads); p. 44: \"about 190K \
             [req/sec]\"",
        ),
        differs: differs(),
        facts,
        quick: false,
    }
}

fn differs() -> Vec<String> {
    let [low, high] = SHARES.map(|share| share * 100.0);
    let loads = format!(
        "Links of 100 Mbit/s and servers of 1,357 requests/s: a tenth of the seed's. The loads are {low:.0} and {high:.0} % \
         of what the slowest of the three carried just before, as the seed's 160,000 and 180,000 were of the 190,000 that \
         filled its link."
    );
    let others = [
        "Open loop: a request's latency counts from the time when it was to be sent. The seed does not say \
         how it made a constant load.",
        "All machines are namespaces of one host: client, router and servers share one CPU, and the \
         balancer has the other one. What the client's side waits for its CPU is in the latency, the same \
         for all; where that CPU is full before the link is, it is what the loads are shares of.",
        "The tunnel is shown too; the seed has no latency of it.",
        "nftables with conntrack stands for the seed's iptables DNAT.",
        "The seed draws the distributions without giving their numbers, but for the medians.",
    ];
    std::iter::once(loads)
        .chain(others.map(str::to_owned))
        .collect()
}

/// What was measured.
struct Measured {
    /// What each case carries, in requests a second.
    carried: Vec<f64>,
    /// Requests a second.
    loads: [f64; 2],
    /// By case and load: all rounds together, sorted.
    latencies: Vec<((usize, usize), Vec<f64>)>,
}

fn measure(settings: &Settings) -> Result<Measured> {
    let (size, _) = slow_link(settings, SERVERS);
    let mut lab = Balanced::build(size)?;
    let mut carried = Vec::new();
    for case in CASES {
        lab.serve(case, size.servers)?;
        let most = paced::carried(lab.lab.client.netns(), TOO_MUCH, seconds(settings) as f64);
        carried.push(most.with_context(|| format!("what {} carries", case.name()))?);
    }
    let loads = loads(&carried);
    let seconds = if settings.quick { 1.0 } else { 4.0 };
    let pairs = (0..CASES.len()).flat_map(|case| (0..loads.len()).map(move |load| (case, load)));
    let mut latencies: Vec<_> = pairs.map(|pair| (pair, Vec::new())).collect();
    for _ in 0..settings.rounds {
        for ((case, load), values) in &mut latencies {
            let (case, load) = (CASES[*case], loads[*load]);
            lab.serve(case, size.servers)?;
            let latencies = again(|| paced::run(lab.lab.client.netns(), load, seconds));
            values.extend(
                latencies
                    .with_context(|| format!("{}, {} requests/s", case.name(), thousands(load)))?,
            );
        }
    }
    let each = latencies.iter_mut();
    each.for_each(|(_, values): &mut (_, Vec<f64>)| values.sort_by(f64::total_cmp));
    Ok(Measured {
        carried,
        loads,
        latencies,
    })
}

/// The loads that all can carry, in hundreds.
fn loads(carried: &[f64]) -> [f64; 2] {
    let least = carried.iter().copied().fold(f64::INFINITY, f64::min);
    SHARES.map(|share| ((share * least / 100.0).floor() * 100.0).max(100.0))
}

/// The first trial that comes to an end, or the last error.
fn again<T>(mut trial: impl FnMut() -> Result<T>) -> Result<T> {
    let mut result = trial();
    for _ in 0..AGAIN {
        if result.is_ok() {
            break;
        }
        result = trial();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_shares_of_what_the_slowest_carries() {
        assert_eq!(loads(&[25_000.0, 19_000.0, 21_000.0]), [15_900.0, 18_000.0]);
        assert_eq!(loads(&[50.0]), [100.0, 100.0]);
    }

    #[test]
    fn a_load_that_was_not_carried_is_tried_again_but_not_for_ever() {
        let mut tries = 0;
        let third = again(|| {
            tries += 1;
            anyhow::ensure!(tries == 3, "not yet");
            Ok(tries)
        });
        assert_eq!(third.unwrap(), 3);
        tries = 0;
        let never: Result<()> = again(|| {
            tries += 1;
            anyhow::bail!("try {tries}")
        });
        assert_eq!(never.unwrap_err().to_string(), "try 3");
    }

    #[test]
    fn both_loads_stand_beside_the_seed_s_medians() {
        let latencies = (0..CASES.len()).flat_map(|case| [(case, 0), (case, 1)]);
        let figure = figure(&Measured {
            carried: vec![25_000.0, 19_000.0, 21_000.0],
            loads: [15_900.0, 18_000.0],
            latencies: latencies.map(|pair| (pair, vec![1.0, 2.0])).collect(),
        });
        let names: Vec<&str> = figure.ours.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names[..2],
            ["Lockstep, NAT, 15,900/s", "Lockstep, NAT, 18,000/s"]
        );
        assert_eq!(names.len(), 6);
        let theirs = |name: &str| {
            let mut facts = figure.facts.iter();
            facts.find(|fact| fact.name == name).unwrap().theirs
        };
        assert_eq!(theirs("nftables DNAT: carried at most"), Some(190_000.0));
        assert_eq!(theirs("Lockstep, NAT, 18,000/s: median"), Some(1.39));
        assert_eq!(theirs("nftables DNAT, 15,900/s: median"), Some(1.24));
        assert_eq!(theirs("Lockstep, tunnel, 18,000/s: median"), None);
        assert!(
            figure.differs[0].contains("84 and 95 %"),
            "{}",
            figure.differs[0]
        );
    }
}
