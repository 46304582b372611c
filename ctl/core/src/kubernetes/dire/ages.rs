//! How old the parts of balancers are, by the leader's own clock.
//!
//! As a Lease's age in client-go: what counts is how long it is that a part was *seen* to be renewed,
//! by a clock that never jumps. The times in parts are other hosts' wall clocks, which need not agree
//! with anybody's. A leader that has just begun knows of no age, and takes every part for a new one.

use crate::kubernetes::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::dire::DireBalancer;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Ages {
    now: Duration,
    /// By Dire and balancer: what the part said, and when it was first seen to say so.
    seen: BTreeMap<Name, BTreeMap<String, (MicroTime, Duration)>>,
}

impl Ages {
    /// Looks at all parts. `now` is of a monotonic clock, the same at each look.
    pub fn look(&mut self, world: &World, now: Duration) {
        self.now = now;
        let before = std::mem::take(&mut self.seen);
        for (name, dire) in &world.dires {
            let parts = dire.status.iter().flat_map(|status| &status.balancers);
            let known = before.get(name);
            let seen = parts.map(|part| {
                let known = known.and_then(|known| known.get(&part.name));
                let same = known.filter(|(renewed, _)| *renewed == part.renew_time);
                let at = same.map_or(now, |(_, at)| *at);
                (part.name.clone(), (part.renew_time.clone(), at))
            });
            let seen: BTreeMap<_, _> = seen.collect();
            if !seen.is_empty() {
                self.seen.insert(name.clone(), seen);
            }
        }
    }

    /// The age of a part at the last look.
    pub fn of(&self, dire: &Name, part: &DireBalancer) -> Duration {
        let seen = self.seen.get(dire).and_then(|parts| parts.get(&part.name));
        seen.map_or(Duration::ZERO, |(_, at)| self.now.saturating_sub(*at))
    }
}
