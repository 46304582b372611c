//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4), with weights.
//!
//! A table depends on its backends' identities, weights and its size, and on nothing else:
//! neither their order nor the history of the balancer. Two balancers with the same snapshot
//! send a flow to the same backend.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::{BackendId, TableSize, Weight};
use lockstep_wire::{FlowKey6, HashSeed};

/// A lookup table from hash to backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    entries: Box<[u16]>,
}

/// An entry that no backend has taken yet, while a table is filled.
const FREE: u16 = u16::MAX;

impl Maglev {
    /// A table over `backends`, or `None` when there are none. Entries are indices into
    /// `backends`, of which there may be at most 65,535.
    pub fn new(backends: &[(BackendId, Weight)], size: TableSize) -> Option<Self> {
        if backends.is_empty() || backends.len() >= FREE as usize {
            return None;
        }
        let mut turns = Turns::new(backends, size.get());
        let mut entries = vec![FREE; size.get() as usize].into_boxed_slice();
        let mut free = entries.len();
        // Each round gives every backend its turns; a turn takes the backend's next free entry.
        // Skip is coprime to the size, so a turn finds one as long as any is free.
        while free > 0 {
            for walk in &mut turns.0 {
                for _ in 0..walk.turns_this_round() {
                    if free == 0 {
                        break;
                    }
                    let at = walk.next_free(&entries);
                    entries[at] = walk.backend;
                    free -= 1;
                }
            }
        }
        Some(Maglev { entries })
    }

    /// The backend for a hash, as an index into the backends the table was made of.
    #[inline]
    pub fn lookup(&self, hash: u64) -> u16 {
        // Multiply-shift takes the high half of the hash to 0..len without a division.
        let at = ((hash >> 32) * self.entries.len() as u64) >> 32;
        self.entries[at as usize]
    }

    /// The table itself.
    pub fn entries(&self) -> &[u16] {
        &self.entries
    }

    /// How many entries each of `backends` backends has.
    pub fn shares(&self, backends: usize) -> Vec<u32> {
        let mut shares = vec![0; backends];
        for &entry in &self.entries {
            shares[entry as usize] += 1;
        }
        shares
    }
}

/// The hash seed of the choice of a backend. It is part of the algorithm, not of an engine:
/// balancers that are to agree must use the same one.
pub const SELECTION_SEED: HashSeed = HashSeed::new(0x6c6f_636b_7374_6570);

struct Turns(Vec<Walk>);

impl Turns {
    /// The backends' walks in the order of their identities.
    fn new(backends: &[(BackendId, Weight)], size: u32) -> Self {
        let heaviest = backends.iter().map(|(_, w)| w.get()).max().unwrap_or(1);
        let mut order: Vec<u16> = (0..backends.len() as u16).collect();
        order.sort_unstable_by_key(|&b| backends[b as usize].0);
        Turns(
            order
                .into_iter()
                .map(|b| {
                    let (id, weight) = backends[b as usize];
                    Walk::new(b, id, weight, heaviest, size)
                })
                .collect(),
        )
    }
}

/// One backend's permutation of the entries, and how far it has been followed.
struct Walk {
    backend: u16,
    at: u32,
    skip: u32,
    size: u32,
    weight: u32,
    heaviest: u32,
    /// Fractions of a turn carried over, in units of 1 / `heaviest`.
    credit: u32,
}

impl Walk {
    fn new(backend: u16, id: BackendId, weight: Weight, heaviest: u16, size: u32) -> Self {
        let hash = identity_hash(id);
        Walk {
            backend,
            at: ((hash >> 32) % u64::from(size)) as u32,
            skip: ((hash & 0xffff_ffff) % u64::from(size - 1)) as u32 + 1,
            size,
            weight: u32::from(weight.get()),
            heaviest: u32::from(heaviest),
            credit: 0,
        }
    }

    /// Turns in this round: one for the heaviest backend, a share of one for the others.
    fn turns_this_round(&mut self) -> u32 {
        self.credit += self.weight;
        let turns = self.credit / self.heaviest;
        self.credit %= self.heaviest;
        turns
    }

    fn next_free(&mut self, entries: &[u16]) -> usize {
        loop {
            let at = self.at as usize;
            self.at += self.skip;
            if self.at >= self.size {
                self.at -= self.size;
            }
            if entries[at] == FREE {
                return at;
            }
        }
    }
}

fn identity_hash(BackendId(address): BackendId) -> u64 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    FlowKey6::new(address, 0, address, 0, 0).hash(&SELECTION_SEED)
}

#[cfg(test)]
mod tests;
