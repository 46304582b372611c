//! What the actor knows of the health of replicas, and what it asks the pinger to follow.

use lockstep_ctl_core::health::{lay_over, replicas};
use lockstep_plan::{Health, Service, Snapshot};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::watch;

/// Backends by address, with what an engine should know of their health.
pub type Healths = BTreeMap<IpAddr, Health>;

/// The health of replicas, between the pinger and the engine. Not kept over a restart of the
/// daemon: the engine has it.
#[derive(Debug)]
pub struct Replicas {
    known: Healths,
    /// Read by the pinger.
    wanted: watch::Sender<Healths>,
}

impl Replicas {
    /// Nothing known, nothing wanted; and where the pinger reads what is.
    pub fn new() -> (Self, watch::Receiver<Healths>) {
        let (wanted, reader) = watch::channel(Healths::new());
        let known = Healths::new();
        (Replicas { known, wanted }, reader)
    }

    /// What the pinger has found.
    pub fn hear(&mut self, found: Healths) {
        self.known = found;
    }

    /// What an engine in force holds of backends that this daemon knows nothing of yet.
    pub fn learn(&mut self, current: &Snapshot) {
        for backend in replicas(current.services()) {
            self.known.entry(backend.address).or_insert(backend.health);
        }
    }

    /// Has the pinger follow the replicas of these services.
    pub fn follow(&self, services: &[Service]) {
        let health = |address| self.known.get(&address).copied().unwrap_or_default();
        let wanted: Healths = replicas(services)
            .map(|backend| (backend.address, health(backend.address)))
            .collect();
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            if differs {
                *before = wanted;
            }
            differs
        });
    }

    /// The services with what is known of their replicas.
    pub fn over(&self, mut services: Vec<Service>) -> Vec<Service> {
        lay_over(&mut services, &self.known);
        services
    }
}
