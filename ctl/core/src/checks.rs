//! Health checks: which backends are asked what, and what their answers make of them.
//!
//! Beside the pings of replicas ([`crate::health`]), whose times choose a session's first primary.

use crate::config::health::Defaults;
use crate::drains::Target;
use lockstep_plan::health::Verdict;
use lockstep_plan::{Service, ServiceName, Vip};
use std::collections::BTreeMap;

/// How a service's backends are checked, as `services.toml` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {}

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
    /// How, every default filled in.
    pub check: Check,
    /// The VIP of its service that is asked for where the check goes through the tunnel, and
    /// whose port is asked where neither check nor backend has one.
    pub vip: Vip,
    /// The backend's own port, where it has one.
    pub port: Option<u16>,
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
    let _ = (services, policies, defaults);
    Subjects::new()
}

/// Lays verdicts over services: backends that are down are left out; replicas stay and are marked
/// instead, since sessions end with them in their own way. Where all of a service are down, its
/// policy says what becomes of it.
pub fn lay_over(
    services: &mut [Service],
    policies: &BTreeMap<ServiceName, Policy>,
    verdicts: &Verdicts,
) {
    let _ = (services, policies, verdicts);
}
