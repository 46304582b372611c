//! Where what stands in the store, and how it is written there.

use super::Deadline;
use crate::checks::Verdicts;
use crate::drains::{Target, Timestamp};
use lockstep_plan::health::Verdict;
use lockstep_plan::{BackendId, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The largest value that is written or read, in bytes: etcd takes 1.5 MiB at most.
pub const MAX_VALUE: usize = 1 << 20;

/// The keys of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Of the group of this name, which has no slash.
    pub fn new(group: &str) -> Self {
        Keys {
            prefix: format!("/lockstep/{group}/"),
        }
    }

    /// What the keys of all members begin with.
    pub fn members(&self) -> String {
        format!("{}members/", self.prefix)
    }

    /// Of a balancer.
    pub fn member(&self, name: &str) -> String {
        format!("{}members/{name}", self.prefix)
    }

    /// The balancer of a key.
    pub fn member_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let name = key.strip_prefix(&self.prefix)?.strip_prefix("members/")?;
        is_name(name).then_some(name)
    }

    /// What the keys of all drains begin with.
    pub fn drains(&self) -> String {
        format!("{}drains/", self.prefix)
    }

    /// Of a drain. Services' names may have slashes; addresses have none.
    pub fn drain(&self, target: &Target) -> String {
        let (service, backend) = (target.service.as_str(), target.backend.0);
        format!("{}drains/{service}/{backend}", self.prefix)
    }

    /// The backend of a drain's key.
    pub fn drain_of(&self, key: &str) -> Option<Target> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix("drains/")?;
        let (service, backend) = rest.rsplit_once('/')?;
        Some(Target {
            service: ServiceName::new(service)?,
            backend: BackendId(backend.parse().ok()?),
        })
    }

    /// Of what belongs to random numbers.
    pub fn random(&self, what: &str) -> String {
        format!("{}random/{what}", self.prefix)
    }
}

/// Whether a balancer can have this name: 1 to 64 letters, digits, `-`, `_` or `.`.
pub fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// What a balancer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Tells daemons of the same name apart. It stays the same over restarts.
    pub instance: String,
    /// When it joined.
    pub since: Timestamp,
    /// What its checks have found; what they have not asked yet is not in it.
    pub verdicts: Verdicts,
}

#[derive(Serialize, Deserialize)]
struct MemberText {
    instance: String,
    since_unix_ms: Timestamp,
    services: BTreeMap<String, Found>,
}

#[derive(Serialize, Deserialize, Default)]
struct Found {
    up: Vec<IpAddr>,
    down: Vec<IpAddr>,
}

impl Member {
    /// As JSON.
    pub fn to_json(&self) -> String {
        let mut services: BTreeMap<String, Found> = BTreeMap::new();
        for (target, verdict) in &self.verdicts {
            let place = |found: &mut Found, verdict| match verdict {
                Verdict::Unknown => {}
                Verdict::Up => found.up.push(target.backend.0),
                Verdict::Down => found.down.push(target.backend.0),
            };
            let found = services.entry(target.service.as_str().to_owned());
            place(found.or_default(), *verdict);
        }
        let text = MemberText {
            instance: self.instance.clone(),
            since_unix_ms: self.since,
            services,
        };
        serde_json::to_string(&text).expect("strings and numbers always serialize")
    }

    /// What [`Member::to_json`] wrote, here or in another version of the daemon: what it does not
    /// know is left out. `None` where it is something else.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        let text: MemberText = serde_json::from_slice(text).ok()?;
        let mut verdicts = Verdicts::new();
        for (service, found) in text.services {
            let Some(service) = ServiceName::new(&service) else {
                continue;
            };
            let up = found.up.into_iter().map(|a| (a, Verdict::Up));
            let down = found.down.into_iter().map(|a| (a, Verdict::Down));
            verdicts.extend(up.chain(down).map(|(address, verdict)| {
                let target = Target {
                    service: service.clone(),
                    backend: BackendId(address),
                };
                (target, verdict)
            }));
        }
        Some(Member {
            instance: text.instance,
            since: text.since_unix_ms,
            verdicts,
        })
    }
}

/// A drain as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDrain {
    /// When the backend is removed; null waits for its last flow.
    pub deadline_unix_ms: Deadline,
    /// The [`Member::instance`] that wrote it.
    pub by: String,
}

impl SharedDrain {
    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialize")
    }

    /// What [`SharedDrain::to_json`] wrote.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}
