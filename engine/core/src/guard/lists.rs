//! Allow and deny lists: the longest prefix of both decides.
//!
//! Only a yes or no is asked of them, so that they compile to the addresses at which the answer
//! changes, in order: an address is served when the number of changes up to it is even, or odd
//! where the answer for the lowest address is no. Nested prefixes cost nothing, 100,000 prefixes
//! are at most 200,000 numbers and 18 steps of a binary search.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::Prefix;

/// Compiled lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// The answer where no prefix has the address.
    others: bool,
    v4: Box<[u32]>,
    v6: Box<[u128]>,
}

/// A prefix as a range of numbers.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u128,
    last: u128,
    length: u8,
    serves: bool,
}

impl Lists {
    /// Compiles both lists. Without `allow` everybody is served whom `deny` does not have; with
    /// it, nobody else. Of a prefix in both, the denial counts.
    pub fn new(allow: &[Prefix], deny: &[Prefix]) -> Self {
        let others = allow.is_empty();
        let ranges = |v4: bool| {
            let of = move |list: &[Prefix], serves| -> Vec<Range> {
                let list = list.iter().filter(|p| p.address().is_ipv4() == v4);
                list.map(|prefix| Range::of(prefix, serves)).collect()
            };
            let mut ranges = of(allow, true);
            ranges.extend(of(deny, false));
            ranges
        };
        let v4 = flips(ranges(true), others, u128::from(u32::MAX));
        Lists {
            others,
            // Every flip is the first address of something within 32 bits.
            v4: v4.into_iter().map(|flip| flip as u32).collect(),
            v6: flips(ranges(false), others, u128::MAX).into(),
        }
    }

    /// Whether a client is served.
    #[inline]
    pub fn serves(&self, client: IpAddr) -> bool {
        let flips = match client {
            IpAddr::V4(v4) => {
                let address = v4.to_bits();
                self.v4.partition_point(|&flip| flip <= address)
            }
            IpAddr::V6(v6) => {
                let address = v6.to_bits();
                self.v6.partition_point(|&flip| flip <= address)
            }
        };
        self.others == (flips % 2 == 0)
    }

    /// Whether everybody is served.
    pub fn is_empty(&self) -> bool {
        self.others && self.v4.is_empty() && self.v6.is_empty()
    }
}

impl Range {
    fn of(prefix: &Prefix, serves: bool) -> Self {
        let (first, width) = match prefix.address() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let rest = width - u32::from(prefix.length());
        let hosts = 1_u128.checked_shl(rest).map_or(u128::MAX, |n| n - 1);
        Range {
            first,
            last: first | hosts,
            length: prefix.length(),
            serves,
        }
    }
}

/// The addresses up to `most` at which the answer changes; it begins as `others`.
fn flips(mut ranges: Vec<Range>, others: bool, most: u128) -> Vec<u128> {
    // Outer before inner, and of two alike the denial last: what comes later counts.
    ranges.sort_unstable_by_key(|r| (r.first, r.length, !r.serves));
    let mut answers: Vec<(u128, bool)> = Vec::new();
    let mut answer_from = |at: u128, serves: bool| match answers.last_mut() {
        Some(last) if last.0 == at => last.1 = serves,
        _ => answers.push((at, serves)),
    };
    // Prefixes that the address has come into and not yet left: each lies in the one before.
    let mut open: Vec<Range> = Vec::new();
    for range in ranges {
        leave(&mut open, others, Some(range.first), most, &mut answer_from);
        answer_from(range.first, range.serves);
        open.push(range);
    }
    leave(&mut open, others, None, most, &mut answer_from);
    let mut before = others;
    answers.retain(|&(_, serves)| core::mem::replace(&mut before, serves) != serves);
    answers.into_iter().map(|(at, _)| at).collect()
}

/// Closes the prefixes that end before `next`: behind each, the one around it answers again.
fn leave(
    open: &mut Vec<Range>,
    others: bool,
    next: Option<u128>,
    most: u128,
    answer_from: &mut impl FnMut(u128, bool),
) {
    while let Some(inner) = open.pop_if(|r| next.is_none_or(|next| r.last < next)) {
        if inner.last < most {
            let around = open.last().map_or(others, |r| r.serves);
            answer_from(inner.last + 1, around);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn prefixes(list: &[&str]) -> Vec<Prefix> {
        list.iter().map(|p| p.parse().unwrap()).collect()
    }

    fn lists(allow: &[&str], deny: &[&str]) -> Lists {
        Lists::new(&prefixes(allow), &prefixes(deny))
    }

    fn serves(lists: &Lists, client: &str) -> bool {
        lists.serves(client.parse().unwrap())
    }

    #[test]
    fn without_lists_everybody_is_served() {
        let open = lists(&[], &[]);
        assert!(open.is_empty());
        assert!(serves(&open, "192.0.2.1") && serves(&open, "2001:db8::1"));
    }

    #[test]
    fn who_is_allowed_is_served_and_nobody_else_over_either_version() {
        let some = lists(&["192.0.2.0/24"], &[]);
        assert!(serves(&some, "192.0.2.0") && serves(&some, "192.0.2.255"));
        assert!(!serves(&some, "192.0.1.255") && !serves(&some, "192.0.3.0"));
        assert!(!serves(&some, "2001:db8::1"));
    }

    #[test]
    fn the_longest_prefix_of_both_lists_decides() {
        let nested = lists(&["10.1.2.0/24"], &["10.1.0.0/16", "10.1.2.128/25"]);
        assert!(serves(&nested, "10.1.2.127"));
        assert!(!serves(&nested, "10.1.2.128"));
        assert!(!serves(&nested, "10.1.3.0"));
        let exception = lists(&["0.0.0.0/0", "10.0.0.7/32"], &["10.0.0.0/8"]);
        assert!(serves(&exception, "9.255.255.255") && serves(&exception, "10.0.0.7"));
        assert!(!serves(&exception, "10.0.0.8") && serves(&exception, "255.255.255.255"));
    }

    #[test]
    fn a_prefix_in_both_lists_is_denied() {
        assert!(!serves(
            &lists(&["10.0.0.0/8"], &["10.0.0.0/8"]),
            "10.0.0.1"
        ));
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses_too() {
        let ends = lists(
            &[],
            &["255.255.255.255/32", "0.0.0.0/32", "::/1", "8000::/1"],
        );
        assert!(!serves(&ends, "255.255.255.255") && !serves(&ends, "0.0.0.0"));
        assert!(serves(&ends, "255.255.255.254") && serves(&ends, "0.0.0.1"));
        assert!(!serves(&ends, "::") && !serves(&ends, "ffff::") && !serves(&ends, "7fff::"));
        assert!(!serves(&lists(&[], &["::/0"]), "2001:db8::1"));
    }

    #[test]
    fn neighbours_of_one_answer_are_one_range() {
        let halves = lists(&[], &["10.0.0.0/9", "10.128.0.0/9", "10.3.0.0/16"]);
        assert_eq!(halves.v4.len(), 2);
    }

    #[test]
    fn half_a_million_prefixes_compile_and_answer() {
        let deny: Vec<Prefix> = (0..500_000_u32)
            .map(|n| Prefix::new(Ipv4Addr::from_bits(n << 12).into(), 24).unwrap())
            .collect();
        let many = Lists::new(&[], &deny);
        for n in (0..500_000).step_by(997) {
            let inside = Ipv4Addr::from_bits((n << 12) + 255);
            let behind = Ipv4Addr::from_bits((n << 12) + 256);
            assert!(!many.serves(inside.into()) && many.serves(behind.into()));
        }
    }

    /// The longest prefix by looking at each.
    fn by_looking(allow: &[Prefix], deny: &[Prefix], client: IpAddr) -> bool {
        let longest = |list: &[Prefix]| {
            let having = list.iter().filter(|p| p.contains(client));
            having.map(|p| i32::from(p.length())).max().unwrap_or(-1)
        };
        match (longest(allow), longest(deny)) {
            (-1, -1) => allow.is_empty(),
            (allowed, denied) => allowed > denied,
        }
    }

    /// Prefixes near each other, so that they nest and touch, at both ends of the address space.
    fn prefix() -> impl Strategy<Value = Prefix> {
        let bits = (any::<bool>(), any::<bool>(), 0..256_u32, 0..=9_u8);
        bits.prop_map(|(v4, high, low, short)| {
            let address = near(v4, high, low);
            let length = if v4 { 32 } else { 128 } - short;
            Prefix::new(lockstep_plan::guard::masked(address, length), length).unwrap()
        })
    }

    fn near(v4: bool, high: bool, low: u32) -> IpAddr {
        let bits = if high { u32::MAX - low } else { low };
        if v4 {
            Ipv4Addr::from_bits(bits).into()
        } else {
            let high = if high { u128::MAX << 32 } else { 0 };
            Ipv6Addr::from_bits(high | u128::from(bits)).into()
        }
    }

    proptest! {
        #[test]
        fn compiled_lists_answer_as_looking_at_each_prefix_does(
            allow in prop_oneof![Just(vec![]), prop::collection::vec(prefix(), 0..12)],
            deny in prop::collection::vec(prefix(), 0..12),
        ) {
            let compiled = Lists::new(&allow, &deny);
            for (v4, high) in [(true, false), (true, true), (false, false), (false, true)] {
                for low in 0..600 {
                    let client = near(v4, high, low);
                    prop_assert_eq!(
                        compiled.serves(client),
                        by_looking(&allow, &deny, client),
                        "{}", client
                    );
                }
            }
        }
    }
}
