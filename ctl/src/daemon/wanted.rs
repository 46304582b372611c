//! The services that should be in force: those of the file, and how they spread new flows.

use lockstep_ctl_core::drains::{Drains, Timestamp};
use lockstep_ctl_core::services::ServicesFile;
use lockstep_ctl_core::spread::{Ramps, Share, Spreads, lay_over, shares};
use lockstep_plan::Service;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The services of the last file without errors; `None` until there is one.
    services: Option<Vec<Service>>,
    spreads: Spreads,
    ramps: Ramps,
}

impl Wanted {
    /// Puts the services of another file in the place of these.
    pub fn replace(&mut self, file: ServicesFile) {
        self.services = Some(file.services);
        self.spreads = file.spreads;
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

    /// Takes note of which backends are active from now on: those that become so begin slowly.
    pub fn follow(&mut self, drains: &Drains, now: Timestamp) {
        let drained = drains.over(self.services());
        self.ramps.follow(&drained, now);
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
