//! Masks: what of a replica's output is left out of comparisons.

use alloc::string::String;

/// Bytes that may differ between replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Bytes `offset..offset + length` of the output.
    Range {
        /// The first byte, from 0.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// Wherever a pattern's literal beginning occurs, the bytes that follow it for as long as they
    /// can still be part of a match.
    Pattern(Pattern),
}

/// A regular expression that begins with literal text, such as `Date: [^\r]*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    source: String,
}

impl Pattern {
    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}
