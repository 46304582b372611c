//! How long parsing, hashing and the tunnel header take: `cargo run --release -p lockstep-wire
//! --example parse_ns`. Prints the best of several rounds, in nanoseconds a packet, over 64
//! distinct 64-byte frames (a burst) that stay in the first-level cache. The loop itself is in each
//! figure and alone in the first.

use std::hint::black_box;
use std::time::Instant;

use lockstep_wire::checksum::Sum;
use lockstep_wire::{HashSeed, LinkHeader, Outer, STEER_ETHERTYPE, parse};

const BURST: usize = 64;
const ROUNDS: usize = 20;
const BURSTS: usize = 20_000;

fn main() {
    let seed = HashSeed::new(7);
    let link = LinkHeader {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        vlan: None,
    };
    let over_v4 = Outer::v4([10, 0, 0, 1].into(), [10, 0, 1, 1].into());
    let over_v6 = Outer::v6(1u128.into(), 2u128.into());
    let cases = [
        ("UDP over IPv4, steered", frames(20, v4_packet), over_v4),
        ("TCP over IPv4, steered", frames(20, v4_tcp_packet), over_v4),
        (
            "UDP over IPv4, steered, 4in6",
            frames(40, v4_packet),
            over_v6,
        ),
        ("UDP over IPv6, steered", frames(40, v6_packet), over_v6),
        (
            "UDP over IPv6, steered, 6in4",
            frames(20, v6_packet),
            over_v4,
        ),
    ];
    println!(
        "{:<32}{:>8}{:>8}{:>14}{:>8}",
        "", "loop", "parse", "parse + hash", "push"
    );
    for (name, frames, outer) in cases {
        let nothing = best(&frames, |frame| frame.len() as u64);
        let parsed = best(&frames, |frame| {
            black_box(&parse(frame));
            0
        });
        // By reference: moving the headers out copies them in wide loads right behind the narrow
        // stores that made them, and those wait for each other.
        let hashed = best(&frames, |frame| match &parse(frame) {
            Ok(headers) => headers.key.hash(&seed),
            Err(_) => 0,
        });
        // The TTL stays at 0 after a while, which takes the same path; parsing again would not.
        let headers: Vec<_> = frames
            .iter()
            .filter_map(|frame| parse(frame).ok())
            .collect();
        let mut at = 0;
        let pushed = best(&frames, |frame| {
            at = (at + 1) % BURST;
            outer
                .push(frame, &headers[at], &link, 1)
                .map_or(0, |length| length as u64)
        });
        println!("{name:<32}{nothing:>8.1}{parsed:>8.1}{hashed:>14.1}{pushed:>8.1}");
    }
}

/// Nanoseconds a frame, in the best of the rounds.
fn best(frames: &[Vec<u8>], mut work: impl FnMut(&mut [u8]) -> u64) -> f64 {
    let mut frames = frames.to_vec();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..BURSTS {
            for frame in &mut frames {
                black_box(work(black_box(frame)));
            }
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / (BURSTS * BURST) as f64);
    }
    best
}

fn marker(room: u16) -> [u8; 4] {
    let [a, b] = STEER_ETHERTYPE.to_be_bytes();
    let [c, d] = room.to_be_bytes();
    [a, b, c, d]
}

fn frames(room: u16, packet: fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..BURST as u16)
        .map(|flow| {
            let mut frame = vec![0; 12];
            frame.extend(marker(room));
            frame.resize(14 + usize::from(room), 0);
            frame.extend(packet(flow));
            assert!(parse(&frame).is_ok());
            frame
        })
        .collect()
}

fn v4_packet(flow: u16) -> Vec<u8> {
    let mut packet = v4_header(17);
    packet.extend((1024 + flow).to_be_bytes());
    packet.extend([0, 53, 0, 30, 0, 0]);
    packet.resize(50, 0);
    packet
}

fn v4_tcp_packet(flow: u16) -> Vec<u8> {
    let mut packet = v4_header(6);
    packet.extend((1024 + flow).to_be_bytes());
    packet.extend([
        1, 187, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0,
    ]);
    packet.resize(50, 0);
    packet
}

fn v4_header(protocol: u8) -> Vec<u8> {
    let mut header = vec![
        0x45, 0, 0, 50, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 192, 0, 2, 1,
    ];
    let sum = Sum::new().add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn v6_packet(flow: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 10, 17, 64];
    packet.extend(0x2001_0db8_u128.to_be_bytes());
    packet.extend(0x2001_0db9_u128.to_be_bytes());
    packet.extend((1024 + flow).to_be_bytes());
    packet.extend([0, 53, 0, 10, 1, 1, 1, 1]);
    packet
}
