use super::clamp_mss;
use crate::checksum;
use crate::protocol;
use proptest::prelude::*;
use std::vec::Vec;

const FROM: u32 = 0x0a00_0001;
const TO: u32 = 0xcb00_710a;

/// A SYN with these options, padded, and a right checksum.
fn syn(options: &[u8]) -> Vec<u8> {
    let mut segment = std::vec![0_u8; 20];
    segment.extend(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
    segment[12] = (segment.len() as u8 / 4) << 4;
    segment[13] = 0x02;
    let sum = checksum::Sum::pseudo_v4(FROM, TO, protocol::TCP, segment.len() as u16)
        .add_bytes(&segment)
        .checksum();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn clamped(options: &[u8], limit: u16) -> Vec<u8> {
    let mut segment = syn(options);
    clamp_mss(&mut segment, limit);
    assert!(checksum::segment_v4_is_valid(
        FROM,
        TO,
        protocol::TCP,
        &segment
    ));
    segment
}

#[test]
fn the_announced_size_is_lowered_and_never_raised() {
    let rows: [(&[u8], &[u8]); 7] = [
        (&[2, 4, 5, 180], &[2, 4, 5, 100]),
        (&[2, 4, 5, 100], &[2, 4, 5, 100]),
        (&[2, 4, 2, 24], &[2, 4, 2, 24]),
        // Behind others, at an odd place.
        (&[1, 2, 4, 5, 180], &[1, 2, 4, 5, 100]),
        (
            &[1, 1, 4, 2, 3, 3, 7, 2, 4, 255, 255],
            &[1, 1, 4, 2, 3, 3, 7, 2, 4, 5, 100],
        ),
        // Behind the end of the options; of another length.
        (&[0, 2, 4, 5, 180], &[0, 2, 4, 5, 180]),
        (&[2, 3, 5, 1], &[2, 3, 5, 1]),
    ];
    for (options, expected) in rows {
        let segment = clamped(options, 0x564);
        assert_eq!(&segment[20..20 + expected.len()], expected, "{options:?}");
    }
}

proptest! {
    #[test]
    fn any_options_leave_the_checksum_right(
        options in proptest::collection::vec(any::<u8>(), 0..40),
        limit in any::<u16>(),
    ) {
        clamped(&options, limit);
    }

    #[test]
    fn any_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), limit in any::<u16>()) {
        clamp_mss(&mut bytes, limit);
    }
}
