//! Services: virtual addresses, and the backends behind them.

use crate::{Backend, Replicate, Vip};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The name of a service: 1 to 63 letters, digits, `-`, `_`, `.` or `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// A name, or `None` when it is empty, longer than 63 bytes or has another character in it.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=63).contains(&name.len());
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
    /// IP in IP (RFC 2003, RFC 2473) to the backend, which answers the client itself: direct
    /// server return.
    Tunnel,
    /// The engine ends the client's TCP and gives every backend a copy of it.
    Replicate(Arc<Replicate>),
}

impl Mode {
    /// The mode's name in `services.toml`.
    pub const fn name(&self) -> &'static str {
        match self {
            Mode::Tunnel => "tunnel",
            Mode::Replicate(_) => "replicate",
        }
    }

    /// The policy of a service that replicates.
    pub const fn replicate(&self) -> Option<&Arc<Replicate>> {
        match self {
            Mode::Tunnel => None,
            Mode::Replicate(policy) => Some(policy),
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

/// A service: the VIPs it answers on and the backends that serve them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique in a snapshot.
    pub name: ServiceName,
    /// Where clients connect; each belongs to one service only.
    pub vips: Vec<Vip>,
    /// How packets reach the backends.
    pub mode: Mode,
    /// The real servers, unique by address; under [`Mode::Tunnel`] all of one IP version.
    pub backends: Vec<Backend>,
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
        for name in ["", "a b", "ü", &"x".repeat(64)] {
            assert!(ServiceName::new(name).is_none(), "{name}");
        }
    }
}
