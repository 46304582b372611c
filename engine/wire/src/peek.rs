//! The flow of a frame at a glance.

use crate::ethernet::{self, HEADER_LENGTH, STEER_ETHERTYPE};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use crate::parse::parse;
use crate::protocol;

/// The flow of a frame, for who only has to know whose it is: a third of what [`parse()`] costs.
///
/// Where [`parse()`] accepts the frame, this is its flow. It also answers for some frames that
/// [`parse()`] refuses, because of a checksum or a length, for example.
#[inline]
pub fn flow_of(frame: &[u8]) -> Option<FlowKey> {
    match plain(frame) {
        Some(key) => Some(key),
        None => parse(frame).ok().map(|headers| headers.key),
    }
}

/// What nearly all packets are: behind the XDP program's room or without a tag, no options, no
/// extension headers, no fragment.
#[inline]
fn plain(frame: &[u8]) -> Option<FlowKey> {
    let start: &[u8; HEADER_LENGTH + 2] = frame.first_chunk()?;
    let room = match u16::from_be_bytes([start[12], start[13]]) {
        STEER_ETHERTYPE => u16::from_be_bytes([start[14], start[15]]),
        ethernet::IPV4 | ethernet::IPV6 => 0,
        _ => return None,
    };
    let packet = frame.get(HEADER_LENGTH + usize::from(room)..)?;
    match packet.first()? {
        0x45 => plain_v4(packet.first_chunk()?),
        0x60..=0x6f => plain_v6(packet.first_chunk()?),
        _ => None,
    }
}

#[inline]
fn plain_v4(packet: &[u8; 24]) -> Option<FlowKey> {
    let word = |at: usize| {
        u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
    };
    // The "more fragments" flag and the offset (RFC 791).
    if word(4) & 0x3fff != 0 {
        return None;
    }
    let key = FlowKey4 {
        source: word(12),
        destination: word(16),
        ports: word(20),
        protocol: packet[9],
    };
    has_ports(key.protocol).then_some(FlowKey::V4(key))
}

#[inline]
fn plain_v6(packet: &[u8; 44]) -> Option<FlowKey> {
    let (header, ports) = packet.split_last_chunk()?;
    let (addresses, destination) = header.split_last_chunk()?;
    let (_, source) = addresses.split_last_chunk()?;
    let key = FlowKey6 {
        source: *source,
        destination: *destination,
        ports: u32::from_be_bytes(*ports),
        protocol: packet[6],
    };
    has_ports(key.protocol).then_some(FlowKey::V6(key))
}

#[inline]
const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}
