//! ICMP and ICMPv6: echo, and errors with the flow they are about.

use lockstep_wire::ParseError::{
    BadChecksum, Fragment, HeaderChain, Malformed, NotTransport, Truncated, TtlExceeded,
};
use lockstep_wire::checksum::Sum;
use lockstep_wire::icmp::{Echo, ErrorKind, Message, parse_v4, parse_v6};
use lockstep_wire::{
    FlowKey, FlowKey4, FlowKey6, LinkHeader, Outer, TcpFlags, parse, parse_icmp_error,
};

use crate::packet::*;

/// A message with its checksum.
fn message_4(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = Sum::new().add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn message_6(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let length = message.len() as u32;
    let sum = Sum::pseudo_v6(&CLIENT_6.octets(), &VIP_6.octets(), 58, length)
        .add_bytes(&message)
        .checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What the backend sent from the VIP to the client, as a router quotes it: TTL used up, its
/// checksum stale, cut 8 bytes into the transport header.
fn quote_4() -> Vec<u8> {
    let mut sent = V4::new(TCP, answer(tcp(0x10, b"data")));
    (sent.source, sent.destination) = (VIP_4, CLIENT_4);
    let mut quote = sent.build();
    quote[8] = 0;
    quote.truncate(28);
    quote
}

fn quote_6() -> V6 {
    let mut sent = V6::new(TCP, answer(tcp(0x10, b"data")));
    (sent.source, sent.destination) = (VIP_6, CLIENT_6);
    sent
}

/// The ports the other way round.
fn answer(mut segment: Vec<u8>) -> Vec<u8> {
    segment[..4].rotate_left(2);
    segment
}

fn flow_4() -> FlowKey {
    FlowKey4::new(CLIENT_4, CLIENT_PORT, VIP_4, VIP_PORT, TCP).into()
}

fn flow_6() -> FlowKey {
    FlowKey6::new(CLIENT_6, CLIENT_PORT, VIP_6, VIP_PORT, TCP).into()
}

#[test]
fn messages_over_ipv4() {
    let quoted = flow_4().reversed();
    let error = |kind| Ok(Message::Error { kind, quoted });
    let quote = quote_4();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut quote = quote_4();
        change(&mut quote);
        message_4(11, 0, [0; 4], &quote)
    };
    let mut wrong = message_4(8, 0, [0, 1, 0, 2], b"ping");
    wrong[9] ^= 1;
    let echo = Echo {
        identifier: 1,
        sequence: 2,
    };
    let rows = [
        (
            "ping",
            message_4(8, 0, [0, 1, 0, 2], b"ping"),
            Ok(Message::EchoRequest(echo)),
        ),
        (
            "pong",
            message_4(0, 0, [0, 1, 0, 2], b"ping"),
            Ok(Message::EchoReply(echo)),
        ),
        (
            "timestamp",
            message_4(13, 0, [0; 4], &[0; 12]),
            Ok(Message::Other { kind: 13, code: 0 }),
        ),
        (
            "port unreachable",
            message_4(3, 3, [0; 4], &quote),
            error(ErrorKind::Unreachable { code: 3 }),
        ),
        (
            "fragmentation needed",
            message_4(3, 4, [0, 0, 5, 0xdc], &quote),
            error(ErrorKind::TooBig { mtu: 1500 }),
        ),
        (
            "fragmentation needed, the upper half is no MTU",
            message_4(3, 4, [0xff, 0xff, 5, 0xdc], &quote),
            error(ErrorKind::TooBig { mtu: 1500 }),
        ),
        (
            "time exceeded",
            message_4(11, 0, [0; 4], &quote),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "parameter problem",
            message_4(12, 1, [9, 0, 0, 0], &quote),
            error(ErrorKind::ParameterProblem { code: 1 }),
        ),
        (
            "a first fragment quoted",
            with(|quote| quote[6] = 0x20),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "ports only, from a router older than RFC 1812",
            with(|quote| quote.truncate(24)),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "7 bytes",
            message_4(8, 0, [0; 4], b"")[..7].to_vec(),
            Err(Truncated),
        ),
        ("a wrong checksum", wrong, Err(BadChecksum)),
        ("no quote", message_4(3, 3, [0; 4], b""), Err(Truncated)),
        (
            "a quote cut in its IP header",
            with(|quote| quote.truncate(19)),
            Err(Truncated),
        ),
        (
            "a quote cut in its ports",
            with(|quote| quote.truncate(23)),
            Err(Truncated),
        ),
        (
            "a later fragment quoted",
            with(|quote| quote[7] = 1),
            Err(Fragment),
        ),
        (
            "an ICMP message quoted",
            with(|quote| quote[9] = 1),
            Err(NotTransport),
        ),
        ("IPv6 quoted", with(|quote| quote[0] = 0x65), Err(Malformed)),
        (
            "a header length of 16 quoted",
            with(|quote| quote[0] = 0x44),
            Err(Malformed),
        ),
        (
            "options cut off in the quote",
            with(|quote| quote[0] = 0x4a),
            Err(Truncated),
        ),
    ];
    for (description, message, expected) in rows {
        assert_eq!(parse_v4(&message), expected, "{description}");
    }
}

#[test]
fn messages_over_ipv6() {
    let quoted = flow_6().reversed();
    let error = |kind| Ok(Message::Error { kind, quoted });
    let quote = quote_6().build();
    let exceeded = |quote: V6| message_6(3, 0, [0; 4], &quote.build());
    let mut wrong = message_6(128, 0, [0, 1, 0, 2], b"ping");
    wrong[9] ^= 1;
    let echo = Echo {
        identifier: 1,
        sequence: 2,
    };
    let chain = |count| (0..count).fold(quote_6(), |quote, _| quote.extension(60, &PADDING));
    let rows = [
        (
            "ping",
            message_6(128, 0, [0, 1, 0, 2], b"ping"),
            Ok(Message::EchoRequest(echo)),
        ),
        (
            "pong",
            message_6(129, 0, [0, 1, 0, 2], b"ping"),
            Ok(Message::EchoReply(echo)),
        ),
        (
            "neighbor solicitation",
            message_6(135, 0, [0; 4], &[0; 16]),
            Ok(Message::Other { kind: 135, code: 0 }),
        ),
        (
            "unreachable",
            message_6(1, 4, [0; 4], &quote),
            error(ErrorKind::Unreachable { code: 4 }),
        ),
        (
            "packet too big",
            message_6(2, 0, 1280u32.to_be_bytes(), &quote),
            error(ErrorKind::TooBig { mtu: 1280 }),
        ),
        (
            "time exceeded",
            message_6(3, 0, [0; 4], &quote),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "parameter problem",
            message_6(4, 2, [0, 0, 0, 40], &quote),
            error(ErrorKind::ParameterProblem { code: 2 }),
        ),
        (
            "a chain quoted",
            exceeded(chain(8)),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "a first fragment quoted",
            exceeded(quote_6().extension(44, &[0, 0, 1, 1, 2, 3, 4])),
            error(ErrorKind::TimeExceeded { code: 0 }),
        ),
        (
            "a later fragment quoted",
            exceeded(quote_6().extension(44, &[0, 0, 8, 1, 2, 3, 4])),
            Err(Fragment),
        ),
        (
            "too long a chain quoted",
            exceeded(chain(9)),
            Err(HeaderChain),
        ),
        (
            "7 bytes",
            message_6(128, 0, [0; 4], b"")[..7].to_vec(),
            Err(Truncated),
        ),
        ("a wrong checksum", wrong, Err(BadChecksum)),
        (
            "a quote cut in its IP header",
            message_6(1, 4, [0; 4], &quote[..39]),
            Err(Truncated),
        ),
        (
            "a quote cut in its ports",
            message_6(1, 4, [0; 4], &quote[..43]),
            Err(Truncated),
        ),
        (
            "ICMPv6 quoted",
            exceeded(V6 {
                protocol: 58,
                ..quote_6()
            }),
            Err(NotTransport),
        ),
        (
            "IPv4 quoted",
            exceeded(V6 {
                version: 4,
                ..quote_6()
            }),
            Err(Malformed),
        ),
    ];
    for (description, message, expected) in rows {
        let parsed = parse_v6(&CLIENT_6.octets(), &VIP_6.octets(), &message);
        assert_eq!(parsed, expected, "{description}");
    }
}

#[test]
fn an_error_follows_its_flow_into_the_tunnel() {
    let too_big_4 = V4::new(1, message_4(3, 4, [0, 0, 5, 0], &quote_4()));
    let too_big_6 = V6::new(
        58,
        message_6(2, 0, 1280u32.to_be_bytes(), &quote_6().build()),
    );
    let rows = [
        (too_big_4.build(), flow_4(), 20),
        (too_big_6.build(), flow_6(), 40),
    ];
    for (packet, flow, header) in rows {
        let mut frame = steered(20, &packet);
        assert_eq!(parse(&frame), Err(NotTransport));
        let (headers, kind) = parse_icmp_error(&frame).unwrap();
        assert_eq!(headers.key, flow);
        assert_eq!(
            (headers.room, headers.network, headers.transport),
            (20, 34, 34 + header)
        );
        assert_eq!(usize::from(headers.length), packet.len());
        assert_eq!(headers.tcp, TcpFlags::EMPTY);
        assert!(matches!(kind, ErrorKind::TooBig { mtu: 1280 }));

        let link = LinkHeader {
            destination: [1; 6],
            source: [2; 6],
            vlan: None,
        };
        let outer = Outer::v4([10, 0, 0, 1].into(), [10, 0, 1, 1].into());
        let length = outer.push(&mut frame, &headers, &link, 0).unwrap();
        assert_eq!(length, frame.len());
        assert_eq!(
            frame[usize::from(headers.transport)..],
            packet[usize::from(header)..]
        );
    }
}

#[test]
fn frames_without_a_usable_error_are_refused() {
    let v4 = |payload| V4::new(1, payload);
    let error = || message_4(3, 4, [0, 0, 5, 0], &quote_4());
    let v6_error = || message_6(2, 0, [0, 0, 5, 0], &quote_6().build());
    let mut elsewhere = v4(error());
    elsewhere.destination = [192, 0, 2, 99].into();
    let mut elsewhere_6 = quote_6();
    elsewhere_6.source = CLIENT_6;
    let elsewhere_6 = V6::new(58, message_6(1, 0, [0; 4], &elsewhere_6.build()));
    let with = |change: fn(&mut V4)| {
        let mut packet = v4(error());
        change(&mut packet);
        packet.build()
    };
    let rows = [
        ("UDP", V4::new(UDP, udp(b"")).build(), NotTransport),
        (
            "UDP over IPv6",
            V6::new(UDP, udp(b"")).build(),
            NotTransport,
        ),
        (
            "a ping",
            v4(message_4(8, 0, [0; 4], b"")).build(),
            NotTransport,
        ),
        (
            "ICMPv6 over IPv4",
            V4::new(58, v6_error()).build(),
            NotTransport,
        ),
        ("about somebody else's packet", elsewhere.build(), Malformed),
        (
            "about somebody else's packet, IPv6",
            elsewhere_6.build(),
            Malformed,
        ),
        ("TTL 1", with(|packet| packet.ttl = 1), TtlExceeded),
        (
            "a fragment",
            with(|packet| packet.flags_and_offset = 0x2000),
            Fragment,
        ),
        (
            "cut",
            with(|packet| packet.total_length = Some(999)),
            Truncated,
        ),
        (
            "hop limit 1",
            V6 {
                hop_limit: 1,
                ..V6::new(58, v6_error())
            }
            .build(),
            TtlExceeded,
        ),
    ];
    for (description, packet, expected) in rows {
        assert_eq!(
            parse_icmp_error(&steered(20, &packet)),
            Err(expected),
            "{description}"
        );
    }
}
