//! Tunnels over UDP: read back by etherparse, and compared with IP in IP.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lockstep_wire::{LinkHeader, NoRoom, Outer, parse};

use crate::packet::*;

const BALANCER_4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const BACKEND_4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const BALANCER_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const BACKEND_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
const PORT: u16 = 6080;
const ID: u16 = 0xbeef;

fn over_v4() -> Outer {
    Outer::gue_v4(BALANCER_4, BACKEND_4, PORT)
}

fn over_v6() -> Outer {
    Outer::gue_v6(BALANCER_6, BACKEND_6, PORT)
}

fn push(outer: &Outer, packet: &[u8], vlan: Option<u16>) -> Vec<u8> {
    let mut frame = padded(steered(outer.room(vlan.is_some()), packet), 9);
    let headers = parse(&frame).expect("a good frame");
    let link = LinkHeader {
        destination: [2, 1, 1, 1, 1, 1],
        source: [2, 2, 2, 2, 2, 2],
        vlan,
    };
    let length = outer
        .push(&mut frame, &headers, &link, ID)
        .expect("room that fits");
    frame.truncate(length);
    frame
}

/// Packets, each as it comes and as it is a hop later.
fn packets() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
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
    let row = |says, (before, after)| (says, before, after);
    vec![
        row("IPv4", v4(|_| ())),
        row("IPv4 with DF", v4(|v4| v4.flags_and_offset = 0x4000)),
        row("IPv4, EF and ECT(0)", v4(|v4| v4.ds_field = 0xba)),
        row("IPv6", v6(|_| ())),
        row("IPv6, CE", v6(|v6| v6.traffic_class = 3)),
    ]
}

#[test]
fn etherparse_reads_udp_to_the_port_and_the_packet_inside() {
    for (says, before, after) in packets() {
        for vlan in [None, Some(0x0abc)] {
            for outer in [over_v4(), over_v6()] {
                let out = push(&outer, &before, vlan);
                // Strict: lengths of IP and UDP must agree with the frame.
                let packet = SlicedPacket::from_ethernet(&out).unwrap();
                match &packet.net {
                    Some(NetSlice::Ipv4(ip)) => {
                        let header = ip.header().to_header();
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        assert_eq!(header.source, BALANCER_4.octets(), "{says}");
                        assert_eq!(header.destination, BACKEND_4.octets(), "{says}");
                        assert_eq!(usize::from(header.total_len), 28 + after.len(), "{says}");
                    }
                    Some(NetSlice::Ipv6(ip)) => {
                        assert_eq!(ip.header().source_addr(), BALANCER_6, "{says}");
                        assert_eq!(ip.header().destination_addr(), BACKEND_6, "{says}");
                        let length = usize::from(ip.header().payload_length());
                        assert_eq!(length, 8 + after.len(), "{says}");
                    }
                    other => panic!("{says}: {other:?}"),
                }
                let Some(TransportSlice::Udp(udp)) = packet.transport else {
                    panic!("{says}: no UDP");
                };
                assert_eq!(udp.destination_port(), PORT, "{says}");
                assert!(udp.source_port() >= 49_152, "{says}");
                assert_eq!(usize::from(udp.length()), 8 + after.len(), "{says}");
                assert_eq!(udp.checksum(), 0, "{says}");
                assert_eq!(udp.payload(), after, "{says}");
            }
        }
    }
}

/// DSCP, ECN, "don't fragment", identification, TTL and flow label do not depend on what carries
/// the packet.
#[test]
fn the_outer_ip_header_is_that_of_ip_in_ip_but_for_protocol_and_length() {
    for (says, before, _) in packets() {
        let gue = push(&over_v4(), &before, None);
        let ipip = push(&Outer::v4(BALANCER_4, BACKEND_4), &before, None);
        assert_eq!(gue[..16], ipip[..16], "{says}");
        assert_eq!(gue[18..23], ipip[18..23], "{says}");
        assert_eq!(gue[26..34], ipip[26..34], "{says}");
        let gue = push(&over_v6(), &before, None);
        let ipip = push(&Outer::v6(BALANCER_6, BACKEND_6), &before, None);
        assert_eq!(gue[..18], ipip[..18], "{says}");
        assert_eq!(gue[21..54], ipip[21..54], "{says}");
    }
}

#[test]
fn source_ports_tell_flows_apart_and_stay_with_them() {
    let port = |client: u16| {
        let mut datagram = udp(b"");
        datagram[..2].copy_from_slice(&client.to_be_bytes());
        let out = push(&over_v4(), &V4::new(UDP, datagram).build(), None);
        u16::from_be_bytes([out[34], out[35]])
    };
    assert_eq!(port(1), port(1));
    let ports: BTreeSet<u16> = (0..1000).map(port).collect();
    // 1,000 of 16,384 by chance: about 970 are different ones.
    assert!(ports.len() > 930, "{} ports for 1,000 flows", ports.len());
}

#[test]
fn a_tunnel_says_where_it_leads() {
    assert_eq!(over_v4().len(), 28);
    assert_eq!(over_v6().len(), 48);
    assert_eq!(over_v4().room(true), 32);
    assert_eq!(over_v6().port(), Some(PORT));
    assert_eq!(Outer::v6(BALANCER_6, BACKEND_6).port(), None);
    for outer in [over_v4(), Outer::v4(BALANCER_4, BACKEND_4)] {
        assert_eq!(outer.addresses(), (BALANCER_4.into(), BACKEND_4.into()));
    }
    for outer in [over_v6(), Outer::v6(BALANCER_6, BACKEND_6)] {
        assert_eq!(outer.addresses(), (BALANCER_6.into(), BACKEND_6.into()));
    }
}

#[test]
fn room_for_ip_in_ip_is_not_room_for_udp() {
    let packet = V4::new(UDP, udp(b"payload")).build();
    for (outer, room) in [
        (over_v4(), 20),
        (over_v4(), 32),
        (over_v6(), 40),
        (over_v6(), 28),
    ] {
        let frame = steered(room, &packet);
        let mut pushed = frame.clone();
        let headers = parse(&frame).unwrap();
        let link = LinkHeader {
            destination: [2, 1, 1, 1, 1, 1],
            source: [2, 2, 2, 2, 2, 2],
            vlan: None,
        };
        let refused = outer.push(&mut pushed, &headers, &link, ID);
        assert_eq!(refused, Err(NoRoom));
        assert_eq!(pushed, frame);
    }
}
