//! Answers in place: a frame becomes the echo reply or the "too big" that goes back to its sender.

use core::ops::Range;

use crate::checksum::{Sum, checksum, segment_v4_is_valid, segment_v6_is_valid, update_u16};
use crate::ethernet::{self, HEADER_LENGTH};
use crate::flow::FlowKey;
use crate::icmp::{self, v4, v6};
use crate::ipv4::Ipv4Header;
use crate::ipv6::{Fragments, Ipv6Header, upper_layer};
use crate::parse::Headers;
use crate::tcp::{self, TcpFlags};
use crate::{ipv4, ipv6, protocol, vlan};

/// TTL and hop limit of answers: IANA's recommended default.
const TTL: u8 = 64;
/// Class selector 6, network control: what routers send their errors with (RFC 1812 section
/// 4.3.2.5).
const ERROR_DS_FIELD: u8 = 0xc0;
/// The longest ICMP error over IPv4 (RFC 1812 section 4.3.2.3).
const LONGEST_ERROR_V4: usize = 576;
/// The longest ICMPv6 error: IPv6's least MTU (RFC 4443 section 2.4 (c)).
const LONGEST_ERROR_V6: usize = LEAST_MTU_V6 as usize;
/// The least MTU of IPv6. Nobody may be told less (RFC 8201 section 4).
pub const LEAST_MTU_V6: u32 = 1_280;
/// The least MTU of IPv4 (RFC 791 section 3.2).
pub const LEAST_MTU_V4: u32 = 68;
/// A frame of this length has room for an error about the packet in it, with eight bytes of what is
/// behind the quoted IP header, whatever the IP version and the tags: shorter ones may not.
pub const LEAST_FRAME: usize =
    LONGEST_LINK + ipv6::HEADER_LENGTH + icmp::HEADER_LENGTH + ipv6::HEADER_LENGTH + LEAST_QUOTE;
/// Bytes behind the IP header that a quote has at least (RFC 792): the ports are in them.
const LEAST_QUOTE: usize = 8;

/// Where the VLAN tag of a steered frame is: behind the room's length. The XDP program takes the
/// tags off and leaves the tag control information there.
const TAG_AT: usize = HEADER_LENGTH + 2;
/// Instead of a tag: there was more than one. (VLAN ID 4095 is reserved: no tag has it.)
const SEVERAL_TAGS: u16 = u16::MAX;
/// Addresses, two tags and an EtherType.
const LONGEST_LINK: usize = HEADER_LENGTH + vlan::MAX_TAGS * vlan::TAG_LENGTH;

/// The link header of answers to a frame: its own with the addresses swapped, and its VLAN tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Back {
    /// All but the EtherType of the packet, which is the last two bytes.
    bytes: [u8; LONGEST_LINK],
    length: usize,
}

impl Back {
    /// The way back to the sender of a frame. `None` where there is none: an Ethernet group
    /// address must not be answered (RFC 1122 section 3.2.2), and of several VLAN tags the XDP
    /// program leaves nothing.
    pub fn of(frame: &[u8], headers: &Headers) -> Option<Self> {
        let mut bytes = [0; LONGEST_LINK];
        let length = if headers.room == 0 {
            let link = frame.get(..usize::from(headers.network))?;
            bytes.get_mut(..link.len())?.copy_from_slice(link);
            link.len()
        } else {
            let link: &[u8; HEADER_LENGTH] = frame.first_chunk()?;
            bytes[..HEADER_LENGTH].copy_from_slice(link);
            match tag_behind_marker(frame)? {
                None => HEADER_LENGTH,
                Some(tag) => {
                    let [a, b] = vlan::CUSTOMER_TAG.to_be_bytes();
                    let [c, d] = tag.to_be_bytes();
                    bytes[HEADER_LENGTH - 2..HEADER_LENGTH + 2].copy_from_slice(&[a, b, c, d]);
                    HEADER_LENGTH + vlan::TAG_LENGTH
                }
            }
        };
        let group = |address: u8| address & 1 != 0;
        if group(bytes[0]) || group(bytes[6]) || length < HEADER_LENGTH {
            return None;
        }
        bytes[..12].rotate_left(6);
        Some(Back { bytes, length })
    }

    fn write(&self, to: &mut [u8], ethertype: u16) -> Option<()> {
        let to = to.get_mut(..self.length)?;
        to.copy_from_slice(&self.bytes[..self.length]);
        *to.last_chunk_mut()? = ethertype.to_be_bytes();
        Some(())
    }
}

/// The tag control information of the VLAN tag that a steered frame came with, if it came with
/// one; `None` where there were several.
pub(crate) fn tag_behind_marker(frame: &[u8]) -> Option<Option<u16>> {
    match u16::from_be_bytes(*frame.get(TAG_AT..)?.first_chunk()?) {
        SEVERAL_TAGS => None,
        0 => Some(None),
        tag => Some(Some(tag)),
    }
}

/// Turns an echo request into its reply; the result is the frame's new length. `None` where it
/// cannot be answered; the frame may be changed then.
///
/// `headers` are those of [`parse_icmp`](crate::parse_icmp). IP options and extension headers are
/// not sent back. `id` is the identification over IPv4, where the reply may be fragmented on its
/// way: whoever pings with long packets wants to see those that arrive.
pub fn echo(frame: &mut [u8], headers: &Headers, id: u16) -> Option<usize> {
    let back = Back::of(frame, headers)?;
    let network = usize::from(headers.network);
    let message = usize::from(headers.transport)..network + usize::from(headers.length);
    let ds_field = match headers.key {
        FlowKey::V4(_) => Ipv4Header::from(frame.get(network..)?.first_chunk()?).ds_field(),
        FlowKey::V6(_) => Ipv6Header::from(frame.get(network..)?.first_chunk()?).traffic_class(),
    };
    let reply = match headers.key {
        FlowKey::V4(_) => v4::ECHO_REPLY,
        FlowKey::V6(_) => v6::ECHO_REPLY,
    };
    let addresses = Addresses::of(&headers.key.reversed());
    if !addresses.destination_is_unicast() {
        return None;
    }
    let envelope = Envelope {
        addresses,
        ds_field,
        protocol: None,
        id,
    };
    let (end, to) = envelope.carry(frame, &back, message, 0)?;
    let message: &mut [u8; icmp::HEADER_LENGTH] = to.first_chunk_mut()?;
    let [kind, code, high, low, ..] = *message;
    // The addresses in ICMPv6's pseudo-header only change places: the sum stays.
    let sum = update_u16(
        u16::from_be_bytes([high, low]),
        u16::from_be_bytes([kind, code]),
        u16::from_be_bytes([reply, code]),
    );
    message[0] = reply;
    [message[2], message[3]] = sum.to_be_bytes();
    Some(end)
}

/// Turns a frame into the error that a packet in it is too big: "fragmentation needed" with the
/// next hop's MTU (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2), from the
/// packet's destination to its source, by the way `back`. The result is the frame's new length.
///
/// `packet` is where the IP packet is, as much as there is of it. As much of it is quoted as an
/// error may carry and the frame holds. `None` where it must not be answered, or has no room for
/// a quote that is of use; the frame may be changed then.
pub fn too_big(
    frame: &mut [u8],
    back: &Back,
    packet: Range<usize>,
    mtu: u32,
    id: u16,
) -> Option<usize> {
    let [high, low] = u16::try_from(mtu.max(LEAST_MTU_V4))
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let [a, b, c, d] = mtu.max(LEAST_MTU_V6).to_be_bytes();
    let code = v4::FRAGMENTATION_NEEDED;
    let heads = Heads {
        v4: [v4::UNREACHABLE, code, 0, 0, 0, 0, high, low],
        v6: [v6::TOO_BIG, 0, 0, 0, a, b, c, d],
    };
    error(frame, back, packet, &heads, id)
}

/// Turns a frame into the error that nobody listens on the port that the packet in it is for, from
/// there to its source (RFC 792, RFC 4443 section 3.1); otherwise as [`too_big`].
pub fn port_unreachable(
    frame: &mut [u8],
    back: &Back,
    packet: Range<usize>,
    id: u16,
) -> Option<usize> {
    let heads = Heads {
        v4: [v4::UNREACHABLE, v4::PORT_UNREACHABLE, 0, 0, 0, 0, 0, 0],
        v6: [v6::UNREACHABLE, v6::PORT_UNREACHABLE, 0, 0, 0, 0, 0, 0],
    };
    error(frame, back, packet, &heads, id)
}

/// The first eight bytes of an error, over either IP version; the checksum is not in them.
struct Heads {
    v4: [u8; icmp::HEADER_LENGTH],
    v6: [u8; icmp::HEADER_LENGTH],
}

fn error(
    frame: &mut [u8],
    back: &Back,
    packet: Range<usize>,
    heads: &Heads,
    id: u16,
) -> Option<usize> {
    let bytes = frame.get(packet.clone())?;
    let (addresses, least, most) = match bytes.first()? >> 4 {
        4 => {
            let header = Ipv4Header::from(bytes.first_chunk()?);
            // RFC 1122 section 3.2.2: never about a fragment other than the first.
            if header.is_later_fragment() {
                return None;
            }
            let addresses = Addresses::V4(header.destination(), header.source());
            (addresses, ipv4::HEADER_LENGTH, LONGEST_ERROR_V4)
        }
        6 => {
            let header = Ipv6Header::from(bytes.first_chunk()?);
            let addresses = Addresses::V6(*header.destination(), *header.source());
            (addresses, ipv6::HEADER_LENGTH, LONGEST_ERROR_V6)
        }
        _ => return None,
    };
    if !addresses.destination_is_unicast() {
        return None;
    }
    let envelope = Envelope {
        addresses,
        ds_field: ERROR_DS_FIELD,
        protocol: None,
        id,
    };
    let in_front = envelope.length() + icmp::HEADER_LENGTH;
    let room = frame.len().checked_sub(back.length + in_front)?;
    let length = packet.len().min(most - in_front).min(room);
    if length < least + LEAST_QUOTE {
        return None;
    }
    let quote = packet.start..packet.start + length;
    let (end, message) = envelope.carry(frame, back, quote, icmp::HEADER_LENGTH)?;
    let header: &mut [u8; icmp::HEADER_LENGTH] = message.first_chunk_mut()?;
    *header = match addresses {
        Addresses::V4(..) => heads.v4,
        Addresses::V6(..) => heads.v6,
    };
    let sum = addresses.message_checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(end)
}

/// Turns the frame of a TCP segment into the RST that answers it where there is no such connection
/// (RFC 9293 section 3.10.7.1), by the way `back`; the result is the frame's new length. `None`
/// for a RST, which never has an answer, for a segment that is not whole or not as it was sent (its
/// checksum says so), and for what came from no single host; the frame may be changed then.
pub fn reset(frame: &mut [u8], headers: &Headers, back: &Back, id: u16) -> Option<usize> {
    let network = usize::from(headers.network);
    let start = usize::from(headers.transport);
    let addresses = Addresses::of(&headers.key.reversed());
    if !addresses.destination_is_unicast() {
        return None;
    }
    let packet = frame.get(network..network + usize::from(headers.length))?;
    let sent = whole_segment(packet, headers)?;
    let tcp: &[u8; tcp::HEADER_LENGTH] = sent.first_chunk()?;
    let payload = sent.len().checked_sub(usize::from(tcp[12] >> 4) * 4)?;
    let mut segment = answering(tcp, payload)?;
    let envelope = Envelope {
        addresses,
        ds_field: 0,
        protocol: Some(protocol::TCP),
        id,
    };
    let (end, to) = envelope.carry(frame, back, start..start + segment.len(), 0)?;
    let length = segment.len() as u16;
    let pseudo = match addresses {
        Addresses::V4(from, to) => Sum::pseudo_v4(from, to, protocol::TCP, length),
        Addresses::V6(from, to) => Sum::pseudo_v6(&from, &to, protocol::TCP, length.into()),
    };
    let sum = pseudo.add_bytes(&segment).checksum();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    to.copy_from_slice(&segment);
    Some(end)
}

/// The TCP segment of a packet; `None` where the packet is a fragment of it, or its checksum wrong.
fn whole_segment<'a>(packet: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    // A later fragment has no transport header: its offset is 0.
    let start = headers.transport.checked_sub(headers.network)?;
    let segment = packet.get(usize::from(start)..)?;
    let is_whole = match &headers.key {
        FlowKey::V4(key) => {
            let (source, destination) = (key.source, key.destination);
            !Ipv4Header::from(packet.first_chunk()?).is_fragment()
                && segment_v4_is_valid(source, destination, protocol::TCP, segment)
        }
        FlowKey::V6(key) => {
            let (ip, payload) = Ipv6Header::split(packet).ok()?;
            upper_layer(ip.next_header(), payload, Fragments::Refused).is_ok()
                && segment_v6_is_valid(&key.source, &key.destination, protocol::TCP, segment)
        }
    };
    is_whole.then_some(segment)
}

/// The header of the RST for a segment with so much payload; its checksum is zero.
fn answering(tcp: &[u8; tcp::HEADER_LENGTH], payload: usize) -> Option<[u8; tcp::HEADER_LENGTH]> {
    let flags = TcpFlags::from_bits(tcp[13]);
    if flags.contains(TcpFlags::RST) {
        return None;
    }
    let word = |at: usize| [tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]];
    let (sequence, acknowledgment, answer) = if flags.contains(TcpFlags::ACK) {
        (word(8), [0; 4], TcpFlags::RST)
    } else {
        // SYN and FIN count as a byte each; no packet is longer than 65,535.
        let more = [TcpFlags::SYN, TcpFlags::FIN].map(|flag| u32::from(flags.contains(flag)));
        let length = payload as u32 + more[0] + more[1];
        let next = u32::from_be_bytes(word(4)).wrapping_add(length);
        ([0; 4], next.to_be_bytes(), TcpFlags::RST | TcpFlags::ACK)
    };
    let mut segment = [0; tcp::HEADER_LENGTH];
    segment[..2].copy_from_slice(&tcp[2..4]);
    segment[2..4].copy_from_slice(&tcp[..2]);
    segment[4..8].copy_from_slice(&sequence);
    segment[8..12].copy_from_slice(&acknowledgment);
    segment[12] = (tcp::HEADER_LENGTH as u8 / 4) << 4;
    segment[13] = answer.bits();
    Some(segment)
}

/// Source and destination of an answer.
#[derive(Debug, Clone, Copy)]
enum Addresses {
    V4(u32, u32),
    V6([u8; 16], [u8; 16]),
}

impl Addresses {
    fn of(key: &FlowKey) -> Self {
        match key {
            FlowKey::V4(key) => Addresses::V4(key.source, key.destination),
            FlowKey::V6(key) => Addresses::V6(key.source, key.destination),
        }
    }

    /// Errors go to one host (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
    fn destination_is_unicast(&self) -> bool {
        match self {
            Addresses::V4(_, to) => {
                let to = core::net::Ipv4Addr::from_bits(*to);
                // Class E with the broadcast address is no host's either.
                !to.is_unspecified() && !to.is_loopback() && to.octets()[0] < 224
            }
            Addresses::V6(_, to) => {
                let to = core::net::Ipv6Addr::from_octets(*to);
                !to.is_unspecified() && !to.is_loopback() && !to.is_multicast()
            }
        }
    }

    /// The checksum of an ICMP message whose own field is zero.
    fn message_checksum(&self, message: &[u8]) -> u16 {
        match self {
            Addresses::V4(..) => checksum(message),
            Addresses::V6(source, destination) => {
                // No frame is longer than 65,535 bytes.
                let length = message.len() as u32;
                Sum::pseudo_v6(source, destination, protocol::ICMPV6, length)
                    .add_bytes(message)
                    .checksum()
            }
        }
    }
}

/// The IP header of an answer.
struct Envelope {
    addresses: Addresses,
    ds_field: u8,
    /// ICMP of its IP version where none is named.
    protocol: Option<u8>,
    id: u16,
}

impl Envelope {
    const fn length(&self) -> usize {
        match self.addresses {
            Addresses::V4(..) => ipv4::HEADER_LENGTH,
            Addresses::V6(..) => ipv6::HEADER_LENGTH,
        }
    }

    /// Moves `payload` to where an answer has it, `gap` bytes behind its IP header, and writes
    /// link and IP header in front. The result is the frame's new length and what is behind the
    /// IP header.
    fn carry<'a>(
        &self,
        frame: &'a mut [u8],
        back: &Back,
        payload: Range<usize>,
        gap: usize,
    ) -> Option<(usize, &'a mut [u8])> {
        let behind = back.length + self.length();
        let end = behind + gap + payload.len();
        if payload.end > frame.len() || end > frame.len() {
            return None;
        }
        frame.copy_within(payload, behind + gap);
        let (front, message) = frame[..end].split_at_mut_checked(behind)?;
        let ethertype = match self.addresses {
            Addresses::V4(..) => ethernet::IPV4,
            Addresses::V6(..) => ethernet::IPV6,
        };
        back.write(front, ethertype)?;
        let header = &mut front[back.length..];
        match self.addresses {
            Addresses::V4(source, destination) => {
                let length = u16::try_from(ipv4::HEADER_LENGTH + message.len()).ok()?;
                let header = header.first_chunk_mut()?;
                self.write_v4(header, source, destination, length);
            }
            Addresses::V6(source, destination) => {
                let length = u16::try_from(message.len()).ok()?;
                let first = 6 << 28 | u32::from(self.ds_field) << 20;
                header[..4].copy_from_slice(&first.to_be_bytes());
                header[4..6].copy_from_slice(&length.to_be_bytes());
                let protocol = self.protocol.unwrap_or(protocol::ICMPV6);
                header[6..8].copy_from_slice(&[protocol, TTL]);
                header[8..24].copy_from_slice(&source);
                header[24..40].copy_from_slice(&destination);
            }
        }
        Some((end, message))
    }

    fn write_v4(
        &self,
        header: &mut [u8; ipv4::HEADER_LENGTH],
        source: u32,
        destination: u32,
        length: u16,
    ) {
        header[..2].copy_from_slice(&[0x45, self.ds_field]);
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        let protocol = self.protocol.unwrap_or(protocol::ICMP);
        header[6..12].copy_from_slice(&[0, 0, TTL, protocol, 0, 0]);
        header[12..16].copy_from_slice(&source.to_be_bytes());
        header[16..20].copy_from_slice(&destination.to_be_bytes());
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
