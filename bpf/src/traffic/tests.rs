//! The program in this kernel: frame in → decision and counter.

#[path = "../../tests/support/mod.rs"]
mod support;

use super::*;
use crate::Action;
use std::net::IpAddr;
use support::*;

fn wanted(addresses: &[IpAddr], ports: &[(u8, u16, u16)], tunnels: bool) -> Wanted {
    Wanted {
        addresses: addresses.iter().copied().collect(),
        ports: (ports.iter())
            .map(|&(protocol, low, high)| (protocol, low..=high))
            .collect(),
        tunnels,
    }
}

/// Whether the program takes a packet. No socket is there in a test run, so it says so by its
/// counter, and the frame goes on to the kernel as it came.
fn takes(program: &TrafficProgram, says: &str, packet: &[u8]) -> bool {
    let before = program.counters().unwrap();
    let frame = frame(&[], packet);
    let run = program.run(&frame, 1).unwrap();
    assert_eq!(run.action, Action::Pass, "{says}");
    assert_eq!(run.frame, frame, "{says}");
    let after = program.counters().unwrap();
    let (ours, others) = (
        after.no_socket - before.no_socket,
        after.not_ours - before.not_ours,
    );
    assert_eq!((ours + others, after.redirected), (1, 0), "{says}");
    ours == 1
}

#[test]
fn only_wanted_ports_of_wanted_addresses_are_taken() {
    let ports = [(UDP, 53, 53), (TCP, 80, 90)];
    let program = TrafficProgram::load(&wanted(&[V4.into(), V6.into()], &ports, false)).unwrap();
    let mut elsewhere = Ip4::new(UDP, udp(53));
    elsewhere.to = [192, 0, 2, 11].into();
    let mut fragment = Ip4::new(UDP, udp(53));
    fragment.fragment = 0x2000;
    let mut options = Ip4::new(TCP, tcp(85));
    options.options = vec![1; 8];
    for (says, packet, taken) in [
        ("a UDP port", Ip4::new(UDP, udp(53)).build(), true),
        ("the same of TCP", Ip4::new(TCP, tcp(53)).build(), false),
        ("the first of a range", Ip4::new(TCP, tcp(80)).build(), true),
        ("the last of a range", Ip4::new(TCP, tcp(90)).build(), true),
        ("behind the range", Ip4::new(TCP, tcp(91)).build(), false),
        ("before the range", Ip4::new(TCP, tcp(79)).build(), false),
        ("with options", options.build(), true),
        ("IPv6", Ip6::new(UDP, udp(53)).build(), true),
        ("IPv6, another port", Ip6::new(UDP, udp(54)).build(), false),
        ("another address", elsewhere.build(), false),
        ("a fragment", fragment.build(), false),
        ("cut off", Ip4::new(UDP, vec![0; 3]).build(), false),
        ("ICMP", Ip4::new(1, vec![8; 8]).build(), false),
        (
            "neighbor discovery",
            Ip6::new(58, vec![135; 24]).build(),
            false,
        ),
        (
            "a tunnel",
            Ip4::new(IPIP, Ip4::new(UDP, udp(53)).build()).build(),
            false,
        ),
    ] {
        assert_eq!(takes(&program, says, &packet), taken, "{says}");
    }
}

#[test]
fn without_addresses_all_are_taken_and_tunnels_if_wanted() {
    let program = TrafficProgram::load(&wanted(&[], &[(UDP, 6_080, 6_080)], true)).unwrap();
    let inner = Ip4::new(TCP, tcp(80)).build();
    assert!(takes(
        &program,
        "IP in IP",
        &Ip4::new(IPIP, inner.clone()).build()
    ));
    assert!(takes(
        &program,
        "IPv6 in IP",
        &Ip4::new(IPV6, Ip6::new(TCP, tcp(80)).build()).build()
    ));
    assert!(takes(
        &program,
        "in IPv6",
        &Ip6::new(IPIP, inner.clone()).build()
    ));
    assert!(takes(
        &program,
        "GUE's port",
        &Ip4::new(UDP, udp(6_080)).build()
    ));
    assert!(!takes(&program, "as it is", &inner));
}

#[test]
fn nothing_wanted_is_nothing_taken() {
    let program = TrafficProgram::load(&Wanted::default()).unwrap();
    assert!(!takes(&program, "UDP", &Ip4::new(UDP, udp(53)).build()));
    assert!(!takes(&program, "port 0", &Ip4::new(UDP, udp(0)).build()));
}

#[test]
fn more_ranges_than_there_are_places_for_are_refused() {
    let many = vec![(UDP, 1, 1); TRAFFIC_RANGES + 1];
    let error = TrafficProgram::load(&wanted(&[], &many, false)).unwrap_err();
    assert!(
        matches!(error, BpfError::TooMany { count: 9, .. }),
        "{error}"
    );
}
