//! What is kept of an answer, so that everybody gets the same one.

use super::derive::{Secret, hex, unhex};
use super::request::{Key, Range};
use crate::drains::Timestamp;
use serde::{Deserialize, Serialize};

/// An answer that was handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Until when it is given again.
    pub until: Timestamp,
    /// What it is.
    pub numbers: Numbers,
}

/// Numbers, or what they come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Derived from the secret, with this salt.
    Salt(#[serde(with = "salt_text")] [u8; 16]),
    /// From another source.
    List(Vec<i32>),
}

impl Numbers {
    /// The numbers; `None` where these are of another range, which a damaged store may have.
    pub fn reveal(&self, secret: &Secret, key: &Key, range: Range) -> Option<Vec<i32>> {
        match self {
            Numbers::Salt(salt) => Some(secret.integers(key, salt, range)),
            Numbers::List(list) => {
                let fits = list.len() == usize::from(range.num)
                    && list.iter().all(|n| (range.min..=range.max).contains(n));
                fits.then(|| list.clone())
            }
        }
    }

    /// What they cost, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Numbers::Salt(_) => 16,
            Numbers::List(list) => 4 * list.len(),
        }
    }
}

impl Kept {
    /// As JSON in one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers always serialize")
    }

    /// What [`Kept::to_json`] gave.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

mod salt_text {
    use super::{hex, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(salt: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(salt))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        unhex(&text).ok_or_else(|| D::Error::custom("a salt is 32 hexadecimal digits"))
    }
}
