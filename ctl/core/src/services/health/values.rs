//! The values of `health`, each a type that only exists when it is right.

use crate::checks::{Pattern, Statuses};
use crate::services::values::{FromText, Number, deserialize_from_text};
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A time between checks, or one that a check may take.
pub struct Pause(pub Duration);

impl Pause {
    const FROM: Duration = Duration::from_millis(10);
    pub const TO: Duration = Duration::from_secs(60 * 60);
}

impl FromText for Pause {
    const WANTED: &str = "a string such as \"500ms\" or \"2s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        if (Pause::FROM..=Pause::TO).contains(&time) {
            Ok(Pause(time))
        } else {
            let (from, to) = (duration::format(Pause::FROM), duration::format(Pause::TO));
            Err(format!(
                "{text:?} is out of range; it is from {from:?} to {to:?}"
            ))
        }
    }
}

/// How many checks in a row.
pub struct Count(pub u8);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (1, 100);
        let wanted = format!("a whole number from {from} to {to}");
        let number = deserializer.deserialize_i64(Number { from, to, wanted })?;
        Ok(Count(
            u8::try_from(number).expect("Number keeps it in 1..=100"),
        ))
    }
}

/// A path of HTTP, with its query.
pub struct FilePath(pub String);

impl FromText for FilePath {
    const WANTED: &str = "a string such as \"/health\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        match plain && text.starts_with('/') && text.len() <= 1_024 {
            true => Ok(FilePath(text.to_owned())),
            false => Err(format!(
                "{text:?} is not a path; write one such as \"/health\", without spaces"
            )),
        }
    }
}

/// A host as it stands in a URL, without or with a port.
pub struct FileHost(pub String);

impl FromText for FileHost {
    const WANTED: &str = "a string such as \"shop.example.com\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        match (1..=253).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(FileHost(text.to_owned())),
            false => Err(format!(
                "{text:?} is not a host; write one such as \"shop.example.com\""
            )),
        }
    }
}

/// What an answer has in it.
pub struct FilePattern(pub Pattern);

impl FromText for FilePattern {
    const WANTED: &str = "a string such as 'status: (ok|warm)'";

    fn from_text(text: &str) -> Result<Self, String> {
        Pattern::new(text)
            .map(FilePattern)
            .map_err(|why| format!("{text:?} is not a regular expression: {why}"))
    }
}

deserialize_from_text!(Pause, FilePath, FileHost, FilePattern, FileBytes);

/// Bytes: text as it is, or `hex:` and digits.
pub struct FileBytes(pub Vec<u8>);

impl FileBytes {
    const MAX: usize = 1_024;
}

impl FromText for FileBytes {
    const WANTED: &str = "a string such as \"PING\\r\\n\", or \"hex:0000000804d2162f\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let bytes = match text.strip_prefix("hex:") {
            None => Some(text.as_bytes().to_vec()),
            Some(digits) => unhex(digits),
        };
        let bytes = bytes.ok_or_else(|| {
            format!("{text:?} is not hexadecimal; write two digits a byte, such as \"hex:0d0a\"")
        })?;
        match (1..=Self::MAX).contains(&bytes.len()) {
            true => Ok(FileBytes(bytes)),
            false => Err(format!(
                "{} bytes are out of range; it is from 1 to {} bytes",
                bytes.len(),
                Self::MAX
            )),
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let plain = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = (0..digits.len()).step_by(2);
    plain.then(|| {
        pairs
            .filter_map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
            .collect()
    })
}

/// Statuses of HTTP: a number, a text such as "200-399", or a list of both.
pub struct FileStatuses(pub Statuses);

impl<'de> Deserialize<'de> for FileStatuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl<'de> Visitor<'de> for StatusVisitor {
    type Value = FileStatuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("200, \"200-399\" or a list such as [200, \"300-399\"]")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<FileStatuses, E> {
        let status = u16::try_from(number).ok().filter(|s| STATUS.contains(s));
        let status =
            status.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        Ok(FileStatuses(Statuses(vec![status..=status])))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FileStatuses, E> {
        let range = statuses(text).ok_or_else(|| {
            E::custom(format!(
                "{text:?} are no statuses of HTTP; write \"200\" or \"200-399\", from 100 to 599"
            ))
        })?;
        Ok(FileStatuses(Statuses(vec![range])))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FileStatuses, A::Error> {
        let mut ranges = Vec::new();
        while let Some(FileStatuses(one)) = list.next_element()? {
            ranges.extend(one.0);
        }
        match (1..=64).contains(&ranges.len()) {
            true => Ok(FileStatuses(Statuses(ranges))),
            false => Err(de::Error::custom(
                "a list of statuses has from 1 to 64 of them",
            )),
        }
    }
}

const STATUS: RangeInclusive<u16> = 100..=599;

fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let one = |text: &str| text.trim().parse().ok().filter(|s| STATUS.contains(s));
    let (from, to): (u16, u16) = (one(from)?, one(to)?);
    (from <= to).then_some(from..=to)
}
