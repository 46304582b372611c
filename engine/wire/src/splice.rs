//! Two TCP connections as one: a segment of the one becomes a segment of the other.
//!
//! Numbers move by what the two initial numbers differ, windows by what the two window scales do.
//! The checksum is brought in step with what changed (RFC 1624), as in [`nat`](crate::nat).

use crate::checksum::fold;
use crate::tcp::{HEADER_LENGTH, TcpFlags, TcpHeader};

const SEQUENCE: usize = 4;
const ACKNOWLEDGMENT: usize = 8;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
/// Selective acknowledgments (RFC 2018 section 3).
const OPTION_SACK: u8 = 5;

/// How segments of one direction change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    /// What is added to the sequence number.
    pub sequence: u32,
    /// What is added to the acknowledgment number and to selective acknowledgments.
    pub acknowledgment: u32,
    /// Bits that the window moves up, or down where this is negative. More than fits is as much as
    /// fits; what is not a whole unit is not promised.
    pub window: i8,
}

/// Makes a segment one of the other connection. `segment` is the whole payload of an IP packet,
/// or of its first fragment. `None`, where its header is cut or impossible; it may be changed then.
pub fn shift(segment: &mut [u8], by: &Shift) -> Option<()> {
    let header = TcpHeader::parse(segment).ok()?;
    let (flags, end) = (header.flags(), header.header_length());
    let mut edit = Edit { segment, change: 0 };
    edit.add(SEQUENCE, by.sequence)?;
    // A SYN's window is never scaled (RFC 7323 section 2.2).
    if by.window != 0 && !flags.contains(TcpFlags::SYN) {
        edit.scale(by.window)?;
    }
    if by.acknowledgment != 0 && flags.contains(TcpFlags::ACK) {
        edit.add(ACKNOWLEDGMENT, by.acknowledgment)?;
        edit.add_to_blocks(end, by.acknowledgment);
    }
    edit.finish()
}

/// Window scaling between two connections: a window field of the one, in the other's units.
pub const fn rescaled(window: u16, by: i8) -> u16 {
    let wide = window as u64;
    let shift = by.unsigned_abs() as u32;
    // Scales are 14 at most: neither shift comes near 64.
    let wide = if by < 0 { wide >> shift } else { wide << shift };
    if wide > u16::MAX as u64 {
        u16::MAX
    } else {
        wide as u16
    }
}

struct Edit<'a> {
    segment: &'a mut [u8],
    /// The sum of `~m + m'` over all words that changed (RFC 1624 equation 3).
    change: u64,
}

impl Edit<'_> {
    /// Adds to the number at an offset.
    fn add(&mut self, at: usize, number: u32) -> Option<()> {
        let field: &mut [u8; 4] = self.segment.get_mut(at..)?.first_chunk_mut()?;
        let old = u32::from_be_bytes(*field);
        let new = old.wrapping_add(number);
        *field = new.to_be_bytes();
        // At an odd place the bytes change their halves of the words that are summed: to the sum
        // that is the number with its bytes exchanged (RFC 1071 section 2 (B)).
        let (old, new) = if at.is_multiple_of(2) {
            (old, new)
        } else {
            (old.swap_bytes(), new.swap_bytes())
        };
        self.change += u64::from(!old) + u64::from(new);
        Some(())
    }

    fn scale(&mut self, by: i8) -> Option<()> {
        let field: &mut [u8; 2] = self.segment.get_mut(WINDOW..)?.first_chunk_mut()?;
        let old = u16::from_be_bytes(*field);
        let new = rescaled(old, by);
        *field = new.to_be_bytes();
        self.change += u64::from(!old) + u64::from(new);
        Some(())
    }

    /// Adds to both ends of every selective acknowledgment in the options. Malformed ones end the
    /// list, as everywhere.
    fn add_to_blocks(&mut self, end: usize, number: u32) {
        let mut at = HEADER_LENGTH;
        while at < end {
            let length = match self.segment[at] {
                OPTION_END => return,
                OPTION_NOP => {
                    at += 1;
                    continue;
                }
                _ => match self.segment.get(at + 1) {
                    Some(&length) if length >= 2 && at + usize::from(length) <= end => length,
                    _ => return,
                },
            };
            let behind = at + usize::from(length);
            if self.segment[at] == OPTION_SACK {
                let mut edge = at + 2;
                while edge + 4 <= behind {
                    // Within the header, which is within the segment.
                    let _ = self.add(edge, number);
                    edge += 4;
                }
            }
            at = behind;
        }
    }

    fn finish(self) -> Option<()> {
        let field: &mut [u8; 2] = self.segment.get_mut(CHECKSUM..)?.first_chunk_mut()?;
        let old = u16::from_be_bytes(*field);
        *field = (!fold(u64::from(!old) + self.change)).to_be_bytes();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::checksum;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A segment whose own bytes sum up: a pseudo-header would only add a constant.
    fn segment(flags: TcpFlags, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; HEADER_LENGTH];
        bytes[4..8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_be_bytes());
        bytes[12] = ((HEADER_LENGTH + options.len()) as u8 / 4) << 4;
        bytes[13] = flags.bits();
        bytes[14..16].copy_from_slice(&1_000_u16.to_be_bytes());
        bytes.extend(options);
        bytes.extend(payload);
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        bytes[16..18].fill(0);
        let sum = checksum(bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// What [`shift`] makes, with the checksum compared to one computed anew.
    fn shifted(mut bytes: Vec<u8>, by: &Shift) -> Vec<u8> {
        shift(&mut bytes, by).unwrap();
        let mut expected = bytes.clone();
        seal(&mut expected);
        assert_eq!(bytes, expected, "the checksum is right");
        bytes
    }

    #[test]
    fn numbers_wrap_around_and_acknowledgments_need_their_flag() {
        let by = Shift {
            sequence: 0x20,
            acknowledgment: 0xffff_fff0,
            window: 0,
        };
        let data = shifted(segment(TcpFlags::ACK, &[], b"data"), &by);
        assert_eq!((word(&data, 4), word(&data, 8)), (0x10, 0xffff_fff7));
        let reset = shifted(segment(TcpFlags::RST, &[], &[]), &by);
        assert_eq!((word(&reset, 4), word(&reset, 8)), (0x10, 7));
    }

    #[test]
    fn windows_move_by_the_scales_but_never_a_syns() {
        let by = |window| Shift {
            window,
            ..Shift::default()
        };
        for (flags, window, expected) in [
            (TcpFlags::ACK, 3, 8_000),
            (TcpFlags::ACK, 7, 65_535),
            (TcpFlags::ACK, 14, 65_535),
            (TcpFlags::ACK, -7, 7),
            (TcpFlags::ACK, -14, 0),
            (TcpFlags::SYN, 3, 1_000),
        ] {
            let bytes = shifted(segment(flags, &[], &[]), &by(window));
            assert_eq!(word(&bytes, 12) & 0xffff, expected, "{flags:?} {window}");
        }
    }

    #[test]
    fn every_selective_acknowledgment_moves_wherever_it_stands() {
        let by = Shift {
            acknowledgment: 0x0102_0304,
            ..Shift::default()
        };
        for before in [&[1, 1][..], &[1], &[], &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2]] {
            let mut options = before.to_vec();
            options.extend([5, 18]);
            for edge in [1_u32, 2, 0xffff_ffff, 3] {
                options.extend(edge.to_be_bytes());
            }
            while !options.len().is_multiple_of(4) {
                options.push(0);
            }
            let bytes = shifted(segment(TcpFlags::ACK, &options, b"x"), &by);
            let first = HEADER_LENGTH + before.len() + 2;
            let edges = [0, 4, 8, 12].map(|at| word(&bytes, first + at));
            let expected = [0x0102_0305, 0x0102_0306, 0x0102_0303, 0x0102_0307];
            assert_eq!(edges, expected, "behind {before:?}");
        }
    }

    #[test]
    fn what_is_cut_is_refused() {
        let whole = segment(TcpFlags::ACK, &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[]);
        for length in 0..whole.len() {
            assert_eq!(
                shift(&mut whole[..length].to_vec(), &Shift::default()),
                None
            );
        }
    }

    proptest! {
        #[test]
        fn back_is_where_it_came_from(
            sequence: u32,
            acknowledgment: u32,
            options in proptest::collection::vec(any::<u8>(), 0..10),
            payload in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let options: Vec<u8> = options.into_iter().flat_map(|o| [o % 9, o, 5, 10]).collect();
            let bytes = segment(TcpFlags::ACK, &options, &payload);
            let there = Shift { sequence, acknowledgment, window: 0 };
            let back = Shift {
                sequence: sequence.wrapping_neg(),
                acknowledgment: acknowledgment.wrapping_neg(),
                window: 0,
            };
            let moved = shifted(bytes.clone(), &there);
            let again = shifted(moved, &back);
            prop_assert_eq!(again, bytes);
        }
    }
}
