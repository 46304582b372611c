//! The TCP header (RFC 9293 section 3.1).

use core::fmt;
use core::ops::BitOr;

use crate::checksum;
use crate::parse::ParseError;

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;

/// The control bits of a TCP segment; empty for anything that is not TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// None set.
    pub const EMPTY: TcpFlags = TcpFlags(0);
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);

    /// The flags of the header's 14th byte.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        TcpFlags(bits)
    }

    /// As in the header's 14th byte.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub const fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }
}

impl BitOr for TcpFlags {
    type Output = TcpFlags;

    #[inline]
    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    /// In tcpdump's letters: `TcpFlags(S.)` is SYN and ACK.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpFlags(")?;
        for (flag, letter) in ["F", "S", "R", "P", ".", "U", "E", "W"]
            .into_iter()
            .enumerate()
        {
            if self.0 >> flag & 1 != 0 {
                f.write_str(letter)?;
            }
        }
        f.write_str(")")
    }
}

/// The fixed part of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpHeader<'a>(&'a [u8; HEADER_LENGTH]);

impl<'a> TcpHeader<'a> {
    /// The header of `segment`, the whole payload of an IP packet.
    ///
    /// Checked in this order: 20 bytes are there (`Truncated`); the data offset is at least 20
    /// bytes (`Malformed`) and within the segment (`Truncated`). The checksum is not: the receiver
    /// at the end of the tunnel does that, and it would cost a pass over the payload.
    #[inline]
    pub fn parse(segment: &'a [u8]) -> Result<Self, ParseError> {
        let header = TcpHeader(segment.first_chunk().ok_or(ParseError::Truncated)?);
        let length = header.header_length();
        if length < HEADER_LENGTH {
            return Err(ParseError::Malformed);
        }
        if length > segment.len() {
            return Err(ParseError::Truncated);
        }
        Ok(header)
    }

    /// Source port and destination port in one word, the source port above.
    #[inline]
    pub const fn ports(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Sequence number of the first byte, or of the SYN.
    #[inline]
    pub const fn sequence(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// The next sequence number the sender expects; it counts with ACK only.
    #[inline]
    pub const fn acknowledgment(self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Bytes of the header with its options.
    #[inline]
    pub const fn header_length(self) -> usize {
        (self.0[12] >> 4) as usize * 4
    }

    /// The control bits.
    #[inline]
    pub const fn flags(self) -> TcpFlags {
        TcpFlags(self.0[13])
    }
}

/// The option kinds that a SYN's options are walked by (RFC 9293 section 3.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Lowers the maximum segment size that a SYN announces to `limit`, with its checksum in step. A
/// SYN that announces none, or less, stays as it is: what is not said may not be made up.
///
/// `segment` is the whole payload of an IP packet that [`TcpHeader::parse`] accepted.
#[cold]
pub fn clamp_mss(segment: &mut [u8], limit: u16) {
    let Ok(header) = TcpHeader::parse(segment) else {
        return;
    };
    let end = header.header_length();
    let mut at = HEADER_LENGTH;
    while at < end {
        let step = match segment[at] {
            END_OF_OPTIONS => return,
            NO_OPERATION => 1,
            kind => {
                let Some(&length) = segment.get(at + 1).filter(|&&length| length >= 2) else {
                    return;
                };
                if kind == MAXIMUM_SEGMENT_SIZE && length == 4 && at + 4 <= end {
                    lower_mss(segment, at + 2, limit);
                }
                usize::from(length)
            }
        };
        at += step;
    }
}

fn lower_mss(segment: &mut [u8], at: usize, limit: u16) {
    let announced = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if announced <= limit {
        return;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    // At an odd place its bytes are the lower one of a word and the upper one of the next: to the
    // sum that is the number with its bytes exchanged (RFC 1071 section 2 (B)).
    let (old, new) = if at.is_multiple_of(2) {
        (announced, limit)
    } else {
        (announced.swap_bytes(), limit.swap_bytes())
    };
    let sum = checksum::update_u16(u16::from_be_bytes([segment[16], segment[17]]), old, new);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
