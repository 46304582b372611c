//! `bfd` of a `[[bgp.peer]]`: whether, and how, silence of the peer is noticed at once.

use crate::bfd::Settings;
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::time::Duration;

/// `bfd = true`, `bfd = false` or `bfd = { tx = "300ms", rx = "300ms", multiplier = 3 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawBfd(
    /// `None` where there is no BFD.
    pub Option<Settings>,
);

impl<'de> Deserialize<'de> for RawBfd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoolOrKeys)
    }
}

struct BoolOrKeys;

impl<'de> Visitor<'de> for BoolOrKeys {
    type Value = RawBfd;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or { tx = \"300ms\", rx = \"300ms\", multiplier = 3 }")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<RawBfd, E> {
        Ok(RawBfd(on.then(Settings::default)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawBfd, A::Error> {
        let keys = Keys::deserialize(MapAccessDeserializer::new(map))?;
        let defaults = Settings::default();
        Ok(RawBfd(Some(Settings {
            transmit: keys.tx.map_or(defaults.transmit, |Interval(t)| t),
            receive: keys.rx.map_or(defaults.receive, |Interval(t)| t),
            multiplier: keys
                .multiplier
                .map_or(defaults.multiplier, |Multiplier(n)| n),
            ..defaults
        })))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    tx: Option<Interval>,
    rx: Option<Interval>,
    multiplier: Option<Multiplier>,
}

/// A time between two packets. Under the least one, a daemon on a busy host would be late.
struct Interval(Duration);

impl Interval {
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(60);
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Interval;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string such as \"300ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Interval, E> {
                let time = duration::parse(text)
                    .map_err(|error| E::custom(format!("{text:?} is not a duration; {error}")))?;
                if (Interval::LEAST..=Interval::MOST).contains(&time) {
                    return Ok(Interval(time));
                }
                Err(E::custom(format!(
                    "{text:?} is out of range; the time between two packets is from {:?} to {:?}",
                    duration::format(Interval::LEAST),
                    duration::format(Interval::MOST),
                )))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// How many packets must be missing. One would take every lost packet for a failure.
struct Multiplier(u8);

impl<'de> Deserialize<'de> for Multiplier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Multiplier;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 2 to 50")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Multiplier, E> {
                u8::try_from(number)
                    .ok()
                    .filter(|n| (2..=50).contains(n))
                    .map(Multiplier)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_i64(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_topology::diagnostics::from_toml;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Peer {
        #[serde(default)]
        bfd: RawBfd,
    }

    fn read(text: &str) -> Result<Option<Settings>, String> {
        from_toml("lockstepd.toml", text)
            .map(
                |Peer {
                     bfd: RawBfd(settings),
                 }| settings,
            )
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn bfd_is_on_off_or_a_table_of_times() {
        let ms = Duration::from_millis;
        let all = Settings {
            local: None,
            transmit: ms(50),
            receive: ms(100),
            multiplier: 5,
        };
        for (text, settings) in [
            ("", None),
            ("bfd = false", None),
            ("bfd = true", Some(Settings::default())),
            ("bfd = {}", Some(Settings::default())),
            (
                "bfd = { tx = \"50ms\", rx = \"100ms\", multiplier = 5 }",
                Some(all),
            ),
            (
                "bfd = { multiplier = 2 }",
                Some(Settings {
                    multiplier: 2,
                    ..Settings::default()
                }),
            ),
        ] {
            assert_eq!(read(text), Ok(settings), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_at_its_place_and_all_at_once() {
        for (text, lines) in [
            (
                "bfd = 3",
                &["lockstepd.toml:1:7: `bfd` cannot be `3`; it takes true, false or {"][..],
            ),
            (
                "bfd = { tx = \"1ms\", rx = \"soon\", multiplier = 1, rate = 2 }",
                &[
                    "lockstepd.toml:1:14: `tx`: \"1ms\" is out of range; the time between two \
                     packets is from \"10ms\" to \"1m\"",
                    "lockstepd.toml:1:26: `rx`: \"soon\" is not a duration;",
                    "lockstepd.toml:1:47: `multiplier` cannot be `1`; it takes a whole number \
                     from 2 to 50",
                    "lockstepd.toml:1:50: unknown key `rate`",
                ],
            ),
        ] {
            let errors = read(text).unwrap_err();
            for line in lines {
                assert!(errors.contains(line), "{line}\nis not in\n{errors}");
            }
        }
    }
}
