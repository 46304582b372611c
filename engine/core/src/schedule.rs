//! Schedulers: which backend a new flow is given.
//!
//! Every service has a Maglev table, whatever its scheduler: packets from the middle of a
//! connection that no entry is known of, and flows that find their table full, have to reach one
//! and the same backend each time, which only a hash does. So round robin, least connections and
//! random are asked about what opens a flow, and only when it can be remembered.

use crate::counters::Counters;
use crate::flows::Key;
use crate::maglev::SELECTION_SEED;
use crate::tables::{BackendRef, Ring, VipRef};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_plan::Scheduler;
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6};

/// A flow as schedulers see it.
pub trait Selected {
    /// The hash that every balancer chooses a backend by: of the whole flow, or of the client's
    /// address alone.
    fn selection_hash(&self, scheduler: Scheduler) -> u64;
}

impl Selected for FlowKey4 {
    #[inline]
    fn selection_hash(&self, scheduler: Scheduler) -> u64 {
        match scheduler {
            Scheduler::SourceHash => {
                let client = FlowKey4 {
                    source: self.source,
                    ..FlowKey4::NONE
                };
                client.hash(&SELECTION_SEED)
            }
            Scheduler::Maglev
            | Scheduler::RoundRobin
            | Scheduler::LeastConnections
            | Scheduler::Random => self.hash(&SELECTION_SEED),
        }
    }
}

impl Selected for FlowKey6 {
    #[inline]
    fn selection_hash(&self, scheduler: Scheduler) -> u64 {
        match scheduler {
            Scheduler::SourceHash => {
                let client = FlowKey6 {
                    source: self.source,
                    ..FlowKey6::NONE
                };
                client.hash(&SELECTION_SEED)
            }
            Scheduler::Maglev
            | Scheduler::RoundRobin
            | Scheduler::LeastConnections
            | Scheduler::Random => self.hash(&SELECTION_SEED),
        }
    }
}

impl Selected for FlowKey {
    fn selection_hash(&self, scheduler: Scheduler) -> u64 {
        match self {
            FlowKey::V4(key) => key.selection_hash(scheduler),
            FlowKey::V6(key) => key.selection_hash(scheduler),
        }
    }
}

/// Services of up to so many active backends are looked through whole for the one with the
/// fewest flows: 64 counters are some cache lines, a new flow is rarely alone with them.
pub const LEAST_OF_ALL: usize = 64;

/// In larger services the best of so many drawn by weight gets the flow. Of two it would be within
/// a few flows of the fewest already (Mitzenmacher, "The Power of Two Choices", 2001).
pub const LEAST_OF_SOME: usize = 8;

/// What a service's scheduler goes by, beside its Maglev table. Made with the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// For round robin, whose turn it is, as indices into the active backends.
    sequence: Box<[u16]>,
    /// For least connections, the active backends' weights.
    weights: Box<[u16]>,
}

impl Order {
    /// The order of active backends with these weights.
    pub fn new(scheduler: Scheduler, weights: Vec<u16>) -> Self {
        match scheduler {
            Scheduler::RoundRobin => Order {
                sequence: sequence(&weights),
                weights: Box::default(),
            },
            Scheduler::LeastConnections => Order {
                sequence: Box::default(),
                weights: weights.into_boxed_slice(),
            },
            Scheduler::Maglev | Scheduler::SourceHash | Scheduler::Random => Order::default(),
        }
    }
}

/// The longest sequence of round robin without many backends.
const SEQUENCE: usize = 4_096;
/// Turns a backend has on average where there are many.
const TURNS: usize = 4;

/// Turns in proportion to weights, each backend's spread evenly over the whole: what smooth weighted
/// round robin comes to, without its walk over all backends for every turn.
fn sequence(weights: &[u16]) -> Box<[u16]> {
    let turns = turns(weights);
    // The middle of each turn of a backend, on a line that all backends' turns divide.
    let mut places: Vec<(u64, u16)> = Vec::with_capacity(turns.iter().map(|&t| t as usize).sum());
    for (backend, &turns) in (0..u16::MAX).zip(&turns) {
        let middle = |turn: u64| ((2 * turn + 1) << 32) / u64::from(turns);
        places.extend((0..u64::from(turns)).map(|turn| (middle(turn), backend)));
    }
    places.sort_unstable();
    places.into_iter().map(|(_, backend)| backend).collect()
}

/// How many turns each backend has: its weight where these are few, else its part of as many as
/// there may be, and one at least.
fn turns(weights: &[u16]) -> Vec<u32> {
    let divisor = weights
        .iter()
        .fold(0, |a, &b| greatest_divisor(a, b))
        .max(1);
    let total: u64 = weights.iter().map(|&w| u64::from(w / divisor)).sum();
    let most = SEQUENCE.max(weights.len() * TURNS) as u64;
    let part = |&weight: &u16| {
        let weight = u64::from(weight / divisor);
        let turns = if total <= most {
            weight
        } else {
            (weight * most + total / 2) / total
        };
        turns.max(1) as u32
    };
    weights.iter().map(part).collect()
}

fn greatest_divisor(a: u16, b: u16) -> u16 {
    if b == 0 {
        a
    } else {
        greatest_divisor(b, a % b)
    }
}

/// A worker's state of choosing.
#[derive(Debug)]
pub(crate) struct Picker {
    /// Where round robin is, by VIP slot.
    cursors: Box<[u32]>,
    random: Random,
}

impl Picker {
    /// For so many VIP slots; all memory is taken here. Workers have different seeds, so that they
    /// do not all begin with the same backend.
    pub(crate) fn new(vips: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut cursors = vec![0; vips].into_boxed_slice();
        cursors.iter_mut().for_each(|c| *c = random.next() as u32);
        Picker { cursors, random }
    }

    /// The backend for a flow with this selection hash. `opens` says that the packet begins the
    /// flow: one in the middle of it goes by the hash, whatever the scheduler.
    #[inline]
    pub(crate) fn pick(
        &mut self,
        ring: &Ring,
        vip: VipRef,
        hash: u64,
        opens: bool,
        counters: &Counters,
    ) -> Option<BackendRef> {
        match ring.scheduler {
            Scheduler::RoundRobin if opens => self.next_turn(ring, vip),
            Scheduler::LeastConnections if opens => self.least(ring, counters),
            Scheduler::Random if opens => ring.select(self.random.next()),
            Scheduler::Maglev
            | Scheduler::SourceHash
            | Scheduler::RoundRobin
            | Scheduler::LeastConnections
            | Scheduler::Random => ring.select(hash),
        }
    }

    fn next_turn(&mut self, ring: &Ring, vip: VipRef) -> Option<BackendRef> {
        let sequence = &ring.order().sequence;
        let cursor = self.cursors.get_mut(vip.slot())?;
        let turn = (*cursor as usize).checked_rem(sequence.len())?;
        *cursor = turn as u32 + 1;
        ring.active().get(usize::from(sequence[turn])).copied()
    }

    /// The backend with the fewest flows for its weight that did not end, the new one counted, among
    /// this worker's.
    fn least(&mut self, ring: &Ring, counters: &Counters) -> Option<BackendRef> {
        let (active, weights) = (ring.active(), &ring.order().weights);
        let load = |at: usize| {
            let backend = &counters.backends[active[at].slot()];
            // An ended flow costs a backend nothing, and its entry lives on for a while.
            let flows = backend.flows.get().saturating_sub(backend.ending.get());
            (flows + 1, u64::from(weights[at]))
        };
        let mut best: Option<(usize, (u64, u64))> = None;
        let mut consider = |at: usize| {
            let (flows, weight) = load(at);
            let fewer = best.is_none_or(|(_, (f, w))| flows * w < f * weight);
            if fewer {
                best = Some((at, (flows, weight)));
            }
        };
        if active.len() <= LEAST_OF_ALL {
            // Of equals the first one is taken: each time another one is first.
            let from = self.random.below(active.len());
            (from..active.len()).chain(0..from).for_each(&mut consider);
        } else {
            for _ in 0..LEAST_OF_SOME {
                consider(usize::from(ring.entry(self.random.next())?));
            }
        }
        best.map(|(at, _)| active[at])
    }
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016): not
/// for secrets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Zero is the one state that it never leaves; neighbouring seeds should not look alike.
        Random((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number under `end`; 0 where that is 0.
    fn below(&mut self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests;
