//! Bytes that are known by their offset: what is sent can be checked without keeping it, and a
//! wrong byte is found where it is.

/// Bytes of a block that repeats.
const BLOCK: usize = 1 << 20;
/// Each page begins with its own offset, so that no two of them are the same.
const PAGE: usize = 4096;
const STAMP: usize = 8;

/// An endless stream of bytes that a seed stands for.
#[derive(Debug, Clone)]
pub struct Pattern {
    block: Vec<u8>,
    seed: u64,
}

impl Pattern {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let words = (0..BLOCK / STAMP).map(|_| splitmix(&mut state));
        Pattern {
            block: words.flat_map(u64::to_le_bytes).collect(),
            seed,
        }
    }

    /// Fills `out` with the stream's bytes from `offset` on.
    pub fn fill(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let length = out.len().min(PAGE - within);
            let (piece, rest) = out.split_at_mut(length);
            let at = (offset % BLOCK as u64) as usize;
            piece.copy_from_slice(&self.block[at..at + length]);
            let stamp = ((offset - within as u64) ^ self.seed).to_be_bytes();
            let stamped = stamp.iter().skip(within);
            piece
                .iter_mut()
                .zip(stamped)
                .for_each(|(to, &from)| *to = from);
            offset += length as u64;
            out = rest;
        }
    }

    /// The offset of the first of these bytes that is not the stream's, the first of them being at
    /// `offset`.
    pub fn first_difference(&self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = [0; PAGE];
        let mut at = offset;
        for piece in bytes.chunks(PAGE) {
            let expected = &mut expected[..piece.len()];
            self.fill(at, expected);
            if *expected != *piece {
                let same = piece.iter().zip(expected).take_while(|(a, b)| *a == *b);
                return Some(at + same.count() as u64);
            }
            at += piece.len() as u64;
        }
        None
    }
}

/// `SplitMix64` (Steele, Lea, Flood, 2014).
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_stream() {
        let pattern = Pattern::new(7);
        let mut whole = vec![0; BLOCK + 3 * PAGE];
        pattern.fill(0, &mut whole);
        for size in [1, 7, 4095, 4096, 5000] {
            let mut pieces = vec![0; whole.len()];
            let mut at = 0;
            for piece in pieces.chunks_mut(size) {
                pattern.fill(at, piece);
                at += piece.len() as u64;
            }
            assert!(pieces == whole, "pieces of {size}");
        }
        assert_ne!(whole[..PAGE], whole[BLOCK..BLOCK + PAGE]);
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let pattern = Pattern::new(7);
        let mut bytes = vec![0; 3 * PAGE];
        pattern.fill(100, &mut bytes);
        assert_eq!(pattern.first_difference(100, &bytes), None);
        bytes[PAGE + 5] ^= 1;
        let wrong = 100 + PAGE as u64 + 5;
        assert_eq!(pattern.first_difference(100, &bytes), Some(wrong));
        assert_eq!(pattern.first_difference(101, &bytes[1..]), Some(wrong));
    }
}
