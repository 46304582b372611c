//! From a backend's answer to the flow it belongs to: a second way into the flow table.
//!
//! A flow that is rewritten has two keys: the client's packets have one, the backend's answers
//! the other. Only the first is in its entry; the second follows from it. So there is no second
//! entry here, but its slot under the hash of the answers' key: 9 bytes instead of 32 or 64.
//!
//! ```text
//! tags   [ bucket 0: 8 × u8  ] ...    as in the flow table, and as many buckets
//! slots  [ bucket 0: 8 × u32 ] ...    the flows' slots
//! links  [ slot 0: u32 ] ...          from a slot to its place here, so that a flow can be taken
//!                                     out without its key
//! ```
//!
//! What is found here is a candidate: whoever looks it up compares the answer with the entry.

use super::{Full, Probe, Slot, WAYS, used, ways, zero_bytes};
use alloc::vec;
use alloc::vec::Vec;
use core::hint::{black_box, select_unpredictable};

/// No place: places count from 1 in [`Reverse::links`].
const NOWHERE: u32 = 0;

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Slots([u32; WAYS]);

/// A place in the table, of an answer whose tag matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

pub(super) struct Reverse {
    tags: Vec<u64>,
    slots: Vec<Slots>,
    links: Vec<u32>,
    len: usize,
}

impl Reverse {
    /// A table beside a flow table of so many buckets.
    pub(super) fn new(buckets: usize) -> Self {
        Reverse {
            tags: vec![0; buckets],
            slots: vec![Slots([0; WAYS]); buckets],
            links: vec![NOWHERE; buckets * WAYS],
            len: 0,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory(&self) -> usize {
        self.tags.len() * size_of::<u64>()
            + self.slots.len() * size_of::<Slots>()
            + self.links.len() * size_of::<u32>()
    }

    /// The first place whose tag matches.
    #[inline]
    pub(super) fn locate(&self, probe: Probe) -> Option<Place> {
        let in_first = zero_bytes(self.tags[probe.first as usize] ^ probe.tags);
        let in_second = zero_bytes(self.tags[probe.second as usize] ^ probe.tags);
        if in_first | in_second == 0 {
            return None;
        }
        let second = in_first == 0;
        let marks = select_unpredictable(second, in_second, in_first);
        let bucket = select_unpredictable(second, probe.second, probe.first);
        Some(Place(bucket * WAYS as u32 + marks.trailing_zeros() / 8))
    }

    /// A prefetch, like [`FlowTable::touch`](super::FlowTable::touch).
    #[inline]
    pub(super) fn touch(&self, place: Place) {
        black_box(self.slot(place));
    }

    /// A prefetch for [`insert`](Self::insert).
    #[inline]
    pub(super) fn touch_room(&self, probe: Probe) {
        black_box(self.tags[probe.first as usize]);
        black_box(self.tags[probe.second as usize]);
    }

    /// A prefetch for [`remove`](Self::remove).
    #[inline]
    pub(super) fn touch_flow(&self, Slot(slot): Slot) {
        if let Some(place) = self.links[slot as usize].checked_sub(1) {
            black_box(self.tags[place as usize / WAYS]);
        }
    }

    /// The flow at a place.
    #[inline]
    pub(super) fn slot(&self, Place(place): Place) -> Slot {
        Slot(self.slots[place as usize / WAYS].0[place as usize % WAYS])
    }

    /// Every flow whose tag matches.
    pub(super) fn candidates(&self, probe: Probe) -> impl Iterator<Item = Slot> {
        [probe.first, probe.second]
            .into_iter()
            .flat_map(move |bucket| {
                let marks = zero_bytes(self.tags[bucket as usize] ^ probe.tags);
                ways(marks, bucket as usize).map(|Slot(place)| self.slot(Place(place)))
            })
    }

    /// Every flow in the buckets of a probe: of them one has to go when both are full.
    pub(super) fn crowd(&self, probe: Probe) -> impl Iterator<Item = Slot> {
        [probe.first, probe.second].into_iter().flat_map(|bucket| {
            let places = used(self.tags[bucket as usize], bucket as usize);
            places.map(|Slot(place)| self.slot(Place(place)))
        })
    }

    /// Puts a flow under the probe of its answers; it must not be in the table.
    pub(super) fn insert(&mut self, probe: Probe, slot: Slot) -> Result<(), Full> {
        let free = |bucket: u32| zero_bytes(self.tags[bucket as usize]);
        let (first, second) = (free(probe.first), free(probe.second));
        let (marks, bucket) = if first.count_ones() >= second.count_ones() {
            (first, probe.first)
        } else {
            (second, probe.second)
        };
        let Slot(place) = ways(marks, bucket as usize).next().ok_or(Full)?;
        let (bucket, way) = (bucket as usize, place as usize % WAYS);
        self.tags[bucket] |= probe.tags & 0xff << (way * 8);
        self.slots[bucket].0[way] = slot.0;
        self.links[slot.0 as usize] = place + 1;
        self.len += 1;
        Ok(())
    }

    /// Takes a flow out, if it is in.
    pub(super) fn remove(&mut self, Slot(slot): Slot) {
        // Where nothing is rewritten, removing a flow costs no look at the links.
        if self.is_empty() {
            return;
        }
        let link = core::mem::replace(&mut self.links[slot as usize], NOWHERE);
        if let Some(place) = link.checked_sub(1) {
            self.tags[place as usize / WAYS] &= !(0xff << (place as usize % WAYS * 8));
            self.len -= 1;
        }
    }
}
