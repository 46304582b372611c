//! Numbers derived from a secret.
//!
//! HMAC-SHA-256 in counter mode (NIST SP 800-108, section 4.1) gives a stream of 32-bit words for
//! each [`Key`]; words that would prefer some numbers are thrown away (rejection), so that every
//! number of the range is equally likely. Whoever does not have the secret cannot tell the words
//! from those of the operating system, nor one answer from others.

use super::request::{Key, Range};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// What all numbers are derived from. Everybody who has it can tell every number.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// Never its bytes: what is shown ends in a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Of bytes that nobody can guess.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    /// As hexadecimal digits, to be kept.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// What [`Secret::to_hex`] gave.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Secret)
    }

    /// The numbers of a key; `salt` tells the answers of one key over time from each other.
    pub fn integers(&self, key: &Key, salt: &[u8; 16], range: Range) -> Vec<i32> {
        // The parts cannot run into each other: the salt has one length.
        let mut words = Words::new(
            self,
            &[b"lockstep random 1\0", salt, key.as_str().as_bytes()],
        );
        (0..range.num).map(|_| words.integer(range)).collect()
    }
}

/// Hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Exactly so many bytes of hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The stream of a key.
struct Words {
    /// Keyed, and fed with what is asked for: each block continues a copy.
    keyed: Hmac<Sha256>,
    block: [u8; 32],
    /// Bytes of the block that are spent.
    spent: usize,
    /// The number of the next block.
    next: u32,
}

impl Words {
    fn new(secret: &Secret, parts: &[&[u8]]) -> Self {
        let mut keyed =
            Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of every length");
        parts.iter().for_each(|part| keyed.update(part));
        Words {
            keyed,
            block: [0; 32],
            spent: 32,
            next: 0,
        }
    }

    fn word(&mut self) -> u32 {
        if self.spent == self.block.len() {
            let mut keyed = self.keyed.clone();
            keyed.update(&self.next.to_be_bytes());
            self.block = keyed.finalize().into_bytes().into();
            self.spent = 0;
            // 10,000 numbers at two words each on average need some thousand blocks.
            self.next += 1;
        }
        let bytes = &self.block[self.spent..self.spent + 4];
        self.spent += 4;
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    fn integer(&mut self, range: Range) -> i32 {
        let choices = range.max.abs_diff(range.min) + 1;
        // The largest multiple of `choices` that words reach: those from there on would make the
        // first numbers of the range likelier. At most half of all words are thrown away.
        let fair = u64::from(choices) * ((1 << 32) / u64::from(choices));
        loop {
            let word = self.word();
            if u64::from(word) < fair {
                return range.min.wrapping_add_unsigned(word % choices);
            }
        }
    }
}

#[cfg(test)]
mod tests;
