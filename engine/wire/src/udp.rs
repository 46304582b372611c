//! The UDP header (RFC 768).

use crate::parse::ParseError;

/// Bytes of the header.
pub const HEADER_LENGTH: usize = 8;

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpHeader<'a>(&'a [u8; HEADER_LENGTH]);

impl<'a> UdpHeader<'a> {
    /// The header of `datagram`, the whole payload of an IP packet.
    ///
    /// Checked in this order: 8 bytes are there (`Truncated`); the length field is at least 8
    /// (`Malformed`) and within the datagram (`Truncated`). It may be shorter than the datagram:
    /// UDP options follow then (RFC 9868). The checksum is left to the receiver.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let header = UdpHeader(datagram.first_chunk().ok_or(ParseError::Truncated)?);
        let length = usize::from(header.length());
        if length < HEADER_LENGTH {
            return Err(ParseError::Malformed);
        }
        if length > datagram.len() {
            return Err(ParseError::Truncated);
        }
        Ok(header)
    }

    /// Source port and destination port in one word, the source port above.
    #[inline]
    pub const fn ports(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Bytes of header and data.
    #[inline]
    pub const fn length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The checksum; `None` where the sender made none (over IPv4 only).
    #[inline]
    pub const fn checksum(self) -> Option<u16> {
        match u16::from_be_bytes([self.0[6], self.0[7]]) {
            0 => None,
            checksum => Some(checksum),
        }
    }
}

/// A computed checksum as UDP sends it: 0 would say that there is none (RFC 768).
#[inline]
pub const fn on_the_wire(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
