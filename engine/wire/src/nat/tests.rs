use super::{place, rewrite_v4, rewrite_v6, way_back};
use crate::{FlowKey, FlowKey4, FlowKey6, LinkHeader, parse};
use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};
use proptest::prelude::*;
use std::vec::Vec;

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A frame of a flow, checksums as etherparse computes them.
fn frame(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT, BALANCER);
    let ip = match key {
        FlowKey::V4(key) => {
            ethernet.ipv4(key.source.to_be_bytes(), key.destination.to_be_bytes(), 64)
        }
        FlowKey::V6(key) => ethernet.ipv6(key.source, key.destination, 64),
    };
    let mut bytes = Vec::new();
    if key.protocol() == crate::protocol::TCP {
        ip.tcp(key.source_port(), key.destination_port(), 7, 1024)
            .write(&mut bytes, payload)
            .unwrap();
    } else {
        ip.udp(key.source_port(), key.destination_port())
            .write(&mut bytes, payload)
            .unwrap();
    }
    bytes
}

/// Rewrites a frame in place.
fn rewrite(frame: &mut [u8], to: &FlowKey) {
    let headers = parse(frame).unwrap();
    let (network, transport) = (usize::from(headers.network), usize::from(headers.transport));
    let packet = &mut frame[network..network + usize::from(headers.length)];
    let at = Some(transport - network);
    match (&headers.key, to) {
        (FlowKey::V4(from), FlowKey::V4(to)) => rewrite_v4(packet, at, from, to),
        (FlowKey::V6(from), FlowKey::V6(to)) => rewrite_v6(packet, at, from, to),
        _ => panic!("one IP version"),
    }
    .unwrap();
}

/// Whether etherparse, reading the frame again, computes the checksums that are in it.
fn is_right(frame: &[u8]) -> bool {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = packet.payload.slice();
    let net = packet.net.unwrap();
    let (v4, v6) = match net {
        etherparse::NetHeaders::Ipv4(v4, _) => (Some(v4), None),
        etherparse::NetHeaders::Ipv6(v6, _) => (None, Some(v6)),
        etherparse::NetHeaders::Arp(_) => panic!("not IP"),
    };
    let header_is_right = v4
        .as_ref()
        .is_none_or(|v4| v4.calc_header_checksum() == v4.header_checksum);
    let (written, computed) = match (packet.transport.unwrap(), v4, v6) {
        (TransportHeader::Tcp(tcp), Some(v4), _) => {
            (tcp.checksum, tcp.calc_checksum_ipv4(&v4, payload).unwrap())
        }
        (TransportHeader::Tcp(tcp), _, Some(v6)) => {
            (tcp.checksum, tcp.calc_checksum_ipv6(&v6, payload).unwrap())
        }
        (TransportHeader::Udp(udp), Some(v4), _) => {
            (udp.checksum, udp.calc_checksum_ipv4(&v4, payload).unwrap())
        }
        (TransportHeader::Udp(udp), _, Some(v6)) => {
            (udp.checksum, udp.calc_checksum_ipv6(&v6, payload).unwrap())
        }
        _ => panic!("neither TCP nor UDP"),
    };
    header_is_right && written == computed
}

/// Two flows of one IP version and protocol.
fn two_flows() -> impl Strategy<Value = (FlowKey, FlowKey)> {
    let ends = || {
        (
            any::<[u8; 16]>(),
            any::<u16>(),
            any::<[u8; 16]>(),
            any::<u16>(),
        )
    };
    (any::<bool>(), any::<bool>(), ends(), ends()).prop_map(|(tcp, v6, one, other)| {
        let protocol = if tcp { 6 } else { 17 };
        let key = |(source, sport, destination, dport): ([u8; 16], u16, [u8; 16], u16)| {
            if v6 {
                FlowKey6::new(source.into(), sport, destination.into(), dport, protocol).into()
            } else {
                let short = |a: [u8; 16]| [a[0], a[1], a[2], a[3]].into();
                FlowKey::from(FlowKey4::new(
                    short(source),
                    sport,
                    short(destination),
                    dport,
                    protocol,
                ))
            }
        };
        (key(one), key(other))
    })
}

proptest! {
    #[test]
    fn a_rewritten_packet_is_the_other_flows_with_right_checksums(
        (from, to) in two_flows(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = frame(&from, &payload);
        rewrite(&mut bytes, &to);
        prop_assert_eq!(parse(&bytes).unwrap().key, to);
        prop_assert!(is_right(&bytes));
        // Only the TTL tells it from a packet that was made so.
        let mut made = frame(&to, &payload);
        let ttl = if matches!(to, FlowKey::V4(_)) { 22 } else { 21 };
        prop_assert_eq!(bytes[ttl] + 1, made[ttl]);
        rewrite(&mut made, &to);
        prop_assert_eq!(&bytes, &made);
        // And back.
        rewrite(&mut bytes, &from);
        prop_assert_eq!(parse(&bytes).unwrap().key, from);
        prop_assert!(is_right(&bytes));
    }

    #[test]
    fn a_damaged_packet_stays_damaged((from, to) in two_flows(), bit in 0_usize..64) {
        let mut bytes = frame(&from, &[0x55; 8]);
        let last = bytes.len() - 1;
        bytes[last - bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!is_right(&bytes));
        rewrite(&mut bytes, &to);
        prop_assert!(!is_right(&bytes));
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let key =
        |port| FlowKey4::new([192, 0, 2, 1].into(), port, [192, 0, 2, 2].into(), 53, 17).into();
    let mut bytes = frame(&key(1000), b"question");
    bytes[40..42].fill(0);
    rewrite(&mut bytes, &key(2000));
    assert_eq!(bytes[40..42], [0, 0]);
    assert_eq!(parse(&bytes).unwrap().key, key(2000));
}

#[test]
fn a_checksum_that_comes_to_zero_is_sent_as_all_ones() {
    // Among all ports of a datagram one makes the checksum zero.
    let key =
        |port| FlowKey4::new([192, 0, 2, 1].into(), port, [192, 0, 2, 2].into(), 53, 17).into();
    let mut seen = 0;
    for port in 0..=u16::MAX {
        let mut bytes = frame(&key(1), b"question");
        rewrite(&mut bytes, &key(port));
        assert_ne!(bytes[40..42], [0, 0], "port {port}");
        seen += usize::from(bytes[40..42] == [0xff, 0xff]);
    }
    assert_eq!(seen, 1);
}

#[test]
fn a_later_fragment_has_its_addresses_rewritten_only() {
    let from = FlowKey4::new([192, 0, 2, 1].into(), 0, [192, 0, 2, 2].into(), 0, 17);
    let to = FlowKey4::new([10, 0, 0, 1].into(), 0, [10, 0, 0, 2].into(), 0, 17);
    let mut bytes = frame(&from.into(), b"some data");
    let before = bytes[34..].to_vec();
    rewrite_v4(&mut bytes[14..], None, &from, &to).unwrap();
    assert_eq!(bytes[34..], before);
    let (header, _) = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap();
    assert_eq!(
        (header.source, header.destination),
        ([10, 0, 0, 1], [10, 0, 0, 2])
    );
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
}

#[test]
fn frames_are_placed_where_their_bytes_have_room() {
    let key = FlowKey4::new([192, 0, 2, 1].into(), 5, [192, 0, 2, 2].into(), 53, 17).into();
    let plain = frame(&key, b"question");
    let packet = plain[14..].to_vec();
    let mut tagged = plain[..12].to_vec();
    tagged.extend([0x81, 0, 0xe0, 7, 8, 0]);
    tagged.extend(&packet);
    let link = |vlan| LinkHeader {
        destination: [4; 6],
        source: [6; 6],
        vlan,
    };
    let rows = [
        (&plain, None, Some(14)),
        (&plain, Some(9), None),
        (&tagged, None, Some(14)),
        (&tagged, Some(9), Some(18)),
    ];
    for (frame, vlan, expected) in rows {
        let mut frame = frame.clone();
        let headers = parse(&frame).unwrap();
        let before = frame.clone();
        let length = place(&mut frame, &headers, &link(vlan));
        assert_eq!(length, expected.map(|at| at + packet.len()));
        match expected {
            Some(at) => {
                let placed = parse(&frame).unwrap();
                assert_eq!(usize::from(placed.network), at);
                assert_eq!(frame[at..at + packet.len()], packet);
                assert_eq!(frame[..6], [4; 6]);
            }
            None => assert_eq!(frame, before),
        }
    }
}

#[test]
fn the_way_back_exchanges_addresses_in_the_same_vlan() {
    let key = FlowKey4::new([192, 0, 2, 1].into(), 5, [192, 0, 2, 2].into(), 53, 17).into();
    let plain = frame(&key, b"question");
    let tagged = |tags: &[[u8; 4]]| {
        let mut bytes = plain[..12].to_vec();
        bytes.extend(tags.concat());
        bytes.extend(&plain[12..]);
        bytes
    };
    let rows = [
        (tagged(&[]), Some(None)),
        (tagged(&[[0x81, 0, 0xe1, 7]]), Some(Some(0x107))),
        (tagged(&[[0x81, 0, 0xe0, 0]]), Some(None)),
        (tagged(&[[0x88, 0xa8, 0, 3], [0x81, 0, 0, 7]]), None),
    ];
    for (frame, expected) in rows {
        let back = way_back(&frame, &parse(&frame).unwrap()).ok();
        let expected = expected.map(|vlan| LinkHeader {
            destination: CLIENT,
            source: BALANCER,
            vlan,
        });
        assert_eq!(back, expected);
    }
}
