//! Ethernet: the header of a frame that comes in, with or without the XDP program's room, and of
//! one that goes out.

use crate::parse::ParseError;
use crate::vlan;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LENGTH: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// The EtherType of a frame in which the XDP program made room in front of the packet (ADR 1):
/// IEEE 802's local experimental EtherType 1.
pub const STEER_ETHERTYPE: u16 = 0x88b5;

/// The least room a marked frame may have: the marker's own length field fits in, and one VLAN tag.
const LEAST_ROOM: u16 = 4;
/// The most room a marked frame may have: three times an IPv6 header, and a bound on what a
/// program of another version could make the engine skip.
const MOST_ROOM: u16 = 128;

/// Which IP header a packet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// An IP packet in its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Bytes of room; 0 for an ordinary frame.
    pub room: u16,
    /// Offset of the IP header.
    pub network: usize,
    /// From the IP header to the end of the frame.
    pub bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    #[inline]
    fn at(frame: &'a [u8], network: usize, room: u16) -> Result<Self, ParseError> {
        let bytes = frame.get(network..).ok_or(ParseError::Truncated)?;
        Ok(Packet {
            room,
            network,
            bytes,
        })
    }
}

/// The packet behind the room that the XDP program made; `None` when the frame has no marker.
#[inline]
pub(crate) fn steered(frame: &[u8]) -> Option<Result<(Version, Packet<'_>), ParseError>> {
    let header: &[u8; HEADER_LENGTH + 2] = frame.first_chunk()?;
    if u16::from_be_bytes([header[12], header[13]]) != STEER_ETHERTYPE {
        return None;
    }
    Some(behind_room(
        frame,
        u16::from_be_bytes([header[14], header[15]]),
    ))
}

#[inline]
fn behind_room(frame: &[u8], room: u16) -> Result<(Version, Packet<'_>), ParseError> {
    if !(LEAST_ROOM..=MOST_ROOM).contains(&room) {
        return Err(ParseError::Malformed);
    }
    let packet = Packet::at(frame, HEADER_LENGTH + usize::from(room), room)?;
    // The marker stands where the EtherType was: the packet itself tells its version.
    let version = match packet.bytes.first().ok_or(ParseError::Truncated)? >> 4 {
        4 => Version::V4,
        6 => Version::V6,
        _ => return Err(ParseError::Malformed),
    };
    Ok((version, packet))
}

/// The packet of any frame. The EtherType is looked at first, then the room or the VLAN tags.
pub(crate) fn parse(frame: &[u8]) -> Result<(Version, Packet<'_>), ParseError> {
    if let Some(steered) = steered(frame) {
        return steered;
    }
    let header: &[u8; HEADER_LENGTH] = frame.first_chunk().ok_or(ParseError::Truncated)?;
    let (ethertype, network) = match u16::from_be_bytes([header[12], header[13]]) {
        tag @ (vlan::CUSTOMER_TAG | vlan::SERVICE_TAG) => vlan::skip(frame, tag)?,
        // The marker of a frame that ends before the room's length.
        STEER_ETHERTYPE => return Err(ParseError::Truncated),
        ethertype => (ethertype, HEADER_LENGTH),
    };
    let version = match ethertype {
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        _ => return Err(ParseError::NotIp),
    };
    Ok((version, Packet::at(frame, network, 0)?))
}

/// The link header of a frame on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkHeader {
    /// The next hop's address.
    pub destination: [u8; 6],
    /// The address of the interface that sends.
    pub source: [u8; 6],
    /// The VLAN ID (12 bits; the upper four are not sent) where the way out is tagged.
    pub vlan: Option<u16>,
}

impl LinkHeader {
    /// Bytes it takes: 14, or 18 with a VLAN tag.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        match self.vlan {
            None => HEADER_LENGTH,
            Some(_) => HEADER_LENGTH + vlan::TAG_LENGTH,
        }
    }

    /// Writes the header into `to`; `None` when that is not exactly [`LinkHeader::len`] bytes.
    #[inline]
    pub fn write(&self, to: &mut [u8], ethertype: u16) -> Option<()> {
        match self.vlan {
            None => {
                let to: &mut [u8; HEADER_LENGTH] = to.try_into().ok()?;
                self.write_addresses(to.first_chunk_mut()?);
                *to.last_chunk_mut()? = ethertype.to_be_bytes();
            }
            Some(id) => {
                let to: &mut [u8; HEADER_LENGTH + vlan::TAG_LENGTH] = to.try_into().ok()?;
                self.write_addresses(to.first_chunk_mut()?);
                *to.last_chunk_mut()? = vlan::tag(id, ethertype);
            }
        }
        Some(())
    }

    #[inline]
    fn write_addresses(&self, to: &mut [u8; 12]) {
        let (addresses, _) = to.as_chunks_mut::<6>();
        addresses[0] = self.destination;
        addresses[1] = self.source;
    }
}
