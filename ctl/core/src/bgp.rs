//! BGP without its I/O: what is said to a router, and when. Bytes, time and randomness are
//! arguments.
//!
//! [`peer`] is the state machine of RFC 4271, [`wire`] reads and writes messages by the codec of
//! `netgauze-bgp-pkt`, [`open`] says what the two sides of a session agree on, and [`rib`] keeps
//! what each router was told. Routes of others are checked for their form, counted, and forgotten.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

pub mod notification;
pub mod open;
pub mod peer;
pub mod received;
pub mod rib;
pub mod routes;
pub mod wire;

/// The routes a session carries, unicast both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Of IPv4.
    Ipv4,
    /// Of IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// Its name in configuration and output.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        }
    }

    /// By its numbers on the wire: address family and subsequent one.
    pub const fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Family::Ipv4),
            (2, 1) => Some(Family::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some families.
pub type Families = BTreeSet<Family>;
