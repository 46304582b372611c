//! Ranges of addresses of one family.

use ipnet::IpNet;
use lockstep_kubernetes::facts::Family;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What can be no VIP, because no client reaches it across a network.
const NOBODYS: [(&str, &str); 7] = [
    ("0.0.0.0/32", "the unspecified address"),
    ("127.0.0.0/8", "loopback addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/127", "the unspecified and the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses written as IPv6"),
    ("ff00::/8", "multicast addresses"),
];

/// See the module. The last address is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

/// The family of an address.
pub fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// Whether some networks drop an address: it looks like that of a network, or a broadcast.
pub fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

impl Range {
    fn new(first: IpAddr, last: IpAddr) -> Self {
        Range {
            family: family(first),
            first: number(first),
            last: number(last),
        }
    }

    /// Of which family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        family(address) == self.family && self.first <= number && number <= self.last
    }

    /// How many addresses, as far as that can be counted.
    pub const fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// How many of them some networks drop.
    pub fn buggy(&self) -> u128 {
        let until = |end: u128| end / 256 * 2 + u128::from(!end.is_multiple_of(256));
        match self.family {
            Family::V4 => until(self.last + 1) - until(self.first),
            Family::V6 => 0,
        }
    }

    /// The addresses from a number on, up to the last one.
    pub(in crate::kubernetes) fn from(self, at: u128) -> impl Iterator<Item = (u128, IpAddr)> {
        let numbers = self.first.max(at)..=self.last;
        numbers.map(move |number| (number, address(self.family, number)))
    }

    pub(super) fn meets(&self, other: &Range) -> bool {
        self.both(other).is_some()
    }

    pub(super) fn both(&self, other: &Range) -> Option<Range> {
        let range = Range {
            family: self.family,
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        (self.family == other.family && range.first <= range.last).then_some(range)
    }
}

/// The same addresses, ascending, no two ranges touching each other.
pub fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut found: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match found.last_mut() {
            Some(last)
                if last.family == range.family && range.first <= last.last.saturating_add(1) =>
            {
                last.last = last.last.max(range.last);
            }
            _ => found.push(range),
        }
    }
    found
}

/// What is left of ranges. Both are [`joined`].
pub fn without(ranges: &[Range], gone: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for range in ranges {
        let mut rest = Some(*range);
        for hole in gone.iter().filter_map(|hole| hole.both(range)) {
            let Some(now) = rest else { break };
            if now.first < hole.first {
                left.push(Range {
                    last: hole.first - 1,
                    ..now
                });
            }
            rest = (hole.last < now.last).then(|| Range {
                first: hole.last + 1,
                ..now
            });
        }
        left.extend(rest);
    }
    left
}

/// Whether an address is in one of them. They are [`joined`].
pub fn contain(ranges: &[Range], address: IpAddr) -> bool {
    let (family, number) = (family(address), number(address));
    let after = ranges.partition_point(|range| (range.family, range.first) <= (family, number));
    let found = after.checked_sub(1).map(|at| &ranges[at]);
    found.is_some_and(|range| range.contains(address))
}

impl FromStr for Range {
    type Err = String;

    /// A CIDR, a range or an address; what is wrong says what to write.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let range = read(text)?;
        for (prefix, what) in NOBODYS {
            let prefix: IpNet = prefix.parse().expect("they are prefixes");
            if range.meets(&Range::new(prefix.network(), prefix.broadcast())) {
                return Err(format!(
                    "{text:?} has {what} ({prefix}); leave those out of it"
                ));
            }
        }
        Ok(range)
    }
}

fn read(text: &str) -> Result<Range, String> {
    let unreadable = || {
        format!(
            "{text:?} is no address, CIDR or range; write one such as \"192.0.2.0/28\", \
             \"192.0.2.10-192.0.2.20\" or \"2001:db8::10\""
        )
    };
    if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| unreadable())?;
        if net.trunc() != net {
            let trunc = net.trunc();
            return Err(format!(
                "{text:?} has bits set after its length; write {trunc}, or the one address alone"
            ));
        }
        return Ok(Range::new(net.network(), net.broadcast()));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let one = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| unreadable());
    let (first, last) = (one(first)?, one(last)?);
    if family(first) != family(last) {
        return Err(format!(
            "{text:?} begins with one family and ends with the other; write two ranges"
        ));
    }
    if first > last {
        return Err(format!(
            "{text:?} ends before it begins; write {last}-{first}"
        ));
    }
    Ok(Range::new(first, last))
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.last());
        let bits = match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let size = self.size();
        let aligned = size.is_power_of_two() && self.first.is_multiple_of(size);
        match size {
            1 => write!(f, "{first}"),
            _ if aligned => write!(f, "{first}/{}", bits - size.trailing_zeros()),
            _ => write!(f, "{first}-{last}"),
        }
    }
}
