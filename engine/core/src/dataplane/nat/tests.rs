//! Packets in, packets out, of services that rewrite.

mod bounds;
mod changes;

use crate::dataplane::{Dataplane, DataplaneConfig, NatConfig, Verdict};
use crate::fixtures::{
    BALANCER_MAC, CLIENT_MAC, ROUTER_MAC, addresses, backend, compile, route, service,
};
use crate::tables::{NextHop, PortId, Route, Tables};
use crate::time::Micros;
use crate::tracking::FlowState;
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, VlanId};
use lockstep_plan::{Backend, DropReason, Mode, Protocol, Service, Snapshot, Vip};
use lockstep_wire::{LinkHeader, parse};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

pub(super) const T0: Micros = Micros::new(1_000_000_000);
/// The interface that clients are behind, and the one of the backends.
pub(super) const OUTSIDE: PortId = PortId(1);
pub(super) const INSIDE: PortId = PortId(0);
const CLIENT: &str = "198.51.100.7:40000";
const CLIENT6: &str = "[2001:db8:1::7]:40000";
const WEB: &str = "203.0.113.10:80/tcp";
const POOL: &str = "192.0.2.1";
const POOL6: &str = "2001:db8:ffff::1";

/// A packet as the tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    protocol: Protocol,
    /// Any of `SAFR`.
    flags: String,
    mss: Option<u16>,
    vlan: Option<u16>,
    macs: ([u8; 6], [u8; 6]),
    ttl: u8,
    payload: Vec<u8>,
}

impl Packet {
    fn new(from: &str, to: &str, protocol: Protocol) -> Self {
        Packet {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            protocol,
            flags: String::new(),
            mss: None,
            vlan: None,
            macs: (CLIENT_MAC, BALANCER_MAC),
            ttl: 64,
            payload: b"some data".to_vec(),
        }
    }

    fn tcp(from: &str, to: &str, flags: &str) -> Self {
        Packet {
            flags: flags.to_string(),
            ..Packet::new(from, to, Protocol::Tcp)
        }
    }

    fn udp(from: &str, to: &str) -> Self {
        Packet::new(from, to, Protocol::Udp)
    }

    /// What the one who gets this packet answers, as it comes to the engine.
    fn answer(&self, flags: &str) -> Self {
        Packet {
            from: self.to,
            to: self.from,
            flags: if self.protocol == Protocol::Tcp {
                flags.to_string()
            } else {
                String::new()
            },
            vlan: None,
            macs: (ROUTER_MAC, BALANCER_MAC),
            ttl: 64,
            payload: b"an answer".to_vec(),
            ..self.clone()
        }
    }

    /// Its bytes, by etherparse.
    fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ethernet = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let ip = match (self.vlan, self.from.ip(), self.to.ip()) {
            (None, IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet.ipv4(from.octets(), to.octets(), self.ttl)
            }
            (None, IpAddr::V6(from), IpAddr::V6(to)) => {
                ethernet.ipv6(from.octets(), to.octets(), self.ttl)
            }
            (Some(id), IpAddr::V4(from), IpAddr::V4(to)) => ethernet
                .single_vlan(VlanId::try_new(id).unwrap())
                .ipv4(from.octets(), to.octets(), self.ttl),
            (Some(id), IpAddr::V6(from), IpAddr::V6(to)) => ethernet
                .single_vlan(VlanId::try_new(id).unwrap())
                .ipv6(from.octets(), to.octets(), self.ttl),
            _ => panic!("one IP version in a packet"),
        };
        if self.protocol == Protocol::Udp {
            let udp = ip.udp(self.from.port(), self.to.port());
            udp.write(&mut bytes, &self.payload).unwrap();
            return bytes;
        }
        let mut tcp = ip.tcp(self.from.port(), self.to.port(), 1, 1024);
        for flag in self.flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'A' => tcp.ack(1),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                other => panic!("no flag {other}"),
            };
        }
        if let Some(mss) = self.mss {
            let options = [etherparse::TcpOptionElement::MaximumSegmentSize(mss)];
            tcp = tcp.options(&options).unwrap();
        }
        tcp.write(&mut bytes, &self.payload).unwrap();
        bytes
    }

    /// Reads a frame with etherparse; its checksums have to be right.
    fn read(frame: &[u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let ethernet = match headers.link.unwrap() {
            etherparse::LinkHeader::Ethernet2(ethernet) => ethernet,
            other => panic!("{other:?}"),
        };
        let payload = headers.payload.slice().to_vec();
        let (from, to, ttl, v4, v6): (IpAddr, IpAddr, u8, _, _) = match headers.net.unwrap() {
            NetHeaders::Ipv4(v4, _) => {
                assert_eq!(v4.calc_header_checksum(), v4.header_checksum);
                (
                    v4.source.into(),
                    v4.destination.into(),
                    v4.time_to_live,
                    Some(v4),
                    None,
                )
            }
            NetHeaders::Ipv6(v6, _) => (
                v6.source.into(),
                v6.destination.into(),
                v6.hop_limit,
                None,
                Some(v6),
            ),
            NetHeaders::Arp(_) => panic!("not IP"),
        };
        let vlan = headers.link_exts.first().map(|tag| match tag {
            etherparse::LinkExtHeader::Vlan(tag) => tag.vlan_id.value(),
            other => panic!("{other:?}"),
        });
        let (ports, protocol, flags, mss) = match headers.transport.unwrap() {
            TransportHeader::Tcp(tcp) => {
                let sum = match (v4, v6) {
                    (Some(v4), _) => tcp.calc_checksum_ipv4(&v4, &payload),
                    (_, Some(v6)) => tcp.calc_checksum_ipv6(&v6, &payload),
                    _ => panic!("one of both"),
                };
                assert_eq!(tcp.checksum, sum.unwrap());
                let flags = [
                    (tcp.syn, 'S'),
                    (tcp.ack, 'A'),
                    (tcp.fin, 'F'),
                    (tcp.rst, 'R'),
                ];
                let flags = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
                let mss = tcp.options_iterator().find_map(|option| match option {
                    Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                    _ => None,
                });
                (
                    (tcp.source_port, tcp.destination_port),
                    Protocol::Tcp,
                    flags,
                    mss,
                )
            }
            TransportHeader::Udp(udp) => {
                let sum = match (v4, v6) {
                    (Some(v4), _) => udp.calc_checksum_ipv4(&v4, &payload),
                    (_, Some(v6)) => udp.calc_checksum_ipv6(&v6, &payload),
                    _ => panic!("one of both"),
                };
                assert_eq!(udp.checksum, sum.unwrap());
                (
                    (udp.source_port, udp.destination_port),
                    Protocol::Udp,
                    String::new(),
                    None,
                )
            }
            other => panic!("{other:?}"),
        };
        Packet {
            from: (from, ports.0).into(),
            to: (to, ports.1).into(),
            protocol,
            flags,
            mss,
            vlan,
            macs: (ethernet.source, ethernet.destination),
            ttl,
            payload,
        }
    }
}

pub(super) fn config(ports: RangeInclusive<u16>) -> DataplaneConfig {
    DataplaneConfig {
        flows_v4: 1_000,
        flows_v6: 1_000,
        seed: 42,
        nat: NatConfig {
            pool_v4: vec![POOL.parse().unwrap()],
            pool_v6: vec![POOL6.parse().unwrap()],
            ports: Some(ports),
            mtus: vec![1500, 1500],
            cookie_key: [1, 2],
        },
    }
}

fn dataplane(tables: Tables) -> Dataplane {
    with(config(1_024..=16_383), tables)
}

pub(super) fn with(config: DataplaneConfig, tables: Tables) -> Dataplane {
    let mut dataplane = Dataplane::new(&config);
    dataplane.adopt(Arc::new(tables));
    dataplane
}

pub(super) fn rewriting(mode: Mode, vips: &[&str], backends: Vec<Backend>) -> Service {
    Service {
        mode,
        ..service("web", vips, backends)
    }
}

pub(super) fn at_port(address: &str, port: u16) -> Backend {
    Backend {
        port: NonZeroU16::new(port),
        ..backend(address)
    }
}

fn web(mode: Mode) -> Tables {
    let service = rewriting(mode, &[WEB], vec![at_port("10.0.0.1", 8080)]);
    compile(&Tables::default(), 1, vec![service])
}

/// What becomes of a frame that comes in by a port.
pub(super) fn process(
    dataplane: &mut Dataplane,
    now: Micros,
    port: PortId,
    frame: &[u8],
) -> (Verdict, Vec<u8>) {
    let mut frames = [frame.to_vec()];
    let mut verdicts = [Verdict::Drop(DropReason::TxFull)];
    dataplane.process(now, &[port], &mut frames, &mut verdicts);
    let [mut frame] = frames;
    if let Verdict::Forward { length, .. } = verdicts[0] {
        frame.truncate(length.into());
    }
    (verdicts[0], frame)
}

/// A packet that goes on: how, and by which port.
fn sent(dataplane: &mut Dataplane, port: PortId, packet: &Packet) -> (PortId, Packet) {
    match process(dataplane, T0, port, &packet.frame()) {
        (Verdict::Forward { port, .. }, frame) => (port, Packet::read(&frame)),
        (verdict, _) => panic!("{verdict:?} for {packet:?}"),
    }
}

/// From the client to the backend.
fn to_backend(dataplane: &mut Dataplane, packet: &Packet) -> Packet {
    let (port, out) = sent(dataplane, OUTSIDE, packet);
    assert_eq!((port, out.macs), (INSIDE, (BALANCER_MAC, ROUTER_MAC)));
    out
}

/// From the backend to the client.
fn to_client(dataplane: &mut Dataplane, packet: &Packet) -> Packet {
    let (port, out) = sent(dataplane, INSIDE, packet);
    assert_eq!((port, out.macs), (OUTSIDE, (BALANCER_MAC, CLIENT_MAC)));
    out
}

fn refused(dataplane: &mut Dataplane, port: PortId, packet: &Packet) -> DropReason {
    let frame = packet.frame();
    match process(dataplane, T0, port, &frame) {
        (Verdict::Drop(reason), after) => {
            assert_eq!(after, frame, "what is dropped is as it came");
            reason
        }
        (verdict, _) => panic!("{verdict:?} for {packet:?}"),
    }
}

fn state(dataplane: &Dataplane, packet: &Packet) -> Option<FlowState> {
    let key = parse(&packet.frame()).unwrap().key;
    dataplane
        .known(T0.into_seconds(), &key)
        .map(|flow| flow.state)
}

trait IntoSeconds {
    fn into_seconds(self) -> crate::time::Seconds;
}

impl IntoSeconds for Micros {
    fn into_seconds(self) -> crate::time::Seconds {
        crate::time::Seconds::at(self)
    }
}

#[test]
fn both_directions_of_every_mode_version_and_protocol() {
    let rows = [
        (CLIENT, "203.0.113.10", "10.0.0.1", POOL),
        (CLIENT6, "[2001:db8::10]", "fd00::1", POOL6),
    ];
    for mode in [Mode::Nat, Mode::FullNat] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in [None, NonZeroU16::new(5353)] {
                for (client, vip, server, pool) in rows {
                    let name = format!("{vip}:53/{protocol}");
                    let backends = vec![Backend {
                        port,
                        ..backend(server)
                    }];
                    let service = rewriting(mode.clone(), &[&name], backends);
                    let mut d = dataplane(compile(&Tables::default(), 1, vec![service]));
                    let flags = if protocol == Protocol::Tcp { "S" } else { "" };
                    let packet = Packet {
                        flags: flags.to_string(),
                        ..Packet::new(client, &format!("{vip}:53"), protocol)
                    };

                    let out = to_backend(&mut d, &packet);
                    let server: IpAddr = server.parse().unwrap();
                    let backend_port = port.map_or(53, NonZeroU16::get);
                    assert_eq!(out.to, SocketAddr::from((server, backend_port)));
                    if mode == Mode::Nat {
                        assert_eq!(out.from, packet.from);
                    } else {
                        assert_eq!(out.from.ip(), pool.parse::<IpAddr>().unwrap());
                        assert!((1_024..=16_383).contains(&out.from.port()));
                    }
                    assert_eq!(out.ttl, 63);
                    assert_eq!((&out.payload, &out.flags), (&packet.payload, &packet.flags));

                    let answer = out.answer("SA");
                    let back = to_client(&mut d, &answer);
                    assert_eq!((back.from, back.to), (packet.to, packet.from));
                    assert_eq!(
                        (&back.payload, &back.flags),
                        (&answer.payload, &answer.flags)
                    );
                    // Later packets go the same way.
                    let data = Packet {
                        flags: flags.replace('S', "A"),
                        ..packet.clone()
                    };
                    assert_eq!(to_backend(&mut d, &data).from, out.from);
                    let vips = d.counters().vips.iter().map(|vip| vip.packets.get());
                    assert_eq!(vips.sum::<u64>(), 3, "{mode:?} {packet:?}");
                }
            }
        }
    }
}

#[test]
fn a_burst_of_both_directions_is_forwarded_as_one_by_one() {
    let mut d = dataplane(web(Mode::FullNat));
    let clients: Vec<String> = (0..40).map(|n| format!("198.51.100.{n}:40000")).collect();
    let out: Vec<Packet> = clients
        .iter()
        .map(|c| to_backend(&mut d, &Packet::tcp(c, "203.0.113.10:80", "S")))
        .collect();
    // Answers and data, mixed, in one burst; and one answer of no flow.
    let mut packets = Vec::new();
    for (client, out) in clients.iter().zip(&out).take(31) {
        packets.push((INSIDE, out.answer("SA")));
        packets.push((OUTSIDE, Packet::tcp(client, "203.0.113.10:80", "A")));
    }
    packets.push((INSIDE, Packet::tcp("10.0.0.1:8080", "192.0.2.1:1023", "A")));
    let mut frames: Vec<Vec<u8>> = packets.iter().map(|(_, p)| p.frame()).collect();
    let ports: Vec<PortId> = packets.iter().map(|&(port, _)| port).collect();
    let mut verdicts = vec![Verdict::Local; frames.len()];
    d.process(T0, &ports, &mut frames, &mut verdicts);
    let (last, rest) = verdicts.split_last().unwrap();
    assert_eq!(*last, Verdict::Drop(DropReason::NoFlow));
    for (at, verdict) in rest.iter().enumerate() {
        let Verdict::Forward { port, length } = *verdict else {
            panic!("{verdict:?}");
        };
        let packet = Packet::read(&frames[at][..usize::from(length)]);
        if at % 2 == 0 {
            assert_eq!(port, OUTSIDE);
            assert_eq!(packet.to.to_string(), clients[at / 2]);
        } else {
            assert_eq!(port, INSIDE);
            assert_eq!(packet.from, out[at / 2].from);
        }
    }
}

#[test]
fn the_largest_segment_of_both_ends_fits_both_ways() {
    // The MTU of the clients' side, that of the backends' side, what is announced, what arrives.
    let rows = [
        (1500, 1500, Some(1460), Some(1460)),
        (1500, 1400, Some(1460), Some(1360)),
        (1280, 1500, Some(1460), Some(1240)),
        (1280, 1400, Some(500), Some(500)),
        (1280, 1400, None, None),
    ];
    for (clients, backends, announced, expected) in rows {
        let services = vec![rewriting(Mode::Nat, &[WEB], vec![backend("10.0.0.1")])];
        let snapshot = Snapshot::new(1, services).unwrap();
        let way = NextHop::Via(Route {
            mtu: backends,
            ..route()
        });
        let tables = Tables::compile(&Tables::default(), &snapshot, addresses(), |_| way);
        let mut config = config(1_024..=16_383);
        config.nat.mtus = vec![backends, clients];
        let mut d = with(config, tables.unwrap());
        let syn = Packet {
            mss: announced,
            ..Packet::tcp(CLIENT, "203.0.113.10:80", "S")
        };
        let out = to_backend(&mut d, &syn);
        assert_eq!(out.mss, expected, "{clients} {backends}");
        let answer = Packet {
            mss: announced,
            ..out.answer("SA")
        };
        assert_eq!(
            to_client(&mut d, &answer).mss,
            expected,
            "{clients} {backends}"
        );
        // Only a SYN's counts.
        let data = Packet {
            mss: announced,
            ..Packet::tcp(CLIENT, "203.0.113.10:80", "A")
        };
        assert_eq!(to_backend(&mut d, &data).mss, announced);
    }
}

#[test]
fn a_packet_that_is_too_long_for_its_way_is_dropped_in_either_direction() {
    let mut config = config(1_024..=16_383);
    config.nat.mtus = vec![1500, 1000];
    let mut d = with(config, web(Mode::Nat));
    let long = |packet: Packet, length: usize| Packet {
        payload: vec![7; length],
        ..packet
    };
    let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let out = to_backend(&mut d, &syn);
    // What its sender is told is in the tests of `unusual`.
    let mut is_dropped = |port, packet: &Packet| {
        let count = |d: &Dataplane| -> u64 {
            let vips = d.counters().vips.iter();
            vips.map(|v| v.drops[DropReason::TooBig as usize].get())
                .sum()
        };
        let before = count(&d);
        process(&mut d, T0, port, &packet.frame());
        count(&d) > before
    };
    // The route's MTU is 1,600.
    let data = Packet::tcp(CLIENT, "203.0.113.10:80", "A");
    assert!(!is_dropped(OUTSIDE, &long(data.clone(), 1_560)));
    assert!(is_dropped(OUTSIDE, &long(data, 1_561)));
    assert!(!is_dropped(INSIDE, &long(out.answer("A"), 960)));
    assert!(is_dropped(INSIDE, &long(out.answer("A"), 961)));
}

#[test]
fn both_halves_of_a_connection_are_followed() {
    use FlowState::{Closed, Established, Fin, ServerFin, Syn};
    // Who sends what, and the state behind it.
    let rows: [&[(char, &str, FlowState)]; 5] = [
        &[
            ('c', "S", Syn),
            ('s', "SA", Syn),
            ('c', "A", Established),
            ('s', "A", Established),
            ('c', "FA", Fin),
            ('s', "A", Fin),
            ('s', "FA", Closed),
            ('c', "A", Closed),
        ],
        &[
            ('c', "S", Syn),
            ('c', "A", Established),
            ('s', "FA", ServerFin),
            ('c', "FA", Closed),
        ],
        &[('c', "S", Syn), ('s', "RA", Closed), ('c', "S", Syn)],
        &[('c', "S", Syn), ('c', "A", Established), ('c', "R", Closed)],
        &[
            ('c', "S", Syn),
            ('c', "A", Established),
            ('s', "R", Closed),
            ('s', "A", Closed),
        ],
    ];
    for mode in [Mode::Nat, Mode::FullNat] {
        for row in rows {
            let mut d = dataplane(web(mode.clone()));
            let mut out = None;
            for &(who, flags, expected) in row {
                let packet = Packet::tcp(CLIENT, "203.0.113.10:80", flags);
                if who == 'c' {
                    out = Some(to_backend(&mut d, &packet));
                } else {
                    let out: &Packet = out.as_ref().unwrap();
                    to_client(&mut d, &out.answer(flags));
                }
                assert_eq!(state(&d, &packet), Some(expected), "{row:?} {flags}");
            }
        }
    }
}

proptest! {
    #[test]
    fn an_answer_to_what_the_backend_saw_comes_from_where_the_client_sent_to(
        full in any::<bool>(),
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        client in any::<[u8; 15]>(),
        client_port in any::<u16>(),
        vip_port in any::<u16>(),
        server_port in proptest::option::of(1_u16..),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        answer in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let (vip, server, client) = if v6 {
            let mut octets = [0x20; 16];
            octets[1..].copy_from_slice(&client);
            ("2001:db8::10".parse().unwrap(), "fd00::1", IpAddr::from(octets))
        } else {
            let octets = [198, client[0], client[1], client[2]];
            ("203.0.113.10".parse::<IpAddr>().unwrap(), "10.0.0.1", IpAddr::from(octets))
        };
        // Every port of the VIP, or that which a backend has another one for.
        let one = if server_port.is_some() { vip_port.max(1) } else { 0 };
        let name = Vip::new(vip, one, protocol).unwrap().to_string();
        let vip_port = if server_port.is_some() { one } else { vip_port };
        let mode = if full { Mode::FullNat } else { Mode::Nat };
        let one = Backend { port: server_port.and_then(NonZeroU16::new), ..backend(server) };
        let service = rewriting(mode, &[&name], vec![one]);
        let mut d = dataplane(compile(&Tables::default(), 1, vec![service]));
        let packet = Packet {
            from: (client, client_port).into(),
            to: (vip, vip_port).into(),
            flags: if tcp { "S".to_string() } else { String::new() },
            payload,
            ..Packet::new(CLIENT, CLIENT, protocol)
        };
        let out = to_backend(&mut d, &packet);
        prop_assert_eq!(out.to.port(), server_port.unwrap_or(vip_port));
        prop_assert_eq!(&out.payload, &packet.payload);
        let answered = Packet { payload: answer, ..out.answer("SA") };
        let back = to_client(&mut d, &answered);
        prop_assert_eq!((back.from, back.to), (packet.to, packet.from));
        prop_assert_eq!(back.payload, answered.payload);
    }
}
