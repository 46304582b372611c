//! Packet tables: a frame as the XDP program hands it over, and the frame that leaves, both built
//! field by field with etherparse, which shares no code with the engine.

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
    TcpHeader, UdpHeader,
};
use lockstep_core::{
    BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, NextHop, PortId, Route, Tables,
    Verdict,
};
use lockstep_plan::{
    Backend, BackendState, Health, IdleTimeouts, Mode, Service, ServiceName, Snapshot, TableSize,
    Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 3];
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
const ENGINE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ENGINE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11);

/// What a client sends, and what the outer header takes over from it.
#[derive(Clone, Copy)]
struct Inner {
    version: u8,
    protocol: IpNumber,
    ttl: u8,
    dscp: u8,
    ecn: u8,
    dont_fragment: bool,
}

struct Row {
    description: &'static str,
    inner: Inner,
    server: IpAddr,
    /// The tag of the way out.
    vlan: Option<u16>,
}

#[test]
fn a_packet_leaves_in_its_tunnel_byte_for_byte() {
    let tcp4 = Inner {
        version: 4,
        protocol: IpNumber::TCP,
        ttl: 64,
        dscp: 0,
        ecn: 0,
        dont_fragment: true,
    };
    let tcp6 = Inner { version: 6, ..tcp4 };
    let (v4, v6) = (IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6));
    let row = |description, inner, server, vlan| Row {
        description,
        inner,
        server,
        vlan,
    };
    let rows = [
        row("TCP over IPv4 in IPv4 (RFC 2003)", tcp4, v4, None),
        row("TCP over IPv6 in IPv4 (RFC 4213)", tcp6, v4, None),
        row("TCP over IPv4 in IPv6 (RFC 2473)", tcp4, v6, None),
        row("TCP over IPv6 in IPv6 (RFC 2473)", tcp6, v6, None),
        row(
            "UDP over IPv4",
            Inner {
                protocol: IpNumber::UDP,
                ..tcp4
            },
            v4,
            None,
        ),
        row(
            "UDP over IPv6",
            Inner {
                protocol: IpNumber::UDP,
                ..tcp6
            },
            v6,
            None,
        ),
        row(
            "DSCP EF is copied (RFC 6040)",
            Inner { dscp: 46, ..tcp4 },
            v4,
            None,
        ),
        row(
            "ECT(0) is copied (RFC 6040)",
            Inner { ecn: 2, ..tcp6 },
            v4,
            None,
        ),
        row(
            "CE is copied (RFC 6040)",
            Inner { ecn: 3, ..tcp4 },
            v6,
            None,
        ),
        row(
            "without DF the outer has an identification",
            Inner {
                dont_fragment: false,
                ..tcp4
            },
            v4,
            None,
        ),
        row(
            "TTL 2 is the last that goes on",
            Inner { ttl: 2, ..tcp4 },
            v4,
            None,
        ),
        row("hop limit 255", Inner { ttl: 255, ..tcp6 }, v6, None),
        row("the way out is tagged, over IPv4", tcp4, v4, Some(100)),
        row("the way out is tagged, over IPv6", tcp6, v6, Some(4094)),
    ];
    for row in rows {
        let mut dataplane = dataplane(row.server, row.vlan);
        let outer_len = if row.server.is_ipv4() { 20 } else { 40 };
        let room = outer_len + if row.vlan.is_some() { 4 } else { 0 };
        let mut frames = [steered(room, &packet(&row.inner))];
        let mut verdicts = [Verdict::Drop(lockstep_plan::DropReason::NoVip)];
        dataplane.process(
            Micros::new(0),
            &[PortId(0); BURST],
            &mut frames,
            &mut verdicts,
        );
        let [out] = frames;

        let expected = expected(&row, &out);
        let length = expected.len();
        assert_eq!(
            verdicts[0],
            Verdict::Forward {
                port: PortId(3),
                length: length as u16
            },
            "{}",
            row.description
        );
        assert_eq!(out[..length], expected, "{}", row.description);
    }
}

/// The frame that must leave. The flow label is the engine's to choose: taken from `out`, where it
/// must not be 0 (RFC 6437, section 3: that would say there is none).
fn expected(row: &Row, out: &[u8]) -> Vec<u8> {
    let inner = Inner {
        ttl: row.inner.ttl - 1,
        ..row.inner
    };
    let inner_packet = packet(&inner);
    let protocol = if inner.version == 4 {
        IpNumber::IPV4
    } else {
        IpNumber::IPV6
    };
    let mut frame = link(row);
    match row.server {
        IpAddr::V4(server) => {
            let length = inner_packet.len() as u16;
            let mut outer =
                Ipv4Header::new(length, 64, protocol, ENGINE_V4.octets(), server.octets()).unwrap();
            outer.dscp = IpDscp::try_new(inner.dscp).unwrap();
            outer.ecn = IpEcn::try_new(inner.ecn).unwrap();
            // RFC 4213, section 3.2.2 for IPv6 inside; RFC 6864, section 4.1 for the identification.
            outer.dont_fragment = inner.dont_fragment || inner.version == 6;
            outer.identification = u16::from(!outer.dont_fragment);
            outer.header_checksum = outer.calc_header_checksum();
            frame.extend(outer.to_bytes());
        }
        IpAddr::V6(server) => {
            let at = frame.len();
            let label = u32::from_be_bytes([0, out[at + 1] & 0xf, out[at + 2], out[at + 3]]);
            assert_ne!(label, 0, "{}", row.description);
            let outer = Ipv6Header {
                traffic_class: inner.dscp << 2 | inner.ecn,
                flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
                payload_length: inner_packet.len() as u16,
                next_header: protocol,
                hop_limit: 64,
                source: ENGINE_V6.octets(),
                destination: server.octets(),
            };
            frame.extend(outer.to_bytes());
        }
    }
    frame.extend(inner_packet);
    frame
}

fn link(row: &Row) -> Vec<u8> {
    let ip = if row.server.is_ipv4() {
        EtherType::IPV4
    } else {
        EtherType::IPV6
    };
    let ether_type = if row.vlan.is_some() {
        EtherType::VLAN_TAGGED_FRAME
    } else {
        ip
    };
    let header = Ethernet2Header {
        source: BALANCER,
        destination: NEXT_HOP,
        ether_type,
    };
    let mut frame = header.to_bytes().to_vec();
    if let Some(id) = row.vlan {
        frame.extend(id.to_be_bytes());
        frame.extend(ip.0.to_be_bytes());
    }
    frame
}

/// A whole IP packet with nine bytes of payload.
fn packet(inner: &Inner) -> Vec<u8> {
    let payload = b"lockstep!";
    let ports = (40_000, 80);
    let (source4, vip4) = (CLIENT_V4.octets(), VIP_V4.octets());
    let (source6, vip6) = (CLIENT_V6.octets(), VIP_V6.octets());
    let length = (payload.len()
        + if inner.protocol == IpNumber::TCP {
            20
        } else {
            8
        }) as u16;
    let mut v4 = Ipv4Header::new(length, inner.ttl, inner.protocol, source4, vip4).unwrap();
    v4.dscp = IpDscp::try_new(inner.dscp).unwrap();
    v4.ecn = IpEcn::try_new(inner.ecn).unwrap();
    v4.dont_fragment = inner.dont_fragment;
    v4.identification = 0x1234;
    v4.header_checksum = v4.calc_header_checksum();
    let v6 = Ipv6Header {
        traffic_class: inner.dscp << 2 | inner.ecn,
        flow_label: Ipv6FlowLabel::try_new(0x54321).unwrap(),
        payload_length: length,
        next_header: inner.protocol,
        hop_limit: inner.ttl,
        source: source6,
        destination: vip6,
    };
    let transport = if inner.protocol == IpNumber::TCP {
        let mut tcp = TcpHeader::new(ports.0, ports.1, 1, 1024);
        tcp.syn = true;
        tcp.checksum = match inner.version {
            4 => tcp.calc_checksum_ipv4(&v4, payload).unwrap(),
            _ => tcp.calc_checksum_ipv6(&v6, payload).unwrap(),
        };
        tcp.to_bytes().to_vec()
    } else {
        let udp = match inner.version {
            4 => UdpHeader::with_ipv4_checksum(ports.0, ports.1, &v4, payload).unwrap(),
            _ => UdpHeader::with_ipv6_checksum(ports.0, ports.1, &v6, payload).unwrap(),
        };
        udp.to_bytes().to_vec()
    };
    let ip = if inner.version == 4 {
        v4.to_bytes().to_vec()
    } else {
        v6.to_bytes().to_vec()
    };
    [ip, transport, payload.to_vec()].concat()
}

/// A frame as the XDP program hands it over: `room` bytes between Ethernet header and packet, of
/// which the first two say how many.
fn steered(room: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [BALANCER, CLIENT].concat();
    frame.extend(STEER_ETHERTYPE.to_be_bytes());
    frame.extend(room.to_be_bytes());
    // No VLAN tag came with it; the rest is whatever was there.
    frame.extend([0; 2]);
    frame.resize(14 + usize::from(room), 0xee);
    frame.extend(packet);
    // Ethernet padding: not part of the packet, and must not leave.
    frame.extend([0xdd; 6]);
    frame
}

fn dataplane(server: IpAddr, vlan: Option<u16>) -> Dataplane {
    let vip = |address: IpAddr, protocol| lockstep_plan::Vip::new(address, 80, protocol).unwrap();
    let (tcp, udp) = (lockstep_plan::Protocol::Tcp, lockstep_plan::Protocol::Udp);
    let (v4, v6) = (IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6));
    let service = Service {
        name: ServiceName::new("web").unwrap(),
        vips: vec![vip(v4, tcp), vip(v4, udp), vip(v6, tcp), vip(v6, udp)],
        mode: Mode::TUNNEL,
        backends: vec![Backend {
            name: "s1".to_owned(),
            address: server,
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            port: None,
            health: Health::UNKNOWN,
        }],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let addresses = EngineAddresses {
        v4: Some(ENGINE_V4),
        v6: Some(ENGINE_V6),
    };
    let link = LinkHeader {
        destination: NEXT_HOP,
        source: BALANCER,
        vlan,
    };
    let route = Route {
        port: PortId(3),
        link,
        mtu: 1600,
    };
    let snapshot = Snapshot::new(1, vec![service]).unwrap();
    let tables = Tables::compile(&Tables::default(), &snapshot, addresses, |_| {
        NextHop::Via(route)
    })
    .unwrap();
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 64,
        flows_v6: 64,
        seed: 1,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    dataplane
}
