//! Fragments (RFC 791 section 3.2, RFC 8200 section 4.5): parts of a datagram, of which only the
//! first has ports.

use crate::ethernet::{self, Packet, Version};
use crate::flow::{FlowKey, FlowKey4, FlowKey6};
use crate::ipv4::Ipv4Header;
use crate::ipv6::{self, Fragments};
use crate::parse::{Headers, ParseError, Transport, check_ttl, headers, whole_v6};
use crate::tcp::TcpFlags;
use crate::{protocol, udp};

/// A part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Of the first fragment, headers like any packet's. Of a later one the key has no ports, over
    /// IPv6 no protocol either, and [`Headers::transport`] is 0.
    pub headers: Headers,
    /// What tells the datagram from all others under way: both addresses, its identification in
    /// place of the ports, and over IPv4 its protocol. (Over IPv6 only the first fragment says
    /// what the protocol is.)
    pub datagram: FlowKey,
}

impl Fragment {
    /// Whether it has the ports.
    pub const fn is_first(&self) -> bool {
        self.headers.transport != 0
    }
}

/// Parses a frame that [`parse()`](crate::parse()) refused as a [`ParseError::Fragment`].
///
/// A first fragment has to hold the whole header chain with the transport header (RFC 7112; RFC
/// 1858 section 3.2.1 for IPv4): one that ends before is `Truncated`. A fragment that would
/// overwrite that header is `Malformed` (RFC 1858 section 3.2.2, RFC 3128). Overlaps further
/// behind are for the server to refuse.
pub fn parse_fragment(frame: &[u8]) -> Result<Fragment, ParseError> {
    let (version, packet) = ethernet::parse(frame)?;
    match version {
        Version::V4 => v4(packet),
        Version::V6 => v6(packet),
    }
}

fn v4(packet: Packet<'_>) -> Result<Fragment, ParseError> {
    let (ip, payload) = Ipv4Header::split(packet.bytes)?;
    if !ip.is_fragment() {
        return Err(ParseError::NotTransport);
    }
    let part = Part::parse(ip.fragment_offset(), ip.protocol(), payload)?;
    if !matches!(ip.protocol(), protocol::TCP | protocol::UDP) {
        return Err(ParseError::NotTransport);
    }
    check_ttl(ip.ttl())?;
    let key = |ports| {
        FlowKey::V4(FlowKey4 {
            source: ip.source(),
            destination: ip.destination(),
            ports,
            protocol: ip.protocol(),
        })
    };
    let length = usize::from(ip.total_length());
    Ok(Fragment {
        headers: part.headers(packet, length, payload, key(part.ports)),
        datagram: key(u32::from(ip.identification())),
    })
}

fn v6(packet: Packet<'_>) -> Result<Fragment, ParseError> {
    let (ip, payload) = whole_v6(packet.network, packet.bytes)?;
    let length = ipv6::HEADER_LENGTH + payload.len();
    let (header, rest) = ipv6::fragment(ip.next_header(), payload)?;
    // Of a later fragment the header names what is in the first: an extension header perhaps.
    let (protocol, payload) = match header.offset {
        0 => ipv6::upper_layer(header.next_header, rest, Fragments::Refused)?,
        _ => (header.next_header, rest),
    };
    let part = Part::parse(header.offset, protocol, payload)?;
    check_ttl(ip.hop_limit())?;
    let key = |ports, protocol| {
        FlowKey::V6(FlowKey6 {
            source: *ip.source(),
            destination: *ip.destination(),
            ports,
            protocol,
        })
    };
    let known = if part.first { protocol } else { 0 };
    Ok(Fragment {
        headers: part.headers(packet, length, payload, key(part.ports, known)),
        datagram: key(header.identification, 0),
    })
}

/// What a fragment holds of its transport header.
struct Part {
    first: bool,
    ports: u32,
    tcp: TcpFlags,
}

impl Part {
    fn parse(offset: u16, protocol: u8, payload: &[u8]) -> Result<Self, ParseError> {
        let later = Part {
            first: false,
            ports: 0,
            tcp: TcpFlags::EMPTY,
        };
        match (offset, protocol) {
            (0, protocol::UDP) => {
                // The length is that of the whole datagram, of which this is a part.
                let header: &[u8; udp::HEADER_LENGTH] =
                    payload.first_chunk().ok_or(ParseError::Truncated)?;
                let [a, b, c, d, ..] = *header;
                Ok(Part {
                    first: true,
                    ports: u32::from_be_bytes([a, b, c, d]),
                    ..later
                })
            }
            (0, _) => Transport::parse(protocol, payload).map(|transport| Part {
                first: true,
                ports: transport.ports,
                tcp: transport.tcp,
            }),
            // 8 bytes on: where the flags are, which a filter has seen in the first fragment.
            (1, protocol::TCP) => Err(ParseError::Malformed),
            _ if payload.is_empty() => Err(ParseError::Malformed),
            _ => Ok(later),
        }
    }

    fn headers(&self, packet: Packet<'_>, length: usize, payload: &[u8], key: FlowKey) -> Headers {
        let found = headers(packet.room, packet.network, length, payload, key, self.tcp);
        if self.first {
            found
        } else {
            Headers {
                transport: 0,
                ..found
            }
        }
    }
}
