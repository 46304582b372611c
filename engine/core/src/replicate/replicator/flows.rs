//! Sessions by their client's flow, and by their number.

use hashbrown::HashTable;
use lockstep_wire::{FlowKey, HashSeed};

/// Two indices over the places of sessions.
pub(super) struct Flows {
    flows: HashTable<(FlowKey, u32)>,
    numbers: HashTable<(u64, u32)>,
    seed: HashSeed,
}

impl Flows {
    pub(super) fn new(sessions: usize, seed: u64) -> Self {
        Flows {
            // Twice the room: deleted places are cleaned up where they are, without allocating.
            flows: HashTable::with_capacity(sessions * 2),
            numbers: HashTable::with_capacity(sessions * 2),
            seed: HashSeed::new(seed),
        }
    }

    /// The session of a client's packet.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey) -> Option<u32> {
        self.flows
            .find(key.hash(&self.seed), |(k, _)| k == key)
            .map(|&(_, place)| place)
    }

    pub(super) fn named(&self, number: u64) -> Option<u32> {
        self.numbers
            .find(mixed(number), |(n, _)| *n == number)
            .map(|&(_, place)| place)
    }

    pub(super) fn insert(&mut self, key: FlowKey, number: u64, place: u32) {
        let seed = &self.seed;
        let hash = key.hash(seed);
        self.flows
            .insert_unique(hash, (key, place), |(key, _)| key.hash(seed));
        self.numbers
            .insert_unique(mixed(number), (number, place), |(n, _)| mixed(*n));
    }

    pub(super) fn remove(&mut self, key: &FlowKey, number: u64) {
        let hash = key.hash(&self.seed);
        if let Ok(entry) = self.flows.find_entry(hash, |(k, _)| k == key) {
            entry.remove();
        }
        if let Ok(entry) = self
            .numbers
            .find_entry(mixed(number), |(n, _)| *n == number)
        {
            entry.remove();
        }
    }
}

/// Numbers are given in turn: no secret is needed, only all bits.
const fn mixed(number: u64) -> u64 {
    let product = number as u128 * 0x9e37_79b9_7f4a_7c15_u128;
    (product >> 32) as u64 ^ (product as u64) << 32
}
