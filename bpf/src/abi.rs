//! `steer.h` and `decap.h` in Rust: map keys, values, sizes and the frame marker.

use std::net::{IpAddr, Ipv6Addr};

/// EtherType of a frame with room in front of its IP header (IEEE 802 local experimental 1).
pub const STEER_ETHERTYPE: u16 = 0x88B5;
/// The most destinations that the program knows at a time.
pub const DESTINATIONS: usize = 65_536;
/// Sockets are for queues 0 up to, but not including, this.
pub const QUEUES: u32 = 256;

/// The form of the steering program's maps: one of another form is not taken over.
pub(crate) const ABI: u32 = 2;
/// The most prefixes that ranges of ports are made of.
pub const RANGES: usize = 65_536;
/// The most addresses and ports that answers come from.
pub const SOURCES: usize = 65_536;
/// The most addresses of this host that the program knows.
pub const LOCALS: usize = 4_096;
/// Numbers of services that the program can carry by itself are from 1 up to, but not including,
/// this.
pub const SERVICES: u32 = 1_024;
/// The most backends of theirs.
pub const BACKENDS: usize = 16_384;
/// The most flows that are carried to another backend than their hash gives.
pub const PINNED: usize = 65_536;

/// Where packets go that are ours.
///
/// The program looks a packet up as (address, port, protocol), then among ranges of ports, then as
/// (address, 0, protocol). A packet whose ports cannot be read (a fragment, or one that is cut off
/// or malformed) is looked up as (address, 0, none), and of ICMP only echo requests and errors
/// about packets, as (address, 0, 1 or 58).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The destination address; IPv4 and the IPv6 address it maps to are the same.
    pub address: IpAddr,
    /// The destination port; 0 is every port.
    pub port: u16,
    /// The last port of a range; else the same as `port`.
    pub last_port: u16,
    /// The IP protocol number; `None` with port 0 is the entry for packets without readable ports.
    pub protocol: Option<u8>,
}

impl Destination {
    /// One port of an address, or every port: 0.
    pub const fn new(address: IpAddr, port: u16, protocol: Option<u8>) -> Self {
        Destination {
            address,
            port,
            last_port: port,
            protocol,
        }
    }

    /// `struct steer_key`.
    pub(crate) fn key(&self) -> Key {
        let mut key = [0; 20];
        key[..16].copy_from_slice(&mapped(self.address));
        key[16..18].copy_from_slice(&self.port.to_be_bytes());
        key[18] = self.protocol.unwrap_or(0);
        key
    }
}

/// `struct steer_key`.
pub(crate) type Key = [u8; 20];
/// `struct steer_range`.
pub(crate) type RangeKey = [u8; 24];
/// `struct steer_value`.
pub(crate) type Value = [u8; 8];

/// The number of a service that the program can carry by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceNumber(pub(crate) u32);

/// What is done with packets for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Steered {
    /// The room in front that the engine needs.
    pub room: Room,
    /// Whose table the program uses when no engine is there; without one, the kernel gets them.
    pub service: Option<ServiceNumber>,
}

impl Steered {
    /// `struct steer_value`.
    pub(crate) fn value(self, flags: u16) -> Value {
        let mut value = [0; 8];
        value[..2].copy_from_slice(&self.room.get().to_ne_bytes());
        value[2..4].copy_from_slice(&flags.to_ne_bytes());
        let service = self.service.map_or(0, |number| number.0);
        value[4..].copy_from_slice(&service.to_ne_bytes());
        value
    }
}

impl From<Room> for Steered {
    fn from(room: Room) -> Self {
        Steered {
            room,
            service: None,
        }
    }
}

/// An address as maps hold it: IPv4 as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets()
}

/// Bytes that the program makes free between the Ethernet header and the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Room(u16);

impl Room {
    /// The frame stays as it came.
    pub const NONE: Room = Room(0);
    /// The most room. Drivers leave 192 to 256 bytes in front of a frame, and the kernel keeps
    /// some of them for itself.
    pub const MAX: u16 = 128;

    /// The least room that is not none: its number and the VLAN tag are written there.
    pub const MIN: u16 = 4;

    /// Room of `bytes`: 0, or from [`Room::MIN`] to [`Room::MAX`]; `None` outside.
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes != 0 && bytes < Self::MIN || bytes > Self::MAX {
            None
        } else {
            Some(Room(bytes))
        }
    }

    /// The number of bytes.
    pub const fn get(self) -> u16 {
        self.0
    }
}

macro_rules! counters {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: u64,)+
        }

        impl $name {
            /// The counters' names, in the order of the map.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field),)+];

            /// Fills the counters in the order of the map.
            pub(crate) fn read<E>(mut at: impl FnMut(u32) -> Result<u64, E>) -> Result<Self, E> {
                let mut index = 0..;
                let mut next = || at(index.next().unwrap_or(u32::MAX));
                Ok($name { $($field: next()?,)+ })
            }

            /// Each counter with its name, in the order of the map.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                Self::NAMES.iter().copied().zip([$(self.$field,)+])
            }
        }
    };
}

counters! {
    /// What the steering program did since it was attached, in frames.
    SteerCounters {
        /// Handed to a socket.
        redirected,
        /// For none of our destinations: left to the kernel.
        not_ours,
        /// Ours, but no socket is there for its queue, nor a tunnel: left to the kernel.
        no_socket,
        /// Ours, but the agent's heartbeat is too old, and there is no tunnel: left to the kernel.
        stale,
        /// Ours, but there was no head-room in front of it: left to the kernel.
        no_headroom,
        /// From a backend to this host itself: left to the kernel.
        to_host,
        /// No engine took it: tunnelled to its backend by the program.
        carried,
        /// No engine took it and no backend of its service can be reached: left to the kernel.
        no_way,
        /// No engine took it and it is too big for the tunnel: left to the kernel.
        too_big,
        /// No engine took it and it has no hop left: left to the kernel.
        ttl_exceeded,
    }
}

counters! {
    /// What the decapsulating program did since it was attached, in frames.
    DecapCounters {
        /// Given to the kernel without their outer header.
        decapsulated,
        /// Not tunnelled to one of the addresses: left to the kernel.
        passed,
        /// Tunnelled to us, but with no whole IP header inside: left to the kernel.
        malformed,
        /// Dropped: congestion was marked on the tunnel and the sender inside knows no ECN
        /// (RFC 6040, section 4.2).
        congested,
    }
}

counters! {
    /// What the load generator's program did since it was attached, in frames.
    TrafficCounters {
        /// Handed to a socket.
        redirected,
        /// None of the generator's: left to the kernel.
        not_ours,
        /// The generator's, but no socket is there for its queue: left to the kernel.
        no_socket,
    }
}

#[cfg(test)]
mod tests;
