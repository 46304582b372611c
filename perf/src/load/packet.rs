//! Frames of the generator and the responder: written header by header, and read, whatever tunnel
//! they came in.

use super::flows::Tuple;
use super::stamp;
use lockstep_wire::checksum::{Sum, segment_v4_is_valid, segment_v6_is_valid};
use lockstep_wire::ipv4::Ipv4Header;
use lockstep_wire::ipv6::Ipv6Header;
use lockstep_wire::tcp::TcpHeader;
use lockstep_wire::udp::{self, UdpHeader};
use lockstep_wire::{TcpFlags, checksum, ethernet, ipv4, ipv6, protocol, tcp, vlan};
use std::net::{IpAddr, SocketAddr};

/// The checksum sequence behind a frame, which no program sees.
pub const CHECKSUM_SEQUENCE: usize = 4;
/// Frames are padded to this, without the checksum sequence (IEEE 802.3).
const LEAST: usize = 60;
/// What routers are to count down from.
const TTL: u8 = 64;
/// The options of a SYN: its maximum segment size.
const MSS_OPTION: usize = 4;
/// The most that a client takes before it has acknowledged it: no scaling is offered.
const WINDOW: u16 = u16::MAX;
/// Tunnels in tunnels that are looked into.
const DEPTH: usize = 2;

/// The link-layer addresses of a frame: whom it is for, and whom it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The next hop's.
    pub to: [u8; 6],
    /// Our own.
    pub from: [u8; 6],
}

/// What a TCP segment says beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first byte's number.
    pub sequence: u32,
    /// The next byte's number that is expected from the other side.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: TcpFlags,
}

/// What a frame carries, behind all its tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A datagram.
    Udp(&'a [u8]),
    /// A segment.
    Tcp(Segment, &'a [u8]),
}

/// A frame that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// The ends of the innermost packet.
    pub ends: Tuple,
    /// What it carries.
    pub content: Content<'a>,
    /// The same with its header.
    pub segment: &'a [u8],
}

impl Arrived<'_> {
    /// Whether the checksum of TCP or UDP is right. Over IPv4 a datagram may have none (RFC 768).
    pub fn is_sound(&self) -> bool {
        let protocol = match self.content {
            Content::Udp(_) => protocol::UDP,
            Content::Tcp(..) => protocol::TCP,
        };
        match (self.ends.source.ip(), self.ends.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let none = protocol == protocol::UDP && self.segment.get(6..8) == Some(&[0, 0]);
                let (source, destination) = (source.to_bits(), destination.to_bits());
                none || segment_v4_is_valid(source, destination, protocol, self.segment)
            }
            (source, destination) => {
                let (source, destination) = (octets(source), octets(destination));
                segment_v6_is_valid(&source, &destination, protocol, self.segment)
            }
        }
    }
}

/// Bytes of all headers in front of what UDP carries.
pub const fn udp_headers(v4: bool) -> usize {
    ethernet::HEADER_LENGTH + ip_header(v4) + udp::HEADER_LENGTH
}

/// The shortest frame of UDP that has room for a stamp, its checksum sequence included.
pub const fn shortest(v4: bool) -> usize {
    udp_headers(v4) + stamp::LENGTH + CHECKSUM_SEQUENCE
}

const fn ip_header(v4: bool) -> usize {
    if v4 {
        ipv4::HEADER_LENGTH
    } else {
        ipv6::HEADER_LENGTH
    }
}

/// Writes a datagram with a stamp that fills the whole frame.
///
/// Over IPv4 it has no checksum (RFC 768 allows that), so that nobody has to verify it: a NIC has done
/// so before a kernel sees a packet; [`write_checksum`] makes one. Over IPv6 there has to be one (RFC 8200, section 8.1).
///
/// # Panics
///
/// When the frame is shorter than [`shortest`] without the checksum sequence.
#[inline]
pub fn write_stamped(frame: &mut [u8], link: &Link, ends: &Tuple, stamp: &[u8; stamp::LENGTH]) {
    let v4 = ends.destination.is_ipv4();
    let payload = udp_headers(v4);
    frame[payload..payload + stamp::LENGTH].copy_from_slice(stamp);
    frame[payload + stamp::LENGTH..].fill(0);
    let length = frame.len() - payload + udp::HEADER_LENGTH;
    write_udp_headers(frame, link, ends, length);
    if !v4 {
        write_checksum(frame, ends);
    }
}

/// Writes the checksum of a datagram that [`write_stamped`] made.
#[inline]
pub fn write_checksum(frame: &mut [u8], ends: &Tuple) {
    let segment = &mut frame[udp_headers(ends.destination.is_ipv4()) - udp::HEADER_LENGTH..];
    segment[6..8].fill(0);
    // All behind the stamp is zero, and adds nothing.
    let summed = &segment[..udp::HEADER_LENGTH + stamp::LENGTH];
    let sum = pseudo(ends, protocol::UDP, segment.len()).add_bytes(summed);
    segment[6..8].copy_from_slice(&udp::on_the_wire(sum.checksum()).to_be_bytes());
}

/// Writes a datagram, and returns the frame's length. One that does not fit is cut.
pub fn write_udp(frame: &mut [u8], link: &Link, ends: &Tuple, payload: &[u8]) -> usize {
    let at = udp_headers(ends.destination.is_ipv4());
    let payload = &payload[..payload.len().min(frame.len().saturating_sub(at))];
    frame[at..at + payload.len()].copy_from_slice(payload);
    let length = payload.len() + udp::HEADER_LENGTH;
    write_udp_headers(frame, link, ends, length);
    let segment = &mut frame[at - udp::HEADER_LENGTH..at + payload.len()];
    let sum = pseudo(ends, protocol::UDP, length).add_bytes(segment);
    segment[6..8].copy_from_slice(&udp::on_the_wire(sum.checksum()).to_be_bytes());
    padded(frame, at + payload.len())
}

#[inline]
fn write_udp_headers(frame: &mut [u8], link: &Link, ends: &Tuple, length: usize) {
    let at = write_ip(frame, link, ends, protocol::UDP, length);
    let header = &mut frame[at..at + udp::HEADER_LENGTH];
    header[..2].copy_from_slice(&ends.source.port().to_be_bytes());
    header[2..4].copy_from_slice(&ends.destination.port().to_be_bytes());
    header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    header[6..].fill(0);
}

/// Writes a segment, and returns the frame's length. A SYN announces `mss`. A payload that does not
/// fit is cut.
pub fn write_tcp(
    frame: &mut [u8],
    link: &Link,
    ends: &Tuple,
    segment: &Segment,
    mss: u16,
    payload: &[u8],
) -> usize {
    let syn = segment.flags.contains(TcpFlags::SYN);
    let header = tcp::HEADER_LENGTH + if syn { MSS_OPTION } else { 0 };
    let at = ethernet::HEADER_LENGTH + ip_header(ends.destination.is_ipv4());
    let room = frame.len().saturating_sub(at + header);
    let payload = &payload[..payload.len().min(room)];
    let length = header + payload.len();
    write_ip(frame, link, ends, protocol::TCP, length);
    let bytes = &mut frame[at..at + length];
    bytes[..2].copy_from_slice(&ends.source.port().to_be_bytes());
    bytes[2..4].copy_from_slice(&ends.destination.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
    bytes[8..12].copy_from_slice(&segment.acknowledgment.to_be_bytes());
    // In words of four bytes (RFC 9293, section 3.1).
    bytes[12] = (header as u8 / 4) << 4;
    bytes[13] = segment.flags.bits();
    bytes[14..16].copy_from_slice(&WINDOW.to_be_bytes());
    bytes[16..20].fill(0);
    if syn {
        let [high, low] = mss.to_be_bytes();
        bytes[20..24].copy_from_slice(&[2, 4, high, low]);
    }
    bytes[header..].copy_from_slice(payload);
    let sum = pseudo(ends, protocol::TCP, length).add_bytes(bytes);
    bytes[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
    padded(frame, at + length)
}

/// The length of a frame with so many bytes, with zeros to the shortest that there is.
fn padded(frame: &mut [u8], length: usize) -> usize {
    if length < LEAST && frame.len() >= LEAST {
        frame[length..LEAST].fill(0);
    }
    length.max(LEAST).min(frame.len())
}

/// Writes the Ethernet and the IP header for `length` bytes behind them; returns where those begin.
#[inline]
fn write_ip(frame: &mut [u8], link: &Link, ends: &Tuple, protocol: u8, length: usize) -> usize {
    frame[..6].copy_from_slice(&link.to);
    frame[6..12].copy_from_slice(&link.from);
    let ip = &mut frame[ethernet::HEADER_LENGTH..];
    let (ethertype, header) = match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (ipv4::HEADER_LENGTH + length) as u16;
            // Don't fragment: what is too long is to be lost, and seen.
            ip[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, protocol, 0, 0]);
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[12..16].copy_from_slice(&source.octets());
            ip[16..20].copy_from_slice(&destination.octets());
            let sum = checksum::checksum(&ip[..ipv4::HEADER_LENGTH]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            (ethernet::IPV4, ipv4::HEADER_LENGTH)
        }
        (source, destination) => {
            ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&[protocol, TTL]);
            ip[8..24].copy_from_slice(&octets(source));
            ip[24..40].copy_from_slice(&octets(destination));
            (ethernet::IPV6, ipv6::HEADER_LENGTH)
        }
    };
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    ethernet::HEADER_LENGTH + header
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[inline]
fn pseudo(ends: &Tuple, protocol: u8, length: usize) -> Sum {
    match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Sum::pseudo_v4(
            source.to_bits(),
            destination.to_bits(),
            protocol,
            length as u16,
        ),
        (source, destination) => Sum::pseudo_v6(
            &octets(source),
            &octets(destination),
            protocol,
            length as u32,
        ),
    }
}

/// Reads a frame: takes off VLAN tags, IP in IP, and UDP in front of a packet where it is for
/// `gue_port`. None of what is not UDP or TCP, or is cut off.
///
/// Checksums of UDP and TCP are not looked at: a NIC, or the kernel of a host whose packets never left
/// it, may not have written them. [`Arrived::is_sound`] does.
#[inline]
pub fn read(frame: &[u8], gue_port: u16) -> Option<Arrived<'_>> {
    let mut packet = network(frame)?;
    for _ in 0..=DEPTH {
        let (source, destination, next, payload) = ip(packet)?;
        match next {
            protocol::IPV4 | protocol::IPV6 => packet = payload,
            protocol::UDP => {
                let header = UdpHeader::parse(payload).ok()?;
                let body = payload.get(udp::HEADER_LENGTH..usize::from(header.length()))?;
                let [source, destination] = ends(source, destination, header.ports());
                if destination.port() == gue_port && matches!(body.first()? >> 4, 4 | 6) {
                    packet = body;
                    continue;
                }
                return Some(Arrived {
                    ends: Tuple {
                        source,
                        destination,
                    },
                    content: Content::Udp(body),
                    segment: payload.get(..usize::from(header.length()))?,
                });
            }
            protocol::TCP => {
                let header = TcpHeader::parse(payload).ok()?;
                let segment = Segment {
                    sequence: header.sequence(),
                    acknowledgment: header.acknowledgment(),
                    flags: header.flags(),
                };
                let body = payload.get(header.header_length()..)?;
                let [source, destination] = ends(source, destination, header.ports());
                return Some(Arrived {
                    ends: Tuple {
                        source,
                        destination,
                    },
                    content: Content::Tcp(segment, body),
                    segment: payload,
                });
            }
            _ => return None,
        }
    }
    None
}

/// What follows the Ethernet header and its tags.
#[inline]
fn network(frame: &[u8]) -> Option<&[u8]> {
    let mut at = ethernet::HEADER_LENGTH;
    for _ in 0..=vlan::MAX_TAGS {
        let ethertype = u16::from_be_bytes(*frame.get(at - 2..)?.first_chunk()?);
        match ethertype {
            ethernet::IPV4 | ethernet::IPV6 => return frame.get(at..),
            vlan::CUSTOMER_TAG | vlan::SERVICE_TAG => at += vlan::TAG_LENGTH,
            _ => return None,
        }
    }
    None
}

type Packet<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

/// The addresses, the protocol, and what follows the header to the packet's end.
#[inline]
fn ip(packet: &[u8]) -> Option<Packet<'_>> {
    if packet.first()? >> 4 == 4 {
        let (header, payload) = Ipv4Header::split(packet).ok()?;
        if header.is_fragment() {
            return None;
        }
        let (source, destination) = (header.source().to_be_bytes(), header.destination());
        let destination = destination.to_be_bytes();
        return Some((
            source.into(),
            destination.into(),
            header.protocol(),
            payload,
        ));
    }
    let (header, payload) = Ipv6Header::split(packet).ok()?;
    let (source, destination) = (*header.source(), *header.destination());
    Some((
        source.into(),
        destination.into(),
        header.next_header(),
        payload,
    ))
}

/// `ports` as headers give them: source in the upper half.
#[inline]
fn ends(source: IpAddr, destination: IpAddr, ports: u32) -> [SocketAddr; 2] {
    [
        SocketAddr::new(source, (ports >> 16) as u16),
        SocketAddr::new(destination, ports as u16),
    ]
}

#[cfg(test)]
mod tests;
