//! Throughput by the number of servers: wrk for a while at each.

use super::balanced::{Balanced, Size};
use super::case::Case;
use super::farm::{self, Farm, PORT};
use super::{BALANCER, SEED};
use crate::cpu::{self, Busy};
use crate::experiments::Settings;
use crate::figure::{Axis, Figure, Kind, Point, Series};
use crate::reading::Reading;
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Lab, VIP_V4, Wrk, wait_until};
use std::time::{Duration, Instant};

/// As many as in the seed.
const CONNECTIONS: u32 = 800;
/// For connections to be made.
const WARM_UP: Duration = Duration::from_millis(700);
/// A share of bad answers above this is no measurement.
const BAD: f64 = 0.01;

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Answered requests a second.
    pub requests_per_second: f64,
    /// The share of the time for which the balancer's CPU was not idle, 0 to 1.
    pub balancer_cpu: f64,
}

/// The trials of one case: for each number of servers, those of all rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The case.
    pub name: String,
    /// By the number of servers.
    pub trials: Vec<(usize, Vec<Trial>)>,
}

/// Measures cases in turns, each with the numbers of servers in `counts`.
pub fn sweep(
    settings: &Settings,
    size: Size,
    cases: &[Case],
    counts: &[usize],
) -> Result<Vec<Curve>> {
    let mut lab = Balanced::build(size)?;
    let mut curves: Vec<Curve> = cases
        .iter()
        .map(|case| Curve::new(case.name(), counts))
        .collect();
    for round in 0..settings.rounds {
        // Every other round backwards, so that no case is always the first.
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            for (at, &servers) in counts.iter().enumerate() {
                lab.serve(cases[index], servers)?;
                let trial = trial(&lab.lab, &lab.farm, seconds(settings))
                    .with_context(|| format!("{}, {servers} servers", cases[index].name()))?;
                curves[index].trials[at].1.push(trial);
            }
        }
    }
    Ok(curves)
}

/// Of each trial.
pub fn seconds(settings: &Settings) -> u64 {
    if settings.quick { 1 } else { 2 }
}

/// wrk for a while, of which the first part, in which connections are made, does not count.
pub fn trial(lab: &Lab, farm: &Farm, seconds: u64) -> Result<Trial> {
    let load = wrk(lab, seconds + WARM_UP.as_secs() + 5)?;
    let nothing = farm.requests()?;
    let load = lab.client.start_wrk(&load)?;
    wait_for(Instant::now() + WARM_UP)?;
    let before = (farm.requests()?, cpu::unused_now(BALANCER)?);
    wait_for(before.0.at + Duration::from_secs(seconds))?;
    let after = (farm.requests()?, cpu::unused_now(BALANCER)?);
    let report = load.finish()?;
    let bad = report.errors() as f64 / report.requests as f64;
    ensure!(
        bad <= BAD,
        "{:.0} % of the requests failed: {report:?}",
        bad * 100.0
    );
    agree(
        farm.requests()?.value.saturating_sub(nothing.value),
        report.requests,
    )?;
    let requests_per_second = rate(before.0, after.0);
    ensure!(requests_per_second > 0.0, "no request was answered");
    Ok(Trial {
        requests_per_second: requests_per_second.round(),
        balancer_cpu: Busy::between(before.1, after.1)?.share(),
    })
}

/// Requests a second between two counts of them.
pub fn rate(before: Reading<u64>, after: Reading<u64>) -> f64 {
    let seconds = after.seconds_since(&before);
    after.value.saturating_sub(before.value) as f64 / seconds.max(1e-9)
}

/// The servers and wrk count the same requests, but for those under way when wrk ends: else one of
/// them counts something else, and there is no result.
pub fn agree(servers: u64, wrk: u64) -> Result<()> {
    let apart = servers.abs_diff(wrk);
    ensure!(
        apart <= 2 * u64::from(CONNECTIONS) + wrk / 50,
        "the servers have answered {servers} requests, and wrk counted {wrk}"
    );
    Ok(())
}

/// Waits for a time.
pub fn wait_for(time: Instant) -> Result<()> {
    let left = time.saturating_duration_since(Instant::now());
    wait_until("it is time", left + Duration::from_secs(5), || {
        Ok((Instant::now() >= time).then_some(()))
    })
}

/// The load of every trial.
pub fn wrk(lab: &Lab, seconds: u64) -> Result<Wrk> {
    let wrk = Wrk::new(format!("http://{VIP_V4}:{PORT}/")).connections(CONNECTIONS);
    Ok(wrk.seconds(seconds).script(farm::script(lab)?))
}

impl Curve {
    /// Without trials yet.
    pub fn new(name: impl Into<String>, counts: &[usize]) -> Self {
        Curve {
            name: name.into(),
            trials: counts.iter().map(|&count| (count, Vec::new())).collect(),
        }
    }

    /// The highest point: requests a second.
    pub fn most(&self) -> f64 {
        let points = self.throughput().points;
        points.iter().map(|point| point.y).fold(0.0, f64::max)
    }

    /// The balancer's CPU seconds for a million requests, where most were answered.
    pub fn cpu_per_million(&self) -> f64 {
        let rates = self.throughput().points.into_iter().zip(self.cpu().points);
        let best = rates.max_by(|a, b| a.0.y.total_cmp(&b.0.y));
        best.map_or(f64::NAN, |(rate, cpu)| cpu.y / 100.0 / rate.y * 1e6)
    }

    /// Requests a second over servers.
    pub fn throughput(&self) -> Series {
        self.series(|trial| trial.requests_per_second)
    }

    /// Percent of the balancer's CPU over servers.
    pub fn cpu(&self) -> Series {
        self.series(|trial| crate::measure::rounded(trial.balancer_cpu * 100.0, 1))
    }

    fn series(&self, value: fn(&Trial) -> f64) -> Series {
        let point = |(servers, trials): &(usize, Vec<Trial>)| {
            let values: Vec<f64> = trials.iter().map(value).collect();
            Point::of_rounds(*servers as f64, &values)
        };
        Series {
            name: self.name.clone(),
            points: self.trials.iter().map(point).collect(),
        }
    }
}

/// Throughput over servers.
pub fn throughput_figure(id: &str, title: &str, curves: &[Curve], differs: &[&str]) -> Figure {
    Figure {
        id: id.into(),
        title: title.into(),
        kind: Kind::Lines,
        x: Axis::new("servers", ""),
        y: Axis::logarithmic("throughput", "requests/s"),
        labels: Vec::new(),
        ours: curves.iter().map(Curve::throughput).collect(),
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs: differs.iter().map(|text| (*text).to_owned()).collect(),
        facts: Vec::new(),
        quick: false,
    }
}

/// The balancer's CPU over servers.
pub fn cpu_figure(id: &str, title: &str, curves: &[Curve], differs: &[&str]) -> Figure {
    let mut figure = throughput_figure(id, title, curves, differs);
    figure.y = Axis::new("the balancer's CPU", "%");
    figure.ours = curves.iter().map(Curve::cpu).collect();
    figure
}

/// Points of theirs.
pub fn theirs(name: &str, points: &[(f64, f64)]) -> Series {
    Series {
        name: name.into(),
        points: points.iter().map(|&(x, y)| Point::new(x, y)).collect(),
    }
}

/// A place in the seed.
pub fn place(what: &str) -> String {
    format!("{SEED}, {what}")
}
