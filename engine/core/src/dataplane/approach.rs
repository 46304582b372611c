//! Between the passes: what new flows will need from memory, for the whole burst at once.
//!
//! To put a flow into a full table, one that gives way is read and taken out; where packets are
//! rewritten, both are noted for their answers too. For one packet after the other each of these
//! accesses would be waited for. Here they do not depend on each other, so that many are under way
//! together. Nothing is decided: what is read here is only nearer then.

use super::tracked::Tracked;
use super::{Flows, Work};
use crate::BURST;
use crate::tables::{Delivery, Tables};
use arrayvec::ArrayVec;
use lockstep_wire::FlowKey;

impl Flows {
    /// For the packets that belong to no flow in the table.
    #[cold]
    #[inline(never)]
    pub(super) fn approach(&self, tables: &Tables, work: &ArrayVec<Work, BURST>) {
        let new = || work.iter().filter(|item| item.located.is_none());
        for item in new() {
            match &item.headers.key {
                FlowKey::V4(_) => self.v4.touch_victims(item.probe),
                FlowKey::V6(_) => self.v6.touch_victims(item.probe),
            }
        }
        if tables.answers().is_empty() {
            return;
        }
        for item in new() {
            match &item.headers.key {
                FlowKey::V4(key) => self.approach_answers(tables, key),
                FlowKey::V6(key) => self.approach_answers(tables, key),
            };
        }
        for item in new() {
            match &item.headers.key {
                FlowKey::V4(_) => self.v4.touch_victims_answers(item.probe),
                FlowKey::V6(_) => self.v6.touch_victims_answers(item.probe),
            }
        }
    }

    /// Where a flow's answers will be looked for, if it goes to the backend that its hash says.
    fn approach_answers<K: Tracked>(&self, tables: &Tables, key: &K) -> Option<()> {
        let (address, port, protocol) = key.destination();
        let ring = tables.ring(tables.vip(address, port, protocol)?)?;
        let backend = ring.select(key.selection_hash(ring.scheduler))?;
        let inside = match &tables.hop(backend)?.delivery {
            Delivery::Nat(to) => key.translated(to, None)?,
            Delivery::FullNat(to) => self.sources(key, to)?.next()?.inside,
            Delivery::Tunnel(_) | Delivery::Session => return None,
        };
        let table = K::table_ref(self);
        table.touch_answers(table.probe(inside.turned().table_hash(&self.seed)));
        Some(())
    }
}
