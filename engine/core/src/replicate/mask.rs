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
    /// The first bytes of the literal.
    beginning: [u8; 2],
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

    /// How many bytes there are before the first one with which a literal may begin. Two bytes of
    /// each literal are looked at, in many places at once.
    fn skip(&self, bytes: &[u8]) -> usize {
        /// Places looked at together: what compilers turn into a few vector operations.
        const PLACES: usize = 32;
        let mut at = 0;
        while at + PLACES < bytes.len() {
            let here = &bytes[at..at + PLACES];
            let next = &bytes[at + 1..=at + PLACES];
            let mut hits = [false; PLACES];
            for search in &self.patterns {
                let [first, second] = search.beginning;
                for ((hit, &a), &b) in hits.iter_mut().zip(here).zip(next) {
                    *hit |= (a == first) & (b == second);
                }
            }
            if hits.iter().fold(false, |any, hit| any | hit) {
                return at + hits.iter().position(|&hit| hit).unwrap_or(0);
            }
            at += PLACES;
        }
        let may_begin = |at: usize| {
            self.patterns.iter().any(|search| {
                let [first, second] = search.beginning;
                bytes[at] == first && bytes.get(at + 1).is_none_or(|&byte| byte == second)
            })
        };
        (at..bytes.len())
            .find(|&at| may_begin(at))
            .unwrap_or(bytes.len())
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
        let beginning = [literal[0], literal[1]];
        Self {
            pattern,
            beginning,
            fallback,
        }
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

    /// Goes over the next bytes of the stream, in pieces that are masked or not (several of a kind
    /// may follow one another). To move on, take all of them.
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

    /// Moves on by at least one byte: how many, and whether they are masked. `bytes` are not empty.
    fn advance(&mut self, bytes: &[u8]) -> (bool, usize) {
        let inside = self.inside(bytes);
        let (masked, count) = if inside > 0 {
            (true, inside)
        } else {
            match self.until_range_edge(bytes.len()) {
                (true, count) => (true, count),
                (false, count) => (false, self.search(&bytes[..count])),
            }
        };
        if masked {
            self.forget_beginnings();
        }
        self.position += count as u64;
        (masked, count)
    }

    /// How many bytes a pattern lives through. Behind them, none is alive.
    fn inside(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            let mut alive = false;
            for (progress, search) in self.patterns.iter_mut().zip(&self.masks.patterns) {
                let Progress::Inside(state) = *progress else {
                    continue;
                };
                *progress = match search.pattern.next(state, byte) {
                    Some(next) => Progress::Inside(next),
                    None => Progress::Before(0),
                };
                alive |= matches!(progress, Progress::Inside(_));
            }
            if !alive {
                return index;
            }
        }
        bytes.len()
    }

    /// Whether this place is in a range, and how many of `length` bytes are on the same side.
    fn until_range_edge(&mut self, length: usize) -> (bool, usize) {
        let up_to =
            |edge: u64| usize::try_from(edge - self.position).map_or(length, |n| n.min(length));
        while let Some(&(first, behind)) = self.masks.ranges.get(self.range) {
            if self.position < first {
                return (false, up_to(first));
            }
            if self.position < behind {
                return (true, up_to(behind));
            }
            self.range += 1;
        }
        (false, length)
    }

    /// Looks for literal beginnings in bytes that are not masked; returns how many bytes it went over:
    /// all, or up to the end of a literal.
    fn search(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.patterns.iter().all(|p| *p == Progress::Before(0)) {
                at += self.masks.skip(&bytes[at..]);
                if at == bytes.len() {
                    break;
                }
            }
            let mut found = false;
            for (progress, search) in self.patterns.iter_mut().zip(&self.masks.patterns) {
                if let Progress::Before(seen) = *progress {
                    let seen = search.step(seen, bytes[at]);
                    let whole = usize::from(seen) == search.pattern.literal().len();
                    found |= whole;
                    *progress = if whole {
                        Progress::Inside(search.pattern.start())
                    } else {
                        Progress::Before(seen)
                    };
                }
            }
            at += 1;
            if found {
                break;
            }
        }
        at
    }

    /// A literal beginning does not reach across masked bytes.
    fn forget_beginnings(&mut self) {
        for progress in &mut self.patterns {
            if let Progress::Before(seen) = progress {
                *seen = 0;
            }
        }
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

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.masker.masks.is_empty() {
            self.masker.position += self.rest.len() as u64;
            return Some((false, core::mem::take(&mut self.rest)));
        }
        let (masked, count) = self.masker.advance(self.rest);
        let (segment, rest) = self.rest.split_at(count);
        self.rest = rest;
        Some((masked, segment))
    }
}

#[cfg(test)]
mod tests;
