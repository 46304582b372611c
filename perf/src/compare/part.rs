//! The parts of a comparison, one after the other in each round.

use super::case::Case;
use clap::ValueEnum;

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Datagrams a second.
    Packets,
    /// Packets of TCP a second.
    Streams,
    /// HTTP requests a second.
    Requests,
    /// Latency at shares of what the slowest carries; of what was measured before only.
    Latency,
}

impl Part {
    /// Whether a case has it at its most.
    pub fn is_of(self, case: Case) -> bool {
        match self {
            Part::Packets => case.has_udp(),
            Part::Streams => case.streams(),
            Part::Requests => case.has_tcp(),
            Part::Latency => false,
        }
    }

    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Packets => "packets",
            Part::Streams => "streams",
            Part::Requests => "requests",
            Part::Latency => "latency",
        }
    }
}
