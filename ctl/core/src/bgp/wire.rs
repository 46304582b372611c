//! Messages to bytes and back: the codec's, with what it leaves to others (lengths, what ends a
//! session, and what is of no consequence).

use super::Family;
use super::notification::Notification;
use super::received::{self, Update};
use bytes::{Buf, BytesMut};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::open::BgpOpenMessage;
use netgauze_bgp_pkt::wire::deserializer::open::{
    BgpOpenMessageParsingError, BgpParameterParsingError,
};
use netgauze_bgp_pkt::wire::deserializer::{BgpMessageParsingError, BgpParsingContext};
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

/// Marker, length and type (RFC 4271 §4.1), in bytes.
pub const HEADER: usize = 19;
/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 4_096;

/// A message of a router, as far as we look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// It wants a session.
    Open(Box<BgpOpenMessage>),
    /// It has routes.
    Update(Update),
    /// It ends the session.
    Notification(Notification),
    /// It is there.
    Keepalive,
    /// It wants our routes again; `None` for a family that is not ours.
    Refresh(Option<Family>),
}

/// Takes the first message out of what has come; `None` until there is a whole one.
///
/// # Errors
/// What ends the session (RFC 4271 §6.1).
pub fn decode(bytes: &mut BytesMut) -> Result<Option<Message>, Notification> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let (marker, rest) = header.split_at(16);
    if marker.iter().any(|&byte| byte != 0xff) {
        return Err(Notification::new(1, 1));
    }
    let (length, kind) = (u16::from_be_bytes([rest[0], rest[1]]), rest[2]);
    let size = usize::from(length);
    let shortest = match kind {
        OPEN => HEADER + 10,
        UPDATE => HEADER + 4,
        NOTIFICATION => HEADER + 2,
        KEEPALIVE => HEADER,
        ROUTE_REFRESH => HEADER + 4,
        _ => return Err(Notification::new(1, 3).with([kind])),
    };
    let fits = match kind {
        KEEPALIVE => size == HEADER,
        _ => (shortest..=MAX_MESSAGE).contains(&size),
    };
    if !fits {
        return Err(Notification::new(1, 2).with(length.to_be_bytes()));
    }
    if bytes.len() < size {
        return Ok(None);
    }
    let message = bytes.split_to(size);
    let mut body = &message[HEADER..];
    Ok(Some(match kind {
        OPEN => Message::Open(Box::new(open(&message)?)),
        UPDATE => Message::Update(received::update(body)?),
        NOTIFICATION => Message::Notification(Notification {
            code: body.get_u8(),
            subcode: body.get_u8(),
            data: body.to_vec(),
            detail: None,
        }),
        ROUTE_REFRESH => refresh(body),
        // Only KEEPALIVE is left.
        _ => Message::Keepalive,
    }))
}

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const ROUTE_REFRESH: u8 = 5;

/// An OPEN. Capabilities that are unknown or of another family do not matter.
fn open(message: &[u8]) -> Result<BgpOpenMessage, Notification> {
    let mut context = BgpParsingContext::new(
        true,
        Default::default(),
        Default::default(),
        false,
        false,
        false,
        false,
    );
    match BgpMessage::parse(&mut SliceReader::new(message), &mut context) {
        Ok(BgpMessage::Open(open)) => Ok(open),
        Ok(_) => Err(Notification::new(2, 0)),
        Err(error) => Err(open_error(message, &error)),
    }
}

/// RFC 4271 §6.2.
fn open_error(message: &[u8], error: &BgpMessageParsingError) -> Notification {
    use BgpMessageParsingError as M;
    use BgpOpenMessageParsingError as O;
    use BgpParameterParsingError as P;
    match error {
        _ if message[HEADER] != 4 => Notification::new(2, 1).with(4_u16.to_be_bytes()),
        M::BgpOpenMessageParsingError(O::InvalidBgpId { .. }) => Notification::new(2, 3),
        M::BgpOpenMessageParsingError(O::UnacceptableHoldTime { .. }) => Notification::new(2, 6),
        M::BgpOpenMessageParsingError(O::ParameterError(P::UndefinedParameterType { .. })) => {
            Notification::new(2, 4)
        }
        _ => Notification::new(2, 0),
    }
}

/// A ROUTE-REFRESH (RFC 2918 §3). The markers of RFC 7313 are not negotiated: they ask nothing.
fn refresh(body: &[u8]) -> Message {
    const NORMAL: u8 = 0;
    Message::Refresh(match body {
        [high, low, NORMAL, safi, ..] => {
            Family::from_wire(u16::from_be_bytes([*high, *low]), *safi)
        }
        _ => None,
    })
}

/// A message of the codec as bytes.
pub fn encode(message: &BgpMessage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len());
    message
        .write(&mut bytes)
        .expect("a Vec takes everything, and the messages we make fit their limits");
    debug_assert!(bytes.len() <= MAX_MESSAGE);
    bytes
}

/// A NOTIFICATION as bytes.
pub fn notification(notification: &Notification) -> Vec<u8> {
    let data = &notification.data;
    let data = &data[..data.len().min(MAX_MESSAGE - HEADER - 2)];
    let mut bytes = vec![0xff; 16];
    let length = u16::try_from(HEADER + 2 + data.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend([NOTIFICATION, notification.code, notification.subcode]);
    bytes.extend(data);
    bytes
}

#[cfg(test)]
mod tests;
