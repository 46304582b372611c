//! What tiers and slow starts make of backends, in `lockstep status`.

use lockstep_api::BackendSpread;
use serde::Serialize;

/// What its tier and its slow start make of a backend.
#[derive(Debug, Serialize)]
pub struct Spread {
    priority: u32,
    /// Percent of the service's new flows that its tier gets.
    tier_load: u32,
    /// Percent of its weight that it has so far.
    ramp: u32,
    /// Its weight in the file; the one in force is the backend's.
    weight: u32,
    #[serde(skip)]
    drains: bool,
}

impl Spread {
    /// What the daemon says of a backend, where it says something.
    pub fn find(all: &[BackendSpread], service: &str, address: &str) -> Option<Self> {
        let found = |s: &&BackendSpread| s.service == service && s.address == address;
        let found = all.iter().find(found)?;
        Some(Spread {
            priority: found.priority,
            tier_load: found.tier_load,
            ramp: found.ramp,
            weight: found.weight,
            drains: found.draining,
        })
    }

    /// Whether it only waits for its tier to have something to take. To the engine it drains then.
    pub const fn waits(&self) -> bool {
        self.tier_load == 0 && !self.drains
    }

    /// Its tier with the load of that, and how far it has come.
    pub fn text(&self) -> String {
        let tier = format!("{} ({} %)", self.priority, self.tier_load);
        match self.ramp {
            100 => tier,
            ramp => format!("{tier}, slow start {ramp} %"),
        }
    }
}
