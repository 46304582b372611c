//! What the slowest carries: what the rates of latency are shares of.

use super::requests;
use super::results::{LatencyLoad, Measured, PacketLoad, Packets};
use serde::{Deserialize, Serialize};

/// What the rates of latency are shares of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slowest {
    /// The load.
    pub load: LatencyLoad,
    /// The case that carries least.
    pub case: String,
    /// How much that is.
    pub per_second: f64,
}

/// What a case carries of the datagrams that latency is measured with, which a socket sends: of driver's frames,
/// as in [`Packets`], it carries more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paced {
    /// The case.
    pub case: String,
    /// The highest rate that was found at which it lost no more than 1 %.
    pub per_second: f64,
}

impl Measured {
    /// What the slowest case carries: of the datagrams that latency is measured with, or where those were not
    /// looked for of others of the smallest size, with no more than [`CALM`](super::packets::CALM) lost; or requests
    /// over open connections. The most packets that come through of a load that is far too high are no rate at
    /// which latency says anything: a case that carries none without such losses decides nothing.
    pub fn slowest(&self, load: LatencyLoad) -> Option<Slowest> {
        let (packets, requests, _) = self.rows();
        let rates: Vec<(String, f64)> = match load {
            LatencyLoad::Udp if !self.paced.is_empty() => (self.paced.iter())
                .map(|paced| (paced.case.clone(), paced.per_second))
                .collect(),
            LatencyLoad::Udp => of_smallest(&packets)
                .filter_map(|row| Some((row.case.clone(), row.calm_packets_per_second?)))
                .collect(),
            LatencyLoad::Rr => (requests.into_iter())
                .filter(|row| row.load == requests::Load::KeepAlive.name())
                .map(|row| (row.case, row.requests_per_second))
                .collect(),
        };
        let slowest = rates.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
        slowest.map(|(case, per_second)| Slowest {
            load,
            case,
            per_second,
        })
    }
}

/// Datagrams of the smallest size.
pub fn of_smallest(packets: &[Packets]) -> impl Iterator<Item = &Packets> {
    let udp = packets.iter().filter(|row| row.load == PacketLoad::Udp);
    let least = udp.clone().map(|row| row.bytes).min();
    udp.filter(move |row| Some(row.bytes) == least)
}
