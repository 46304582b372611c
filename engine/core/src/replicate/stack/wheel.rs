//! Timers: a hashed wheel with a slot for each millisecond.
//!
//! Each item has one timer. What is further away than the wheel is long waits in the last slot
//! and is put on from there, so that an item costs a few moves in a minute and nothing else.

use crate::Micros;
use alloc::boxed::Box;
use alloc::vec;

/// Slots: about four seconds.
const SLOTS: u64 = 4_096;
/// Microseconds of a slot.
const SLOT: u64 = 1_000;
/// No item.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    /// The slot's time, in slots since the clock's start; [`IDLE`] when it is in none.
    at: u64,
}

const IDLE: u64 = u64::MAX;

/// One timer for each of a fixed number of items. Setting and taking out cost the same however
/// many there are.
#[derive(Debug)]
pub struct Wheel {
    /// The first item of each slot.
    heads: Box<[u32]>,
    /// A bit for each slot that has one.
    used: Box<[u64]>,
    links: Box<[Link]>,
    /// Every slot before this one is empty.
    now: u64,
}

impl Wheel {
    /// A wheel for items `0..items`, none set.
    pub fn new(items: usize) -> Self {
        let link = Link {
            next: NONE,
            previous: NONE,
            at: IDLE,
        };
        Wheel {
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            used: vec![0; SLOTS as usize / 64].into_boxed_slice(),
            links: vec![link; items].into_boxed_slice(),
            now: 0,
        }
    }

    /// Sees to it that the item comes up at `due` or before; it may come up too early.
    pub fn set(&mut self, item: u32, due: Micros) {
        // Not before its time: rounded up.
        let slot = due.get().div_ceil(SLOT);
        let slot = slot.clamp(self.now, self.now + SLOTS - 1);
        let at = self.links[item as usize].at;
        // One that comes up earlier will be set again then: most timers are moved on and on and
        // never fire.
        if at <= slot {
            return;
        }
        if at != IDLE {
            self.remove(item);
        }
        self.insert(item, slot);
    }

    /// Takes the item out.
    pub fn clear(&mut self, item: u32) {
        if self.links[item as usize].at != IDLE {
            self.remove(item);
        }
    }

    /// The next item whose slot has come, taken out.
    pub fn expired(&mut self, now: Micros) -> Option<u32> {
        let until = now.get() / SLOT;
        while self.now <= until {
            let head = self.heads[(self.now % SLOTS) as usize];
            if head != NONE {
                self.remove(head);
                return Some(head);
            }
            match self.first_used() {
                Some(slot) if slot <= until => self.now = slot,
                Some(_) | None => self.now = until + 1,
            }
        }
        None
    }

    /// When the first item comes up.
    pub fn next(&self) -> Option<Micros> {
        self.first_used().map(|slot| Micros::new(slot * SLOT))
    }

    /// The first slot from `now` on that has an item.
    fn first_used(&self) -> Option<u64> {
        let start = (self.now % SLOTS) as usize;
        let words = self.used.len();
        (0..=words).find_map(|step| {
            let word = (start / 64 + step) % words;
            let bits = match step {
                0 => self.used[word] & (!0 << (start % 64)),
                _ if step == words => self.used[word] & !(!0 << (start % 64)),
                _ => self.used[word],
            };
            let slot = word * 64 + bits.trailing_zeros() as usize;
            let distance = (slot + SLOTS as usize - start) % SLOTS as usize;
            (bits != 0).then(|| self.now + distance as u64)
        })
    }

    fn insert(&mut self, item: u32, slot: u64) {
        let place = (slot % SLOTS) as usize;
        let next = self.heads[place];
        self.links[item as usize] = Link {
            next,
            previous: NONE,
            at: slot,
        };
        if next != NONE {
            self.links[next as usize].previous = item;
        }
        self.heads[place] = item;
        self.used[place / 64] |= 1 << (place % 64);
    }

    fn remove(&mut self, item: u32) {
        let link = self.links[item as usize];
        let place = (link.at % SLOTS) as usize;
        if link.previous == NONE {
            self.heads[place] = link.next;
            if link.next == NONE {
                self.used[place / 64] &= !(1 << (place % 64));
            }
        } else {
            self.links[link.previous as usize].next = link.next;
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        self.links[item as usize].at = IDLE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn ms(ms: u64) -> Micros {
        Micros::new(ms * 1_000)
    }

    fn all(wheel: &mut Wheel, now: Micros) -> Vec<u32> {
        let mut items: Vec<u32> = core::iter::from_fn(|| wheel.expired(now)).collect();
        items.sort_unstable();
        items
    }

    #[test]
    fn an_item_comes_up_when_its_time_has_come_and_once() {
        let mut wheel = Wheel::new(4);
        wheel.set(1, ms(5));
        wheel.set(2, Micros::new(5_001));
        assert_eq!(wheel.next(), Some(ms(5)));
        assert_eq!(all(&mut wheel, Micros::new(4_999)), []);
        assert_eq!(all(&mut wheel, ms(5)), [1]);
        assert_eq!(all(&mut wheel, ms(6)), [2]);
        assert_eq!(all(&mut wheel, ms(100_000)), []);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn an_item_far_away_comes_up_early_and_can_be_set_again() {
        let mut wheel = Wheel::new(1);
        wheel.set(0, ms(60_000));
        assert_eq!(all(&mut wheel, ms(4_094)), []);
        assert_eq!(all(&mut wheel, ms(4_095)), [0]);
    }

    #[test]
    fn what_is_past_comes_up_at_once() {
        let mut wheel = Wheel::new(2);
        assert_eq!(all(&mut wheel, ms(50)), []);
        wheel.set(0, ms(10));
        assert_eq!(all(&mut wheel, ms(51)), [0]);
    }

    proptest! {
        /// Against a list: nothing comes up too late, nothing too early but what is beyond the
        /// wheel, and nothing that was cleared.
        #[test]
        fn it_is_a_list_of_times(
            steps in prop::collection::vec((0u32..16, 0u64..6_000, prop::bool::ANY, 0u64..700), 1..200),
        ) {
            let mut wheel = Wheel::new(16);
            let mut due: [Option<(u64, bool)>; 16] = [None; 16];
            let mut now = 0;
            let mut passed = None;
            for (item, delay, clear, pass) in steps {
                let entry = &mut due[item as usize];
                if clear {
                    wheel.clear(item);
                    *entry = None;
                } else {
                    wheel.set(item, ms(now + delay));
                    // What is set for a slot that has passed comes up in the next one.
                    let at = passed.map_or(now + delay, |p: u64| (now + delay).max(p + 1));
                    let far = delay > 4_090;
                    *entry = Some(entry.map_or((at, far), |(before, early)| (before.min(at), early | far)));
                }
                now += pass;
                let came = all(&mut wheel, ms(now));
                passed = Some(now);
                for (item, slot) in due.iter_mut().enumerate() {
                    let up = came.contains(&(item as u32));
                    match *slot {
                        Some((at, _)) if at <= now => prop_assert!(up),
                        Some((_, far)) => prop_assert!(!up || far),
                        None => prop_assert!(!up),
                    }
                    if up {
                        *slot = None;
                    }
                }
            }
        }
    }
}
