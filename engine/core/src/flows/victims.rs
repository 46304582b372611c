//! Which flow goes when a new one finds the table full.
//!
//! Under a flood nearly every new flow finds both its buckets full, and to read all their entries is
//! eight accesses to memory. So there is a byte for each bucket that says which of its entries are
//! in a state that gives way, and only those are read. It is a hint: whether an entry may go is said
//! by the owner of the table, and where the hints lead to none, all are looked at.

use super::{Entry, Fate, FlowTable, Key, Probe, Slot, WAYS};
use crate::time::Seconds;
use crate::tracking::FlowState;

/// The ways of a bucket, a bit for each.
const _: () = assert!(WAYS <= u8::BITS as usize);

/// Flows with answers per bucket at which there is hardly room for more: of those above that many,
/// one in ten would find no place for its answers in either of two buckets.
const TIGHT: usize = WAYS - 2;

impl<K: Key> FlowTable<K> {
    /// Changes what is known of the flow at a slot. Returns what was before.
    pub fn turn(&mut self, slot: Slot, state: FlowState) -> FlowState {
        self.hint(slot, state);
        core::mem::replace(&mut self.entry_mut(slot).state, state)
    }

    /// A prefetch for [`insert`](Self::insert), like [`touch`](Self::touch): where one has to go, the
    /// entries that it will be one of.
    pub fn touch_victims(&self, probe: Probe) {
        if self.is_tight() || !self.has_room(probe) {
            self.likely(probe).for_each(|slot| self.touch(slot));
        }
    }

    /// The same for where their answers are looked for.
    pub fn touch_victims_answers(&self, probe: Probe) {
        if !self.is_unlinked() && (self.is_tight() || !self.has_room(probe)) {
            let flows = self.likely(probe);
            flows.for_each(|slot| self.reverse.touch_flow(slot));
        }
    }

    /// Notes whether a flow in this state gives way.
    #[inline]
    pub(super) fn hint(&mut self, Slot(slot): Slot, state: FlowState) {
        let (bucket, bit) = (slot as usize / WAYS, 1 << (slot as usize % WAYS));
        // Those that give way in one mode only are hinted at too.
        if state.gives_way(false) {
            self.yielding[bucket] |= bit;
        } else {
            self.yielding[bucket] &= !bit;
        }
    }

    /// Whether flows that give way go for new ones although there is room: else it would be their
    /// answers that find none, and a second flow would have to go for that.
    #[inline]
    pub(super) fn is_tight(&self) -> bool {
        self.reverse.len() >= self.tags.len() * TIGHT
    }

    /// The entry to forget for a new one.
    pub(super) fn victim(
        &self,
        probe: Probe,
        now: Seconds,
        fate: &impl Fn(&Entry<K>) -> Fate,
    ) -> Option<Slot> {
        let bucket = |bucket: u32| (bucket * WAYS as u32..(bucket + 1) * WAYS as u32).map(Slot);
        let all = bucket(probe.first).chain(bucket(probe.second));
        self.likely_victim(probe, now, fate)
            .or_else(|| self.oldest(all, now, fate))
    }

    /// The same, where one that gives way is near.
    pub(super) fn likely_victim(
        &self,
        probe: Probe,
        now: Seconds,
        fate: &impl Fn(&Entry<K>) -> Fate,
    ) -> Option<Slot> {
        self.oldest(self.likely(probe), now, fate)
    }

    /// Flows that probably give way: those of half a bucket if there are any, since in a flood
    /// nearly all are the flood's own, else those of one.
    fn likely(&self, probe: Probe) -> impl Iterator<Item = Slot> + use<K> {
        let half = if probe.tags & 1 == 0 { 0x0f } else { 0xf0 };
        let first = self.yielding[probe.first as usize];
        let (mut marks, bucket) = if first & half != 0 {
            (first & half, probe.first)
        } else if first != 0 {
            (first, probe.first)
        } else {
            (self.yielding[probe.second as usize], probe.second)
        };
        core::iter::from_fn(move || {
            let way = marks.trailing_zeros();
            marks &= marks.checked_sub(1)?;
            Some(Slot(bucket * WAYS as u32 + way))
        })
    }

    /// Of the entries that may go, an expired one, or else the one that was silent for longest.
    fn oldest(
        &self,
        slots: impl Iterator<Item = Slot>,
        now: Seconds,
        fate: &impl Fn(&Entry<K>) -> Fate,
    ) -> Option<Slot> {
        let silence = |slot: Slot| {
            let entry = self.entry(slot);
            match fate(entry) {
                Fate::Keep => None,
                Fate::GivesWay => Some((now.since(entry.seen), slot)),
                Fate::Expired => Some((u32::MAX, slot)),
            }
        };
        slots
            .filter_map(silence)
            .max_by_key(|&(silence, _)| silence)
            .map(|(_, slot)| slot)
    }
}
