//! The services that should be in force: those of all sources, and how they spread new flows.

use lockstep_ctl_core::announce::ways::Advertisements;
use lockstep_ctl_core::checks::Policy;
use lockstep_ctl_core::drains::{Shift, Target, Timestamp};
use lockstep_ctl_core::services::sources::{Offer, Sources};
use lockstep_ctl_core::spread::{Ramps, Share, Spread, Spreads, lay_over, shares};
use lockstep_plan::{Backend, BackendState, Service, ServiceName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    sources: Sources,
    /// What stands together of them.
    together: Arc<Offer>,
    /// Services of providers that are left out, and why.
    left_out: BTreeMap<ServiceName, String>,
    ramps: Ramps,
}

impl Wanted {
    /// Changes what sources say. Services that are left out by it are told of.
    pub fn change(&mut self, change: impl FnOnce(&mut Sources)) {
        change(&mut self.sources);
        let union = self.sources.union();
        for (name, why) in &union.left_out {
            if self.left_out.get(name) != Some(why) {
                tracing::warn!("service {name}, which a provider has, is left out: {why}");
            }
        }
        self.together = Arc::new(union.offer);
        self.left_out = union.left_out;
    }

    /// What another file would make of it, every backend with its full share.
    pub fn with_file(&self, file: Arc<Offer>) -> Self {
        let mut sources = self.sources.clone();
        sources.set_file(file);
        let union = sources.union();
        Wanted {
            sources,
            together: Arc::new(union.offer),
            left_out: union.left_out,
            ramps: Ramps::default(),
        }
    }

    /// What each source says.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Services of providers that are left out, and why.
    pub fn left_out(&self) -> &BTreeMap<ServiceName, String> {
        &self.left_out
    }

    /// Whether nobody has ever said which services there are.
    pub fn is_unknown(&self) -> bool {
        self.sources.is_unknown()
    }

    /// The services as their sources have them.
    pub fn services(&self) -> &[Service] {
        &self.together.services
    }

    /// How they spread new flows.
    pub fn spreads(&self) -> &Spreads {
        &self.together.spreads
    }

    /// Whether no service has tiers, or backends that begin slowly.
    pub fn spreads_evenly(&self) -> bool {
        let even = Spread::default();
        self.spreads().values().all(|spread| *spread == even)
    }

    /// How their backends are checked.
    pub fn health(&self) -> &BTreeMap<ServiceName, Policy> {
        &self.together.health
    }

    /// How their VIPs are announced where not every way is right.
    pub fn ways(&self) -> &Advertisements {
        &self.together.advertised
    }

    /// Whether the backends of a service are checked.
    pub fn is_checked(&self, service: &ServiceName) -> bool {
        let policy = self.health().get(service);
        policy.is_some_and(|policy| policy.check.is_some())
    }

    /// How far backends that begin slowly are.
    pub fn ramps(&self) -> &Ramps {
        &self.ramps
    }

    /// The engine has it so.
    pub fn set_ramps(&mut self, ramps: Ramps) {
        self.ramps = ramps;
    }

    /// The clock has been set.
    pub fn shift(&mut self, shift: Shift) {
        self.ramps.shift(shift);
    }

    /// When [`Wanted::over`] has something else to say.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.ramps.next_deadline(self.spreads(), now)
    }

    /// The services, with drains and health laid over them, as an engine is to have them.
    pub fn over(&self, mut services: Vec<Service>, now: Timestamp) -> Vec<Service> {
        let (said, spreads) = (self.services(), self.spreads());
        lay_over(&mut services, said, spreads, &self.ramps, now);
        services
    }

    /// What became of backends with a tier or a slow start.
    pub fn shares(&self, services: Vec<Service>, now: Timestamp) -> Vec<Share> {
        shares(&services, self.services(), self.spreads(), &self.ramps, now)
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
