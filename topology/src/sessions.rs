//! What each worker takes for replicated sessions, when the first service asks for them.

use crate::model::bounded;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// The `[sessions]` table. What is for one service (timeouts, limits of lag, the log of a
/// session) is in `services.toml` instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// Sessions of each worker at a time.
    pub max: SessionCapacity,
    /// Connections to replicas of each worker at a time.
    pub connections: ConnectionCapacity,
    /// Bytes of a client connection's buffers, each way: the window that a client is offered.
    pub client_buffer: BufferSize,
    /// Bytes of a replica connection's buffers, each way: how far a replica may be ahead.
    pub replica_buffer: BufferSize,
    /// Bytes of each worker's memory for input that is kept.
    pub log_memory: LogMemory,
    /// The local ports of connections to replicas, over all workers.
    pub ports: PortRange,
    /// Where input goes that has no room in memory; nowhere without it.
    pub spill: Option<PathBuf>,
    /// Bytes of all files there.
    pub spill_limit: SpillLimit,
}

impl Sessions {
    /// Connections to replicas that a worker can have, of so many workers: each needs a port.
    pub fn connections_of(&self, worker: usize, workers: usize) -> usize {
        let ports = self.ports.share(worker, workers);
        ports.len().min(self.connections.get() as usize)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions {
            max: SessionCapacity::DEFAULT,
            connections: ConnectionCapacity::DEFAULT,
            client_buffer: BufferSize::DEFAULT_CLIENT,
            replica_buffer: BufferSize::DEFAULT_REPLICA,
            log_memory: LogMemory::DEFAULT,
            ports: PortRange::DEFAULT,
            spill: None,
            spill_limit: SpillLimit::DEFAULT,
        }
    }
}

bounded! {
    /// Sessions of a worker.
    SessionCapacity(u32), 1, 1 << 20, |_| true, "1 to 1048576"
}

impl SessionCapacity {
    /// Sessions of a file that says nothing.
    pub const DEFAULT: SessionCapacity = SessionCapacity(4_096);
}

bounded! {
    /// Connections of a worker to replicas.
    ConnectionCapacity(u32), 1, 1 << 16, |_| true, "1 to 65536"
}

impl ConnectionCapacity {
    /// Connections of a file that says nothing.
    pub const DEFAULT: ConnectionCapacity = ConnectionCapacity(16_384);
}

bounded! {
    /// Bytes of one of a connection's buffers.
    BufferSize(u32), 4_096, 1 << 24, u32::is_power_of_two, "a power of two from 4096 to 16777216"
}

impl BufferSize {
    /// A client's, in a file that says nothing.
    pub const DEFAULT_CLIENT: BufferSize = BufferSize(262_144);
    /// A replica's, in a file that says nothing.
    pub const DEFAULT_REPLICA: BufferSize = BufferSize(131_072);
}

bounded! {
    /// Bytes of a worker's memory for kept input.
    LogMemory(u64), 1 << 20, 1 << 40, |_| true, "1048576 to 1099511627776"
}

impl LogMemory {
    /// Bytes of a file that says nothing.
    pub const DEFAULT: LogMemory = LogMemory(268_435_456);
}

bounded! {
    /// Bytes of all files of kept input.
    SpillLimit(u64), 1 << 20, 1 << 50, |_| true, "1048576 to 1125899906842624"
}

impl SpillLimit {
    /// Bytes of a file that says nothing.
    pub const DEFAULT: SpillLimit = SpillLimit(4_294_967_296);
}

/// Local ports, written `16384-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports of a file that says nothing.
    pub const DEFAULT: PortRange = PortRange {
        first: 16_384,
        last: 65_535,
    };
    /// The ports of `full-nat` in a file that says nothing: those below the sessions'.
    pub const DEFAULT_NAT: PortRange = PortRange {
        first: 1_024,
        last: 16_383,
    };
    /// What is allowed, for messages.
    pub const ALLOWED: &'static str = "FIRST-LAST, ports 1024 to 65535, such as \"16384-65535\"";
    /// The fewest ports that a worker can do with: a session of ten replicas, and some that
    /// wait until their last connection is forgotten.
    pub const PER_WORKER: u16 = 64;

    /// These ports; `None` where the range is empty or has well-known ones.
    pub fn new(ports: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = ports.into_inner();
        (1_024 <= first && first <= last).then_some(PortRange { first, last })
    }

    /// All of them.
    pub const fn all(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether a port is in both.
    pub const fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.all().len()
    }

    /// Those of one worker of so many: parts of equal size in the workers' order, so that a port
    /// names its worker by one division. What is left over is nobody's.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn share(self, worker: usize, workers: usize) -> RangeInclusive<u16> {
        assert!(worker < workers, "there is no such worker");
        let size = self.count() / workers;
        let edge = |at: usize| usize::from(self.first) + size * at;
        // No edge is behind the last port, and the last one of a part is a port.
        edge(worker) as u16..=(edge(worker + 1) - 1) as u16
    }
}

/// Not a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {}", PortRange::ALLOWED)]
pub struct ParsePortsError;

impl FromStr for PortRange {
    type Err = ParsePortsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| -> Result<u16, ParsePortsError> {
            // `parse` alone would take "+1".
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().map_err(|_| ParsePortsError)?;
            digits.then_some(number).ok_or(ParsePortsError)
        };
        let (first, last) = text.split_once('-').ok_or(ParsePortsError)?;
        PortRange::new(number(first)?..=number(last)?).ok_or(ParsePortsError)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_shares_of_all_workers_are_of_one_size_and_side_by_side(
            first in 1_024_u16..=65_535,
            more in 0_u16..,
            workers in 1_usize..200,
        ) {
            let ports = PortRange::new(first..=first.saturating_add(more)).unwrap();
            prop_assume!(ports.count() >= workers);
            let shares: Vec<u16> = (0..workers).flat_map(|w| ports.share(w, workers)).collect();
            let left = ports.count() - shares.len();
            prop_assert!(left < workers, "{} are nobody's", left);
            prop_assert_eq!(&shares, &ports.all().take(shares.len()).collect::<Vec<u16>>());
            for worker in 0..workers {
                prop_assert_eq!(ports.share(worker, workers).len(), ports.count() / workers);
            }
        }

        #[test]
        fn a_range_reads_back(first in 1_024_u16..=65_535, more in 0_u16..) {
            let ports = PortRange::new(first..=first.saturating_add(more)).unwrap();
            prop_assert_eq!(ports.to_string().parse(), Ok(ports));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "1024",
            "1023-2000",
            "3000-2000",
            "2000-65536",
            "+2000-3000",
            "2000 - 3000",
        ] {
            assert_eq!(text.parse::<PortRange>(), Err(ParsePortsError), "{text}");
        }
    }
}
