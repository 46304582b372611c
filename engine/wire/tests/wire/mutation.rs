//! A fuzz run that fits `cargo test`: a million frames, each a good one with a few bytes changed,
//! from a fixed seed.

use lockstep_wire::checksum::checksum;
use lockstep_wire::{ParseError, parse};

use crate::invariants;
use crate::packet::*;

const FRAMES: usize = 1_000_000;

/// xorshift64*: it has to be quick without optimization and the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }
}

/// The frames to change and the offsets of their IP headers.
fn good_frames() -> Vec<(Vec<u8>, usize)> {
    let mut options = V4::new(TCP, tcp(0x02, b""));
    options.options = vec![7, 4, 4, 0];
    let v4 = [
        V4::new(UDP, udp(b"data")),
        V4::new(TCP, tcp(0x18, b"data")),
        options,
    ];
    let v6 = [
        V6::new(UDP, udp(b"data")),
        V6::new(TCP, tcp(0x11, b""))
            .extension(0, &PADDING)
            .extension(60, &PADDING),
        (0..8).fold(V6::new(UDP, udp(b"")), |v6, _| v6.extension(43, &PADDING)),
        V6::new(UDP, udp(b"data")).extension(44, &[0, 0, 0, 1, 2, 3, 4]),
    ];
    let packets: Vec<(u16, Vec<u8>)> = v4
        .iter()
        .map(|packet| (0x0800, packet.build()))
        .chain(v6.iter().map(|packet| (0x86dd, packet.build())))
        .collect();
    let mut frames = Vec::new();
    for (ethertype, packet) in &packets {
        frames.push((ethernet(&[], *ethertype, packet), 14));
        frames.push((
            ethernet(&[(0x88a8, 1), (0x8100, 2)], *ethertype, packet),
            22,
        ));
        for room in [20, 24, 40, 44] {
            frames.push((steered(room, packet), 14 + usize::from(room)));
        }
    }
    frames
}

/// Bytes at which length fields and chains break.
const EDGES: [u8; 15] = [0x81, 0, 1, 2, 4, 6, 7, 17, 43, 44, 51, 60, 0x45, 0x80, 0xff];

fn mutate(frame: &mut Vec<u8>, network: usize, random: &mut Random) {
    for _ in 0..=random.below(3) {
        // Mostly in the headers: what is behind them is not looked at.
        let at = random.below(frame.len().min(network + 112));
        frame[at] = match random.below(3) {
            0 => random.next() as u8,
            1 => EDGES[random.below(EDGES.len())],
            _ => frame[at] ^ 1 << random.below(8),
        };
    }
    if random.below(8) == 0 {
        frame.truncate(random.below(frame.len() + 1));
    }
    // A checksum made right again lets the change through to the checks behind it.
    if random.below(4) != 0
        && let Some(header) = frame.get_mut(network..network + 20)
        && header[0] == 0x45
    {
        header[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn a_million_mutated_frames_keep_the_invariants() {
    let good = good_frames();
    for (frame, _) in &good {
        assert!(invariants::check(frame));
    }
    let mut random = Random(0x1057_57e9);
    let mut frame = Vec::new();
    let mut accepted = 0;
    let mut refused = [0; 8];
    for _ in 0..FRAMES {
        let (start, network) = &good[random.below(good.len())];
        frame.clear();
        frame.extend_from_slice(start);
        mutate(&mut frame, *network, &mut random);
        match parse(&frame) {
            // Copying the frame for each outer header takes time: one frame in eight.
            Ok(_) if random.below(8) == 0 => {
                accepted += 1;
                assert!(invariants::check(&frame));
            }
            Ok(_) => accepted += 1,
            Err(error) => refused[error as usize] += 1,
        }
    }
    // The run is worth its time only when it comes to every corner.
    assert!(accepted > FRAMES / 5, "{accepted} accepted");
    for error in [
        ParseError::Truncated,
        ParseError::Malformed,
        ParseError::BadChecksum,
        ParseError::HeaderChain,
        ParseError::Fragment,
        ParseError::NotIp,
        ParseError::NotTransport,
        ParseError::TtlExceeded,
    ] {
        assert!(refused[error as usize] > 100, "{error:?}: {refused:?}");
    }
}
