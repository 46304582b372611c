//! The parts of a comparison, one after the other in each round.

use super::case::Case;
use super::results::{LatencyLoad, PacketLoad};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a user may ask for (`--parts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    /// Datagrams a second.
    Packets,
    /// Packets of TCP a second.
    Streams,
    /// HTTP requests a second.
    Requests,
    /// Latency at shares of what the slowest carries; of what was measured before only.
    Latency,
}

/// What is measured of a case in a network of its own: what fails, fails as a whole, but for packets, of which each
/// size does for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Datagrams a second.
    Packets,
    /// Packets of TCP a second.
    Streams,
    /// HTTP requests a second.
    Requests,
    /// Latency of datagrams.
    LatencyOfDatagrams,
    /// Latency of requests.
    LatencyOfRequests,
}

impl Part {
    /// Whether a case has it.
    pub fn is_of(self, case: Case) -> bool {
        match self {
            Part::Packets | Part::LatencyOfDatagrams => case.has_udp(),
            Part::Streams => case.streams(),
            Part::Requests | Part::LatencyOfRequests => case.has_tcp(),
        }
    }

    /// What a user asks for to have it.
    pub const fn asked(self) -> Asked {
        match self {
            Part::Packets => Asked::Packets,
            Part::Streams => Asked::Streams,
            Part::Requests => Asked::Requests,
            Part::LatencyOfDatagrams | Part::LatencyOfRequests => Asked::Latency,
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Packets => "packets",
            Part::Streams => "packets of TCP",
            Part::Requests => "requests",
            Part::LatencyOfDatagrams => "latency of datagrams",
            Part::LatencyOfRequests => "latency of requests",
        }
    }
}

impl From<PacketLoad> for Part {
    fn from(load: PacketLoad) -> Self {
        match load {
            PacketLoad::Udp => Part::Packets,
            PacketLoad::TcpRequests | PacketLoad::TcpStream => Part::Streams,
        }
    }
}

impl From<LatencyLoad> for Part {
    fn from(load: LatencyLoad) -> Self {
        match load {
            LatencyLoad::Udp => Part::LatencyOfDatagrams,
            LatencyLoad::Rr => Part::LatencyOfRequests,
        }
    }
}
