//! Tables and backends as bytes, and what is left of them.

use super::*;
use crate::skeleton::steer::types;
use crate::{Seeds, SteerProgram};
use std::mem::{offset_of, size_of};
use std::time::Duration;

fn carrier() -> (SteerProgram, Carrier) {
    let program = SteerProgram::load(Duration::from_secs(1), &Seeds::default()).unwrap();
    let carrier = program.carrier().unwrap();
    (program, carrier)
}

fn tunnel(n: u32) -> Tunnel {
    Tunnel {
        source: [192, 0, 2, 1].into(),
        destination: n.to_be_bytes().into(),
        port: None,
    }
}

fn service<'a>(name: &'a str, entries: &'a [u16], tunnels: &[u32]) -> CarriedService<'a> {
    CarriedService {
        name,
        entries,
        backends: tunnels.iter().map(|&n| (tunnel(n), None)).collect(),
    }
}

fn used(map: &MapHandle, bytes: usize) -> usize {
    let keys = map.keys();
    keys.filter(|key| {
        let value = map.lookup(key, MapFlags::ANY).unwrap();
        value.is_some_and(|value| value != vec![0; bytes])
    })
    .count()
}

#[test]
fn backends_and_flows_have_the_layout_of_the_compiled_program() {
    let way = Way {
        interface: 0x0102_0304,
        destination: [1; 6],
        source: [2; 6],
        vlan: Some(0x0abc),
        mtu: 0x0506,
    };
    for (source, destination, version) in [
        ("192.0.2.1", "10.0.0.1", 4),
        ("2001:db8::1", "2001:db8::2", 6),
    ] {
        for port in [None, NonZeroU16::new(6080)] {
            let tunnel = Tunnel {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                port,
            };
            let bytes = backend(&tunnel, Some(&way));
            assert_eq!(bytes.len(), size_of::<types::steer_backend>());
            assert_eq!(bytes[offset_of!(types::steer_backend, version)], version);
            let at = offset_of!(types::steer_backend, macs);
            assert_eq!(bytes[at..at + 12], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
            let at = offset_of!(types::steer_backend, vlan);
            assert_eq!(bytes[at..at + 2], [0x0a, 0xbc]);
            let at = offset_of!(types::steer_backend, port);
            let number = port.map_or(0, NonZeroU16::get);
            assert_eq!(bytes[at..at + 2], number.to_be_bytes());
            let at = offset_of!(types::steer_backend, interface);
            assert_eq!(bytes[at..at + 4], [4, 3, 2, 1]);
            let at = offset_of!(types::steer_backend, mtu);
            assert_eq!(bytes[at..at + 2], [6, 5]);
            assert_eq!(tunnel_of(&bytes), Some(tunnel));
            assert_eq!(tunnel_of(&backend(&tunnel, None)), Some(tunnel));
        }
    }
    assert_eq!(tunnel_of(&UNUSED), None);
    let flow = CarriedFlow {
        source: [198, 51, 100, 7].into(),
        destination: [203, 0, 113, 10].into(),
        source_port: 0x0102,
        destination_port: 0x0304,
        protocol: 6,
    };
    let key = flow.key();
    assert_eq!(key.len(), size_of::<types::steer_flow>());
    let at = offset_of!(types::steer_flow, source_port);
    assert_eq!(key[at..at + 5], [1, 2, 3, 4, 6]);
}

#[test]
fn services_keep_their_numbers_and_what_nobody_uses_is_removed() {
    let (_program, mut carrier) = carrier();
    let (even, odd) = ([0, 1, 0, 1], [1, 0, 1, 0]);
    let first = carrier
        .set(&[service("a", &even, &[1, 2]), service("b", &odd, &[2, 3])])
        .unwrap();
    carrier.retire().unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(used(&carrier.rings, 4), 2);
    assert_eq!(used(&carrier.backends, BACKEND), 3);

    let second = carrier
        .set(&[service("c", &even, &[4, 5]), service("b", &even, &[2, 3])])
        .unwrap();
    assert_eq!(second["b"], first["b"]);
    assert_ne!(second["c"], first["a"], "in use until nobody names it");
    assert_eq!(used(&carrier.rings, 4), 3);
    carrier.retire().unwrap();
    assert_eq!(used(&carrier.rings, 4), 2);
    assert_eq!(used(&carrier.backends, BACKEND), 4);
    let third = carrier.set(&[service("d", &even, &[4])]).unwrap();
    assert_eq!(third["d"], first["a"], "free again");
}

#[test]
fn a_successor_finds_services_and_tunnels_in_the_maps() {
    let (program, mut carrier) = carrier();
    let entries: Vec<u16> = (0..1_000).map(|n| n % 3).collect();
    let numbers = carrier.set(&[service("a", &entries, &[1, 2, 3])]).unwrap();
    let rings = |map: &MapHandle| map.lookup(&1u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    let before = rings(&carrier.rings);
    let mut successor = program.carrier().unwrap();
    assert_eq!(successor.places, carrier.places);
    let again = successor
        .set(&[service("a", &entries, &[1, 2, 3])])
        .unwrap();
    assert_eq!(again, numbers);
    assert_eq!(
        rings(&successor.rings),
        before,
        "the table is not made again"
    );
}

#[test]
fn what_does_not_fit_is_left_out_and_the_rest_carried() {
    let (_program, mut carrier) = carrier();
    let names: Vec<String> = (0..1_100).map(|n| format!("s{n}")).collect();
    let entries = [0; 251];
    let services: Vec<CarriedService<'_>> = names
        .iter()
        .map(|name| service(name, &entries, &[7]))
        .collect();
    let numbers = carrier.set(&services).unwrap();
    assert_eq!(numbers.len(), SERVICES as usize - 1);

    // More backends than there are places.
    let many: Vec<u32> = (0..=BACKENDS as u32).collect();
    let numbers = carrier
        .set(&[
            service("big", &entries, &many),
            service("s1", &entries, &[7]),
        ])
        .unwrap();
    assert_eq!(numbers.keys().collect::<Vec<_>>(), ["s1"]);

    let (_program, mut carrier) = self::carrier();
    let huge = vec![0; CARRY_MEMORY / 2 / 3];
    let numbers = carrier
        .set(&[
            service("a", &huge, &[1]),
            service("b", &huge, &[1]),
            service("c", &huge, &[1]),
        ])
        .unwrap();
    assert_eq!(
        numbers.len(),
        2,
        "a third of the memory each, and their heads"
    );
}

#[test]
fn flows_are_pinned_to_tunnels_that_stay_until_they_are_not() {
    let (_program, mut carrier) = carrier();
    carrier.set(&[service("a", &[0, 1], &[1, 2])]).unwrap();
    let flow = |port| CarriedFlow {
        source: [198, 51, 100, 7].into(),
        destination: [203, 0, 113, 10].into(),
        source_port: port,
        destination_port: 80,
        protocol: 6,
    };
    let flows = [(flow(1), tunnel(1)), (flow(2), tunnel(9))].into();
    assert_eq!(
        carrier.pin(&flows).unwrap(),
        1,
        "nobody knows the other one's"
    );
    carrier.set(&[service("a", &[0, 0], &[2])]).unwrap();
    carrier.retire().unwrap();
    assert!(carrier.places.contains_key(&tunnel(1)));
    assert_eq!(carrier.pin(&BTreeMap::new()).unwrap(), 0);
    carrier.retire().unwrap();
    assert!(!carrier.places.contains_key(&tunnel(1)));
}
