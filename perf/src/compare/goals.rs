//! What the project has set itself, and what came of it.

use super::case::Case;
use super::ratio::{Bound, Ratio};
use super::requests::Load;
use super::results::{Latency, LatencyLoad, PacketLoad, Packets, Requests};
use crate::measure::rounded;
use serde::{Deserialize, Serialize};

/// A goal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Goal {
    /// In words.
    pub goal: String,
    /// As measured.
    pub measured: f64,
    /// How that is to be read.
    pub bound: Bound,
    /// What is wanted.
    pub wanted: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// Whether it is reached.
    pub met: bool,
    /// What keeps it from counting: answers that were lost, or were errors, on either side, and what
    /// was not taken to its limit. Empty where there is no such thing.
    pub notes: Vec<String>,
}

/// The class of packets by which uploads are held against each other.
const UPLOAD: usize = 1_400;

/// A figure that a goal is about.
struct Figure {
    value: f64,
    bound: Bound,
    faults: Vec<String>,
}

/// All goals, as far as they were measured.
pub fn goals(packets: &[Packets], requests: &[Requests], latencies: &[Latency]) -> Vec<Goal> {
    let rows = [
        (
            "packets/s of the engine (tunnel, 64 bytes) to nftables'",
            smallest(packets, Case::LockstepTunnel),
            1.5,
            true,
        ),
        (
            "the same with packets taken in on the balancer's CPU",
            smallest(packets, Case::LockstepTunnelOneCpu),
            1.5,
            true,
        ),
        (
            "packets/s of the in-kernel fallback (64 bytes) to those of nftables whose packets are taken in on the same CPU",
            smallest(packets, Case::LockstepFallback),
            2.0,
            true,
        ),
        (
            "p99 at half load (tunnel, datagrams) over Linux forwarding's, µs",
            half_load(latencies, Case::LockstepTunnel, LatencyLoad::Udp),
            0.0,
            false,
        ),
        (
            "the same with packets taken in on the balancer's CPU, µs",
            half_load(latencies, Case::LockstepTunnelOneCpu, LatencyLoad::Udp),
            0.0,
            false,
        ),
        (
            "p99 at half load (tunnel, requests) over Linux forwarding's, µs",
            half_load(latencies, Case::LockstepTunnel, LatencyLoad::Rr),
            0.0,
            false,
        ),
        (
            "requests/s of replication with one replica to HAProxy's",
            replication(requests),
            0.9,
            true,
        ),
        (
            "Gbit/s of an upload that is replicated to one replica to HAProxy's",
            upload(packets),
            0.9,
            true,
        ),
    ];
    rows.into_iter()
        .filter_map(|(goal, figure, wanted, at_least)| {
            Some(judged(goal, figure?, wanted, at_least))
        })
        .collect()
}

fn judged(goal: &str, figure: Figure, wanted: f64, at_least: bool) -> Goal {
    let Figure {
        value,
        bound,
        faults: mut notes,
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
    let met = reaches && certain && notes.is_empty();
    if !certain {
        notes.push("not known: the generator could offer no more".to_owned());
    }
    Goal {
        goal: goal.to_owned(),
        measured: value,
        bound,
        wanted,
        at_least,
        met,
        notes,
    }
}

/// Packets of the smallest size, to nftables'.
fn smallest(packets: &[Packets], case: Case) -> Option<Figure> {
    let row = (packets.iter())
        .find(|r| r.case == case.name() && r.load == PacketLoad::Udp && r.bytes == 64)?;
    row.to_nftables
        .as_ref()
        .map(|ratio| of_ratio(ratio, Vec::new()))
}

fn of_ratio(ratio: &Ratio, faults: Vec<String>) -> Figure {
    Figure {
        value: ratio.ratio,
        bound: ratio.bound,
        faults,
    }
}

/// The p99 at half load, over that of the kernel's forwarding. What did not arrive is not
/// in it: it has no latency, and is worse than any.
fn half_load(latencies: &[Latency], case: Case, load: LatencyLoad) -> Option<Figure> {
    let of = |case: Case| {
        latencies.iter().find(|row| {
            row.case == case.name() && row.load == load && (row.share - 0.5).abs() < 0.01
        })
    };
    let (ours, theirs) = (of(case)?, of(case.forwarding())?);
    let lost = |row: &&Latency| row.lost > 0.0;
    let faults = [ours, theirs].into_iter().filter(lost);
    Some(Figure {
        value: ours.added_p99_us?,
        bound: Bound::Exact,
        faults: faults
            .map(|row| format!("{} lost {}", row.case, in_percent(row.lost)))
            .collect(),
    })
}

/// Requests over connections that stay, to HAProxy's.
fn replication(requests: &[Requests]) -> Option<Figure> {
    let of = |case: Case| {
        let mut rows = requests.iter();
        rows.find(|row| row.case == case.name() && row.load == Load::KeepAlive.name())
    };
    let (ours, theirs) = (of(Case::LockstepReplicate)?, of(Case::Haproxy)?);
    let faults = [ours, theirs].into_iter().filter(|row| row.errors > 0);
    let faults = faults
        .map(|row| format!("{} of {} failed", row.errors, row.case))
        .collect();
    Some(of_ratio(ours.to_haproxy.as_ref()?, faults))
}

/// Bytes of an upload, to HAProxy's.
fn upload(packets: &[Packets]) -> Option<Figure> {
    let of = |case: Case| {
        let row = packets.iter().find(|r| {
            r.case == case.name() && r.load == PacketLoad::TcpStream && r.bytes == UPLOAD
        });
        row?.payload_gbit_per_second
    };
    let (ours, theirs) = (of(Case::LockstepReplicate)?, of(Case::Haproxy)?);
    Some(Figure {
        value: rounded(ours / theirs, 2),
        bound: Bound::Exact,
        faults: Vec::new(),
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
