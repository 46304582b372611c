//! Figure 4.14: throughput while the number of balancers changes.

use super::balanced::on_endpoints;
use super::ecmp::{BALANCERS, Rack};
use super::sweep::{agree, rate, seconds, trial, wait_for, wrk};
use super::throughput::EACH;
use crate::experiments::Settings;
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::rounded;
use anyhow::{Result, ensure};
use lockstep_tests::lab::Forwarding;
use std::time::Duration;

/// What a balancer is sent at most. Answers do not pass it, so a request is less than with NAT.
const MEGABITS: u32 = 8;
const SAMPLE: Duration = Duration::from_millis(500);
/// The numbers of balancers, one after the other: each is next to each of the others once at least.
const NUMBERS: [usize; 12] = [4, 1, 3, 2, 4, 3, 1, 2, 1, 4, 2, 3];

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    /// Since the beginning.
    seconds: f64,
    /// Since the sample before.
    requests_per_second: f64,
    balancers: usize,
}

/// What was measured.
#[derive(Debug)]
struct Course {
    samples: Vec<Sample>,
    /// With one balancer.
    one: f64,
    /// Requests without a good answer, and all of them.
    errors: u64,
    requests: u64,
}

/// The figure.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let course = on_endpoints(|| measure(settings))?;
    let point = |of: &dyn Fn(&Sample) -> f64| -> Vec<Point> {
        let point = |sample: &Sample| Point::new(rounded(sample.seconds, 2), of(sample).round());
        course.samples.iter().map(point).collect()
    };
    let expected = |sample: &Sample| sample.balancers as f64 * course.one;
    let ours = vec![
        Series {
            name: "throughput".into(),
            points: point(&|sample| sample.requests_per_second),
        },
        Series {
            name: "balancers, times what one carries".into(),
            points: point(&expected),
        },
    ];
    let sum = |of: &dyn Fn(&Sample) -> f64| course.samples.iter().map(of).sum::<f64>();
    let reached = sum(&|sample| sample.requests_per_second) / sum(&expected);
    ensure!(reached > 0.0, "no request was answered");
    Ok(vec![Figure {
        id: "003-4.14".into(),
        title: "Throughput while the number of balancers changes".into(),
        kind: Kind::Time,
        x: Axis::new("time", "s"),
        y: Axis::new("throughput", "requests/s"),
        labels: Vec::new(),
        ours,
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs: differs(settings),
        facts: vec![
            Fact::new(
                "what one balancer carries",
                course.one.round(),
                None,
                "requests/s",
            ),
            Fact::new(
                "throughput to balancers times that",
                rounded(reached, 3),
                None,
                "times",
            ),
            Fact::new("answered requests", course.requests as f64, None, ""),
            Fact::new(
                "requests without a good answer",
                course.errors as f64,
                None,
                "",
            ),
        ],
        quick: false,
    }])
}

fn differs(settings: &Settings) -> Vec<String> {
    vec![
        "The seed's figure is a picture without numbers; by its text throughput \"nicely follows\" the \
         number of balancers."
            .into(),
        format!(
            "The number changes every {} s, in an order that is always the same; the seed's changed every \
             60 s at random.",
            period(settings).as_secs_f64()
        ),
        "Balancers are told to leave and to come back (`lockstep drain --balancer` and `undrain`); the \
         seed started and deleted pods."
            .into(),
        format!(
            "Tunnels, so that a connection goes on with another balancer; each balancer is sent {MEGABITS} \
             Mbit/s at most, which is what limits it. The seed's rewrote addresses at 1 Gbit/s."
        ),
        "All balancers share one CPU; client, router and servers the other one.".into(),
    ]
}

fn period(settings: &Settings) -> Duration {
    Duration::from_secs(if settings.quick { 2 } else { 5 })
}

fn measure(settings: &Settings) -> Result<Course> {
    let (servers, each) = if settings.quick {
        (4, 4 * EACH)
    } else {
        (16, EACH)
    };
    let mut rack = Rack::build(servers, each, Forwarding::Ipip, Some(MEGABITS))?;
    rack.command(1)?;
    rack.routes_follow()?;
    rack.answers()?;
    let one = trial(&rack.lab, &rack.farm, seconds(settings))?.requests_per_second;
    let numbers = if settings.quick {
        &NUMBERS[..3]
    } else {
        &NUMBERS[..]
    };
    rack.command(numbers[0])?;
    rack.routes_follow()?;
    let total = period(settings) * numbers.len() as u32;
    let load = wrk(&rack.lab, total.as_secs() + 1)?;
    let nothing = rack.farm.requests()?.value;
    let load = rack.lab.client.start_wrk(&load)?;
    let samples = follow(&mut rack, numbers, period(settings))?;
    let report = load.report()?;
    let answered = rack.farm.requests()?.value.saturating_sub(nothing);
    agree(answered, report.requests)?;
    Ok(Course {
        samples,
        one,
        errors: report.errors(),
        requests: report.requests,
    })
}

/// Changes the number of balancers at every period's beginning, and samples throughput meanwhile.
fn follow(rack: &mut Rack, numbers: &[usize], period: Duration) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut last = rack.farm.requests()?;
    let begin = last.at;
    let mut due = SAMPLE;
    for (index, &number) in numbers.iter().enumerate() {
        ensure!(
            (1..=BALANCERS).contains(&number),
            "no number of balancers: {number}"
        );
        rack.command(number)?;
        let end = period * (index as u32 + 1);
        while due <= end {
            wait_for(begin + due)?;
            let now = rack.farm.requests()?;
            samples.push(Sample {
                seconds: (now.at - begin).as_secs_f64(),
                requests_per_second: rate(last, now),
                balancers: number,
            });
            last = now;
            due += SAMPLE;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_balancers_change_every_time_and_have_them_all() {
        assert!(NUMBERS.windows(2).all(|pair| pair[0] != pair[1]));
        assert!((1..=BALANCERS).all(|number| NUMBERS.contains(&number)));
    }
}
