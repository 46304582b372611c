//! Packet in, packet out; flows across changes of tables; bursts; hostile input.

use super::*;
use crate::fixtures::{
    BALANCER_MAC, ROUTER_MAC, VIP, VIP_UDP, VIP6, addresses, backend, compile, draining,
    replicated, route, service, steered, tcp, three, udp, web,
};
use crate::tables::{NextHop, Route};
use crate::tracking::FlowState;
use core::net::IpAddr;
use etherparse::{IpNumber, NetSlice, SlicedPacket};
use lockstep_plan::Snapshot;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

const CLIENT: (&str, u16) = ("198.51.100.7", 40_000);
const CLIENT6: (&str, u16) = ("2001:db8:1::7", 40_000);
const T0: Micros = Micros::new(1_000_000_000);

fn dataplane(tables: Tables) -> Dataplane {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1000,
        flows_v6: 1000,
        seed: 42,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    dataplane
}

fn one(dataplane: &mut Dataplane, now: Micros, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut frames = [frame.to_vec()];
    let mut verdicts = [Verdict::Drop(DropReason::TxFull)];
    dataplane.process(now, &[PortId(0); BURST], &mut frames, &mut verdicts);
    let [frame] = frames;
    (verdicts[0], frame)
}

/// The backend that a steered frame was tunnelled to.
fn goes_to(dataplane: &mut Dataplane, now: Micros, frame: &[u8]) -> IpAddr {
    let (verdict, out) = one(dataplane, now, &steered(20, frame));
    let Verdict::Forward { length, .. } = verdict else {
        panic!("{verdict:?}")
    };
    outer(&out[..usize::from(length)]).1
}

/// Outer source, outer destination, outer protocol and the inner packet of a tunnelled frame, as
/// etherparse reads them.
fn outer(frame: &[u8]) -> (IpAddr, IpAddr, IpNumber, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    match packet.net.unwrap() {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            assert_eq!(
                header.to_header().calc_header_checksum(),
                header.header_checksum()
            );
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.protocol(),
                v4.payload().payload.to_vec(),
            )
        }
        NetSlice::Ipv6(v6) => (
            v6.header().source_addr().into(),
            v6.header().destination_addr().into(),
            v6.header().next_header(),
            v6.payload().payload.to_vec(),
        ),
        NetSlice::Arp(_) => panic!("not IP"),
    }
}

#[test]
fn a_packet_for_a_vip_leaves_in_a_tunnel_with_its_payload_untouched() {
    let v4 = || vec![backend("10.0.0.1")];
    let v6 = || vec![backend("fd00::1")];
    let rows = [
        ("IPv4 in IPv4", CLIENT, VIP, v4(), 20, IpNumber::IPV4),
        ("IPv6 in IPv4", CLIENT6, VIP6, v4(), 20, IpNumber::IPV6),
        ("IPv4 in IPv6", CLIENT, VIP, v6(), 40, IpNumber::IPV4),
        ("IPv6 in IPv6", CLIENT6, VIP6, v6(), 40, IpNumber::IPV6),
    ];
    for (description, client, vip, backends, room, protocol) in rows {
        let server = backends[0].address;
        let mut dataplane = dataplane(compile(
            &Tables::default(),
            1,
            vec![service("web", &[vip], backends)],
        ));
        let frame = tcp(client, vip, "S");
        let (verdict, out) = one(&mut dataplane, T0, &steered(room, &frame));
        let length = (frame.len() + usize::from(room)) as u16;
        assert_eq!(
            verdict,
            Verdict::Forward {
                port: PortId(0),
                length
            },
            "{description}"
        );
        assert_eq!(out[..6], ROUTER_MAC, "{description}");
        assert_eq!(out[6..12], BALANCER_MAC, "{description}");
        let (source, destination, number, inner) = outer(&out);
        let own = addresses();
        let expected = if server.is_ipv4() {
            own.v4.map(IpAddr::V4)
        } else {
            own.v6.map(IpAddr::V6)
        };
        assert_eq!(
            (Some(source), destination, number),
            (expected, server, protocol)
        );
        // The inner packet differs in TTL and, for IPv4, the checksum over it.
        let ttl_at = if vip == VIP { 8 } else { 7 };
        assert_eq!(inner[ttl_at], 63, "{description}");
        let header = if vip == VIP { 20 } else { 40 };
        assert_eq!(inner[header..], frame[14 + header..], "{description}");
    }
}

#[test]
fn a_packet_for_a_range_of_ports_keeps_its_port_in_the_tunnel() {
    let vips = ["203.0.113.10:5000-5999/tcp", "203.0.113.10:5000-5999/udp"];
    let mut dataplane = dataplane(compile(
        &Tables::default(),
        1,
        vec![service("media", &vips, vec![backend("10.0.0.1")])],
    ));
    for port in [5_000_u16, 5_421, 5_999] {
        let frames = [
            tcp(CLIENT, &format!("203.0.113.10:{port}/tcp"), "S"),
            udp(CLIENT, &format!("203.0.113.10:{port}/udp"), b"x"),
        ];
        for frame in frames {
            let (verdict, out) = one(&mut dataplane, T0, &steered(20, &frame));
            assert!(
                matches!(verdict, Verdict::Forward { .. }),
                "{port}: {verdict:?}"
            );
            let inner = outer(&out).3;
            assert_eq!(inner[22..24], port.to_be_bytes());
        }
    }
    for port in [4_999, 6_000] {
        let frame = tcp(CLIENT, &format!("203.0.113.10:{port}/tcp"), "S");
        let (verdict, _) = one(&mut dataplane, T0, &steered(20, &frame));
        assert_eq!(verdict, Verdict::Drop(DropReason::NoVip), "{port}");
    }
}

#[test]
fn a_tagged_way_out_gets_its_tag() {
    let link = lockstep_wire::LinkHeader {
        vlan: Some(100),
        ..route().link
    };
    let tagged = Route { link, ..route() };
    let snapshot = Snapshot::new(1, web()).unwrap();
    let tables = Tables::compile(&Tables::default(), &snapshot, addresses(), |_| {
        NextHop::Via(tagged)
    })
    .unwrap();
    let mut dataplane = dataplane(tables);
    let (verdict, out) = one(&mut dataplane, T0, &steered(24, &tcp(CLIENT, VIP, "S")));
    assert!(matches!(verdict, Verdict::Forward { .. }));
    let packet = SlicedPacket::from_ethernet(&out).unwrap();
    assert_eq!(packet.vlan_ids().first().map(|v| v.value()), Some(100));
    assert_eq!(outer(&out).2, IpNumber::IPV4);
    // The room was made for another way out.
    let (verdict, _) = one(&mut dataplane, T0, &steered(20, &tcp(CLIENT, VIP, "S")));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoom));
}

#[test]
fn every_packet_that_is_not_forwarded_has_its_reason() {
    let frame = tcp(CLIENT, VIP, "S");
    let change = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        frame
    };
    // Changes of IPv4 header fields need the checksum made good again.
    let repaired = |mut frame: Vec<u8>| {
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = frame[14..34]
            .chunks(2)
            .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
            .sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        frame
    };
    let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("no IP", change(12, 0x99), DropReason::NotIp),
        (
            "cut in the IP header",
            frame[..30].to_vec(),
            DropReason::Truncated,
        ),
        (
            "cut in the TCP header",
            steered(20, &frame[..40]),
            DropReason::Truncated,
        ),
        (
            "version 7",
            steered(20, &change(14, 0x75)),
            DropReason::Malformed,
        ),
        (
            "checksum",
            steered(20, &change(24, frame[24] ^ 1)),
            DropReason::BadChecksum,
        ),
        (
            "TTL 1",
            steered(20, &repaired(change(22, 1))),
            DropReason::TtlExceeded,
        ),
        (
            "fragment, its first one unknown",
            steered(20, &repaired(change(21, 2))),
            DropReason::Fragment,
        ),
        (
            "GRE",
            steered(20, &repaired(change(23, 47))),
            DropReason::NotTransport,
        ),
        (
            "no VIP",
            steered(20, &tcp(CLIENT, "203.0.113.99:80/tcp", "S")),
            DropReason::NoVip,
        ),
        (
            "engine's own",
            tcp(CLIENT, "192.0.2.1:80/tcp", "S"),
            DropReason::NoSession,
        ),
        ("no room", frame.clone(), DropReason::NoRoom),
        ("room for a tag", steered(4, &frame), DropReason::NoRoom),
    ];
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    for (description, frame, expected) in rows {
        let before = drops(&dataplane, expected);
        let (verdict, _) = one(&mut dataplane, T0, &frame);
        assert_eq!(verdict, Verdict::Drop(expected), "{description}");
        assert_eq!(
            drops(&dataplane, expected),
            before + 1,
            "{description} is counted"
        );
    }
}

fn drops(dataplane: &Dataplane, reason: DropReason) -> u64 {
    dataplane
        .counters()
        .vips
        .iter()
        .map(|v| v.drops[reason as usize].get())
        .sum()
}

#[test]
fn ways_that_are_not_known_drop_under_their_reason() {
    for (next_hop, expected) in [
        (NextHop::NoRoute, DropReason::NoRoute),
        (NextHop::NoNeighbour, DropReason::NoNeighbour),
        (NextHop::NoPort, DropReason::NoPort),
    ] {
        let mut dataplane =
            dataplane(compile(&Tables::default(), 1, web()).rerouted(|_| Some(next_hop)));
        let (verdict, _) = one(&mut dataplane, T0, &steered(20, &tcp(CLIENT, VIP, "S")));
        assert_eq!(verdict, Verdict::Drop(expected));
    }
    let mut dataplane = dataplane(compile(
        &Tables::default(),
        1,
        vec![service("web", &[VIP], vec![])],
    ));
    let (verdict, _) = one(&mut dataplane, T0, &steered(20, &tcp(CLIENT, VIP, "S")));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoBackend));
}

#[test]
fn a_flow_stays_with_its_backend_through_additions_and_drains() {
    let tables = compile(&Tables::default(), 1, web());
    let mut dataplane = dataplane(tables);
    let clients: Vec<(String, u16)> = (0..200_u16)
        .map(|i| (format!("198.51.100.{}", i + 1), 1024 + i))
        .collect();
    let ask = |dataplane: &mut Dataplane, flags| -> Vec<IpAddr> {
        clients
            .iter()
            .map(|(ip, port)| goes_to(dataplane, T0, &tcp((ip, *port), VIP, flags)))
            .collect()
    };
    let first = ask(&mut dataplane, "S");
    assert!(
        three().iter().all(|b| first.contains(&b.address)),
        "all backends serve"
    );

    let mut more = three();
    more[0] = draining("10.0.0.1");
    more.push(backend("10.0.0.4"));
    let next = compile(
        dataplane.tables(),
        2,
        vec![service("web", &[VIP], more.clone())],
    );
    dataplane.adopt(Arc::new(next));
    assert_eq!(
        ask(&mut dataplane, "A"),
        first,
        "established flows stay, the drained one's too"
    );

    // The drained backend is removed: its flows move, the others' stay.
    let next = compile(
        dataplane.tables(),
        3,
        vec![service("web", &[VIP], more[1..].to_vec())],
    );
    dataplane.adopt(Arc::new(next));
    let last = ask(&mut dataplane, "A");
    let drained: IpAddr = "10.0.0.1".parse().unwrap();
    for (before, after) in first.iter().zip(&last) {
        assert_ne!(*after, drained);
        assert!(*before == drained || before == after);
    }
    let moved = first.iter().filter(|a| **a == drained).count() as u64;
    assert_eq!(dataplane.counters().rehashed.get(), moved);
}

#[test]
fn two_dataplanes_choose_alike_whatever_their_secret_and_history() {
    let tables = compile(&Tables::default(), 1, web());
    let mut shuffled = three();
    shuffled.rotate_left(1);
    let other = compile(
        &Tables::default(),
        9,
        vec![service("x", &["203.0.113.1:1/tcp"], vec![])],
    );
    let other = compile(
        &other,
        10,
        vec![service("web", &[VIP, VIP6, VIP_UDP], shuffled)],
    );
    let mut a = dataplane(tables);
    let mut b = Dataplane::new(&DataplaneConfig {
        flows_v4: 8,
        flows_v6: 8,
        seed: 7,
        ..DataplaneConfig::default()
    });
    b.adopt(Arc::new(other));
    for port in 1..2000 {
        let frame = udp(("198.51.100.9", port), VIP_UDP, b"?");
        assert_eq!(
            goes_to(&mut a, T0, &frame),
            goes_to(&mut b, T0, &frame),
            "port {port}"
        );
    }
    assert!(
        b.counters().stateless.get() > 1000,
        "the small table was full long ago"
    );
}

#[test]
fn idle_flows_are_forgotten_by_their_state_and_counted_down() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let at = |offset: u64| Micros::new((1000 + offset) * 1_000_000);
    goes_to(&mut dataplane, at(0), &tcp(("198.51.100.1", 1), VIP, "S"));
    goes_to(&mut dataplane, at(0), &tcp(("198.51.100.1", 2), VIP, "A"));
    goes_to(&mut dataplane, at(0), &tcp(("198.51.100.1", 3), VIP, "A"));
    goes_to(&mut dataplane, at(0), &tcp(("198.51.100.1", 3), VIP, "FA"));
    goes_to(
        &mut dataplane,
        at(0),
        &udp(("198.51.100.1", 4), VIP_UDP, b"?"),
    );
    goes_to(&mut dataplane, at(0), &tcp(("198.51.100.1", 5), VIP, "R"));
    let live = |dataplane: &mut Dataplane, offset| {
        dataplane.tick(Seconds::at(at(offset)), usize::MAX);
        let gauge: u64 = dataplane
            .counters()
            .backends
            .iter()
            .map(|b| b.flows.get())
            .sum();
        assert_eq!(gauge, dataplane.flows_v4().len() as u64);
        gauge
    };
    assert_eq!(
        live(&mut dataplane, 59),
        4,
        "the stray RST left nothing behind"
    );
    assert_eq!(live(&mut dataplane, 60), 3, "SYN: 60 s");
    assert_eq!(live(&mut dataplane, 120), 2, "FIN: 120 s");
    assert_eq!(live(&mut dataplane, 300), 1, "UDP: 300 s");
    assert_eq!(live(&mut dataplane, 899), 1);
    assert_eq!(live(&mut dataplane, 900), 0, "established: 900 s");
}

#[test]
fn a_syn_flood_evicts_no_established_flow() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let established: Vec<_> = (1..=500_u16).collect();
    let ask = |dataplane: &mut Dataplane| -> Vec<IpAddr> {
        let client = |port| tcp(("198.51.100.1", port), VIP, "A");
        established
            .iter()
            .map(|&port| goes_to(dataplane, T0, &client(port)))
            .collect()
    };
    let before = ask(&mut dataplane);
    for n in 0..20_000_u32 {
        let source = core::net::Ipv4Addr::from(0x0b00_0000 + n).to_string();
        goes_to(&mut dataplane, T0, &tcp((&source, 7), VIP, "S"));
    }
    let new: u64 = dataplane
        .counters()
        .backends
        .iter()
        .map(|b| b.new_flows.get())
        .sum();
    assert!(
        dataplane.counters().evicted.get() > 10_000,
        "SYNs gave way to SYNs"
    );
    assert_eq!(ask(&mut dataplane), before);
    let after: u64 = dataplane
        .counters()
        .backends
        .iter()
        .map(|b| b.new_flows.get())
        .sum();
    assert_eq!(
        new, after,
        "every established flow was found, none chosen anew"
    );
}

#[test]
fn a_port_used_again_after_a_close_is_a_new_flow() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let first = goes_to(&mut dataplane, T0, &tcp(CLIENT, VIP, "S"));
    goes_to(&mut dataplane, T0, &tcp(CLIENT, VIP, "FA"));
    let others: Vec<_> = three()
        .into_iter()
        .map(|b| {
            if b.address == first {
                draining(&b.name)
            } else {
                b
            }
        })
        .collect();
    let next = compile(dataplane.tables(), 2, vec![service("web", &[VIP], others)]);
    dataplane.adopt(Arc::new(next));
    assert_eq!(
        goes_to(&mut dataplane, T0, &tcp(CLIENT, VIP, "A")),
        first,
        "still closing"
    );
    assert_ne!(
        goes_to(&mut dataplane, T0, &tcp(CLIENT, VIP, "S")),
        first,
        "opened anew"
    );
    assert_eq!(dataplane.flows_v4().len(), 1);
}

#[test]
fn a_burst_is_decided_packet_by_packet_in_order() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    // The same new flow twice in one burst makes one entry; broken packets in between are theirs.
    let mut frames = vec![
        steered(20, &tcp(CLIENT, VIP, "S")),
        vec![0; 5],
        steered(20, &tcp(CLIENT, VIP, "A")),
        steered(20, &tcp(("198.51.100.8", 9), VIP, "S")),
    ];
    let mut verdicts = [Verdict::Drop(DropReason::TxFull); BURST];
    dataplane.process(T0, &[PortId(0); BURST], &mut frames, &mut verdicts);
    assert!(matches!(verdicts[0], Verdict::Forward { .. }));
    assert_eq!(verdicts[1], Verdict::Drop(DropReason::Truncated));
    assert!(matches!(verdicts[2], Verdict::Forward { .. }));
    assert_eq!(outer(&frames[0]).1, outer(&frames[2]).1);
    assert_eq!(dataplane.flows_v4().len(), 2);
    let key = crate::explain::flow_of(&tcp(CLIENT, VIP, "A")).unwrap();
    assert_eq!(
        dataplane.known(Seconds::at(T0), &key).map(|k| k.state),
        Some(FlowState::Established)
    );
}

#[test]
fn counters_say_what_was_forwarded_and_start_anew_with_a_new_owner() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let frame = tcp(CLIENT, VIP, "S");
    goes_to(&mut dataplane, T0, &frame);
    let vip = dataplane
        .tables()
        .vip("203.0.113.10".parse().unwrap(), 80, 6)
        .unwrap();
    let counted = &dataplane.counters().vips[vip.slot()];
    assert_eq!(
        (counted.packets.get(), counted.bytes.get()),
        (1, frame.len() as u64 - 14)
    );

    let next = compile(
        dataplane.tables(),
        2,
        vec![service("web", &[VIP6], three())],
    );
    dataplane.adopt(Arc::new(next));
    let counted = &dataplane.counters().vips[vip.slot()];
    assert_eq!(
        counted.packets.get(),
        0,
        "the slot is free, its counters are zero"
    );
    assert_eq!(dataplane.counters().epoch.get(), 2);
}

#[test]
fn packets_of_sessions_go_to_the_replicator_as_they_came() {
    let tables = Tables::default().with_session_ports(16_384..=65_535);
    let tables = compile(
        &tables,
        1,
        vec![
            replicated("game", &[VIP, VIP6], three()),
            service("dns", &[VIP_UDP], three()),
        ],
    );
    assert_eq!(
        tables.rooms().map(|(_, room)| room).collect::<Vec<_>>(),
        [0, 0, 20]
    );
    let mut dataplane = dataplane(tables);
    let drop = Verdict::Drop;
    let rows = [
        (tcp(CLIENT, VIP, "S"), Verdict::Local),
        (tcp(CLIENT, VIP, "A"), Verdict::Local),
        (tcp(CLIENT6, VIP6, "R"), Verdict::Local),
        // Answers of replicas,
        (
            tcp(("10.0.0.1", 80), "192.0.2.1:16384/tcp", "SA"),
            Verdict::Local,
        ),
        (
            tcp(("fd00::1", 80), "[2001:db8:ffff::1]:65535/tcp", "SA"),
            Verdict::Local,
        ),
        // and what is none of them.
        (
            tcp(("10.0.0.1", 80), "192.0.2.1:16383/tcp", "SA"),
            drop(DropReason::NoSession),
        ),
        (
            udp(("10.0.0.1", 80), "192.0.2.1:16384/udp", b"?"),
            drop(DropReason::NoSession),
        ),
        (
            tcp(("10.0.0.1", 80), "192.0.2.2:16384/tcp", "SA"),
            drop(DropReason::NoVip),
        ),
    ];
    let mut bytes = 0;
    for (frame, expected) in &rows {
        let (verdict, out) = one(&mut dataplane, T0, frame);
        assert_eq!(verdict, *expected);
        assert_eq!(out, *frame);
    }
    for (frame, _) in &rows[..3] {
        bytes += frame.len() - 14;
    }
    assert!(dataplane.flows_v4().is_empty() && dataplane.flows_v6().is_empty());
    let counted = |count: fn(&crate::counters::VipCounters) -> u64| -> u64 {
        dataplane.counters().vips.iter().map(count).sum()
    };
    assert_eq!(counted(|v| v.packets.get()), 3);
    assert_eq!(counted(|v| v.bytes.get()), bytes as u64);
}

#[test]
fn flows_of_a_tunnel_become_sessions_when_the_service_replicates() {
    let mut dataplane = dataplane(compile(
        &Tables::default(),
        1,
        vec![service("web", &[VIP], three())],
    ));
    let frame = tcp(CLIENT, VIP, "S");
    goes_to(&mut dataplane, T0, &frame);
    let tables = compile(
        dataplane.tables(),
        2,
        vec![replicated("web", &[VIP], three())],
    );
    dataplane.adopt(Arc::new(tables));
    let data = tcp(CLIENT, VIP, "A");
    assert_eq!(
        one(&mut dataplane, T0, &data),
        (Verdict::Local, data.clone())
    );
    assert!(dataplane.flows_v4().is_empty());

    let tables = compile(dataplane.tables(), 3, vec![service("web", &[VIP], three())]);
    dataplane.adopt(Arc::new(tables));
    goes_to(&mut dataplane, T0, &data);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic_and_every_drop_is_counted(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..BURST),
    ) {
        check_hostile(frames)?;
    }

    #[test]
    fn nor_do_valid_packets_with_bytes_changed(
        changes in prop::collection::vec((0_usize..120, any::<u8>()), 0..6),
        cut in 0_usize..120,
        room in prop_oneof![Just(0_u16), Just(20), Just(24), Just(40), any::<u16>()],
    ) {
        let mut frame = tcp(CLIENT, VIP, "S");
        if room != 0 {
            frame = steered(room.min(200), &frame);
        }
        for (at, value) in changes {
            let len = frame.len();
            frame[at % len] = value;
        }
        let keep = frame.len() - cut.min(frame.len());
        frame.truncate(keep);
        check_hostile(vec![frame])?;
    }
}

fn check_hostile(mut frames: Vec<Vec<u8>>) -> Result<(), TestCaseError> {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let mut verdicts = [Verdict::Drop(DropReason::TxFull); BURST];
    dataplane.process(T0, &[PortId(0); BURST], &mut frames, &mut verdicts);
    let mut dropped = 0;
    for (verdict, frame) in verdicts.iter().zip(&frames) {
        match verdict {
            Verdict::Forward { length, .. } => {
                prop_assert!(usize::from(*length) <= frame.len());
                outer(&frame[..usize::from(*length)]);
            }
            Verdict::Drop(reason) => {
                prop_assert_ne!(*reason, DropReason::TxFull, "a verdict was not given");
                dropped += 1;
            }
            Verdict::Local => prop_assert!(false, "no service replicates"),
        }
    }
    let counted: u64 = dataplane
        .counters()
        .vips
        .iter()
        .flat_map(|v| v.drops.iter().map(|d| d.get()))
        .sum();
    prop_assert_eq!(counted, dropped);
    Ok(())
}

#[test]
fn a_vip_that_goes_leaves_no_flow_counted() {
    let mut dataplane = dataplane(compile(&Tables::default(), 1, web()));
    let frame = tcp(CLIENT, VIP, "S");
    goes_to(&mut dataplane, T0, &frame);
    // The VIP is gone for a moment; its backends stay, as they serve another one.
    let without = compile(
        dataplane.tables(),
        2,
        vec![service("web", &[VIP6], three())],
    );
    dataplane.adopt(Arc::new(without));
    let again = compile(dataplane.tables(), 3, web());
    dataplane.adopt(Arc::new(again));
    goes_to(&mut dataplane, T0, &frame);
    let gauge: u64 = dataplane
        .counters()
        .backends
        .iter()
        .map(|b| b.flows.get())
        .sum();
    assert_eq!(gauge, dataplane.flows_v4().len() as u64);
}
