//! Steered frame in, tunneled frame out, byte for byte; then read back by etherparse and smoltcp.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket};
use lockstep_wire::{LinkHeader, NoRoom, Outer, parse};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::packet::*;

const BALANCER_4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const BACKEND_4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const BALANCER_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const BACKEND_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
const NEXT_HOP: [u8; 6] = [2, 1, 1, 1, 1, 1];
const OURS: [u8; 6] = [2, 2, 2, 2, 2, 2];
const ID: u16 = 0xbeef;

fn outer_4() -> Outer {
    Outer::v4(BALANCER_4, BACKEND_4)
}

fn outer_6() -> Outer {
    Outer::v6(BALANCER_6, BACKEND_6)
}

fn link(vlan: Option<u16>) -> LinkHeader {
    LinkHeader {
        destination: NEXT_HOP,
        source: OURS,
        vlan,
    }
}

/// The frame as it leaves, after the push.
fn push(outer: &Outer, packet: &[u8], vlan: Option<u16>) -> Vec<u8> {
    let room = outer.room(vlan.is_some());
    let mut frame = padded(steered(room, packet), 9);
    let headers = parse(&frame).expect("a good frame");
    let length = outer
        .push(&mut frame, &headers, &link(vlan), ID)
        .expect("room that fits");
    frame.truncate(length);
    frame
}

/// A frame built field by field, from the next hop's address to the end of the packet.
fn expected(vlan: Option<u16>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let tag: Vec<_> = vlan.map(|id| (0x8100, id)).into_iter().collect();
    let mut frame = ethernet(&tag, ethertype, packet);
    frame[..6].copy_from_slice(&NEXT_HOP);
    frame[6..12].copy_from_slice(&OURS);
    frame
}

/// What the outer IPv4 header should be: (description, inner packet, inner packet a hop later,
/// protocol, DS field, identification, flags).
type Row = (&'static str, Vec<u8>, Vec<u8>, u8, u8, u16, u16);

fn rows() -> Vec<Row> {
    let v4 = |change: fn(&mut V4)| {
        let mut v4 = V4::new(UDP, with_checksum(UDP, udp(b"the payload"), false));
        change(&mut v4);
        let before = v4.build();
        v4.ttl -= 1;
        (before, v4.build())
    };
    let v6 = |change: fn(&mut V6)| {
        let mut v6 = V6::new(TCP, with_checksum(TCP, tcp(0x18, b"the payload"), true));
        change(&mut v6);
        let before = v6.build();
        v6.hop_limit -= 1;
        (before, v6.build())
    };
    let row = |description, (before, after), protocol, ds_field, id, flags| {
        (description, before, after, protocol, ds_field, id, flags)
    };
    vec![
        row("IPv4 that may be fragmented", v4(|_| ()), 4, 0, ID, 0),
        row(
            "IPv4 with DF",
            v4(|v4| v4.flags_and_offset = 0x4000),
            4,
            0,
            0,
            0x4000,
        ),
        row(
            "IPv4, the reserved flag stays",
            v4(|v4| v4.flags_and_offset = 0x8000),
            4,
            0,
            ID,
            0,
        ),
        row(
            "IPv4, EF and ECT(0)",
            v4(|v4| v4.ds_field = 0xba),
            4,
            0xba,
            ID,
            0,
        ),
        row("IPv4, CE", v4(|v4| v4.ds_field = 0x03), 4, 0x03, ID, 0),
        row("IPv4, TTL 2", v4(|v4| v4.ttl = 2), 4, 0, ID, 0),
        row("IPv4, TTL 255", v4(|v4| v4.ttl = 255), 4, 0, ID, 0),
        row(
            "IPv4 with options",
            v4(|v4| v4.options = vec![7, 4, 4, 0]),
            4,
            0,
            ID,
            0,
        ),
        row("IPv6", v6(|_| ()), 41, 0, 0, 0x4000),
        row(
            "IPv6, AF41 and ECT(1)",
            v6(|v6| v6.traffic_class = 0x89),
            41,
            0x89,
            0,
            0x4000,
        ),
        row(
            "IPv6, hop limit 2",
            v6(|v6| v6.hop_limit = 2),
            41,
            0,
            0,
            0x4000,
        ),
        row(
            "IPv6 with extensions",
            v6(|v6| v6.extensions.push((60, PADDING.to_vec()))),
            41,
            0,
            0,
            0x4000,
        ),
    ]
}

#[test]
fn tunnels_over_ipv4_are_byte_exact() {
    for (description, before, after, protocol, ds_field, id, flags) in rows() {
        for vlan in [None, Some(0x0abc)] {
            let mut outer = V4::new(protocol, after.clone());
            (outer.source, outer.destination) = (BALANCER_4, BACKEND_4);
            (outer.ds_field, outer.id, outer.flags_and_offset) = (ds_field, id, flags);
            let out = push(&outer_4(), &before, vlan);
            assert_eq!(
                out,
                expected(vlan, 0x0800, &outer.build()),
                "{description}, {vlan:?}"
            );
        }
    }
}

#[test]
fn tunnels_over_ipv6_are_byte_exact() {
    for (description, before, after, protocol, ds_field, ..) in rows() {
        for vlan in [None, Some(0x0abc)] {
            let out = push(&outer_6(), &before, vlan);
            let at = if vlan.is_some() { 18 } else { 14 };
            let mut outer = V6::new(protocol, after.clone());
            (outer.source, outer.destination) = (BALANCER_6, BACKEND_6);
            outer.traffic_class = ds_field;
            // What the label should be has a test of its own.
            outer.flow_label = u32::from_be_bytes(out[at..at + 4].try_into().unwrap()) & 0xf_ffff;
            assert_eq!(
                out,
                expected(vlan, 0x86dd, &outer.build()),
                "{description}, {vlan:?}"
            );
        }
    }
}

#[test]
fn flow_labels_tell_flows_apart_and_are_never_zero() {
    let label = |port: u16| {
        let mut datagram = udp(b"");
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        let out = push(&outer_6(), &V4::new(UDP, datagram).build(), None);
        u32::from_be_bytes(out[14..18].try_into().unwrap()) & 0xf_ffff
    };
    assert_eq!(label(1), label(1));
    let mut labels: Vec<u32> = (0..1000).map(label).collect();
    assert!(labels.iter().all(|&label| label != 0));
    labels.sort_unstable();
    labels.dedup();
    assert!(
        labels.len() > 990,
        "{} labels for 1,000 flows",
        labels.len()
    );
}

#[test]
fn etherparse_reads_the_tunnel_and_what_is_inside() {
    for (description, before, after, protocol, ..) in rows() {
        for vlan in [None, Some(0x0abc)] {
            for outer in [outer_4(), outer_6()] {
                let out = push(&outer, &before, vlan);
                let packet = SlicedPacket::from_ethernet(&out).unwrap();
                assert_eq!(
                    packet.vlan_ids().len(),
                    usize::from(vlan.is_some()),
                    "{description}"
                );
                let net = packet.net.unwrap();
                match &net {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header().to_header();
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        assert_eq!(header.destination, BACKEND_4.octets());
                        assert_eq!(header.time_to_live, 64);
                    }
                    NetSlice::Ipv6(ip) => {
                        assert_eq!(ip.header().destination_addr(), BACKEND_6);
                        assert_eq!(ip.header().hop_limit(), 64);
                    }
                    NetSlice::Arp(_) => panic!("{description}: ARP"),
                }
                let payload = net.ip_payload_ref().unwrap();
                assert_eq!(payload.ip_number.0, protocol, "{description}");
                assert_eq!(payload.payload, after, "{description}");

                let inner = SlicedPacket::from_ip(payload.payload).unwrap();
                if let Some(NetSlice::Ipv4(ip)) = &inner.net {
                    let header = ip.header().to_header();
                    // etherparse's header has no place for the reserved flag.
                    if ip.header().slice()[6] & 0x80 == 0 {
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                    }
                }
                assert!(inner.transport.is_some(), "{description}");
            }
        }
    }
}

#[test]
fn smoltcp_reads_the_tunnel_and_both_checksums() {
    for (description, before, ..) in rows() {
        for outer in [outer_4(), outer_6()] {
            let out = push(&outer, &before, None);
            let frame = EthernetFrame::new_checked(&out[..]).unwrap();
            assert_eq!(frame.dst_addr().0, NEXT_HOP);
            assert_eq!(frame.src_addr().0, OURS);
            let (protocol, inner) = match frame.ethertype() {
                EthernetProtocol::Ipv4 => {
                    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
                    assert!(ip.verify_checksum(), "{description}");
                    assert_eq!((ip.src_addr(), ip.dst_addr()), (BALANCER_4, BACKEND_4));
                    (ip.next_header(), ip.payload())
                }
                EthernetProtocol::Ipv6 => {
                    let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
                    assert_eq!((ip.src_addr(), ip.dst_addr()), (BALANCER_6, BACKEND_6));
                    (ip.next_header(), ip.payload())
                }
                other => panic!("{description}: {other}"),
            };
            match u8::from(protocol) {
                4 => {
                    let ip = Ipv4Packet::new_checked(inner).unwrap();
                    assert!(ip.verify_checksum(), "{description}");
                    assert_eq!(ip.next_header(), IpProtocol::Udp);
                }
                41 => {
                    let ip = Ipv6Packet::new_checked(inner).unwrap();
                    assert_eq!((ip.src_addr(), ip.dst_addr()), (CLIENT_6, VIP_6));
                }
                other => panic!("{description}: protocol {other}"),
            }
        }
    }
}

#[test]
fn a_vlan_id_has_12_bits() {
    let packet = V4::new(UDP, udp(b"")).build();
    assert_eq!(
        push(&outer_4(), &packet, Some(0xffff))[12..18],
        [0x81, 0, 0x0f, 0xff, 0x08, 0]
    );
}

#[test]
fn room_that_does_not_fit_is_refused_and_the_frame_left_alone() {
    let packet = V4::new(UDP, udp(b"payload")).build();
    let rows = [
        ("less by a tag", outer_4(), Some(1), 20),
        ("more by a tag", outer_4(), None, 24),
        ("room for IPv4, tunnel over IPv6", outer_6(), None, 20),
        ("room for IPv6, tunnel over IPv4", outer_4(), None, 40),
        ("less than any header", outer_4(), None, 4),
    ];
    for (description, outer, vlan, room) in rows {
        let frame = steered(room, &packet);
        let mut pushed = frame.clone();
        let headers = parse(&frame).unwrap();
        assert_eq!(
            outer.push(&mut pushed, &headers, &link(vlan), ID),
            Err(NoRoom),
            "{description}"
        );
        assert_eq!(pushed, frame, "{description}");
    }
    let frame = ethernet(&[], 0x0800, &packet);
    let headers = parse(&frame).unwrap();
    assert_eq!(
        outer_4().push(&mut frame.clone(), &headers, &link(None), ID),
        Err(NoRoom)
    );
}

#[test]
fn headers_of_another_frame_are_refused() {
    let long = steered(20, &V4::new(UDP, udp(&[0; 100])).build());
    let mut headers = parse(&long).unwrap();
    let short = steered(20, &V4::new(UDP, udp(b"")).build());
    for length in 0..short.len() {
        let mut frame = short[..length].to_vec();
        assert_eq!(
            outer_4().push(&mut frame, &headers, &link(None), ID),
            Err(NoRoom)
        );
        assert_eq!(frame, short[..length]);
    }
    for (network, length) in [
        (0, 28),
        (14, 28),
        (33, 28),
        (35, 28),
        (34, 19),
        (34, 0),
        (34, 65_530),
    ] {
        (headers.network, headers.length) = (network, length);
        let mut frame = vec![0x45; 65_600];
        let refused = outer_4().push(&mut frame, &headers, &link(None), ID);
        assert_eq!(refused, Err(NoRoom), "network {network}, length {length}");
        assert!(frame.iter().all(|&byte| byte == 0x45));
    }
}

#[test]
fn a_ttl_of_zero_does_not_wrap() {
    let mut frame = steered(20, &V4::new(UDP, udp(b"")).build());
    let headers = parse(&frame).unwrap();
    let mut gone = V4::new(UDP, udp(b""));
    gone.ttl = 0;
    frame[34..].copy_from_slice(&gone.build());
    outer_4()
        .push(&mut frame, &headers, &link(None), ID)
        .unwrap();
    assert_eq!(frame[34..], gone.build());
}
