//! ICMP errors of flows whose packets are rewritten (RFC 5508 section 4): the packet that they quote
//! is rewritten with their own addresses.

use core::net::IpAddr;

use crate::checksum::{Sum, checksum, update_16_bytes, update_u32};
use crate::flow::{FlowKey4, FlowKey6};
use crate::ipv4::Ipv4Header;
use crate::ipv6::{Fragments, Ipv6Header, upper_layer};
use crate::{icmp, nat, protocol, tcp, udp};

/// Where TCP has its checksum.
const TCP_CHECKSUM: usize = 16;
/// Where UDP has its checksum.
const UDP_CHECKSUM: usize = 6;
const _: () = assert!(TCP_CHECKSUM < tcp::HEADER_LENGTH && UDP_CHECKSUM < udp::HEADER_LENGTH);

/// Gives an error over IPv4 another destination and, where there is one, another source, the packet
/// that it quotes the addresses and ports of `to` instead of those of `from`, and takes one from
/// the error's TTL. Of the quote's own checksums those are kept in step that are in it; they may be
/// stale, and stay so.
///
/// `packet` starts at the error's IP header and ends where the packet does, `transport` is the
/// offset of its ICMP header. `None` for what [`parse_icmp`](crate::parse_icmp) does not accept.
pub fn rewrite_v4(
    packet: &mut [u8],
    transport: usize,
    (source, destination): (Option<IpAddr>, IpAddr),
    from: &FlowKey4,
    to: &FlowKey4,
) -> Option<()> {
    let header = Ipv4Header::from(packet.first_chunk()?);
    let IpAddr::V4(destination) = destination else {
        return None;
    };
    let old = FlowKey4 {
        source: header.source(),
        destination: header.destination(),
        ports: 0,
        protocol: protocol::ICMP,
    };
    let new = FlowKey4 {
        source: match source {
            Some(IpAddr::V4(source)) => source.to_bits(),
            Some(IpAddr::V6(_)) => return None,
            None => old.source,
        },
        destination: destination.to_bits(),
        ..old
    };
    nat::rewrite_v4(packet, None, &old, &new)?;

    let message = packet.get_mut(transport..)?;
    let quote = message.get_mut(icmp::HEADER_LENGTH..)?;
    let (_, behind) = Ipv4Header::split_quoted(quote).ok()?;
    let at = quote.len() - behind.len();
    let header: &mut [u8; 20] = quote.first_chunk_mut()?;
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let sum = update_u32(sum, from.source, to.source);
    let sum = update_u32(sum, from.destination, to.destination);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header[12..16].copy_from_slice(&to.source.to_be_bytes());
    header[16..20].copy_from_slice(&to.destination.to_be_bytes());
    rewrite_transport(quote.get_mut(at..)?, from.protocol, to.ports, |sum| {
        let sum = update_u32(sum, from.source, to.source);
        let sum = update_u32(sum, from.destination, to.destination);
        update_u32(sum, from.ports, to.ports)
    })?;
    message.get_mut(2..4)?.copy_from_slice(&[0, 0]);
    let sum = checksum(message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// [`rewrite_v4`] for an ICMPv6 error, whose checksum covers its own addresses too.
pub fn rewrite_v6(
    packet: &mut [u8],
    transport: usize,
    (source, destination): (Option<IpAddr>, IpAddr),
    from: &FlowKey6,
    to: &FlowKey6,
) -> Option<()> {
    let header = Ipv6Header::from(packet.first_chunk()?);
    let IpAddr::V6(destination) = destination else {
        return None;
    };
    let old = FlowKey6 {
        source: *header.source(),
        destination: *header.destination(),
        ports: 0,
        protocol: protocol::ICMPV6,
    };
    let new = FlowKey6 {
        source: match source {
            Some(IpAddr::V6(source)) => source.octets(),
            Some(IpAddr::V4(_)) => return None,
            None => old.source,
        },
        destination: destination.octets(),
        ..old
    };
    nat::rewrite_v6(packet, None, &old, &new)?;

    let message = packet.get_mut(transport..)?;
    let quote = message.get_mut(icmp::HEADER_LENGTH..)?;
    let (header, behind) = Ipv6Header::split_quoted(quote).ok()?;
    let next = header.next_header();
    let (_, behind) = upper_layer(next, behind, Fragments::FirstAccepted).ok()?;
    let at = quote.len() - behind.len();
    quote.get_mut(8..24)?.copy_from_slice(&to.source);
    quote.get_mut(24..40)?.copy_from_slice(&to.destination);
    rewrite_transport(quote.get_mut(at..)?, from.protocol, to.ports, |sum| {
        let sum = update_16_bytes(sum, &from.source, &to.source);
        let sum = update_16_bytes(sum, &from.destination, &to.destination);
        update_u32(sum, from.ports, to.ports)
    })?;
    message.get_mut(2..4)?.copy_from_slice(&[0, 0]);
    // No frame is longer than 65,535 bytes.
    let length = message.len() as u32;
    let sum = Sum::pseudo_v6(&new.source, &new.destination, protocol::ICMPV6, length)
        .add_bytes(message)
        .checksum();
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Adds to the sequence number of the TCP segment that an error quotes. To be called before
/// [`rewrite_v4`] or [`rewrite_v6`], which compute the error's own checksum.
pub fn shift_sequence(packet: &mut [u8], transport: usize, by: u32) -> Option<()> {
    let is_v4 = packet.first()? >> 4 == 4;
    let quote = packet.get_mut(transport + icmp::HEADER_LENGTH..)?;
    let behind = if is_v4 {
        Ipv4Header::split_quoted(quote).ok()?.1
    } else {
        let (header, behind) = Ipv6Header::split_quoted(quote).ok()?;
        let next = header.next_header();
        upper_layer(next, behind, Fragments::FirstAccepted).ok()?.1
    };
    let at = quote.len() - behind.len();
    let segment = quote.get_mut(at..)?;
    let field: &mut [u8; 4] = segment.get_mut(4..)?.first_chunk_mut()?;
    let old = u32::from_be_bytes(*field);
    let new = old.wrapping_add(by);
    *field = new.to_be_bytes();
    if let Some(field) = segment
        .get_mut(TCP_CHECKSUM..)
        .and_then(<[u8]>::first_chunk_mut)
    {
        *field = update_u32(u16::from_be_bytes(*field), old, new).to_be_bytes();
    }
    Some(())
}

/// The ports of a quoted header, and its checksum where the quote goes that far.
fn rewrite_transport(
    quote: &mut [u8],
    protocol: u8,
    ports: u32,
    updated: impl Fn(u16) -> u16,
) -> Option<()> {
    let is_udp = protocol == protocol::UDP;
    let at = if is_udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    if let Some(field) = quote.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        let old = u16::from_be_bytes(*field);
        if !(is_udp && old == 0) {
            let new = updated(old);
            *field = if is_udp { udp::on_the_wire(new) } else { new }.to_be_bytes();
        }
    }
    *quote.first_chunk_mut()? = ports.to_be_bytes();
    Some(())
}
