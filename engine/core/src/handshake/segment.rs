//! TCP segments outside any connection: read before it is known whose they are, and written where
//! there is no connection to write them (SYN cookies, TIME-WAIT, RST).

use core::net::{IpAddr, SocketAddr};
use lockstep_wire::checksum::{Sum, segment_v4_is_valid, segment_v6_is_valid};
use lockstep_wire::tcp::{HEADER_LENGTH, TcpHeader};
use lockstep_wire::{FlowKey, Headers, TcpFlags, ipv4, ipv6, protocol};

/// Bytes of the longest segment [`write`] makes: IPv6, TCP and 20 bytes of options.
pub const LONGEST_BARE: usize = ipv6::HEADER_LENGTH + HEADER_LENGTH + 20;

/// Hop limit of what is written here, as smoltcp's.
const HOP_LIMIT: u8 = 64;

/// A segment that came in, with a checksum that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The sender's flow.
    pub key: FlowKey,
    /// Sequence number of the first byte, or of the SYN.
    pub sequence: u32,
    /// The next byte the sender expects; it counts with ACK only.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window field as sent.
    pub window: u16,
    /// Offset of the TCP header from that of the IP header.
    pub transport: usize,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// Reads a segment; `packet` is the IP packet without padding behind it. `None` when the TCP
    /// checksum is wrong: bytes would be taken that nobody sent.
    pub fn read(headers: &Headers, packet: &[u8]) -> Option<Segment> {
        let transport = usize::from(headers.transport - headers.network);
        let bytes = packet.get(transport..)?;
        let valid = match &headers.key {
            FlowKey::V4(key) => {
                segment_v4_is_valid(key.source, key.destination, protocol::TCP, bytes)
            }
            FlowKey::V6(key) => {
                segment_v6_is_valid(&key.source, &key.destination, protocol::TCP, bytes)
            }
        };
        let tcp = TcpHeader::parse(bytes).ok()?;
        let window = bytes.get(14..16)?;
        valid.then_some(Segment {
            key: headers.key,
            sequence: tcp.sequence(),
            acknowledgment: tcp.acknowledgment(),
            flags: tcp.flags(),
            window: u16::from_be_bytes([window[0], window[1]]),
            transport,
            payload: (bytes.len() - tcp.header_length()) as u32,
        })
    }

    /// Sequence numbers it takes up (RFC 9293 section 3.4): SYN and FIN count one each.
    pub fn length(&self) -> u32 {
        let control = u32::from(self.flags.contains(TcpFlags::SYN))
            + u32::from(self.flags.contains(TcpFlags::FIN));
        self.payload + control
    }

    /// Whether it opens a connection.
    pub fn is_opening(&self) -> bool {
        self.flags.contains(TcpFlags::SYN)
            && !self
                .flags
                .intersects(TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN)
    }

    /// The sender's address and port.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.key.source_address(), self.key.source_port())
    }

    /// The address and port it was sent to.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.key.destination_address(), self.key.destination_port())
    }
}

/// The options of a SYN that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SynOptions {
    /// Maximum segment size (RFC 9293 section 3.7.1).
    pub mss: Option<u16>,
    /// Window scale (RFC 7323), at most 14.
    pub scale: Option<u8>,
    /// Selective acknowledgments permitted (RFC 2018).
    pub sack: bool,
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
/// RFC 7323 section 2.3: a larger shift is taken as 14.
const MOST_SCALE: u8 = 14;

impl SynOptions {
    /// The options of a segment whose TCP header starts `bytes`. Malformed ones end the list, as
    /// everywhere; each step is at least a byte forward.
    pub fn read(bytes: &[u8]) -> SynOptions {
        let mut options = SynOptions::default();
        let Ok(tcp) = TcpHeader::parse(bytes) else {
            return options;
        };
        let mut rest = &bytes[HEADER_LENGTH..tcp.header_length()];
        while let [kind, tail @ ..] = rest {
            match (*kind, tail) {
                (OPTION_END, _) => break,
                (OPTION_NOP, tail) => rest = tail,
                (kind, [length, ..]) if *length >= 2 && rest.len() >= usize::from(*length) => {
                    let (option, behind) = rest.split_at(usize::from(*length));
                    options.take(kind, &option[2..]);
                    rest = behind;
                }
                _ => break,
            }
        }
        options
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (OPTION_MSS, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
            (OPTION_SCALE, [shift]) => self.scale = Some((*shift).min(MOST_SCALE)),
            (OPTION_SACK_PERMITTED, []) => self.sack = true,
            _ => {}
        }
    }

    /// Writes the options and pads them to whole words; returns how many bytes they take.
    fn write(&self, to: &mut [u8; 20]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            to[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[OPTION_MSS, 4, high, low]);
        }
        if let Some(shift) = self.scale {
            put(&[OPTION_NOP, OPTION_SCALE, 3, shift]);
        }
        if self.sack {
            put(&[OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED, 2]);
        }
        at
    }
}

/// A segment without payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bare {
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window field.
    pub window: u16,
    /// Options, for a SYN.
    pub options: SynOptions,
}

impl Bare {
    /// The RST for a segment of no connection; `None` for an RST, which never has an answer
    /// (RFC 9293 section 3.10.7.1).
    pub fn reset(segment: &Segment) -> Option<Bare> {
        if segment.flags.contains(TcpFlags::RST) {
            return None;
        }
        let (sequence, acknowledgment, flags) = if segment.flags.contains(TcpFlags::ACK) {
            (segment.acknowledgment, 0, TcpFlags::RST)
        } else {
            let next = segment.sequence.wrapping_add(segment.length());
            (0, next, TcpFlags::RST | TcpFlags::ACK)
        };
        Some(Bare {
            source: segment.destination(),
            destination: segment.source(),
            sequence,
            acknowledgment,
            flags,
            window: 0,
            options: SynOptions::default(),
        })
    }

    /// Bytes of the IP packet.
    pub fn length(&self) -> usize {
        let network = match self.source {
            SocketAddr::V4(_) => ipv4::HEADER_LENGTH,
            SocketAddr::V6(_) => ipv6::HEADER_LENGTH,
        };
        network + HEADER_LENGTH + self.options.write(&mut [0; 20])
    }

    /// Writes the IP packet into `packet`, which has [`Bare::length`] bytes.
    pub fn write(&self, packet: &mut [u8]) {
        self.write_before(packet, 0);
    }

    /// The same with one byte of payload behind, a zero: `packet` has a byte more.
    pub fn write_with_byte(&self, packet: &mut [u8]) {
        self.write_before(packet, 1);
    }

    fn write_before(&self, packet: &mut [u8], payload: usize) {
        let mut options = [0; 20];
        let options = {
            let length = self.options.write(&mut options);
            &options[..length]
        };
        let length = HEADER_LENGTH + options.len();
        let network = packet.len() - length - payload;
        let (ip, tcp) = packet.split_at_mut(network);
        let behind = (length + payload) as u16;
        write_ip(ip, self.source.ip(), self.destination.ip(), behind);
        tcp.fill(0);
        tcp[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledgment.to_be_bytes());
        tcp[12] = (length as u8 / 4) << 4;
        tcp[13] = self.flags.bits();
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[HEADER_LENGTH..length].copy_from_slice(options);
        fill_checksums(packet);
    }
}

fn write_ip(ip: &mut [u8], source: IpAddr, destination: IpAddr, payload: u16) {
    ip.fill(0);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = payload + ip.len() as u16;
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            // Don't fragment.
            ip[6] = 0x40;
            ip[8] = HOP_LIMIT;
            ip[9] = protocol::TCP;
            ip[12..16].copy_from_slice(&source.octets());
            ip[16..20].copy_from_slice(&destination.octets());
        }
        (source, destination) => {
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&payload.to_be_bytes());
            ip[6] = protocol::TCP;
            ip[7] = HOP_LIMIT;
            ip[8..24].copy_from_slice(&octets(source));
            ip[24..40].copy_from_slice(&octets(destination));
        }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The offset of the TCP header in a packet that we wrote: no options, no extension headers.
#[inline]
pub(crate) fn transport_of(packet: &[u8]) -> usize {
    match packet.first() {
        Some(first) if first >> 4 == 4 => ipv4::HEADER_LENGTH,
        Some(_) | None => ipv6::HEADER_LENGTH,
    }
}

/// Writes the checksums of a packet that we wrote; their fields are zero.
#[inline]
pub(crate) fn fill_checksums(packet: &mut [u8]) {
    let Some((ip, tcp)) = packet.split_at_mut_checked(transport_of(packet)) else {
        return;
    };
    let sum = if let Ok(ip) = <&mut [u8; ipv4::HEADER_LENGTH]>::try_from(&mut *ip) {
        let header = Sum::new().add_bytes(ip).checksum();
        [ip[10], ip[11]] = header.to_be_bytes();
        Sum::new().add_bytes(&ip[12..20])
    } else {
        Sum::new().add_bytes(&ip[8..40])
    };
    let sum = sum
        .add_u16(u16::from(protocol::TCP))
        .add_u32(tcp.len() as u32)
        .add_bytes(tcp)
        .checksum();
    if let Some(field) = tcp.get_mut(16..18) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
