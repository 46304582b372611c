//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and errors with the flow they are about.

use crate::checksum::{Sum, segment_v6_is_valid};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use crate::ipv4::Ipv4Header;
use crate::ipv6::{self, Fragments, Ipv6Header};
use crate::parse::ParseError;
use crate::protocol;

/// Bytes of a message's header; the quoted packet of an error follows it.
pub const HEADER_LENGTH: usize = 8;

/// Types and codes of ICMP over IPv4.
pub mod v4 {
    /// Type: echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Type: echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Type: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Type: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of ICMPv6.
pub mod v6 {
    /// Type: destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Code of [`UNREACHABLE`]: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 4;
    /// Type: packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Type: time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Type: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Type: echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Type: echo reply.
    pub const ECHO_REPLY: u8 = 129;
}

/// A message of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody pings.
    EchoRequest(Echo),
    /// The answer to a ping.
    EchoReply(Echo),
    /// An error about a packet of TCP, UDP or a tunnel that was sent.
    Error {
        /// What went wrong.
        kind: ErrorKind,
        /// The flow of the packet that the error quotes, as it was sent; without ports where that
        /// is a tunnel's.
        quoted: FlowKey,
    },
    /// Anything else: informational, neighbor discovery, deprecated.
    Other {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
}

/// What tells echo messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The sender's choice, one for each ping.
    pub identifier: u16,
    /// One more for each request.
    pub sequence: u16,
}

/// The errors, by their meaning in both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable, with the version's own code.
    Unreachable {
        /// Network, host, port, administratively: the version's own numbers.
        code: u8,
    },
    /// The packet is longer than the next link takes and may not be fragmented.
    TooBig {
        /// The next link's MTU in bytes; 0 from an IPv4 router older than RFC 1191.
        mtu: u32,
    },
    /// TTL or hop limit used up (code 0), or fragments missing (code 1).
    TimeExceeded {
        /// 0 or 1.
        code: u8,
    },
    /// A header field is wrong.
    ParameterProblem {
        /// The version's own numbers.
        code: u8,
    },
}

/// Parses an ICMP message, the payload of an IPv4 packet.
///
/// Checked in this order: 8 bytes are there, the checksum, then the quoted packet of an error,
/// which needs its IP header and the first 4 bytes of TCP or UDP, the ports. (RFC 792 has 8 bytes
/// quoted, RFC 1812 section 4.3.2.3 as many as fit 576.)
pub fn parse_v4(message: &[u8]) -> Result<Message, ParseError> {
    let (header, quote) = split(message)?;
    if Sum::new().add_bytes(message).finish() != 0xffff {
        return Err(ParseError::BadChecksum);
    }
    let code = header[1];
    let kind = match header[0] {
        v4::ECHO_REQUEST => return Ok(Message::EchoRequest(echo(header))),
        v4::ECHO_REPLY => return Ok(Message::EchoReply(echo(header))),
        v4::UNREACHABLE if code == v4::FRAGMENTATION_NEEDED => ErrorKind::TooBig {
            mtu: u32::from(u16::from_be_bytes([header[6], header[7]])),
        },
        v4::UNREACHABLE => ErrorKind::Unreachable { code },
        v4::TIME_EXCEEDED => ErrorKind::TimeExceeded { code },
        v4::PARAMETER_PROBLEM => ErrorKind::ParameterProblem { code },
        kind => return Ok(Message::Other { kind, code }),
    };
    Ok(Message::Error {
        kind,
        quoted: quoted_v4(quote)?,
    })
}

/// Parses an ICMPv6 message, the payload of an IPv6 packet behind its extension headers; the
/// addresses are part of its checksum. The order of checks is that of [`parse_v4`].
pub fn parse_v6(
    source: &[u8; 16],
    destination: &[u8; 16],
    message: &[u8],
) -> Result<Message, ParseError> {
    let (header, quote) = split(message)?;
    if !segment_v6_is_valid(source, destination, protocol::ICMPV6, message) {
        return Err(ParseError::BadChecksum);
    }
    let code = header[1];
    let kind = match header[0] {
        v6::ECHO_REQUEST => return Ok(Message::EchoRequest(echo(header))),
        v6::ECHO_REPLY => return Ok(Message::EchoReply(echo(header))),
        v6::UNREACHABLE => ErrorKind::Unreachable { code },
        v6::TOO_BIG => ErrorKind::TooBig {
            mtu: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        },
        v6::TIME_EXCEEDED => ErrorKind::TimeExceeded { code },
        v6::PARAMETER_PROBLEM => ErrorKind::ParameterProblem { code },
        kind => return Ok(Message::Other { kind, code }),
    };
    Ok(Message::Error {
        kind,
        quoted: quoted_v6(quote)?,
    })
}

fn split(message: &[u8]) -> Result<(&[u8; HEADER_LENGTH], &[u8]), ParseError> {
    message.split_first_chunk().ok_or(ParseError::Truncated)
}

fn echo(header: &[u8; HEADER_LENGTH]) -> Echo {
    Echo {
        identifier: u16::from_be_bytes([header[4], header[5]]),
        sequence: u16::from_be_bytes([header[6], header[7]]),
    }
}

/// The flow of a packet that an error quotes, or that a quoted tunnel's packet carries: its IP
/// header and its ports are enough.
pub fn quoted(packet: &[u8]) -> Result<FlowKey, ParseError> {
    match packet.first().ok_or(ParseError::Truncated)? >> 4 {
        4 => quoted_v4(packet),
        6 => quoted_v6(packet),
        _ => Err(ParseError::Malformed),
    }
}

/// A first fragment has its ports and is good enough: it is what a router complains about when
/// the sender's own link was the narrower one.
fn quoted_v4(packet: &[u8]) -> Result<FlowKey, ParseError> {
    let (ip, payload) = Ipv4Header::split_quoted(packet)?;
    if ip.is_later_fragment() {
        return Err(ParseError::Fragment);
    }
    Ok(FlowKey::V4(FlowKey4 {
        source: ip.source(),
        destination: ip.destination(),
        ports: quoted_ports(ip.protocol(), payload)?,
        protocol: ip.protocol(),
    }))
}

fn quoted_v6(packet: &[u8]) -> Result<FlowKey, ParseError> {
    let (ip, payload) = Ipv6Header::split_quoted(packet)?;
    let (protocol, payload) =
        ipv6::upper_layer(ip.next_header(), payload, Fragments::FirstAccepted)?;
    Ok(FlowKey::V6(FlowKey6 {
        source: *ip.source(),
        destination: *ip.destination(),
        ports: quoted_ports(protocol, payload)?,
        protocol,
    }))
}

fn quoted_ports(protocol: u8, payload: &[u8]) -> Result<u32, ParseError> {
    match protocol {
        protocol::TCP | protocol::UDP => payload
            .first_chunk()
            .map(|ports| u32::from_be_bytes(*ports)),
        // A tunnel's packet, about which its near end is told (RFC 2003 section 4).
        protocol::IPV4 | protocol::IPV6 => Some(0),
        _ => return Err(ParseError::NotTransport),
    }
    .ok_or(ParseError::Truncated)
}
