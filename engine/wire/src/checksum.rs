//! The Internet checksum: in full (RFC 1071) and incremental (RFC 1624).

use crate::protocol;

/// A ones' complement sum in progress.
///
/// Words are added in the machine's own byte order: the sum's *bytes* come out the same either way
/// (RFC 1071 section 2 (B)), and nothing is swapped until [`Sum::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Sum(0)
    }

    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293 section 3.1). `length` is the
    /// segment's length in bytes with its header.
    #[inline]
    pub const fn pseudo_v4(source: u32, destination: u32, protocol: u8, length: u16) -> Self {
        Sum::new()
            .add_u32(source)
            .add_u32(destination)
            .add_u16(protocol as u16)
            .add_u16(length)
    }

    /// The pseudo-header over IPv6 (RFC 8200 section 8.1). `length` is the upper-layer packet's
    /// length in bytes, extension headers not counted.
    #[inline]
    pub fn pseudo_v6(source: &[u8; 16], destination: &[u8; 16], protocol: u8, length: u32) -> Self {
        Sum::new()
            .add_bytes(source)
            .add_bytes(destination)
            .add_u32(length)
            .add_u16(u16::from(protocol))
    }

    /// Adds one 16-bit word.
    #[inline]
    pub const fn add_u16(self, word: u16) -> Self {
        Sum(self.0 + word.to_be() as u64)
    }

    /// Adds a 32-bit number as its two 16-bit words.
    #[inline]
    pub const fn add_u32(self, words: u32) -> Self {
        Sum(self.0 + words.to_be() as u64)
    }

    /// Adds bytes. An odd last byte is padded with zero, so only the last call may have one.
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        // A 64-bit accumulator holds 2^32 such words: more than a slice of packets ever has.
        let sum = words.iter().fold(self.0, |sum, word| {
            sum + u64::from(u32::from_ne_bytes(*word))
        });
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Sum(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// The folded sum, not complemented: 0xffff over bytes whose checksum field is right.
    #[inline]
    pub const fn finish(self) -> u16 {
        u16::from_be(fold(self.0))
    }

    /// The value of the checksum field: the complement of the folded sum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.finish()
    }
}

/// End-around carries until 16 bits are left.
#[inline]
pub(crate) const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The Internet checksum of `bytes`; the checksum field in them has to be zero.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).checksum()
}

/// Whether the checksum of an IPv4 header without options is right.
///
/// A ones' complement sum is one modulo 0xffff, and so is one of 64-bit words with the carry added
/// back; a remainder of zero is a multiplication and a comparison to the compiler, less than
/// folding. (The other zero, of a header of nothing but zeros, has no version 4.)
#[inline]
pub(crate) const fn ipv4_header_is_valid(header: &[u8; 20]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, rest @ ..] = *header;
    let (sum, carry) = u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        .overflowing_add(u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
    // Two words that carry leave at most 2^64 - 2, so that the carry fits; the second addition may
    // carry again, and 2^64 is 1 modulo 0xffff.
    let sum = sum + carry as u64;
    let (sum, carry) = sum.overflowing_add(u32::from_ne_bytes(rest) as u64);
    (sum + carry as u64).is_multiple_of(0xffff)
}

/// Whether the checksum of a TCP or UDP segment over IPv4 is right.
pub fn segment_v4_is_valid(source: u32, destination: u32, protocol: u8, segment: &[u8]) -> bool {
    let Ok(length) = u16::try_from(segment.len()) else {
        return false;
    };
    Sum::pseudo_v4(source, destination, protocol, length)
        .add_bytes(segment)
        .finish()
        == 0xffff
}

/// Whether the checksum of a TCP, UDP or ICMPv6 packet over IPv6 is right.
pub fn segment_v6_is_valid(
    source: &[u8; 16],
    destination: &[u8; 16],
    protocol: u8,
    segment: &[u8],
) -> bool {
    let Ok(length) = u32::try_from(segment.len()) else {
        return false;
    };
    // RFC 8200 section 8.1: over IPv6 a UDP checksum of zero means nothing and is not accepted.
    if protocol == protocol::UDP && segment.get(6..8) == Some(&[0, 0]) {
        return false;
    }
    Sum::pseudo_v6(source, destination, protocol, length)
        .add_bytes(segment)
        .finish()
        == 0xffff
}

/// The checksum after one 16-bit word of what it covers went from `old` to `new`.
///
/// RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`. Equation 4 of the older RFC 1141 gets the case
/// wrong where the sum comes to zero.
#[inline]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u64 + !old as u64 + new as u64;
    !fold(sum)
}

/// [`update_u16`] for a 32-bit change: an IPv4 address, a TCP sequence number, both ports.
#[inline]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let sum = !checksum as u64 + !old as u64 + new as u64;
    !fold(sum)
}

/// [`update_u16`] for a change of 16 bytes: an IPv6 address.
#[inline]
pub fn update_16_bytes(checksum: u16, old: &[u8; 16], new: &[u8; 16]) -> u16 {
    let (old, _) = old.as_chunks::<4>();
    let (new, _) = new.as_chunks::<4>();
    let sum = old
        .iter()
        .zip(new)
        .fold(u64::from(!checksum), |sum, (old, new)| {
            sum + u64::from(!u32::from_be_bytes(*old)) + u64::from(u32::from_be_bytes(*new))
        });
    !fold(sum)
}

#[cfg(test)]
mod tests;
