//! From rounds to `perf/results/compare.json`.

use super::case::Case;
use super::{packets, requests};
use crate::measure::{median, rounded};
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
    /// The balancer's CPU time for a million packets, in seconds.
    pub cpu_s_per_million: Option<f64>,
    /// The share of the time for which its CPU was not idle.
    pub balancer_cpu: f64,
}

/// Latency in one round.
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
    /// The balancer's CPU time for a million, in seconds.
    pub cpu_s_per_million: Option<f64>,
    /// How often the trial was made again, for something had stood still.
    pub again: u32,
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

/// How what has its latency measured comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyLoad {
    /// Datagrams, one way.
    Udp,
    /// A request there and its response back.
    Rr,
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
    /// Latency at shares of the slowest's maximum.
    pub latencies: Vec<Latency>,
    /// What the project has set itself.
    pub goals: Vec<Goal>,
}

/// A case in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Its name.
    pub case: String,
    /// What it is.
    pub about: String,
    /// What is not the same as in the other cases.
    pub differs: String,
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
    /// The least of them.
    pub low: f64,
    /// The most of them.
    pub high: f64,
    /// All of them.
    pub rounds: Vec<f64>,
    /// On a wire with frames of that length, without preamble and gaps.
    pub gbit_per_second: f64,
    /// Of an upload, the median of the rounds: bytes of the client's, each once.
    #[serde(default)]
    pub payload_gbit_per_second: Option<f64>,
    /// To nftables with the same load and size, taken in on the same CPU.
    pub ratio_to_nftables: Option<f64>,
    /// The same, to the kernel's forwarding.
    pub ratio_to_forwarding: Option<f64>,
    /// The median of the most with a loss of 1 % at most.
    pub calm_packets_per_second: Option<f64>,
    /// At the maximum, the median of the rounds.
    pub loss: Option<f64>,
    /// Whether next to nothing was lost at the maximum: the generator could offer no more, and the
    /// case may carry more.
    pub is_generators_limit: bool,
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
    /// The least of them.
    pub low: f64,
    /// The most of them.
    pub high: f64,
    /// All of them.
    pub rounds: Vec<f64>,
    /// To HAProxy with the same load.
    pub ratio_to_haproxy: Option<f64>,
    /// To the kernel's forwarding with the same load.
    pub ratio_to_forwarding: Option<f64>,
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
    /// What arrived a second, the median of the rounds, as all that follows.
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
    /// The p99 of the best round.
    pub p99_low_us: f64,
    /// The p99 of the worst round.
    pub p99_high_us: f64,
    /// On top of what the kernel's forwarding has, its packets taken in on the same CPU.
    pub added_p50_us: Option<f64>,
    /// The same of the p99.
    pub added_p99_us: Option<f64>,
    /// The share of what was due that did not come back.
    pub lost: f64,
    /// The balancer's CPU time for a million, at this rate.
    pub cpu_s_per_million: Option<f64>,
    /// Trials made again, of all rounds, for something had stood still for 20 ms.
    pub again: u32,
}

/// What the project has set itself, and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Goal {
    /// In words.
    pub goal: String,
    /// As measured.
    pub measured: f64,
    /// What is wanted.
    pub wanted: f64,
    /// Whether more is better.
    pub at_least: bool,
    /// Whether it is reached.
    pub met: bool,
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

    /// What the slowest case carries: of datagrams of the smallest size with no more than
    /// [`packets::CALM`] lost, or requests over open connections. The most packets that come through of
    /// a load that is far too high are no rate at which latency says anything.
    pub fn slowest(&self, load: LatencyLoad) -> Option<f64> {
        let (packets, requests, _) = self.rows();
        let rates: Vec<f64> = match load {
            LatencyLoad::Udp => {
                let udp = packets.iter().filter(|row| row.load == PacketLoad::Udp);
                let least = udp.clone().map(|row| row.bytes).min();
                udp.filter(|row| Some(row.bytes) == least)
                    .map(|row| (row.calm_packets_per_second).unwrap_or(row.packets_per_second))
                    .collect()
            }
            LatencyLoad::Rr => (requests.iter())
                .filter(|row| row.load == requests::Load::KeepAlive.name())
                .map(|row| row.requests_per_second)
                .collect(),
        };
        rates.into_iter().min_by(f64::total_cmp)
    }
}

fn packet_row(series: &Series<(PacketLoad, usize), PacketRound>) -> (Case, Packets) {
    let of = |value: fn(&PacketRound) -> f64| series.rounds.iter().map(value).collect::<Vec<_>>();
    let some = |value: fn(&PacketRound) -> Option<f64>| {
        let values: Vec<f64> = series.rounds.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let rounds = of(|round| round.packets_per_second);
    let (rate, frame) = (
        median(rounds.clone()),
        median(of(|round| round.frame_bytes)),
    );
    let (load, bytes) = series.key;
    let row = Packets {
        case: series.case.name().to_owned(),
        load,
        bytes,
        frame_bytes: frame,
        packets_per_second: rate,
        low: least(&rounds),
        high: most(&rounds),
        rounds,
        gbit_per_second: rounded(rate * frame * 8.0 / 1e9, 2),
        payload_gbit_per_second: some(|round| round.payload_gbit),
        ratio_to_nftables: None,
        ratio_to_forwarding: None,
        calm_packets_per_second: some(|round| round.calm),
        loss: some(|round| round.loss),
        is_generators_limit: load == PacketLoad::Udp
            && some(|round| round.loss).is_some_and(|loss| loss <= packets::CALM),
        cpu_s_per_million_packets: some(|round| round.cpu_s_per_million),
        balancer_cpu: median(of(|round| round.balancer_cpu)),
    };
    (series.case, row)
}

fn with_packet_ratios(rows: impl Iterator<Item = (Case, Packets)>) -> Vec<Packets> {
    let (cases, mut rows): (Vec<Case>, Vec<Packets>) = rows.unzip();
    let all = rows.clone();
    let to = |row: &Packets, peer: Case| {
        let same = |other: &&Packets| {
            other.case == peer.name() && (other.load, other.bytes) == (row.load, row.bytes)
        };
        let peer = all.iter().find(same)?;
        Some(rounded(row.packets_per_second / peer.packets_per_second, 2))
    };
    for (case, row) in cases.into_iter().zip(&mut rows) {
        // Of TCP, there is one of each only.
        let udp = row.load == PacketLoad::Udp;
        let (nftables, forwarding) = match udp {
            true => (case.nftables(), case.forwarding()),
            false => (Case::NftablesDnat, Case::LinuxForwarding),
        };
        row.ratio_to_nftables = to(row, nftables);
        row.ratio_to_forwarding = to(row, forwarding);
    }
    rows
}

fn request_row(series: &Series<requests::Load, requests::Trial>) -> Requests {
    let of = |value: fn(&requests::Trial) -> f64| {
        let rounds = series.rounds.iter().map(value);
        rounds.collect::<Vec<_>>()
    };
    let rounds = of(|trial| trial.requests_per_second);
    Requests {
        case: series.case.name().to_owned(),
        load: series.key.name().to_owned(),
        requests_per_second: median(rounds.clone()),
        low: least(&rounds),
        high: most(&rounds),
        rounds,
        ratio_to_haproxy: None,
        ratio_to_forwarding: None,
        p50_us: median(of(|trial| trial.p50_us)),
        p99_us: median(of(|trial| trial.p99_us)),
        cpu_s_per_million_requests: median(of(|trial| trial.cpu_s_per_million_requests)),
        balancer_cpu: median(of(|trial| trial.balancer_cpu)),
        errors: series.rounds.iter().map(|trial| trial.errors).sum(),
    }
}

fn with_request_ratios(mut rows: Vec<Requests>) -> Vec<Requests> {
    let all = rows.clone();
    let to = |row: &Requests, peer: Case| {
        let same = |other: &&Requests| other.case == peer.name() && other.load == row.load;
        let peer = all.iter().find(same)?;
        Some(rounded(
            row.requests_per_second / peer.requests_per_second,
            2,
        ))
    };
    for row in &mut rows {
        row.ratio_to_haproxy = to(row, Case::Haproxy);
        row.ratio_to_forwarding = to(row, Case::LinuxForwarding);
    }
    rows
}

fn latency_row(series: &Series<(LatencyLoad, Share), LatencyRound>) -> (Case, Latency) {
    let of = |value: fn(&LatencyRound) -> f64| series.rounds.iter().map(value).collect::<Vec<_>>();
    let cpu: Vec<f64> = (series.rounds.iter())
        .filter_map(|round| round.cpu_s_per_million)
        .collect();
    let p99 = of(|round| round.p99_us);
    let (load, share) = series.key;
    let microseconds = |values: Vec<f64>| rounded(median(values), 1);
    let row = Latency {
        case: series.case.name().to_owned(),
        load,
        share: f64::from(share.0) / 100.0,
        per_second: median(of(|round| round.per_second)),
        p50_us: microseconds(of(|round| round.p50_us)),
        p90_us: microseconds(of(|round| round.p90_us)),
        p99_low_us: rounded(least(&p99), 1),
        p99_high_us: rounded(most(&p99), 1),
        p99_us: microseconds(p99),
        p999_us: microseconds(of(|round| round.p999_us)),
        max_us: microseconds(of(|round| round.max_us)),
        added_p50_us: None,
        added_p99_us: None,
        lost: median(of(|round| round.lost)),
        cpu_s_per_million: (!cpu.is_empty()).then(|| median(cpu)),
        again: series.rounds.iter().map(|round| round.again).sum(),
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
            row.added_p50_us = Some(rounded(row.p50_us - floor.p50_us, 1));
            row.added_p99_us = Some(rounded(row.p99_us - floor.p99_us, 1));
        }
    }
    rows
}

/// The smallest of them.
fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest of them.
fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The class of packets by which uploads are held against each other.
const UPLOAD: usize = 1_400;

/// What the project has set itself, as far as it was measured.
pub fn goals(packets: &[Packets], requests: &[Requests], latencies: &[Latency]) -> Vec<Goal> {
    let smallest = |case: Case| {
        let mut rows = packets.iter();
        let row =
            rows.find(|r| r.case == case.name() && r.load == PacketLoad::Udp && r.bytes == 64);
        row.and_then(|row| row.ratio_to_nftables)
    };
    let half = |case: Case| {
        let mut rows = latencies.iter();
        let row = rows.find(|r| {
            r.case == case.name() && r.load == LatencyLoad::Udp && (r.share - 0.5).abs() < 0.01
        });
        row.and_then(|row| row.added_p99_us)
    };
    let upload = |case: Case| {
        let mut rows = packets.iter();
        let row = rows.find(|r| {
            r.case == case.name() && r.load == PacketLoad::TcpStream && r.bytes == UPLOAD
        });
        row.and_then(|row| row.payload_gbit_per_second)
    };
    let uploads = upload(Case::LockstepReplicate).zip(upload(Case::Haproxy));
    let replicate = (requests.iter())
        .find(|r| r.case == Case::LockstepReplicate.name() && r.load == "keep-alive")
        .and_then(|row| row.ratio_to_haproxy);
    let rows = [
        (
            "packets/s of the engine (tunnel, 64 bytes) to nftables'",
            smallest(Case::LockstepTunnel),
            1.5,
            true,
        ),
        (
            "the same with packets taken in on the balancer's CPU",
            smallest(Case::LockstepTunnelOneCpu),
            1.5,
            true,
        ),
        (
            "packets/s of the in-kernel fallback (64 bytes) to those of nftables whose packets are taken in on the same CPU",
            smallest(Case::LockstepFallback),
            2.0,
            true,
        ),
        (
            "p99 at half load (tunnel, datagrams) over Linux forwarding's, µs",
            half(Case::LockstepTunnel),
            0.0,
            false,
        ),
        (
            "requests/s of replication with one replica to HAProxy's",
            replicate,
            0.9,
            true,
        ),
        (
            "Gbit/s of an upload that is replicated to one replica to HAProxy's",
            uploads.map(|(ours, theirs)| rounded(ours / theirs, 2)),
            0.9,
            true,
        ),
    ];
    let goals = rows
        .into_iter()
        .filter_map(|(goal, measured, wanted, at_least)| {
            let measured = measured?;
            Some(Goal {
                goal: goal.to_owned(),
                measured,
                wanted,
                at_least,
                met: if at_least {
                    measured >= wanted
                } else {
                    measured <= wanted
                },
            })
        });
    goals.collect()
}

#[cfg(test)]
mod tests;
