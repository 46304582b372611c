//! The headers and the Rust side say the same.

use super::*;
use crate::skeleton::steer::types;
use crate::{DECAP_ADDRESSES, TRAFFIC_ADDRESSES, TRAFFIC_QUEUES, TRAFFIC_RANGES};
use std::mem::{offset_of, size_of};

const STEER: &str = include_str!("../../steer.h");
const PACKET: &str = include_str!("../../packet.h");
const DECAP: &str = include_str!("../../decap.h");
const TRAFFIC: &str = include_str!("../../traffic.h");

fn define(header: &str, name: &str) -> u64 {
    let line = header
        .lines()
        .find_map(|line| line.strip_prefix(&format!("#define {name} ")))
        .unwrap_or_else(|| panic!("{name} is not in the header"));
    match line.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => line.parse(),
    }
    .unwrap()
}

/// The names of an enum's values without their prefix, in lower case; the last one, their number,
/// left out.
fn enumerated(header: &str, prefix: &str) -> Vec<String> {
    let body = header.split_once("enum ").unwrap().1;
    let body = body.split_once("};").unwrap().0;
    let mut names: Vec<String> = body
        .lines()
        .filter_map(|line| line.trim().strip_prefix(prefix)?.strip_suffix(','))
        .map(str::to_lowercase)
        .collect();
    assert_eq!(names.pop().as_deref(), Some("counters"));
    names
}

#[test]
fn constants_are_those_of_the_headers() {
    assert_eq!(define(STEER, "STEER_ETHERTYPE"), u64::from(STEER_ETHERTYPE));
    assert_eq!(define(STEER, "STEER_DESTINATIONS"), DESTINATIONS as u64);
    assert_eq!(define(STEER, "STEER_QUEUES"), u64::from(QUEUES));
    assert_eq!(define(STEER, "STEER_ABI"), u64::from(ABI));
    assert_eq!(define(STEER, "STEER_RANGES"), RANGES as u64);
    assert_eq!(define(STEER, "STEER_SOURCES"), SOURCES as u64);
    assert_eq!(define(STEER, "STEER_LOCALS"), LOCALS as u64);
    assert_eq!(define(STEER, "STEER_SERVICES"), u64::from(SERVICES));
    assert_eq!(define(STEER, "STEER_BACKENDS"), BACKENDS as u64);
    assert_eq!(define(STEER, "STEER_PINNED"), PINNED as u64);
    assert_eq!(define(STEER, "STEER_CHUNK"), crate::carry::CHUNK as u64);
    assert_eq!(
        define(STEER, "STEER_MAX_VLANS"),
        define(PACKET, "MAX_VLANS")
    );
    assert_eq!(define(DECAP, "DECAP_ADDRESSES"), DECAP_ADDRESSES as u64);
    assert_eq!(
        define(TRAFFIC, "TRAFFIC_ADDRESSES"),
        TRAFFIC_ADDRESSES as u64
    );
    assert_eq!(define(TRAFFIC, "TRAFFIC_RANGES"), TRAFFIC_RANGES as u64);
    assert_eq!(define(TRAFFIC, "TRAFFIC_QUEUES"), u64::from(TRAFFIC_QUEUES));
}

#[test]
fn counters_stand_in_the_order_of_the_enums() {
    assert_eq!(enumerated(STEER, "STEER_"), SteerCounters::NAMES);
    assert_eq!(enumerated(DECAP, "DECAP_"), DecapCounters::NAMES);
    assert_eq!(enumerated(TRAFFIC, "TRAFFIC_"), TrafficCounters::NAMES);
    let read = SteerCounters::read(|at| Ok::<_, ()>(u64::from(at) * 10)).unwrap();
    let values: Vec<u64> = read.iter().map(|(_, value)| value).collect();
    assert_eq!(values, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(read.no_headroom, 40);
}

#[test]
fn keys_and_values_have_the_layout_of_the_compiled_program() {
    let v4 = Destination::new("192.0.2.1".parse().unwrap(), 0x1234, Some(6));
    let key = v4.key();
    assert_eq!(key.len(), size_of::<types::steer_key>());
    let port = offset_of!(types::steer_key, port);
    assert_eq!(key[port..port + 2], [0x12, 0x34]);
    assert_eq!(key[offset_of!(types::steer_key, protocol)], 6);
    assert_eq!(
        key[..16],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]
    );
    let v6 = Destination {
        address: "::ffff:192.0.2.1".parse().unwrap(),
        ..v4
    };
    assert_eq!(v6.key(), key);

    let steered = Steered {
        room: Room::new(40).unwrap(),
        service: Some(ServiceNumber(0x1234_5678)),
    };
    let value = steered.value(0x9abc);
    assert_eq!(value.len(), size_of::<types::steer_value>());
    assert_eq!(offset_of!(types::steer_value, room), 0);
    assert_eq!(offset_of!(types::steer_value, flags), 2);
    assert_eq!(offset_of!(types::steer_value, service), 4);
    assert_eq!(value[..4], [40, 0, 0xbc, 0x9a]);
    assert_eq!(value[4..], [0x78, 0x56, 0x34, 0x12]);
}

#[test]
fn room_that_would_overwrite_the_packet_or_cannot_be_made_is_none() {
    assert_eq!(Room::new(0), Some(Room::NONE));
    assert_eq!(Room::new(3), None);
    assert!(Room::new(Room::MIN).is_some());
    assert!(Room::new(Room::MAX).is_some());
    assert_eq!(Room::new(Room::MAX + 1), None);
}
