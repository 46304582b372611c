//! What routers say of routes: checked for its form (RFC 7606), counted, and forgotten. The
//! balancer follows the kernel's routes, so nothing of it is stored and a full table costs no
//! memory.

use super::notification::Notification;

/// An UPDATE that was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// In form.
    Fine,
    /// Attributes that are out of form: treated as a withdrawal (RFC 7606 §2), that is, ignored.
    TreatedAsWithdrawal,
}

const MALFORMED_ATTRIBUTES: Notification = Notification::new(3, 1);
const INVALID_NETWORK: Notification = Notification::new(3, 10);

/// Looks through an UPDATE without its header. Its prefixes have no path identifiers, as add-path
/// is offered for sending only.
///
/// # Errors
/// What ends the session: where its parts end cannot be told, or which prefixes it is about.
pub fn update(body: &[u8]) -> Result<Update, Notification> {
    let (withdrawn, rest) = counted(body).ok_or(MALFORMED_ATTRIBUTES)?;
    let (attributes, prefixes) = counted(rest).ok_or(MALFORMED_ATTRIBUTES)?;
    if !are_prefixes(withdrawn) || !are_prefixes(prefixes) {
        return Err(INVALID_NETWORK);
    }
    match are_attributes(attributes) && (prefixes.is_empty() || !attributes.is_empty()) {
        true => Ok(Update::Fine),
        false => Ok(Update::TreatedAsWithdrawal),
    }
}

/// A part after its length of two octets, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Whether these are IPv4 prefixes to their end.
fn are_prefixes(mut bytes: &[u8]) -> bool {
    while let Some((&length, rest)) = bytes.split_first() {
        match rest.get(usize::from(length.div_ceil(8))..) {
            Some(next) if length <= 32 => bytes = next,
            _ => return false,
        }
    }
    true
}

/// Whether these are attributes to their end, each with flags, type and length.
fn are_attributes(mut bytes: &[u8]) -> bool {
    const EXTENDED_LENGTH: u8 = 0x10;
    while let Some((&flags, rest)) = bytes.split_first() {
        let value = match (flags & EXTENDED_LENGTH != 0, rest) {
            (false, [_, length, value @ ..]) => value.get(usize::from(*length)..),
            (true, [_, high, low, value @ ..]) => {
                value.get(usize::from(u16::from_be_bytes([*high, *low]))..)
            }
            _ => None,
        };
        let Some(next) = value else { return false };
        bytes = next;
    }
    true
}
