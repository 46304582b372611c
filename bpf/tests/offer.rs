//! The kernel's own packets, as a socket behind a veth gets them: the kernel has looked at their headers. And
//! how they are counted at the end of a path.

// A test that cannot be set up has failed.
#![allow(clippy::unwrap_used)]

mod support;

use lockstep_bpf::{
    Arrivals, Arriving, BpfError, Forward, ModeChoice, OFFER_BATCH, Offer, OfferProgram, Offered,
};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use support::*;

const FROM: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const TO: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PORT: u16 = 5_353;

/// A veth whose other end, with an address, receives as drivers do; and the first flow's packet.
fn path() -> Vec<u8> {
    let packet = link();
    Forward::attach("of1", None, ModeChoice::Native).unwrap();
    packet
}

/// The same, with no program on the other end yet.
fn link() -> Vec<u8> {
    ip("link add of0 type veth peer name of1 address 02:00:00:00:00:01");
    ip("link set of0 up");
    ip("link set of1 up");
    ip(&format!("addr add {TO}/16 dev of1"));
    let mut datagram = udp(PORT);
    datagram[..2].copy_from_slice(&10_000_u16.to_be_bytes());
    datagram[6..8].copy_from_slice(&[0, 0]);
    let mut packet = Ip4::new(UDP, datagram);
    packet.to = TO;
    let mut frame = frame(&[], &packet.build());
    let header = &mut frame[14..34];
    header[10..12].copy_from_slice(&[0, 0]);
    header[12..16].copy_from_slice(&FROM.octets());
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Sends so many packets of so many flows.
fn offer(packet: &[u8], flows: u32, packets: u64) -> Result<Offered, BpfError> {
    let packets_per_second = 200_000;
    let duration = Duration::from_nanos(packets * 1_000_000_000 / packets_per_second);
    let offer = Offer {
        interface: "of0",
        packet,
        flows,
        packets_per_second,
        duration,
    };
    OfferProgram::load(offer)?.send()
}

#[test]
fn every_flow_has_packets_that_the_kernel_takes() {
    isolated(|_| {
        let packet = path();
        // The first, one in the middle, and the first one of the next address.
        for (flow, from, port) in [
            (0, FROM, 10_000),
            (2, FROM, 10_002),
            (50_000, Ipv4Addr::new(198, 18, 0, 3), 10_000),
        ] {
            let socket = UdpSocket::bind((TO, PORT)).unwrap();
            // Of this flow only.
            socket.connect((from, port)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut buffer = [0; 64];
            // A busy machine may lose some on the way.
            let arrived = (0..20).find_map(|_| {
                // Time for more than one of each, since what is late is left out.
                offer(&packet, flow + 1, 3 * u64::from(flow) + 100).unwrap();
                match socket.recv(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    // An answer of the kernel's to what came while there was no socket.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
                    length => Some(length.unwrap()),
                }
            });
            assert_eq!(arrived, Some(packet.len() - 42), "flow {flow}");
            assert_eq!(&buffer[..packet.len() - 42], &packet[42..]);
        }
    });
}

#[test]
fn it_sends_at_the_rate_that_was_asked_for() {
    isolated(|_| {
        let packet = path();
        let begin = Instant::now();
        let offered = offer(&packet, 10, 20_000).unwrap();
        // Not all at once, and told to have taken the time that was asked for.
        let took = begin.elapsed().as_secs_f64();
        assert!(offered.seconds <= took, "{offered:?} in {took} s");
        assert_eq!(offered.packets % OFFER_BATCH, 0);
        // What is late is left out: fewer it may be.
        assert!(offered.packets <= 20_000 + OFFER_BATCH, "{offered:?}");
        assert!((0.1..5.0).contains(&offered.seconds), "{offered:?}");
        let rate = offered.packets as f64 / offered.seconds;
        assert!(rate < 210_000.0, "{rate}");
    });
}

/// A rate that is no divisor of a second, and more than any machine sends.
#[test]
fn it_knows_when_it_is_over_at_every_rate() {
    isolated(|_| {
        let packet = path();
        let offer = Offer {
            interface: "of0",
            packet: &packet,
            flows: 1,
            packets_per_second: 61_000_000,
            duration: Duration::from_millis(20),
        };
        let offered = OfferProgram::load(offer).unwrap().send().unwrap();
        assert!(
            offered.packets > 0 && offered.seconds >= 0.02,
            "{offered:?}"
        );
        // What is late is not made up for.
        assert!(offered.packets < 61_000_000 / 50, "{offered:?}");
    });
}

#[test]
fn what_has_no_headers_or_no_room_in_a_page_is_refused() {
    isolated(|_| {
        let packet = path();
        for length in [41, 4_000] {
            let mut packet = packet.clone();
            packet.resize(length, 0);
            let error = offer(&packet, 1, 100).unwrap_err();
            assert!(
                matches!(error, BpfError::TestRun { length: told, .. } if told == length),
                "{error}"
            );
        }
    });
}

/// A packet of the first flow's to another address.
fn to(packet: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let header = &mut packet[14..34];
    header[10..12].copy_from_slice(&[0, 0]);
    // Not from itself.
    header[12..16].copy_from_slice(&[198, 18, 0, 3]);
    header[16..20].copy_from_slice(&address.octets());
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Those to the last address of the network and to the first one behind it; and all of them, where the
/// network is everything.
#[test]
fn what_arrives_for_a_network_is_counted_and_dropped() {
    for arriving in [Arriving::Frames, Arriving::Skbs] {
        isolated(move |_| {
            let packet = link();
            if arriving == Arriving::Skbs {
                // The offered frames become skbs in front of it.
                Forward::attach("of1", None, ModeChoice::Native).unwrap();
            }
            let attach = |network| Arrivals::attach("of1", arriving, network).unwrap();
            let arrivals = attach((Ipv4Addr::new(198, 18, 0, 0), 31));
            let beyond = Ipv4Addr::new(198, 18, 0, 2);
            ip(&format!("addr add {beyond}/16 dev of1"));
            let [socket, counted] = [beyond, TO].map(|address| {
                let socket = UdpSocket::bind((address, PORT)).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            });
            let [packet, other] = [TO, beyond].map(|address| to(&packet, address));

            assert_eq!(arrivals.count().unwrap(), 0);
            // Not so many at once that the veth has no room.
            let sent = offer(&packet, 10, 128).unwrap().packets;
            assert!(sent > 0);
            assert_eq!(arrivals.count().unwrap(), sent, "{arriving:?}");
            let error = counted.recv(&mut [0; 64]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "it is dropped");
            offer(&other, 1, 128).unwrap();
            assert_eq!(arrivals.count().unwrap(), sent, "not of the network");
            assert!(socket.recv(&mut [0; 64]).is_ok(), "the kernel has it");

            // In place of the first.
            let all = attach((TO, 0));
            let sent = offer(&other, 1, 128).unwrap().packets;
            assert_eq!(all.count().unwrap(), sent, "{arriving:?}");
        });
    }
}

#[test]
fn another_program_is_not_pushed_aside_by_the_counting_one() {
    isolated(|_| {
        path();
        let error = Arrivals::attach("of1", Arriving::Frames, (TO, 32)).unwrap_err();
        assert!(matches!(error, BpfError::Busy { .. }), "{error}");
    });
}
