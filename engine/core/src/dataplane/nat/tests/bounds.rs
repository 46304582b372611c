//! What happens where something is full, taken, or not known.

use super::*;

#[test]
fn one_port_of_a_client_with_two_vips_of_a_backend_is_a_clash() {
    let two = ["203.0.113.10:80/tcp", "203.0.113.11:80/tcp"];
    let service = |backends| rewriting(Mode::Nat, &two, backends);
    let first = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    let second = Packet::tcp(CLIENT, "203.0.113.11:80", "S");

    // With one backend there is no other.
    let one = vec![at_port("10.0.0.1", 8080)];
    let mut d = dataplane(compile(&Tables::default(), 1, vec![service(one.clone())]));
    let out = to_backend(&mut d, &first);
    assert_eq!(refused(&mut d, OUTSIDE, &second), DropReason::NatClash);
    assert_eq!(to_client(&mut d, &out.answer("SA")).from, first.to);
    // Once the first connection is over, the port is free for the second.
    to_client(&mut d, &out.answer("R"));
    let out = to_backend(&mut d, &second);
    assert_eq!(to_client(&mut d, &out.answer("SA")).from, second.to);
    assert_eq!(d.flows_v4().len(), 1);

    // With two, the other one takes it.
    let both = vec![at_port("10.0.0.1", 8080), at_port("10.0.0.2", 8080)];
    let mut d = dataplane(compile(&Tables::default(), 1, vec![service(both)]));
    let (one, other) = (to_backend(&mut d, &first), to_backend(&mut d, &second));
    assert_ne!(one.to, other.to);
    assert_eq!(to_client(&mut d, &one.answer("SA")).from, first.to);
    assert_eq!(to_client(&mut d, &other.answer("SA")).from, second.to);

    // In full NAT each has its own port.
    let services = vec![rewriting(Mode::FullNat, &two, one_backend())];
    let mut d = dataplane(compile(&Tables::default(), 1, services));
    let (one, other) = (to_backend(&mut d, &first), to_backend(&mut d, &second));
    assert_eq!(one.to, other.to);
    assert_ne!(one.from, other.from);
}

fn one_backend() -> Vec<Backend> {
    vec![at_port("10.0.0.1", 8080)]
}

#[test]
fn every_port_is_used_once_then_no_more_until_one_is_closed() {
    for ports in [2_000..=2_003, 2_000..=2_099] {
        let mut d = with(config(ports.clone()), web(Mode::FullNat));
        let syn = |n: u32| {
            let client = format!("198.51.{}.{}:40000", n / 250, n % 250);
            Packet::tcp(&client, "203.0.113.10:80", "S")
        };
        let mut used = std::collections::BTreeMap::new();
        let mut full = 0;
        // Of a hundred ports some are missed by the few that a flow tries: others find them.
        for n in 0..2_000 {
            match process(&mut d, T0, OUTSIDE, &syn(n).frame()) {
                (Verdict::Forward { .. }, frame) => {
                    let port = Packet::read(&frame).from.port();
                    assert!(ports.contains(&port));
                    assert_eq!(used.insert(port, n), None, "port {port} is used twice");
                }
                (Verdict::Drop(DropReason::PortsFull), _) => full += 1,
                (verdict, _) => panic!("{verdict:?}"),
            }
        }
        assert_eq!(used.len(), ports.len());
        assert_eq!(full, 2_000 - ports.len());
        // One is closed: its port is the next one's.
        let (&port, &n) = used.iter().nth(2).unwrap();
        to_backend(
            &mut d,
            &Packet {
                flags: "R".into(),
                ..syn(n)
            },
        );
        let taken =
            (2_000..3_000).find_map(|n| match process(&mut d, T0, OUTSIDE, &syn(n).frame()) {
                (Verdict::Forward { .. }, frame) => Some(Packet::read(&frame).from.port()),
                _ => None,
            });
        assert_eq!(taken, Some(port));
        assert_eq!(d.flows_v4().len(), ports.len());
    }
}

#[test]
fn ports_are_counted_for_each_backend_and_protocol() {
    let backends = vec![backend("10.0.0.1"), backend("10.0.0.2")];
    let vips = ["203.0.113.10:80/tcp", "203.0.113.10:80/udp"];
    let services = vec![rewriting(Mode::FullNat, &vips, backends)];
    let mut d = with(
        config(2_000..=2_000),
        compile(&Tables::default(), 1, services),
    );
    let mut out = Vec::new();
    for n in 0..100 {
        let client = format!("198.51.100.{n}:40000");
        for packet in [
            Packet::tcp(&client, "203.0.113.10:80", "S"),
            Packet::udp(&client, "203.0.113.10:80"),
        ] {
            if let (Verdict::Forward { .. }, frame) = process(&mut d, T0, OUTSIDE, &packet.frame())
            {
                out.push((packet, Packet::read(&frame)));
            }
        }
    }
    // One port, two backends, two protocols.
    assert_eq!(out.len(), 4);
    for (packet, out) in &out {
        assert_eq!(to_client(&mut d, &out.answer("SA")).to, packet.from);
    }
}

#[test]
fn without_a_pool_there_is_no_full_nat() {
    let none = DataplaneConfig {
        nat: NatConfig::default(),
        ..config(1..=1)
    };
    let mut d = with(none, web(Mode::FullNat));
    let syn = Packet::tcp(CLIENT, "203.0.113.10:80", "S");
    assert_eq!(refused(&mut d, OUTSIDE, &syn), DropReason::PortsFull);
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old_ones() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let small = DataplaneConfig {
            flows_v4: 40,
            ..config(1_024..=16_383)
        };
        let mut d = with(small, web(mode));
        let client = |n: u32| format!("198.51.{}.{}:40000", n / 250, n % 250);
        let packet = |n: u32, flags: &str| Packet::tcp(&client(n), "203.0.113.10:80", flags);
        let mut established = Vec::new();
        let mut full = 0;
        for n in 0..1_000 {
            match process(&mut d, T0, OUTSIDE, &packet(n, "S").frame()) {
                (Verdict::Forward { .. }, frame) => {
                    to_backend(&mut d, &packet(n, "A"));
                    established.push((n, Packet::read(&frame)));
                }
                (Verdict::Drop(DropReason::FlowsFull), _) => full += 1,
                (verdict, _) => panic!("{verdict:?}"),
            }
        }
        assert!(full > 900 && established.len() >= 40, "{full}");
        for (n, out) in &established {
            assert_eq!(to_backend(&mut d, &packet(*n, "A")).from, out.from);
            assert_eq!(
                to_client(&mut d, &out.answer("A")).to.to_string(),
                client(*n)
            );
        }
        assert_eq!(d.counters().stateless.get(), 0);
        // Half-open ones give way: a flood takes its own places only.
        for (n, _) in established.iter().take(20) {
            to_backend(&mut d, &packet(*n, "R"));
        }
        let opened = (1_000..2_000)
            .filter(|&n| {
                let (verdict, _) = process(&mut d, T0, OUTSIDE, &packet(n, "S").frame());
                matches!(verdict, Verdict::Forward { .. })
            })
            .count();
        assert!(opened > 100, "{opened}");
        for (n, out) in established.iter().skip(20) {
            assert_eq!(
                to_client(&mut d, &out.answer("A")).to.to_string(),
                client(*n)
            );
        }
    }
}

#[test]
fn only_a_first_packet_opens_a_flow_in_full_nat_and_any_in_nat() {
    for flags in ["A", "FA", "R"] {
        let packet = Packet::tcp(CLIENT, "203.0.113.10:80", flags);
        let mut d = dataplane(web(Mode::FullNat));
        assert_eq!(refused(&mut d, OUTSIDE, &packet), DropReason::NoFlow);
        assert!(d.flows_v4().is_empty());
        // The backend knows the client's own address, so that the connection goes on.
        let mut d = dataplane(web(Mode::Nat));
        let out = to_backend(&mut d, &packet);
        assert_eq!(to_client(&mut d, &out.answer("A")).from, packet.to);
    }
}

#[test]
fn an_answer_of_no_flow_goes_nowhere() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let mut d = dataplane(web(mode));
        let out = to_backend(&mut d, &Packet::tcp(CLIENT, "203.0.113.10:80", "S"));
        let answer = out.answer("SA");
        let other_port = Packet {
            to: SocketAddr::new(answer.to.ip(), answer.to.port() ^ 1),
            ..answer.clone()
        };
        let other_host = Packet {
            to: "198.51.100.99:40000".parse().unwrap(),
            ..answer.clone()
        };
        let udp = Packet {
            protocol: Protocol::Udp,
            flags: String::new(),
            ..answer.clone()
        };
        let other_source = Packet {
            from: "10.0.0.1:8081".parse().unwrap(),
            ..answer
        };
        assert_eq!(refused(&mut d, INSIDE, &other_port), DropReason::NoFlow);
        assert_eq!(refused(&mut d, INSIDE, &other_host), DropReason::NoFlow);
        for packet in [udp, other_source] {
            let reason = refused(&mut d, INSIDE, &packet);
            assert!(
                matches!(reason, DropReason::NoVip | DropReason::NoSession),
                "{reason}"
            );
        }
    }
}

#[test]
fn more_ways_than_are_remembered_are_refused() {
    let mut d = dataplane(web(Mode::Nat));
    let syn = |n: u16| {
        let [a, b] = n.to_be_bytes();
        Packet {
            macs: ([2, 1, 0, 0, a, b], BALANCER_MAC),
            ..Packet::udp(&format!("198.51.{a}.{b}:40000"), "203.0.113.10:53")
        }
    };
    let service = rewriting(
        Mode::Nat,
        &["203.0.113.10:53/udp"],
        vec![backend("10.0.0.1")],
    );
    let big = DataplaneConfig {
        flows_v4: 10_000,
        ..config(1_024..=16_383)
    };
    let tables = compile(d.tables(), 2, vec![service]);
    d = with(big, tables);
    for n in 0..4_095 {
        sent(&mut d, OUTSIDE, &syn(n));
    }
    assert_eq!(refused(&mut d, OUTSIDE, &syn(4_095)), DropReason::PathsFull);
    // A flow by a way that is known goes on.
    let known = Packet {
        macs: syn(7).macs,
        ..syn(4_096)
    };
    sent(&mut d, OUTSIDE, &known);
}
