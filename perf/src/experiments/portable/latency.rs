//! Figure 4.7: latency at two constant loads.

use super::balanced::{Balanced, Size, on_endpoints};
use super::case::Case;
use super::paced;
use super::sweep::{axis, fact, place, theirs};
use super::throughput::{EACH, MEGABITS};
use crate::experiments::Settings;
use crate::figure::{Figure, Kind, Point, Series};
use crate::measure::{percentile, rounded};
use anyhow::{Context, Result};

/// A tenth of the seed's: 84 and 95 % of what filled its link.
const LOADS: [f64; 2] = [16_000.0, 18_000.0];
const SERVERS: usize = 16;
/// The balancers.
const CASES: [Case; 3] = [Case::Nat, Case::Nftables, Case::Tunnel];
/// The seed's medians of IPVS and iptables DNAT in ms, at each load.
const THEIRS: [[f64; 2]; 2] = [[1.14, 1.24], [1.39, 1.45]];

/// The figure.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let latencies = on_endpoints(|| measure(settings))?;
    let mut ours = Vec::new();
    let mut facts = Vec::new();
    for ((case, load), values) in &latencies {
        let name = format!("{}, {:.0}/s", CASES[*case].name(), LOADS[*load]);
        facts.push(fact(
            format!("{name}: median"),
            rounded(percentile(values, 0.5), 3),
            THEIRS[*load].get(*case).copied(),
            "ms",
        ));
        facts.push(fact(
            format!("{name}: p99"),
            rounded(percentile(values, 0.99), 3),
            None,
            "ms",
        ));
        ours.push(Series {
            name,
            points: distribution(values),
        });
    }
    let of_theirs = |name: &str, median| theirs(name, &[(median, 0.5)]);
    Ok(vec![Figure {
        id: "003-4.7".into(),
        title: "Latency at two constant loads".into(),
        kind: Kind::Distribution,
        x: axis("latency", "ms", true),
        y: axis("share of requests", "", false),
        labels: Vec::new(),
        ours,
        theirs: vec![
            of_theirs("IPVS, 160,000/s, median", THEIRS[0][0]),
            of_theirs("iptables DNAT, 160,000/s, median", THEIRS[0][1]),
            of_theirs("IPVS, 180,000/s, median", THEIRS[1][0]),
            of_theirs("iptables DNAT, 180,000/s, median", THEIRS[1][1]),
        ],
        theirs_from: place(
            "section 4.1, p. 45: the medians only (the text names 160K for both loads)",
        ),
        differs: differs(),
        facts,
        quick: false,
    }])
}

fn differs() -> Vec<String> {
    [
        "Links of 100 Mbit/s, servers of 1,357 requests/s and both loads: a tenth of the seed's.",
        "Open loop: a request's latency counts from the time when it was to be sent. The seed does not say \
         how it made a constant load.",
        "All machines are namespaces of one host: client, router and servers share one CPU, and the \
         balancer has the other one. What the client's side waits for its CPU is in the latency, the same \
         for all.",
        "The tunnel is shown too; the seed has no latency of it.",
        "nftables with conntrack stands for the seed's iptables DNAT.",
        "The seed draws the distributions without giving their numbers, but for the medians.",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// By case and load: all rounds together, sorted.
type Latencies = Vec<((usize, usize), Vec<f64>)>;

fn measure(settings: &Settings) -> Result<Latencies> {
    let scale = if settings.quick { 4 } else { 1 };
    let mut lab = Balanced::build(Size {
        servers: SERVERS / scale,
        each: EACH * scale as u32,
        megabits: Some(MEGABITS),
    })?;
    let seconds = if settings.quick { 1.0 } else { 4.0 };
    let pairs = (0..CASES.len()).flat_map(|case| (0..LOADS.len()).map(move |load| (case, load)));
    let mut all: Latencies = pairs.map(|pair| (pair, Vec::new())).collect();
    for _ in 0..settings.rounds {
        for ((case, load), values) in &mut all {
            let (case, load) = (CASES[*case], LOADS[*load]);
            lab.serve(case, SERVERS / scale)?;
            let latencies = paced::run(lab.lab.client.netns(), load, seconds)
                .with_context(|| format!("{}, {load:.0} requests/s", case.name()))?;
            values.extend(latencies);
        }
    }
    all.iter_mut()
        .for_each(|(_, values)| values.sort_by(f64::total_cmp));
    Ok(all)
}

/// The shares that are drawn: by percent, and finer near the end.
fn distribution(sorted: &[f64]) -> Vec<Point> {
    let hundredths = (1..=99).map(|percent| f64::from(percent) / 100.0);
    let shares = hundredths.chain([0.995, 0.999, 0.9999, 1.0]);
    shares
        .map(|share| Point::new(rounded(percentile(sorted, share), 4), share))
        .collect()
}
