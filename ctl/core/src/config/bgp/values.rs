//! The values of `[bgp]`, each a type that only exists when it is right.

use super::{MAX_PASSWORD, Secret};
use crate::bgp::Family;
use crate::bgp::open::MAX_RESTART_TIME;
use crate::bgp::routes::{Community, WELL_KNOWN};
use crate::services::values::{FromText, Number, deserialize_from_text};
use ipnet::IpNet;
use lockstep_topology::duration;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

deserialize_from_text!(
    Address,
    RouterId,
    HoldTime,
    Prefix,
    CommunityText,
    FamilyText,
    SecretText
);

macro_rules! number {
    ($($type:ident, $from:expr, $to:expr, $what:literal, $make:expr;)+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let (from, to) = ($from, $to);
                let wanted = format!(concat!("a whole number from {} to {}", $what), from, to);
                let number = deserializer.deserialize_i64(Number { from, to, wanted })?;
                let make: fn(u32) -> Option<$type> = $make;
                make(number).ok_or_else(|| de::Error::custom("out of range"))
            }
        }
    )+};
}

/// An AS number.
pub struct AsNumber(pub u32);
/// A port.
pub struct Port(pub u16);
/// How often our AS stands in the path again. Longer paths are refused by many.
pub struct Prepend(pub u8);
/// How many hops away a router may be.
pub struct Hops(pub NonZeroU8);

const MAX_PREPEND: u32 = 32;

number! {
    AsNumber, 1, u32::MAX, ", the number of an AS", |n| Some(AsNumber(n));
    Port, 1, u32::from(u16::MAX), "", |n| u16::try_from(n).ok().map(Port);
    Prepend, 0, MAX_PREPEND, "", |n| u8::try_from(n).ok().map(Prepend);
    Hops, 1, u32::from(u8::MAX), "", |n| NonZeroU8::new(u8::try_from(n).ok()?).map(Hops);
}

/// A router's address, or one of ours.
pub struct Address(pub IpAddr);

impl FromText for Address {
    const WANTED: &str = "a string such as \"10.0.0.254\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let address: IpAddr = text.parse().map_err(|_| {
            format!("{text:?} is not an IP address; write one such as \"10.0.0.254\"")
        })?;
        let usable = match address {
            IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
            // A link-local one says nothing without its interface.
            IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unicast_link_local(),
        };
        match usable && !address.is_unspecified() {
            true => Ok(Address(address)),
            false => Err(format!(
                "{text:?} is no address of one host; a global or private unicast address is one"
            )),
        }
    }
}

/// Our router id.
pub struct RouterId(pub Ipv4Addr);

impl FromText for RouterId {
    const WANTED: &str = "a string such as \"10.0.0.1\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let id: Option<Ipv4Addr> = text.parse().ok();
        id.filter(|id| !id.is_unspecified())
            .map(RouterId)
            .ok_or_else(|| {
                format!("{text:?} is not a router id; write an IPv4 address such as \"10.0.0.1\"")
            })
    }
}

/// A hold time in seconds; 0 for none.
pub struct HoldTime(pub u16);

impl FromText for HoldTime {
    const WANTED: &str = "a string such as \"9s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text).map_err(|e| format!("{text:?} is no hold time; {e}"))?;
        match u16::try_from(time.as_secs()) {
            Ok(seconds @ (0 | 3..)) if time.subsec_millis() == 0 => Ok(HoldTime(seconds)),
            _ => Err(format!(
                "{text:?} is out of range; a hold time is \"0s\" for none, or at least \"3s\", in whole seconds"
            )),
        }
    }
}

/// A restart time in seconds, or `false`.
pub struct RestartTime(pub Option<u16>);

impl<'de> Deserialize<'de> for RestartTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeOrFalse;

        impl Visitor<'_> for TimeOrFalse {
            type Value = RestartTime;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string such as \"120s\", or false")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<RestartTime, E> {
                match on {
                    false => Ok(RestartTime(None)),
                    true => Err(E::invalid_value(de::Unexpected::Bool(on), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RestartTime, E> {
                let time =
                    duration::parse(text).map_err(|e| E::custom(format!("{text:?}: {e}")))?;
                match u16::try_from(time.as_secs()) {
                    Ok(seconds @ 1..=MAX_RESTART_TIME) if time.subsec_millis() == 0 => {
                        Ok(RestartTime(Some(seconds)))
                    }
                    _ => Err(E::custom(format!(
                        "{text:?} is out of range; from \"1s\" to \"{MAX_RESTART_TIME}s\", in whole seconds"
                    ))),
                }
            }
        }

        deserializer.deserialize_any(TimeOrFalse)
    }
}

/// A prefix.
pub struct Prefix(pub IpNet);

impl FromText for Prefix {
    const WANTED: &str = "a string such as \"203.0.113.0/24\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Prefix)
            .map_err(|_| format!("{text:?} is not a prefix; write one such as \"203.0.113.0/24\""))
    }
}

/// A community.
pub struct CommunityText(pub Community);

impl FromText for CommunityText {
    const WANTED: &str = "a string such as \"64512:100\"";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map(CommunityText).map_err(|()| {
            let names = WELL_KNOWN.map(|(name, _)| name).join(", ");
            format!(
                "{text:?} is not a community; \"64512:100\", \"4200000000:1:2\", \"rt:64512:100\", \"soo:64512:100\", or one of {names}"
            )
        })
    }
}

/// A family.
pub struct FamilyText(pub Family);

impl FromText for FamilyText {
    const WANTED: &str = "\"ipv4\" or \"ipv6\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let known = Family::ALL.into_iter().find(|f| f.name() == text);
        known
            .map(FamilyText)
            .ok_or_else(|| format!("{text:?} is not a family; allowed: ipv4, ipv6"))
    }
}

/// A password. What is wrong with one is said without it.
pub struct SecretText(pub Secret);

impl FromText for SecretText {
    const WANTED: &str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        match (1..=MAX_PASSWORD).contains(&text.len()) {
            true => Ok(SecretText(Secret(text.to_owned()))),
            false => Err(format!(
                "this password has {} bytes; TCP-MD5 takes 1 to {MAX_PASSWORD}",
                text.len()
            )),
        }
    }
}

/// Next hops: an address, or one of each family.
#[derive(Default)]
pub struct NextHops {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl NextHops {
    fn add<E: de::Error>(&mut self, Address(address): Address) -> Result<(), E> {
        let there = match address {
            IpAddr::V4(v4) => self.v4.replace(v4).is_some(),
            IpAddr::V6(v6) => self.v6.replace(v6).is_some(),
        };
        match there {
            false => Ok(()),
            true => Err(E::custom(
                "two next hops of one family; a route has one, at most one IPv4 and one IPv6 address are allowed",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for NextHops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrTwo;

        impl<'de> Visitor<'de> for OneOrTwo {
            type Value = NextHops;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"10.0.0.1\", or a list with one of each family")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NextHops, E> {
                let mut hops = NextHops::default();
                hops.add(Address::from_text(text).map_err(E::custom)?)?;
                Ok(hops)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<NextHops, A::Error> {
                let mut hops = NextHops::default();
                while let Some(address) = all.next_element()? {
                    hops.add(address)?;
                }
                Ok(hops)
            }
        }

        deserializer.deserialize_any(OneOrTwo)
    }
}
