//! The flow table: which backend a connection was given, for as long as it lives.
//!
//! One table per worker and IP version, all memory taken at construction. Buckets of eight
//! entries, two candidate buckets per key, and beside the entries one tag byte for each of them:
//!
//! ```text
//! tags     [ bucket 0: 8 × u8 ][ bucket 1: 8 × u8 ] ...    small: lives in the L2 cache
//! entries  [ bucket 0: 8 × 32 bytes (IPv6: 64)     ] ...    large: one cache line touched per hit
//! ```
//!
//! A lookup compares eight tags at once in a register and reads an entry only where the tag
//! matches, so that a known flow costs one access to memory and an unknown one (a SYN flood's)
//! none. Two choices of bucket keep the table usable to its nominal capacity without moving
//! entries (Azar et al., "Balanced Allocations", 1994).

mod reverse;
mod splices;
mod victims;

pub use reverse::Place;
pub use splices::Splice;

use crate::tables::{BackendRef, VipRef};
use crate::time::Seconds;
use crate::tracking::FlowState;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::hint::{black_box, select_unpredictable};
use core::net::{Ipv4Addr, Ipv6Addr};
use lockstep_wire::{FlowKey4, FlowKey6};
use reverse::Reverse;
use splices::Splices;

/// Entries in a bucket: as many as tags fit a 64-bit word.
const WAYS: usize = 8;
/// Slots per 5 flows of nominal capacity. Up to five eighths full, two choices of eight-way
/// buckets practically never overflow.
const SLOTS_PER_FIVE_FLOWS: usize = 8;

/// The key of a table: a flow key of one IP version.
pub trait Key: Copy + Eq + fmt::Debug {
    /// Fills entries that hold nothing; no packet has it, since its protocol is neither TCP nor
    /// UDP.
    const NONE: Self;
}

impl Key for FlowKey4 {
    const NONE: Self = FlowKey4::new(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED, 0, 0);
}

impl Key for FlowKey6 {
    const NONE: Self = FlowKey6::new(Ipv6Addr::UNSPECIFIED, 0, Ipv6Addr::UNSPECIFIED, 0, 0);
}

/// A flow: 32 bytes for IPv4, 64 for IPv6, never across a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Entry<K> {
    /// Addresses, ports and protocol as the client sends them.
    pub key: K,
    /// Where its packets go.
    pub backend: BackendRef,
    /// The VIP it belongs to.
    pub vip: VipRef,
    /// When its last packet came.
    pub seen: Seconds,
    /// What is known of the connection.
    pub state: FlowState,
    /// In full NAT, which of the engine's addresses the backend sees.
    pub pool: u8,
    /// Where packets are rewritten, the way the client's last packet came by: answers leave there.
    pub path: PathId,
    /// In full NAT, the port that the backend sees.
    pub port: u16,
}

/// A way to clients, by its place in a worker's table of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PathId(pub u16);

impl PathId {
    /// No way: that of flows whose answers do not come by here.
    pub const NONE: PathId = PathId(0);
}

const _: () = assert!(size_of::<Entry<FlowKey4>>() == 32);
const _: () = assert!(size_of::<Entry<FlowKey6>>() == 64);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket<K>([Entry<K>; WAYS]);

/// What a table's owner says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It lives.
    Keep,
    /// It lives, but a new flow may take its place when there is no other.
    GivesWay,
    /// It is over.
    Expired,
}

/// Where a key may be, computed from its hash once.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    first: u32,
    second: u32,
    /// The tag in all eight bytes.
    tags: u64,
}

/// The place of an entry in the table. Valid until the next insertion or removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// Every entry that a new flow could have taken is in use by a flow that may not be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A bounded table from flow keys to backends.
pub struct FlowTable<K> {
    tags: Vec<u64>,
    buckets: Vec<Bucket<K>>,
    /// Which entries of each bucket are in a state that gives way.
    yielding: Vec<u8>,
    reverse: Reverse,
    splices: Splices,
    len: usize,
    capacity: usize,
    hand: usize,
}

impl<K: Key> FlowTable<K> {
    /// A table for `capacity` flows; takes all its memory now.
    pub fn new(capacity: usize) -> Self {
        let slots = capacity.max(WAYS) * SLOTS_PER_FIVE_FLOWS / 5;
        let buckets = slots.div_ceil(WAYS);
        let none = Entry {
            key: K::NONE,
            backend: BackendRef::NONE,
            vip: VipRef::UNKNOWN,
            seen: Seconds::new(0),
            state: FlowState::Udp,
            pool: 0,
            path: PathId::NONE,
            port: 0,
        };
        FlowTable {
            tags: vec![0; buckets],
            buckets: vec![Bucket([none; WAYS]); buckets],
            yielding: vec![0; buckets],
            reverse: Reverse::new(buckets),
            splices: Splices::new(capacity),
            len: 0,
            capacity,
            hand: 0,
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The flows it was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Memory taken, in bytes.
    pub fn memory(&self) -> usize {
        self.tags.len() * size_of::<u64>()
            + self.buckets.len() * size_of::<Bucket<K>>()
            + self.yielding.len()
            + self.reverse.memory()
            + self.splices.memory()
    }

    /// The places of the key with this hash.
    #[inline]
    pub fn probe(&self, hash: u64) -> Probe {
        let buckets = self.tags.len() as u64;
        // The second bucket comes from other bits than the first, the tag from the lowest.
        let second = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) * buckets;
        Probe {
            first: (((hash >> 32) * buckets) >> 32) as u32,
            second: (second >> 32) as u32,
            // Tag 0 marks a free entry.
            tags: u64::from((hash as u8).max(1)) * EACH_BYTE,
        }
    }

    /// The first entry whose tag matches.
    #[inline]
    pub fn locate(&self, probe: Probe) -> Option<Slot> {
        let in_first = zero_bytes(self.tags[probe.first as usize] ^ probe.tags);
        let in_second = zero_bytes(self.tags[probe.second as usize] ^ probe.tags);
        if in_first | in_second == 0 {
            return None;
        }
        // A flow is in either with about the same chance: a branch would be guessed wrong half
        // of the time.
        let second = in_first == 0;
        let marks = select_unpredictable(second, in_second, in_first);
        let bucket = select_unpredictable(second, probe.second, probe.first);
        Some(Slot(bucket * WAYS as u32 + marks.trailing_zeros() / 8))
    }

    /// Reads an entry whose value matters to nobody yet: a prefetch, for which safe Rust has no
    /// other means.
    ///
    /// Called for a whole burst in a row: the reads do not depend on each other and nothing else
    /// is between them, so that the processor has as many under way as it can.
    #[inline]
    pub fn touch(&self, slot: Slot) {
        black_box(self.entry(slot).state);
    }

    /// The flow of a key. `located` is what [`locate`](Self::locate) gave for it.
    #[inline]
    pub fn find(&self, key: &K, probe: Probe, located: Option<Slot>) -> Option<Slot> {
        match located {
            Some(slot) if self.holds(slot, key) => Some(slot),
            _ => self.find_slowly(key, probe),
        }
    }

    /// Two keys share a tag (about one lookup in fifty), or the flow is new; also to the table,
    /// unless an earlier packet of the same burst made it.
    #[cold]
    fn find_slowly(&self, key: &K, probe: Probe) -> Option<Slot> {
        self.candidates(probe).find(|&slot| self.holds(slot, key))
    }

    #[inline]
    fn holds(&self, slot: Slot, key: &K) -> bool {
        // An entry located before another packet of the burst took its place has another key.
        self.entry(slot).key == *key
    }

    /// The flow at a slot.
    #[inline]
    pub fn entry(&self, Slot(slot): Slot) -> &Entry<K> {
        &self.buckets[slot as usize / WAYS].0[slot as usize % WAYS]
    }

    /// The flow at a slot; its key must stay as it is, and its state is changed by
    /// [`turn`](Self::turn).
    #[inline]
    pub fn entry_mut(&mut self, Slot(slot): Slot) -> &mut Entry<K> {
        &mut self.buckets[slot as usize / WAYS].0[slot as usize % WAYS]
    }

    /// Puts a flow whose key is not in the table into it and says where. When both buckets are
    /// full, or there is hardly room for answers, an entry that is expired, or one that gives way
    /// and was silent for long, is forgotten and returned.
    pub fn insert(
        &mut self,
        probe: Probe,
        entry: Entry<K>,
        fate: impl Fn(&Entry<K>) -> Fate,
    ) -> Result<(Slot, Option<Entry<K>>), Full> {
        let tag = probe.tags as u8;
        let free = self.free_slot(probe);
        let victim = match free {
            Some(_) if !self.is_tight() => None,
            Some(_) => self.likely_victim(probe, entry.seen, &fate),
            None => Some(self.victim(probe, entry.seen, &fate).ok_or(Full)?),
        };
        if let Some(victim) = victim {
            let forgotten = *self.entry(victim);
            self.reverse.remove(victim);
            self.splices.remove(victim);
            self.put(victim, tag, entry);
            return Ok((victim, Some(forgotten)));
        }
        let slot = free.ok_or(Full)?;
        self.put(slot, tag, entry);
        self.len += 1;
        Ok((slot, None))
    }

    /// Whether a flow with this probe can be put in without another one being forgotten.
    pub fn has_room(&self, probe: Probe) -> bool {
        self.free_slot(probe).is_some()
    }

    /// Lets the flow at a slot be found by its answers, whose key has this probe, until it is
    /// forgotten. Once for each flow.
    pub fn link(&mut self, answers: Probe, slot: Slot) -> Result<(), Full> {
        self.reverse.insert(answers, slot)
    }

    /// A prefetch for [`link`](Self::link).
    #[inline]
    pub fn touch_answers(&self, answers: Probe) {
        self.reverse.touch_room(answers);
    }

    /// The flows that take all room there is for answers with this probe, when
    /// [`link`](Self::link) finds none.
    pub fn crowd(&self, answers: Probe) -> impl Iterator<Item = Slot> {
        self.reverse.crowd(answers)
    }

    /// Whether no flow can be found by its answers.
    #[inline]
    pub fn is_unlinked(&self) -> bool {
        self.reverse.is_empty()
    }

    /// Where the flow may be noted whose answers have this probe: the first with its tag.
    #[inline]
    pub fn locate_answer(&self, probe: Probe) -> Option<Place> {
        self.reverse.locate(probe)
    }

    /// A prefetch for [`answered_at`](Self::answered_at).
    #[inline]
    pub fn touch_answer(&self, place: Place) {
        self.reverse.touch(place);
    }

    /// The flow that is noted at a place. Whether an answer is its is for the caller to compare.
    #[inline]
    pub fn answered_at(&self, place: Place) -> Slot {
        self.reverse.slot(place)
    }

    /// The flows whose answers may have this probe.
    pub fn answered(&self, probe: Probe) -> impl Iterator<Item = Slot> {
        self.reverse.candidates(probe)
    }

    /// How the two connections of the flow at a slot are spliced, if they are: few are, and where
    /// none is this costs a comparison.
    #[inline]
    pub fn splice(&self, slot: Slot) -> Option<Splice> {
        self.splices.get(slot)
    }

    /// Notes how the flow at a slot is spliced, until it is forgotten.
    pub fn set_splice(&mut self, slot: Slot, splice: Splice) -> Result<(), Full> {
        self.splices.set(slot, splice)
    }

    /// Whether one flow more can be spliced.
    pub fn has_splices(&self) -> bool {
        self.splices.has_room()
    }

    /// Where more than half of the splices that there may be are in use, looks at `places` of them
    /// and forgets flows that are over by `is_over`, telling `forgotten` each.
    pub fn sweep_splices(
        &mut self,
        places: usize,
        is_over: impl Fn(&Entry<K>) -> bool,
        mut forgotten: impl FnMut(&Entry<K>),
    ) {
        for _ in 0..places.min(self.splices.places()) {
            if !self.splices.is_crowded() {
                return;
            }
            if let Some(slot) = self.splices.step()
                && is_over(self.entry(slot))
            {
                forgotten(self.entry(slot));
                self.remove(slot);
            }
        }
    }

    /// Flows that are spliced.
    pub fn splices(&self) -> usize {
        self.splices.len()
    }

    /// Forgets the flow at a slot.
    pub fn remove(&mut self, Slot(slot): Slot) {
        let (bucket, way) = (slot as usize / WAYS, slot as usize % WAYS);
        let mask = 0xff_u64 << (way * 8);
        if self.tags[bucket] & mask != 0 {
            self.tags[bucket] &= !mask;
            self.buckets[bucket].0[way].key = K::NONE;
            self.yielding[bucket] &= !(1 << way);
            self.reverse.remove(Slot(slot));
            self.splices.remove(Slot(slot));
            self.len -= 1;
        }
    }

    /// Moves the clock's hand over `buckets` buckets and forgets what is expired there, telling
    /// `forgotten` each. Called at every tick, it passes the whole table within seconds.
    pub fn sweep(
        &mut self,
        buckets: usize,
        fate: impl Fn(&Entry<K>) -> Fate,
        mut forgotten: impl FnMut(&Entry<K>),
    ) {
        for _ in 0..buckets.min(self.tags.len()) {
            for slot in used(self.tags[self.hand], self.hand) {
                if fate(self.entry(slot)) == Fate::Expired {
                    forgotten(self.entry(slot));
                    self.remove(slot);
                }
            }
            self.hand = (self.hand + 1) % self.tags.len();
        }
    }

    /// Visits the flows of `buckets` buckets from bucket `from` on. Returns where to go on, or
    /// `None` at the end of the table.
    pub fn scan(
        &self,
        from: usize,
        buckets: usize,
        mut visit: impl FnMut(&Entry<K>),
    ) -> Option<usize> {
        let end = from.saturating_add(buckets).min(self.tags.len());
        for bucket in from..end {
            used(self.tags[bucket], bucket).for_each(|slot| visit(self.entry(slot)));
        }
        (end < self.tags.len()).then_some(end)
    }

    #[inline]
    fn candidates(&self, probe: Probe) -> impl Iterator<Item = Slot> {
        let in_bucket = |bucket: u32| {
            let word = self.tags[bucket as usize];
            ways(zero_bytes(word ^ probe.tags), bucket as usize)
        };
        in_bucket(probe.first).chain(in_bucket(probe.second))
    }

    fn free_slot(&self, probe: Probe) -> Option<Slot> {
        let free = |bucket: u32| zero_bytes(self.tags[bucket as usize]);
        let (first, second) = (free(probe.first), free(probe.second));
        // The emptier of the two: that is what makes two choices so much better than one.
        let (mask, bucket) = if first.count_ones() >= second.count_ones() {
            (first, probe.first)
        } else {
            (second, probe.second)
        };
        ways(mask, bucket as usize).next()
    }

    fn put(&mut self, slot: Slot, tag: u8, entry: Entry<K>) {
        let (bucket, way) = (slot.0 as usize / WAYS, slot.0 as usize % WAYS);
        let shift = way * 8;
        self.tags[bucket] = self.tags[bucket] & !(0xff << shift) | u64::from(tag) << shift;
        self.hint(slot, entry.state);
        *self.entry_mut(slot) = entry;
    }
}

const EACH_BYTE: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The high bit of every byte that is zero (exact: a carry never leaves its byte).
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    !(((word & LOW_BITS) + LOW_BITS) | word | LOW_BITS)
}

/// The slots of a bucket whose bytes are marked.
#[inline]
fn ways(mut marks: u64, bucket: usize) -> impl Iterator<Item = Slot> {
    core::iter::from_fn(move || {
        if marks == 0 {
            return None;
        }
        let way = marks.trailing_zeros() / 8;
        marks &= marks - 1;
        Some(Slot(bucket as u32 * WAYS as u32 + way))
    })
}

/// The slots of a bucket that hold a flow.
fn used(tags: u64, bucket: usize) -> impl Iterator<Item = Slot> {
    ways(!zero_bytes(tags) & !LOW_BITS, bucket)
}

#[cfg(test)]
mod tests;
