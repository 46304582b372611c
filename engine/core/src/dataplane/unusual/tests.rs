//! Packet in, packet out, for everything that the parser does not follow to a flow: built and read
//! with etherparse and sums of its own, which share no code with the engine.

use crate::dataplane::{Dataplane, DataplaneConfig, NatConfig, Verdict};
use crate::fixtures::{BALANCER_MAC, CLIENT_MAC, backend, compile, service, steered};
use crate::tables::{PortId, Tables};
use crate::time::Micros;
use alloc::sync::Arc;
use core::net::IpAddr;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket};
use lockstep_plan::{Backend, DropReason, Mode, Service};
use std::format;
use std::string::String;
use std::vec::Vec;

mod errors;
mod fragments;
mod pings;
mod properties;
mod rewritten;
mod too_big;
mod tunnels;
mod unserved;

const T0: Micros = Micros::new(1_000_000_000);
/// The interface that test packets come in by; the routes of the fixtures leave by 0.
const PORT: PortId = PortId(2);
const CLIENT_PORT: u16 = 40_000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Type, code and the rest of an ICMP header.
type Kind = (u8, u8, [u8; 4]);

/// The hosts of one IP version.
#[derive(Clone, Copy)]
struct Net {
    client: IpAddr,
    /// A router on the way to the client.
    router: IpAddr,
    vip: IpAddr,
    engine: IpAddr,
    /// The first of the backends.
    server: IpAddr,
}

fn nets() -> [Net; 2] {
    let net = |[client, router, vip, engine, server]: [&str; 5]| Net {
        client: client.parse().unwrap(),
        router: router.parse().unwrap(),
        vip: vip.parse().unwrap(),
        engine: engine.parse().unwrap(),
        server: server.parse().unwrap(),
    };
    [
        net([
            "198.51.100.7",
            "198.51.100.1",
            "203.0.113.10",
            "192.0.2.1",
            "10.0.0.1",
        ]),
        net([
            "2001:db8:1::7",
            "2001:db8:1::1",
            "2001:db8::10",
            "2001:db8:ffff::1",
            "fd00::1",
        ]),
    ]
}

impl Net {
    fn is_v4(&self) -> bool {
        self.vip.is_ipv4()
    }

    /// Bytes of the IP header.
    fn header(&self) -> usize {
        if self.is_v4() { 20 } else { 40 }
    }

    fn vips(&self) -> [String; 2] {
        let address = match self.vip {
            IpAddr::V4(v4) => format!("{v4}"),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        [format!("{address}:80/tcp"), format!("{address}:53/udp")]
    }

    /// A tunnel to a backend of the same IP version.
    fn service(&self) -> Service {
        let vips = self.vips();
        let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
        service(
            "web",
            &vips,
            Vec::from([backend(&format!("{}", self.server))]),
        )
    }

    /// One that rewrites, to port 8080 of the backend.
    fn rewriting(&self, mode: Mode) -> Dataplane {
        let backends = Vec::from([Backend {
            port: core::num::NonZeroU16::new(8_080),
            ..backend(&format!("{}", self.server))
        }]);
        let service = Service {
            mode,
            backends,
            ..self.service()
        };
        let mut nat = NatConfig {
            ports: Some(1_024..=16_383),
            ..NatConfig::default()
        };
        match self.engine {
            IpAddr::V4(address) => nat.pool_v4.push(address),
            IpAddr::V6(address) => nat.pool_v6.push(address),
        }
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 1000,
            flows_v6: 1000,
            seed: 42,
            nat: NatConfig {
                mtus: Vec::from([u16::MAX, u16::MAX, 1_400]),
                ..nat
            },
        });
        let tables = compile(&Tables::default(), 1, Vec::from([service]));
        dataplane.adopt(Arc::new(tables));
        dataplane
    }

    fn dataplane(&self) -> Dataplane {
        dataplane(compile(&Tables::default(), 1, Vec::from([self.service()])))
    }

    /// What the client sends to a port of the VIP: a segment or datagram with that many bytes.
    fn request(&self, protocol: u8, bytes: usize) -> Vec<u8> {
        let port = if protocol == TCP { 80 } else { 53 };
        transport(
            protocol,
            (self.client, CLIENT_PORT),
            (self.vip, port),
            bytes,
        )
    }

    /// How a flow begins.
    fn opening(&self, protocol: u8) -> Vec<u8> {
        let mut packet = self.request(protocol, 10);
        if protocol == TCP {
            // A SYN in place of an ACK: their difference is 14 of the sum's lower byte.
            let flags = self.header() + 13;
            packet[flags] = 2;
            let sum = self.header() + 16;
            let old = u16::from_be_bytes([packet[sum], packet[sum + 1]]);
            let new = ones(&[(old >> 8) as u8, old as u8, 0, 14]);
            packet[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
        }
        packet
    }

    /// What the backend answers from the VIP.
    fn answer(&self, protocol: u8, bytes: usize) -> Vec<u8> {
        let port = if protocol == TCP { 80 } else { 53 };
        transport(
            protocol,
            (self.vip, port),
            (self.client, CLIENT_PORT),
            bytes,
        )
    }

    /// "Too big" of this version, as a router says it: type, code and the rest of the header.
    fn too_big(&self, mtu: u16) -> Kind {
        let [high, low] = mtu.to_be_bytes();
        if self.is_v4() {
            (3, 4, [0, 0, high, low])
        } else {
            (2, 0, [0, 0, high, low])
        }
    }
}

fn dataplane(tables: Tables) -> Dataplane {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1000,
        flows_v6: 1000,
        seed: 42,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    dataplane
}

/// An IP packet, its header made by etherparse.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = payload.len() as u16;
            let mut header = etherparse::Ipv4Header::new(
                length,
                64,
                protocol.into(),
                from.octets(),
                to.octets(),
            )
            .unwrap();
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes()[..], payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = etherparse::Ipv6Header {
                payload_length: payload.len() as u16,
                next_header: protocol.into(),
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..etherparse::Ipv6Header::default()
            };
            [&header.to_bytes()[..], payload].concat()
        }
        _ => panic!("one IP version in a packet"),
    }
}

fn transport(protocol: u8, from: (IpAddr, u16), to: (IpAddr, u16), bytes: usize) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, BALANCER_MAC);
    let ip = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one IP version in a packet"),
    };
    let payload: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    let mut frame = Vec::new();
    match protocol {
        TCP => ip
            .tcp(from.1, to.1, 1, 1024)
            .ack(1)
            .write(&mut frame, &payload),
        _ => ip.udp(from.1, to.1).write(&mut frame, &payload),
    }
    .unwrap();
    frame.split_off(14)
}

/// An ICMP message of the addresses' version, with its checksum.
fn icmp(from: IpAddr, to: IpAddr, (kind, code, rest): Kind, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, body].concat();
    let number = if from.is_ipv4() { 1 } else { 58 };
    let sum = !ones(&pseudo(from, to, number, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(from, to, number, &message)
}

/// What the checksum of a message is over.
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (message.len() as u32).to_be_bytes();
            let tail = [0, 0, 0, protocol];
            [&from.octets()[..], &to.octets(), &length, &tail, message].concat()
        }
        _ => message.to_vec(),
    }
}

/// The ones' complement sum, word by word.
fn ones(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame without room, as it is on the network, with VLAN tags.
fn plain(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = [BALANCER_MAC, CLIENT_MAC].concat();
    for tag in tags {
        frame.extend([0x81, 0]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype(packet));
    frame.extend(packet);
    frame
}

fn ethertype(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    }
}

/// A frame with room in front of the packet, as the XDP program makes it.
fn roomy(room: u16, packet: &[u8]) -> Vec<u8> {
    steered(room, &plain(&[], packet))
}

/// What the dataplane sends instead of a frame.
fn send(dataplane: &mut Dataplane, at: Micros, frame: &[u8]) -> Result<Sent, DropReason> {
    let mut frames = [frame.to_vec()];
    let mut verdicts = [Verdict::Local];
    dataplane.process(at, &[PORT], &mut frames, &mut verdicts);
    match verdicts[0] {
        Verdict::Forward { port, length } => Ok(Sent::read(port, &frames[0][..length.into()])),
        Verdict::Drop(reason) => Err(reason),
        Verdict::Local => panic!("not for a session"),
    }
}

/// A frame that left, as etherparse reads it.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    port: PortId,
    /// Destination and source.
    link: [[u8; 6]; 2],
    tags: Vec<u16>,
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
    protocol: u8,
    payload: Vec<u8>,
    /// From the IP header on.
    packet: Vec<u8>,
}

impl Sent {
    fn read(port: PortId, frame: &[u8]) -> Self {
        let parsed = SlicedPacket::from_ethernet(frame).unwrap();
        let tags: Vec<u16> = parsed.vlan_ids().iter().map(|id| id.value()).collect();
        let (from, to, ttl, protocol, payload): (IpAddr, IpAddr, _, _, _) =
            match parsed.net.unwrap() {
                NetSlice::Ipv4(v4) => {
                    let header = v4.header();
                    assert_eq!(
                        header.to_header().calc_header_checksum(),
                        header.header_checksum()
                    );
                    (
                        header.source_addr().into(),
                        header.destination_addr().into(),
                        header.ttl(),
                        header.protocol(),
                        v4.payload().payload.to_vec(),
                    )
                }
                NetSlice::Ipv6(v6) => (
                    v6.header().source_addr().into(),
                    v6.header().destination_addr().into(),
                    v6.header().hop_limit(),
                    v6.header().next_header(),
                    frame[frame.len() - usize::from(v6.header().payload_length())..].to_vec(),
                ),
                NetSlice::Arp(_) => panic!("not IP"),
            };
        Sent {
            port,
            packet: frame[14 + 4 * tags.len()..].to_vec(),
            link: [
                frame[..6].try_into().unwrap(),
                frame[6..12].try_into().unwrap(),
            ],
            tags,
            from,
            to,
            ttl,
            protocol: protocol.0,
            payload,
        }
    }

    /// Type, code, the rest of the header and the body of a message, whose checksum has to be
    /// right.
    fn message(&self) -> (u8, u8, [u8; 4], &[u8]) {
        assert_eq!(self.protocol, if self.from.is_ipv4() { 1 } else { 58 });
        let message = &self.payload[..];
        let covered = pseudo(self.from, self.to, self.protocol, message);
        assert_eq!(ones(&covered), 0xffff, "the checksum");
        let rest = message[4..8].try_into().unwrap();
        (message[0], message[1], rest, &message[8..])
    }

    /// Whether it goes back by the way that test packets come.
    fn goes_back(&self) -> bool {
        self.port == PORT && self.link == [CLIENT_MAC, BALANCER_MAC]
    }
}

fn drops(dataplane: &Dataplane, reason: DropReason) -> u64 {
    let vips = dataplane.counters().vips.iter();
    vips.map(|v| v.drops[reason as usize].get()).sum()
}
