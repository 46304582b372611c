//! `[service.replicate]`: the policy of replicated sessions as an operator writes it.

use super::bytes;
use super::values::{FromText, Number, Text, deserialize_from_text};
use lockstep_plan::mask::{Mask, Pattern, PatternError};
use lockstep_plan::{Commit, Divergence, Grouping, Replicate};
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU8;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;

/// The keys that a service names.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct FileReplicate {
    commit: Option<Spanned<FileCommit>>,
    min_sync: Option<Spanned<Replicas>>,
    open_timeout: Option<Time>,
    stall_timeout: Option<Time>,
    dead_after: Option<Time>,
    fin_timeout: Option<Time>,
    orphan_timeout: Option<Time>,
    max_lag: Option<Bytes<1, GIB>>,
    grace: Option<Time>,
    lag_timeout: Option<Time>,
    divergence: Option<FileDivergence>,
    #[serde(default)]
    masks: Vec<Spanned<FileMask>>,
    group: Option<FileGrouping>,
    proxy_protocol: Option<bool>,
    rejoin: Option<bool>,
    log_memory: Option<Bytes<CHUNK, GIB>>,
    log_disk: Option<Bytes<0, TIB>>,
    keepalive: Option<Time>,
    client_timeout: Option<Time>,
}

/// The smallest piece of memory that a log takes.
const CHUNK: u64 = 4 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl FileReplicate {
    /// The policy: what is named, and the defaults of what is not. Masks that are none
    /// ([`FileMask::problem`]) are left out.
    pub fn to_plan(&self) -> Replicate {
        let time = |named: &Option<Time>, default| named.as_ref().map_or(default, |t| t.0);
        let defaults = Replicate::DEFAULT;
        let commit = self.commit.as_ref();
        let mut policy = Replicate {
            commit: commit.map_or(defaults.commit, |c| c.get_ref().0),
            min_sync: defaults.min_sync,
            open_timeout: time(&self.open_timeout, defaults.open_timeout),
            stall_timeout: time(&self.stall_timeout, defaults.stall_timeout),
            dead_after: time(&self.dead_after, defaults.dead_after),
            fin_timeout: time(&self.fin_timeout, defaults.fin_timeout),
            orphan_timeout: time(&self.orphan_timeout, defaults.orphan_timeout),
            max_lag: self.max_lag.as_ref().map_or(defaults.max_lag, Bytes::small),
            grace: time(&self.grace, defaults.grace),
            lag_timeout: time(&self.lag_timeout, defaults.lag_timeout),
            divergence: self.divergence.map_or(defaults.divergence, Into::into),
            masks: self.masks().filter_map(|(_, m)| m.to_plan()).collect(),
            group: self.group.map_or(defaults.group, Into::into),
            proxy_protocol: self.proxy_protocol.unwrap_or(defaults.proxy_protocol),
            rejoin: self.rejoin.unwrap_or(defaults.rejoin),
            log_memory: self
                .log_memory
                .as_ref()
                .map_or(defaults.log_memory, Bytes::small),
            log_disk: self.log_disk.as_ref().map_or(defaults.log_disk, |b| b.0),
            keepalive: time(&self.keepalive, defaults.keepalive),
            client_timeout: time(&self.client_timeout, defaults.client_timeout),
        };
        let quorum = NonZeroU8::new(policy.quorum()).unwrap_or(NonZeroU8::MIN);
        policy.min_sync = match &self.min_sync {
            Some(named) => named.get_ref().0,
            None => defaults.min_sync.max(quorum),
        };
        policy
    }

    /// The masks, each with its place in the file.
    pub fn masks(&self) -> impl Iterator<Item = (Range<usize>, &FileMask)> {
        self.masks.iter().map(|m| (m.span(), m.get_ref()))
    }

    /// Where `commit` stands.
    pub fn commit_span(&self) -> Option<Range<usize>> {
        self.commit.as_ref().map(Spanned::span)
    }

    /// Where `min_sync` stands.
    pub fn min_sync_span(&self) -> Option<Range<usize>> {
        self.min_sync.as_ref().map(Spanned::span)
    }
}

/// Whose bytes the client gets.
struct FileCommit(Commit);

impl<'de> Deserialize<'de> for FileCommit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommitVisitor)
    }
}

struct CommitVisitor;

impl<'de> Visitor<'de> for CommitVisitor {
    type Value = FileCommit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"primary\" or { quorum = 2 }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FileCommit, E> {
        match text {
            "primary" => Ok(FileCommit(Commit::Primary)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileCommit, A::Error> {
        let quorum = FileQuorum::deserialize(MapAccessDeserializer::new(map))?.quorum;
        Ok(FileCommit(Commit::Quorum(quorum.0)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileQuorum {
    quorum: Replicas,
}

/// A number of replicas.
struct Replicas(NonZeroU8);

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (1, u32::from(u8::MAX));
        let wanted = format!("a whole number from {from} to {to}");
        let number = deserializer.deserialize_i64(Number { from, to, wanted })?;
        let replicas = u8::try_from(number).ok().and_then(NonZeroU8::new);
        Ok(Replicas(replicas.expect("Number keeps it in 1..=255")))
    }
}

/// A time of the policy, in whole milliseconds.
struct Time(Duration);

impl Time {
    const FROM: Duration = Duration::from_millis(1);
    const TO: Duration = Duration::from_secs(12 * 60 * 60);
}

impl FromText for Time {
    const WANTED: &str = "a string such as \"500ms\" or \"3s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        if (Time::FROM..=Time::TO).contains(&time) {
            Ok(Time(time))
        } else {
            let (from, to) = (duration::format(Time::FROM), duration::format(Time::TO));
            Err(format!(
                "{text:?} is out of range; it is from {from:?} to {to:?}"
            ))
        }
    }
}

deserialize_from_text!(Time);

/// An amount of memory in a range.
struct Bytes<const FROM: u64, const TO: u64>(u64);

impl<const FROM: u64, const TO: u64> Bytes<FROM, TO> {
    /// One that ends below 2^32.
    fn small(&self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<const FROM: u64, const TO: u64> FromText for Bytes<FROM, TO> {
    const WANTED: &str = "a string such as \"64KiB\" or \"1MiB\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let bytes = bytes::parse(text).ok_or_else(|| {
            let allowed = bytes::ALLOWED;
            format!("{text:?} is not an amount of memory; write {allowed}")
        })?;
        if (FROM..=TO).contains(&bytes) {
            Ok(Bytes(bytes))
        } else {
            let (from, to) = (bytes::format(FROM), bytes::format(TO));
            Err(format!(
                "{text:?} is out of range; it is from {from:?} to {to:?}"
            ))
        }
    }
}

impl<'de, const FROM: u64, const TO: u64> Deserialize<'de> for Bytes<FROM, TO> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

/// What follows a difference.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FileDivergence {
    Ignore,
    Count,
    Evict,
    Reset,
}

impl From<FileDivergence> for Divergence {
    fn from(divergence: FileDivergence) -> Self {
        match divergence {
            FileDivergence::Ignore => Divergence::Ignore,
            FileDivergence::Count => Divergence::Count,
            FileDivergence::Evict => Divergence::Evict,
            FileDivergence::Reset => Divergence::Reset,
        }
    }
}

/// Which connections are one session.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FileGrouping {
    Connection,
    Client,
}

impl From<FileGrouping> for Grouping {
    fn from(group: FileGrouping) -> Self {
        match group {
            FileGrouping::Connection => Grouping::Connection,
            FileGrouping::Client => Grouping::Client,
        }
    }
}

/// What is left out of comparisons: a range of bytes, or what follows a pattern's beginning.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMask {
    offset: Option<u64>,
    length: Option<Length>,
    pattern: Option<FilePattern>,
}

impl FileMask {
    fn to_plan(&self) -> Option<Mask> {
        match (self.offset, &self.length, &self.pattern) {
            (Some(offset), Some(length), None) => Some(Mask::Range {
                offset,
                length: length.0,
            }),
            (None, None, Some(pattern)) => Some(Mask::Pattern(pattern.0.clone())),
            _ => None,
        }
    }

    /// Why it is no mask: its keys do not go together.
    pub fn problem(&self) -> Option<&'static str> {
        match (self.offset, &self.length, &self.pattern) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => None,
            (None, None, None) => Some("a mask without keys masks nothing"),
            (Some(_), None, None) => Some("a mask with an `offset` needs a `length`"),
            (None, Some(_), None) => Some("a mask with a `length` needs an `offset`"),
            (_, _, Some(_)) => Some("a mask is a range or a pattern, not both"),
        }
    }
}

/// The length of a range.
struct Length(u32);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (1, u32::MAX);
        let wanted = format!("a whole number from {from} to {to}");
        deserializer
            .deserialize_i64(Number { from, to, wanted })
            .map(Length)
    }
}

/// A pattern of a mask.
struct FilePattern(Pattern);

impl FromText for FilePattern {
    const WANTED: &str = "a string such as 'Date: [^\\r]*'";

    fn from_text(text: &str) -> Result<Self, String> {
        Pattern::new(text).map(FilePattern).map_err(|error| {
            match &error {
                // It draws an arrow under the pattern, over several lines; the last one has words.
                PatternError::Syntax(drawn) => {
                    let said = drawn.lines().last().unwrap_or_default();
                    let said = said.strip_prefix("error: ").unwrap_or(said);
                    format!("{text:?} is not a regular expression: {said}")
                }
                _ => format!("{text:?}: {error}"),
            }
        })
    }
}

deserialize_from_text!(FilePattern);

#[cfg(test)]
mod tests;
