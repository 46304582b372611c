//! The frames, as an independent parser reads them.

#![allow(clippy::unwrap_used)]

use super::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::collections::BTreeSet;

#[test]
fn every_flow_is_a_whole_udp_packet_of_its_own_source() {
    let to = Ipv4Addr::new(203, 0, 113, 10);
    let load = Load {
        flows: PORTS + 10,
        bytes: 64,
        packets_per_second: 1,
        milliseconds: 1,
    };
    let mut sources = BTreeSet::new();
    for frame in frames([2, 0, 0, 0, 0, 9], to, &load) {
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("no IPv4: {packet:?}")
        };
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        assert_eq!(Ipv4Addr::from(header.destination), to);
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP: {:?}", packet.transport)
        };
        assert_eq!(udp.destination_port(), PORT);
        sources.insert((header.source, udp.source_port()));
    }
    assert_eq!(sources.len(), load.flows as usize);
}

#[test]
fn a_frame_is_as_long_as_it_is_said_to_be_with_its_checksum_sequence() {
    for bytes in [64, 1_400, 3_504] {
        let load = Load {
            flows: 1,
            bytes,
            packets_per_second: 1,
            milliseconds: 1,
        };
        let frames = frames([2, 0, 0, 0, 0, 9], Ipv4Addr::LOCALHOST, &load);
        let packet = SlicedPacket::from_ethernet(&frames[0]).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("no IPv4: {packet:?}")
        };
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP: {:?}", packet.transport)
        };
        assert_eq!(frames[0].len(), bytes - 4);
        assert_eq!(usize::from(ip.header().total_len()), bytes - 4 - 14);
        assert_eq!(usize::from(udp.length()), bytes - 4 - 14 - 20);
    }
}

#[test]
fn a_link_layer_address_is_twelve_digits() {
    assert_eq!(parse_mac("02ab00000109").unwrap(), [2, 0xab, 0, 0, 1, 9]);
    for wrong in [
        "",
        "02ab0000010",
        "02ab000001090",
        "02:ab:00:00:0",
        "xyab00000109",
    ] {
        assert!(parse_mac(wrong).is_err(), "{wrong}");
    }
}
