//! A balancer of the simulation: the engine's flow table and the engine's tables, without packets.

use lockstep_core::flows::{Entry, Fate, FlowTable, PathId};
use lockstep_core::schedule::Selected;
use lockstep_core::tables::{BackendRef, Ring, VipRef};
use lockstep_core::{FlowState, Seconds, Tables};
use lockstep_plan::Scheduler;
use lockstep_wire::{FlowKey4, HashSeed};
use std::sync::Arc;

/// The tables in force, and the ring before them for as long as it is kept.
#[derive(Clone)]
pub struct InForce {
    pub tables: Arc<Tables>,
    /// Those before the first change of the last minute (ADR 9).
    pub before: Option<Arc<Tables>>,
    pub vip: VipRef,
}

impl InForce {
    /// The service of the simulation.
    pub fn ring(&self) -> Option<&Ring> {
        self.tables.ring(self.vip)
    }

    /// Whether a backend is still one of the service's.
    pub fn has(&self, backend: BackendRef) -> bool {
        self.tables.hop(backend).is_some()
    }

    /// What a balancer that does not know a flow chooses for it; for a packet from the middle of a
    /// connection the ring before is asked first, as the engine does.
    fn choose(&self, key: &FlowKey4, opens: bool) -> Option<BackendRef> {
        let hash = key.selection_hash(Scheduler::Maglev);
        let before = self.before.as_ref().filter(|_| !opens);
        let before = before.and_then(|tables| tables.ring(self.vip)?.select(hash));
        let before = before.filter(|backend| self.has(*backend));
        before.or_else(|| self.ring()?.select(hash))
    }
}

/// A balancer's memory.
pub struct Balancer {
    flows: FlowTable<FlowKey4>,
    seed: HashSeed,
}

impl Balancer {
    /// One that has just been started.
    pub fn new(flows: usize, seed: u64) -> Self {
        Balancer {
            flows: FlowTable::new(flows),
            seed: HashSeed::new(seed),
        }
    }

    /// Where it sends a packet of a TCP connection.
    pub fn packet(
        &mut self,
        key: &FlowKey4,
        opens: bool,
        now: Seconds,
        in_force: &InForce,
    ) -> Option<BackendRef> {
        let probe = self.flows.probe(key.hash(&self.seed));
        let located = self.flows.locate(probe);
        if let Some(slot) = self.flows.find(key, probe, located) {
            let entry = self.flows.entry_mut(slot);
            if in_force.has(entry.backend) {
                entry.seen = now;
                return Some(entry.backend);
            }
            self.flows.remove(slot);
        }
        let backend = in_force.choose(key, opens)?;
        let entry = Entry {
            key: *key,
            backend,
            vip: in_force.vip,
            seen: now,
            state: FlowState::Established,
            pool: 0,
            path: PathId::NONE,
            port: 0,
        };
        // In a full table the flow goes without an entry, by the ring alone: as in the engine.
        let _ = self
            .flows
            .insert(probe, entry, |old| fate(in_force, old, now));
        Some(backend)
    }

    /// Flows that it remembers.
    pub fn entries(&self) -> usize {
        self.flows.len()
    }

    /// What the engine does between bursts: forgets what is over, in the whole table.
    pub fn sweep(&mut self, now: Seconds, in_force: &InForce) {
        let buckets = self.flows.capacity();
        self.flows
            .sweep(buckets, |entry| fate(in_force, entry, now), |_| {});
    }
}

/// As the engine judges an established connection.
fn fate(in_force: &InForce, entry: &Entry<FlowKey4>, now: Seconds) -> Fate {
    let limit = in_force
        .ring()
        .map_or(0, |ring| entry.state.idle_limit(&ring.idle));
    if !in_force.has(entry.backend) || now.since(entry.seen) >= limit {
        return Fate::Expired;
    }
    Fate::Keep
}
