//! The IPv6 header and its extension headers (RFC 8200).

use crate::parse::ParseError;
use crate::protocol;

/// Bytes of the fixed header.
pub const HEADER_LENGTH: usize = 40;
/// How many extension headers are followed. RFC 8504 section 5.3 lets a node limit them; what is
/// legitimate has two or three, and each costs a load that depends on the one before.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Every extension header takes at least this and is a multiple of 4 bytes long.
const LEAST_EXTENSION: usize = 8;

/// The fixed IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Header<'a>(&'a [u8; HEADER_LENGTH]);

impl<'a> Ipv6Header<'a> {
    /// The header of `packet` and its payload (extension headers in front), cut to the payload
    /// length.
    ///
    /// Checked in this order: 40 bytes are there (`Truncated`); version 6 and a payload length
    /// other than 0, which means a jumbogram (RFC 2675) or nothing to balance (`Malformed`); the
    /// payload is there (`Truncated`).
    #[inline]
    pub fn split(packet: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let (header, payload) = Self::split_quoted(packet)?;
        let payload = payload
            .get(..usize::from(header.payload_length()))
            .ok_or(ParseError::Truncated)?;
        Ok((header, payload))
    }

    /// As [`Ipv6Header::split`], for a packet quoted by an ICMPv6 error, which may be cut.
    #[inline]
    pub fn split_quoted(packet: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let (header, payload) = packet.split_first_chunk().ok_or(ParseError::Truncated)?;
        let header = Ipv6Header(header);
        if header.0[0] >> 4 != 6 || header.payload_length() == 0 {
            return Err(ParseError::Malformed);
        }
        Ok((header, payload))
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// Bytes behind the fixed header.
    #[inline]
    pub const fn payload_length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The type of the first header in the payload.
    #[inline]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// The source address, in network order.
    #[inline]
    pub fn source(self) -> &'a [u8; 16] {
        self.addresses().0
    }

    /// The destination address, in network order.
    #[inline]
    pub fn destination(self) -> &'a [u8; 16] {
        self.addresses().1
    }

    #[inline]
    fn addresses(self) -> (&'a [u8; 16], &'a [u8; 16]) {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = self.0;
        let (addresses, _) = addresses.as_chunks::<16>();
        (&addresses[0], &addresses[1])
    }
}

impl<'a> From<&'a [u8; HEADER_LENGTH]> for Ipv6Header<'a> {
    /// Without any check, for bytes that [`Ipv6Header::split`] has accepted before.
    #[inline]
    fn from(header: &'a [u8; HEADER_LENGTH]) -> Self {
        Ipv6Header(header)
    }
}

/// Takes one from the hop limit. 0 stays: wrapped to 255 it would let a loop run for ever.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8; HEADER_LENGTH]) {
    header[7] = header[7].saturating_sub(1);
}

/// What a fragment header does to the walk through a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragments {
    /// Only a whole datagram will do; an atomic fragment is one (RFC 6946).
    Refused,
    /// The first fragment will do too: what an ICMPv6 error quotes needs the ports only.
    FirstAccepted,
}

/// The protocol behind the extension headers, and the payload that starts with its header.
#[inline]
pub(crate) fn upper_layer(
    next_header: u8,
    payload: &[u8],
    fragments: Fragments,
) -> Result<(u8, &[u8]), ParseError> {
    match next_header {
        protocol::TCP | protocol::UDP => Ok((next_header, payload)),
        _ => skip_extensions(next_header, payload, fragments),
    }
}

/// Follows the chain. Each step is at least 8 bytes forward and there are at most
/// [`MAX_EXTENSIONS`], so it ends whatever the bytes say.
#[inline(never)]
fn skip_extensions(
    next_header: u8,
    payload: &[u8],
    fragments: Fragments,
) -> Result<(u8, &[u8]), ParseError> {
    let mut next = next_header;
    let mut rest = payload;
    for followed in 0.. {
        if !is_extension(next) {
            break;
        }
        if followed == MAX_EXTENSIONS {
            return Err(ParseError::HeaderChain);
        }
        // RFC 8200 section 4.1: a hop-by-hop options header comes right behind the IPv6 header or
        // not at all.
        if next == HOP_BY_HOP && followed != 0 {
            return Err(ParseError::Malformed);
        }
        let header: &[u8; LEAST_EXTENSION] = rest.first_chunk().ok_or(ParseError::Truncated)?;
        let length = extension_length(next, header, fragments)?;
        rest = rest.get(length..).ok_or(ParseError::Truncated)?;
        next = header[0];
    }
    Ok((next, rest))
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    /// The type of what follows in the first fragment.
    pub next_header: u8,
    /// In units of 8 bytes; 0 in the first fragment.
    pub offset: u16,
    /// What all fragments of a datagram have in common.
    pub identification: u32,
}

/// The fragment header of a packet and what follows it; [`ParseError::NotTransport`] where there
/// is none.
pub(crate) fn fragment(
    next_header: u8,
    payload: &[u8],
) -> Result<(FragmentHeader, &[u8]), ParseError> {
    let mut next = next_header;
    let mut rest = payload;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            return Err(ParseError::NotTransport);
        }
        let header: &[u8; LEAST_EXTENSION] = rest.first_chunk().ok_or(ParseError::Truncated)?;
        if next == FRAGMENT {
            let [next_header, _, high, low, id @ ..] = *header;
            let found = FragmentHeader {
                next_header,
                offset: u16::from_be_bytes([high, low]) >> 3,
                identification: u32::from_be_bytes(id),
            };
            return Ok((found, &rest[LEAST_EXTENSION..]));
        }
        let length = extension_length(next, header, Fragments::Refused)?;
        rest = rest.get(length..).ok_or(ParseError::Truncated)?;
        next = header[0];
    }
    Err(ParseError::HeaderChain)
}

/// Encapsulating security payload (50) and "no next header" (59) are not among them: nothing that
/// could be read follows.
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// Bytes of an extension header.
fn extension_length(
    kind: u8,
    header: &[u8; LEAST_EXTENSION],
    fragments: Fragments,
) -> Result<usize, ParseError> {
    let length = usize::from(header[1]);
    match kind {
        FRAGMENT => {
            let word = u16::from_be_bytes([header[2], header[3]]);
            let (offset, more) = (word >> 3, word & 1 != 0);
            match fragments {
                _ if offset != 0 => Err(ParseError::Fragment),
                Fragments::Refused if more => Err(ParseError::Fragment),
                Fragments::Refused | Fragments::FirstAccepted => Ok(LEAST_EXTENSION),
            }
        }
        // RFC 4302 section 2.2: in words of 4 bytes, minus 2; all others count 8 bytes, minus 1.
        AUTHENTICATION => Ok((length + 2) * 4),
        _ => Ok((length + 1) * 8),
    }
}
