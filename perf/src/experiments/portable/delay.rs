//! Figure 4.15: how long it takes until the router's route has what balancers have become.

use super::balanced::on_endpoints;
use super::ecmp::Rack;
use super::sweep::{place, theirs};
use crate::experiments::Settings;
use crate::figure::{Axis, Fact, Figure, Kind, Series};
use crate::measure::{percentile, rounded};
use anyhow::{Context, Result};
use lockstep_tests::lab::Forwarding;
use nix::sys::signal::Signal;
use std::time::Instant;

/// What happens to a balancer, in the order in which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// `lockstep drain --balancer`.
    Drained,
    /// `lockstep undrain --balancer`.
    Undrained,
    /// SIGTERM to its daemon, then to its engine.
    Stopped,
    /// Its engine and its daemon are started.
    Started,
    /// `kill -9` of its daemon.
    Killed,
    /// The daemon is started again.
    Again,
}

impl Change {
    const ALL: [Change; 6] = [
        Change::Drained,
        Change::Undrained,
        Change::Stopped,
        Change::Started,
        Change::Killed,
        Change::Again,
    ];

    const fn name(self) -> &'static str {
        match self {
            Change::Drained => "told to leave (drain)",
            Change::Undrained => "told to come back (undrain)",
            Change::Stopped => "ended (SIGTERM)",
            Change::Started => "started, engine and daemon",
            Change::Killed => "daemon killed (SIGKILL)",
            Change::Again => "daemon started again",
        }
    }

    /// Whether the balancer is in the route afterwards.
    const fn is_there(self) -> bool {
        matches!(self, Change::Undrained | Change::Started | Change::Again)
    }

    /// Makes it so, and returns how long the route took, in seconds.
    fn make(self, rack: &mut Rack, index: usize) -> Result<f64> {
        rack.there[index] = self.is_there();
        let balancer = &mut rack.lab.balancers[index];
        let begin = Instant::now();
        match self {
            Change::Drained => drop(balancer.cli(&["drain", "--balancer"])?),
            Change::Undrained => drop(balancer.cli(&["undrain", "--balancer"])?),
            Change::Stopped => balancer.daemon()?.signal(Signal::SIGTERM)?,
            Change::Started => {
                balancer.start_engine()?;
                balancer.start_daemon()?;
            }
            Change::Killed => balancer.kill_daemon()?,
            Change::Again => balancer.start_daemon()?,
        }
        rack.routes_follow()?;
        let delay = begin.elapsed().as_secs_f64();
        if self == Change::Stopped {
            // It has been told already.
            let balancer = &mut rack.lab.balancers[index];
            balancer.end_daemon(Signal::SIGCONT)?;
            balancer.stop_engine()?;
        }
        Ok(delay)
    }
}

/// The figure.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let delays = on_endpoints(|| measure(settings))?;
    let mut all: Vec<f64> = delays
        .iter()
        .flat_map(|(_, delays)| delays.clone())
        .collect();
    all.sort_by(f64::total_cmp);
    let ours = delays
        .iter()
        .map(|(change, delays)| Series::distribution(change.name(), delays));
    let mut facts = vec![
        Fact::new("changes", all.len() as f64, None, ""),
        Fact::new(
            "median of all",
            rounded(percentile(&all, 0.5), 3),
            None,
            "s",
        ),
        Fact::new(
            "most (ours: p90 of all; theirs: \"most\") within",
            rounded(percentile(&all, 0.9), 3),
            Some(6.0),
            "s",
        ),
        Fact::new(
            "longest of all",
            rounded(percentile(&all, 1.0), 3),
            Some(10.0),
            "s",
        ),
    ];
    facts.extend(
        delays
            .iter()
            .map(|(change, delays)| median(*change, delays)),
    );
    Ok(vec![Figure {
        id: "003-4.15".into(),
        title: "How long the router's route takes to follow balancers".into(),
        kind: Kind::Distribution,
        x: Axis::logarithmic("delay", "s"),
        y: Axis::new("share of changes", ""),
        labels: Vec::new(),
        ours: ours.collect(),
        theirs: vec![theirs("all, the longest in 20 hours", &[(10.0, 1.0)])],
        theirs_from: place("section 4.3, p. 53: \"most of the delays are within 6 seconds\", the longest 10 s"),
        differs: [
            "From the command, signal or start of the program until the router's kernel has the route, \
             looked at every 10 ms; the seed's begin is when the number of running pods has changed.",
            "Minutes, each balancer in its turn; the seed changed the number at random every 60 s for 20 \
             hours.",
            "BIRD on the router and gobgpd as the route reflector; the seed had gobgpd on both.",
            "By hand; the seed's changes came from Kubernetes.",
            "The seed draws a histogram without giving its numbers.",
        ]
        .map(str::to_owned)
        .to_vec(),
        facts,
        quick: false,
    }])
}

fn median(change: Change, delays: &[f64]) -> Fact {
    let name = format!("{}: median", change.name());
    Fact::new(name, rounded(percentile(delays, 0.5), 3), None, "s")
}

/// By change: the delays of all rounds, sorted.
type Delays = Vec<(Change, Vec<f64>)>;

fn measure(settings: &Settings) -> Result<Delays> {
    let mut rack = Rack::build(1, 1_000, Forwarding::Ipip, None)?;
    let mut delays: Delays = Change::ALL.map(|change| (change, Vec::new())).to_vec();
    let repeats = if settings.quick {
        2
    } else {
        6 * settings.rounds
    };
    for turn in 0..repeats {
        let index = turn % rack.there.len();
        for (change, delays) in &mut delays {
            let delay = change.make(&mut rack, index);
            let what = || format!("b{index}: {}", change.name());
            delays.push(delay.with_context(what)?);
        }
    }
    delays
        .iter_mut()
        .for_each(|(_, delays)| delays.sort_by(f64::total_cmp));
    Ok(delays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_followed_by_what_takes_it_back() {
        let pairs = Change::ALL.chunks(2);
        assert!(
            pairs
                .into_iter()
                .all(|pair| !pair[0].is_there() && pair[1].is_there())
        );
    }
}
