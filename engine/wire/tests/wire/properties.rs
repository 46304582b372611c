//! What holds for all packets, by proptest.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{SlicedPacket, TransportSlice};
use lockstep_wire::ipv4::{self, Ipv4Header};
use lockstep_wire::{FlowKey, LinkHeader, Outer, parse};
use proptest::prelude::*;

use crate::invariants;
use crate::packet::*;

fn segment() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let data = || prop::collection::vec(any::<u8>(), 0..64);
    let with_ports = |mut segment: Vec<u8>, ports: [u8; 4]| {
        segment[..4].copy_from_slice(&ports);
        segment
    };
    prop_oneof![
        (any::<u8>(), data(), any::<[u8; 4]>())
            .prop_map(move |(flags, data, ports)| (TCP, with_ports(tcp(flags, &data), ports))),
        (data(), any::<[u8; 4]>())
            .prop_map(move |(data, ports)| (UDP, with_ports(udp(&data), ports))),
    ]
}

prop_compose! {
    fn v4_packet()(
        (protocol, payload) in segment(),
        ds_field in any::<u8>(),
        id in any::<u16>(),
        flag in prop_oneof![Just(0), Just(0x4000)],
        ttl in 2u8..,
        (source, destination) in any::<(u32, u32)>(),
        options in 0usize..=10,
    ) -> Vec<u8> {
        let options = vec![1; options * 4];
        let (source, destination) = (source.into(), destination.into());
        let flags_and_offset = flag;
        let version_and_length = None;
        let total_length = None;
        V4 {
            version_and_length, ds_field, total_length, id, flags_and_offset, ttl, protocol,
            source, destination, options, payload,
        }.build()
    }
}

prop_compose! {
    fn v6_packet()(
        (protocol, payload) in segment(),
        traffic_class in any::<u8>(),
        flow_label in 0u32..1 << 20,
        hop_limit in 2u8..,
        (source, destination) in any::<(u128, u128)>(),
        extensions in 0usize..=8,
    ) -> Vec<u8> {
        let mut v6 = V6::new(protocol, payload);
        (v6.traffic_class, v6.flow_label, v6.hop_limit) = (traffic_class, flow_label, hop_limit);
        (v6.source, v6.destination) = (source.into(), destination.into());
        (0..extensions).fold(v6, |v6, _| v6.extension(60, &PADDING)).build()
    }
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![v4_packet(), v6_packet()]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let room = prop_oneof![Just(20u16), Just(24), Just(40), Just(44)];
    let ordinary = |packet: Vec<u8>| {
        ethernet(
            &[],
            if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd },
            &packet,
        )
    };
    prop_oneof![
        (room, packet()).prop_map(|(room, packet)| steered(room, &packet)),
        packet().prop_map(ordinary),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        invariants::check(&bytes);
    }

    #[test]
    fn valid_frames_are_accepted_and_keep_the_invariants(
        frame in frame(), padding in 0usize..40,
    ) {
        prop_assert!(invariants::check(&padded(frame, padding)));
    }

    #[test]
    fn mutated_frames_keep_the_invariants(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<Option<prop::sample::Index>>(),
    ) {
        let mut frame = frame;
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(length) = length {
            frame.truncate(length.index(frame.len() + 1));
        }
        invariants::check(&frame);
    }

    #[test]
    fn etherparse_finds_the_same_flow(packet in packet()) {
        let is_v4 = packet[0] >> 4 == 4;
        let frame = ethernet(&[], if is_v4 { 0x0800 } else { 0x86dd }, &packet);
        let headers = parse(&frame).unwrap();
        let other = SlicedPacket::from_ethernet(&frame).unwrap();
        let (ports, flags) = match other.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                ((tcp.source_port(), tcp.destination_port()), tcp.slice()[13])
            }
            TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), 0),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!((headers.key.source_port(), headers.key.destination_port()), ports);
        prop_assert_eq!(headers.tcp.bits(), flags);
        let addresses = if is_v4 {
            let address = |at: usize| {
                Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()).into()
            };
            (address(12), address(16))
        } else {
            let address = |at: usize| {
                Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()).into()
            };
            (address(8), address(24))
        };
        prop_assert_eq!(
            (headers.key.source_address(), headers.key.destination_address()),
            addresses
        );
    }

    /// Decapsulated by hand, as the backend does: strip the outer header, and the rest is the
    /// packet with one hop less.
    #[test]
    fn a_pushed_packet_comes_out_of_the_tunnel_one_hop_later(
        packet in packet(), over_v6 in any::<bool>(), vlan in any::<Option<u16>>(), id in any::<u16>(),
    ) {
        let outer = if over_v6 {
            Outer::v6(1u128.into(), 2u128.into())
        } else {
            Outer::v4(1.into(), 2.into())
        };
        let link = LinkHeader { destination: [1; 6], source: [2; 6], vlan };
        let mut frame = steered(outer.room(vlan.is_some()), &packet);
        let headers = parse(&frame).unwrap();
        let length = outer.push(&mut frame, &headers, &link, id).unwrap();
        let inner = &frame[link.len() + usize::from(outer.len())..length];

        let mut later = packet.clone();
        match headers.key {
            FlowKey::V4(_) => {
                later[8] -= 1;
                let mut ip = smoltcp::wire::Ipv4Packet::new_unchecked(&mut later[..]);
                ip.fill_checksum();
            }
            FlowKey::V6(_) => later[7] -= 1,
        }
        prop_assert_eq!(inner, later);
    }

    /// All TTLs, any header: the incremental checksum is the one computed in full.
    #[test]
    fn decrementing_the_ttl_keeps_the_checksum_right(packet in v4_packet(), ttl in any::<u8>()) {
        let mut header: [u8; 20] = packet[..20].try_into().unwrap();
        (header[0], header[8]) = (0x45, ttl);
        smoltcp::wire::Ipv4Packet::new_unchecked(&mut header[..]).fill_checksum();
        let mut later = header;
        later[8] = ttl.saturating_sub(1);
        smoltcp::wire::Ipv4Packet::new_unchecked(&mut later[..]).fill_checksum();
        ipv4::decrement_ttl(&mut header);
        prop_assert_eq!(header, later);
        prop_assert_eq!(Ipv4Header::from(&header).ttl(), ttl.saturating_sub(1));
    }
}

/// Every word that the TTL's can be, with every checksum where a carry starts or ends.
#[test]
fn decrementing_the_ttl_carries_as_equation_3_does() {
    for ttl in 0..=255u8 {
        for id in 0..=u16::MAX {
            // The id shifts the checksum through all its values.
            if ttl % 51 != 0 && id % 257 != 0 {
                continue;
            }
            let mut header = [
                0x45, 0, 0, 20, 0, 0, 0, 0, ttl, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
            ];
            header[4..6].copy_from_slice(&id.to_be_bytes());
            let sum = lockstep_wire::checksum::checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            ipv4::decrement_ttl(&mut header);
            let stored = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&[0, 0]);
            assert_eq!(
                stored,
                lockstep_wire::checksum::checksum(&header),
                "TTL {ttl}, id {id}"
            );
        }
    }
}
