//! Scale on paper and in simulation: how many hosts a load takes, reckoned from what was measured on one
//! core; and whose connections move when backends and balancers come and go, simulated with the engine's
//! own tables and held against formulas.

mod balancer;
mod churn;
mod costs;
mod ecmp;
mod figures;
mod hosts;
mod rack;
mod service;

use crate::figure::{Figure, SHORT_RUN, Series};
use crate::measure::{Results, median};
use crate::plot::short;
use crate::written::grouped;
use anyhow::Result;
use churn::{Loss, Moment, Size};
use costs::Costs;
use ecmp::Way;
use hosts::Hosts;
use std::collections::BTreeSet;
use std::time::Instant;

/// What `lockstep-perf model` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the costs are (core.json, session.json, replicate.json, compare.json), and where figures go.
    #[command(flatten)]
    results: Results,
    /// The seed of the simulation's random numbers: the same one gives the same figures.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// What hosts are like.
    #[command(flatten)]
    hosts: Hosts,
}

/// Backends replaced before a balancer is lost.
const REPLACED: [usize; 7] = [1, 3, 10, 30, 100, 200, 300];
const REPLACED_QUICKLY: [usize; 3] = [1, 30, 300];

/// Simulates, reckons, prints, and writes the figures.
pub fn run(arguments: &Arguments) -> Result<()> {
    arguments.hosts.check()?;
    let start = Instant::now();
    let quick = arguments.results.quick;
    let costs = Costs::read(&arguments.results.results)?;
    let size = Size {
        backends: 1_000,
        balancers: 64,
        flows: if quick { 30_000 } else { 300_000 },
        entries: 655_373,
        steps: if quick { 20 } else { 60 },
        seed: arguments.seed,
    };
    eprintln!(
        "simulating {} connections to {} backends through {} balancers{}",
        grouped(size.flows as u64),
        grouped(size.backends.into()),
        size.balancers,
        if quick { ", a short run" } else { "" }
    );
    let replaced: &[usize] = match quick {
        true => &REPLACED_QUICKLY,
        false => &REPLACED,
    };
    let (losses, courses) = simulate(&size, replaced)?;
    let results = arguments.results.directory();
    let mut said = BTreeSet::new();
    for mut figure in all(&arguments.hosts, &costs, &size, &losses, &courses) {
        figure.quick = quick;
        print(&figure, &mut said);
        figure.save(&results)?;
    }
    if quick {
        println!("\n{SHORT_RUN}");
    }
    eprintln!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

type Losses = Vec<(Way, Vec<Loss>)>;
type Courses = Vec<(Way, Vec<Moment>)>;

fn simulate(size: &Size, replaced: &[usize]) -> Result<(Losses, Courses)> {
    let losses = Way::ALL.map(|way| Ok((way, churn::losses(size, way, replaced)?)));
    let courses = Way::ALL.map(|way| Ok((way, churn::course(size, way)?)));
    let losses: Result<Losses> = losses.into_iter().collect();
    let courses: Result<Courses> = courses.into_iter().collect();
    Ok((losses?, courses?))
}

fn all(
    hosts: &Hosts,
    costs: &Costs,
    size: &Size,
    losses: &Losses,
    courses: &Courses,
) -> Vec<Figure> {
    let unevenness = unevenness(courses);
    vec![
        figures::traffic(hosts, costs, unevenness, (100.0, "100G")),
        figures::traffic(hosts, costs, unevenness, (1_000.0, "1T")),
        figures::by_cores(hosts, costs, unevenness),
        figures::flows(hosts, costs, unevenness),
        figures::losses(size, losses),
        figures::churn(size, courses),
        figures::balance(size, courses),
    ]
}

/// What the fullest balancer has, to the mean, behind resilient hashing.
fn unevenness(courses: &Courses) -> f64 {
    let mut resilient = courses.iter().filter(|(way, _)| *way == Way::Resilient);
    let values = resilient.next().map(|(_, moments)| {
        let values = moments.iter().map(|moment| moment.balancers);
        values.collect()
    });
    crate::measure::rounded(median(values.unwrap_or_else(|| vec![1.0])), 2)
}

/// A figure's facts, and what they take for granted, on the terminal: each sentence once.
fn print(figure: &Figure, said: &mut BTreeSet<String>) {
    println!("\n{}", headline(figure));
    if figure.facts.is_empty() {
        values(figure);
    }
    for fact in &figure.facts {
        let beside = match (fact.theirs, figure.theirs_from.as_str()) {
            (Some(theirs), from) if !from.is_empty() => {
                format!("   ({from}: {} {})", short(theirs), fact.unit)
            }
            _ => String::new(),
        };
        let value = format!("{} {}", short(fact.ours), fact.unit);
        println!("  {:<72} {value:>14}{beside}", fact.name);
    }
    for sentence in &figure.differs {
        if said.insert(sentence.clone()) {
            println!("  - {sentence}");
        }
    }
}

/// The title; of a short run it says so itself, since its samples are smaller and it may be read alone.
fn headline(figure: &Figure) -> String {
    match figure.quick {
        true => format!("{} (short run)", figure.title),
        false => figure.title.clone(),
    }
}

/// A row for each x, with the series side by side.
fn values(figure: &Figure) {
    let mut xs = Vec::new();
    for point in figure.ours.iter().flat_map(|series| &series.points) {
        if !xs.contains(&point.x) {
            xs.push(point.x);
        }
    }
    let beside = figure.theirs.iter().map(|series| {
        let name = format!("{} ({})", series.name, figure.theirs_from);
        (name, series)
    });
    let ours = figure
        .ours
        .iter()
        .map(|series| (series.name.clone(), series));
    let all: Vec<(String, &Series)> = ours.chain(beside).collect();
    for x in xs {
        let label = figure.labels.get(x as usize);
        let name = label
            .cloned()
            .unwrap_or_else(|| format!("{} {}", short(x), figure.x.label));
        let cells = all.iter().filter_map(|(name, series)| {
            let point = series.points.iter().find(|point| point.x == x)?;
            Some(format!("{name} {}", short(point.y)))
        });
        println!("  {name:<44} {}", cells.collect::<Vec<_>>().join(" · "));
    }
}

#[cfg(test)]
mod tests;
