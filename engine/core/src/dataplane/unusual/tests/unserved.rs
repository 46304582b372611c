//! Services without backends whose clients are to know.

use super::fragments::cut;
use super::*;
use etherparse::TcpSlice;
use lockstep_plan::Unserved;

impl Net {
    /// The service without a backend.
    fn unserved(&self, unserved: Unserved, mode: Mode) -> Dataplane {
        let service = Service {
            backends: Vec::new(),
            unserved,
            mode,
            ..self.service()
        };
        dataplane(compile(&Tables::default(), 1, Vec::from([service])))
    }
}

/// A frame as the worker gives it to the dataplane: filled up with zeros.
fn filled(dataplane: &Dataplane, mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(dataplane.least_unserved()), 0);
    frame
}

/// The RST in an answer: sequence number, acknowledgment number where it counts.
fn reset(answer: &Sent) -> (u32, Option<u32>) {
    assert_eq!(answer.protocol, TCP);
    let sum = match (answer.from, answer.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (answer.payload.len() as u16).to_be_bytes();
            let head = [&from.octets()[..], &to.octets(), &[0, TCP], &length].concat();
            ones(&[&head[..], &answer.payload].concat())
        }
        _ => ones(&pseudo(answer.from, answer.to, TCP, &answer.payload)),
    };
    assert_eq!(sum, 0xffff, "the checksum");
    let tcp = TcpSlice::from_slice(&answer.payload).unwrap();
    assert!(tcp.rst() && !tcp.syn() && !tcp.fin() && !tcp.psh());
    assert_eq!(
        (tcp.source_port(), tcp.destination_port()),
        (80, CLIENT_PORT)
    );
    assert_eq!((tcp.header_len(), tcp.payload().len()), (20, 0));
    let acknowledgment = tcp.ack().then(|| tcp.acknowledgment_number());
    (tcp.sequence_number(), acknowledgment)
}

#[test]
fn connections_are_reset_as_by_a_host_without_the_port() {
    for net in nets() {
        for mode in [Mode::TUNNEL, Mode::Nat, Mode::FullNat] {
            let mut dataplane = net.unserved(Unserved::Reset, mode);
            let room = net.header() as u16;
            // A SYN at 1 with ten bytes, and a segment that acknowledges 1.
            let rows = [
                ("SYN", net.opening(TCP), (0, Some(12))),
                ("ACK", net.request(TCP, 10), (1, None)),
                ("empty ACK", net.request(TCP, 0), (1, None)),
            ];
            for (at, (description, packet, expected)) in rows.into_iter().enumerate() {
                for frame in [roomy(room, &packet), plain(&[7], &packet)] {
                    let answer = send(&mut dataplane, T0, &frame).expect(description);
                    assert!(answer.goes_back(), "{description}: {answer:?}");
                    assert_eq!((answer.from, answer.to), (net.vip, net.client));
                    assert_eq!(answer.ttl, 64);
                    assert_eq!(reset(&answer), expected, "{description}");
                }
                let counted = drops(&dataplane, DropReason::NoBackend);
                assert_eq!(counted, 2 * (at as u64 + 1), "and is counted");
            }
        }
    }
}

#[test]
fn a_reset_is_not_answered() {
    for net in nets() {
        let mut packet = net.request(TCP, 0);
        let flags = net.header() + 13;
        // RST and ACK in place of ACK: 4 more in the sum's lower byte.
        packet[flags] |= 4;
        let sum = net.header() + 16;
        let old = u16::from_be_bytes([packet[sum], packet[sum + 1]]);
        let new = !ones(&[!(old >> 8) as u8, !old as u8, 0, 4]);
        packet[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
        let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
        let frame = roomy(net.header() as u16, &packet);
        let answer = send(&mut dataplane, T0, &frame);
        assert_eq!(answer, Err(DropReason::NoBackend));
    }
}

#[test]
fn datagrams_are_answered_as_to_a_port_without_a_listener() {
    for net in nets() {
        let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
        let request = net.request(UDP, 100);
        let frame = roomy(net.header() as u16, &request);
        let answer = send(&mut dataplane, T0, &frame).unwrap();
        assert!(answer.goes_back());
        assert_eq!((answer.from, answer.to), (net.vip, net.client));
        let (kind, code, rest, quote) = answer.message();
        let unreachable = if net.is_v4() { (3, 3) } else { (1, 4) };
        assert_eq!(((kind, code), rest), (unreachable, [0; 4]));
        // As much of it as came and finds room in its own frame.
        assert!(quote.len() >= net.header() + 8);
        assert_eq!(quote, &request[..quote.len()], "as it came");
        assert_eq!(drops(&dataplane, DropReason::NoBackend), 1);
    }
}

#[test]
fn without_the_policy_everything_is_dropped_in_silence() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut dataplane = net.unserved(Unserved::Drop, Mode::TUNNEL);
            let frame = roomy(net.header() as u16, &net.opening(protocol));
            let answer = send(&mut dataplane, T0, &frame);
            assert_eq!(answer, Err(DropReason::NoBackend));
        }
    }
}

#[test]
fn a_flow_whose_last_backend_goes_is_reset() {
    for net in nets() {
        let mut dataplane = net.dataplane();
        let room = net.header() as u16;
        let sent = send(&mut dataplane, T0, &roomy(room, &net.opening(TCP))).unwrap();
        assert_eq!(sent.to, net.server);
        let service = Service {
            backends: Vec::new(),
            unserved: Unserved::Reset,
            ..net.service()
        };
        let tables = compile(dataplane.tables(), 2, Vec::from([service]));
        dataplane.adopt(Arc::new(tables));
        let answer = send(&mut dataplane, T0, &roomy(room, &net.request(TCP, 10))).unwrap();
        assert_eq!(answer.to, net.client);
        assert_eq!(reset(&answer), (1, None));
    }
}

#[test]
fn a_flood_is_not_doubled() {
    let [net, _] = nets();
    for (protocol, most) in [(TCP, 10_000), (UDP, 100)] {
        let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
        let frame = roomy(20, &net.opening(protocol));
        let answered = (0..12_000).filter(|_| send(&mut dataplane, T0, &frame).is_ok());
        assert_eq!(answered.count(), most);
        assert_eq!(drops(&dataplane, DropReason::NoBackend), 12_000);
    }
}

#[test]
fn the_shortest_datagrams_are_answered_too() {
    for net in nets() {
        for (mode, tags) in [
            (Mode::Nat, &[][..]),
            (Mode::FullNat, &[7]),
            // The XDP program makes no room for a tunnel to nobody.
            (Mode::TUNNEL, &[9, 7]),
        ] {
            let mut dataplane = net.unserved(Unserved::Reset, mode);
            for bytes in [0, 1, 15] {
                let request = net.request(UDP, bytes);
                let frame = filled(&dataplane, plain(tags, &request));
                let answer = send(&mut dataplane, T0, &frame).expect("an answer");
                assert_eq!((&answer.tags[..], answer.to), (tags, net.client));
                let (kind, code, _, quote) = answer.message();
                let unreachable = if net.is_v4() { (3, 3) } else { (1, 4) };
                assert_eq!((kind, code), unreachable);
                assert!(quote.len() >= net.header() + 8);
                assert_eq!(quote, &request[..quote.len()], "and nothing of the filling");
            }
        }
    }
}

#[test]
fn frames_are_filled_up_only_where_somebody_is_to_be_told() {
    let [net, _] = nets();
    assert_eq!(net.dataplane().least_unserved(), 0);
    let silent = net.unserved(Unserved::Drop, Mode::Nat);
    assert_eq!(silent.least_unserved(), 0);
    let mut dataplane = net.unserved(Unserved::Reset, Mode::Nat);
    // A tagged packet over IPv6, the error's header, and the quote.
    assert!(dataplane.least_unserved() >= 18 + 48 + 48);
    // With a backend it is served; one that is only draining takes no new flows.
    for (epoch, state, least) in [
        (2, lockstep_plan::BackendState::Active, 0),
        (3, lockstep_plan::BackendState::Draining, 118),
    ] {
        let service = net.service();
        let member = Backend {
            state,
            ..service.backends[0].clone()
        };
        let service = Service {
            backends: Vec::from([member]),
            unserved: Unserved::Reset,
            ..service
        };
        let tables = compile(dataplane.tables(), epoch, Vec::from([service]));
        dataplane.adopt(Arc::new(tables));
        assert_eq!(dataplane.least_unserved(), least);
    }
}

#[test]
fn a_flood_of_datagrams_leaves_errors_about_the_mtu_theirs() {
    let [net, _] = nets();
    let [tcp, udp] = net.vips();
    let down = Service {
        backends: Vec::new(),
        unserved: Unserved::Reset,
        ..service("dns", &[&udp], Vec::new())
    };
    let web = service("web", &[&tcp], net.service().backends);
    let mut dataplane = dataplane(compile(&Tables::default(), 1, Vec::from([web, down])));
    let datagram = roomy(20, &net.request(UDP, 100));
    let told = (0..200).filter(|_| send(&mut dataplane, T0, &datagram).is_ok());
    assert_eq!(told.count(), 100);
    let long = roomy(20, &net.request(TCP, 1_570));
    let answer = send(&mut dataplane, T0, &long).expect("a \"too big\"");
    assert_eq!(answer.to, net.client);
}

#[test]
fn what_has_no_answer_takes_none_from_others() {
    let [net, _] = nets();
    let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
    let nobody = ("0.0.0.0".parse().unwrap(), CLIENT_PORT);
    let nobodys = roomy(20, &transport(TCP, nobody, (net.vip, 80), 10));
    let mut changed = roomy(20, &net.opening(TCP));
    *changed.last_mut().unwrap() ^= 1;
    for frame in [&nobodys, &changed] {
        for _ in 0..10_000 {
            let answer = send(&mut dataplane, T0, frame);
            assert_eq!(answer, Err(DropReason::NoBackend));
        }
    }
    let answer = send(&mut dataplane, T0, &roomy(20, &net.opening(TCP)));
    assert!(answer.is_ok());
}

/// A packet over IPv6 with a header of destination options in front of all others.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let options = [packet[6], 0, 1, 4, 0, 0, 0, 0];
    let mut packet = [&packet[..40], &options, &packet[40..]].concat();
    packet[6] = 60;
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

#[test]
fn parts_of_segments_are_not_answered() {
    for net in nets() {
        let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
        let mut parts = cut(&net, &net.request(TCP, 3_000), 1, 1_400);
        if !net.is_v4() {
            // Of another datagram, whose first part is not the first header either.
            let others = cut(&net, &net.request(TCP, 3_000), 2, 1_400);
            parts.extend(others.iter().map(|part| with_options(part)));
        }
        for part in &parts {
            let answer = send(&mut dataplane, T0, &roomy(48, part));
            assert_eq!(answer, Err(DropReason::NoBackend));
        }
    }
    // An atomic fragment is a whole segment (RFC 6946), and so is one behind options.
    let [_, net] = nets();
    let mut dataplane = net.unserved(Unserved::Reset, Mode::TUNNEL);
    let request = net.request(TCP, 10);
    let [atomic] = &cut(&net, &request, 1, 1_400)[..] else {
        panic!("one part");
    };
    for packet in [atomic, &with_options(atomic), &with_options(&request)] {
        let answer = send(&mut dataplane, T0, &roomy(48, packet)).expect("an answer");
        assert_eq!(reset(&answer), (1, None));
    }
}
