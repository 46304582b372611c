//! ICMP errors, fragments and packets that do not fit, of services that rewrite.

use super::*;

const MODES: [Mode; 2] = [Mode::Nat, Mode::FullNat];

/// What the backend sees of a request: the client, or an address and port of the engine.
fn seen_by_backend(dataplane: &mut Dataplane, request: &[u8]) -> (Sent, (IpAddr, u16)) {
    let sent = send(dataplane, T0, &plain(&[], request)).unwrap();
    let port = u16::from_be_bytes([sent.payload[0], sent.payload[1]]);
    let source = (sent.from, port);
    (sent, source)
}

#[test]
fn an_error_about_an_answer_is_one_about_what_the_backend_sent() {
    for net in nets() {
        for mode in MODES {
            for protocol in [TCP, UDP] {
                let mut dataplane = net.rewriting(mode.clone());
                let (_, source) = seen_by_backend(&mut dataplane, &net.opening(protocol));
                // Whole, so that the checksum of the quoted packet is in it too.
                let answer = net.answer(protocol, 100);
                let error = icmp(net.router, net.vip, net.too_big(1_300), &answer);
                let sent = send(&mut dataplane, T0, &plain(&[], &error)).unwrap();
                assert_eq!((sent.port, sent.to), (PortId(0), net.server));
                let from = if mode == Mode::Nat {
                    net.router
                } else {
                    net.engine
                };
                assert_eq!(sent.from, from, "{mode:?}");
                let (kind, code, rest, quote) = sent.message();
                assert_eq!((kind, code, rest), net.too_big(1_300));
                let expected = transport(protocol, (net.server, 8_080), source, 100);
                assert_eq!(quote, expected, "{mode:?}");
            }
        }
    }
}

#[test]
fn an_error_about_a_rewritten_packet_is_one_about_what_the_client_sent() {
    for net in nets() {
        for mode in MODES {
            for protocol in [TCP, UDP] {
                let mut dataplane = net.rewriting(mode.clone());
                let request = net.request(protocol, 10);
                let frame = plain(&[100], &request);
                let opening = plain(&[100], &net.opening(protocol));
                send(&mut dataplane, T0, &opening).unwrap();
                let forwarded = send(&mut dataplane, T0, &frame).unwrap();
                // The backend itself: nobody listens there.
                let kind = if net.is_v4() {
                    (3, 3, [0; 4])
                } else {
                    (1, 4, [0; 4])
                };
                let error = icmp(net.server, forwarded.from, kind, &forwarded.packet);
                let sent = send(&mut dataplane, T0, &plain(&[7], &error)).unwrap();
                assert!(sent.goes_back(), "{mode:?}: {sent:?}");
                assert_eq!(sent.tags, Vec::from([100]), "as the client's packets come");
                assert_eq!((sent.from, sent.to), (net.vip, net.client));
                let (kind_, code, rest, quote) = sent.message();
                assert_eq!((kind_, code, rest), kind);
                // But for the hop that was counted.
                let header = net.header();
                assert_eq!(quote[header..], request[header..], "{mode:?}");
                let addresses = if net.is_v4() { 12..20 } else { 8..40 };
                assert_eq!(quote[addresses.clone()], request[addresses]);
                if net.is_v4() {
                    assert_eq!(ones(&quote[..20]), 0xffff, "the quoted checksum");
                }
            }
        }
    }
}

#[test]
fn with_nat_the_backend_follows_from_the_flow_alone_with_full_nat_not() {
    for net in nets() {
        let error = icmp(
            net.router,
            net.vip,
            net.too_big(1_300),
            &net.answer(TCP, 100),
        );
        let mut other = net.rewriting(Mode::Nat);
        let sent = send(&mut other, T0, &plain(&[], &error)).unwrap();
        let client = (net.client, CLIENT_PORT);
        let expected = transport(TCP, (net.server, 8_080), client, 100);
        assert_eq!((sent.to, sent.message().3), (net.server, &expected[..]));
        let mut other = net.rewriting(Mode::FullNat);
        let sent = send(&mut other, T0, &plain(&[], &error));
        assert_eq!(sent, Err(DropReason::IcmpUnmatched));
    }
}

#[test]
fn a_quote_may_end_behind_the_ports() {
    for net in nets() {
        let mut dataplane = net.rewriting(Mode::FullNat);
        let (_, source) = seen_by_backend(&mut dataplane, &net.request(UDP, 10));
        let least = net.header() + 4;
        let answer = net.answer(UDP, 100);
        let error = icmp(net.router, net.vip, net.too_big(1_300), &answer[..least]);
        let sent = send(&mut dataplane, T0, &plain(&[], &error)).unwrap();
        let expected = transport(UDP, (net.server, 8_080), source, 100);
        assert_eq!(sent.message().3, &expected[..least]);
    }
}

#[test]
fn both_sides_are_told_what_fits_their_way() {
    for net in nets() {
        for mode in MODES {
            let mut dataplane = net.rewriting(mode.clone());
            let (_, source) = seen_by_backend(&mut dataplane, &net.request(UDP, 10));
            // The fixtures' way to the backend takes 1,600 bytes.
            let long = net.request(UDP, 1_590);
            let told = send(&mut dataplane, T0, &plain(&[], &long)).unwrap();
            assert_eq!((told.from, told.to), (net.vip, net.client), "{mode:?}");
            let (kind, code, rest, quote) = told.message();
            assert_eq!((kind, code, rest), net.too_big(1_600));
            assert_eq!(quote, &long[..quote.len()]);
            // And the one that the client came by 1,400.
            let answer = transport(UDP, (net.server, 8_080), source, 1_390);
            let told = send(&mut dataplane, T0, &plain(&[], &answer)).unwrap();
            assert_eq!((told.from, told.to), (source.0, net.server), "{mode:?}");
            let (kind, code, rest, quote) = told.message();
            assert_eq!((kind, code, rest), net.too_big(1_400));
            assert_eq!(quote, &answer[..quote.len()]);
            assert_eq!(drops(&dataplane, DropReason::TooBig), 2);
        }
    }
}

#[test]
fn fragments_are_rewritten_both_ways() {
    for net in nets() {
        for mode in MODES {
            let mut dataplane = net.rewriting(mode.clone());
            let request = net.request(UDP, 3_000);
            let parts = super::fragments::cut(&net, &request, 7, 1_200);
            let mut there = Vec::new();
            let mut source = None;
            for part in &parts {
                let sent = send(&mut dataplane, T0, &plain(&[], part)).unwrap();
                assert_eq!(sent.to, net.server, "{mode:?}");
                source.get_or_insert(sent.from);
                let extension = if net.is_v4() { 0 } else { 8 };
                there.extend_from_slice(&sent.payload[extension..]);
            }
            let source = (source.unwrap(), u16::from_be_bytes([there[0], there[1]]));
            let whole = transport(UDP, source, (net.server, 8_080), 3_000);
            assert_eq!(there, whole[net.header()..], "{mode:?}: the whole datagram");

            let answer = transport(UDP, (net.server, 8_080), source, 3_000);
            let mut back = Vec::new();
            for part in super::fragments::cut(&net, &answer, 8, 1_200) {
                let sent = send(&mut dataplane, T0, &plain(&[], &part)).unwrap();
                assert_eq!((sent.from, sent.to), (net.vip, net.client), "{mode:?}");
                let extension = if net.is_v4() { 0 } else { 8 };
                back.extend_from_slice(&sent.payload[extension..]);
            }
            assert_eq!(back, net.answer(UDP, 3_000)[net.header()..], "{mode:?}");
        }
    }
}
