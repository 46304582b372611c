//! Destinations as the program's maps hold them: single ports in one, ranges of ports in another.

use crate::Room;
use crate::abi::{Destination, Key, RangeKey, Steered, Value};
use std::collections::BTreeMap;

/// Of (address, 0, protocol): ports without an entry of their own are looked for among the ranges.
const HAS_RANGES: u16 = 1;
/// Of (address, 0, protocol): it is there for [`HAS_RANGES`] only.
const NO_DESTINATION: u16 = 2;
/// Bits of a range's key in front of the port.
const FIXED_BITS: u32 = 144;

/// The contents of the two maps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) ports: BTreeMap<Key, Value>,
    pub(crate) ranges: BTreeMap<RangeKey, Value>,
}

impl Entries {
    pub(crate) fn of(wanted: &BTreeMap<Destination, Steered>) -> Self {
        let mut entries = Entries::default();
        let mut with_ranges = BTreeMap::new();
        for (destination, steered) in wanted {
            if destination.port == destination.last_port {
                let (key, value) = (destination.key(), steered.value(0));
                entries.ports.insert(key, value);
                continue;
            }
            for (port, bits) in prefixes(destination.port, destination.last_port) {
                let key = range_key(destination, port, bits);
                entries.ranges.insert(key, steered.value(0));
            }
            let every = Destination::new(destination.address, 0, destination.protocol);
            with_ranges.insert(every, ());
        }
        for every in with_ranges.keys() {
            let value = match wanted.get(every) {
                Some(steered) => steered.value(HAS_RANGES),
                None => Steered::from(Room::NONE).value(HAS_RANGES | NO_DESTINATION),
            };
            entries.ports.insert(every.key(), value);
        }
        entries
    }
}

/// `struct steer_range`.
fn range_key(destination: &Destination, port: u16, bits: u32) -> RangeKey {
    let mut key = [0; 24];
    key[..4].copy_from_slice(&(FIXED_BITS + bits).to_ne_bytes());
    let exact = destination.key();
    key[4..20].copy_from_slice(&exact[..16]);
    key[20] = exact[18];
    key[22..].copy_from_slice(&port.to_be_bytes());
    key
}

/// The fewest prefixes (port, length in bits) that cover the ports from `first` to `last`.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut prefixes = Vec::new();
    let (mut at, last) = (u32::from(first), u32::from(last));
    while at <= last {
        // The largest block that begins here and does not reach beyond the end.
        let aligned = at.trailing_zeros().min(16);
        let fits = (last - at + 1).ilog2();
        let size = aligned.min(fits);
        // `at` is at most `last`, which is a port.
        prefixes.push((at as u16, 16 - size));
        at += 1 << size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_a_range_and_nothing_else() {
        for (first, last) in [
            (1, 65_535),
            (0, 65_535),
            (1, 65_534),
            (5, 5),
            (1024, 2047),
            (30_000, 30_999),
            (65_535, 65_535),
            (7, 8),
        ] {
            let prefixes = prefixes(first, last);
            assert!(prefixes.len() <= 30, "{first}-{last}: {prefixes:?}");
            let covers = |port: u16, (start, bits): (u16, u32)| {
                let rest = 16 - bits;
                u32::from(port) >> rest == u32::from(start) >> rest
            };
            for port in 0..=u16::MAX {
                let covered = prefixes.iter().filter(|p| covers(port, **p)).count();
                let wanted = usize::from((first..=last).contains(&port));
                assert_eq!(covered, wanted, "{first}-{last}: {port}");
            }
        }
    }
}
