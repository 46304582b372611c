//! What a dataplane knows of a packet's flow, for `lockstep explain` and `lockstep capture`.

use super::tracked::Tracked;
use super::{Dataplane, Flows};
use crate::tables::{BackendRef, Tables};
use crate::time::Seconds;
use crate::tracking::FlowState;
use core::net::SocketAddr;
use lockstep_wire::FlowKey;

/// The flow of a packet, as the flow table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFlow {
    /// The backend it was given.
    pub backend: BackendRef,
    /// What is known of its connection.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Who began it.
    pub client: SocketAddr,
    /// What the client sends to.
    pub vip: SocketAddr,
    /// The ends as the backend sees them, where packets are rewritten: from whom, to whom.
    pub inside: Option<(SocketAddr, SocketAddr)>,
    /// Whether the packet is an answer of the backend.
    pub is_answer: bool,
}

impl Dataplane {
    /// The flow of packets with this key, if there is one. Changes nothing.
    pub fn known(&self, now: Seconds, key: &FlowKey) -> Option<KnownFlow> {
        match key {
            FlowKey::V4(key) => known(&self.flows, &self.tables, now, key),
            FlowKey::V6(key) => known(&self.flows, &self.tables, now, key),
        }
    }
}

fn known<K: Tracked>(flows: &Flows, tables: &Tables, now: Seconds, key: &K) -> Option<KnownFlow> {
    let table = K::table_ref(flows);
    let probe = table.probe(key.table_hash(&flows.seed));
    let (slot, is_answer) = match table.find(key, probe, None) {
        Some(slot) => (slot, false),
        None => (flows.answered(tables, key)?, true),
    };
    let entry = table.entry(slot);
    let inside = flows.inside(tables, entry);
    Some(KnownFlow {
        backend: entry.backend,
        state: entry.state,
        idle: now.since(entry.seen),
        client: end(entry.key.source()),
        vip: end(entry.key.destination()),
        inside: inside.map(|key| (end(key.source()), end(key.destination()))),
        is_answer,
    })
}

fn end((address, port, _): (core::net::IpAddr, u16, u8)) -> SocketAddr {
    SocketAddr::new(address, port)
}
