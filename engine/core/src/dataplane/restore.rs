//! Flows that another engine remembered, for the one that takes its place.

use super::{Dataplane, Flows, Tracked};
use crate::flows::{Entry, PathId};
use crate::tables::{BackendRef, Tables};
use crate::time::Seconds;
use crate::tracking::FlowState;
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6};

/// A flow in a tunnel, as an engine hands it to its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Addresses, ports and protocol as the client sends them.
    pub key: FlowKey,
    /// Where its packets go.
    pub backend: BackendRef,
    /// What is known of the connection.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle: u32,
}

impl Dataplane {
    /// Remembers a flow, if there is none of its key yet, its VIP is one, and it is sent through a
    /// tunnel: a rewritten one has a way back that nobody knows any more.
    pub fn restore(&mut self, now: Seconds, flow: &Restored) -> bool {
        let Dataplane { tables, flows, .. } = self;
        match &flow.key {
            FlowKey::V4(key) => flows.restore::<FlowKey4>(tables, now, key, flow),
            FlowKey::V6(key) => flows.restore::<FlowKey6>(tables, now, key, flow),
        }
    }
}

impl Flows {
    fn restore<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Seconds,
        key: &K,
        flow: &Restored,
    ) -> bool {
        let (address, port, protocol) = key.destination();
        let Some(vip) = tables.vip(address, port, protocol) else {
            return false;
        };
        if tables
            .hop(flow.backend)
            .is_none_or(|hop| hop.delivery.translates())
        {
            return false;
        }
        let probe = K::table_ref(self).probe(key.table_hash(&self.seed));
        // One from the past takes nobody's place.
        let table = K::table_ref(self);
        if table.find(key, probe, None).is_some() || !table.has_room(probe) {
            return false;
        }
        let entry = Entry {
            key: *key,
            backend: flow.backend,
            vip,
            seen: now.before(flow.idle),
            state: flow.state,
            pool: 0,
            path: PathId::NONE,
            port: 0,
        };
        self.remember(tables, probe, entry).is_some()
    }
}

#[cfg(test)]
mod tests;
