//! Errors about a backend's packets, to the VIP.

use super::*;
use crate::fixtures::{replicated, three};

/// The errors of one version: type, code, the rest of the header.
fn kinds(net: &Net) -> Vec<(&'static str, Kind)> {
    if net.is_v4() {
        Vec::from([
            ("fragmentation needed", net.too_big(1_400)),
            ("host unreachable", (3, 1, [0; 4])),
            ("time exceeded", (11, 0, [0; 4])),
            ("parameter problem", (12, 0, [20, 0, 0, 0])),
        ])
    } else {
        Vec::from([
            ("packet too big", net.too_big(1_400)),
            ("no route", (1, 0, [0; 4])),
            ("hop limit exceeded", (3, 0, [0; 4])),
            ("parameter problem", (4, 1, [0, 0, 0, 40])),
        ])
    }
}

#[test]
fn an_error_goes_to_the_backend_through_its_tunnel() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            for (description, kind) in kinds(&net) {
                let mut quote = net.answer(protocol, 1_450);
                quote.truncate(net.header() + 8);
                let error = icmp(net.router, net.vip, kind, &quote);
                let room = net.header() as u16;
                for (place, room) in [("the room", room), ("more room", 48)] {
                    let mut dataplane = net.dataplane();
                    let sent = send(&mut dataplane, T0, &roomy(room, &error)).expect(description);
                    assert_eq!(sent.port, PortId(0), "{description}, {place}");
                    assert_eq!((sent.from, sent.to), (net.engine, net.server));
                    assert_eq!(sent.protocol, if net.is_v4() { 4 } else { 41 });
                    // One hop later, and else byte for byte.
                    let mut expected = error.clone();
                    if net.is_v4() {
                        expected[8] -= 1;
                        expected[10..12].copy_from_slice(&[0, 0]);
                        let sum = !ones(&expected[..20]);
                        expected[10..12].copy_from_slice(&sum.to_be_bytes());
                    } else {
                        expected[7] -= 1;
                    }
                    assert_eq!(sent.payload, expected, "{description}, {place}");
                }
            }
        }
    }
}

/// Eleven of sixteen clients are moved by a change of backends: whoever has an entry is not.
#[test]
fn an_error_follows_its_flow_and_without_one_the_ring() {
    let [net, _] = nets();
    let vips = net.vips();
    let [vip, _] = vips.each_ref().map(String::as_str);
    let web = |backends| Vec::from([service("web", &[vip], backends)]);
    let before = compile(&Tables::default(), 1, web(three()));
    let after = compile(
        &before,
        2,
        web([three(), Vec::from([backend("10.0.0.4")])].concat()),
    );
    let mut knows = dataplane(before);
    let clients: Vec<u16> = (0..400).map(|n| 1_024 + n).collect();
    let request = |port| transport(TCP, (net.client, port), (net.vip, 80), 0);
    let error = |port| {
        let quote = transport(TCP, (net.vip, 80), (net.client, port), 100);
        icmp(net.router, net.vip, net.too_big(1_400), &quote[..28])
    };
    let to = |dataplane: &mut Dataplane, packet: &[u8]| {
        send(dataplane, T0, &roomy(20, packet)).unwrap().to
    };
    let chosen: Vec<IpAddr> = clients
        .iter()
        .map(|&p| to(&mut knows, &request(p)))
        .collect();
    knows.adopt(Arc::new(after.clone()));
    // Another balancer, which never saw the flows: it goes by the ring before, as long as it knows.
    let mut other = dataplane(after.settled(|_| true));
    let mut just_changed = dataplane(after);
    let mut moved = 0;
    for (&port, &chosen) in clients.iter().zip(&chosen) {
        assert_eq!(to(&mut knows, &error(port)), chosen);
        assert_eq!(to(&mut just_changed, &error(port)), chosen);
        let by_ring = to(&mut other, &error(port));
        assert_eq!(other.flows_v4().len(), 0, "an error makes no flow");
        moved += usize::from(by_ring != chosen);
    }
    assert!(moved > 0, "the ring is another one by now");
    let mut stateless = dataplane(compile(&Tables::default(), 1, web(three())));
    for (&port, &chosen) in clients.iter().zip(&chosen) {
        assert_eq!(to(&mut stateless, &error(port)), chosen);
    }
}

#[test]
fn an_error_about_nothing_of_ours_is_dropped() {
    let [net, _] = nets();
    let quote = |from: (IpAddr, u16), to: (IpAddr, u16)| transport(TCP, from, to, 100);
    let ours = quote((net.vip, 80), (net.client, CLIENT_PORT));
    let from = |to: IpAddr, quote: &[u8]| icmp(net.router, to, net.too_big(1_400), &quote[..28]);
    let other: IpAddr = "203.0.113.99".parse().unwrap();
    let gone = quote((net.vip, 81), (net.client, CLIENT_PORT));
    let replica = quote((net.engine, 20_000), (net.server, 80));
    let mut cut = icmp(net.router, net.vip, net.too_big(1_400), &ours[..20]);
    let mut spent = from(net.vip, &ours);
    spent[8] = 1;
    for packet in [&mut cut, &mut spent] {
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = !ones(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let rows = [
        (
            "a port without VIP",
            from(net.vip, &gone),
            DropReason::IcmpUnmatched,
        ),
        (
            "not to its sender",
            from(other, &ours),
            DropReason::Malformed,
        ),
        ("no ports quoted", cut, DropReason::Truncated),
        ("TTL used up", spent, DropReason::TtlExceeded),
        (
            "a connection to a replica",
            from(net.engine, &replica),
            DropReason::IcmpSession,
        ),
    ];
    for (description, error, expected) in rows {
        let tables = compile(&Tables::default(), 1, Vec::from([net.service()]));
        let mut dataplane = dataplane(tables.with_session_ports(16_384..=32_767));
        assert_eq!(
            send(&mut dataplane, T0, &roomy(20, &error)),
            Err(expected),
            "{description}"
        );
        assert_eq!(drops(&dataplane, expected), 1, "{description} is counted");
    }
    // The client's own connection to a service that replicates.
    let vips = net.vips();
    let session = replicated("web", &[vips[0].as_str()], three());
    let mut dataplane = dataplane(compile(&Tables::default(), 1, Vec::from([session])));
    let sent = send(&mut dataplane, T0, &plain(&[], &from(net.vip, &ours)));
    assert_eq!(sent, Err(DropReason::IcmpSession));
}
