//! Figure 5: more replicas.

use super::path::Way;
use super::series::{Measure, Rounds};
use super::{SEED, rounds};
use crate::experiments::Settings;
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::rounded;
use anyhow::Result;

const COUNTS: [usize; 3] = [1, 10, 100];
/// iperf3's connections are one session, and the client is held to the pace of the slowest replica:
/// what is measured is as many as there are.
const POLICY: &str = "group = \"client\"\ngrace = \"1m\"\n";
const ID: &str = "000-5";
const TITLE: &str = "An iperf3 stream by the number of replicas";

/// Measures every number in every round, and the plain way beside them.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let (upload, download) = if settings.quick { (2, 1) } else { (6, 4) };
    let ways: Vec<Way> = (COUNTS.map(Way::Replicate).into_iter())
        .chain([Way::Dnat])
        .collect();
    let seconds = [upload, download];
    let [uploads, downloads] = &rounds(settings, &ways, POLICY, seconds)?;
    let measures = Measure::ALL.into_iter();
    Ok(measures.map(|m| figure(m, uploads, downloads)).collect())
}

fn figure(measure: Measure, uploads: &[Rounds], downloads: &[Rounds]) -> Figure {
    let replicas = Axis::logarithmic("replicas", "");
    let mut figure = measure.figure(ID, TITLE, Kind::Lines, replicas);
    // As in theirs, but for shares of a CPU.
    figure.y.logarithmic = matches!(
        measure,
        Measure::Bytes | Measure::Rtt | Measure::RttVariance
    );
    figure.ours.extend(lines(measure, "upload", uploads));
    if !measure.of_sender() {
        figure.ours.extend(lines(measure, "download", downloads));
    }
    figure.theirs_from = format!("{SEED}, figure 5 and 5.3");
    match measure {
        Measure::Cpu => {
            let point = |&count: &usize| Point {
                x: count as f64,
                y: 65.0,
                low: 60.0,
                high: 70.0,
            };
            figure.theirs.push(Series {
                name: "DIRE, \"around 60-70 % at each scenario\"".to_owned(),
                points: COUNTS.iter().map(point).collect(),
            });
        }
        Measure::Bytes => {
            let copies = |rounds: &Rounds| {
                let replicas = rounds.way.servers() as f64;
                let rates: Vec<f64> = (rounds.means(measure).iter())
                    .map(|rate| rounded(rate * replicas, 3))
                    .collect();
                Point::of_rounds(replicas, &rates)
            };
            figure.ours.push(Series {
                name: "upload, to all replicas together".to_owned(),
                points: uploads[..COUNTS.len()].iter().map(copies).collect(),
            });
            figure.facts = ([("upload", uploads), ("download", downloads)].into_iter())
                .flat_map(|(name, rounds)| slope(name, rounds))
                .collect();
        }
        _ => {}
    }
    if figure.theirs.is_empty() {
        figure.differs.push(
            "Their figure is a picture: its text gives no values, and says that the influence is \
             linear with the number of endpoints."
                .to_owned(),
        );
    }
    figure
}

/// The replicated streams, and beside them the plain way, which has one server whatever x says.
fn lines(measure: Measure, direction: &str, rounds: &[Rounds]) -> [Series; 2] {
    let (replicated, plain) = rounds.split_at(COUNTS.len());
    let at = |count: usize, rounds: &Rounds| Point::of_rounds(count as f64, &rounds.means(measure));
    let named = |rounds: &str, points| Series {
        name: format!("{rounds}, {direction}"),
        points,
    };
    let plain = plain
        .iter()
        .flat_map(|plain| COUNTS.map(|count| at(count, plain)));
    [
        named(
            "replicated",
            (replicated.iter())
                .map(|r| at(r.way.servers(), r))
                .collect(),
        ),
        named("nftables DNAT to one server", plain.collect()),
    ]
}

/// How throughput goes with the number of replicas, from one number to the next: with the exponent
/// -1, twice as many replicas halve it.
fn slope(direction: &str, rounds: &[Rounds]) -> Vec<Fact> {
    let pairs = rounds[..COUNTS.len()].windows(2);
    let fact = |pair: &[Rounds]| {
        let value = |rounds: &Rounds| (rounds.mean(Measure::Bytes), rounds.way.servers() as f64);
        let (few, many) = (value(&pair[0]), value(&pair[1]));
        Fact::new(
            format!(
                "exponent of throughput over replicas from {} to {}, {direction}",
                few.1, many.1
            ),
            rounded((many.0 / few.0).ln() / (many.1 / few.1).ln(), 2),
            None,
            "",
        )
    };
    pairs.map(fact).collect()
}
