//! What packets of services are rewritten with.

use crate::sessions::PortRange;

/// The `[nat]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// The ports of the engine's addresses that `full-nat` takes as sources, over all workers.
    pub ports: PortRange,
}

impl Nat {
    /// The fewest ports that a worker can do with, towards each backend.
    pub const PER_WORKER: u16 = 64;
}

impl Default for Nat {
    fn default() -> Self {
        Nat {
            ports: PortRange::DEFAULT_NAT,
        }
    }
}
