//! Packets that do not fit the tunnel, and what their senders are told.

use super::*;

/// The fixtures' routes take 1,600 bytes.
const MTU: u16 = 1_600;

#[test]
fn the_sender_of_a_packet_that_does_not_fit_is_told_what_does() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let request = net.request(protocol, 1_570);
            let room = net.header() as u16;
            let mut tagged = roomy(room, &request);
            tagged[16..18].copy_from_slice(&100_u16.to_be_bytes());
            let rows = [
                ("untagged", roomy(room, &request), Vec::new()),
                ("tagged", tagged, Vec::from([100])),
            ];
            for (description, frame, tags) in rows {
                let mut dataplane = net.dataplane();
                let answer = send(&mut dataplane, T0, &frame).expect(description);
                assert!(answer.goes_back(), "{description}: {answer:?}");
                assert_eq!(answer.tags, tags);
                // From the VIP: what the client has a connection to.
                assert_eq!((answer.from, answer.to), (net.vip, net.client));
                let (kind, code, rest, quote) = answer.message();
                let inside = MTU - net.header() as u16;
                assert_eq!((kind, code, rest), net.too_big(inside), "{description}");
                let longest = if net.is_v4() { 576 } else { 1_280 };
                assert_eq!(answer.payload.len() + net.header(), longest);
                assert_eq!(quote, &request[..quote.len()], "as it came");
                assert_eq!(drops(&dataplane, DropReason::TooBig), 1, "and is counted");
                let forwarded: u64 = dataplane
                    .counters()
                    .vips
                    .iter()
                    .map(|v| v.packets.get())
                    .sum();
                assert_eq!(forwarded, 0);
            }
            // What fits by a byte does.
            let length = usize::from(MTU) - 2 * net.header() - if protocol == TCP { 20 } else { 8 };
            let (last, first) = (
                net.request(protocol, length),
                net.request(protocol, length + 1),
            );
            let mut dataplane = net.dataplane();
            let sent = send(&mut dataplane, T0, &roomy(room, &last)).unwrap();
            assert_eq!(sent.to, net.server);
            let answer = send(&mut dataplane, T0, &roomy(room, &first)).unwrap();
            assert_eq!(answer.to, net.client);
        }
    }
}

#[test]
fn without_dont_fragment_the_sender_is_told_as_well() {
    let [net, _] = nets();
    let mut request = net.request(UDP, 1_570);
    request[6..8].copy_from_slice(&[0, 0]);
    request[10..12].copy_from_slice(&[0, 0]);
    let sum = !ones(&request[..20]);
    request[10..12].copy_from_slice(&sum.to_be_bytes());
    let answer = send(&mut net.dataplane(), T0, &roomy(20, &request)).unwrap();
    let (kind, code, rest, _) = answer.message();
    assert_eq!((kind, code, rest), net.too_big(MTU - 20));
}

#[test]
fn nobody_hears_of_less_than_the_least_mtu_of_ipv6() {
    let [_, net] = nets();
    let tables = compile(&Tables::default(), 1, Vec::from([net.service()]));
    let narrow = tables.rerouted(|_| {
        let route = crate::tables::Route {
            mtu: 1_300,
            ..crate::fixtures::route()
        };
        Some(crate::tables::NextHop::Via(route))
    });
    let answer = send(
        &mut dataplane(narrow),
        T0,
        &roomy(40, &net.request(TCP, 1_220)),
    )
    .unwrap();
    let (kind, code, rest, quote) = answer.message();
    assert_eq!((kind, code, rest), net.too_big(1_280));
    // 1,280 bytes came, and 1,232 may be quoted.
    assert_eq!(quote.len(), 1_280 - 48);
}

#[test]
fn errors_about_errors_groups_and_later_fragments_are_not_sent() {
    let [net, _] = nets();
    let mut group = roomy(20, &net.request(TCP, 1_570));
    group[0] = 1;
    let nobody = transport(TCP, ("0.0.0.0".parse().unwrap(), 1), (net.vip, 80), 1_570);
    // Longer than it may be, but then a router's error about it would be about an error.
    let error = icmp(
        net.router,
        net.vip,
        net.too_big(1_400),
        &net.answer(TCP, 1_540),
    );
    let rows = [
        ("to a group", group),
        ("from nobody", roomy(20, &nobody)),
        ("an error", roomy(20, &error)),
    ];
    for (description, frame) in rows {
        let mut dataplane = net.dataplane();
        let sent = send(&mut dataplane, T0, &frame);
        assert_eq!(sent, Err(DropReason::TooBig), "{description}");
        assert_eq!(drops(&dataplane, DropReason::TooBig), 1, "{description}");
    }
}

#[test]
fn so_many_errors_are_sent_a_second() {
    let [net, _] = nets();
    let mut dataplane = net.dataplane();
    let frame = roomy(20, &net.request(TCP, 1_570));
    let mut told = |at: u64, times: usize| {
        let at = Micros::new(T0.get() + at);
        (0..times)
            .filter(|_| send(&mut dataplane, at, &frame).is_ok())
            .count()
    };
    assert_eq!(told(0, 300), 100);
    assert_eq!(told(1_000_000, 300), 100, "a second fills it again");
    assert_eq!(drops(&dataplane, DropReason::TooBig), 600, "told or not");
}
