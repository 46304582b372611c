//! Packets built field by field. Checksums come from smoltcp, not from the crate under test.

use std::net::{Ipv4Addr, Ipv6Addr};

use lockstep_wire::STEER_ETHERTYPE;
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

pub const CLIENT_4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const VIP_4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const CLIENT_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
pub const VIP_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
pub const CLIENT_PORT: u16 = 40_000;
pub const VIP_PORT: u16 = 443;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// An IPv4 packet; the checksum is made right when it is built.
#[derive(Clone)]
pub struct V4 {
    pub version_and_length: Option<u8>,
    pub ds_field: u8,
    pub total_length: Option<u16>,
    pub id: u16,
    pub flags_and_offset: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl V4 {
    pub fn new(protocol: u8, payload: Vec<u8>) -> Self {
        V4 {
            version_and_length: None,
            ds_field: 0,
            total_length: None,
            id: 0x1234,
            flags_and_offset: 0,
            ttl: 64,
            protocol,
            source: CLIENT_4,
            destination: VIP_4,
            options: Vec::new(),
            payload,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let header_length = 20 + self.options.len();
        let length = header_length + self.payload.len();
        let mut bytes = vec![
            self.version_and_length
                .unwrap_or(0x40 | (header_length / 4) as u8),
            self.ds_field,
        ];
        bytes.extend(self.total_length.unwrap_or(length as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.flags_and_offset.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        // smoltcp sums as many bytes as the header says; a row that lies has no right checksum.
        if usize::from(bytes[0] & 0xf) * 4 == header_length {
            Ipv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
        }
        bytes
    }
}

/// An IPv6 packet; `extensions` are whole headers, each with its own type, in order.
#[derive(Clone)]
pub struct V6 {
    pub version: u8,
    pub traffic_class: u8,
    pub flow_label: u32,
    pub payload_length: Option<u16>,
    pub hop_limit: u8,
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub payload: Vec<u8>,
}

impl V6 {
    pub fn new(protocol: u8, payload: Vec<u8>) -> Self {
        V6 {
            version: 6,
            traffic_class: 0,
            flow_label: 0x12345,
            payload_length: None,
            hop_limit: 64,
            extensions: Vec::new(),
            protocol,
            source: CLIENT_6,
            destination: VIP_6,
            payload,
        }
    }

    /// Adds an extension header: `rest` is what follows its next-header byte.
    pub fn extension(mut self, kind: u8, rest: &[u8]) -> Self {
        self.extensions.push((kind, rest.to_vec()));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut chain = Vec::new();
        let mut next = self
            .extensions
            .iter()
            .map(|(kind, _)| *kind)
            .chain([self.protocol]);
        let first = next.next().expect("the protocol at least");
        for (_, rest) in &self.extensions {
            chain.push(next.next().expect("one more than extensions"));
            chain.extend(rest);
        }
        chain.extend(&self.payload);
        let word =
            u32::from(self.version) << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut bytes = word.to_be_bytes().to_vec();
        bytes.extend(
            self.payload_length
                .unwrap_or(chain.len() as u16)
                .to_be_bytes(),
        );
        bytes.extend([first, self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(chain);
        bytes
    }
}

/// A hop-by-hop or destination options header of 8 bytes, padded, without its next header.
pub const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

/// A TCP segment with the checksum of the given IP addresses left to [`fill_checksum`].
pub fn tcp(flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(CLIENT_PORT.to_be_bytes());
    bytes.extend(VIP_PORT.to_be_bytes());
    bytes.extend(0x0102_0304_u32.to_be_bytes());
    bytes.extend(0x0506_0708_u32.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    bytes
}

pub fn udp(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(CLIENT_PORT.to_be_bytes());
    bytes.extend(VIP_PORT.to_be_bytes());
    bytes.extend((8 + data.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

/// Makes the checksum of a TCP segment or UDP datagram right.
pub fn with_checksum(protocol: u8, mut segment: Vec<u8>, v6: bool) -> Vec<u8> {
    let (source, destination) = match v6 {
        false => (CLIENT_4.into(), VIP_4.into()),
        true => (CLIENT_6.into(), VIP_6.into()),
    };
    match IpProtocol::from(protocol) {
        IpProtocol::Tcp => {
            TcpPacket::new_unchecked(&mut segment[..]).fill_checksum(&source, &destination)
        }
        IpProtocol::Udp => {
            UdpPacket::new_unchecked(&mut segment[..]).fill_checksum(&source, &destination)
        }
        _ => panic!("no checksum for protocol {protocol}"),
    }
    segment
}

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 0xbb];

/// An ordinary frame; each tag is a TPID and a TCI.
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A frame as the XDP program hands it over. What is undefined in the room is 0xee.
pub fn steered(room: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    frame.extend(STEER_ETHERTYPE.to_be_bytes());
    frame.extend(room.to_be_bytes());
    frame.resize((14 + usize::from(room)).max(16), 0xee);
    frame.extend(packet);
    frame
}

/// What Ethernet appends to short frames, or a driver to long ones.
pub fn padded(mut frame: Vec<u8>, bytes: usize) -> Vec<u8> {
    frame.resize(frame.len() + bytes, 0xdd);
    frame
}
