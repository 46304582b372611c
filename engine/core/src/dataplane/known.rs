//! What the flow table says of a packet's flow, for `lockstep explain` and captures.

use super::Dataplane;
use super::tracked::Tracked;
use crate::tables::BackendRef;
use crate::time::Seconds;
use crate::tracking::FlowState;
use lockstep_wire::FlowKey;

/// Where a flow is in a dataplane's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFlow {
    /// The backend it was given.
    pub backend: BackendRef,
    /// What is known of its connection.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle: u32,
}

impl Dataplane {
    /// The entry of the flow that a packet with this key belongs to, the client's or an answer, if
    /// there is one. Changes nothing.
    pub fn known(&self, now: Seconds, key: &FlowKey) -> Option<KnownFlow> {
        match key {
            FlowKey::V4(key) => self.known_of(now, key),
            FlowKey::V6(key) => self.known_of(now, key),
        }
    }

    fn known_of<K: Tracked>(&self, now: Seconds, key: &K) -> Option<KnownFlow> {
        let flows = K::table_ref(&self.flows);
        let probe = flows.probe(key.table_hash(&self.flows.seed));
        let own = flows.find(key, probe, None);
        let slot = own.or_else(|| self.flows.answered(&self.tables, key))?;
        let entry = flows.entry(slot);
        Some(KnownFlow {
            backend: entry.backend,
            state: entry.state,
            idle: now.since(entry.seen),
        })
    }
}
