//! Address translation: a packet's addresses and ports rewritten in place.
//!
//! Checksums are brought in step with what changed (RFC 1624) and never computed anew, so that a
//! packet that was damaged on its way is still damaged when it arrives.

use crate::checksum::fold;
use crate::ethernet::{self, LinkHeader};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use crate::ipv4;
use crate::ipv6;
use crate::parse::Headers;
use crate::protocol;
use crate::reply;
use crate::vlan;

/// Where TCP keeps its checksum.
const TCP_CHECKSUM: usize = 16;
/// Where UDP keeps its checksum.
const UDP_CHECKSUM: usize = 6;
/// Bytes of the ports, with which both headers start.
const PORTS: usize = 4;

/// Gives an IPv4 packet of flow `from` the addresses and ports of `to`, and takes one from its TTL.
///
/// `packet` starts at the IP header and ends where the packet does; `transport` is the offset of
/// the TCP or UDP header in it, `None` in a fragment that has none. `None` comes back, and the
/// packet is as it was, when a header is cut, which no packet has that the parser accepted.
#[inline]
pub fn rewrite_v4(
    packet: &mut [u8],
    transport: Option<usize>,
    from: &FlowKey4,
    to: &FlowKey4,
) -> Option<()> {
    let addresses =
        difference(from.source, to.source) + difference(from.destination, to.destination);
    if let Some(at) = transport {
        let segment = packet.get_mut(at..)?;
        let change = addresses + difference(from.ports, to.ports);
        rewrite_transport(segment, from.protocol, to.ports, change)?;
    }
    let header: &mut [u8; ipv4::HEADER_LENGTH] = packet.first_chunk_mut()?;
    // The TTL is the upper byte of its word. A TTL of 0 stays, as it does in tunnels.
    let ttl = header[8].saturating_sub(1);
    let change = addresses + difference(u32::from(header[8]) << 8, u32::from(ttl) << 8);
    let checksum = changed(u16::from_be_bytes([header[10], header[11]]), change);
    header[8] = ttl;
    let (words, _) = header.as_chunks_mut::<4>();
    let [ttl, protocol, _, _] = words[2];
    let [high, low] = checksum.to_be_bytes();
    words[2] = [ttl, protocol, high, low];
    words[3] = to.source.to_be_bytes();
    words[4] = to.destination.to_be_bytes();
    Some(())
}

/// [`rewrite_v4`] for IPv6, where the IP header has no checksum of its own.
#[inline]
pub fn rewrite_v6(
    packet: &mut [u8],
    transport: Option<usize>,
    from: &FlowKey6,
    to: &FlowKey6,
) -> Option<()> {
    if let Some(at) = transport {
        let segment = packet.get_mut(at..)?;
        let change = difference_of_16(&from.source, &to.source)
            + difference_of_16(&from.destination, &to.destination)
            + difference(from.ports, to.ports);
        rewrite_transport(segment, from.protocol, to.ports, change)?;
    }
    let header: &mut [u8; ipv6::HEADER_LENGTH] = packet.first_chunk_mut()?;
    ipv6::decrement_hop_limit(header);
    header[8..24].copy_from_slice(&to.source);
    header[24..40].copy_from_slice(&to.destination);
    Some(())
}

/// Writes the ports of a TCP or UDP header and brings its checksum in step.
#[inline]
fn rewrite_transport(segment: &mut [u8], protocol: u8, ports: u32, change: u64) -> Option<()> {
    let is_udp = protocol == protocol::UDP;
    let at = if is_udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let checksum: &mut [u8; 2] = segment.get_mut(at..)?.first_chunk_mut()?;
    let old = u16::from_be_bytes(*checksum);
    // A UDP checksum of 0 says that there is none (RFC 768), and one that comes to 0 is sent as
    // 0xffff. Over IPv6 there must be one; a packet without stays without, for its receiver to
    // refuse.
    if !(is_udp && old == 0) {
        let new = changed(old, change);
        *checksum = if is_udp && new == 0 { 0xffff } else { new }.to_be_bytes();
    }
    *segment.first_chunk_mut::<PORTS>()? = ports.to_be_bytes();
    Some(())
}

/// `~m + m'` of RFC 1624's equation 3, for the two 16-bit words of a number.
#[inline]
const fn difference(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

#[inline]
fn difference_of_16(old: &[u8; 16], new: &[u8; 16]) -> u64 {
    let (old, _) = old.as_chunks::<4>();
    let (new, _) = new.as_chunks::<4>();
    old.iter().zip(new).fold(0, |sum, (old, new)| {
        sum + difference(u32::from_be_bytes(*old), u32::from_be_bytes(*new))
    })
}

/// `~(~HC + ~m + m')`.
#[inline]
const fn changed(checksum: u16, difference: u64) -> u16 {
    !fold(!checksum as u64 + difference)
}

/// Writes a link header in front of the packet and returns the length of the frame. Where there
/// are more bytes in front of the packet than it needs, the packet is moved to the front; where
/// there are fewer, nothing is done.
///
/// `frame` and `headers` are what [`parse`](crate::parse()) was given and gave.
#[inline]
pub fn place(frame: &mut [u8], headers: &Headers, link: &LinkHeader) -> Option<usize> {
    let network = usize::from(headers.network);
    let length = usize::from(headers.length);
    let ethertype = match headers.key {
        FlowKey::V4(_) => ethernet::IPV4,
        FlowKey::V6(_) => ethernet::IPV6,
    };
    if network != link.len() {
        return place_moved(frame, network, length, link, ethertype);
    }
    link.write(frame.get_mut(..network)?, ethertype)?;
    Some(network + length)
}

#[cold]
#[inline(never)]
fn place_moved(
    frame: &mut [u8],
    network: usize,
    length: usize,
    link: &LinkHeader,
    ethertype: u16,
) -> Option<usize> {
    let room = link.len();
    if network < room || frame.len() < network + length {
        return None;
    }
    frame.copy_within(network..network + length, room);
    link.write(frame.get_mut(..room)?, ethertype)?;
    Some(room + length)
}

/// Why the way back from a frame cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame has more VLAN tags than are written on the way out")]
pub struct TooManyTags;

/// The link header that an answer to a frame has: its addresses exchanged, in the VLAN it came by.
/// The VLAN ID 0 is none (IEEE 802.1Q, table 9-2): such a tag carries a priority only.
#[inline]
pub fn way_back(frame: &[u8], headers: &Headers) -> Result<LinkHeader, TooManyTags> {
    let tags = headers.network.saturating_sub(headers.room);
    let Some(addresses) = frame.first_chunk::<{ ethernet::HEADER_LENGTH }>() else {
        return Err(TooManyTags);
    };
    let mut link = LinkHeader {
        destination: [0; 6],
        source: [0; 6],
        vlan: None,
    };
    link.destination.copy_from_slice(&addresses[6..12]);
    link.source.copy_from_slice(&addresses[..6]);
    if headers.room != 0 {
        link.vlan = reply::tag_behind_marker(frame)
            .ok_or(TooManyTags)?
            .map(|tag| tag & 0x0fff)
            .filter(|&id| id != 0);
        return Ok(link);
    }
    if usize::from(tags) == ethernet::HEADER_LENGTH {
        return Ok(link);
    }
    if usize::from(tags) != ethernet::HEADER_LENGTH + vlan::TAG_LENGTH {
        return Err(TooManyTags);
    }
    let tag = frame
        .get(ethernet::HEADER_LENGTH..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(TooManyTags)?;
    link.vlan = Some(u16::from_be_bytes(*tag) & 0x0fff).filter(|&id| id != 0);
    Ok(link)
}

#[cfg(test)]
mod tests;
