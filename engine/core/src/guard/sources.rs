//! The rates of source prefixes: a bounded table of buckets.
//!
//! Sets of eight, chosen by a secret hash. A prefix that is new to its set takes the place of the
//! one whose bucket is fullest. A full bucket is what a new one is as well, so as long as a set
//! has a full one nothing is lost by that. What is not full owes something, and the one that owes
//! least goes first: a prefix at its limit owes most and goes last.
//!
//! So this is what a flood of prefixes can do for one at its limit: a prefix gets its rate, and
//! one burst for each time it is forgotten. It is forgotten when a prefix that is new comes to
//! its set while the seven others owe at least as much as it does. Prefixes that come once owe
//! one flow each and push out each other, whatever their number. Where one flow is the whole
//! burst (a rate of one a second), F new prefixes a second push out all eight in turn: each then
//! gets F / [`SOURCES`] flows a second more. And beyond [`SOURCES`] prefixes at their limits at
//! once, some of them are not held.

use super::Pace;
use super::rate::Level;
use crate::tables::VipRef;
use crate::time::Micros;
use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use lockstep_wire::{FlowKey4, FlowKey6, HashSeed};

/// Prefixes that a worker keeps: 1 MiB.
pub const SOURCES: usize = 65_536;
const WAYS: usize = 8;

/// A service and a source prefix, as 64 bits of their hash: 2^64 is more than enough for no two
/// of a table's prefixes to share one, and the seed is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId(u64);

impl SourceId {
    /// A prefix, by its first address, of a service.
    pub fn new(seed: &HashSeed, service: VipRef, prefix: IpAddr) -> Self {
        let (slot, generation) = (service.slot() as u16, u16::from(service.generation()));
        SourceId(match prefix {
            IpAddr::V4(v4) => {
                FlowKey4::new(v4, slot, Ipv4Addr::UNSPECIFIED, generation, 0).hash(seed)
            }
            IpAddr::V6(v6) => {
                FlowKey6::new(v6, slot, Ipv6Addr::UNSPECIFIED, generation, 0).hash(seed)
            }
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Source {
    id: SourceId,
    level: Level,
}

/// Two cache lines.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(128))]
struct Set([Source; WAYS]);

const _: () = assert!(size_of::<Set>() == 128);

/// What came of asking for a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it may have one more.
    pub is_there: bool,
    /// Whether another prefix that owed something was forgotten for it.
    pub forgot: bool,
}

/// The buckets of source prefixes.
#[derive(Debug)]
pub struct Sources(Box<[Set]>);

impl Sources {
    /// Takes all its memory now.
    pub fn new() -> Self {
        // No prefix has this id but by a chance of 2^-64, and then its bucket is full: as it is.
        let nobody = Source {
            id: SourceId(0),
            level: Level::FULL,
        };
        Sources(alloc::vec![Set([nobody; WAYS]); SOURCES / WAYS].into_boxed_slice())
    }

    /// Takes one out of a prefix' bucket.
    pub fn take(&mut self, id: SourceId, pace: Pace, now: Micros) -> Taken {
        let at = ((id.0 >> 32) * self.0.len() as u64) >> 32;
        let set = &mut self.0[at as usize].0;
        if let Some(known) = set.iter_mut().find(|s| s.id == id) {
            return Taken {
                is_there: known.level.take(pace, now),
                forgot: false,
            };
        }
        let fullest = set
            .iter_mut()
            .min_by_key(|s| s.level)
            .expect("a set has eight places");
        let forgot = !fullest.level.is_full(now);
        *fullest = Source {
            id,
            level: Level::FULL,
        };
        Taken {
            is_there: fullest.level.take(pace, now),
            forgot,
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    const SEED: HashSeed = HashSeed::new(42);

    fn pace(rate: u32) -> Pace {
        Pace::new(NonZeroU32::new(rate).unwrap(), NonZeroU32::MIN)
    }

    fn id(prefix: u32) -> SourceId {
        SourceId::new(&SEED, VipRef::UNKNOWN, Ipv4Addr::from_bits(prefix).into())
    }

    /// What an aggressor gets in ten seconds of 1,000 tries each, beside a flood of
    /// 1,000,000 new prefixes a second.
    fn beside_a_flood(rate: u32) -> usize {
        let mut sources = Sources::new();
        let aggressor = id(1);
        let mut through = 0;
        for n in 0..1_000_000 {
            let now = Micros::new(u64::from(n) * 10);
            for flood in 0..10 {
                // Refused or not: it is the table that is asked.
                let _ = sources.take(id(2 + n * 10 + flood), pace(rate), now);
            }
            if n % 100 == 0 {
                through += usize::from(sources.take(aggressor, pace(rate), now).is_there);
            }
        }
        through
    }

    #[test]
    fn a_flood_of_prefixes_does_not_help_one_at_its_limit() {
        // Ten seconds and the burst at the beginning.
        assert_eq!(beside_a_flood(10), 10 * 11 - 1);
    }

    #[test]
    fn where_one_flow_is_the_burst_the_flood_helps_as_much_as_stated() {
        let stated = 10 * (1 + 1_000_000 / SOURCES);
        let through = beside_a_flood(1);
        assert!(through <= stated, "{through} of {stated}");
    }

    #[test]
    fn a_quarter_of_the_table_of_prefixes_at_their_limits_are_all_held() {
        let mut sources = Sources::new();
        let prefixes = SOURCES / 4;
        let mut through = 0;
        for _ in 0..20 {
            for prefix in 0..prefixes as u32 {
                let taken = sources.take(id(prefix), pace(5), Micros::ZERO);
                through += usize::from(taken.is_there);
            }
        }
        // Of sets of eight that hold two on average, one in 4,000 overflows.
        assert!(through >= prefixes * 5, "{through}");
        assert!(through < prefixes * 5 * 101 / 100, "{through}");
    }

    #[test]
    fn services_have_buckets_of_their_own() {
        let mut sources = Sources::new();
        let client: IpAddr = [192, 0, 2, 1].into();
        let [a, b] = [1, 2].map(|slot| SourceId::new(&SEED, VipRef::of_slot(slot), client));
        assert!(sources.take(a, pace(1), Micros::ZERO).is_there);
        assert!(!sources.take(a, pace(1), Micros::ZERO).is_there);
        assert!(sources.take(b, pace(1), Micros::ZERO).is_there);
    }
}
