//! What the project has set itself, and what came of it: always from the rows, kept nowhere.

use super::case::Case;
use super::failed::Row;
use super::ratio::{Bound, Ratio};
use super::requests::Load;
use super::results::{Latency, LatencyLoad, PacketLoad, Packets, Requests, Results};
use crate::measure::rounded;
use crate::written::{decimals, grouped};

/// A goal.
#[derive(Debug, Clone)]
pub struct Goal {
    /// In words.
    pub goal: &'static str,
    /// As measured, and how that is to be read; none where it was not.
    pub measured: Option<(f64, Bound)>,
    /// What is wanted.
    pub wanted: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// What keeps it from counting, or from being known. Empty where there is no such thing.
    pub notes: Vec<String>,
}

/// What came of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is reached.
    Met,
    /// It is not; also where answers were lost or were errors, on either side.
    Missed,
    /// The figures do not tell: a side may carry more, or what was measured is something else.
    NotKnown,
    /// There are no figures.
    NotMeasured,
}

impl Goal {
    /// The figure, with the sign of a bound; `-` where there is none.
    pub fn figure(&self) -> String {
        match self.measured {
            Some((value, bound)) => format!("{}{}", bound.sign(), decimals(value, 2)),
            None => "-".to_owned(),
        }
    }
}

/// The class of packets by which uploads are held against each other.
const UPLOAD: usize = 1_400;

/// A figure that a goal is about.
struct Figure {
    value: f64,
    bound: Bound,
    /// What makes it count as missed, whatever it is.
    faults: Vec<String>,
    /// What makes it say nothing.
    doubts: Vec<String>,
}

/// All goals.
pub fn goals(results: &Results) -> Vec<Goal> {
    let rows = [
        (
            "packets/s of the engine (tunnel, 64 bytes), times nftables'",
            smallest(results, Case::LockstepTunnel),
            1.5,
            true,
        ),
        (
            "packets/s of the engine (tunnel, 64 bytes) that takes packets in on its own CPU, times those of nftables that does so, too",
            smallest(results, Case::LockstepTunnelOneCpu),
            1.5,
            true,
        ),
        (
            "packets/s of the in-kernel fallback (64 bytes), times those of nftables whose packets are taken in on its own CPU, too",
            smallest(results, Case::LockstepFallback),
            2.0,
            true,
        ),
        (
            "p99 at half load that the engine (tunnel, datagrams) adds to Linux forwarding's, µs",
            half_load(results, Case::LockstepTunnel, LatencyLoad::Udp),
            0.0,
            false,
        ),
        (
            "p99 at half load that the engine (tunnel, datagrams) adds to Linux forwarding's, both taking packets in on their own CPU, µs",
            half_load(results, Case::LockstepTunnelOneCpu, LatencyLoad::Udp),
            0.0,
            false,
        ),
        (
            "p99 at half load that the engine (tunnel, requests) adds to Linux forwarding's, µs",
            half_load(results, Case::LockstepTunnel, LatencyLoad::Rr),
            0.0,
            false,
        ),
        (
            "requests/s of replication with one replica, times HAProxy's",
            replication(results),
            0.9,
            true,
        ),
        (
            "Gbit/s of an upload that is replicated to one replica, times HAProxy's",
            upload(results),
            0.9,
            true,
        ),
    ];
    rows.into_iter()
        .map(|(goal, figure, wanted, at_least)| judged(goal, figure, wanted, at_least))
        .collect()
}

fn judged(goal: &'static str, figure: Option<Figure>, wanted: f64, at_least: bool) -> Goal {
    let (measured, outcome, notes) = match figure {
        None => (None, Outcome::NotMeasured, Vec::new()),
        Some(figure) => {
            let measured = Some((figure.value, figure.bound));
            let (outcome, notes) = came_of(figure, wanted, at_least);
            (measured, outcome, notes)
        }
    };
    Goal {
        goal,
        measured,
        wanted,
        at_least,
        outcome,
        notes,
    }
}

fn came_of(figure: Figure, wanted: f64, at_least: bool) -> (Outcome, Vec<String>) {
    let Figure {
        value,
        bound,
        faults,
        mut doubts,
    } = figure;
    let reaches = match at_least {
        true => value >= wanted,
        false => value <= wanted,
    };
    // What is certain, whatever the side that could carry more carries.
    let certain = match (bound, at_least, reaches) {
        (Bound::Exact, ..) => true,
        (Bound::AtLeast, ..) => at_least == reaches,
        (Bound::AtMost, ..) => at_least != reaches,
        (Bound::Neither, ..) => false,
    };
    if !certain {
        doubts.push("the generator could offer no more".to_owned());
    }
    let outcome = match (doubts.is_empty(), reaches && faults.is_empty()) {
        (false, _) => Outcome::NotKnown,
        (true, true) => Outcome::Met,
        (true, false) => Outcome::Missed,
    };
    (outcome, [faults, doubts].concat())
}

/// Rows that lack rounds: their medians are not those of the others.
fn lacking<R: Row>(results: &Results, rows: &[&R]) -> Vec<String> {
    let lacks = |row: &&R| Some(format!("{} of {}", results.rounds_of(*row)?, row.case()));
    rows.iter().filter_map(lacks).collect()
}

/// Packets of the smallest size, to nftables'.
fn smallest(results: &Results, case: Case) -> Option<Figure> {
    let of = |case: &str| {
        let mut rows = results.packets.iter();
        rows.find(|r| r.case == case && r.load == PacketLoad::Udp && r.bytes == 64)
    };
    let ours = of(case.name())?;
    let ratio = ours.to_nftables.as_ref()?;
    let both: Vec<&Packets> = [Some(ours), of(&ratio.to)].into_iter().flatten().collect();
    Some(of_ratio(ratio, Vec::new(), lacking(results, &both)))
}

fn of_ratio(ratio: &Ratio, faults: Vec<String>, doubts: Vec<String>) -> Figure {
    Figure {
        value: ratio.ratio,
        bound: ratio.bound,
        faults,
        doubts,
    }
}

/// The p99 at half load, over that of the kernel's forwarding. What did not arrive is not in it: it has no
/// latency, and is worse than any. Where something stood still in half of the trials, the median is as long
/// as that, and no figure of the case.
fn half_load(results: &Results, case: Case, load: LatencyLoad) -> Option<Figure> {
    let of = |case: Case| {
        results.latencies.iter().find(|row| {
            row.case == case.name() && row.load == load && (row.share - 0.5).abs() < 0.01
        })
    };
    let both = [of(case)?, of(case.forwarding())?];
    let lost = both.into_iter().filter(|row| row.lost > 0.0);
    let stood_still = both.into_iter().filter(|row| row.mostly_stalled());
    let stood_still = stood_still.map(|row| {
        let Latency {
            case,
            stalled,
            trials,
            ..
        } = row;
        format!("something stood still in {stalled} of {trials} trials of {case}")
    });
    Some(Figure {
        value: both[0].added_p99_us?,
        bound: Bound::Exact,
        faults: lost
            .map(|row| format!("{} lost {}", row.case, in_percent(row.lost)))
            .collect(),
        doubts: stood_still.chain(lacking(results, &both)).collect(),
    })
}

/// Requests over connections that stay, to HAProxy's.
fn replication(results: &Results) -> Option<Figure> {
    let of = |case: Case| {
        let mut rows = results.requests.iter();
        rows.find(|row| row.case == case.name() && row.load == Load::KeepAlive.name())
    };
    let both: [&Requests; 2] = [of(Case::LockstepReplicate)?, of(Case::Haproxy)?];
    let failed = both.into_iter().filter(|row| row.errors > 0);
    let faults = failed.map(|row| format!("{} of {} failed", grouped(row.errors), row.case));
    let ratio = both[0].to_haproxy.as_ref()?;
    Some(of_ratio(ratio, faults.collect(), lacking(results, &both)))
}

/// Bytes of an upload, to HAProxy's.
fn upload(results: &Results) -> Option<Figure> {
    let of = |case: Case| {
        results
            .packets
            .iter()
            .find(|r| r.case == case.name() && r.load == PacketLoad::TcpStream && r.bytes == UPLOAD)
    };
    let both = [of(Case::LockstepReplicate)?, of(Case::Haproxy)?];
    let [ours, theirs] = both.map(|row| row.payload_gbit_per_second);
    Some(Figure {
        value: rounded(ours? / theirs?, 2),
        bound: Bound::Exact,
        faults: Vec::new(),
        doubts: lacking(results, &both),
    })
}

/// A share, 0 to 1, in percent; not 0 of what is anything.
pub fn in_percent(value: f64) -> String {
    match value {
        0.0 => "0 %".to_owned(),
        value if value < 0.0001 => "< 0.01 %".to_owned(),
        value => format!("{:.2} %", value * 100.0),
    }
}

#[cfg(test)]
mod tests;
