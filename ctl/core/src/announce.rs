//! Which VIPs are announced to routers and neighbors, and why the others are not.

use lockstep_plan::health::Verdict;
use lockstep_plan::{Backend, Service, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub mod ways;

use ways::{Advertised, Advertisements};

/// Why a VIP is not announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withheld {
    /// There is no engine that forwards.
    NoEngine,
    /// The operator has taken the whole balancer out.
    Drained,
    /// The daemon ends.
    Ending,
    /// The engine does not have its service (yet).
    NotInForce,
    /// No service of the VIP has a backend that serves; one of these services.
    NoBackend(ServiceName),
    /// Other balancers of the group reach backends of the VIP's services, this one reaches none;
    /// one of these services.
    CutOff(ServiceName),
    /// No Advertisement of the cluster that it is of names its pool, this balancer, and this way.
    NotAdvertised,
}

impl Withheld {
    /// Its name in commands' output and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Withheld::NoEngine => "no_engine",
            Withheld::Drained => "drained",
            Withheld::Ending => "ending",
            Withheld::NotInForce => "not_in_force",
            Withheld::NoBackend(_) => "no_backend",
            Withheld::CutOff(_) => "cut_off",
            Withheld::NotAdvertised => "not_advertised",
        }
    }

    /// The service that it is about.
    pub const fn service(&self) -> Option<&ServiceName> {
        match self {
            Withheld::NoBackend(service) | Withheld::CutOff(service) => Some(service),
            Withheld::NoEngine
            | Withheld::Drained
            | Withheld::Ending
            | Withheld::NotInForce
            | Withheld::NotAdvertised => None,
        }
    }
}

/// What becomes of the balancer as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// The engine has the services in force.
    Forwards,
    /// There is none, or it has nothing in force yet.
    WithoutEngine,
    /// It is drained.
    Drained,
    /// The daemon ends.
    Ends,
}

/// Every address of a VIP: `None` where it is announced, else why not.
pub type Announcements = BTreeMap<IpAddr, Option<Withheld>>;

/// What is announced, and how. Both are told at once: an address without its way would be announced
/// by every way there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announced {
    /// Every address of a VIP.
    pub vips: Announcements,
    /// Those that are not announced by every way.
    pub ways: Advertisements,
}

impl Announced {
    /// These addresses by these ways; one that has none is withheld.
    pub fn new(mut vips: Announcements, mut ways: Advertisements) -> Self {
        ways.retain(|address, _| vips.contains_key(address));
        for (address, way) in &ways {
            if let Some(state @ None) = vips.get_mut(address)
                && !way.is_somehow()
            {
                *state = Some(Withheld::NotAdvertised);
            }
        }
        Announced { vips, ways }
    }

    /// The addresses that are announced, with their way where it is not every one.
    pub fn announced(&self) -> impl Iterator<Item = (IpAddr, Option<&Advertised>)> {
        let announced = self.vips.iter().filter(|(_, why)| why.is_none());
        announced.map(|(address, _)| (*address, self.ways.get(address)))
    }

    /// The addresses that are not announced by a way, and why.
    pub fn withheld(
        &self,
        by: impl Fn(&Advertised) -> bool,
    ) -> impl Iterator<Item = (IpAddr, Withheld)> {
        self.vips.iter().filter_map(move |(address, why)| {
            let elsewhere = || self.ways.get(address).is_some_and(|way| !by(way));
            let why = (why.clone()).or_else(|| elsewhere().then_some(Withheld::NotAdvertised));
            Some((*address, why?))
        })
    }
}

/// What to announce. `services` are those that the engine has, without the backends that are down;
/// an address that several services have is announced as long as one of them serves. `cut_off` are
/// those whose backends this balancer alone does not reach ([`crate::group::reach`]).
pub fn announcements(
    services: &[Service],
    balancer: Balancer,
    cut_off: &BTreeSet<ServiceName>,
) -> Announcements {
    let whole = match balancer {
        Balancer::Forwards => None,
        Balancer::WithoutEngine => Some(Withheld::NoEngine),
        Balancer::Drained => Some(Withheld::Drained),
        Balancer::Ends => Some(Withheld::Ending),
    };
    let mut found = Announcements::new();
    for service in services {
        let own = match serves(service) {
            false => Some(Withheld::NoBackend(service.name.clone())),
            true if cut_off.contains(&service.name) => Some(Withheld::CutOff(service.name.clone())),
            true => None,
        };
        let state = whole.clone().or(own);
        for vip in &service.vips {
            let known = found.entry(vip.address()).or_insert_with(|| state.clone());
            if state.is_none() {
                *known = None;
            }
        }
    }
    found
}

/// Whether a service has backends that are not down. Draining ones count: their flows would be cut
/// off by a router that sends them nowhere.
fn serves(service: &Service) -> bool {
    let up = |b: &&Backend| b.health.verdict != Verdict::Down;
    let needed = service.mode.replicate().map_or(1, |policy| policy.needed());
    service.backends.iter().filter(up).count() >= usize::from(needed)
}

#[cfg(test)]
mod tests;
