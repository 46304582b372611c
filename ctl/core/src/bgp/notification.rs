//! NOTIFICATION: why one side ends a session, in numbers on the wire and in words for people.

use std::fmt;

/// Code, subcode and data of RFC 4271 §4.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What kind of error.
    pub code: u8,
    /// Which one.
    pub subcode: u8,
    /// More about it, at most what a message holds.
    pub data: Vec<u8>,
    /// More about it for our own operator; it is not sent.
    pub detail: Option<String>,
}

/// The longest text of an administrative shutdown (RFC 9003 §2), in bytes.
const MAX_TEXT: usize = 255;

impl Notification {
    /// An error without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification {
            code,
            subcode,
            data: Vec::new(),
            detail: None,
        }
    }

    /// The same with data.
    #[must_use]
    pub fn with(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        self
    }

    /// The same with a word for our own operator.
    #[must_use]
    pub fn because(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    /// The session is ended for good, with a word for the other side's operator (RFC 8203).
    pub fn shutdown(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text.as_bytes());
        Notification::new(6, 2).with(data)
    }

    /// The hold timer has expired (RFC 4271 §6.5).
    pub const HOLD_TIMER: Notification = Notification::new(4, 0);
    /// The peer is no longer in the configuration.
    pub const DECONFIGURED: Notification = Notification::new(6, 3);
    /// Its configuration has changed.
    pub const RECONFIGURED: Notification = Notification::new(6, 6);
    /// Another connection was kept (RFC 4271 §6.8).
    pub const COLLISION: Notification = Notification::new(6, 7);
    /// BFD says that the path is down (RFC 9384).
    pub const BFD_DOWN: Notification = Notification::new(6, 10);

    /// The text of a shutdown or reset, as RFC 8203 has it; `None` where it is none or no UTF-8.
    fn text(&self) -> Option<&str> {
        if self.code != 6 || !matches!(self.subcode, 2 | 4) {
            return None;
        }
        let (&length, text) = self.data.split_first()?;
        std::str::from_utf8(text.get(..usize::from(length))?).ok()
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Notification { code, subcode, .. } = self;
        match words(*code, *subcode) {
            Some(words) => f.write_str(words)?,
            None => write!(f, "error {code}.{subcode}")?,
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match self.text().filter(|text| !text.is_empty()) {
            // What a router says goes to terminals and logs: no control characters.
            Some(text) => write!(f, " ({})", text.escape_debug()),
            None => Ok(()),
        }
    }
}

/// IANA's names, as plain words.
const fn words(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 1) => "connection not synchronized",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (1, _) => "message header error",
        (2, 1) => "unsupported version",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad router id",
        (2, 4) => "unsupported parameter",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "no common address family",
        (2, _) => "open message error",
        (3, 1) => "malformed attribute list",
        (3, 10) => "invalid network field",
        (3, _) => "update message error",
        (4, _) => "hold timer expired",
        (5, 1) => "unexpected message before the session",
        (5, 2) => "unexpected message while opening",
        (5, 3) => "unexpected message in the session",
        (5, _) => "unexpected message",
        (6, 1) => "too many prefixes",
        (6, 2) => "administrative shutdown",
        (6, 3) => "peer no longer configured",
        (6, 4) => "administrative reset",
        (6, 5) => "connection rejected",
        (6, 6) => "configuration changed",
        (6, 7) => "another connection was kept",
        (6, 8) => "out of resources",
        (6, 9) => "hard reset",
        (6, 10) => "BFD down",
        (6, _) => "cease",
        (7, 1) => "bad route refresh length",
        (7, _) => "route refresh error",
        _ => return None,
    })
}
