//! From rounds to `perf/results/compare.json`.

use super::case::{About, Case};
use super::caveats::NoLatency;
use super::failed::{Failed, Row, rounds_left};
use super::ratio::{Held, Ratio};
use super::requests;
use super::slowest::{Paced, Slowest};
use crate::machine::Machine;
use crate::measure::{mean, median, rounded};
use serde::{Deserialize, Serialize};

/// A share of the slowest case's maximum, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// Those at which latency is measured.
    pub const ALL: [Share; 3] = [Share(10), Share(50), Share(80)];

    /// Of a rate.
    pub fn of(self, rate: f64) -> u64 {
        (rate * f64::from(self.0) / 100.0) as u64
    }
}

/// What a case carried at most in one round.
#[derive(Debug, Clone, Serialize)]
pub struct PacketRound {
    /// That.
    pub packets_per_second: f64,
    /// The mean length of frames, their checksum sequences included.
    pub frame_bytes: f64,
    /// Of an upload: what its client has sent and the balancer taken over, without headers and
    /// repetitions.
    pub payload_gbit: Option<f64>,
    /// The most with a loss of 1 % at most; none where there is no such thing, or no such trial.
    pub calm: Option<f64>,
    /// At the maximum.
    pub loss: Option<f64>,
    /// Whether next to nothing was lost at the maximum, and the generator could offer no more.
    pub bound_by_generator: bool,
    /// The balancer's CPU time for a million packets, in seconds.
    pub cpu_s_per_million: Option<f64>,
    /// The share of the time for which its CPU was not idle.
    pub balancer_cpu: f64,
}

/// Latency in one trial. Of one in which something stood still, there are more in the same round.
#[derive(Debug, Clone, Serialize)]
pub struct LatencyRound {
    /// What arrived a second.
    pub per_second: f64,
    /// The median.
    pub p50_us: f64,
    /// What 90 % stay below.
    pub p90_us: f64,
    /// What 99 % stay below.
    pub p99_us: f64,
    /// What 99.9 % stay below.
    pub p999_us: f64,
    /// The worst.
    pub max_us: f64,
    /// The share of what was due that did not come back.
    pub lost: f64,
    /// Of requests: connections that could be made.
    pub connections: Option<u64>,
    /// The balancer's CPU time for a million, in seconds.
    pub cpu_s_per_million: Option<f64>,
    /// For how many milliseconds a host had one of the CPUs meanwhile.
    pub stolen_ms: f64,
}

/// The scheduler gives programs of no priority 50 ms of a second, whoever runs ahead of them: what
/// stood still for so many microseconds most likely did for that. It may also have been the case.
const STANDSTILL_US: f64 = 20_000.0;

impl LatencyRound {
    /// Whether something stood still.
    pub fn stalled(&self) -> bool {
        self.max_us >= STANDSTILL_US
    }

    /// Whether a host took one of the CPUs away.
    pub fn disturbed(&self) -> bool {
        self.stolen_ms > 0.0
    }
}

/// The rounds of one case under one load.
#[derive(Debug)]
pub struct Series<K, R> {
    /// What is measured.
    pub case: Case,
    /// The load.
    pub key: K,
    /// In the order in which they were made.
    pub rounds: Vec<R>,
}

impl<K, R> Series<K, R> {
    /// Something of each round.
    fn each(&self, of: impl FnMut(&R) -> f64) -> Vec<f64> {
        self.rounds.iter().map(of).collect()
    }

    /// The median of it.
    fn median(&self, of: impl FnMut(&R) -> f64) -> f64 {
        median(self.each(of))
    }

    /// The median of those rounds that have it; none where none has.
    fn median_of_some(&self, of: impl FnMut(&R) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| median(values))
    }
}

/// How far the rounds came apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least of them.
    pub low: f64,
    /// The most of them.
    pub high: f64,
    /// All of them, in the order in which they were made.
    pub rounds: Vec<f64>,
}

impl Spread {
    /// Of the rounds.
    pub fn of(rounds: Vec<f64>) -> Self {
        let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Spread { low, high, rounds }
    }
}

/// How packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketLoad {
    /// Datagrams, one way.
    Udp,
    /// Requests with the shortest answers; both ways.
    TcpRequests,
    /// An upload.
    TcpStream,
}

impl PacketLoad {
    /// As in `compare.json`.
    pub const fn name(self) -> &'static str {
        match self {
            PacketLoad::Udp => "udp",
            PacketLoad::TcpRequests => "tcp-requests",
            PacketLoad::TcpStream => "tcp-stream",
        }
    }
}

/// How what has its latency measured comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyLoad {
    /// Datagrams, one way.
    Udp,
    /// A request there and its response back.
    Rr,
}

impl LatencyLoad {
    /// All of them.
    pub const ALL: [LatencyLoad; 2] = [LatencyLoad::Udp, LatencyLoad::Rr];

    /// As in `compare.json`.
    pub const fn name(self) -> &'static str {
        match self {
            LatencyLoad::Udp => "udp",
            LatencyLoad::Rr => "rr",
        }
    }

    /// What is sent, in words.
    pub const fn words(self) -> &'static str {
        match self {
            LatencyLoad::Udp => "datagrams",
            LatencyLoad::Rr => "requests",
        }
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// By load and class of size.
    pub packets: Vec<Series<(PacketLoad, usize), PacketRound>>,
    /// By load.
    pub requests: Vec<Series<requests::Load, requests::Trial>>,
    /// By load and share.
    pub latencies: Vec<Series<(LatencyLoad, Share), LatencyRound>>,
    /// The most datagrams of those that latency is measured with.
    pub paced: Vec<Paced>,
    /// The share of both CPUs' time that a host took meanwhile.
    pub stolen: Option<f64>,
}

/// Adds a round to its series.
pub fn note<K: PartialEq, R>(all: &mut Vec<Series<K, R>>, case: Case, key: K, round: R) {
    let found = all.iter_mut().find(|s| s.case == case && s.key == key);
    match found {
        Some(series) => series.rounds.push(round),
        None => all.push(Series {
            case,
            key,
            rounds: vec![round],
        }),
    }
}

/// `perf/results/compare.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether the run was a short one, to try the comparison out.
    pub quick: bool,
    /// What it was made on.
    #[serde(default)]
    pub machine: Machine,
    /// Rounds, each with every case.
    pub rounds: usize,
    /// Flows of datagrams.
    pub flows: u32,
    /// Connections of requests.
    pub connections: u32,
    /// What is compared.
    pub cases: Vec<About>,
    /// Packets a second.
    pub packets: Vec<Packets>,
    /// Requests a second.
    pub requests: Vec<Requests>,
    /// What the rates of latency are shares of; none in results of some time ago.
    #[serde(default)]
    pub slowest: Vec<Slowest>,
    /// The most datagrams, of those that latency is measured with, of each case that carries some of them calmly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paced: Vec<Paced>,
    /// Latency at shares of that.
    pub latencies: Vec<Latency>,
    /// The share of both CPUs' time that a host took away while latencies were measured (steal), 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen: Option<f64>,
    /// Loads of which there is none, though it was to be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_latency: Vec<NoLatency>,
    /// Rounds that failed and are in no figure.
    #[serde(default)]
    pub failed: Vec<Failed>,
}

/// What a case carries of packets at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packets {
    /// The case.
    pub case: String,
    /// How they come.
    pub load: PacketLoad,
    /// The size that is compared: of a frame with its checksum sequence.
    pub bytes: usize,
    /// The mean length of the frames: of TCP not the same.
    pub frame_bytes: f64,
    /// The median of the rounds.
    pub packets_per_second: f64,
    /// All of them.
    #[serde(flatten)]
    pub spread: Spread,
    /// On a wire with frames of that length, without preamble and gaps.
    pub gbit_per_second: f64,
    /// Of an upload, the median of the rounds: bytes of the client's, each once.
    #[serde(default)]
    pub payload_gbit_per_second: Option<f64>,
    /// To nftables with the same load and size, taken in on the same CPU.
    pub to_nftables: Option<Ratio>,
    /// The same, to the kernel's forwarding.
    pub to_forwarding: Option<Ratio>,
    /// The median of the most with a loss of 1 % at most, where most rounds have such a rate: one without
    /// counts as the least of them.
    pub calm_packets_per_second: Option<f64>,
    /// At the maximum, the median of the rounds.
    pub loss: Option<f64>,
    /// Whether the generator could offer no more, in half of the rounds at least: the case may carry
    /// more.
    pub bound_by_generator: bool,
    /// The balancer's CPU time for a million packets at the maximum.
    pub cpu_s_per_million_packets: Option<f64>,
    /// The share of the time for which its CPU was not idle.
    pub balancer_cpu: f64,
}

/// What a case carries of requests at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Requests {
    /// The case.
    pub case: String,
    /// How they come.
    pub load: String,
    /// The median of the rounds.
    pub requests_per_second: f64,
    /// All of them.
    #[serde(flatten)]
    pub spread: Spread,
    /// To HAProxy with the same load.
    pub to_haproxy: Option<Ratio>,
    /// To the kernel's forwarding with the same load.
    pub to_forwarding: Option<Ratio>,
    /// Of a closed loop: not to be compared with [`Latency`].
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The balancer's CPU time for a million requests.
    pub cpu_s_per_million_requests: f64,
    /// The share of the time for which its CPU was not idle.
    pub balancer_cpu: f64,
    /// Requests without a good answer, of all rounds.
    pub errors: u64,
}

/// The latency that a case has under a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    /// The case.
    pub case: String,
    /// What is sent.
    pub load: LatencyLoad,
    /// Of what the slowest case carries at most, 0 to 1.
    pub share: f64,
    /// What arrived a second, the median of all trials, as what follows unless it says otherwise.
    pub per_second: f64,
    /// The median.
    pub p50_us: f64,
    /// What 90 % stay below.
    pub p90_us: f64,
    /// What 99 % stay below.
    pub p99_us: f64,
    /// What 99.9 % stay below.
    pub p999_us: f64,
    /// The worst of any trial.
    pub max_us: f64,
    /// The p99 of the best trial.
    pub p99_low_us: f64,
    /// The p99 of the worst trial.
    pub p99_high_us: f64,
    /// The kernel's forwarding whose packets are taken in on the same CPU: what it is added to.
    pub added_to: Option<String>,
    /// On top of what that has.
    pub added_p50_us: Option<f64>,
    /// The same of the p99.
    pub added_p99_us: Option<f64>,
    /// The share of what was due that did not come back, in the trial in which it was most.
    pub lost: f64,
    /// The balancer's CPU time for a million, at this rate; the mean of the trials.
    pub cpu_s_per_million: Option<f64>,
    /// Of requests: connections that could be made, in the trial in which it was fewest. Fewer than were
    /// asked for are another load than that of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Trials that these figures are of, of all rounds.
    pub trials: usize,
    /// Those of them in which something, be it the case itself, stood still for 20 ms or longer.
    pub stalled: usize,
    /// Trials in which a host took one of the CPUs away. They do not count, unless there are no others.
    #[serde(default)]
    pub disturbed: usize,
    /// Whether there are no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_disturbed: bool,
}

impl Latency {
    /// Whether something stood still in half of the trials or more: the medians are then of that.
    pub fn mostly_stalled(&self) -> bool {
        self.stalled > 0 && 2 * self.stalled >= self.trials
    }
}

impl Results {
    /// How many of the rounds a row is made of, where some have failed: `2 of 3 rounds`.
    pub fn rounds_of(&self, row: &impl Row) -> Option<String> {
        rounds_left(&self.failed, self.rounds, row)
    }
}

impl Measured {
    /// Rows, each with its medians, its spread and its ratios.
    pub fn rows(&self) -> (Vec<Packets>, Vec<Requests>, Vec<Latency>) {
        let mut packets: Vec<_> = self.packets.iter().collect();
        packets.sort_by_key(|series| (series.key.1, series.key.0, series.case));
        let mut requests: Vec<_> = self.requests.iter().collect();
        requests.sort_by_key(|series| (series.key.name() != "keep-alive", series.case));
        let mut latencies: Vec<_> = self.latencies.iter().collect();
        latencies.sort_by_key(|series| (series.key, series.case));
        (
            with_packet_ratios(packets.into_iter().map(packet_row)),
            with_request_ratios(requests.into_iter().map(request_row).collect()),
            with_added(latencies.into_iter().map(latency_row)),
        )
    }
}

fn packet_row(series: &Series<(PacketLoad, usize), PacketRound>) -> (Case, Packets) {
    let rate = series.median(|round| round.packets_per_second);
    let frame = series.median(|round| round.frame_bytes);
    let calm = series.median(|round| round.calm.unwrap_or(0.0));
    let bound = series
        .rounds
        .iter()
        .filter(|round| round.bound_by_generator);
    let (load, bytes) = series.key;
    let row = Packets {
        case: series.case.name().to_owned(),
        load,
        bytes,
        frame_bytes: frame,
        packets_per_second: rate,
        spread: Spread::of(series.each(|round| round.packets_per_second)),
        gbit_per_second: rounded(rate * frame * 8.0 / 1e9, 2),
        payload_gbit_per_second: series.median_of_some(|round| round.payload_gbit),
        to_nftables: None,
        to_forwarding: None,
        calm_packets_per_second: (calm > 0.0).then_some(calm),
        loss: series.median_of_some(|round| round.loss),
        bound_by_generator: 2 * bound.count() >= series.rounds.len(),
        cpu_s_per_million_packets: series.median_of_some(|round| round.cpu_s_per_million),
        balancer_cpu: series.median(|round| round.balancer_cpu),
    };
    (series.case, row)
}

impl Held for Packets {
    fn is_like(&self, other: &Self) -> bool {
        (self.load, self.bytes) == (other.load, other.bytes)
    }

    fn per_second(&self) -> f64 {
        self.packets_per_second
    }

    fn rounds(&self) -> &[f64] {
        &self.spread.rounds
    }

    fn may_be_more(&self) -> bool {
        self.bound_by_generator
    }
}

fn with_packet_ratios(rows: impl Iterator<Item = (Case, Packets)>) -> Vec<Packets> {
    let (cases, mut rows): (Vec<Case>, Vec<Packets>) = rows.unzip();
    let all = rows.clone();
    for (case, row) in cases.into_iter().zip(&mut rows) {
        // Of TCP, there is one of each only.
        let udp = row.load == PacketLoad::Udp;
        let (nftables, forwarding) = match udp {
            true => (case.nftables(), case.forwarding()),
            false => (Case::NftablesDnat, Case::LinuxForwarding),
        };
        row.to_nftables = Ratio::of(row, nftables, &all);
        row.to_forwarding = Ratio::of(row, forwarding, &all);
    }
    rows
}

fn request_row(series: &Series<requests::Load, requests::Trial>) -> Requests {
    Requests {
        case: series.case.name().to_owned(),
        load: series.key.name().to_owned(),
        requests_per_second: series.median(|trial| trial.requests_per_second),
        spread: Spread::of(series.each(|trial| trial.requests_per_second)),
        to_haproxy: None,
        to_forwarding: None,
        p50_us: series.median(|trial| trial.p50_us),
        p99_us: series.median(|trial| trial.p99_us),
        cpu_s_per_million_requests: series.median(|trial| trial.cpu_s_per_million_requests),
        balancer_cpu: series.median(|trial| trial.balancer_cpu),
        errors: series.rounds.iter().map(|trial| trial.errors).sum(),
    }
}

impl Held for Requests {
    fn is_like(&self, other: &Self) -> bool {
        self.load == other.load
    }

    fn per_second(&self) -> f64 {
        self.requests_per_second
    }

    fn rounds(&self) -> &[f64] {
        &self.spread.rounds
    }

    /// The loop is closed: nothing is offered that is not answered.
    fn may_be_more(&self) -> bool {
        false
    }
}

fn with_request_ratios(mut rows: Vec<Requests>) -> Vec<Requests> {
    let all = rows.clone();
    for row in &mut rows {
        row.to_haproxy = Ratio::of(row, Case::Haproxy, &all);
        row.to_forwarding = Ratio::of(row, Case::LinuxForwarding, &all);
    }
    rows
}

fn latency_row(all: &Series<(LatencyLoad, Share), LatencyRound>) -> (Case, Latency) {
    let (disturbed, calm): (Vec<_>, Vec<_>) =
        (all.rounds.iter().cloned()).partition(LatencyRound::disturbed);
    let disturbed = disturbed.len();
    let only_disturbed = calm.is_empty();
    let series = Series {
        case: all.case,
        key: all.key,
        rounds: if only_disturbed {
            all.rounds.clone()
        } else {
            calm
        },
    };
    let microseconds = |of: fn(&LatencyRound) -> f64| rounded(series.median(of), 1);
    let p99 = Spread::of(series.each(|round| round.p99_us));
    let (load, share) = series.key;
    let row = Latency {
        case: series.case.name().to_owned(),
        load,
        share: f64::from(share.0) / 100.0,
        per_second: series.median(|round| round.per_second),
        p50_us: microseconds(|round| round.p50_us),
        p90_us: microseconds(|round| round.p90_us),
        p99_low_us: rounded(p99.low, 1),
        p99_high_us: rounded(p99.high, 1),
        p99_us: microseconds(|round| round.p99_us),
        p999_us: microseconds(|round| round.p999_us),
        max_us: rounded(Spread::of(series.each(|round| round.max_us)).high, 1),
        added_to: None,
        added_p50_us: None,
        added_p99_us: None,
        lost: Spread::of(series.each(|round| round.lost)).high,
        cpu_s_per_million: mean(
            series
                .rounds
                .iter()
                .filter_map(|round| round.cpu_s_per_million),
        ),
        connections: series
            .rounds
            .iter()
            .filter_map(|round| round.connections)
            .min(),
        trials: series.rounds.len(),
        stalled: series.rounds.iter().filter(|round| round.stalled()).count(),
        disturbed,
        only_disturbed,
    };
    (series.case, row)
}

fn with_added(rows: impl Iterator<Item = (Case, Latency)>) -> Vec<Latency> {
    let (cases, mut rows): (Vec<Case>, Vec<Latency>) = rows.unzip();
    let all = rows.clone();
    for (case, row) in cases.into_iter().zip(&mut rows) {
        let floor = match row.load {
            LatencyLoad::Udp => case.forwarding(),
            LatencyLoad::Rr => Case::LinuxForwarding,
        };
        let same = |other: &&Latency| {
            other.case == floor.name()
                && other.load == row.load
                && other.share.to_bits() == row.share.to_bits()
        };
        if let Some(floor) = all.iter().find(same).filter(|floor| floor.case != row.case) {
            row.added_to = Some(floor.case.clone());
            row.added_p50_us = Some(rounded(row.p50_us - floor.p50_us, 1));
            row.added_p99_us = Some(rounded(row.p99_us - floor.p99_us, 1));
        }
    }
    rows
}

#[cfg(test)]
mod tests;
