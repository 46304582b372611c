//! The services that should be in force: those of the file, and how they spread new flows.

use lockstep_ctl_core::checks::Policy;
use lockstep_ctl_core::drains::{Target, Timestamp};
use lockstep_ctl_core::services::ServicesFile;
use lockstep_ctl_core::spread::{Ramps, Share, Spreads, lay_over, shares};
use lockstep_plan::{Backend, BackendState, Service, ServiceName};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The services of the last file without errors; `None` until there is one.
    services: Option<Vec<Service>>,
    spreads: Spreads,
    health: BTreeMap<ServiceName, Policy>,
    ramps: Ramps,
}

impl Wanted {
    /// Puts the services of another file in the place of these.
    pub fn replace(&mut self, file: ServicesFile) {
        self.services = Some(file.services);
        self.spreads = file.spreads;
        self.health = file.health;
    }

    /// Whether there never was a file without errors.
    pub fn is_unknown(&self) -> bool {
        self.services.is_none()
    }

    /// The services as the file has them.
    pub fn services(&self) -> &[Service] {
        self.services.as_deref().unwrap_or_default()
    }

    /// How they spread new flows.
    pub fn spreads(&self) -> Spreads {
        self.spreads.clone()
    }

    /// How their backends are checked.
    pub fn health(&self) -> &BTreeMap<ServiceName, Policy> {
        &self.health
    }

    /// Whether the backends of a service are checked.
    pub fn is_checked(&self, service: &ServiceName) -> bool {
        let policy = self.health.get(service);
        policy.is_some_and(|policy| policy.check.is_some())
    }

    /// Takes note of which backends are active from now on, of services with drains and health
    /// laid over them: those that become so begin slowly.
    pub fn follow(&mut self, services: &[Service], now: Timestamp) {
        self.ramps.follow(services, now);
    }

    /// When [`Wanted::over`] has something else to say.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.ramps.next_deadline(&self.spreads, now)
    }

    /// The services, with drains and health laid over them, as an engine is to have them.
    pub fn over(&self, mut services: Vec<Service>, now: Timestamp) -> Vec<Service> {
        let (file, spreads) = (self.services(), &self.spreads);
        lay_over(&mut services, file, spreads, &self.ramps, now);
        services
    }

    /// What became of backends with a tier or a slow start.
    pub fn shares(&self, services: Vec<Service>, now: Timestamp) -> Vec<Share> {
        shares(&services, self.services(), &self.spreads, &self.ramps, now)
    }
}

/// A warning for each service concerned that has no active backend (left), or too few to replicate.
pub fn without_active(services: &[Service], targets: &[Target]) -> Vec<String> {
    let concerned = |name: &ServiceName| targets.iter().any(|t| t.service == *name);
    let active = |b: &&Backend| b.state == BackendState::Active;
    let warning = |s: &Service| {
        let (name, active) = (&s.name, s.backends.iter().filter(active).count());
        match s.mode.replicate() {
            None if active == 0 => Some(format!(
                "service {name} has no active backend: new flows are dropped as no_backend"
            )),
            Some(policy) if active < usize::from(policy.needed()) => Some(format!(
                "service {name} has {active} active backends and needs {}: new clients are refused",
                policy.needed()
            )),
            None | Some(_) => None,
        }
    };
    services
        .iter()
        .filter(|s| concerned(&s.name))
        .filter_map(warning)
        .collect()
}
