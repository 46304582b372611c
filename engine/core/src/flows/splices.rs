//! Flows of two connections: the client's, which the engine has opened with a SYN cookie, and the
//! backend's behind it, with an initial number of its own. Joining the two is called splicing
//! (Maltz and Bhagwat, "TCP Splicing for Application Layer Proxy Performance", 1998).
//!
//! Only flows that began under pressure are spliced, so what they need is not in every entry but
//! in a table of its own, by the entry's slot: open addressing with linear probing, at most half
//! full. A flow's removal closes the gap it leaves, so that there are no tombstones and a look for
//! what is not there ends at once.

use super::{Full, Slot};
use alloc::vec;
use alloc::vec::Vec;

/// Spliced flows of one worker and IP version at most: 640 KiB.
const MOST: usize = 16_384;
/// One flow in so many of a small table.
const SHARE: usize = 4;
/// No slot: a table has fewer.
const FREE: u32 = u32::MAX;

/// What two connections that are one flow have told each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// The number of the client's SYN. The backend's connection is opened with the same.
    pub client: u32,
    /// The number of the SYN-ACK that the client got: the cookie, which says what the SYN did
    /// ([`options_of`](crate::handshake::cookie::options_of)).
    pub cookie: u32,
    /// The number of the backend's SYN-ACK, once it came.
    pub backend: u32,
    /// The backend's window scale; none where the client has none.
    pub backend_scale: Option<u8>,
    /// Whether the backend's SYN-ACK came.
    pub is_open: bool,
}

const _: () = assert!(size_of::<Splice>() == 16);

const NONE: Splice = Splice {
    client: 0,
    cookie: 0,
    backend: 0,
    backend_scale: None,
    is_open: false,
};

/// A bounded table of splices by slot.
pub(super) struct Splices {
    /// As many as a power of two.
    keys: Vec<u32>,
    values: Vec<Splice>,
    len: usize,
    hand: usize,
}

impl Splices {
    /// A table beside a flow table of this capacity; takes all its memory now.
    pub(super) fn new(flows: usize) -> Self {
        let places = (flows / SHARE).clamp(1, MOST).next_power_of_two() * 2;
        Splices {
            keys: vec![FREE; places],
            values: vec![NONE; places],
            len: 0,
            hand: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_room(&self) -> bool {
        self.len < self.keys.len() / 2
    }

    /// Whether more than half of what there may be are in use.
    pub(super) fn is_crowded(&self) -> bool {
        self.len > self.keys.len() / 4
    }

    /// Places of the table, used or not.
    pub(super) fn places(&self) -> usize {
        self.keys.len()
    }

    /// Moves a hand by one place; the slot that is noted there, if one is.
    pub(super) fn step(&mut self) -> Option<Slot> {
        self.hand = (self.hand + 1) & (self.keys.len() - 1);
        let key = self.keys[self.hand];
        (key != FREE).then_some(Slot(key))
    }

    pub(super) fn memory(&self) -> usize {
        self.keys.len() * (size_of::<u32>() + size_of::<Splice>())
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<Splice> {
        if self.len == 0 {
            return None;
        }
        let at = self.find(slot);
        (self.keys[at] == slot.0).then(|| self.values[at])
    }

    pub(super) fn set(&mut self, slot: Slot, splice: Splice) -> Result<(), Full> {
        let at = self.find(slot);
        if self.keys[at] != slot.0 {
            if !self.has_room() {
                return Err(Full);
            }
            self.keys[at] = slot.0;
            self.len += 1;
        }
        self.values[at] = splice;
        Ok(())
    }

    /// Takes a flow out, if it is in.
    #[inline]
    pub(super) fn remove(&mut self, slot: Slot) {
        if self.len != 0 {
            self.take_out(slot);
        }
    }

    fn take_out(&mut self, slot: Slot) {
        let mut gap = self.find(slot);
        if self.keys[gap] != slot.0 {
            return;
        }
        self.len -= 1;
        let mask = self.keys.len() - 1;
        let mut at = gap;
        // What stands behind the gap and could stand in it moves there (Knuth, volume 3, 6.4 R).
        loop {
            at = (at + 1) & mask;
            let key = self.keys[at];
            if key == FREE {
                break;
            }
            let distance = |from: usize| at.wrapping_sub(from) & mask;
            if distance(self.home(key)) >= distance(gap) {
                self.keys[gap] = key;
                self.values[gap] = self.values[at];
                gap = at;
            }
        }
        self.keys[gap] = FREE;
    }

    /// The place of a slot, or the free one where it would be. There is always a free one.
    #[inline]
    fn find(&self, Slot(slot): Slot) -> usize {
        let mask = self.keys.len() - 1;
        let mut at = self.home(slot);
        while self.keys[at] != slot && self.keys[at] != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    /// Slots of one bucket are neighbours: a multiplication spreads them (Fibonacci hashing).
    #[inline]
    fn home(&self, slot: u32) -> usize {
        let hash = slot.wrapping_mul(0x9e37_79b9);
        (hash >> 16) as usize & (self.keys.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn splice(client: u32) -> Splice {
        Splice { client, ..NONE }
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut splices = Splices::new(1_000_000);
        assert!(splices.memory() <= 640 << 10, "{}", splices.memory());
        for slot in 0..MOST as u32 {
            splices
                .set(Slot(slot), splice(slot))
                .expect("there is room");
        }
        assert!(!splices.has_room());
        assert_eq!(splices.set(Slot(1 << 20), splice(1)), Err(Full));
        // One that is there is set anew all the same.
        assert_eq!(splices.set(Slot(5), splice(50)), Ok(()));
        assert_eq!(splices.get(Slot(5)), Some(splice(50)));
        splices.remove(Slot(7));
        assert_eq!(splices.set(Slot(1 << 20), splice(1)), Ok(()));
        assert_eq!(splices.get(Slot(7)), None);
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0..40_u32, any::<bool>()), 0..400)) {
            // 64 flows: 16 splices in 32 places, so that there are long runs.
            let mut splices = Splices::new(64);
            let mut expected = BTreeMap::new();
            for (number, (slot, adds)) in (0..).zip(steps) {
                if adds {
                    let full = expected.len() == 16 && !expected.contains_key(&slot);
                    let done = splices.set(Slot(slot), splice(number));
                    prop_assert_eq!(done.is_err(), full);
                    if !full {
                        expected.insert(slot, splice(number));
                    }
                } else {
                    splices.remove(Slot(slot));
                    expected.remove(&slot);
                }
                prop_assert_eq!(splices.len(), expected.len());
                for slot in 0..40 {
                    prop_assert_eq!(splices.get(Slot(slot)), expected.get(&slot).copied());
                }
            }
        }
    }
}
