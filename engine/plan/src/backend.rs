//! Backends: the real servers behind a service.

use crate::Health;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;
use core::num::NonZeroU16;

/// A share of new flows relative to the other backends of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The weight of a backend that names none.
    pub const DEFAULT: Weight = Weight(100);
    /// The largest weight. It bounds the time a Maglev table takes to build.
    pub const MAX: u16 = 10_000;

    /// A weight from 1 to [`Weight::MAX`]; `None` outside. Zero is not a weight: a backend that
    /// takes no new flows is [`BackendState::Draining`].
    pub const fn new(weight: u16) -> Option<Self> {
        if weight >= 1 && weight <= Self::MAX {
            Some(Weight(weight))
        } else {
            None
        }
    }

    /// The weight as a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a backend is to new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendState {
    /// Takes new flows.
    Active,
    /// Keeps the flows it has and takes no new ones.
    Draining,
}

/// What makes a backend the same one on every balancer and across snapshots: its address.
///
/// Maglev ranks backends by this identity, so that the order of a file, a name or the history of
/// a balancer changes no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub IpAddr);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A real server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// What the operator calls it; its address where the file names none.
    pub name: String,
    /// Where its packets go.
    pub address: IpAddr,
    /// Its share of new flows.
    pub weight: Weight,
    /// Whether it takes new flows.
    pub state: BackendState,
    /// Where a replica listens, when that is not the VIP's port.
    pub port: Option<NonZeroU16>,
    /// What the daemon knows of it. It belongs to nobody's configuration.
    pub health: Health,
}

impl Backend {
    /// The identity that Maglev and the flow table know it by.
    pub const fn id(&self) -> BackendId {
        BackendId(self.address)
    }
}
