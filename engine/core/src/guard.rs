//! Guards as the dataplane applies them: whom a service serves, and how much of it.
//!
//! [`Rules`] are compiled with the tables and shared by all workers; what the rates have let
//! through is each worker's own ([`Levels`], [`Sources`]) and outlives tables.

mod lists;
mod rate;
mod sources;

pub use lists::Lists;
pub use rate::{Level, Pace};
pub use sources::{SOURCES, SourceId, Sources};

use crate::counters::VIP_SLOTS;
use crate::tables::VipRef;
use alloc::boxed::Box;
use core::net::IpAddr;
use core::num::NonZeroU32;
use lockstep_plan::Guard;
use lockstep_plan::guard::masked;

/// A service's guard in the form packets are held against.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What they were compiled from.
    pub guard: Guard,
    /// Whose address is served.
    pub lists: Lists,
    /// This worker's share of new flows.
    pub new_flows: Option<Pace>,
    /// This worker's share of packets.
    pub packets: Option<Pace>,
    /// This worker's share of each source prefix' new flows.
    pub source: Option<SourcePace>,
}

/// The new flows of a source prefix.
#[derive(Debug, Clone, Copy)]
pub struct SourcePace {
    pace: Pace,
    v4: u8,
    v6: u8,
}

impl Rules {
    /// Compiles a guard for engines of that many workers; `None` where everybody is served.
    ///
    /// Rates are over the engine and workers share nothing, so each lets its part through. Where
    /// traffic is spread unevenly less than the rate passes, never more.
    pub fn new(guard: &Guard, workers: NonZeroU32) -> Option<Self> {
        if guard.is_open() {
            return None;
        }
        let pace = |rate| Pace::new(rate, workers);
        Some(Rules {
            lists: Lists::new(&guard.allow, &guard.deny),
            new_flows: guard.new_flows.map(pace),
            packets: guard.packets.map(pace),
            source: guard.source.map(|source| SourcePace {
                pace: pace(source.new_flows),
                v4: source.prefix_v4,
                v6: source.prefix_v6,
            }),
            guard: guard.clone(),
        })
    }
}

impl SourcePace {
    /// The pace of each prefix.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The prefix of a client.
    pub fn prefix(&self, client: IpAddr) -> IpAddr {
        masked(client, if client.is_ipv4() { self.v4 } else { self.v6 })
    }
}

/// What a worker has let through of each service, by the service's guard slot
/// ([`crate::tables::Ring::guard_slot`]).
#[derive(Debug)]
pub struct Levels(Box<[ServiceLevels]>);

#[derive(Debug, Clone, Copy)]
struct ServiceLevels {
    owner: VipRef,
    new_flows: Level,
    packets: Level,
}

impl Levels {
    /// Levels of all VIPs there may be.
    pub fn new() -> Self {
        let nobody = ServiceLevels {
            owner: VipRef::UNKNOWN,
            new_flows: Level::FULL,
            packets: Level::FULL,
        };
        Levels(alloc::vec![nobody; VIP_SLOTS].into_boxed_slice())
    }

    /// How much is left of a service's new flows.
    pub fn new_flows(&mut self, owner: VipRef) -> &mut Level {
        &mut self.of(owner).new_flows
    }

    /// How much is left of a service's packets.
    pub fn packets(&mut self, owner: VipRef) -> &mut Level {
        &mut self.of(owner).packets
    }

    /// A slot's levels; those of an owner before the present one are forgotten.
    fn of(&mut self, owner: VipRef) -> &mut ServiceLevels {
        let levels = &mut self.0[owner.slot()];
        if levels.owner != owner {
            *levels = ServiceLevels {
                owner,
                new_flows: Level::FULL,
                packets: Level::FULL,
            };
        }
        levels
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self::new()
    }
}
