//! How new flows are spread over backends, as far as the engine is not to know it: tiers of
//! backends, and backends that begin slowly. Both become weights and states of a snapshot here:
//! a backend that is to get nothing is [`BackendState::Draining`] there, and keeps its flows.

mod ramps;
mod tiers;
mod weights;

pub use ramps::Ramps;
pub use tiers::{Tier, loads};

use crate::drains::Timestamp;
use crate::reconcile::are_same;
use lockstep_plan::health::Verdict;
use lockstep_plan::{Backend, BackendId, BackendState, Service, ServiceName, Weight};
use std::collections::BTreeMap;
use std::time::Duration;
use weights::integers;

/// The tier of a backend: those of 0 serve first, those of a higher number as the lower ones fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(u8);

impl Priority {
    /// The last tier.
    pub const MAX: u8 = 15;

    /// A priority up to [`Priority::MAX`].
    pub const fn new(number: u8) -> Option<Self> {
        if number <= Self::MAX {
            Some(Priority(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How a service spreads new flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// How long a backend that becomes active takes to its full share.
    pub slow_start: Option<Duration>,
    /// The tiers of backends that are not in the first one by their silence.
    pub priorities: BTreeMap<BackendId, Priority>,
}

impl Spread {
    /// The tier of a backend.
    pub fn priority(&self, backend: BackendId) -> Priority {
        self.priorities.get(&backend).copied().unwrap_or_default()
    }
}

/// How each service spreads them.
pub type Spreads = BTreeMap<ServiceName, Spread>;

/// Lays tiers and slow starts over services, which have their drains and what is known of their
/// health already. `file` are the same services as the file has them: a backend that is drained
/// and removed still counts as a member of its tier.
pub fn lay_over(
    services: &mut [Service],
    file: &[Service],
    spreads: &Spreads,
    ramps: &Ramps,
    now: Timestamp,
) {
    let file: BTreeMap<&ServiceName, &Service> = file.iter().map(|s| (&s.name, s)).collect();
    for service in services {
        if let Some(spread) = spreads.get(&service.name) {
            let members = file.get(&service.name).map_or(&[][..], |s| &s.backends);
            let shares = Shares::new(service, members, spread, ramps, now);
            shares.lay_over(service);
        }
    }
}

/// Whether an engine has the services that it should have, however far slow starts have come in either:
/// their next step may be on its way to the engine while both are looked at.
pub fn same_but_for_ramps(wanted: &[Service], has: &[Service], spreads: &Spreads) -> bool {
    let without = |services: &[Service]| -> Vec<Service> {
        let mut services = services.to_vec();
        for service in &mut services {
            let spread = spreads.get(&service.name);
            if spread.is_some_and(|spread| spread.slow_start.is_some()) {
                for backend in &mut service.backends {
                    backend.weight = Weight::DEFAULT;
                }
            }
        }
        services
    };
    are_same(&without(wanted), &without(has))
}

/// What a backend's tier and its slow start make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The service.
    pub service: ServiceName,
    /// The backend.
    pub backend: BackendId,
    /// Its tier.
    pub priority: Priority,
    /// Percent of the service's new flows that its tier gets.
    pub tier_load: u8,
    /// Percent of its weight that it has, 100 where it does not begin slowly.
    pub ramp: u8,
    /// Its weight in the file.
    pub weight: Weight,
    /// Whether it takes no new flows whatever its tier gets.
    pub draining: bool,
}

/// The shares of services that have tiers, or backends that begin slowly.
pub fn shares(
    services: &[Service],
    file: &[Service],
    spreads: &Spreads,
    ramps: &Ramps,
    now: Timestamp,
) -> Vec<Share> {
    let members: BTreeMap<&ServiceName, &Service> = file.iter().map(|s| (&s.name, s)).collect();
    let of = |service: &Service| -> Vec<Share> {
        let Some(spread) = spreads.get(&service.name) else {
            return Vec::new();
        };
        let members = members.get(&service.name).map_or(&[][..], |s| &s.backends);
        let shares = Shares::new(service, members, spread, ramps, now);
        if shares.changes_nothing() {
            return Vec::new();
        }
        let one = |(backend, part): (&Backend, &Part)| Share {
            service: service.name.clone(),
            backend: backend.id(),
            priority: part.priority,
            tier_load: shares.loads[usize::from(part.priority.get())],
            ramp: part.tenths * 10,
            weight: backend.weight,
            draining: !part.healthy,
        };
        service
            .backends
            .iter()
            .zip(&shares.parts)
            .map(one)
            .collect()
    };
    services.iter().flat_map(of).collect()
}

/// The parts that the backends of a service have in its new flows.
struct Shares {
    /// By tier, in percent; together 100, or nothing where no backend is healthy.
    loads: [u8; Priority::MAX as usize + 1],
    /// In the order of the service's backends.
    parts: Vec<Part>,
}

struct Part {
    priority: Priority,
    healthy: bool,
    /// How much of its weight it has, 1 to 10.
    tenths: u8,
}

impl Shares {
    fn new(
        service: &Service,
        members: &[Backend],
        spread: &Spread,
        ramps: &Ramps,
        now: Timestamp,
    ) -> Self {
        let mut tiers = [Tier::default(); Priority::MAX as usize + 1];
        for member in members {
            tiers[usize::from(spread.priority(member.id()).get())].total += 1;
        }
        let parts: Vec<Part> = service
            .backends
            .iter()
            .map(|backend| Part {
                priority: spread.priority(backend.id()),
                healthy: backend.state == BackendState::Active
                    && backend.health.verdict != Verdict::Down,
                tenths: ramps.tenths(&service.name, backend.id(), spread.slow_start, now),
            })
            .collect();
        for part in parts.iter().filter(|p| p.healthy) {
            tiers[usize::from(part.priority.get())].healthy += 1;
        }
        Shares {
            loads: loads(&tiers),
            parts,
        }
    }

    /// Whether every backend has its weight of the file.
    fn changes_nothing(&self) -> bool {
        let first = Priority::default();
        self.parts
            .iter()
            .all(|part| part.priority == first && part.tenths == 10)
    }

    fn load(&self, part: &Part) -> u8 {
        let healthy = part
            .healthy
            .then(|| self.loads[usize::from(part.priority.get())]);
        healthy.unwrap_or(0)
    }

    fn lay_over(&self, service: &mut Service) {
        let nobody = self.loads.iter().all(|&load| load == 0);
        if nobody || self.changes_nothing() {
            return;
        }
        let alone = self.loads.contains(&100);
        let whole = self
            .parts
            .iter()
            .filter(|p| self.load(p) > 0)
            .all(|p| p.tenths == 10);
        let weights = (!alone || !whole).then(|| self.weights(service));
        for (at, (backend, part)) in service.backends.iter_mut().zip(&self.parts).enumerate() {
            if self.load(part) == 0 {
                backend.state = BackendState::Draining;
            } else if let Some(weights) = &weights {
                backend.weight = weights[at];
            }
        }
    }

    /// In a tier, flows go by weight; and the tier has its load in all of them.
    fn weights(&self, service: &Service) -> Vec<Weight> {
        let present = |(backend, part): (&Backend, &Part)| {
            u128::from(backend.weight.get()) * u128::from(part.tenths)
        };
        let mut sums = [0_u128; Priority::MAX as usize + 1];
        let both = || service.backends.iter().zip(&self.parts);
        for (backend, part) in both().filter(|(_, p)| self.load(p) > 0) {
            sums[usize::from(part.priority.get())] += present((backend, part));
        }
        let fractions: Vec<(u128, u128)> = both()
            .map(|(backend, part)| match self.load(part) {
                0 => (0, 1),
                load => (
                    u128::from(load) * present((backend, part)),
                    sums[usize::from(part.priority.get())],
                ),
            })
            .collect();
        integers(&fractions)
    }
}

#[cfg(test)]
mod tests;
