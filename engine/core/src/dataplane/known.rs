//! What a dataplane knows of a flow, for those who ask.

use super::Dataplane;
use crate::flows::{FlowTable, Key};
use crate::tables::BackendRef;
use crate::time::Seconds;
use crate::tracking::FlowState;
use lockstep_wire::FlowKey;

/// Where a flow is in a dataplane's table, for `lockstep explain`.
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
    /// The entry of a flow, if there is one. Changes nothing.
    pub fn known(&self, now: Seconds, key: &FlowKey) -> Option<KnownFlow> {
        match key {
            FlowKey::V4(key) => known(&self.flows.v4, now, key, key.hash(&self.flows.seed)),
            FlowKey::V6(key) => known(&self.flows.v6, now, key, key.hash(&self.flows.seed)),
        }
    }
}

fn known<K: Key>(flows: &FlowTable<K>, now: Seconds, key: &K, hash: u64) -> Option<KnownFlow> {
    let entry = flows.entry(flows.find(key, flows.probe(hash), None)?);
    Some(KnownFlow {
        backend: entry.backend,
        state: entry.state,
        idle: now.since(entry.seen),
    })
}
