//! The values of `services.toml`, each a type that only exists when it is right: what is wrong
//! with one is found while the file is read, so that all of them are reported together.

use lockstep_plan::{IdleTimeouts, ServiceName, TableSize, Vip, Weight};
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// A value that is read from a string, or the sentence that says what is wrong and what is allowed.
pub trait FromText: Sized {
    /// What a value of another type is told.
    const WANTED: &str;

    fn from_text(text: &str) -> Result<Self, String>;
}

/// Reads a [`FromText`]. Not `#[serde(try_from)]`: an error that rises inside of the visitor gets
/// the span of the value, one that rises after it that of the whole list.
pub struct Text<T>(pub PhantomData<T>);

impl<T: FromText> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }
}

/// Has serde read types that are [`FromText`].
macro_rules! deserialize_from_text {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D>(deserializer: D) -> Result<Self, D::Error>
            where
                D: ::serde::Deserializer<'de>,
            {
                let text = $crate::services::values::Text(::std::marker::PhantomData);
                deserializer.deserialize_str(text)
            }
        }
    )+};
}
pub(crate) use deserialize_from_text;

deserialize_from_text!(Name, BackendName, VipText, Address, Seconds);

/// A service's name.
pub struct Name(pub ServiceName);

impl FromText for Name {
    const WANTED: &str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        ServiceName::new(text).map(Name).ok_or_else(|| {
            format!("{text:?} is not a name; use 1 to 253 letters, digits, `-`, `_`, `.` or `/`")
        })
    }
}

/// A backend's name. It stands in metrics, commands and terminals.
pub struct BackendName(pub String);

impl FromText for BackendName {
    const WANTED: &str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        // The characters of a service's name, and the colons of an IPv6 address.
        if ServiceName::new(&text.replace(':', "-")).is_some() {
            Ok(BackendName(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a name; use 1 to 253 letters, digits, `-`, `_`, `.`, `/` or `:`"
            ))
        }
    }
}

/// A VIP.
pub struct VipText(pub Vip);

impl FromText for VipText {
    const WANTED: &str = "a string such as \"203.0.113.10:80/tcp\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map(VipText)
            .map_err(|error| format!("{text:?} is not a VIP; {error}"))
    }
}

/// A backend's address.
pub struct Address(pub IpAddr);

impl FromText for Address {
    const WANTED: &str = "a string such as \"10.0.1.11\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map(Address).map_err(|_| {
            format!(
                "{text:?} is not an IP address; write one such as \"10.0.1.11\"; a port goes into `port`"
            )
        })
    }
}

/// A service's mode.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum FileMode {
    #[default]
    Tunnel,
    Nat,
    FullNat,
    Replicate,
}

impl FileMode {
    /// Its name in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            FileMode::Tunnel => "tunnel",
            FileMode::Nat => "nat",
            FileMode::FullNat => "full-nat",
            FileMode::Replicate => "replicate",
        }
    }
}

/// The port of a backend.
pub struct FilePort(pub NonZeroU16);

impl<'de> Deserialize<'de> for FilePort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (1, u32::from(u16::MAX));
        let wanted = format!("a whole number from {from} to {to}");
        let number = deserializer.deserialize_i64(Number { from, to, wanted })?;
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        Ok(FilePort(port.expect("Number keeps it in 1..=65535")))
    }
}

/// A backend's weight; 0 is a backend that is draining.
pub struct FileWeight(pub u16);

impl Default for FileWeight {
    fn default() -> Self {
        FileWeight(Weight::DEFAULT.get())
    }
}

impl<'de> Deserialize<'de> for FileWeight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = format!("a whole number from 1 to {}, or 0 to drain", Weight::MAX);
        let number = Number {
            from: 0,
            to: u32::from(Weight::MAX),
            wanted,
        };
        let weight = deserializer.deserialize_i64(number)?;
        Ok(FileWeight(
            u16::try_from(weight).expect("Number keeps it under Weight::MAX"),
        ))
    }
}

/// The size of a Maglev table.
pub struct Size(pub TableSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = (TableSize::MIN, TableSize::MAX);
        let wanted = format!("a prime from {from} to {to}");
        let size = deserializer.deserialize_i64(Number { from, to, wanted })?;
        TableSize::new(size).map(Size).ok_or_else(|| {
            de::Error::custom(format!(
                "{size} is not a prime; the nearest is {}",
                nearest_prime(size)
            ))
        })
    }
}

impl Size {
    /// From text, where there are no numbers: in annotations.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn from_text(text: &str) -> Result<TableSize, String> {
        let (from, to) = (TableSize::MIN, TableSize::MAX);
        let number = text.parse().ok().filter(|n| (from..=to).contains(n));
        let number = number.ok_or_else(|| {
            format!("{text:?} is no table size; it takes a prime from {from} to {to}")
        })?;
        TableSize::new(number).ok_or_else(|| {
            let nearest = nearest_prime(number);
            format!("{number} is not a prime; the nearest is {nearest}")
        })
    }
}

/// The table size nearest to one that is in the range but not a prime. Both ends of the range are
/// primes, so that there is one.
fn nearest_prime(size: u32) -> u32 {
    (1..=TableSize::MAX)
        .flat_map(|distance| [size.saturating_sub(distance), size + distance])
        .find_map(TableSize::new)
        .unwrap_or(TableSize::DEFAULT)
        .get()
}

/// The idle times that a service names.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    tcp_syn: Option<Seconds>,
    tcp_established: Option<Seconds>,
    tcp_fin: Option<Seconds>,
    udp: Option<Seconds>,
}

impl Idle {
    /// The times named, and the defaults of those that are not.
    pub fn to_plan(&self) -> IdleTimeouts {
        let or = |named: &Option<Seconds>, default| named.as_ref().map_or(default, |s| s.0);
        let defaults = IdleTimeouts::DEFAULT;
        IdleTimeouts {
            tcp_syn: or(&self.tcp_syn, defaults.tcp_syn),
            tcp_established: or(&self.tcp_established, defaults.tcp_established),
            tcp_fin: or(&self.tcp_fin, defaults.tcp_fin),
            udp: or(&self.udp, defaults.udp),
        }
    }
}

/// An idle time, in whole seconds.
struct Seconds(u32);

impl FromText for Seconds {
    const WANTED: &str = "a string such as \"60s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let duration = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let whole = duration.subsec_millis() == 0;
        if whole && (1..=IdleTimeouts::MAX).contains(&seconds) {
            Ok(Seconds(seconds))
        } else {
            Err(format!(
                "{text:?} is out of range; an idle time is from \"1s\" to \"12h\", in whole seconds"
            ))
        }
    }
}

/// Reads a whole number in a range, and says the range where it is another one.
pub struct Number {
    pub from: u32,
    pub to: u32,
    pub wanted: String,
}

impl Visitor<'_> for Number {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wanted)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u32, E> {
        u32::try_from(number)
            .ok()
            .filter(|n| (self.from..=self.to).contains(n))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }
}
