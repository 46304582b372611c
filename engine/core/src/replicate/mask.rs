//! What of an output stream is left out of comparisons: a running state over the stream, which says
//! of each byte whether it is masked.
//!
//! The same stream gets the same answer however it is cut into pieces. Masked bytes are not looked
//! at by other masks: a literal beginning has to stand in bytes that are compared, so that what
//! replicas make different cannot begin a mask in one of them only.

use super::chain::Hash;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use lockstep_plan::mask::{MAX_MASKS, Mask, Pattern, PatternState};
use thiserror::Error;

/// The masks of a service, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masks {
    /// First byte and the one behind the last, in order, neither empty nor touching.
    ranges: Vec<(u64, u64)>,
    patterns: Vec<Search>,
}

/// A service has more masks than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} masks, and {MAX_MASKS} are allowed: join patterns with `|` behind a common beginning")]
pub struct TooManyMasks(pub usize);

/// A pattern, with what a search for its literal beginning needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Search {
    pattern: Pattern,
    /// Knuth-Morris-Pratt: with `i` bytes of the literal seen and the next one not fitting, this many
    /// are still seen.
    fallback: Vec<u8>,
}

impl Masks {
    /// Compiles masks.
    pub fn new(masks: &[Mask]) -> Result<Self, TooManyMasks> {
        if masks.len() > MAX_MASKS {
            return Err(TooManyMasks(masks.len()));
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut patterns = Vec::new();
        for mask in masks {
            match mask {
                Mask::Range { length: 0, .. } => {}
                Mask::Range { offset, length } => {
                    ranges.push((*offset, offset.saturating_add(u64::from(*length))));
                }
                Mask::Pattern(pattern) => patterns.push(Search::new(pattern.clone())),
            }
        }
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1;
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
        Ok(Self { ranges, patterns })
    }

    /// Whether nothing is ever masked.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.patterns.is_empty()
    }
}

impl Search {
    fn new(pattern: Pattern) -> Self {
        let literal = pattern.literal();
        let mut fallback = Vec::with_capacity(literal.len());
        fallback.push(0);
        let mut seen = 0_u8;
        for &byte in &literal[1..] {
            fallback.push(seen);
            while seen > 0 && literal[usize::from(seen)] != byte {
                seen = fallback[usize::from(seen)];
            }
            if literal[usize::from(seen)] == byte {
                seen += 1;
            }
        }
        Self { pattern, fallback }
    }

    /// How much of the literal is seen after one more byte.
    #[inline]
    fn step(&self, mut seen: u8, byte: u8) -> u8 {
        let literal = self.pattern.literal();
        loop {
            if literal[usize::from(seen)] == byte {
                return seen + 1;
            }
            if seen == 0 {
                return 0;
            }
            seen = self.fallback[usize::from(seen)];
        }
    }
}

/// The masks at some place of one stream. Cloned, it goes on from there on its own.
#[derive(Debug, Clone)]
pub struct Masker {
    masks: Arc<Masks>,
    position: u64,
    /// The first range that does not end before `position`.
    range: usize,
    patterns: ArrayVec<Progress, MAX_MASKS>,
}

/// How far a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// This much of the literal beginning was seen.
    Before(u8),
    /// Behind the literal beginning.
    Inside(PatternState),
}

impl Masker {
    /// At the start of a stream.
    pub fn new(masks: Arc<Masks>) -> Self {
        let patterns = masks.patterns.iter().map(|_| Progress::Before(0)).collect();
        Self {
            masks,
            position: 0,
            range: 0,
            patterns,
        }
    }

    /// Bytes of the stream before this place.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes over the next bytes of the stream, in pieces that are masked or not. To move on, take
    /// all of them.
    pub fn segments<'m, 'b>(&'m mut self, bytes: &'b [u8]) -> Segments<'m, 'b> {
        Segments {
            masker: self,
            rest: bytes,
        }
    }

    /// The first byte that differs and is not masked, of two continuations of the stream from this
    /// place. They are compared as far as both go; masks are as `committed` has them. Does not move
    /// on: [`Chain::commit`](super::chain::Chain::commit) does.
    pub fn compare(&self, committed: &[u8], other: &[u8]) -> Option<usize> {
        let length = committed.len().min(other.len());
        let (committed, other) = (&committed[..length], &other[..length]);
        if committed == other {
            return None;
        }
        let mut at = 0;
        let mut masker = self.clone();
        for (masked, segment) in masker.segments(committed) {
            if !masked {
                let other = &other[at..at + segment.len()];
                if let Some(differs) = segment.iter().zip(other).position(|(a, b)| a != b) {
                    return Some(at + differs);
                }
            }
            at += segment.len();
        }
        None
    }

    /// Goes over the next bytes of the stream and hashes them, masked ones as zeros.
    pub fn hash(&mut self, bytes: &[u8], hash: &mut Hash) {
        for (masked, segment) in self.segments(bytes) {
            if masked {
                hash.skip(segment.len());
            } else {
                hash.update(segment);
            }
        }
    }

    /// Whether the next byte is masked; moves on by it.
    fn step(&mut self, byte: u8) -> bool {
        let in_range = self.in_range();
        self.position += 1;
        let mut inside = false;
        for (progress, search) in self.patterns.iter_mut().zip(&self.masks.patterns) {
            if let Progress::Inside(state) = *progress {
                match search.pattern.next(state, byte) {
                    Some(next) => {
                        *progress = Progress::Inside(next);
                        inside = true;
                    }
                    None => *progress = Progress::Before(0),
                }
            }
        }
        let masked = inside || in_range;
        for (progress, search) in self.patterns.iter_mut().zip(&self.masks.patterns) {
            if let Progress::Before(seen) = *progress {
                let seen = if masked { 0 } else { search.step(seen, byte) };
                *progress = if usize::from(seen) == search.pattern.literal().len() {
                    Progress::Inside(search.pattern.start())
                } else {
                    Progress::Before(seen)
                };
            }
        }
        masked
    }

    fn in_range(&mut self) -> bool {
        while let Some(&(first, behind)) = self.masks.ranges.get(self.range) {
            if self.position < behind {
                return self.position >= first;
            }
            self.range += 1;
        }
        false
    }
}

/// See [`Masker::segments`].
#[derive(Debug)]
pub struct Segments<'m, 'b> {
    masker: &'m mut Masker,
    rest: &'b [u8],
}

impl<'b> Iterator for Segments<'_, 'b> {
    /// Whether it is masked, and the bytes.
    type Item = (bool, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.masker.masks.is_empty() {
            self.masker.position += self.rest.len() as u64;
            return Some((false, core::mem::take(&mut self.rest)));
        }
        let masked = self.masker.step(self.rest[0]);
        let mut length = 1;
        while length < self.rest.len() {
            let before = self.masker.clone();
            if self.masker.step(self.rest[length]) != masked {
                *self.masker = before;
                break;
            }
            length += 1;
        }
        let (segment, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some((masked, segment))
    }
}

#[cfg(test)]
mod tests;
