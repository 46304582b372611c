//! Health checks: which backends are asked what, and what their answers make of them.
//!
//! What is asked of a backend is a [`Probe`], when it is asked a [`Pace`]. [`Checks`] says whose
//! turn it is and makes verdicts of outcomes; it performs no I/O, and time and randomness are its
//! arguments. [`lay_over`] takes backends that are down out of services.
//!
//! Beside the pings of replicas ([`crate::health`]), whose times choose a session's first primary.

use crate::config::health::Defaults;
use crate::drains::Target;
use lockstep_plan::health::Verdict;
use lockstep_plan::{BackendState, Health, Service, ServiceName, Vip};
use std::collections::BTreeMap;
use std::time::Duration;

mod damping;
mod pace;
mod probe;
mod schedule;
mod state;

pub use damping::Damping;
pub use pace::Pace;
pub use probe::{Exchange, Http, HttpVersion, MAX_BODY, Pattern, Probe, Statuses, Tls, Via};
pub use schedule::{Change, Checks, LIMIT, Order, SCRIPTS, Seen, Sign, Ticket};
pub use state::Outcome;

/// How a service's backends are checked, as `services.toml` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What they are asked.
    pub probe: Probe,
    /// On which way.
    pub via: Via,
    /// The port that is asked, where it is not that of the backend or the VIP.
    pub port: Option<u16>,
    /// From one check to the next.
    pub interval: Option<Duration>,
    /// The same, while checks speak against the verdict.
    pub fast_interval: Option<Duration>,
    /// How long a check may take.
    pub timeout: Option<Duration>,
    /// Checks in a row that make a backend up.
    pub rise: Option<u8>,
    /// Checks in a row that make a backend down.
    pub fall: Option<u8>,
}

/// What a service becomes when every backend of it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllDown {
    /// All of them stay: a check that fails everywhere is more often wrong than right.
    #[default]
    Keep,
    /// None stays: packets are dropped as `no_backend`.
    Drop,
    /// None stays: connections are reset, datagrams answered as unreachable.
    Reset,
}

/// What a service says of its health.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// `None` where its backends are not checked.
    pub check: Option<Check>,
    /// See there.
    pub all_down: AllDown,
}

/// A backend to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is asked, and on which way.
    pub check: Check,
    /// When, every default filled in.
    pub pace: Pace,
    /// Its name in the file.
    pub name: String,
    /// The service that it is in, as far as the way through the tunnel goes by it.
    pub encapsulation: lockstep_plan::Encapsulation,
    /// The VIP of its service that is asked for where the check goes through the tunnel, and
    /// whose port is asked where neither check nor backend has one.
    pub vip: Vip,
    /// The backend's own port, where it has one.
    pub port: Option<u16>,
}

impl Subject {
    /// The port that is asked.
    pub fn asked_port(&self) -> u16 {
        let own = self.check.port.or(self.port);
        own.unwrap_or_else(|| self.vip.port())
    }
}

/// Every backend to be checked.
pub type Subjects = BTreeMap<Target, Subject>;

/// What is known of backends. One that is not in it was not asked.
pub type Verdicts = BTreeMap<Target, Verdict>;

/// The backends to be checked: those of services that have a check.
pub fn subjects(
    services: &[Service],
    policies: &BTreeMap<ServiceName, Policy>,
    defaults: &Defaults,
) -> Subjects {
    let checked = services.iter().filter_map(|service| {
        let check = policies.get(&service.name)?.check.as_ref()?;
        // A service without a VIP is in no snapshot.
        let vip = *service.vips.first()?;
        Some((service, check, vip))
    });
    let all = checked.flat_map(|(service, check, vip)| {
        let pace = Pace::of(check, defaults);
        let encapsulation = match service.mode {
            lockstep_plan::Mode::Tunnel(encapsulation) => encapsulation,
            _ => lockstep_plan::Encapsulation::Ipip,
        };
        service.backends.iter().map(move |backend| {
            let target = Target {
                service: service.name.clone(),
                backend: backend.id(),
            };
            let subject = Subject {
                check: check.clone(),
                pace,
                name: backend.name.clone(),
                encapsulation,
                vip,
                port: backend.port.map(Into::into),
            };
            (target, subject)
        })
    });
    all.collect()
}

/// Lays verdicts over services: backends that are down are left out; replicas stay and are marked
/// instead, since sessions end with them in their own way. Where no active backend of a service
/// would be left, its policy says what becomes of it.
pub fn lay_over(
    services: &mut [Service],
    policies: &BTreeMap<ServiceName, Policy>,
    verdicts: &Verdicts,
) {
    for service in services {
        let Some(policy) = policies.get(&service.name).filter(|p| p.check.is_some()) else {
            continue;
        };
        let name = service.name.clone();
        let is_down = |backend: &lockstep_plan::Backend| {
            let target = Target {
                service: name.clone(),
                backend: backend.id(),
            };
            verdicts.get(&target) == Some(&Verdict::Down)
        };
        if service.mode.replicate().is_some() {
            for backend in service.backends.iter_mut().filter(|b| is_down(b)) {
                backend.health = Health {
                    verdict: Verdict::Down,
                    rtt: None,
                };
            }
            continue;
        }
        let active = |b: &&lockstep_plan::Backend| b.state == BackendState::Active;
        let all_down = service.backends.iter().filter(active).all(&is_down);
        match (all_down, policy.all_down) {
            (true, AllDown::Keep) => {}
            (true, AllDown::Drop | AllDown::Reset) | (false, _) => {
                service.backends.retain(|b| !is_down(b));
            }
        }
    }
}

#[cfg(test)]
mod tests;
