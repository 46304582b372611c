//! What the operator reads.

mod nat;
mod unusual;

use super::*;
use crate::dataplane::{Dataplane, DataplaneConfig};
use crate::fixtures::{
    VIP, VIP_UDP, VIP6, backend, compile, draining, replicated, service, steered, tcp, three, udp,
    web,
};
use crate::time::Seconds;
use alloc::sync::Arc;
use etherparse::PacketBuilder;
use std::vec;

const CLIENT: (&str, u16) = ("198.51.100.7", 40_000);

#[test]
fn a_new_flow_is_explained_from_vip_to_next_hop() {
    let tables = compile(&Tables::default(), 3, web());
    let explanation = frame(&tables, &["eth0"], &tcp(CLIENT, VIP, "S"), None);
    assert!(matches!(&explanation.fate, Fate::Forward { service, .. } if service == "web"));
    assert_eq!(
        explanation.packet,
        "tcp 198.51.100.7:40000 > 203.0.113.10:80"
    );
    let text = explanation.steps.join("\n");
    for part in [
        "VIP of service web",
        "a new flow",
        "Maglev: hash",
        "20 more bytes",
        "02:00:00:00:00:03 by eth0",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn the_explanation_agrees_with_the_dataplane_on_every_packet() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 999,
        flows_v6: 9,
        seed: 1,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::clone(&tables));
    for port in 1..500 {
        let packet = tcp(("198.51.100.7", port), VIP, "S");
        let Fate::Forward { address, .. } = frame(&tables, &["eth0"], &packet, None).fate else {
            panic!("forwarded")
        };
        let mut frames = [steered(20, &packet)];
        let mut verdicts = [crate::Verdict::Drop(DropReason::TxFull)];
        dataplane.process(
            crate::Micros::new(0),
            &[crate::PortId(0); crate::BURST],
            &mut frames,
            &mut verdicts,
        );
        let IpAddr::V4(address) = address else {
            panic!("IPv4 backends")
        };
        assert_eq!(frames[0][30..34], address.octets());
    }
}

#[test]
fn a_known_flow_is_explained_by_its_entry_even_when_maglev_says_otherwise() {
    let tables = compile(&Tables::default(), 1, web());
    let packet = tcp(CLIENT, VIP, "S");
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 9,
        flows_v6: 9,
        seed: 1,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    let mut verdicts = [crate::Verdict::Drop(DropReason::TxFull)];
    dataplane.process(
        crate::Micros::new(0),
        &[crate::PortId(0); crate::BURST],
        &mut [steered(20, &packet)],
        &mut verdicts,
    );
    let Fate::Forward { address: first, .. } =
        frame(dataplane.tables(), &["eth0"], &packet, None).fate
    else {
        panic!("forwarded")
    };
    let others = three().into_iter().map(|b| {
        if b.address == first {
            draining(&b.name)
        } else {
            b
        }
    });
    let next = compile(
        dataplane.tables(),
        2,
        vec![service("web", &[VIP], others.collect())],
    );
    dataplane.adopt(Arc::new(next));

    let key = flow_of(&packet).unwrap();
    let known = dataplane.known(Seconds::new(5), &key);
    let explanation = tuple(dataplane.tables(), &["eth0"], &key, known);
    assert!(
        matches!(explanation.fate, Fate::Forward { address, .. } if address == first),
        "{explanation:?}"
    );
    let text = explanation.steps.join("\n");
    assert!(
        text.contains("last packet 5 s ago") && text.contains("draining"),
        "{text}"
    );
    let new = tuple(dataplane.tables(), &["eth0"], &key, None);
    assert!(!matches!(new.fate, Fate::Forward { address, .. } if address == first));
    // From the middle of a connection that another balancer had.
    let found = frame(dataplane.tables(), &["eth0"], &tcp(CLIENT, VIP, "A"), None);
    assert!(matches!(found.fate, Fate::Forward { address, .. } if address == first));
    let text = found.steps.join("\n");
    assert!(text.contains("by the ring before that"), "{text}");
}

#[test]
fn what_is_not_ours_passes_and_what_is_broken_says_how() {
    let tables = compile(&Tables::default(), 1, web());
    let other = frame(
        &tables,
        &["eth0"],
        &udp(CLIENT, "203.0.113.77:53/udp", b"?"),
        None,
    );
    assert_eq!(other.fate, Fate::Pass);
    assert!(
        other
            .steps
            .join("\n")
            .contains("is no VIP of the snapshot with epoch 1")
    );

    let own = frame(
        &tables,
        &["eth0"],
        &udp(CLIENT, "192.0.2.1:53/udp", b"?"),
        None,
    );
    assert_eq!(own.fate, Fate::Drop(DropReason::NoSession));

    let arp = frame(&tables, &["eth0"], &[0xff; 60], None);
    assert_eq!(arp.fate, Fate::Pass);

    let mut broken = tcp(CLIENT, VIP, "S");
    broken[24] ^= 0xff;
    assert_eq!(
        frame(&tables, &["eth0"], &broken, None).fate,
        Fate::Drop(DropReason::BadChecksum)
    );
}

#[test]
fn pings_and_errors_are_explained_as_they_are_treated() {
    let tables = compile(&Tables::default(), 1, web());
    let echo = |to: [u8; 4]| {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 7], to, 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut packet, b"ping")
            .unwrap();
        frame(&tables, &["eth0"], &packet, None).fate
    };
    assert_eq!(echo([203, 0, 113, 10]), Fate::Reply);
    assert_eq!(echo([192, 0, 2, 1]), Fate::Reply);
    assert_eq!(echo([203, 0, 113, 77]), Fate::Pass);
    let error = |port: u16| {
        let mut sent = Vec::new();
        PacketBuilder::ipv4([203, 0, 113, 10], [198, 51, 100, 7], 64)
            .tcp(port, 40_000, 1, 1024)
            .write(&mut sent, &[0; 100])
            .unwrap();
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 1], [203, 0, 113, 10], 64)
            .icmpv4_raw(3, 4, [0, 0, 5, 0])
            .write(&mut packet, &sent)
            .unwrap();
        frame(&tables, &["eth0"], &packet, None)
    };
    let ours = error(80);
    let flow = frame(&tables, &["eth0"], &tcp(CLIENT, VIP, "A"), None);
    assert!(matches!(ours.fate, Fate::Forward { .. }), "{ours:?}");
    assert_eq!(ours.fate, flow.fate, "where the flow goes");
    assert_eq!(error(81).fate, Fate::Drop(DropReason::IcmpUnmatched));
}

#[test]
fn what_is_broken_but_for_somebody_else_passes() {
    let tables = compile(&Tables::default(), 1, web());
    let fate = |packet: &[u8]| frame(&tables, &["eth0"], packet, None).fate;
    let last_hop = |to: [u8; 4], port| {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 9], to, 1)
            .udp(port, port)
            .write(&mut packet, &[0; 20])
            .unwrap();
        packet
    };
    // HSRP: to all routers, with TTL 1 (RFC 2281, section 5).
    assert_eq!(fate(&last_hop([224, 0, 0, 2], 1985)), Fate::Pass);
    let own = last_hop([192, 0, 2, 1], 53);
    assert_eq!(fate(&own), Fate::Drop(DropReason::TtlExceeded));
    let vip = last_hop([203, 0, 113, 10], 53);
    assert_eq!(fate(&vip), Fate::Drop(DropReason::TtlExceeded));
    assert_eq!(fate(&vip[..40]), Fate::Drop(DropReason::Truncated));
    // The XDP program reads no address in this either.
    assert_eq!(fate(&vip[..33]), Fate::Pass);
    let v6 = tcp(("2001:db8::7", 40_000), VIP6, "S");
    assert_eq!(fate(&v6[..60]), Fate::Drop(DropReason::Truncated));
    assert_eq!(fate(&v6[..50]), Fate::Pass);
}

/// What became of a packet whose flow the table has is compared with what is explained.
#[test]
fn a_known_flow_is_decided_on_by_segment_and_vip_as_the_dataplane_does() {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 9,
        flows_v6: 9,
        seed: 1,
        ..DataplaneConfig::default()
    });
    let all = "203.0.113.10:0/tcp";
    let services = |services: &[(&str, &str, Vec<lockstep_plan::Backend>)]| {
        let service = |(name, vip, backends): &(&str, &str, Vec<_>)| {
            service(name, &[*vip], Vec::clone(backends))
        };
        services.iter().map(service).collect::<Vec<_>>()
    };
    let (one, two) = (vec![backend("10.0.0.1")], vec![backend("10.0.0.2")]);
    let drained = || [vec![draining("10.0.0.1")], two.clone()].concat();
    let epochs = [
        ("S", services(&[("web", all, one.clone())]), "10.0.0.1"),
        // An entry stays with its backend, also where the port gets a VIP of its own,
        ("A", services(&[("web", all, drained())]), "10.0.0.1"),
        (
            "A",
            services(&[("web", all, drained()), ("own", VIP, two.clone())]),
            "10.0.0.1",
        ),
        ("FA", services(&[("web", all, drained())]), "10.0.0.1"),
        ("A", services(&[("web", all, drained())]), "10.0.0.1"),
        // but not through a new connection,
        ("S", services(&[("web", all, drained())]), "10.0.0.2"),
        // nor without its VIP.
        ("A", services(&[("other", all, one.clone())]), "10.0.0.1"),
    ];
    for (epoch, (flags, services, expected)) in (1..).zip(epochs) {
        let tables = Arc::new(compile(dataplane.tables(), epoch, services));
        dataplane.adopt(Arc::clone(&tables));
        let packet = tcp(CLIENT, VIP, flags);
        let known = dataplane.known(Seconds::new(1), &flow_of(&packet).unwrap());
        assert_eq!(known.is_some(), epoch > 1);
        let explanation = frame(&tables, &["eth0"], &packet, known);
        let Fate::Forward {
            address, service, ..
        } = &explanation.fate
        else {
            panic!("{explanation:?}")
        };
        assert_eq!(address.to_string(), expected, "{explanation:?}");
        assert_eq!(explanation.service.as_ref(), Some(service));

        let mut frames = [steered(20, &packet)];
        let mut verdicts = [crate::Verdict::Drop(DropReason::TxFull)];
        dataplane.process(
            crate::Micros::new(1_000_000),
            &[crate::PortId(0); crate::BURST],
            &mut frames,
            &mut verdicts,
        );
        let sent: [u8; 4] = frames[0][30..34].try_into().unwrap();
        assert_eq!(IpAddr::from(sent), *address, "epoch {epoch}");
    }
}

#[test]
fn a_way_that_is_closed_is_named_with_its_remedy() {
    let tables = compile(&Tables::default(), 1, web());
    let down = tables.rerouted(|_| Some(crate::NextHop::NoNeighbour));
    let explanation = frame(&down, &["eth0"], &tcp(CLIENT, VIP, "S"), None);
    assert_eq!(explanation.fate, Fate::Drop(DropReason::NoNeighbour));
    assert_eq!(explanation.service.as_deref(), Some("web"));
    assert!(explanation.steps.join("\n").contains("ip neigh"));

    let none = compile(
        &tables,
        2,
        vec![service("web", &[VIP], vec![draining("10.0.0.1")])],
    );
    let explanation = frame(&none, &["eth0"], &tcp(CLIENT, VIP, "S"), None);
    assert_eq!(explanation.fate, Fate::Drop(DropReason::NoBackend));
}

#[test]
fn a_packet_of_a_session_is_explained_as_the_dataplane_decides() {
    let tables = Tables::default().with_session_ports(16_384..=65_535);
    let tables = compile(&tables, 1, vec![replicated("game", &[VIP], three())]);
    let explained = |packet: &[u8]| frame(&tables, &["eth0"], packet, None);
    let client = explained(&tcp(CLIENT, VIP, "S"));
    assert_eq!(client.fate, Fate::Session);
    assert_eq!(client.service.as_deref(), Some("game"));
    let text = client.steps.join("\n");
    assert!(
        text.contains("the service replicates: the packet goes to a session, all 3 backends"),
        "{text}"
    );

    let replica = explained(&tcp(("10.0.0.1", 80), "192.0.2.1:16384/tcp", "SA"));
    assert_eq!(replica.fate, Fate::Session);
    assert_eq!(replica.service, None);
    let other = explained(&tcp(("10.0.0.1", 80), "192.0.2.1:22/tcp", "SA"));
    assert_eq!(other.fate, Fate::Drop(DropReason::NoSession));
}

/// An entry that a tunnel left behind does not outlive the change to replication; one of a VIP of
/// every port does when its port alone replicates.
#[test]
fn a_known_flow_and_a_service_that_replicates_are_decided_on_as_the_dataplane_does() {
    let all = "203.0.113.10:0/tcp";
    let rows = [
        (vec![replicated("web", &[all], three())], true),
        (
            vec![
                service("web", &[all], three()),
                replicated("game", &[VIP], three()),
            ],
            false,
        ),
    ];
    for (after, is_session) in rows {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 9,
            flows_v6: 9,
            seed: 1,
            ..DataplaneConfig::default()
        });
        let before = vec![service("web", &[all], three())];
        dataplane.adopt(Arc::new(compile(&Tables::default(), 1, before)));
        let mut verdicts = [crate::Verdict::Drop(DropReason::TxFull)];
        let opening = tcp(CLIENT, VIP, "S");
        dataplane.process(
            crate::Micros::new(0),
            &[crate::PortId(0); crate::BURST],
            &mut [steered(20, &opening)],
            &mut verdicts,
        );
        let tables = Arc::new(compile(dataplane.tables(), 2, after));
        dataplane.adopt(Arc::clone(&tables));

        let packet = tcp(CLIENT, VIP, "A");
        let known = dataplane.known(Seconds::new(1), &flow_of(&packet).unwrap());
        assert!(known.is_some());
        let explained = frame(&tables, &["eth0"], &packet, known);
        assert_eq!(explained.fate == Fate::Session, is_session, "{explained:?}");
        dataplane.process(
            crate::Micros::new(1_000_000),
            &[crate::PortId(0); crate::BURST],
            &mut [steered(20, &packet)],
            &mut verdicts,
        );
        assert_eq!(verdicts[0] == crate::Verdict::Local, is_session);
    }
}

#[test]
fn a_choice_says_how_it_was_made_or_that_it_cannot_be_predicted() {
    let key = FlowKey::V4(lockstep_wire::FlowKey4::new(
        "198.51.100.7".parse().unwrap(),
        40_000,
        "203.0.113.10".parse().unwrap(),
        80,
        6,
    ));
    for (scheduler, predicted, words) in [
        (Scheduler::Maglev, true, "Maglev: hash"),
        (
            Scheduler::SourceHash,
            true,
            "the client's address alone has hash",
        ),
        (Scheduler::RoundRobin, false, "the next one in turn"),
        (
            Scheduler::LeastConnections,
            false,
            "fewest flows for its weight on the worker",
        ),
        (Scheduler::Random, false, "drawn by weight"),
    ] {
        let web = lockstep_plan::Service {
            scheduler,
            ..service("web", &[VIP], three())
        };
        let tables = compile(&Tables::default(), 1, vec![web]);
        let steps = tuple(&tables, &["eth0"], &key, None).steps.join("\n");
        assert!(steps.contains(words), "{steps}");
        assert_eq!(!steps.contains("cannot be predicted"), predicted, "{steps}");
    }
}

#[test]
fn a_sender_that_is_told_of_no_backend_is_explained() {
    let reset = |unserved| {
        let service = lockstep_plan::Service {
            unserved,
            ..service("web", &[VIP, VIP_UDP], vec![])
        };
        compile(&Tables::default(), 1, vec![service])
    };
    let tables = reset(Unserved::Reset);
    for (packet, how) in [
        (tcp(CLIENT, VIP, "S"), "its sender gets a RST"),
        (udp(CLIENT, VIP_UDP, b"?"), "port unreachable"),
    ] {
        let explanation = frame(&tables, &["eth0"], &packet, None);
        assert_eq!(explanation.fate, Fate::Drop(DropReason::NoBackend));
        let text = explanation.steps.join("\n");
        assert!(text.contains(how), "{how} in:\n{text}");
        let silent = frame(&reset(Unserved::Drop), &["eth0"], &packet, None);
        assert!(!silent.steps.join("\n").contains("sender"));
    }
}
