//! `steer.h` and `decap.h` in Rust: map keys, values, sizes and the frame marker.

use std::net::{IpAddr, Ipv6Addr};

/// EtherType of a frame with room in front of its IP header (IEEE 802 local experimental 1).
pub const STEER_ETHERTYPE: u16 = 0x88B5;
/// The most destinations that the program knows at a time.
pub const DESTINATIONS: usize = 65_536;
/// Sockets are for queues 0 up to, but not including, this.
pub const QUEUES: u32 = 256;

/// Where packets go that are ours.
///
/// The program looks a packet up as (address, port, protocol), then as (address, 0, protocol). A
/// packet whose ports cannot be read (a fragment, or one that is cut off or malformed) is looked
/// up as (address, 0, none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The destination address; IPv4 and the IPv6 address it maps to are the same.
    pub address: IpAddr,
    /// The destination port; 0 is every port.
    pub port: u16,
    /// The IP protocol number; `None` with port 0 is the entry for packets without readable ports.
    pub protocol: Option<u8>,
}

impl Destination {
    /// `struct steer_key`.
    pub(crate) fn key(&self) -> [u8; 20] {
        let mut key = [0; 20];
        key[..16].copy_from_slice(&mapped(self.address));
        key[16..18].copy_from_slice(&self.port.to_be_bytes());
        key[18] = self.protocol.unwrap_or(0);
        key
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

    /// Room of `bytes`: 0, or from 2 to [`Room::MAX`]; `None` outside. One byte cannot be, because
    /// the marker's second half takes two.
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes == 1 || bytes > Self::MAX {
            None
        } else {
            Some(Room(bytes))
        }
    }

    /// The number of bytes.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// `struct steer_value`.
    pub(crate) fn value(self) -> [u8; 4] {
        let [low, high] = self.0.to_ne_bytes();
        [low, high, 0, 0]
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
        /// Ours, but no socket is there for its queue: left to the kernel.
        no_socket,
        /// Ours, but the agent's heartbeat is too old: left to the kernel.
        stale,
        /// Ours, but there was no head-room in front of it: left to the kernel.
        no_headroom,
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

#[cfg(test)]
mod tests;
