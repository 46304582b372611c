//! Bytes and headers: from the Ethernet header to the TCP and UDP ports, the flow key with its
//! hash, checksums, and the outer header of a tunnel.
//!
//! Everything here works in place on the bytes of one frame. Nothing allocates, nothing can panic
//! on what the network sends, and each header costs one length check: after it, fields are read
//! from an array of known size.
//!
//! The way of a packet: [`parse()`] finds the headers and the flow, [`FlowKey::hash`] spreads flows
//! over tables and backends, [`Outer::push`] writes the tunnel in front and the frame is ready to
//! leave; [`nat`] rewrites addresses and ports instead. Tunnels write no byte behind the inner IP header.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod fragment;
pub mod gue;
pub mod icmp;
pub mod ipip;
pub mod ipv4;
pub mod ipv6;
pub mod nat;
pub mod parse;
pub mod peek;
pub mod quote;
pub mod reply;
pub mod splice;
pub mod tcp;
pub mod udp;
pub mod vlan;

pub use ethernet::{LinkHeader, STEER_ETHERTYPE};
pub use flow::{FlowKey, FlowKey4, FlowKey6, HashSeed};
pub use fragment::{Fragment, parse_fragment};
pub use ipip::{NoRoom, Outer};
pub use parse::{Control, Headers, ParseError, destination, parse, parse_icmp, parse_icmp_error};
pub use peek::flow_of;
pub use tcp::TcpFlags;

/// IP protocol numbers (IANA), as an IPv4 header's protocol or an IPv6 next header.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 inside IP (RFC 2003, RFC 2473).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside IP (RFC 4213, RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}
