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
    /// How far that says something of the peer: it may not have been at its limit.
    pub qualified: Option<String>,
    /// What both took for it. Also what keeps it from counting, or from being known. Empty where there is no such thing.
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
    /// What of it is not the peer's doing.
    qualified: Option<String>,
    /// What is to be held beside it.
    beside: Vec<String>,
}

/// A peer whose CPU is less busy than this carries what the endpoints do, and says nothing of how much it could.
const AT_ITS_LIMIT: f64 = 0.95;

/// A side of a goal about two balancers.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// What it carried.
    pub rate: f64,
    /// The share of the time for which its CPU was not idle.
    pub busy: f64,
    /// The CPU time that it took for what is counted.
    pub cpu: Option<f64>,
}

/// What both sides took, in seconds for such a unit, and whether the peer was at its limit.
fn held_beside(ours: Side, peer: Side, name: &str, unit: &str) -> (Option<String>, Vec<String>) {
    let qualified = (peer.busy < AT_ITS_LIMIT).then(|| {
        let percent = peer.busy * 100.0;
        format!("{name}'s CPU was {percent:.0} % busy: client and servers were its limit")
    });
    let both = ours.cpu.zip(peer.cpu).map(|(ours, theirs)| {
        let [ours, theirs] = [ours, theirs].map(|cpu| decimals(cpu, 2));
        format!("CPU s/{unit}: {ours}, {name}'s {theirs}")
    });
    (qualified, both.into_iter().collect())
}

/// Bytes of a download, to HAProxy's: they are measured apart from the comparison.
pub fn download(sides: Option<(Side, Side)>) -> Goal {
    let figure = sides.map(|(ours, theirs)| {
        let (qualified, beside) = held_beside(ours, theirs, "haproxy", "GB");
        Figure {
            value: rounded(ours.rate / theirs.rate, 2),
            bound: Bound::Exact,
            faults: Vec::new(),
            doubts: Vec::new(),
            qualified,
            beside,
        }
    });
    let goal = "Gbit/s of a download that is replicated to one replica, times HAProxy's";
    judged(goal, figure, 0.9, true)
}

/// All goals.
pub fn goals(results: &Results) -> Vec<Goal> {
    vec![
        judged(
            "packets/s of the engine (tunnel, 64 bytes), times nftables'",
            smallest(results, Case::LockstepTunnel),
            1.5,
            true,
        ),
        judged(
            "packets/s of the engine (tunnel, 64 bytes) whose packets are taken in on its own CPU, times those of nftables whose are, too",
            smallest(results, Case::LockstepTunnelOneCpu),
            1.5,
            true,
        ),
        judged(
            "packets/s of the in-kernel fallback (64 bytes), times those of nftables whose packets are taken in on its own CPU, too",
            smallest(results, Case::LockstepFallback),
            2.0,
            true,
        ),
        added(
            "p99 at half load that the engine (tunnel, datagrams) adds to Linux forwarding's, µs",
            results,
            Case::LockstepTunnel,
            LatencyLoad::Udp,
        ),
        added(
            "p99 at half load that the engine (tunnel, datagrams) adds to Linux forwarding's, packets of both taken in on their own CPU, µs",
            results,
            Case::LockstepTunnelOneCpu,
            LatencyLoad::Udp,
        ),
        added(
            "p99 at half load that the engine (tunnel, requests) adds to Linux forwarding's, µs",
            results,
            Case::LockstepTunnel,
            LatencyLoad::Rr,
        ),
        judged(
            "requests/s of replication with one replica, times HAProxy's",
            replication(results),
            0.9,
            true,
        ),
        judged(
            "Gbit/s of an upload that is replicated to one replica, times HAProxy's",
            upload(results),
            0.9,
            true,
        ),
    ]
}

/// A goal of latency: none is to be added. Where the run could measure none, it says why.
fn added(goal: &'static str, results: &Results, case: Case, load: LatencyLoad) -> Goal {
    let mut goal = judged(goal, half_load(results, case, load), 0.0, false);
    if goal.outcome == Outcome::NotMeasured {
        goal.notes
            .extend(results.why_no_latency(load).map(str::to_owned));
    }
    goal
}

fn judged(goal: &'static str, figure: Option<Figure>, wanted: f64, at_least: bool) -> Goal {
    let (measured, outcome, qualified, notes) = match figure {
        None => (None, Outcome::NotMeasured, None, Vec::new()),
        Some(mut figure) => {
            let measured = Some((figure.value, figure.bound));
            let qualified = figure.qualified.take();
            let beside = std::mem::take(&mut figure.beside);
            let (outcome, notes) = came_of(figure, wanted, at_least);
            (measured, outcome, qualified, [beside, notes].concat())
        }
    };
    Goal {
        goal,
        measured,
        wanted,
        at_least,
        outcome,
        qualified,
        notes,
    }
}

fn came_of(figure: Figure, wanted: f64, at_least: bool) -> (Outcome, Vec<String>) {
    let Figure {
        value,
        bound,
        faults,
        mut doubts,
        ..
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

/// Cases that were something else in that run than they are now: what is asked for was not measured.
fn redefined(results: &Results, case: Case) -> Option<String> {
    let told = results
        .cases
        .iter()
        .find(|about| about.case == case.name())?;
    (told.about != case.about()).then(|| {
        let then = told.about.trim_end_matches('.');
        format!("{case} was another case in this run ({then})")
    })
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
    let doubts = redefined(results, case).into_iter();
    let doubts = doubts.chain(lacking(results, &both)).collect();
    let mut figure = of_ratio(ratio, Vec::new(), doubts);
    // Of those whose packets the generator's CPU takes in, that one may be full first.
    let peer = both.iter().find(|row| row.case == ratio.to);
    figure.qualified = peer
        .filter(|peer| peer.balancer_cpu < AT_ITS_LIMIT)
        .map(|peer| {
            let percent = peer.balancer_cpu * 100.0;
            format!(
                "{}'s CPU was {percent:.0} % busy: what the generator's gave it",
                peer.case
            )
        });
    Some(figure)
}

fn of_ratio(ratio: &Ratio, faults: Vec<String>, doubts: Vec<String>) -> Figure {
    Figure {
        value: ratio.ratio,
        bound: ratio.bound,
        faults,
        doubts,
        qualified: None,
        beside: Vec::new(),
    }
}

/// The p99 at half load, over that of the kernel's forwarding. What did not arrive is not in it: it has no
/// latency, and is worse than any; what the kernel's forwarding lost only makes its p99 less than it is. Where something stood still in half of the trials, the median has that in it, and
/// is no figure of the case.
fn half_load(results: &Results, case: Case, load: LatencyLoad) -> Option<Figure> {
    let of = |case: Case| {
        results.latencies.iter().find(|row| {
            row.case == case.name() && row.load == load && (row.share - 0.5).abs() < 0.01
        })
    };
    let both = [of(case)?, of(case.forwarding())?];
    let [ours, theirs] = both
        .map(|row| (row.lost > 0.0).then(|| format!("{} lost {}", row.case, in_percent(row.lost))));
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
    // Who polls is not woken up by packets, and pays for that.
    let cpu = both[0].cpu_s_per_million.zip(both[1].cpu_s_per_million);
    let beside = cpu.map(|(ours, theirs)| {
        let [ours, theirs] = [ours, theirs].map(|cpu| decimals(cpu, 2));
        format!("CPU s/million: {ours}, {}'s {theirs}", both[1].case)
    });
    let disturbed = both.into_iter().filter(|row| row.only_disturbed);
    let disturbed = disturbed.map(|row| {
        format!(
            "a host took CPUs away in all {} trials of {}",
            row.disturbed, row.case
        )
    });
    Some(Figure {
        value: both[0].added_p99_us?,
        bound: Bound::Exact,
        faults: ours.into_iter().collect(),
        doubts: (redefined(results, case).into_iter())
            .chain(stood_still)
            .chain(disturbed)
            .chain(lacking(results, &both))
            .collect(),
        qualified: None,
        beside: theirs.into_iter().chain(beside).collect(),
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
    let [ours, theirs] = both.map(|row| Side {
        rate: row.requests_per_second,
        busy: row.balancer_cpu,
        cpu: Some(row.cpu_s_per_million_requests),
    });
    let (qualified, beside) = held_beside(ours, theirs, Case::Haproxy.name(), "million requests");
    Some(Figure {
        qualified,
        beside,
        ..of_ratio(ratio, faults.collect(), lacking(results, &both))
    })
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
    let side = |row: &Packets| {
        Some(Side {
            rate: row.payload_gbit_per_second?,
            busy: row.balancer_cpu,
            cpu: row.cpu_s_per_million_packets,
        })
    };
    let (ours, theirs) = (side(both[0])?, side(both[1])?);
    let (qualified, beside) = held_beside(ours, theirs, Case::Haproxy.name(), "million packets");
    Some(Figure {
        value: rounded(ours.rate / theirs.rate, 2),
        bound: Bound::Exact,
        faults: Vec::new(),
        doubts: lacking(results, &both),
        qualified,
        beside,
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
