//! What the client was sent, as a hash: a replica that is behind is checked without the bytes being
//! kept.
//!
//! Two streams have the same hash at an offset exactly when their bytes before it are the same, but
//! for a chance of about one in 2^64 for each block of 64 bytes between their difference and the
//! offset. Nobody can raise it who does not know the seed. Masked bytes count as zeros.

use super::mask::Masker;
use alloc::vec::Vec;

/// Bytes that all lanes take in one step.
const BLOCK: usize = 64;
/// What makes the lanes differ: the first digits of pi.
const FACTORS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

/// The hash of a stream, so far. Four lanes of folded multiplication (as in wyhash), which take 16
/// bytes each: one word changed by what came before, times one changed by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    key: u64,
    lanes: [u64; 4],
    length: u64,
    /// Bytes that do not fill a block yet; zeros behind them.
    partial: [u8; BLOCK],
}

/// A [`struct@Hash`] at one offset, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, core::hash::Hash)]
pub struct Digest(u64);

impl Hash {
    /// Of an empty stream. Only hashes with the same seed can be compared.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood, 2014).
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self {
            key: next(),
            lanes: FACTORS.map(|_| next()),
            length: 0,
            partial: [0; BLOCK],
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let filled = self.filled();
        self.length += bytes.len() as u64;
        let mut rest = bytes;
        if filled > 0 {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - filled));
            self.partial[filled..filled + now.len()].copy_from_slice(now);
            if filled + now.len() < BLOCK {
                return;
            }
            let block = core::mem::replace(&mut self.partial, [0; BLOCK]);
            self.lanes = step(self.lanes, self.key, &block);
            rest = later;
        }
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        let mut lanes = self.lanes;
        for block in blocks {
            lanes = step(lanes, self.key, block);
        }
        self.lanes = lanes;
        self.partial[..tail.len()].copy_from_slice(tail);
    }

    /// Adds masked bytes: as many zeros.
    pub fn skip(&mut self, count: usize) {
        const ZEROS: [u8; 256] = [0; 256];
        let mut rest = count;
        while rest > 0 {
            let now = rest.min(ZEROS.len());
            self.update(&ZEROS[..now]);
            rest -= now;
        }
    }

    /// The hash in short.
    pub fn digest(&self) -> Digest {
        let mut lanes = self.lanes;
        if self.filled() > 0 {
            lanes = step(lanes, self.key, &self.partial);
        }
        let mut digest = self.length;
        for (lane, factor) in lanes.into_iter().zip(FACTORS) {
            digest = fold(digest ^ lane, factor ^ self.key).rotate_left(17) ^ lane;
        }
        Digest(digest)
    }

    fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }
}

impl PartialEq<Digest> for Hash {
    fn eq(&self, other: &Digest) -> bool {
        self.digest() == *other
    }
}

#[inline(always)]
fn step(mut lanes: [u64; 4], key: u64, block: &[u8; BLOCK]) -> [u64; 4] {
    let (words, _) = block.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    for ((lane, [a, b]), factor) in lanes.iter_mut().zip(pairs).zip(FACTORS) {
        let (a, b) = (u64::from_le_bytes(*a), u64::from_le_bytes(*b));
        *lane = fold(*lane ^ a, b ^ factor ^ key);
    }
    lanes
}

/// Both halves of the product in one word.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// Bytes between checkpoints of a young stream.
const DISTANCE: u64 = 64 << 10;
/// Checkpoints of a stream at most. At that many, every second one is dropped.
const CHECKPOINTS: usize = 1024;

/// The stream of committed bytes: what the client was, or is being, sent.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Hash,
    /// At `distance`, 2 × `distance`, ...
    checkpoints: Vec<Digest>,
    distance: u64,
}

impl Chain {
    /// Of a session that has committed nothing.
    pub fn new(seed: u64) -> Self {
        Self {
            head: Hash::new(seed),
            checkpoints: Vec::with_capacity(CHECKPOINTS),
            distance: DISTANCE,
        }
    }

    /// Adds bytes that were given to the client. `masker` stands at [`Chain::len`] and moves on.
    pub fn commit(&mut self, bytes: &[u8], masker: &mut Masker) {
        debug_assert_eq!(masker.position(), self.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.distance - self.head.len() % self.distance;
            let (now, later) =
                rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            masker.hash(now, &mut self.head);
            if now.len() as u64 == room {
                self.checkpoint();
            }
            rest = later;
        }
    }

    /// Bytes committed.
    pub fn len(&self) -> u64 {
        self.head.len()
    }

    /// Whether nothing was committed.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// The hash at [`Chain::len`].
    pub fn head(&self) -> &Hash {
        &self.head
    }

    /// The first checkpoint past an offset, and the hash there: a replica that is behind is hashed
    /// up to it and compared (`hash == digest`).
    pub fn next_checkpoint(&self, after: u64) -> Option<(u64, Digest)> {
        let index = after / self.distance;
        let digest = self.checkpoints.get(usize::try_from(index).ok()?)?;
        Some(((index + 1) * self.distance, *digest))
    }

    fn checkpoint(&mut self) {
        self.checkpoints.push(self.head.digest());
        if self.checkpoints.len() == CHECKPOINTS {
            let mut index = 0;
            self.checkpoints.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.distance *= 2;
        }
    }
}

#[cfg(test)]
mod tests;
