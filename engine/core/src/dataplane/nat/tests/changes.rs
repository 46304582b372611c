//! What happens when the way, the backends or the services change.

use super::*;
use crate::fixtures::via_router;
use crate::time::Seconds;

#[test]
fn answers_leave_by_the_way_the_clients_last_packet_came() {
    let mut d = dataplane(web(Mode::Nat));
    let packet = |mac: u8, vlan: Option<u16>, flags: &str| Packet {
        macs: ([2, 9, 9, 9, 9, mac], BALANCER_MAC),
        vlan,
        ..Packet::tcp(CLIENT, "203.0.113.10:80", flags)
    };
    // The answers of a backend that is reached untagged come untagged: there is room for a tag
    // only in frames that have one.
    let tagged = |answer: Packet| Packet {
        vlan: Some(7),
        ..answer
    };
    let (_, out) = sent(&mut d, OUTSIDE, &packet(1, None, "S"));
    let rows = [
        (1, None, OUTSIDE),
        (2, None, OUTSIDE),
        (2, Some(100), OUTSIDE),
        (2, Some(101), OUTSIDE),
        (2, None, PortId(3)),
        (1, None, OUTSIDE),
    ];
    for (mac, vlan, port) in rows {
        let (_, again) = sent(&mut d, port, &packet(mac, vlan, "A"));
        assert_eq!((again.to, again.vlan), (out.to, None));
        let (by, back) = sent(&mut d, INSIDE, &tagged(out.answer("A")));
        assert_eq!(by, port);
        assert_eq!((back.macs.1, back.vlan), ([2, 9, 9, 9, 9, mac], vlan));
    }
    // A frame without room for the tag cannot be sent, and two tags are one too many.
    sent(&mut d, OUTSIDE, &packet(1, Some(100), "A"));
    assert_eq!(
        refused(&mut d, INSIDE, &out.answer("A")),
        DropReason::NoRoom
    );
}

#[test]
fn a_backend_behind_a_vlan_is_reached_where_there_is_room_for_the_tag() {
    let services = vec![rewriting(Mode::Nat, &[WEB], vec![backend("10.0.0.1")])];
    let snapshot = Snapshot::new(1, services).unwrap();
    let way = NextHop::Via(Route {
        link: LinkHeader {
            vlan: Some(20),
            ..route().link
        },
        ..route()
    });
    let tables = Tables::compile(&Tables::default(), &snapshot, addresses(), |_| way).unwrap();
    assert!(tables.rooms().all(|(_, room)| room == 4));
    let mut d = dataplane(tables);
    let plain = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let (verdict, _) = process(&mut d, T0, OUTSIDE, &plain.frame());
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoom));
    // With the XDP program's room, and with a tag of its own.
    let steered = crate::fixtures::steered(4, &plain.frame());
    let (verdict, frame) = process(&mut d, T0, OUTSIDE, &steered);
    assert!(matches!(verdict, Verdict::Forward { .. }));
    let out = Packet::read(&frame);
    assert_eq!(
        (out.vlan, out.to.to_string()),
        (Some(20), "10.0.0.1:80".into())
    );
    let tagged = Packet {
        vlan: Some(100),
        ..plain
    };
    assert_eq!(sent(&mut d, OUTSIDE, &tagged).1.vlan, Some(20));
    let answer = Packet {
        vlan: Some(20),
        ..out.answer("SA")
    };
    assert_eq!(sent(&mut d, INSIDE, &answer).1.vlan, Some(100));
}

#[test]
fn flows_of_a_removed_backend_go_to_another_and_its_answers_nowhere() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let services = |backends| vec![rewriting(mode.clone(), &[WEB], backends)];
        let both = || vec![backend("10.0.0.1"), backend("10.0.0.2")];
        let mut d = dataplane(compile(&Tables::default(), 1, services(both())));
        let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
        let before = to_backend(&mut d, &syn);
        let mut rest = both();
        rest.retain(|b| b.address != before.to.ip());
        let tables = compile(d.tables(), 2, services(rest));
        d.adopt(Arc::new(tables));

        let answer = before.answer("SA");
        let reason = refused(&mut d, INSIDE, &answer);
        assert!(
            matches!(reason, DropReason::NoVip | DropReason::NoSession),
            "{reason}"
        );
        let after = to_backend(&mut d, &syn);
        assert_ne!(after.to, before.to);
        assert_eq!(to_client(&mut d, &after.answer("SA")).to, syn.from);
        assert_eq!(d.flows_v4().len(), 1);

        // The backend comes back: nothing is left of what it had.
        let tables = compile(d.tables(), 3, services(both()));
        d.adopt(Arc::new(tables));
        assert_eq!(refused(&mut d, INSIDE, &answer), DropReason::NoFlow);
        assert_eq!(to_backend(&mut d, &syn).to, after.to);
    }
}

#[test]
fn a_backend_that_listens_elsewhere_is_another_backend() {
    let services = |port| {
        vec![rewriting(
            Mode::Nat,
            &[WEB],
            vec![at_port("10.0.0.1", port)],
        )]
    };
    let mut d = dataplane(compile(&Tables::default(), 1, services(8080)));
    let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let before = to_backend(&mut d, &syn);
    let tables = compile(d.tables(), 2, services(9090));
    d.adopt(Arc::new(tables));
    assert_eq!(d.counters().rehashed.get(), 0);
    let after = to_backend(&mut d, &syn);
    assert_eq!(after.to.port(), 9090);
    assert_eq!(d.counters().rehashed.get(), 1);
    assert_eq!(to_client(&mut d, &after.answer("SA")).to, syn.from);
    assert_eq!(
        refused(&mut d, INSIDE, &before.answer("SA")),
        DropReason::NoVip
    );
}

#[test]
fn what_is_kept_for_flows_goes_with_them() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let mut d = dataplane(web(mode));
        let syn = |n: u8| Packet {
            macs: ([2, 1, 0, 0, 0, n], BALANCER_MAC),
            ..Packet::tcp(&format!("198.51.100.{n}:40000"), "203.0.113.10:80", "S")
        };
        for n in 0..100 {
            sent(&mut d, OUTSIDE, &syn(n));
        }
        assert_eq!((d.flows_v4().len(), d.flows.nat.paths.len()), (100, 100));
        // Answers keep a flow.
        let late = Micros::new(T0.get() + 50_000_000);
        let (_, out) = sent(&mut d, OUTSIDE, &syn(3));
        process(&mut d, late, INSIDE, &out.answer("SA").frame());
        let later = Seconds::new(T0.get() / 1_000_000 + 61);
        d.tick(later, usize::MAX);
        assert_eq!((d.flows_v4().len(), d.flows.nat.paths.len()), (1, 1));
        d.tick(Seconds::new(T0.get() / 1_000_000 + 200), usize::MAX);
        assert_eq!((d.flows_v4().len(), d.flows.nat.paths.len()), (0, 0));
        assert!(d.flows_v4().is_unlinked());
        let flows = d.counters().backends.iter().map(|b| b.flows.get());
        assert_eq!(flows.sum::<u64>(), 0);
    }
}

#[test]
fn a_client_that_opens_a_port_again_is_chosen_for_afresh() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let mut d = dataplane(web(mode));
        let packet = |flags| Packet::tcp(CLIENT, "203.0.113.10:80", flags);
        for _ in 0..3 {
            let out = to_backend(&mut d, &packet("S"));
            to_client(&mut d, &out.answer("SA"));
            to_backend(&mut d, &packet("FA"));
            to_client(&mut d, &out.answer("FA"));
        }
        assert_eq!((d.flows_v4().len(), d.flows.nat.paths.len()), (1, 1));
        let new: u64 = d
            .counters()
            .backends
            .iter()
            .map(|b| b.new_flows.get())
            .sum();
        assert_eq!(new, 3);
    }
}

#[test]
fn a_service_changes_its_mode_under_its_flows() {
    let services = |mode| vec![rewriting(mode, &[WEB], vec![backend("10.0.0.1")])];
    let mut d = dataplane(compile(&Tables::default(), 1, services(Mode::Nat)));
    let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let out = to_backend(&mut d, &syn);
    let tables = compile(d.tables(), 2, services(Mode::TUNNEL));
    d.adopt(Arc::new(tables));
    assert_eq!(
        refused(&mut d, INSIDE, &out.answer("SA")),
        DropReason::NoVip
    );
    let (verdict, _) = process(
        &mut d,
        T0,
        OUTSIDE,
        &crate::fixtures::steered(20, &syn.frame()),
    );
    assert!(matches!(verdict, Verdict::Forward { .. }));
    let tables = compile(d.tables(), 3, services(Mode::FullNat));
    d.adopt(Arc::new(tables));
    let out = to_backend(&mut d, &syn);
    assert_eq!(out.from.ip(), POOL.parse::<IpAddr>().unwrap());
    assert_eq!(to_client(&mut d, &out.answer("SA")).to, syn.from);
    assert_eq!((d.flows_v4().len(), d.flows.nat.paths.len()), (1, 1));
}

#[test]
fn a_draining_backend_keeps_its_flows_both_ways() {
    let services = |b| {
        vec![rewriting(
            Mode::FullNat,
            &[WEB],
            vec![b, backend("10.0.0.2")],
        )]
    };
    let alone = vec![rewriting(Mode::FullNat, &[WEB], vec![backend("10.0.0.1")])];
    let mut d = dataplane(compile(&Tables::default(), 1, alone));
    let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let out = to_backend(&mut d, &syn);
    let tables = compile(
        d.tables(),
        2,
        services(crate::fixtures::draining("10.0.0.1")),
    );
    d.adopt(Arc::new(tables));
    let data = Packet::tcp(CLIENT, "203.0.113.10:80", "A");
    assert_eq!(to_backend(&mut d, &data).from, out.from);
    assert_eq!(to_client(&mut d, &out.answer("SA")).to, syn.from);
}

#[test]
fn connections_that_a_backend_resets_at_once_are_counted() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let services = vec![rewriting(mode, &[WEB], vec![backend("10.0.0.1")])];
        let mut d = dataplane(compile(&Tables::default(), 1, services));
        let resets = |d: &Dataplane| -> u64 {
            let backends = d.counters().backends.iter();
            backends.map(|b| b.resets.get()).sum()
        };
        let syn = |port: u16| {
            let client = format!("198.51.100.7:{port}");
            Packet::tcp(&client, "203.0.113.10:80", "S")
        };
        let refused = to_backend(&mut d, &syn(40_000));
        to_client(&mut d, &refused.answer("RA"));
        assert_eq!(resets(&d), 1);
        // One that was used and is reset then is the application's business.
        let used = to_backend(&mut d, &syn(40_001));
        to_client(&mut d, &used.answer("SA"));
        to_backend(
            &mut d,
            &Packet {
                flags: "A".into(),
                ..syn(40_001)
            },
        );
        to_client(&mut d, &used.answer("RA"));
        assert_eq!(resets(&d), 1);
    }
}

#[test]
fn what_could_not_be_sent_wants_no_answer() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let services = vec![rewriting(mode, &[WEB], vec![backend("10.0.0.1")])];
        let snapshot = Snapshot::new(1, services).unwrap();
        let none = |_| NextHop::NoRoute;
        let tables = Tables::compile(&Tables::default(), &snapshot, addresses(), none).unwrap();
        let mut d = dataplane(tables);
        let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
        assert_eq!(refused(&mut d, OUTSIDE, &syn), DropReason::NoRoute);
        let unanswered = |d: &Dataplane| -> u64 {
            let backends = d.counters().backends.iter();
            backends.map(|b| b.unanswered.get()).sum()
        };
        assert_eq!(unanswered(&d), 0);
        // Once there is a way, the client's next try is the first that wants one.
        let there = Tables::compile(d.tables(), &snapshot, addresses(), via_router).unwrap();
        d.adopt(Arc::new(there));
        to_backend(&mut d, &syn);
        to_backend(&mut d, &syn);
        assert_eq!(unanswered(&d), 1);
    }
}

#[test]
fn answers_are_counted_and_so_are_connections_that_have_none() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let services = vec![rewriting(mode, &[WEB], vec![backend("10.0.0.1")])];
        let mut d = dataplane(compile(&Tables::default(), 1, services));
        let counts = |d: &Dataplane| {
            let backends = d.counters().backends.iter();
            let count =
                |b: &crate::counters::BackendCounters| [b.answers.get(), b.unanswered.get()];
            let counts: Vec<_> = backends.map(count).filter(|c| *c != [0, 0]).collect();
            counts.first().copied().unwrap_or_default()
        };
        let open = |port: u16| {
            let client = format!("198.51.100.7:{port}");
            Packet::tcp(&client, "203.0.113.10:80", "S")
        };
        let first = to_backend(&mut d, &open(40_000));
        // Said once more, it is no other connection.
        to_backend(&mut d, &open(40_000));
        assert_eq!(counts(&d), [0, 1]);
        to_backend(&mut d, &open(40_001));
        assert_eq!(counts(&d), [0, 2]);
        let asked = d.counters().backends.iter();
        let since = asked.map(|b| b.unanswered_since.get()).max();
        assert_eq!(since, Some(T0.get()));
        to_client(&mut d, &first.answer("SA"));
        assert_eq!(counts(&d), [1, 0]);
        to_client(&mut d, &first.answer("A"));
        assert_eq!(counts(&d), [2, 0]);
        to_backend(&mut d, &open(40_002));
        assert_eq!(counts(&d), [2, 1]);
    }
}
