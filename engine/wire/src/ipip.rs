//! The tunnel to a backend: an outer IP header in front of the packet, in place.
//!
//! | inner | outer | | RFC |
//! |---|---|---|---|
//! | IPv4 | IPv4 | protocol 4 | 2003 |
//! | IPv6 | IPv4 | protocol 41 | 4213 |
//! | IPv4 | IPv6 | next header 4 | 2473 |
//! | IPv6 | IPv6 | next header 41 | 2473 |
//!
//! A tunnel over UDP has a UDP header between the two: see [`gue`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::ethernet::{self, LinkHeader};
use crate::flow::{FlowKey, HashSeed};
use crate::ipv4::{self, Ipv4Header};
use crate::ipv6::{self, Ipv6Header};
use crate::parse::Headers;
use crate::{gue, protocol, udp, vlan};

/// TTL and hop limit of outer headers: IANA's recommended default.
const OUTER_TTL: u8 = 64;

/// Flow labels need no secret, but all balancers should write the same one for a flow, so that a
/// re-hash upstream does not move it to another path behind them.
pub const LABEL_SEED: HashSeed = HashSeed::new(0x006c_6162_656c);

/// The outer header of a tunnel, computed once for each backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Bytes of the outer headers.
    length: u16,
    template: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    V4 {
        /// Source and destination, in network order.
        addresses: [u8; 8],
        /// Their ones' complement sum, which no packet changes.
        sum: u16,
    },
    V6 {
        /// Source and destination, in network order.
        addresses: [u8; 32],
    },
    Gue(Gue),
}

/// Of a kind of its own, so that IP in IP is told from the rest by comparing, not by a jump that
/// has to be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gue {
    V4 {
        addresses: [u8; 8],
        sum: u16,
        /// The UDP destination port.
        port: u16,
    },
    V6 {
        addresses: [u8; 32],
        port: u16,
    },
}

/// The frame has another amount of room in front of the packet than the tunnel and the way out
/// need, or the headers are not those of this frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room in front of the packet does not fit the tunnel header")]
pub struct NoRoom;

/// What the outer header takes over from the inner one.
struct Inner {
    protocol: u8,
    /// DSCP and ECN.
    ds_field: u8,
    dont_fragment: bool,
}

impl Outer {
    /// A tunnel over IPv4.
    pub const fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let (addresses, sum) = addresses_v4(source, destination);
        Outer {
            length: ipv4::HEADER_LENGTH as u16,
            template: Template::V4 { addresses, sum },
        }
    }

    /// A tunnel over IPv6.
    pub const fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let addresses = addresses_v6(source, destination);
        Outer {
            length: IPV6_LENGTH,
            template: Template::V6 { addresses },
        }
    }

    /// A tunnel over UDP over IPv4, to a port of the destination.
    pub const fn gue_v4(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Self {
        let (addresses, sum) = addresses_v4(source, destination);
        Outer {
            length: (ipv4::HEADER_LENGTH + udp::HEADER_LENGTH) as u16,
            template: Template::Gue(Gue::V4 {
                addresses,
                sum,
                port,
            }),
        }
    }

    /// A tunnel over UDP over IPv6, to a port of the destination.
    pub const fn gue_v6(source: Ipv6Addr, destination: Ipv6Addr, port: u16) -> Self {
        let addresses = addresses_v6(source, destination);
        Outer {
            length: IPV6_LENGTH + udp::HEADER_LENGTH as u16,
            template: Template::Gue(Gue::V6 { addresses, port }),
        }
    }

    /// Source and destination.
    pub const fn addresses(&self) -> (IpAddr, IpAddr) {
        match &self.template {
            Template::V4 { addresses, .. } | Template::Gue(Gue::V4 { addresses, .. }) => {
                let [a, b, c, d, e, f, g, h] = *addresses;
                (
                    IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                    IpAddr::V4(Ipv4Addr::new(e, f, g, h)),
                )
            }
            Template::V6 { addresses } | Template::Gue(Gue::V6 { addresses, .. }) => {
                let (halves, _) = addresses.as_chunks::<16>();
                (
                    IpAddr::V6(Ipv6Addr::from_octets(halves[0])),
                    IpAddr::V6(Ipv6Addr::from_octets(halves[1])),
                )
            }
        }
    }

    /// The UDP destination port; `None` for IP in IP.
    pub const fn port(&self) -> Option<u16> {
        match self.template {
            Template::V4 { .. } | Template::V6 { .. } => None,
            Template::Gue(Gue::V4 { port, .. } | Gue::V6 { port, .. }) => Some(port),
        }
    }

    /// Bytes of the outer headers: 20 or 40, and 8 more with UDP.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> u16 {
        self.length
    }

    /// The room that the tunnel needs in front of the packet: the outer header, and 4 bytes where
    /// the way out is tagged.
    #[inline]
    pub const fn room(&self, vlan: bool) -> u16 {
        self.len() + if vlan { vlan::TAG_LENGTH as u16 } else { 0 }
    }

    /// Writes the link header and the outer header in front of the packet, in place, and takes one
    /// from the packet's TTL or hop limit (RFC 2003 section 3.1, RFC 2473 section 3.1). Nothing
    /// behind the inner IP header is read or written.
    ///
    /// `frame` and `headers` are what [`parse`](crate::parse()) was given and gave. The result is
    /// the new length of the frame: Ethernet padding behind the packet is cut off. On an error the
    /// frame is as it was.
    ///
    /// DSCP and ECN are copied (RFC 6040 section 4.1, normal mode). "Don't fragment" is copied from
    /// an inner IPv4 header and set for an inner IPv6 one (RFC 4213 section 3.2.2): IPv6 relies on
    /// no router fragmenting. With it the identification is 0 (RFC 6864 section 4.1), without it
    /// `id`, which must not repeat for the same backend while fragments are under way.
    #[inline]
    pub fn push(
        &self,
        frame: &mut [u8],
        headers: &Headers,
        link: &LinkHeader,
        id: u16,
    ) -> Result<usize, NoRoom> {
        if headers.room != self.room(link.vlan.is_some()) {
            return Err(NoRoom);
        }
        let end = usize::from(headers.network) + usize::from(headers.length);
        let (front, inner) = frame
            .get_mut(..end)
            .and_then(|frame| frame.split_at_mut_checked(usize::from(headers.network)))
            .ok_or(NoRoom)?;
        let (front, outer) = front.split_at_mut_checked(link.len()).ok_or(NoRoom)?;
        let length = headers.length.checked_add(self.len()).ok_or(NoRoom)?;
        if outer.len() != usize::from(self.len()) {
            return Err(NoRoom);
        }

        // Nothing fails from here on, so that a frame is changed as a whole or not at all.
        let inner = Inner::take(inner, &headers.key).ok_or(NoRoom)?;
        match &self.template {
            Template::V4 { addresses, sum } => {
                link.write(front, ethernet::IPV4).ok_or(NoRoom)?;
                let outer = outer.first_chunk_mut().ok_or(NoRoom)?;
                write_ipv4_header(outer, &inner, length, id, addresses, *sum);
            }
            Template::V6 { addresses } => {
                link.write(front, ethernet::IPV6).ok_or(NoRoom)?;
                let outer = outer.first_chunk_mut().ok_or(NoRoom)?;
                let label = flow_label(&headers.key);
                write_ipv6_header(outer, &inner, headers.length, label, addresses);
            }
            Template::Gue(gue) => {
                gue.write(front, outer, &inner.in_udp(), headers, link, id)
                    .ok_or(NoRoom)?;
            }
        }
        Ok(end)
    }
}

impl Gue {
    /// Writes the link header, the IP header and the UDP header. Out of the way of IP in IP.
    #[inline(never)]
    fn write(
        &self,
        front: &mut [u8],
        outer: &mut [u8],
        inner: &Inner,
        headers: &Headers,
        link: &LinkHeader,
        id: u16,
    ) -> Option<()> {
        let payload = headers.length.checked_add(udp::HEADER_LENGTH as u16)?;
        match self {
            Gue::V4 {
                addresses,
                sum,
                port,
            } => {
                let length = payload.checked_add(ipv4::HEADER_LENGTH as u16)?;
                link.write(front, ethernet::IPV4)?;
                let (ip, rest) = outer.split_first_chunk_mut()?;
                gue::write(rest.first_chunk_mut()?, &headers.key, *port, payload);
                write_ipv4_header(ip, inner, length, id, addresses, *sum);
            }
            Gue::V6 { addresses, port } => {
                link.write(front, ethernet::IPV6)?;
                let (ip, rest) = outer.split_first_chunk_mut()?;
                gue::write(rest.first_chunk_mut()?, &headers.key, *port, payload);
                write_ipv6_header(ip, inner, payload, flow_label(&headers.key), addresses);
            }
        }
        Some(())
    }
}

const IPV6_LENGTH: u16 = ipv6::HEADER_LENGTH as u16;

/// Source and destination in network order, and their ones' complement sum.
const fn addresses_v4(source: Ipv4Addr, destination: Ipv4Addr) -> ([u8; 8], u16) {
    let [a, b, c, d] = source.octets();
    let [e, f, g, h] = destination.octets();
    let sum = checksum::fold(source.to_bits() as u64 + destination.to_bits() as u64);
    ([a, b, c, d, e, f, g, h], sum)
}

/// Source and destination in network order.
const fn addresses_v6(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; 32] {
    let mut addresses = [0; 32];
    let (halves, _) = addresses.as_chunks_mut::<16>();
    halves[0] = source.octets();
    halves[1] = destination.octets();
    addresses
}

impl Inner {
    /// The same behind a UDP header.
    #[inline(always)]
    const fn in_udp(self) -> Self {
        Inner {
            protocol: protocol::UDP,
            ..self
        }
    }

    /// Reads the inner header and counts the hop; `None` when it is cut.
    #[inline]
    fn take(packet: &mut [u8], key: &FlowKey) -> Option<Self> {
        match key {
            FlowKey::V4(_) => {
                let header = packet.first_chunk_mut()?;
                ipv4::decrement_ttl(header);
                let header = Ipv4Header::from(&*header);
                Some(Inner {
                    protocol: protocol::IPV4,
                    ds_field: header.ds_field(),
                    dont_fragment: header.dont_fragment(),
                })
            }
            FlowKey::V6(_) => {
                let header = packet.first_chunk_mut()?;
                ipv6::decrement_hop_limit(header);
                Some(Inner {
                    protocol: protocol::IPV6,
                    ds_field: Ipv6Header::from(&*header).traffic_class(),
                    dont_fragment: true,
                })
            }
        }
    }
}

/// Word by word, each stored once: the checksum is known before the first store.
#[inline(always)]
fn write_ipv4_header(
    to: &mut [u8; ipv4::HEADER_LENGTH],
    inner: &Inner,
    length: u16,
    id: u16,
    addresses: &[u8; 8],
    addresses_sum: u16,
) {
    let (id, flags) = if inner.dont_fragment {
        (0, ipv4::DONT_FRAGMENT)
    } else {
        (id, 0)
    };
    let first = 0x45 << 24 | u32::from(inner.ds_field) << 16 | u32::from(length);
    let second = u32::from(id) << 16 | u32::from(flags);
    let third = u32::from(OUTER_TTL) << 24 | u32::from(inner.protocol) << 16;
    let sum = u64::from(first) + u64::from(second) + u64::from(third) + u64::from(addresses_sum);
    let third = third | u32::from(!checksum::fold(sum));

    let (words, _) = to.as_chunks_mut::<4>();
    let (addresses, _) = addresses.as_chunks::<4>();
    words[0] = first.to_be_bytes();
    words[1] = second.to_be_bytes();
    words[2] = third.to_be_bytes();
    words[3] = addresses[0];
    words[4] = addresses[1];
}

/// No tunnel encapsulation limit option is added (RFC 2473 section 4.1.1 makes it optional): it
/// would cost 8 bytes of every packet, and a tunnel that ends at a backend does not nest.
#[inline(always)]
fn write_ipv6_header(
    to: &mut [u8; ipv6::HEADER_LENGTH],
    inner: &Inner,
    length: u16,
    label: u32,
    addresses: &[u8; 32],
) {
    let first = 6 << 28 | u32::from(inner.ds_field) << 20 | label;
    let second = u32::from(length) << 16 | u32::from(inner.protocol) << 8 | u32::from(OUTER_TTL);
    let (words, _) = to.as_chunks_mut::<8>();
    let (addresses, _) = addresses.as_chunks::<8>();
    words[0] = (u64::from(first) << 32 | u64::from(second)).to_be_bytes();
    words[1] = addresses[0];
    words[2] = addresses[1];
    words[3] = addresses[2];
    words[4] = addresses[3];
}

/// 20 bits that differ between flows, so that routers which hash the outer header spread them
/// (RFC 6438 section 3). Never 0, which says that a packet has no label.
#[inline]
pub fn flow_label(key: &FlowKey) -> u32 {
    ((key.hash(&LABEL_SEED) >> 44) as u32).max(1)
}
