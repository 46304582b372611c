//! Figure 6: replicas are killed while a stream goes on.

use super::path::Way;
use super::series::{Measure, Rounds, seconds};
use super::stream::{Running, Stream, data_session};
use super::{Bench, SEED};
use crate::experiments::Settings;
use crate::figure::{Fact, Figure, Kind};
use crate::measure::{median, rounded};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Direction, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

const POLICY: &str = "group = \"client\"\n";
const ID: &str = "000-6";
const TITLE: &str = "An iperf3 stream whose primary is killed again and again";
const SOON: Duration = Duration::from_secs(5);

/// How long, and how many.
#[derive(Debug, Clone, Copy)]
struct Plan {
    replicas: usize,
    /// From one death to the next.
    every: Duration,
}

impl Plan {
    const fn kills(self) -> usize {
        self.replicas - 1
    }

    /// All deaths, and as much before the first and after the last.
    fn seconds(self) -> u64 {
        (self.every * (self.kills() as u32 + 2)).as_secs()
    }
}

/// One run.
#[derive(Debug)]
struct Killed {
    stream: Stream,
    /// Without a byte to the client, as the engine counts.
    gaps_ms: Vec<f64>,
}

/// Each direction in every round.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let plan = if settings.quick {
        Plan {
            replicas: 4,
            every: Duration::from_secs(1),
        }
    } else {
        Plan {
            replicas: 10,
            every: Duration::from_secs(2),
        }
    };
    let way = Way::Replicate(plan.replicas);
    let mut all = [Direction::Upload, Direction::Download].map(|d| Rounds::new(way, d));
    let mut gaps = Vec::new();
    for _ in 0..settings.rounds {
        for rounds in &mut all {
            let killed = killed(plan, rounds.direction)
                .with_context(|| format!("{:?} with dying replicas", rounds.direction))?;
            rounds.streams.push(killed.stream);
            // In an upload there is nothing that the client could be waiting for.
            if rounds.direction == Direction::Download {
                gaps.extend(killed.gaps_ms);
            }
        }
    }
    let [uploads, downloads] = &all;
    let mut figures = vec![bytes(plan, uploads, downloads, &gaps)?];
    for measure in [Measure::Retransmits, Measure::Rtt, Measure::RttVariance] {
        figures.push(of_upload(plan, measure, uploads));
    }
    Ok(figures)
}

/// A stream, at whose end one replica is left.
fn killed(plan: Plan, direction: Direction) -> Result<Killed> {
    let mut bench = Bench::build(Way::Replicate(plan.replicas), POLICY)?;
    let mut running = Running::start(&bench, direction, plan.seconds())?;
    let begin = Instant::now();
    let mut alive = vec![true; plan.replicas];
    let mut session = String::new();
    for death in 1..=plan.kills() {
        let due = plan.every * death as u32;
        while begin.elapsed() < due {
            ensure!(running.step()?, "the stream has ended: {}", running.log());
        }
        // One that was killed may still be primary: having read everything, its kernel has said FIN,
        // which is a vote until the others have passed it.
        let primary = wait_until("the stream has a primary that lives", SOON, || {
            let data = data_session(&bench.network, direction)?;
            session = data.id;
            Ok(data.primary.filter(|&primary| alive[primary]))
        })?;
        bench.servers[primary].kill()?;
        alive[primary] = false;
    }
    let stream = running.finish()?;
    let events = bench
        .network
        .site()
        .lockstep(&["events", "--output", "json"])?;
    Ok(Killed {
        stream,
        gaps_ms: gaps(&events, &session)?,
    })
}

/// Of every switchover of a session.
fn gaps(events: &str, session: &str) -> Result<Vec<f64>> {
    let events: Value = serde_json::from_str(events)?;
    let list = events["events"].as_array().context("no events")?;
    let events = list.iter().filter(|event| event["session"] == session);
    let gaps = events.filter_map(|event| event["gap_us"].as_f64());
    Ok(gaps.map(|gap| gap / 1e3).collect())
}

fn bytes(plan: Plan, uploads: &Rounds, downloads: &Rounds, gaps: &[f64]) -> Result<Figure> {
    let measure = Measure::Bytes;
    let mut figure = measure.figure(ID, TITLE, Kind::Time, seconds());
    let fact = |name: &str, ours: f64, unit: &str| Fact::new(name, rounded(ours, 3), None, unit);
    for (name, rounds) in [("upload", uploads), ("download", downloads)] {
        let mut series = rounds.over_time(measure);
        name.clone_into(&mut series.name);
        let rates = |part: Duration, last: bool| -> Vec<f64> {
            let (part, end) = (part.as_secs_f64(), plan.seconds() as f64);
            let within = |at: f64| if last { at > end - part } else { at < part };
            let points = series.points.iter().filter(|point| within(point.x));
            points.map(|point| point.y).collect()
        };
        let (first, last) = (rates(plan.every, false), rates(plan.every, true));
        let dead = (rounds.streams.iter())
            .flat_map(|stream| &stream.intervals)
            .filter(|interval| interval.megabytes == 0.0);
        figure.facts.extend([
            fact(
                &format!("{name}, all replicas alive"),
                median(first),
                "MB/s",
            ),
            fact(&format!("{name}, one left"), median(last), "MB/s"),
            fact(
                &format!("{name}, half seconds without a byte"),
                dead.count() as f64,
                "",
            ),
        ]);
        figure.ours.push(series);
    }
    ensure!(!gaps.is_empty(), "the engine told of no switchover");
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let deaths = plan.kills() * (uploads.streams.len() + downloads.streams.len());
    figure.facts.extend([
        fact("primaries killed", deaths as f64, ""),
        fact(
            "download, median time without a byte around a switchover",
            median(gaps.to_vec()),
            "ms",
        ),
        fact(
            "download, longest time without a byte around a switchover",
            longest,
            "ms",
        ),
    ]);
    explain(plan, &mut figure);
    Ok(figure)
}

fn of_upload(plan: Plan, measure: Measure, uploads: &Rounds) -> Figure {
    let mut figure = measure.figure(ID, TITLE, Kind::Time, seconds());
    let mut series = uploads.over_time(measure);
    "upload".clone_into(&mut series.name);
    let values = series.points.iter().map(|point| point.y);
    figure.facts.push(Fact::new(
        "mean",
        rounded(uploads.mean(measure), 1),
        None,
        measure.unit(),
    ));
    figure.facts.push(Fact::new(
        "largest step",
        values.fold(0.0, f64::max),
        None,
        measure.unit(),
    ));
    figure.ours.push(series);
    explain(plan, &mut figure);
    figure
}

fn explain(plan: Plan, figure: &mut Figure) {
    figure.theirs_from = format!("{SEED}, figure 6");
    figure.differs.push(format!(
        "{} replicas; the one that is primary is killed every {} s until one is left. Theirs kills \
         any of them, during 180 s; its figure is a picture, without values in the text.",
        plan.replicas,
        plan.every.as_secs()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_of_one_session_s_switchovers_only() {
        let text = r#"{"events": [
            {"session": "0-1", "kind": "joined"},
            {"session": "0-1", "kind": "switched", "gap_us": 1500},
            {"session": "0-2", "kind": "switched", "gap_us": 7}]}"#;
        assert_eq!(gaps(text, "0-1").unwrap(), [1.5]);
        assert!(gaps("{}", "0-1").is_err());
    }

    #[test]
    fn a_plan_has_time_before_the_first_death_and_after_the_last() {
        let plan = Plan {
            replicas: 10,
            every: Duration::from_secs(2),
        };
        assert_eq!((plan.kills(), plan.seconds()), (9, 22));
    }
}
