//! Figure 4: one stream with the distributor in its way, and without.

use super::path::Way;
use super::series::{Measure, Rounds, seconds};
use super::{SEED, rounds};
use crate::experiments::Settings;
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::measure::rounded;
use anyhow::Result;

/// The engine's first: the others are compared with it.
const WAYS: [Way; 4] = [Way::Replicate(1), Way::Dnat, Way::Routing, Way::Nat];
/// iperf3's connections are one session.
const POLICY: &str = "group = \"client\"\n";
const ID: &str = "000-4";
const TITLE: &str = "One iperf3 stream, with and without a distributor";

/// Measures every way in every round, in turns.
pub fn run(settings: &Settings) -> Result<Vec<Figure>> {
    let seconds = if settings.quick { [2, 1] } else { [6, 3] };
    let [uploads, downloads] = &rounds(settings, &WAYS, POLICY, seconds)?;
    let mut figures: Vec<Figure> = Measure::ALL
        .into_iter()
        .map(|measure| over_time(measure, uploads))
        .collect();
    figures.push(both(uploads, downloads));
    Ok(figures)
}

/// Theirs: an upload.
fn over_time(measure: Measure, uploads: &[Rounds]) -> Figure {
    let mut figure = measure.figure(ID, TITLE, Kind::Time, seconds());
    figure.ours = uploads.iter().map(|u| u.over_time(measure)).collect();
    let (replicated, dnat) = (&uploads[0], &uploads[1]);
    let fact = |name: &str, ours: f64, theirs: Option<f64>, unit: &str| {
        Fact::new(name, rounded(ours, 3), theirs, unit)
    };
    let ratio = |of: fn(&Rounds) -> f64| of(replicated) / of(dnat);
    figure.facts = (uploads.iter())
        .map(|u| fact(&u.way.name(), u.mean(measure), None, measure.unit()))
        .collect();
    match measure {
        Measure::Cpu => {
            figure.theirs_from = format!("{SEED}, 5.3: \"more than twice as much\"");
            let cpu = |rounds: &Rounds| rounds.mean(Measure::Cpu);
            let of_all = "to nftables DNAT, while both go as fast as they can";
            figure.facts.extend([
                fact(of_all, ratio(cpu), Some(2.0), "×"),
                fact(
                    "to nftables DNAT, for as many bytes",
                    ratio(Rounds::cpu_seconds_per_gigabyte),
                    None,
                    "×",
                ),
                fact(
                    "the engine's process, one replica",
                    replicated.of_samples(|sample| sample.program_cpu.unwrap_or(0.0)),
                    None,
                    "% of one CPU",
                ),
                fact(
                    "the balancer's CPU, one replica",
                    replicated.of_samples(|sample| sample.balancer_cpu),
                    None,
                    "%",
                ),
                fact(
                    "the balancer's CPU, nftables DNAT",
                    dnat.of_samples(|sample| sample.balancer_cpu),
                    None,
                    "%",
                ),
            ]);
            figure.differs.push(
                "Their text gives the ratio and no values; the worker here polls before it sleeps, \
                 so that some of its CPU time is waiting."
                    .to_owned(),
            );
        }
        Measure::Switches => figure.facts.push(fact(
            "of the engine's process alone, one replica",
            replicated.of_samples(|sample| sample.program_switches.unwrap_or(0.0)),
            None,
            "1/s",
        )),
        Measure::Bytes => figure.facts.push(fact(
            "one replica, to nftables DNAT",
            ratio(|rounds| rounds.mean(Measure::Bytes)),
            None,
            "×",
        )),
        Measure::Retransmits | Measure::Rtt | Measure::RttVariance => {}
    }
    if measure != Measure::Cpu {
        figure.theirs_from = format!("{SEED}, figure 4");
        let note = "Their figure is a picture: its text gives no values for this.";
        figure.differs.push(note.to_owned());
    }
    if measure.of_sender() {
        let note = "As in theirs, the client's connection ends where TCP ends: in the engine when \
                    it replicates, in the server on the other ways.";
        figure.differs.push(note.to_owned());
    }
    figure
}

/// What theirs has not: downloads as well, in which the replicas' answers are compared.
fn both(uploads: &[Rounds], downloads: &[Rounds]) -> Figure {
    let way = Axis::new("way", "");
    let measure = Measure::Bytes;
    let mut figure = measure.figure(ID, TITLE, Kind::Bars, way);
    figure.id = format!("{ID}-directions");
    figure.title = format!("{TITLE}: both directions");
    figure.labels = WAYS.map(Way::name).to_vec();
    let series = |name: &str, rounds: &[Rounds]| Series {
        name: name.to_owned(),
        points: (rounds.iter().enumerate())
            .map(|(index, rounds)| Point::of_rounds(index as f64, &rounds.means(measure)))
            .collect(),
    };
    figure.ours = vec![series("upload", uploads), series("download", downloads)];
    for (name, rounds) in [("upload", uploads), ("download", downloads)] {
        figure.facts.extend(rounds.iter().map(|rounds| {
            Fact::new(
                format!("CPU of everybody, {name}, {}", rounds.way.name()),
                rounds.cpu_seconds_per_gigabyte(),
                None,
                "CPU s/GB",
            )
        }));
    }
    figure.differs.push(
        "Theirs has uploads only. In a download, what all replicas send is compared; iperf3 begins \
         its pattern anew after a write that was cut short, so that replicas differ, which is \
         counted."
            .to_owned(),
    );
    figure
}
