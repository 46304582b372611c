//! Services: virtual addresses, and the backends behind them.

use crate::{Backend, Guard, Replicate, Vip};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;

/// The name of a service: 1 to 253 letters, digits, `-`, `_`, `.` or `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// A name, or `None` when it is empty, longer than 253 bytes or has another character in it.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=253).contains(&name.len());
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        (fits && plain).then(|| ServiceName(String::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a service's packets reach its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// In a tunnel to the backend, which answers the client itself: direct server return.
    Tunnel(Encapsulation),
    /// The destination is rewritten to the backend's, whose answers come back through the engine.
    Nat,
    /// Destination and source are rewritten: to the backend they come from the engine.
    FullNat,
    /// The engine ends the client's TCP and gives every backend a copy of it.
    Replicate(Arc<Replicate>),
}

/// What a tunnel to a backend is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encapsulation {
    /// IP in IP (RFC 2003, RFC 2473).
    #[default]
    Ipip,
    /// UDP in front of the packet: GUE, variant 1 (draft-ietf-intarea-gue-09, section 4).
    Gue {
        /// The UDP port that backends listen on.
        port: NonZeroU16,
    },
}

impl Encapsulation {
    /// The port of GUE where none is named (IANA: gue, 6080).
    pub const GUE_PORT: NonZeroU16 = NonZeroU16::new(6080).expect("it is not zero");
}

impl Mode {
    /// In a tunnel of IP in IP.
    pub const TUNNEL: Mode = Mode::Tunnel(Encapsulation::Ipip);

    /// The mode's name in `services.toml`.
    pub const fn name(&self) -> &'static str {
        match self {
            Mode::Tunnel(_) => "tunnel",
            Mode::Nat => "nat",
            Mode::FullNat => "full-nat",
            Mode::Replicate(_) => "replicate",
        }
    }

    /// The policy of a service that replicates.
    pub const fn replicate(&self) -> Option<&Arc<Replicate>> {
        match self {
            Mode::Tunnel(_) | Mode::Nat | Mode::FullNat => None,
            Mode::Replicate(policy) => Some(policy),
        }
    }

    /// Whether packets are rewritten, and their answers back.
    pub const fn translates(&self) -> bool {
        match self {
            Mode::Nat | Mode::FullNat => true,
            Mode::Tunnel(_) | Mode::Replicate(_) => false,
        }
    }
}

/// How a backend is chosen for a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheduler {
    /// By the flow's hash, so that balancers agree without talking.
    #[default]
    Maglev,
    /// One after the other, by weight.
    RoundRobin,
    /// The one with the fewest flows for its weight.
    LeastConnections,
    /// By the hash of the client's address, so that all its flows are with one backend.
    SourceHash,
    /// Any, by weight.
    Random,
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: [Scheduler; 5] = [
        Scheduler::Maglev,
        Scheduler::RoundRobin,
        Scheduler::LeastConnections,
        Scheduler::SourceHash,
        Scheduler::Random,
    ];

    /// The scheduler's name in `services.toml`; IPVS' where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::Maglev => "maglev",
            Scheduler::RoundRobin => "wrr",
            Scheduler::LeastConnections => "wlc",
            Scheduler::SourceHash => "source-hash",
            Scheduler::Random => "random",
        }
    }
}

/// The number of entries of a Maglev table: a prime, so that every backend's permutation visits
/// each entry once (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableSize(u32);

impl TableSize {
    /// 65,537, the paper's small table: under 1 % imbalance with some hundred backends.
    pub const DEFAULT: TableSize = TableSize(65_537);
    /// The largest table.
    pub const MAX: u32 = 655_373;
    /// The smallest table.
    pub const MIN: u32 = 251;

    /// A table of `size` entries; `None` when `size` is not a prime from [`TableSize::MIN`] to
    /// [`TableSize::MAX`].
    pub fn new(size: u32) -> Option<Self> {
        ((Self::MIN..=Self::MAX).contains(&size) && is_prime(size)).then_some(TableSize(size))
    }

    /// The number of entries.
    pub const fn get(self) -> u32 {
        self.0
    }
}

fn is_prime(n: u32) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

/// How long a flow without packets is remembered, in seconds. The defaults are those of IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdleTimeouts {
    /// After a SYN that nothing followed.
    pub tcp_syn: u32,
    /// An established TCP connection.
    pub tcp_established: u32,
    /// After the client's FIN or RST.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl IdleTimeouts {
    /// IPVS' defaults: 60 s after a SYN, 900 s established, 120 s after a FIN, 300 s for UDP.
    pub const DEFAULT: IdleTimeouts = IdleTimeouts {
        tcp_syn: 60,
        tcp_established: 900,
        tcp_fin: 120,
        udp: 300,
    };
    /// The longest idle time, in seconds: 12 hours. Flow entries keep time in 16 bits.
    pub const MAX: u32 = 43_200;
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What becomes of packets for which a service has no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unserved {
    /// They are dropped: clients try again, and find out by their own timeouts.
    #[default]
    Drop,
    /// Connections are reset, datagrams answered as unreachable: clients know at once.
    Reset,
}

/// A service: the VIPs it answers on and the backends that serve them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique in a snapshot.
    pub name: ServiceName,
    /// Where clients connect; each belongs to one service only.
    pub vips: Vec<Vip>,
    /// How packets reach the backends.
    pub mode: Mode,
    /// The real servers, unique by address; under [`Mode::Tunnel`] all of one IP version, under
    /// [`Mode::Nat`] of that of the VIPs.
    pub backends: Vec<Backend>,
    /// How one of them is chosen for a new flow.
    pub scheduler: Scheduler,
    /// Whom it serves, and how much of it.
    pub guard: Guard,
    /// What becomes of packets while it has no backend.
    pub unserved: Unserved,
    /// The size of its Maglev table.
    pub table_size: TableSize,
    /// When its flows are forgotten.
    pub idle: IdleTimeouts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_prime_number_of_entries() {
        assert!(TableSize::new(65_537).is_some());
        assert!(TableSize::new(655_373).is_some());
        assert!(TableSize::new(65_536).is_none());
        assert!(TableSize::new(65_537 * 3).is_none());
        assert!(TableSize::new(7).is_none());
    }

    #[test]
    fn a_name_is_short_and_plain() {
        assert!(ServiceName::new("default/web-1").is_some());
        for name in ["", "a b", "ü", &"x".repeat(254)] {
            assert!(ServiceName::new(name).is_none(), "{name}");
        }
    }
}
