//! The frames that are measured with: 64 bytes with the frame check sequence, one flow each.

use lockstep_core::Verdict;
use lockstep_plan::DropReason;
use lockstep_wire::{STEER_ETHERTYPE, checksum};
use std::net::Ipv6Addr;

/// How packets reach the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Inside of another IP packet.
    Tunnel,
    /// Inside of another UDP packet.
    Gue,
    /// With the backend's address.
    Nat,
    /// With the backend's address, from one of the engine's.
    FullNat,
}

/// Which packets are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The client's, of known flows.
    Known,
    /// The backends' answers to those.
    Answers,
    /// Every packet is the SYN of another flow, and the table is full.
    New,
}

/// What a path measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// How they reach the backends.
    pub mode: How,
    /// Over IPv6.
    pub v6: bool,
    /// Of which flows, and which way.
    pub which: Which,
}

/// A frame in a buffer with room behind it.
pub struct Cursor {
    bytes: [u8; 128],
    length: usize,
}

impl Cursor {
    /// No frame yet.
    pub const EMPTY: Cursor = Cursor {
        bytes: [0; 128],
        length: 0,
    };
}

impl AsRef<[u8]> for Cursor {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Cursor {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

/// An Ethernet header.
const ETHERNET: usize = 14;
/// An IPv4 header, and the tunnel's.
const IPV4: usize = 20;
const IPV6: usize = 40;
/// A UDP header.
const UDP: usize = 8;
/// The packet of a 64-byte frame.
const PACKET: usize = 46;

/// Both addresses and ports of a flow as its backend sees it.
type Ends = [u8; 36];

/// Makes the frames of flows.
pub struct Frames {
    traffic: Traffic,
    template: Cursor,
    /// Where the IP header starts.
    ip: usize,
    /// What each flow was rewritten to, for its answers.
    inside: Vec<Ends>,
}

impl Frames {
    /// Those of so many flows.
    pub fn new(traffic: Traffic, flows: u32) -> Self {
        let inside = match traffic.mode {
            How::Tunnel | How::Gue => 0,
            How::Nat | How::FullNat => flows as usize,
        };
        let (template, ip) = template(traffic);
        Frames {
            traffic,
            template,
            ip,
            inside: vec![[0; 36]; inside],
        }
    }

    /// Frames of the same flows, of other traffic.
    pub fn turn(&mut self, traffic: Traffic) {
        (self.template, self.ip) = template(traffic);
        self.traffic = traffic;
    }

    /// What they are of.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Makes a frame of a flow.
    pub fn prepare(&self, frame: &mut Cursor, flow: u32) {
        frame.bytes.copy_from_slice(&self.template.bytes);
        frame.length = self.template.length;
        let packet = &mut frame.bytes[self.ip..];
        if self.traffic.which == Which::Answers {
            self.answer(packet, flow);
        } else {
            let port = ((flow % 60_000) as u16 + 1024).to_be_bytes();
            if self.traffic.v6 {
                packet[20..24].copy_from_slice(&flow.to_be_bytes());
                packet[40..42].copy_from_slice(&port);
            } else {
                packet[12..16].copy_from_slice(&(0x0b00_0000 + flow).to_be_bytes());
                packet[20..22].copy_from_slice(&port);
            }
        }
        if !self.traffic.v6 {
            packet[10..12].fill(0);
            let sum = checksum::checksum(&packet[..IPV4]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// The ends of the flow inside, exchanged.
    fn answer(&self, packet: &mut [u8], flow: u32) {
        let ends = &self.inside[flow as usize];
        let (at, size) = addresses(self.traffic.v6);
        packet[at..at + size].copy_from_slice(&ends[size..2 * size]);
        packet[at + size..at + 2 * size].copy_from_slice(&ends[..size]);
        let ports = at + 2 * size;
        packet[ports..ports + 2].copy_from_slice(&ends[2 * size + 2..2 * size + 4]);
        packet[ports + 2..ports + 4].copy_from_slice(&ends[2 * size..2 * size + 2]);
    }

    /// Takes down what a packet was rewritten to, and sees to it that it was forwarded.
    pub fn sent(&mut self, frame: &Cursor, flow: u32, verdict: Verdict) {
        let is_new = self.traffic.which == Which::New;
        let forwarded = matches!(verdict, Verdict::Forward { .. });
        // In a table full of flows that stay, one in many thousand new ones finds no place.
        let full = is_new && verdict == Verdict::Drop(DropReason::FlowsFull);
        assert!(forwarded || full, "a packet was dropped: {verdict:?}");
        let is_rewritten = matches!(self.traffic.mode, How::Nat | How::FullNat);
        if self.traffic.which == Which::Known && is_rewritten {
            let (at, size) = addresses(self.traffic.v6);
            let (at, length) = (ETHERNET + at, 2 * size + 4);
            let ends = &frame.bytes[at..at + length];
            self.inside[flow as usize][..length].copy_from_slice(ends);
        }
    }
}

/// Where an IP header has its addresses, and how long one is.
fn addresses(v6: bool) -> (usize, usize) {
    if v6 { (8, 16) } else { (12, 4) }
}

/// A frame of a 46-byte packet, of 48 bytes over IPv6; to a tunnel as the XDP program hands it
/// over. Also where the IP header is.
fn template(traffic: Traffic) -> (Cursor, usize) {
    let mut bytes = [0; 128];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3]);
    let ip = match traffic.mode {
        How::Tunnel => steered(&mut bytes, IPV4),
        How::Gue => steered(&mut bytes, IPV4 + UDP),
        How::Nat | How::FullNat => {
            let ethertype: u16 = if traffic.v6 { 0x86dd } else { 0x0800 };
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            ETHERNET
        }
    };
    let packet = &mut bytes[ip..];
    let length = if traffic.v6 {
        v6(packet);
        IPV6 + 8
    } else {
        v4(packet, traffic.which == Which::New);
        PACKET
    };
    let length = ip + length;
    (Cursor { bytes, length }, ip)
}

/// As the XDP program hands over what goes into a tunnel: with room for its header. Where the IP header is.
fn steered(frame: &mut [u8], room: usize) -> usize {
    frame[12..14].copy_from_slice(&STEER_ETHERTYPE.to_be_bytes());
    frame[14..16].copy_from_slice(&(room as u16).to_be_bytes());
    ETHERNET + room
}

fn v6(packet: &mut [u8]) {
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&8_u16.to_be_bytes());
    packet[6] = 17;
    packet[7] = 64;
    let source = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
    let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&vip.octets());
    packet[42..44].copy_from_slice(&53_u16.to_be_bytes());
    packet[44..46].copy_from_slice(&8_u16.to_be_bytes());
    // Some checksum, so that it is kept in step as in real traffic.
    packet[46..48].copy_from_slice(&[0x12, 0x34]);
}

fn v4(packet: &mut [u8], syn: bool) {
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = if syn { 6 } else { 17 };
    packet[16..20].copy_from_slice(&[203, 0, 113, 10]);
    if syn {
        packet[22..24].copy_from_slice(&80_u16.to_be_bytes());
        packet[32] = 0x50;
        packet[33] = 0x02;
    } else {
        packet[22..24].copy_from_slice(&53_u16.to_be_bytes());
        packet[24..26].copy_from_slice(&((PACKET - IPV4) as u16).to_be_bytes());
        packet[26..28].copy_from_slice(&[0x12, 0x34]);
    }
}
