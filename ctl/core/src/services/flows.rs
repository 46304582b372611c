//! How a service's new flows are spread, delivered and limited, as an operator writes it.

use super::values::{FromText, Number, deserialize_from_text};
use crate::spread::Priority;
use lockstep_plan::{Prefix, Scheduler, SourceRate};
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::Deserializer;
use std::num::NonZeroU32;
use std::time::Duration;

/// What a tunnel is made of.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FileEncapsulation {
    Ipip,
    Gue,
}

/// How a backend is chosen.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FileScheduler {
    Maglev,
    Wrr,
    Wlc,
    SourceHash,
    Random,
}

impl FileScheduler {
    /// The plan's.
    pub const fn to_plan(self) -> Scheduler {
        match self {
            FileScheduler::Maglev => Scheduler::Maglev,
            FileScheduler::Wrr => Scheduler::RoundRobin,
            FileScheduler::Wlc => Scheduler::LeastConnections,
            FileScheduler::SourceHash => Scheduler::SourceHash,
            FileScheduler::Random => Scheduler::Random,
        }
    }
}

/// Whose flows stay together.
#[derive(Clone, Copy)]
pub enum FileSticky {
    Client,
}

impl FromText for FileSticky {
    const WANTED: &str = "\"client\": all flows of a client go to one backend";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(FileSticky::Client),
            _ => Err(format!("{text:?} is not known; it is \"client\"")),
        }
    }
}

/// How long a new backend takes to its full share.
pub struct SlowStart(pub Duration);

impl SlowStart {
    const FROM: Duration = Duration::from_secs(1);
    const TO: Duration = Duration::from_secs(12 * 60 * 60);
}

impl FromText for SlowStart {
    const WANTED: &str = "a string such as \"30s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {}", advice(text, &error)))?;
        if (SlowStart::FROM..=SlowStart::TO).contains(&time) {
            Ok(SlowStart(time))
        } else {
            let (from, to) = (
                duration::format(SlowStart::FROM),
                duration::format(SlowStart::TO),
            );
            Err(format!(
                "{text:?} is out of range; it is from {from:?} to {to:?}"
            ))
        }
    }
}

/// A number without its unit is most likely one of seconds.
fn advice(text: &str, error: &impl ToString) -> String {
    match text.parse::<u32>() {
        Ok(seconds) => format!("did you mean \"{seconds}s\"?"),
        Err(_) => error.to_string(),
    }
}

/// A prefix of clients' addresses.
pub struct PrefixText(pub Prefix);

impl FromText for PrefixText {
    const WANTED: &str = "a string such as \"192.0.2.0/24\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map(PrefixText)
            .map_err(|error| format!("{text:?} is not a prefix; {error}"))
    }
}

deserialize_from_text!(FileSticky, SlowStart, PrefixText);

/// A whole number in a range.
struct Whole<const FROM: u32, const TO: u32>(u32);

impl<'de, const FROM: u32, const TO: u32> Deserialize<'de> for Whole<FROM, TO> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (FROM, TO);
        let wanted = format!("a whole number from {from} to {to}");
        deserializer
            .deserialize_i64(Number { from, to, wanted })
            .map(Whole)
    }
}

/// The tier of a backend.
pub struct FilePriority(pub Priority);

impl<'de> Deserialize<'de> for FilePriority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(number) = Whole::<0, { Priority::MAX as u32 }>::deserialize(deserializer)?;
        let priority = u8::try_from(number).ok().and_then(Priority::new);
        Ok(FilePriority(
            priority.expect("Whole keeps it up to Priority::MAX"),
        ))
    }
}

/// Events a second.
type PerSecond = Whole<1, { u32::MAX }>;

/// What a service takes a second.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    new_flows: Option<PerSecond>,
    packets: Option<PerSecond>,
}

impl Rate {
    /// New flows a second.
    pub fn new_flows(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.new_flows.as_ref()?.0)
    }

    /// Packets a second.
    pub fn packets(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.packets.as_ref()?.0)
    }
}

/// What a prefix of clients gets of a service a second.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLimit {
    new_flows: PerSecond,
    prefix_ipv4: Option<Whole<1, 32>>,
    prefix_ipv6: Option<Whole<1, 128>>,
}

impl SourceLimit {
    /// The network that a site usually gets.
    const PREFIX_V4: u8 = 24;
    /// The network that a household usually gets (RIPE 690, section 4.2).
    const PREFIX_V6: u8 = 56;

    /// The limit: what is named, and the defaults of what is not.
    pub fn to_plan(&self) -> SourceRate {
        let length = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        SourceRate {
            new_flows: NonZeroU32::new(self.new_flows.0).unwrap_or(NonZeroU32::MIN),
            prefix_v4: self
                .prefix_ipv4
                .as_ref()
                .map_or(Self::PREFIX_V4, |p| length(p.0)),
            prefix_v6: self
                .prefix_ipv6
                .as_ref()
                .map_or(Self::PREFIX_V6, |p| length(p.0)),
        }
    }
}
