use super::*;
use crate::load::stamp::Stamp;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const LINK: Link = Link {
    to: [2, 0, 0, 0, 0, 1],
    from: [2, 0, 0, 0, 0, 2],
};
const GUE: u16 = 6_080;

fn ends(v4: bool) -> Tuple {
    let (source, destination) = match v4 {
        true => ("198.18.0.2:10007", "203.0.113.10:80"),
        false => ("[2001:db8::2]:10007", "[2001:db8:1::10]:80"),
    };
    Tuple {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// What etherparse reads of a frame: the ends, the transport header's bytes with its payload; and
/// whether the checksums are right, but for a UDP checksum over IPv4 that is left out.
fn independent(frame: &[u8]) -> (Tuple, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert!(header.dont_fragment && header.time_to_live == 64);
            (
                IpAddr::from(header.source),
                IpAddr::from(header.destination),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        other => panic!("{other:?}"),
    };
    let (octets_of, ports, bytes, right) = match sliced.transport.as_ref().unwrap() {
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let right = match (source, destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    let sum = header
                        .calc_checksum_ipv4_raw(a.octets(), b.octets(), udp.payload())
                        .unwrap();
                    header.checksum == 0 || header.checksum == sum
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    let sum = header
                        .calc_checksum_ipv6_raw(a.octets(), b.octets(), udp.payload())
                        .unwrap();
                    header.checksum == sum
                }
                _ => panic!("two families"),
            };
            let ports = (udp.source_port(), udp.destination_port());
            (8, ports, udp.payload().to_vec(), right)
        }
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let sum = match (source, destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    header.calc_checksum_ipv4_raw(a.octets(), b.octets(), tcp.payload())
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    header.calc_checksum_ipv6_raw(a.octets(), b.octets(), tcp.payload())
                }
                _ => panic!("two families"),
            };
            let ports = (tcp.source_port(), tcp.destination_port());
            (
                20,
                ports,
                tcp.payload().to_vec(),
                header.checksum == sum.unwrap(),
            )
        }
        other => panic!("{other:?}"),
    };
    assert!(right, "the checksum behind {octets_of} bytes is wrong");
    let ends = Tuple {
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
    };
    (ends, bytes)
}

fn stamp() -> Stamp {
    Stamp {
        intended: 0x0102_0304_0506_0708,
        flow: 7,
        sequence: 9,
        run: 0xabcd,
    }
}

#[test]
fn stamped_datagrams_of_all_sizes_are_read_by_others() {
    for v4 in [true, false] {
        for size in [shortest(v4), 100, 101, 1_518, 3_844] {
            // What an earlier packet left there does not matter.
            let mut frame = vec![0xee; size - CHECKSUM_SEQUENCE];
            write_stamped(&mut frame, &LINK, &ends(v4), &stamp().bytes());
            let (read_ends, payload) = independent(&frame);
            assert_eq!(read_ends, ends(v4));
            assert_eq!(payload.len(), frame.len() - udp_headers(v4));
            assert_eq!(Stamp::read(&payload, 0xabcd), Some(stamp()));
            assert!(payload[stamp::LENGTH..].iter().all(|byte| *byte == 0));
            let arrived = read(&frame, GUE).unwrap();
            assert_eq!(arrived.ends, ends(v4));
            assert_eq!(arrived.content, Content::Udp(&payload));
        }
    }
    assert_eq!(shortest(true), 64);
    assert_eq!(shortest(false), 84);
}

#[test]
fn segments_are_read_by_others() {
    for v4 in [true, false] {
        for (flags, payload, mss) in [
            (TcpFlags::SYN, &b""[..], Some(1_460)),
            (TcpFlags::ACK, b"", None),
            (TcpFlags::ACK, b"GET / HTTP/1.1\r\n\r\n", None),
        ] {
            let segment = Segment {
                sequence: 0xfffffff0,
                acknowledgment: 77,
                flags,
            };
            let mut frame = vec![0xee; 2_000];
            let length = write_tcp(&mut frame, &LINK, &ends(v4), &segment, 1_460, payload);
            frame.truncate(length);
            assert!(frame.len() >= LEAST);
            let (read_ends, read_payload) = independent(&frame);
            assert_eq!((read_ends, &read_payload[..]), (ends(v4), payload));
            let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!()
            };
            let announced = tcp.options_iterator().find_map(|option| match option {
                Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                _ => None,
            });
            assert_eq!(announced, mss);
            let arrived = read(&frame, GUE).unwrap();
            assert_eq!(arrived.ends, ends(v4));
            assert_eq!(arrived.content, Content::Tcp(segment, payload));
        }
    }
}

#[test]
fn an_echo_has_a_checksum_and_is_padded() {
    for v4 in [true, false] {
        let mut frame = vec![0xee; 200];
        let length = write_udp(&mut frame, &LINK, &ends(v4), b"x");
        assert_eq!(length, if v4 { 60 } else { 63 });
        frame.truncate(length);
        assert_eq!(independent(&frame), (ends(v4), b"x".to_vec()));
        assert_eq!(read(&frame, GUE).unwrap().content, Content::Udp(b"x"));
    }
}

#[test]
fn tunnels_are_taken_off() {
    for v4 in [true, false] {
        let mut frame = vec![0; 200];
        write_stamped(&mut frame, &LINK, &ends(v4), &stamp().bytes());
        let inner = &frame[ethernet::HEADER_LENGTH..];
        let number = if v4 { protocol::IPV4 } else { protocol::IPV6 };
        let mut outers: Vec<Vec<u8>> = vec![Vec::new(); 5];
        let v4_outer =
            || PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
        let v6_outer = || PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([1; 16], [2; 16], 9);
        v4_outer()
            .write(&mut outers[0], number.into(), inner)
            .unwrap();
        v6_outer()
            .write(&mut outers[1], number.into(), inner)
            .unwrap();
        v4_outer()
            .udp(50_000, GUE)
            .write(&mut outers[2], inner)
            .unwrap();
        v6_outer()
            .udp(50_000, GUE)
            .write(&mut outers[3], inner)
            .unwrap();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .double_vlan(7.try_into().unwrap(), 8.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .write(&mut outers[4], number.into(), inner)
            .unwrap();
        for outer in outers {
            let arrived = read(&outer, GUE).unwrap();
            assert_eq!(arrived.ends, ends(v4));
            let Content::Udp(payload) = arrived.content else {
                panic!()
            };
            assert_eq!(Stamp::read(payload, 0xabcd), Some(stamp()));
        }
    }
}

#[test]
fn what_is_neither_udp_nor_tcp_is_nothing() {
    let mut icmp = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        .icmpv4_echo_request(1, 2)
        .write(&mut icmp, &[0; 8])
        .unwrap();
    assert_eq!(read(&icmp, GUE), None);
    let mut arp = icmp;
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(read(&arp, GUE), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_without_a_panic(
        v4: bool, mut frame in prop::collection::vec(any::<u8>(), 0..200), tunnel: bool,
    ) {
        read(&frame, GUE);
        let mut packet = vec![0; 120];
        write_stamped(&mut packet, &LINK, &ends(v4), &stamp().bytes());
        for (to, from) in packet.iter_mut().skip(if tunnel { 23 } else { 12 }).zip(&frame) {
            *to ^= from & from.rotate_left(3) & from.rotate_left(5);
        }
        read(&packet, GUE);
        frame.truncate(60);
        read(&packet[..frame.len()], GUE);
    }
}

#[test]
fn a_checksum_that_is_wrong_is_found_wherever_it_is() {
    for v4 in [true, false] {
        let mut udp = vec![0; 200];
        write_stamped(&mut udp, &LINK, &ends(v4), &stamp().bytes());
        write_checksum(&mut udp, &ends(v4));
        independent(&udp);
        let mut tcp = vec![0; 200];
        let segment = Segment {
            sequence: 1,
            acknowledgment: 2,
            flags: TcpFlags::ACK,
        };
        let length = write_tcp(&mut tcp, &LINK, &ends(v4), &segment, 1_460, &[7; 31]);
        tcp.truncate(length);
        for (says, frame) in [("UDP", udp), ("TCP", tcp)] {
            assert!(read(&frame, GUE).unwrap().is_sound(), "{says} {v4}");
            // The sum, the payload's first byte, and its last.
            let header = ethernet::HEADER_LENGTH + ip_header(v4);
            let sum = header + if says == "UDP" { 6 } else { 16 };
            for at in [sum, header + 20, frame.len() - 1] {
                let mut wrong = frame.clone();
                wrong[at] ^= 0x10;
                assert!(!read(&wrong, GUE).unwrap().is_sound(), "{says} {v4} {at}");
            }
        }
        let mut none = vec![0; 200];
        write_stamped(&mut none, &LINK, &ends(v4), &stamp().bytes());
        assert!(read(&none, GUE).unwrap().is_sound());
        let sum = ethernet::HEADER_LENGTH + ip_header(v4) + 6;
        none[sum..sum + 2].fill(0);
        assert_eq!(
            read(&none, GUE).unwrap().is_sound(),
            v4,
            "RFC 8200, section 8.1"
        );
    }
}
