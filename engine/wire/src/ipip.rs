//! The tunnel to a backend: an outer IP header in front of the packet, in place.
//!
//! | inner | outer | | RFC |
//! |---|---|---|---|
//! | IPv4 | IPv4 | protocol 4 | 2003 |
//! | IPv6 | IPv4 | protocol 41 | 4213 |
//! | IPv4 | IPv6 | next header 4 | 2473 |
//! | IPv6 | IPv6 | next header 41 | 2473 |

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::ethernet::{self, LinkHeader};
use crate::flow::{FlowKey, HashSeed};
use crate::ipv4::{self, Ipv4Header};
use crate::ipv6::{self, Ipv6Header};
use crate::parse::Headers;
use crate::{protocol, vlan};

/// TTL and hop limit of outer headers: IANA's recommended default.
const OUTER_TTL: u8 = 64;

/// Flow labels need no secret, but all balancers should write the same one for a flow, so that a
/// re-hash upstream does not move it to another path behind them.
const LABEL_SEED: HashSeed = HashSeed::new(0x006c_6162_656c);

/// The outer header of a tunnel, computed once for each backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer(Template);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    V4 {
        /// Source and destination, in network order.
        addresses: [u8; 8],
        /// Over the fields that no packet changes: version, header length, TTL, addresses.
        sum: Sum,
    },
    V6 {
        /// Source and destination, in network order.
        addresses: [u8; 32],
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
        let [a, b, c, d] = source.octets();
        let [e, f, g, h] = destination.octets();
        Outer(Template::V4 {
            addresses: [a, b, c, d, e, f, g, h],
            sum: Sum::new()
                .add_u16(0x4500)
                .add_u16(u16::from_be_bytes([OUTER_TTL, 0]))
                .add_u32(source.to_bits())
                .add_u32(destination.to_bits()),
        })
    }

    /// A tunnel over IPv6.
    pub const fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let mut addresses = [0; 32];
        let (halves, _) = addresses.as_chunks_mut::<16>();
        halves[0] = source.octets();
        halves[1] = destination.octets();
        Outer(Template::V6 { addresses })
    }

    /// Bytes of the outer header: 20 or 40.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> u16 {
        match self.0 {
            Template::V4 { .. } => ipv4::HEADER_LENGTH as u16,
            Template::V6 { .. } => ipv6::HEADER_LENGTH as u16,
        }
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
        let (front, inner) = frame
            .split_at_mut_checked(usize::from(headers.network))
            .ok_or(NoRoom)?;
        let inner = inner.get_mut(..usize::from(headers.length)).ok_or(NoRoom)?;
        let (front, outer) = front.split_at_mut_checked(link.len()).ok_or(NoRoom)?;
        let end = usize::from(headers.network) + inner.len();

        match &self.0 {
            Template::V4 { addresses, sum } => {
                let outer: &mut [u8; ipv4::HEADER_LENGTH] = outer.try_into().map_err(|_| NoRoom)?;
                let length = headers.length.checked_add(self.len()).ok_or(NoRoom)?;
                let inner = Inner::take(inner, &headers.key).ok_or(NoRoom)?;
                link.write(front, ethernet::IPV4).ok_or(NoRoom)?;
                *outer = ipv4_header(&inner, length, id, addresses, *sum);
            }
            Template::V6 { addresses } => {
                let outer: &mut [u8; ipv6::HEADER_LENGTH] = outer.try_into().map_err(|_| NoRoom)?;
                let inner = Inner::take(inner, &headers.key).ok_or(NoRoom)?;
                link.write(front, ethernet::IPV6).ok_or(NoRoom)?;
                write_ipv6_header(outer, &inner, headers, addresses);
            }
        }
        Ok(end)
    }
}

impl Inner {
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

/// The header is put together in registers and stored once: the checksum is known before.
#[inline]
fn ipv4_header(
    inner: &Inner,
    length: u16,
    id: u16,
    addresses: &[u8; 8],
    sum: Sum,
) -> [u8; ipv4::HEADER_LENGTH] {
    let (id, flags) = if inner.dont_fragment {
        (0, ipv4::DONT_FRAGMENT)
    } else {
        (id, 0)
    };
    let checksum = sum
        .add_u16(u16::from(inner.ds_field))
        .add_u16(length)
        .add_u16(id)
        .add_u16(flags)
        .add_u16(u16::from(inner.protocol))
        .checksum();
    let first = 0x45 << 24 | u32::from(inner.ds_field) << 16 | u32::from(length);
    let second = u32::from(id) << 16 | u32::from(flags);
    let third = u32::from(OUTER_TTL) << 24 | u32::from(inner.protocol) << 16 | u32::from(checksum);

    let mut header = [0; ipv4::HEADER_LENGTH];
    let (words, _) = header.as_chunks_mut::<4>();
    let (addresses, _) = addresses.as_chunks::<4>();
    words[0] = first.to_be_bytes();
    words[1] = second.to_be_bytes();
    words[2] = third.to_be_bytes();
    words[3] = addresses[0];
    words[4] = addresses[1];
    header
}

/// No tunnel encapsulation limit option is added (RFC 2473 section 4.1.1 makes it optional): it
/// would cost 8 bytes of every packet, and a tunnel that ends at a backend does not nest.
#[inline]
fn write_ipv6_header(
    to: &mut [u8; ipv6::HEADER_LENGTH],
    inner: &Inner,
    headers: &Headers,
    addresses: &[u8; 32],
) {
    let first = 6 << 28 | u32::from(inner.ds_field) << 20 | flow_label(&headers.key);
    let second =
        u32::from(headers.length) << 16 | u32::from(inner.protocol) << 8 | u32::from(OUTER_TTL);
    let [a, b, c, d, e, f, g, h, rest @ ..] = to;
    [*a, *b, *c, *d] = first.to_be_bytes();
    [*e, *f, *g, *h] = second.to_be_bytes();
    *rest = *addresses;
}

/// 20 bits that differ between flows, so that routers which hash the outer header spread them
/// (RFC 6438 section 3). Never 0, which says that a packet has no label.
#[inline]
fn flow_label(key: &FlowKey) -> u32 {
    ((key.hash(&LABEL_SEED) >> 44) as u32).max(1)
}
