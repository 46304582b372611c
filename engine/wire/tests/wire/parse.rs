//! Frame in, headers or error out, as rows.

use std::net::IpAddr;

use lockstep_wire::ParseError::{
    BadChecksum, Fragment, HeaderChain, Malformed, NotIp, NotTransport, Truncated, TtlExceeded,
};
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6, Headers, ParseError, TcpFlags, parse};

use crate::packet::*;

fn key_4(protocol: u8) -> FlowKey {
    FlowKey4::new(CLIENT_4, CLIENT_PORT, VIP_4, VIP_PORT, protocol).into()
}

fn key_6(protocol: u8) -> FlowKey {
    FlowKey6::new(CLIENT_6, CLIENT_PORT, VIP_6, VIP_PORT, protocol).into()
}

/// room, network, transport, length, key, TCP flags.
type Expected = (u16, u16, u16, u16, FlowKey, TcpFlags);

fn check(rows: Vec<(&str, Vec<u8>, Result<Expected, ParseError>)>) {
    for (description, frame, expected) in rows {
        let expected = expected.map(|(room, network, transport, length, key, tcp)| Headers {
            room,
            network,
            transport,
            length,
            key,
            tcp,
        });
        assert_eq!(parse(&frame), expected, "{description}");
    }
}

const NONE: TcpFlags = TcpFlags::EMPTY;

fn udp_4() -> V4 {
    V4::new(UDP, udp(b"payload"))
}

fn udp_6() -> V6 {
    V6::new(UDP, udp(b"payload"))
}

#[test]
fn accepted_link_headers() {
    let v4 = udp_4().build();
    let v6 = udp_6().build();
    let ok_4 = |room, network| Ok((room, network, network + 20, 35, key_4(UDP), NONE));
    let ok_6 = |room, network| Ok((room, network, network + 40, 55, key_6(UDP), NONE));
    check(vec![
        ("IPv4, ordinary", ethernet(&[], 0x0800, &v4), ok_4(0, 14)),
        ("IPv6, ordinary", ethernet(&[], 0x86dd, &v6), ok_6(0, 14)),
        (
            "IPv4, a VLAN tag",
            ethernet(&[(0x8100, 7)], 0x0800, &v4),
            ok_4(0, 18),
        ),
        (
            "IPv6, a service tag",
            ethernet(&[(0x88a8, 7)], 0x86dd, &v6),
            ok_6(0, 18),
        ),
        (
            "IPv4, QinQ",
            ethernet(&[(0x88a8, 7), (0x8100, 0xefff)], 0x0800, &v4),
            ok_4(0, 22),
        ),
        (
            "IPv6, QinQ",
            ethernet(&[(0x8100, 7), (0x8100, 8)], 0x86dd, &v6),
            ok_6(0, 22),
        ),
        ("IPv4, least room", steered(4, &v4), ok_4(4, 18)),
        ("IPv4, room for IPv4", steered(20, &v4), ok_4(20, 34)),
        (
            "IPv4, room for IPv6 and a tag",
            steered(44, &v4),
            ok_4(44, 58),
        ),
        ("IPv4, most room", steered(128, &v4), ok_4(128, 142)),
        (
            "IPv6, room for IPv4 and a tag",
            steered(24, &v6),
            ok_6(24, 38),
        ),
        ("IPv6, room for IPv6", steered(40, &v6), ok_6(40, 54)),
        (
            "IPv4 with padding",
            padded(ethernet(&[], 0x0800, &v4), 11),
            ok_4(0, 14),
        ),
        (
            "IPv4, steered, with padding",
            padded(steered(20, &v4), 11),
            ok_4(20, 34),
        ),
        (
            "IPv6 with padding",
            padded(steered(40, &v6), 400),
            ok_6(40, 54),
        ),
    ]);
}

#[test]
fn refused_link_headers() {
    let v4 = udp_4().build();
    let tags = |count| vec![(0x8100, 1); count];
    check(vec![
        ("nothing", vec![], Err(Truncated)),
        (
            "13 bytes",
            ethernet(&[], 0x0800, &[])[..13].to_vec(),
            Err(Truncated),
        ),
        (
            "Ethernet header only",
            ethernet(&[], 0x0800, &[]),
            Err(Truncated),
        ),
        (
            "cut in a tag",
            ethernet(&tags(1), 0x0800, &[])[..17].to_vec(),
            Err(Truncated),
        ),
        (
            "cut in the second tag",
            ethernet(&tags(2), 0x0800, &[])[..20].to_vec(),
            Err(Truncated),
        ),
        ("ARP", ethernet(&[], 0x0806, &[0; 28]), Err(NotIp)),
        ("802.3 length", ethernet(&[], 46, &[0; 46]), Err(NotIp)),
        (
            "ARP behind a tag",
            ethernet(&tags(1), 0x0806, &[0; 28]),
            Err(NotIp),
        ),
        (
            "marker behind a tag",
            ethernet(&tags(1), 0x88b5, &v4),
            Err(NotIp),
        ),
        (
            "three tags",
            ethernet(&tags(3), 0x0800, &v4),
            Err(HeaderChain),
        ),
        (
            "nothing but tags",
            ethernet(&tags(40), 0x0800, &v4),
            Err(HeaderChain),
        ),
        (
            "marker without room's length",
            steered(20, &v4)[..15].to_vec(),
            Err(Truncated),
        ),
        ("room 0", steered(0, &v4), Err(Malformed)),
        ("room 3", steered(3, &v4), Err(Malformed)),
        ("room 129", steered(129, &v4), Err(Malformed)),
        (
            "room 65,535",
            padded(ethernet(&[], 0x88b5, &[0xff, 0xff]), 70_000),
            Err(Malformed),
        ),
        (
            "room longer than the frame",
            steered(20, &v4)[..33].to_vec(),
            Err(Truncated),
        ),
        (
            "room and nothing behind it",
            steered(20, &[]),
            Err(Truncated),
        ),
        ("steered IPv5", steered(20, &[0x55; 60]), Err(Malformed)),
    ]);
}

#[test]
fn ipv4_headers() {
    let frame = |v4: &V4| ethernet(&[], 0x0800, &v4.build());
    let with = |change: fn(&mut V4)| {
        let mut v4 = udp_4();
        change(&mut v4);
        frame(&v4)
    };
    let mut wrong = frame(&udp_4());
    wrong[24] ^= 1;
    let mut options_wrong = with(|v4| v4.options = vec![1; 8]);
    options_wrong[35] ^= 1;
    let ok = |transport, length| Ok((0, 14, transport, length, key_4(UDP), NONE));
    check(vec![
        ("as it should be", frame(&udp_4()), ok(34, 35)),
        ("options", with(|v4| v4.options = vec![1; 4]), ok(38, 39)),
        (
            "40 bytes of options",
            with(|v4| v4.options = vec![1; 40]),
            ok(74, 75),
        ),
        (
            "an option of length 0, which loops",
            with(|v4| v4.options = vec![7, 0, 7, 0]),
            ok(38, 39),
        ),
        (
            "an option longer than the header",
            with(|v4| v4.options = vec![0x44, 0xff, 5, 0]),
            ok(38, 39),
        ),
        ("DF", with(|v4| v4.flags_and_offset = 0x4000), ok(34, 35)),
        (
            "the reserved flag",
            with(|v4| v4.flags_and_offset = 0x8000),
            ok(34, 35),
        ),
        (
            "any DS field and id",
            with(|v4| (v4.ds_field, v4.id) = (0xff, 0xffff)),
            ok(34, 35),
        ),
        ("TTL 2", with(|v4| v4.ttl = 2), ok(34, 35)),
        ("TTL 1", with(|v4| v4.ttl = 1), Err(TtlExceeded)),
        ("TTL 0", with(|v4| v4.ttl = 0), Err(TtlExceeded)),
        (
            "19 bytes",
            frame(&udp_4())[..14 + 19].to_vec(),
            Err(Truncated),
        ),
        (
            "IPv6 under IPv4's EtherType",
            with(|v4| v4.version_and_length = Some(0x65)),
            Err(Malformed),
        ),
        (
            "header length 16",
            with(|v4| v4.version_and_length = Some(0x44)),
            Err(Malformed),
        ),
        (
            "header length 0",
            with(|v4| v4.version_and_length = Some(0x40)),
            Err(Malformed),
        ),
        (
            "total length 19",
            with(|v4| v4.total_length = Some(19)),
            Err(Malformed),
        ),
        (
            "total length 0, as of TSO",
            with(|v4| v4.total_length = Some(0)),
            Err(Malformed),
        ),
        (
            "total length inside the options",
            with(|v4| (v4.options, v4.total_length) = (vec![1; 8], Some(27))),
            Err(Malformed),
        ),
        (
            "total length one too long",
            with(|v4| v4.total_length = Some(36)),
            Err(Truncated),
        ),
        (
            "total length 65,535",
            with(|v4| v4.total_length = Some(65_535)),
            Err(Truncated),
        ),
        (
            "options cut off",
            with(|v4| v4.options = vec![1; 40])[..50].to_vec(),
            Err(Truncated),
        ),
        ("a wrong checksum", wrong, Err(BadChecksum)),
        (
            "a wrong checksum with options",
            options_wrong,
            Err(BadChecksum),
        ),
        (
            "first fragment",
            with(|v4| v4.flags_and_offset = 0x2000),
            Err(Fragment),
        ),
        (
            "middle fragment",
            with(|v4| v4.flags_and_offset = 0x2001),
            Err(Fragment),
        ),
        (
            "last fragment",
            with(|v4| v4.flags_and_offset = 0x1fff),
            Err(Fragment),
        ),
        (
            "last fragment of DF",
            with(|v4| v4.flags_and_offset = 0x4100),
            Err(Fragment),
        ),
        (
            "fragment with options",
            with(|v4| (v4.options, v4.flags_and_offset) = (vec![1; 4], 0x2000)),
            Err(Fragment),
        ),
        ("ICMP", with(|v4| v4.protocol = 1), Err(NotTransport)),
        ("IPIP", with(|v4| v4.protocol = 4), Err(NotTransport)),
        ("IPv4 AH", with(|v4| v4.protocol = 51), Err(NotTransport)),
    ]);
}

#[test]
fn ipv6_headers() {
    let frame = |v6: &V6| ethernet(&[], 0x86dd, &v6.build());
    let with = |change: fn(&mut V6)| {
        let mut v6 = udp_6();
        change(&mut v6);
        frame(&v6)
    };
    let ok = |transport, length| Ok((0, 14, transport, length, key_6(UDP), NONE));
    check(vec![
        ("as it should be", frame(&udp_6()), ok(54, 55)),
        (
            "any traffic class",
            with(|v6| v6.traffic_class = 0xff),
            ok(54, 55),
        ),
        ("hop limit 2", with(|v6| v6.hop_limit = 2), ok(54, 55)),
        ("hop limit 1", with(|v6| v6.hop_limit = 1), Err(TtlExceeded)),
        ("hop limit 0", with(|v6| v6.hop_limit = 0), Err(TtlExceeded)),
        (
            "39 bytes",
            frame(&udp_6())[..14 + 39].to_vec(),
            Err(Truncated),
        ),
        (
            "version 4 under IPv6's EtherType",
            with(|v6| v6.version = 4),
            Err(Malformed),
        ),
        (
            "payload length 0: a jumbogram",
            with(|v6| v6.payload_length = Some(0)),
            Err(Malformed),
        ),
        (
            "payload length one too long",
            with(|v6| v6.payload_length = Some(16)),
            Err(Truncated),
        ),
        (
            "payload length 65,535",
            with(|v6| v6.payload_length = Some(65_535)),
            Err(Truncated),
        ),
        (
            "payload length 65,535 and all of it there",
            padded(with(|v6| v6.payload_length = Some(65_535)), 70_000),
            Err(Truncated),
        ),
        ("ICMPv6", with(|v6| v6.protocol = 58), Err(NotTransport)),
        (
            "no next header",
            with(|v6| v6.protocol = 59),
            Err(NotTransport),
        ),
        ("ESP", with(|v6| v6.protocol = 50), Err(NotTransport)),
        (
            "IPv6 in IPv6",
            with(|v6| v6.protocol = 41),
            Err(NotTransport),
        ),
    ]);
}

#[test]
fn ipv6_extension_headers() {
    let frame = |v6: V6| ethernet(&[], 0x86dd, &v6.build());
    let chain = |count| (0..count).fold(udp_6(), |v6, _| v6.extension(60, &PADDING));
    let ok = |bytes: u16| Ok((0, 14, 54 + bytes, 55 + bytes, key_6(UDP), NONE));
    let mut long = [0; 255 * 8 + 7];
    long[0] = 255;
    let ah = |words: usize| {
        let mut rest = vec![words as u8];
        rest.resize((words + 2) * 4 - 1, 0);
        rest
    };
    check(vec![
        ("hop-by-hop", frame(udp_6().extension(0, &PADDING)), ok(8)),
        (
            "routing",
            frame(udp_6().extension(43, &[0, 4, 0, 0, 0, 0, 0])),
            ok(8),
        ),
        ("destination options", frame(chain(1)), ok(8)),
        ("mobility", frame(udp_6().extension(135, &PADDING)), ok(8)),
        (
            "host identity",
            frame(udp_6().extension(139, &PADDING)),
            ok(8),
        ),
        ("shim6", frame(udp_6().extension(140, &PADDING)), ok(8)),
        (
            "AH, whose length counts in words",
            frame(udp_6().extension(51, &ah(4))),
            ok(24),
        ),
        (
            "the longest header",
            frame(udp_6().extension(60, &long)),
            ok(2048),
        ),
        (
            "the order of RFC 8200",
            frame(
                udp_6()
                    .extension(0, &PADDING)
                    .extension(60, &PADDING)
                    .extension(43, &[0, 4, 0, 0, 0, 0, 0])
                    .extension(44, &[0, 0, 0, 1, 2, 3, 4])
                    .extension(51, &ah(4))
                    .extension(60, &PADDING),
            ),
            ok(64),
        ),
        ("8 headers", frame(chain(8)), ok(64)),
        ("9 headers", frame(chain(9)), Err(HeaderChain)),
        ("100 headers", frame(chain(100)), Err(HeaderChain)),
        (
            "hop-by-hop in second place",
            frame(chain(1).extension(0, &PADDING)),
            Err(Malformed),
        ),
        (
            "hop-by-hop twice",
            frame(udp_6().extension(0, &PADDING).extension(0, &PADDING)),
            Err(Malformed),
        ),
        // RFC 6946: offset 0 and no more to come is a whole datagram; reserved bits do not count.
        (
            "atomic fragment",
            frame(udp_6().extension(44, &[0, 0, 0, 1, 2, 3, 4])),
            ok(8),
        ),
        (
            "atomic fragment, reserved bits",
            frame(udp_6().extension(44, &[0xff, 0, 6, 1, 2, 3, 4])),
            ok(8),
        ),
        (
            "first fragment",
            frame(udp_6().extension(44, &[0, 0, 1, 1, 2, 3, 4])),
            Err(Fragment),
        ),
        (
            "middle fragment",
            frame(udp_6().extension(44, &[0, 1, 1, 1, 2, 3, 4])),
            Err(Fragment),
        ),
        (
            "last fragment",
            frame(udp_6().extension(44, &[0, 8, 0, 1, 2, 3, 4])),
            Err(Fragment),
        ),
        (
            "fragment behind destination options",
            frame(chain(1).extension(44, &[0, 8, 0, 1, 2, 3, 4])),
            Err(Fragment),
        ),
        (
            "chain that leaves the packet",
            frame(udp_6().extension(60, &[9, 0, 0, 0, 0, 0, 0])),
            Err(Truncated),
        ),
        (
            "chain that leaves the packet, not the frame",
            padded(frame(udp_6().extension(60, &[9, 0, 0, 0, 0, 0, 0])), 200),
            Err(Truncated),
        ),
        (
            "chain that ends inside a header",
            frame(V6::new(60, vec![17, 0, 1, 4])),
            Err(Truncated),
        ),
        (
            "ICMPv6 behind a chain",
            frame({
                let mut v6 = chain(2);
                v6.protocol = 58;
                v6
            }),
            Err(NotTransport),
        ),
    ]);
}

#[test]
fn tcp_headers() {
    let frame = |segment: &[u8]| ethernet(&[], 0x0800, &V4::new(TCP, segment.to_vec()).build());
    let frame_6 = |segment: &[u8]| steered(40, &V6::new(TCP, segment.to_vec()).build());
    let offset = |words: u8, data: usize| {
        let mut segment = tcp(0x10, &vec![0; data]);
        segment[12] = words << 4;
        segment
    };
    let ok = |length: u16, flags| Ok((0, 14, 34, 20 + length, key_4(TCP), flags));
    check(vec![
        ("SYN", frame(&tcp(0x02, b"")), ok(20, TcpFlags::SYN)),
        (
            "SYN and ACK",
            frame(&tcp(0x12, b"")),
            ok(20, TcpFlags::SYN | TcpFlags::ACK),
        ),
        (
            "FIN",
            frame(&tcp(0x11, b"bye")),
            ok(23, TcpFlags::FIN | TcpFlags::ACK),
        ),
        ("RST", frame(&tcp(0x04, b"")), ok(20, TcpFlags::RST)),
        ("no flags at all", frame(&tcp(0, b"")), ok(20, NONE)),
        (
            "all flags",
            frame(&tcp(0xff, b"")),
            ok(20, TcpFlags::from_bits(0xff)),
        ),
        (
            "20 bytes of options",
            frame(&offset(10, 20)),
            ok(40, TcpFlags::ACK),
        ),
        ("19 bytes", frame(&tcp(0x02, b"")[..19]), Err(Truncated)),
        ("ports only", frame(&tcp(0x02, b"")[..4]), Err(Truncated)),
        ("nothing", frame(&[]), Err(Truncated)),
        (
            "19 bytes and padding",
            padded(frame(&tcp(0x02, b"")[..19]), 20),
            Err(Truncated),
        ),
        (
            "data offset 16 bytes",
            frame(&offset(4, 20)),
            Err(Malformed),
        ),
        ("data offset 0", frame(&offset(0, 20)), Err(Malformed)),
        (
            "data offset beyond the packet",
            frame(&offset(6, 3)),
            Err(Truncated),
        ),
        (
            "data offset beyond the packet, padding",
            padded(frame(&offset(6, 3)), 40),
            Err(Truncated),
        ),
        (
            "over IPv6",
            frame_6(&tcp(0x02, b"")),
            Ok((40, 54, 94, 60, key_6(TCP), TcpFlags::SYN)),
        ),
        (
            "over IPv6, 19 bytes",
            frame_6(&tcp(0x02, b"")[..19]),
            Err(Truncated),
        ),
        (
            "over IPv6, data offset 16 bytes",
            frame_6(&offset(4, 20)),
            Err(Malformed),
        ),
    ]);
}

#[test]
fn udp_headers() {
    let frame = |datagram: &[u8]| ethernet(&[], 0x0800, &V4::new(UDP, datagram.to_vec()).build());
    let length = |length: u8, data: usize| {
        let mut datagram = udp(&vec![0; data]);
        datagram[5] = length;
        datagram
    };
    let ok = |length: u16| Ok((0, 14, 34, 20 + length, key_4(UDP), NONE));
    check(vec![
        ("no data", frame(&udp(b"")), ok(8)),
        ("data", frame(&udp(b"data")), ok(12)),
        (
            "UDP options behind the data",
            frame(&length(10, 20)),
            ok(28),
        ),
        ("7 bytes", frame(&udp(b"")[..7]), Err(Truncated)),
        ("nothing", frame(&[]), Err(Truncated)),
        ("length 7", frame(&length(7, 10)), Err(Malformed)),
        ("length 0", frame(&length(0, 10)), Err(Malformed)),
        (
            "length beyond the packet",
            frame(&length(19, 10)),
            Err(Truncated),
        ),
        (
            "length beyond the packet, padding",
            padded(frame(&length(19, 10)), 10),
            Err(Truncated),
        ),
    ]);
}

/// Each row is wrong in two ways: the outer one is reported.
#[test]
fn the_first_error_from_the_outside_in_is_reported() {
    let frame = |v4: &V4| steered(20, &v4.build());
    let with = |change: fn(&mut V4)| {
        let mut v4 = udp_4();
        change(&mut v4);
        frame(&v4)
    };
    let bad_sum = |mut frame: Vec<u8>| {
        frame[14 + 20 + 11] ^= 0x55;
        frame
    };
    check(vec![
        (
            "length, then checksum",
            bad_sum(with(|v4| v4.total_length = Some(19))),
            Err(Malformed),
        ),
        (
            "cut, then checksum",
            bad_sum(with(|v4| v4.total_length = Some(999))),
            Err(Truncated),
        ),
        (
            "checksum, then fragment",
            bad_sum(with(|v4| v4.flags_and_offset = 0x2000)),
            Err(BadChecksum),
        ),
        (
            "fragment, then protocol",
            with(|v4| (v4.flags_and_offset, v4.protocol) = (0x2000, 1)),
            Err(Fragment),
        ),
        (
            "protocol, then TTL",
            with(|v4| (v4.protocol, v4.ttl) = (1, 1)),
            Err(NotTransport),
        ),
        (
            "transport header, then TTL",
            with(|v4| (v4.payload, v4.ttl) = (vec![0; 4], 1)),
            Err(Truncated),
        ),
    ]);
}

#[test]
fn keys_read_as_addresses_and_ports() {
    let headers = parse(&ethernet(&[], 0x0800, &udp_4().build())).unwrap();
    assert_eq!(headers.key.source_address(), IpAddr::V4(CLIENT_4));
    assert_eq!(headers.key.destination_address(), IpAddr::V4(VIP_4));
    assert_eq!(
        (headers.key.source_port(), headers.key.destination_port()),
        (CLIENT_PORT, VIP_PORT)
    );
    let headers = parse(&ethernet(&[], 0x86dd, &udp_6().build())).unwrap();
    assert_eq!(headers.key.source_address(), IpAddr::V6(CLIENT_6));
    assert_eq!(headers.key.destination_address(), IpAddr::V6(VIP_6));
    assert_eq!(headers.key.protocol(), UDP);
}

#[test]
fn tcp_flags_read_as_in_tcpdump() {
    assert_eq!(
        format!("{:?}", TcpFlags::SYN | TcpFlags::ACK),
        "TcpFlags(S.)"
    );
    assert_eq!(format!("{:?}", TcpFlags::EMPTY), "TcpFlags()");
    let both = TcpFlags::SYN | TcpFlags::ACK;
    assert!(both.contains(TcpFlags::SYN) && !TcpFlags::SYN.contains(both));
    assert!(TcpFlags::SYN.intersects(both) && !TcpFlags::RST.intersects(both));
}
