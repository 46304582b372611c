//! Parses the input as a frame and pushes every kind of outer header onto it:
//! `cargo +nightly fuzz run parse_push -- -max_total_time=60` in `engine/wire`.
//!
//! The first byte chooses what a fuzzer hardly finds by itself: a frame with the right checksum
//! and with room that a tunnel fits.

#![no_main]

#[path = "../../tests/wire/invariants.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;
use lockstep_wire::STEER_ETHERTYPE;
use lockstep_wire::checksum::checksum;

const ROOMS: [u16; 4] = [20, 24, 40, 44];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let mut frame = bytes.to_vec();
    if choice & 1 != 0
        && let Some(marker) = frame.get_mut(12..16)
    {
        let room = ROOMS[usize::from(choice >> 1) % ROOMS.len()];
        marker[..2].copy_from_slice(&STEER_ETHERTYPE.to_be_bytes());
        marker[2..].copy_from_slice(&room.to_be_bytes());
        if choice & 0x80 != 0 {
            repair(&mut frame, 14 + usize::from(room));
        }
    }
    invariants::check(&frame);
});

/// Makes the checksum of an IPv4 header right, options included.
fn repair(frame: &mut [u8], network: usize) {
    let Some(packet) = frame.get_mut(network..) else { return };
    let length = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    if let Some(header) = packet.get_mut(..length)
        && length >= 20
    {
        header[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
