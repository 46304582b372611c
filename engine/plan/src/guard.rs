//! Guards: whom a service serves, and how much of it.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU32;
use core::str::FromStr;

/// An address prefix, written `192.0.2.0/24` or `2001:db8::/32`; a bare address is one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// Not of the form `ADDRESS/LENGTH`.
    #[error("a prefix is written ADDRESS/LENGTH, such as 192.0.2.0/24 or 2001:db8::/32")]
    Form,
    /// Longer than an address of its version.
    #[error("a prefix of {version} has a length of 0 to {most}, and {length} is more")]
    Length {
        /// What was given.
        length: u32,
        /// The bits of an address.
        most: u8,
        /// The IP version.
        version: &'static str,
    },
    /// The address has bits behind the prefix.
    #[error("{0} has bits set behind its length; {1} is meant?")]
    HostBits(Prefix, Prefix),
}

impl Prefix {
    /// A prefix; refused when the length is longer than the address, or the address has bits
    /// behind it.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, ParsePrefixError> {
        let (most, version) = bits(address);
        if length > most {
            let length = length.into();
            return Err(ParsePrefixError::Length {
                length,
                most,
                version,
            });
        }
        let (given, meant) = (
            Prefix { address, length },
            Prefix {
                address: masked(address, length),
                length,
            },
        );
        if given == meant {
            Ok(given)
        } else {
            Err(ParsePrefixError::HostBits(given, meant))
        }
    }

    /// Its first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }
}

/// Bits of an address, and its version's name.
const fn bits(address: IpAddr) -> (u8, &'static str) {
    match address {
        IpAddr::V4(_) => (32, "IPv4"),
        IpAddr::V6(_) => (128, "IPv6"),
    }
}

/// The first `length` bits of an address.
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParsePrefixError::Form)?;
        let (most, version) = bits(address);
        let Some(length) = length else {
            return Prefix::new(address, most);
        };
        let length: u32 = length.parse().map_err(|_| ParsePrefixError::Form)?;
        let fits = u8::try_from(length).map_err(|_| ParsePrefixError::Length {
            length,
            most,
            version,
        });
        Prefix::new(address, fits?)
    }
}

/// How much a source prefix may have of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRate {
    /// New flows a second of each prefix.
    pub new_flows: NonZeroU32,
    /// Bits of an IPv4 client's address that make its prefix.
    pub prefix_v4: u8,
    /// Likewise over IPv6.
    pub prefix_v6: u8,
}

/// Whom a service serves, and how much of it. The default is everybody, without limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// Where it is not empty, only clients in one of these are served.
    pub allow: Vec<Prefix>,
    /// Clients in one of these are not, unless a longer prefix of `allow` has them.
    pub deny: Vec<Prefix>,
    /// New flows a second, over the whole engine.
    pub new_flows: Option<NonZeroU32>,
    /// Packets from clients a second, over the whole engine.
    pub packets: Option<NonZeroU32>,
    /// New flows a second of each source prefix.
    pub source: Option<SourceRate>,
}

impl Guard {
    /// Whether everybody is served, without limits.
    pub fn is_open(&self) -> bool {
        *self == Guard::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_prefix_reads_back_what_it_prints() {
        for text in [
            "192.0.2.0/24",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::/0",
            "192.0.2.1/32",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<Prefix>().unwrap().length(), 32);
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_the_one_that_is_meant() {
        let error = "192.0.2.1/24".parse::<Prefix>().unwrap_err();
        assert!(error.to_string().contains("192.0.2.0/24"), "{error}");
        for text in ["192.0.2.0/33", "192.0.2.0/300", "2001:db8::/129"] {
            let error = text.parse::<Prefix>();
            assert!(
                matches!(error, Err(ParsePrefixError::Length { .. })),
                "{text}"
            );
        }
        for text in ["x/8", "192.0.2.0/", "192.0.2.0/-1"] {
            assert_eq!(
                text.parse::<Prefix>(),
                Err(ParsePrefixError::Form),
                "{text}"
            );
        }
    }

    #[test]
    fn a_prefix_has_its_addresses_and_no_others() {
        let prefix: Prefix = "192.0.2.128/25".parse().unwrap();
        assert!(prefix.contains([192, 0, 2, 200].into()));
        assert!(!prefix.contains([192, 0, 2, 1].into()));
        assert!(!prefix.contains("::c000:2c8".parse().unwrap()));
        assert!(
            "::/0"
                .parse::<Prefix>()
                .unwrap()
                .contains("2001:db8::1".parse().unwrap())
        );
    }
}
