//! A tunnel over UDP: GUE variant 1 (draft-ietf-intarea-gue-09, section 4), which is the packet
//! itself behind a UDP header. The first bits of the packet are its IP version, which no header of
//! GUE variant 0 begins with, so a receiver needs nothing else to tell what follows.
//!
//! | outer | bytes | RFC |
//! |---|---|---|
//! | IPv4, UDP | 28 | 768 |
//! | IPv6, UDP | 48 | 6935, 6936 |
//!
//! Routers and network cards spread UDP by its ports, and the source port tells flows apart: that
//! is what the 8 bytes more than IP in IP buy.

use crate::flow::FlowKey;
use crate::ipip::LABEL_SEED;
use crate::udp::HEADER_LENGTH;

/// The first source port: the dynamic ports of RFC 6335 are 49152 to 65535, as RFC 8086 (section
/// 3.2.2) wants it for GRE in UDP.
const FIRST_PORT: u16 = 0xc000;

/// The source port of a flow's packets: the same from every balancer, as its flow label is.
#[inline]
pub fn source_port(key: &FlowKey) -> u16 {
    FIRST_PORT | (key.hash(&LABEL_SEED) >> 50) as u16
}

/// Writes the UDP header of a datagram of `length` bytes, itself included.
///
/// The checksum is 0, "none": it would have to cover the whole packet. Over IPv6 that is allowed
/// for tunnels whose inner packet has a checksum of its own over its addresses (RFC 6935, section
/// 5; RFC 6936, section 4), which TCP and UDP have.
#[inline(always)]
pub(crate) fn write(to: &mut [u8; HEADER_LENGTH], key: &FlowKey, port: u16, length: u16) {
    let ports = u64::from(source_port(key)) << 48 | u64::from(port) << 32;
    *to = (ports | u64::from(length) << 16).to_be_bytes();
}
