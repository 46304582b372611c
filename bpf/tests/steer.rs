//! The steering program in this kernel: frame in → decision, counter and frame out.

// A test that cannot be set up has failed.
#![allow(clippy::unwrap_used)]

mod support;

use lockstep_bpf::{
    Action, BpfError, Destination, Room, Seeds, SteerCounters, SteerProgram, Steered,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::*;

type Map = [(Destination, u16)];

fn to(address: impl Into<IpAddr>, port: u16, protocol: u8) -> Destination {
    Destination::new(address.into(), port, Some(protocol))
}

fn unreadable(address: impl Into<IpAddr>) -> Destination {
    Destination::new(address.into(), 0, None)
}

fn destinations(map: &Map) -> BTreeMap<Destination, Steered> {
    map.iter()
        .map(|&(destination, room)| (destination, Room::new(room).unwrap().into()))
        .collect()
}

fn load(deadline: Duration) -> Result<SteerProgram, BpfError> {
    SteerProgram::load(deadline, &Seeds::default())
}

/// A program with a live agent and a socket on queue 0.
fn live(socket: &socket2::Socket) -> SteerProgram {
    let program = load(Duration::from_secs(3600)).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    program.beat().unwrap();
    program
}

/// What was counted between two readings: one name, once.
fn counted(before: &SteerCounters, after: &SteerCounters) -> &'static str {
    let moved: Vec<(&str, u64)> = before
        .iter()
        .zip(after.iter())
        .filter(|(before, after)| before.1 != after.1)
        .map(|((name, before), (_, after))| (name, after - before))
        .collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(moved[0].1, 1, "{moved:?}");
    moved[0].0
}

/// The frame of ADR 1 for an IP packet; the bytes between marker and packet are left out.
fn assert_marked(says: &str, out: &[u8], room: u16, packet: &[u8]) {
    assert_eq!(out[..12], MACS, "{says}: MAC addresses");
    assert_eq!(out[12..14], [0x88, 0xb5], "{says}: EtherType");
    assert_eq!(out[14..16], room.to_be_bytes(), "{says}: room");
    assert_eq!(&out[14 + usize::from(room)..], packet, "{says}: packet");
}

/// A packet that is ours is redirected: untouched without room, marked with it, whatever its tags.
fn assert_steered(says: &str, packet: &[u8], key: Destination) {
    let socket = xdp_socket();
    let mut program = live(&socket);
    for (vlans, room) in [
        (&[][..], 0),
        (&[], 20),
        (&[], 24),
        (&[], 40),
        (&[7], 0),
        (&[7], 4),
        (&[7], 20),
        (&[7], 44),
        (&[9, 7], 0),
        (&[9, 7], 4),
        (&[9, 7], 8),
        (&[9, 7], 20),
        (&[9, 7], 40),
    ] {
        let says = format!("{says}, VLANs {vlans:?}, room {room}");
        program
            .set_destinations(&destinations(&[(key, room)]))
            .unwrap();
        let frame = frame(vlans, packet);
        let before = program.counters().unwrap();
        let run = program.run(&frame, 1).unwrap();
        assert_eq!(run.action, Action::Redirect, "{says}");
        if room == 0 {
            assert_eq!(run.frame, frame, "{says}");
        } else {
            assert_marked(&says, &run.frame, room, packet);
            // What answers need to go back by the same VLAN.
            let tag = match vlans {
                [] => 0,
                [tag] => *tag,
                _ => 0xffff_u16,
            };
            assert_eq!(run.frame[16..18], tag.to_be_bytes(), "{says}: tag");
        }
        let after = program.counters().unwrap();
        assert_eq!(counted(&before, &after), "redirected", "{says}");
        // With any other destination in the map it is not ours.
        let other = to([203, 0, 113, 1], 80, TCP);
        program
            .set_destinations(&destinations(&[(other, room)]))
            .unwrap();
        let run = program.run(&frame, 1).unwrap();
        assert_eq!((run.action, &run.frame), (Action::Pass, &frame), "{says}");
        let last = program.counters().unwrap();
        assert_eq!(counted(&after, &last), "not_ours", "{says}");
    }
}

fn extension(next: u8, words: u8) -> Vec<u8> {
    let mut header = vec![next, words, 1, 4, 0, 0, 0, 0];
    header.resize(8 + usize::from(words) * 8, 0);
    header
}

/// Headers of these types (and lengths in 8-byte words beyond the first) in front of a payload.
fn chain(headers: &[(u8, u8)], last: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut all = Vec::new();
    for (at, &(_, words)) in headers.iter().enumerate() {
        let next = headers.get(at + 1).map_or(last, |header| header.0);
        all.extend(extension(next, words));
    }
    all.extend(payload);
    (headers.first().map_or(last, |header| header.0), all)
}

fn v6_chain(headers: &[(u8, u8)], last: u8, payload: &[u8]) -> Vec<u8> {
    let (next, payload) = chain(headers, last, payload);
    Ip6::new(next, payload).build()
}

fn v6_fragment(offset_and_flags: u16) -> Vec<u8> {
    let mut header = vec![TCP, 0];
    header.extend(offset_and_flags.to_be_bytes());
    header.extend([0, 0, 0, 9]);
    header.extend(tcp(443));
    Ip6::new(44, header).build()
}

#[test]
fn packets_for_a_destination_go_to_the_socket_with_the_room_asked_for() {
    let mut options = Ip4::new(TCP, tcp(443));
    options.options = vec![1; 40];
    let mut padded = Ip4::new(UDP, udp(53)).build();
    padded.extend([0; 6]);
    let mut ah = vec![TCP, 4];
    ah.resize(24, 0);
    ah.extend(tcp(443));
    let rows: &[(&str, Vec<u8>, Destination)] = &[
        (
            "IPv4 TCP",
            Ip4::new(TCP, tcp(443)).build(),
            to(V4, 443, TCP),
        ),
        ("IPv4 UDP", Ip4::new(UDP, udp(53)).build(), to(V4, 53, UDP)),
        ("IPv4 with padding behind", padded, to(V4, 53, UDP)),
        (
            "IPv4 with 40 bytes of options",
            options.build(),
            to(V4, 443, TCP),
        ),
        (
            "IPv4 of any port",
            Ip4::new(TCP, tcp(8080)).build(),
            to(V4, 0, TCP),
        ),
        (
            "IPv4 to port 0",
            Ip4::new(TCP, tcp(0)).build(),
            to(V4, 0, TCP),
        ),
        (
            "IPv4 ICMP, where asked for",
            Ip4::new(1, vec![8; 8]).build(),
            to(V4, 0, 1),
        ),
        (
            "IPv6 TCP",
            Ip6::new(TCP, tcp(443)).build(),
            to(V6, 443, TCP),
        ),
        ("IPv6 UDP", Ip6::new(UDP, udp(53)).build(), to(V6, 53, UDP)),
        (
            "IPv6 of any port",
            Ip6::new(UDP, udp(9)).build(),
            to(V6, 0, UDP),
        ),
        (
            "IPv6 ICMP, where asked for",
            Ip6::new(58, vec![128; 8]).build(),
            to(V6, 0, 58),
        ),
        ("IPv6 atomic fragment", v6_fragment(0), to(V6, 443, TCP)),
        (
            "IPv6 atomic fragment, reserved bits",
            v6_fragment(6),
            to(V6, 443, TCP),
        ),
        (
            "IPv6 authentication header",
            Ip6::new(51, ah).build(),
            to(V6, 443, TCP),
        ),
        (
            "IPv6 hop-by-hop, destination options, routing",
            v6_chain(&[(0, 0), (60, 3), (43, 2)], TCP, &tcp(443)),
            to(V6, 443, TCP),
        ),
        (
            "IPv6, 8 extension headers",
            v6_chain(&[(60, 0); 8], UDP, &udp(53)),
            to(V6, 53, UDP),
        ),
        (
            "IPv6, a long extension header",
            v6_chain(&[(60, 100)], TCP, &tcp(443)),
            to(V6, 443, TCP),
        ),
    ];
    for (says, packet, key) in rows {
        assert_steered(says, packet, *key);
    }
}

#[test]
fn packets_without_readable_ports_go_to_the_engine_to_be_named_and_dropped() {
    let with = |change: fn(&mut Ip4)| {
        let mut packet = Ip4::new(TCP, tcp(443));
        change(&mut packet);
        packet.build()
    };
    let v6_with = |change: fn(&mut Ip6)| {
        let mut packet = Ip6::new(TCP, tcp(443));
        change(&mut packet);
        packet.build()
    };
    let v4_rows: &[(&str, Vec<u8>)] = &[
        ("first fragment", with(|ip| ip.fragment = 0x2000)),
        ("middle fragment", with(|ip| ip.fragment = 0x2001)),
        ("last fragment", with(|ip| ip.fragment = 0x0001)),
        ("header length 0", with(|ip| ip.ihl = Some(0))),
        ("header length 16", with(|ip| ip.ihl = Some(4))),
        ("header longer than the frame", with(|ip| ip.ihl = Some(15))),
        ("ports cut off", with(|ip| ip.payload.truncate(3))),
        ("nothing behind the header", with(|ip| ip.payload.clear())),
        (
            "ports in the padding only",
            with(|ip| ip.total_length = Some(20)),
        ),
        (
            "half the ports in the padding",
            with(|ip| ip.total_length = Some(23)),
        ),
        ("total length 0", with(|ip| ip.total_length = Some(0))),
    ];
    for (says, packet) in v4_rows {
        assert_steered(&format!("IPv4, {says}"), packet, unreadable(V4));
    }
    let mut cut = v6_chain(&[(60, 3)], TCP, &tcp(443));
    cut.truncate(40 + 16);
    let v6_rows: &[(&str, Vec<u8>)] = &[
        ("first fragment", v6_fragment(0x0001)),
        ("last fragment", v6_fragment(0x0008)),
        ("middle fragment", v6_fragment(0x0fa9)),
        (
            "9 extension headers",
            v6_chain(&[(60, 0); 9], TCP, &tcp(443)),
        ),
        ("an extension header cut off", cut),
        ("an extension header not there", v6_chain(&[], 60, &[])),
        ("half an extension header", v6_chain(&[], 60, &[6, 0, 0])),
        ("ports cut off", v6_with(|ip| ip.payload.truncate(3))),
        (
            "payload length 0",
            v6_with(|ip| ip.payload_length = Some(0)),
        ),
        (
            "payload length 3",
            v6_with(|ip| ip.payload_length = Some(3)),
        ),
    ];
    for (says, packet) in v6_rows {
        assert_steered(&format!("IPv6, {says}"), packet, unreadable(V6));
    }
}

#[test]
fn everything_else_goes_to_the_kernel_as_it_came() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let map: &Map = &[
        (to(V4, 443, TCP), 20),
        (unreadable(V4), 20),
        (to(V6, 443, TCP), 40),
        (unreadable(V6), 40),
    ];
    program.set_destinations(&destinations(map)).unwrap();
    let v4 = Ip4::new(TCP, tcp(443)).build();
    let v6 = Ip6::new(TCP, tcp(443)).build();
    let mut v4_as_6 = Ip4::new(TCP, tcp(443));
    v4_as_6.version = 6;
    let mut v6_as_4 = Ip6::new(TCP, tcp(443));
    v6_as_4.version = 4;
    let rows: &[(&str, Vec<u8>)] = &[
        ("ARP", ethernet(&[], 0x0806, &[0; 28])),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46])),
        (
            "a forged marker",
            ethernet(&[], 0x88b5, &[&[0, 20][..], &[0; 18], &v4].concat()),
        ),
        ("a third VLAN tag", frame(&[1, 2, 3], &v4)),
        ("a tag cut off", ethernet(&[], 0x8100, &[0, 1, 8])),
        ("Ethernet only", ethernet(&[], 0x0800, &[])),
        (
            "IPv4, another port",
            frame(&[], &Ip4::new(TCP, tcp(80)).build()),
        ),
        ("IPv4, port 0", frame(&[], &Ip4::new(TCP, tcp(0)).build())),
        (
            "IPv4, another protocol",
            frame(&[], &Ip4::new(UDP, udp(443)).build()),
        ),
        ("IPv4 ICMP", frame(&[], &Ip4::new(1, vec![8; 8]).build())),
        ("IPv4, 19 bytes", frame(&[], &v4[..19])),
        ("IPv4, version 6", ethernet(&[], 0x0800, &v4_as_6.build())),
        ("IPv6 as IPv4", ethernet(&[], 0x0800, &v6)),
        (
            "IPv6, another port",
            frame(&[], &Ip6::new(TCP, tcp(80)).build()),
        ),
        ("IPv6 ICMP", frame(&[], &Ip6::new(58, vec![128; 8]).build())),
        (
            "IPv6, no next header",
            frame(&[], &Ip6::new(59, vec![]).build()),
        ),
        (
            "IPv6, encrypted",
            frame(&[], &Ip6::new(50, vec![1; 16]).build()),
        ),
        ("IPv6, 39 bytes", frame(&[], &v6[..39])),
        ("IPv6, version 4", ethernet(&[], 0x86dd, &v6_as_4.build())),
        (
            "IPv4 as IPv6",
            ethernet(&[], 0x86dd, &[&v4[..], &[0; 20]].concat()),
        ),
    ];
    for (says, frame) in rows {
        let before = program.counters().unwrap();
        let run = program.run(frame, 1).unwrap();
        assert_eq!((run.action, &run.frame), (Action::Pass, frame), "{says}");
        let after = program.counters().unwrap();
        assert_eq!(counted(&before, &after), "not_ours", "{says}");
    }
}

#[test]
fn an_exact_destination_wins_over_that_of_any_port() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let map: &Map = &[(to(V4, 443, TCP), 20), (to(V4, 0, TCP), 40)];
    program.set_destinations(&destinations(map)).unwrap();
    for (port, room) in [(443, 20), (444, 40)] {
        let packet = Ip4::new(TCP, tcp(port)).build();
        let run = program.run(&frame(&[], &packet), 1).unwrap();
        assert_marked("any port", &run.frame, room, &packet);
    }
}

#[test]
fn a_packet_that_is_ours_goes_to_the_kernel_untouched_when_nobody_can_take_it() {
    let socket = xdp_socket();
    let frame = frame(&[7], &Ip4::new(TCP, tcp(443)).build());
    let map = destinations(&[(to(V4, 443, TCP), 40)]);
    let expect = |program: &SteerProgram, counter: &str| {
        let before = program.counters().unwrap();
        let run = program.run(&frame, 1).unwrap();
        let expected = if counter == "redirected" {
            Action::Redirect
        } else {
            assert_eq!(run.frame, frame, "{counter}");
            Action::Pass
        };
        assert_eq!(run.action, expected, "{counter}");
        assert_eq!(counted(&before, &program.counters().unwrap()), counter);
    };

    let deadline = Duration::from_millis(200);
    let mut program = load(deadline).unwrap();
    program.set_destinations(&map).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    expect(&program, "stale");
    program.beat().unwrap();
    expect(&program, "redirected");

    // The deadline passes: the program's own clock says when, at most a tick of 10 ms late.
    let beat = Instant::now();
    program.beat().unwrap();
    while program.run(&frame, 1).unwrap().action == Action::Redirect {
        assert!(
            beat.elapsed() < 10 * deadline,
            "the heartbeat never gets stale"
        );
    }
    assert!(beat.elapsed() >= deadline);
    expect(&program, "stale");

    let mut program = live(&socket);
    program.set_destinations(&map).unwrap();
    expect(&program, "redirected");
    program.clear_socket(0).unwrap();
    expect(&program, "no_socket");
    program.clear_socket(0).unwrap();
    program.set_socket(1, socket.as_fd()).unwrap();
    expect(&program, "no_socket");
    program.set_socket(0, socket.as_fd()).unwrap();
    expect(&program, "redirected");
    // As when the engine is killed: the kernel closes the socket and takes it out of the map.
    drop(socket);
    expect(&program, "no_socket");
}

#[test]
fn queues_have_sockets_of_their_own() {
    isolated(|_| {
        ip(
            "link add lb0 numrxqueues 4 numtxqueues 4 type veth peer name lb1 numrxqueues 4 numtxqueues 4",
        );
        let socket = xdp_socket();
        let mut program = load(Duration::from_secs(3600)).unwrap();
        program.beat().unwrap();
        program.set_socket(2, socket.as_fd()).unwrap();
        let map = destinations(&[(to(V4, 443, TCP), 20)]);
        program.set_destinations(&map).unwrap();
        let frame = frame(&[], &Ip4::new(TCP, tcp(443)).build());
        for queue in 0..4 {
            let action = program.run_on("lb0", queue, &frame).unwrap();
            assert_eq!(action == Action::Redirect, queue == 2, "queue {queue}");
        }
    });
    let socket = xdp_socket();
    let program = load(Duration::from_secs(1)).unwrap();
    program.set_socket(255, socket.as_fd()).unwrap();
    for result in [
        program.set_socket(256, socket.as_fd()),
        program.clear_socket(256),
    ] {
        assert!(
            matches!(result, Err(BpfError::NoSuchQueue { queue: 256 })),
            "{result:?}"
        );
    }
}

#[test]
fn destinations_follow_what_is_wanted() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let ours = |program: &SteerProgram, port| {
        let packet = Ip4::new(TCP, tcp(port)).build();
        let run = program.run(&frame(&[], &packet), 1).unwrap();
        (run.action == Action::Redirect).then(|| run.frame.len() - packet.len() - 14)
    };
    let steps: &[&[(u16, u16)]] = &[
        &[(1, 0), (2, 20)],
        &[(2, 40), (3, 20)],
        &[(2, 40), (3, 20)],
        &[],
        &[(1, 20)],
    ];
    for step in steps {
        let map = step
            .iter()
            .map(|&(port, room)| (to(V4, port, TCP), Room::new(room).unwrap().into()))
            .collect();
        program.set_destinations(&map).unwrap();
        for port in 1..=4 {
            let expected = step.iter().find(|entry| entry.0 == port);
            assert_eq!(
                ours(&program, port),
                expected.map(|e| usize::from(e.1)),
                "{step:?}"
            );
        }
    }
}

#[test]
fn the_map_holds_what_it_promises_and_says_when_it_is_full() {
    let mut program = load(Duration::from_secs(1)).unwrap();
    let many = |from: u32, count: u32| -> BTreeMap<Destination, Steered> {
        (from..from + count)
            .map(|n| (to(n.to_be_bytes(), 443, TCP), Room::NONE.into()))
            .collect()
    };
    let half = u32::try_from(lockstep_bpf::DESTINATIONS).unwrap() / 2;
    program.set_destinations(&many(0, half)).unwrap();
    // All others at once: both halves are there for a moment.
    program.set_destinations(&many(half, half)).unwrap();
    let result = program.set_destinations(&many(2 * half, half + 1));
    assert!(
        matches!(result, Err(BpfError::TooMany { .. })),
        "{result:?}"
    );
    program.set_destinations(&BTreeMap::new()).unwrap();
    program.set_destinations(&many(0, 2 * half)).unwrap();
}

#[test]
fn a_deadline_of_nothing_is_refused() {
    let result = load(Duration::ZERO);
    assert!(matches!(result, Err(BpfError::NoDeadline)), "{result:?}");
}

/// No frame makes the program fail or change what it passes; what it redirects keeps its packet.
#[test]
fn broken_frames_are_redirected_whole_or_passed_untouched() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let map: &Map = &[
        (to(V4, 443, TCP), 20),
        (unreadable(V4), 20),
        (to(V6, 443, TCP), 20),
        (unreadable(V6), 20),
    ];
    program.set_destinations(&destinations(map)).unwrap();
    let mut options = Ip4::new(TCP, tcp(443));
    options.options = vec![1; 12];
    let good: Vec<Vec<u8>> = [
        frame(&[], &Ip4::new(TCP, tcp(443)).build()),
        frame(&[7], &options.build()),
        frame(&[9, 7], &Ip6::new(TCP, tcp(443)).build()),
        frame(&[], &v6_chain(&[(0, 0), (60, 1), (43, 2)], TCP, &tcp(443))),
        frame(&[], &v6_fragment(0)),
    ]
    .into();
    let mut redirected = 0;
    let mut check = |frame: &[u8]| {
        let run = program.run(frame, 1).unwrap();
        match run.action {
            Action::Pass => assert_eq!(run.frame, frame),
            Action::Redirect => {
                redirected += 1;
                let packet = &run.frame[34..];
                assert_eq!(run.frame[..12], frame[..12]);
                assert_eq!(run.frame[12..16], [0x88, 0xb5, 0, 20]);
                assert!(frame.ends_with(packet));
                assert!([14, 18, 22].contains(&(frame.len() - packet.len())));
            }
            other => panic!("{other:?} on {frame:x?}"),
        }
    };
    for frame in &good {
        for length in 14..=frame.len() {
            check(&frame[..length]);
        }
    }
    let mut chance = Chance(0x5eed);
    for _ in 0..40_000 {
        let mut frame = good[chance.below(good.len())].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(frame.len());
            frame[at] = chance.byte();
        }
        let length = 14 + chance.below(frame.len() - 13);
        check(if chance.below(2) == 0 {
            &frame
        } else {
            &frame[..length]
        });
    }
    for _ in 0..10_000 {
        let frame: Vec<u8> = (0..14 + chance.below(120)).map(|_| chance.byte()).collect();
        check(&frame);
    }
    assert!(redirected > 10_000, "{redirected}");
}

fn range(address: impl Into<IpAddr>, first: u16, last: u16, protocol: u8) -> Destination {
    Destination {
        last_port: last,
        ..to(address, first, protocol)
    }
}

/// The room that a packet was given, `None` when it was left to the kernel untouched.
fn room_of(program: &SteerProgram, packet: &[u8]) -> Option<usize> {
    let frame = frame(&[], packet);
    let run = program.run(&frame, 1).unwrap();
    match run.action {
        Action::Redirect => Some(run.frame.len() - frame.len()),
        Action::Pass => {
            assert_eq!(run.frame, frame);
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_icmp_only_pings_and_errors_about_packets_come_to_the_engine() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let map: &Map = &[
        (to(V4, 80, TCP), 20),
        (to(V4, 0, 1), 28),
        (to(V6, 80, TCP), 40),
        (to(V6, 0, 58), 48),
    ];
    program.set_destinations(&destinations(map)).unwrap();
    for kind in 0..=255 {
        let mut message = vec![kind; 8];
        let v4 = room_of(&program, &Ip4::new(1, message.clone()).build());
        let ours = [3, 8, 11, 12].contains(&kind);
        assert_eq!(v4, ours.then_some(28), "ICMP type {kind}");
        let v6 = room_of(&program, &Ip6::new(58, message.clone()).build());
        // 128 is a ping; 133 to 137 are neighbor discovery, without which nothing reaches us.
        let ours = [1, 2, 3, 4, 128].contains(&kind);
        assert_eq!(v6, ours.then_some(48), "ICMPv6 type {kind}");
        // ICMP of the other IP version is nothing.
        message[0] = kind;
        assert_eq!(room_of(&program, &Ip6::new(1, message).build()), None);
    }
}

#[test]
fn an_icmp_message_without_its_type_counts_as_unreadable() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let map: &Map = &[(to(V4, 0, 1), 28), (unreadable(V4), 20)];
    program.set_destinations(&destinations(map)).unwrap();
    assert_eq!(room_of(&program, &Ip4::new(1, vec![]).build()), Some(20));
    let mut fragment = Ip4::new(1, vec![8; 8]);
    fragment.fragment = 0x2000;
    assert_eq!(room_of(&program, &fragment.build()), Some(20));
}

#[test]
fn a_port_wins_over_a_range_and_a_range_over_every_port() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let other = [192, 0, 2, 11];
    let map: &Map = &[
        (range(V4, 30_000, 30_999, UDP), 20),
        (to(V4, 30_500, UDP), 24),
        (to(V4, 0, TCP), 40),
        (range(V4, 1_000, 1_999, TCP), 28),
        (range(V6, 1, 65_535, TCP), 48),
        (range(other, 1, 65_535, UDP), 44),
    ];
    program.set_destinations(&destinations(map)).unwrap();
    let udp_to = |port| room_of(&program, &Ip4::new(UDP, udp(port)).build());
    for (port, room) in [
        (29_999, None),
        (30_000, Some(20)),
        (30_499, Some(20)),
        (30_500, Some(24)),
        (30_999, Some(20)),
        (31_000, None),
        (0, None),
    ] {
        assert_eq!(udp_to(port), room, "UDP {port}");
    }
    let tcp_to = |port| room_of(&program, &Ip4::new(TCP, tcp(port)).build());
    for (port, room) in [(999, 40), (1_000, 28), (1_999, 28), (2_000, 40), (0, 40)] {
        assert_eq!(tcp_to(port), Some(room), "TCP {port}");
    }
    for port in [1, 2, 443, 65_535] {
        let v6 = room_of(&program, &Ip6::new(TCP, tcp(port)).build());
        assert_eq!(v6, Some(48), "IPv6, TCP {port}");
    }
    assert_eq!(room_of(&program, &Ip6::new(TCP, tcp(0)).build()), None);

    // A range goes, and what pointed to it.
    let map: &Map = &[(to(V4, 30_500, UDP), 24), (to(V4, 0, TCP), 40)];
    program.set_destinations(&destinations(map)).unwrap();
    let udp_to = |port| room_of(&program, &Ip4::new(UDP, udp(port)).build());
    assert_eq!((udp_to(30_500), udp_to(30_501)), (Some(24), None));
    let tcp_to = |port| room_of(&program, &Ip4::new(TCP, tcp(port)).build());
    assert_eq!(tcp_to(1_500), Some(40));
}

#[test]
fn answers_of_backends_come_to_the_engine_unless_they_are_for_this_host() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let (client, client6) = (IpAddr::from(V4), IpAddr::from(V6));
    // All packets here are from these two, from port 50,000.
    let (from, from6): (IpAddr, IpAddr) =
        ([198, 51, 100, 7].into(), "2001:db8:c::7".parse().unwrap());
    let counted_as = |program: &SteerProgram, packet: &[u8]| {
        let before = program.counters().unwrap();
        let room = room_of(program, packet);
        let counted = counted(&before, &program.counters().unwrap());
        assert_eq!(room.is_some(), counted == "redirected");
        counted
    };
    let packets = [
        Ip4::new(TCP, tcp(40_000)).build(),
        Ip4::new(UDP, udp(40_000)).build(),
        Ip6::new(TCP, tcp(40_000)).build(),
        Ip4::new(1, vec![3; 8]).build(),
        Ip6::new(58, vec![2; 8]).build(),
    ];
    for packet in &packets {
        assert_eq!(counted_as(&program, packet), "not_ours");
    }
    let sources: &Map = &[
        (to(from, 50_000, TCP), 0),
        (to(from, 0, UDP), 0),
        (to(from, 0, 1), 0),
        (unreadable(from), 0),
        (to(from6, 50_000, TCP), 0),
        (to(from6, 0, 58), 0),
    ];
    program.set_sources(&destinations(sources)).unwrap();
    for packet in &packets {
        assert_eq!(counted_as(&program, packet), "redirected");
    }
    let mut fragment = Ip4::new(TCP, tcp(40_000));
    fragment.fragment = 0x2000;
    assert_eq!(counted_as(&program, &fragment.build()), "redirected");
    // A backend's own pings are nobody's answers.
    for ping in [
        Ip4::new(1, vec![8; 8]).build(),
        Ip4::new(1, vec![0; 8]).build(),
        Ip6::new(58, vec![128; 8]).build(),
        Ip6::new(58, vec![135; 24]).build(),
    ] {
        assert_eq!(counted_as(&program, &ping), "not_ours");
    }

    program.set_locals(&[client, client6].into()).unwrap();
    for packet in &packets {
        assert_eq!(counted_as(&program, packet), "to_host");
    }
    // What is a destination is one, whoever sends it.
    let map: &Map = &[(to(V4, 40_000, TCP), 20)];
    program.set_destinations(&destinations(map)).unwrap();
    assert_eq!(room_of(&program, &packets[0]), Some(20));

    program.set_sources(&BTreeMap::new()).unwrap();
    assert_eq!(counted_as(&program, &packets[1]), "not_ours");
}

#[test]
fn errors_of_routers_about_packets_to_backends_come_to_the_engine() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let (backend, backend6) = (
        Ipv4Addr::new(10, 9, 9, 9),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9),
    );
    let sources: &Map = &[
        (to(backend, 40_000, UDP), 0),
        (to(backend, 0, 1), 0),
        (to(backend6, 40_000, UDP), 0),
        (to(backend6, 0, 58), 0),
    ];
    program.set_sources(&destinations(sources)).unwrap();
    let error = |to: Ipv4Addr| {
        let mut quote = Ip4::new(UDP, udp(40_000));
        quote.to = to;
        Ip4::new(1, [vec![3; 8], quote.build()].concat())
    };
    let error6 = |to: Ipv6Addr| {
        let mut quote = Ip6::new(UDP, udp(40_000));
        quote.to = to;
        Ip6::new(58, [vec![2; 8], quote.build()].concat())
    };
    assert!(room_of(&program, &error(backend).build()).is_some());
    assert!(room_of(&program, &error(V4).build()).is_none());
    assert!(room_of(&program, &error6(backend6).build()).is_some());
    assert!(room_of(&program, &error6(V6).build()).is_none());
    // A message that ends inside of the quoted header is about nobody.
    let mut short = error(backend);
    short.payload.truncate(8 + 19);
    assert!(room_of(&program, &short.build()).is_none());
    let mut short = error6(backend6);
    short.payload.truncate(8 + 39);
    assert!(room_of(&program, &short.build()).is_none());
    // A reply to an echo quotes nothing.
    let mut reply = error(backend);
    reply.payload[0] = 0;
    assert!(room_of(&program, &reply.build()).is_none());
    program.set_locals(&[V4.into()].into()).unwrap();
    assert!(room_of(&program, &error(backend).build()).is_none());
}

#[test]
fn errors_about_others_packets_to_a_backend_are_left_alone() {
    let socket = xdp_socket();
    let mut program = live(&socket);
    let every = Ipv4Addr::new(10, 9, 9, 8);
    let (one, one6) = (
        Ipv4Addr::new(10, 9, 9, 9),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9),
    );
    let sources: &Map = &[
        (to(one, 8_080, TCP), 0),
        (to(one, 0, 1), 0),
        (unreadable(one), 0),
        (to(every, 0, TCP), 0),
        (to(every, 0, 1), 0),
        (to(one6, 8_080, TCP), 0),
        (to(one6, 0, 58), 0),
        (unreadable(one6), 0),
    ];
    program.set_sources(&destinations(sources)).unwrap();
    let quote = |to: Ipv4Addr, protocol, payload| Ip4 {
        to,
        ..Ip4::new(protocol, payload)
    };
    let error = |quote: &Ip4| Ip4::new(1, [vec![3; 8], quote.build()].concat()).build();
    let mut behind_options = quote(one, TCP, tcp(8_080));
    behind_options.options = vec![1; 40];
    let mut first = quote(one, TCP, tcp(8_080));
    first.fragment = 0x2000;
    let mut later = quote(one, TCP, tcp(8_080));
    later.fragment = 0x2010;
    // What a router before RFC 1812 quotes: eight bytes.
    let short = quote(one, TCP, tcp(8_080)[..8].to_vec());
    let cut = quote(one, TCP, tcp(8_080)[..3].to_vec());
    for (says, quote, ours) in [
        ("the service", quote(one, TCP, tcp(8_080)), true),
        ("eight bytes of it", short, true),
        ("behind options", behind_options, true),
        ("a first fragment", first, true),
        ("another port", quote(one, TCP, tcp(22)), false),
        ("another protocol", quote(one, UDP, udp(8_080)), false),
        ("a ping", quote(one, 1, vec![8; 8]), false),
        ("a tunnel", quote(one, 47, vec![0; 8]), false),
        ("a later fragment", later, false),
        ("without the ports", cut, false),
        (
            "any port of a service with all",
            quote(every, TCP, tcp(22)),
            true,
        ),
        ("its other protocol", quote(every, UDP, udp(22)), false),
    ] {
        let room = room_of(&program, &error(&quote));
        assert_eq!(room.is_some(), ours, "{says}");
    }

    let quote6 = |next, payload: Vec<u8>| {
        let quote = Ip6 {
            to: one6,
            ..Ip6::new(next, payload)
        };
        Ip6::new(58, [vec![2; 8], quote.build()].concat()).build()
    };
    let (options, behind) = chain(&[(60, 0)], TCP, &tcp(8_080));
    for (says, packet, ours) in [
        ("the service", quote6(TCP, tcp(8_080)), true),
        ("another port", quote6(TCP, tcp(22)), false),
        ("another protocol", quote6(UDP, udp(8_080)), false),
        ("a ping", quote6(58, vec![128; 8]), false),
        (
            "behind options the engine looks",
            quote6(options, behind),
            true,
        ),
    ] {
        assert_eq!(room_of(&program, &packet).is_some(), ours, "IPv6, {says}");
    }
}
