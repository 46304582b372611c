//! The IPv4 header (RFC 791).

use crate::checksum;
use crate::parse::ParseError;

/// Bytes of a header without options.
pub const HEADER_LENGTH: usize = 20;

/// Version 4 and a header length of five words.
const WITHOUT_OPTIONS: u8 = 0x45;

/// "Don't fragment", in the word of flags and fragment offset.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The fixed part of an IPv4 header. Options are neither read nor changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Header<'a>(&'a [u8; HEADER_LENGTH]);

impl<'a> Ipv4Header<'a> {
    /// The header of `packet` and its payload, cut to the total length.
    ///
    /// Checked in this order: 20 bytes are there (`Truncated`); version 4, a header length of at
    /// least 20 and a total length of at least that (`Malformed`); the total length is there
    /// (`Truncated`); the header's checksum (`BadChecksum`). Options are skipped by their length
    /// and never walked, so nothing in them can loop or mislead.
    #[inline]
    pub fn split(packet: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let header = Ipv4Header(packet.first_chunk().ok_or(ParseError::Truncated)?);
        let header_length = header.check_lengths()?;
        let (whole, payload) = packet
            .get(..usize::from(header.total_length()))
            .and_then(|packet| packet.split_at_checked(header_length))
            .ok_or(ParseError::Truncated)?;
        if checksum::Sum::new().add_bytes(whole).finish() != 0xffff {
            return Err(ParseError::BadChecksum);
        }
        Ok((header, payload))
    }

    /// [`Ipv4Header::split`] for the header that nearly all packets have, one without options,
    /// where everything is in a known place. `None` when it is another one.
    #[inline]
    pub(crate) fn split_plain(packet: &'a [u8]) -> Option<Result<(Self, &'a [u8]), ParseError>> {
        let (header, payload) = packet.split_first_chunk()?;
        let header = Ipv4Header(header);
        if header.0[0] != WITHOUT_OPTIONS {
            return None;
        }
        Some(header.check_plain(payload))
    }

    #[inline]
    fn check_plain(self, payload: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let length = usize::from(self.total_length())
            .checked_sub(HEADER_LENGTH)
            .ok_or(ParseError::Malformed)?;
        let payload = payload.get(..length).ok_or(ParseError::Truncated)?;
        if !checksum::ipv4_header_is_valid(self.0) {
            return Err(ParseError::BadChecksum);
        }
        Ok((self, payload))
    }

    /// The header of a packet quoted by an ICMP error, and as much of its payload as is there.
    ///
    /// The quote may be cut anywhere behind the header, and its checksum may be stale (the router
    /// that complains may have changed the TTL already): neither is checked.
    pub fn split_quoted(packet: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let header = Ipv4Header(packet.first_chunk().ok_or(ParseError::Truncated)?);
        let header_length = header.check_lengths()?;
        let (_, payload) = packet
            .split_at_checked(header_length)
            .ok_or(ParseError::Truncated)?;
        Ok((header, payload))
    }

    /// The header length in bytes, when version and lengths can be true.
    fn check_lengths(self) -> Result<usize, ParseError> {
        let header_length = usize::from(self.0[0] & 0x0f) * 4;
        if self.0[0] >> 4 != 4
            || header_length < HEADER_LENGTH
            || usize::from(self.total_length()) < header_length
        {
            return Err(ParseError::Malformed);
        }
        Ok(header_length)
    }

    /// DSCP and ECN, the former type of service.
    #[inline]
    pub const fn ds_field(self) -> u8 {
        self.0[1]
    }

    /// Bytes of the packet with its header.
    #[inline]
    pub const fn total_length(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Whether it is a fragment: not the whole datagram, so that ports may be missing.
    #[inline]
    pub const fn is_fragment(self) -> bool {
        // The mask is swapped instead of the field: at compile time.
        let field = u16::from_ne_bytes([self.0[6], self.0[7]]);
        field & (MORE_FRAGMENTS | FRAGMENT_OFFSET).to_be() != 0
    }

    /// Whether it is a fragment other than the first: one without ports.
    #[inline]
    pub const fn is_later_fragment(self) -> bool {
        self.flags_and_offset() & FRAGMENT_OFFSET != 0
    }

    /// Where a fragment belongs in its datagram, in units of 8 bytes.
    #[inline]
    pub const fn fragment_offset(self) -> u16 {
        self.flags_and_offset() & FRAGMENT_OFFSET
    }

    /// What all fragments of a datagram have in common.
    #[inline]
    pub const fn identification(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Whether routers may not fragment it.
    #[inline]
    pub const fn dont_fragment(self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    #[inline]
    const fn flags_and_offset(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Time to live.
    #[inline]
    pub const fn ttl(self) -> u8 {
        self.0[8]
    }

    /// The protocol of the payload.
    #[inline]
    pub const fn protocol(self) -> u8 {
        self.0[9]
    }

    /// The source address as a number.
    #[inline]
    pub const fn source(self) -> u32 {
        u32::from_be_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// The destination address as a number.
    #[inline]
    pub const fn destination(self) -> u32 {
        u32::from_be_bytes([self.0[16], self.0[17], self.0[18], self.0[19]])
    }
}

impl<'a> From<&'a [u8; HEADER_LENGTH]> for Ipv4Header<'a> {
    /// Without any check, for bytes that [`Ipv4Header::split`] has accepted before.
    #[inline]
    fn from(header: &'a [u8; HEADER_LENGTH]) -> Self {
        Ipv4Header(header)
    }
}

/// Takes one from the TTL and brings the checksum in step (RFC 1624).
///
/// A TTL of 0 stays: wrapped to 255 it would let a loop run for ever.
#[inline]
pub fn decrement_ttl(header: &mut [u8; HEADER_LENGTH]) {
    let step = u8::from(header[8] != 0);
    // Equation 3 where the change is known: the TTL is the upper byte of its word, so the sum is
    // less by 0x0100 and its complement more, with the carry added back. From 0xffff on, not
    // 0x10000, because 0xffff is the zero that equation 3 never gives.
    let sum = u32::from(u16::from_be_bytes([header[10], header[11]])) + (u32::from(step) << 8);
    let sum = if step != 0 && sum >= 0xffff {
        sum + 1
    } else {
        sum
    };
    header[8] -= step;
    [header[10], header[11]] = (sum as u16).to_be_bytes();
}
