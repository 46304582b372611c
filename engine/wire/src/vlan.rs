//! IEEE 802.1Q VLAN tags: skipped on the way in, one written on the way out.

use crate::ethernet::HEADER_LENGTH;
use crate::parse::ParseError;

/// TPID of a customer tag (802.1Q).
pub const CUSTOMER_TAG: u16 = 0x8100;
/// TPID of a service tag (802.1ad), the outer one of two.
pub const SERVICE_TAG: u16 = 0x88a8;
/// Bytes of a tag.
pub const TAG_LENGTH: usize = 4;
/// How many tags are skipped; a frame with more is a [`ParseError::HeaderChain`].
pub const MAX_TAGS: usize = 2;

/// The EtherType behind the tags and the offset of what it names. `tag` is the frame's first
/// EtherType, a TPID.
pub(crate) fn skip(frame: &[u8], tag: u16) -> Result<(u16, usize), ParseError> {
    let mut ethertype = tag;
    let mut at = HEADER_LENGTH;
    for _ in 0..MAX_TAGS {
        if !matches!(ethertype, CUSTOMER_TAG | SERVICE_TAG) {
            break;
        }
        let (tag, _) = frame
            .get(at..)
            .and_then(<[u8]>::split_first_chunk::<TAG_LENGTH>)
            .ok_or(ParseError::Truncated)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        at += TAG_LENGTH;
    }
    match ethertype {
        CUSTOMER_TAG | SERVICE_TAG => Err(ParseError::HeaderChain),
        _ => Ok((ethertype, at)),
    }
}

/// TPID, TCI and the EtherType behind them. Priority and drop eligibility are 0: the DS field in
/// the outer IP header carries the packet's class, and switches that map it do so themselves.
#[inline]
pub(crate) const fn tag(id: u16, ethertype: u16) -> [u8; TAG_LENGTH + 2] {
    let [a, b] = CUSTOMER_TAG.to_be_bytes();
    let [c, d] = (id & 0x0fff).to_be_bytes();
    let [e, f] = ethertype.to_be_bytes();
    [a, b, c, d, e, f]
}
