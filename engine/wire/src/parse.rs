//! The one entry point for frames that come in.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ethernet::{self, Packet, Version};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use crate::icmp;
use crate::ipv4::{self, Ipv4Header};
use crate::ipv6::{self, Fragments, Ipv6Header};
use crate::protocol;
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;

/// What [`parse()`] found; offsets are bytes from the start of the frame.
///
/// `network <= transport < network + length <= frame.len()` always holds, but for the transport of
/// a later fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Bytes that the XDP program made between the Ethernet header and the IP header (ADR 1); 0
    /// when it made none.
    pub room: u16,
    /// Offset of the IP header.
    pub network: u16,
    /// Offset of the TCP, UDP or ICMP header; 0 in a fragment other than the first, which has none.
    pub transport: u16,
    /// Length of the IP packet with its header: IPv4's total length, or 40 plus IPv6's payload
    /// length. Ethernet padding may follow it in the frame.
    pub length: u16,
    /// The flow.
    pub key: FlowKey,
    /// TCP's control bits; empty for UDP.
    pub tcp: TcpFlags,
}

impl Headers {
    /// Moves the packet of a steered frame forward, so that it has no more than `room` bytes in
    /// front, and returns the headers as they are then. `None` where there is less, or where the
    /// headers are not those of this frame.
    pub fn with_less_room(&self, frame: &mut [u8], room: u16) -> Option<Headers> {
        let by = self.room.checked_sub(room)?;
        let from = usize::from(self.network);
        let packet = from..from + usize::from(self.length);
        let to = self.network.checked_sub(by)?;
        frame.get(packet.clone())?;
        frame.copy_within(packet, usize::from(to));
        Some(Headers {
            room,
            network: to,
            transport: self.transport.saturating_sub(by),
            ..*self
        })
    }
}

/// Why a frame is not forwarded. Each is a drop reason of the same name.
///
/// `Truncated` is about something that ends too early: the frame, or what a length field gives a
/// header to live in. `Malformed` is a field that no such header can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum ParseError {
    /// Shorter than its headers say, or than the headers need.
    #[error("the frame or a length in it ends inside a header")]
    Truncated,
    /// A field with an impossible value.
    #[error("a header field is impossible: version, header length, packet length or room")]
    Malformed,
    /// The checksum of the IPv4 header, or of the ICMP message, is wrong.
    #[error("the checksum of the IPv4 header or the ICMP message does not match")]
    BadChecksum,
    /// More than 8 IPv6 extension headers or more than 2 VLAN tags.
    #[error("more IPv6 extension headers (8) or VLAN tags (2) than are followed")]
    HeaderChain,
    /// Part of a datagram: it has no ports, or the rest would not find its way.
    #[error("a fragment, which has no ports to find its flow by")]
    Fragment,
    /// Neither IPv4 nor IPv6.
    #[error("not IPv4 or IPv6")]
    NotIp,
    /// Neither TCP nor UDP; from [`parse_icmp_error`]: no ICMP error.
    #[error("IP, but neither TCP nor UDP")]
    NotTransport,
    /// TTL or hop limit 1 or 0 on arrival.
    #[error("TTL or hop limit used up")]
    TtlExceeded,
}

/// No AF_XDP frame is longer.
const LONGEST_FRAME: usize = u16::MAX as usize;

/// Finds the headers and the flow of a frame: an ordinary one, with up to two VLAN tags, or one
/// with the XDP program's room in front of the packet.
///
/// When several things are wrong, the first in this order is reported, from the outside in: the
/// Ethernet header, tags and room; the IP header's version, lengths and checksum; fragments; the
/// extension headers (IPv6, where a fragment header is one of them); the protocol; the transport
/// header; and at last the TTL, which only forwarding needs.
///
/// An IPv6 packet that does not end within the frame's first 65,535 bytes is `Truncated`: its
/// offsets would not fit. No AF_XDP frame is that long.
// Always: the burst loop is the one caller that counts, and others would cost it a call.
#[inline(always)]
pub fn parse(frame: &[u8]) -> Result<Headers, ParseError> {
    // What nearly all packets are comes first and stands alone, so that it needs few registers and
    // no call; the rest is a jump away.
    let Some(steered) = ethernet::steered(frame) else {
        return parse_ordinary(frame);
    };
    let (version, packet) = steered?;
    parse_packet(version, packet)
}

/// The destination of the IP packet in a frame that [`parse()`] may refuse; `None` when it is none
/// or ends before its fixed header does.
///
/// It reads no more than the XDP program does to tell whether a packet it cannot follow to the
/// ports is for a VIP's address.
pub fn destination(frame: &[u8]) -> Option<IpAddr> {
    let (version, packet) = ethernet::parse(frame).ok()?;
    let is_version = |number| packet.bytes.first().is_some_and(|b| b >> 4 == number);
    match version {
        Version::V4 => {
            let header: &[u8; ipv4::HEADER_LENGTH] = packet.bytes.first_chunk()?;
            let address = Ipv4Addr::from(*header.last_chunk::<4>()?);
            is_version(4).then_some(address.into())
        }
        Version::V6 => {
            let header: &[u8; ipv6::HEADER_LENGTH] = packet.bytes.first_chunk()?;
            let address = Ipv6Addr::from(*header.last_chunk::<16>()?);
            is_version(6).then_some(address.into())
        }
    }
}

#[inline(never)]
fn parse_ordinary(frame: &[u8]) -> Result<Headers, ParseError> {
    let (version, packet) = ethernet::parse(frame)?;
    parse_packet(version, packet)
}

#[inline(always)]
fn parse_packet(version: Version, packet: Packet<'_>) -> Result<Headers, ParseError> {
    match version {
        Version::V4 => match Ipv4Header::split_plain(packet.bytes) {
            Some(split) => finish_v4(packet.room, packet.network, split?),
            None => parse_v4(packet.room, packet.network, packet.bytes),
        },
        Version::V6 => parse_v6(packet.room, packet.network, packet.bytes),
    }
}

/// With options, or cut.
#[cold]
#[inline(never)]
fn parse_v4(room: u16, network: usize, bytes: &[u8]) -> Result<Headers, ParseError> {
    finish_v4(room, network, Ipv4Header::split(bytes)?)
}

#[inline]
fn finish_v4(
    room: u16,
    network: usize,
    (ip, payload): (Ipv4Header<'_>, &[u8]),
) -> Result<Headers, ParseError> {
    if ip.is_fragment() {
        return Err(ParseError::Fragment);
    }
    let transport = Transport::parse(ip.protocol(), payload)?;
    check_ttl(ip.ttl())?;
    let key = FlowKey4 {
        source: ip.source(),
        destination: ip.destination(),
        ports: transport.ports,
        protocol: ip.protocol(),
    };
    let length = usize::from(ip.total_length());
    Ok(headers(
        room,
        network,
        length,
        payload,
        FlowKey::V4(key),
        transport.tcp,
    ))
}

#[inline(never)]
fn parse_v6(room: u16, network: usize, bytes: &[u8]) -> Result<Headers, ParseError> {
    let (ip, payload) = whole_v6(network, bytes)?;
    let length = ipv6::HEADER_LENGTH + payload.len();
    let (protocol, payload) = ipv6::upper_layer(ip.next_header(), payload, Fragments::Refused)?;
    let transport = Transport::parse(protocol, payload)?;
    check_ttl(ip.hop_limit())?;
    let key = FlowKey6 {
        source: *ip.source(),
        destination: *ip.destination(),
        ports: transport.ports,
        protocol,
    };
    Ok(headers(
        room,
        network,
        length,
        payload,
        FlowKey::V6(key),
        transport.tcp,
    ))
}

/// An IPv6 packet of which all offsets fit 16 bits: its 40 bytes and a full payload would not.
#[inline]
pub(crate) fn whole_v6(
    network: usize,
    bytes: &[u8],
) -> Result<(Ipv6Header<'_>, &[u8]), ParseError> {
    let bytes = &bytes[..bytes.len().min(LONGEST_FRAME.saturating_sub(network))];
    Ipv6Header::split(bytes)
}

/// What an ICMP message asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// An answer: somebody pings.
    Echo,
    /// To be brought to where the packet that it quotes came from.
    Error(icmp::ErrorKind),
}

/// Parses an ICMP message that the engine answers or forwards: an echo request or an error.
/// [`Headers::transport`] is the offset of the ICMP header.
///
/// Of an error, [`Headers::key`] is the flow in the direction of the client's packets, the reverse
/// of what the error quotes, so that it can follow the flow's packets to the backend: without
/// "fragmentation needed" (RFC 1191) and "packet too big" (RFC 8201) path MTU discovery behind a
/// VIP fails. Where a tunnel's packet is quoted it has no ports. Of an echo request it has the
/// message's own addresses, ICMP as its protocol and no ports.
///
/// The order of checks is that of [`parse()`] with the ICMP message in place of the transport
/// header; other messages are [`ParseError::NotTransport`]. A ping may come with TTL 1: it ends
/// here.
pub fn parse_icmp(frame: &[u8]) -> Result<(Headers, Control), ParseError> {
    let (version, packet) = ethernet::parse(frame)?;
    match version {
        Version::V4 => icmp_v4(packet),
        Version::V6 => icmp_v6(packet),
    }
}

/// [`parse_icmp`] for errors only; an echo request is [`ParseError::NotTransport`].
pub fn parse_icmp_error(frame: &[u8]) -> Result<(Headers, icmp::ErrorKind), ParseError> {
    match parse_icmp(frame)? {
        (headers, Control::Error(kind)) => Ok((headers, kind)),
        (_, Control::Echo) => Err(ParseError::NotTransport),
    }
}

fn icmp_v4(packet: Packet<'_>) -> Result<(Headers, Control), ParseError> {
    let (ip, payload) = Ipv4Header::split(packet.bytes)?;
    if ip.is_fragment() {
        return Err(ParseError::Fragment);
    }
    if ip.protocol() != protocol::ICMP {
        return Err(ParseError::NotTransport);
    }
    let own = FlowKey::V4(FlowKey4 {
        source: ip.source(),
        destination: ip.destination(),
        ports: 0,
        protocol: protocol::ICMP,
    });
    let (key, control) = control(icmp::parse_v4(payload)?, own, ip.ttl())?;
    let length = usize::from(ip.total_length());
    let headers = headers(
        packet.room,
        packet.network,
        length,
        payload,
        key,
        TcpFlags::EMPTY,
    );
    Ok((headers, control))
}

fn icmp_v6(packet: Packet<'_>) -> Result<(Headers, Control), ParseError> {
    let (ip, payload) = whole_v6(packet.network, packet.bytes)?;
    let length = ipv6::HEADER_LENGTH + payload.len();
    let (protocol, payload) = ipv6::upper_layer(ip.next_header(), payload, Fragments::Refused)?;
    if protocol != protocol::ICMPV6 {
        return Err(ParseError::NotTransport);
    }
    let own = FlowKey::V6(FlowKey6 {
        source: *ip.source(),
        destination: *ip.destination(),
        ports: 0,
        protocol,
    });
    let message = icmp::parse_v6(ip.source(), ip.destination(), payload)?;
    let (key, control) = control(message, own, ip.hop_limit())?;
    let headers = headers(
        packet.room,
        packet.network,
        length,
        payload,
        key,
        TcpFlags::EMPTY,
    );
    Ok((headers, control))
}

/// The flow that a message is about. `own` are the addresses of the message itself.
fn control(
    message: icmp::Message,
    own: FlowKey,
    ttl: u8,
) -> Result<(FlowKey, Control), ParseError> {
    match message {
        icmp::Message::EchoRequest(_) => Ok((own, Control::Echo)),
        icmp::Message::Error { kind, quoted } => {
            // An error goes to the sender of what it quotes (RFC 1122 section 3.2.2): anything
            // else was made up to hit somebody else's flow.
            if quoted.source_address() != own.destination_address() {
                return Err(ParseError::Malformed);
            }
            check_ttl(ttl)?;
            Ok((quoted.reversed(), Control::Error(kind)))
        }
        icmp::Message::EchoReply(_) | icmp::Message::Other { .. } => Err(ParseError::NotTransport),
    }
}

/// A packet may not be forwarded with a TTL that the decrement brings to 0 (RFC 1812 section
/// 5.3.1, RFC 8200 section 3).
#[inline]
pub(crate) fn check_ttl(ttl: u8) -> Result<(), ParseError> {
    if ttl <= 1 {
        Err(ParseError::TtlExceeded)
    } else {
        Ok(())
    }
}

/// `payload` ends where the packet does, so its length tells where it starts. The numbers fit: an
/// IPv4 header starts and ends within the first few hundred bytes and [`whole_v6`] sees to IPv6.
#[inline]
pub(crate) fn headers(
    room: u16,
    network: usize,
    length: usize,
    payload: &[u8],
    key: FlowKey,
    tcp: TcpFlags,
) -> Headers {
    Headers {
        room,
        network: network as u16,
        transport: (network + length - payload.len()) as u16,
        length: length as u16,
        key,
        tcp,
    }
}

/// What a flow needs of a transport header.
pub(crate) struct Transport {
    pub ports: u32,
    pub tcp: TcpFlags,
}

impl Transport {
    #[inline]
    pub(crate) fn parse(protocol: u8, payload: &[u8]) -> Result<Self, ParseError> {
        match protocol {
            protocol::TCP => {
                let tcp = TcpHeader::parse(payload)?;
                Ok(Transport {
                    ports: tcp.ports(),
                    tcp: tcp.flags(),
                })
            }
            protocol::UDP => {
                let udp = UdpHeader::parse(payload)?;
                Ok(Transport {
                    ports: udp.ports(),
                    tcp: TcpFlags::EMPTY,
                })
            }
            _ => Err(ParseError::NotTransport),
        }
    }
}
