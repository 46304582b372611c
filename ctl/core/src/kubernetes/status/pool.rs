//! The status of pools.

use super::{Told, tell};
use crate::kubernetes::allocate::Allocation;
use crate::kubernetes::pools::{Pool, Pools};
use crate::kubernetes::translate::is_ours;
use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{Settings, World, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::AddressPool;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What differs.
pub(super) fn write(
    world: &World,
    pools: &Pools,
    allocation: &Allocation,
    settings: &Settings,
    now: &str,
    writes: &mut Vec<Write>,
) {
    let assigned = allocation.assigned.values();
    let mut held: BTreeSet<IpAddr> = assigned.flat_map(|a| &a.addresses).copied().collect();
    // What Services of other installations have of it counts as well: all come to the same numbers.
    let others = world.services.values();
    let others = others.filter(|s| s.load_balancer && !is_ours(s, settings));
    held.extend(others.flat_map(|s| &s.ingress).map(|i| i.address));
    for pool in pools.iter() {
        if let Some(object) = world.pools.get(&pool.name) {
            write_one(object, pool, &held, now, writes);
        }
    }
}

fn write_one(
    object: &AddressPool,
    pool: &Pool,
    held: &BTreeSet<IpAddr>,
    now: &str,
    writes: &mut Vec<Write>,
) {
    let before = object.status.clone().unwrap_or_default();
    let has = held.iter().filter(|address| pool.has(**address));
    let assigned = i64::try_from(has.count()).unwrap_or(i64::MAX);
    let gives = |address: &&IpAddr| {
        pool.has(**address) && pool.dispute(**address).is_none() && !pool.avoids(**address)
    };
    let taken = held.iter().filter(gives).count() as u128;
    let available = pool.size().saturating_sub(taken);
    let generation = object.metadata.generation;
    let said = [ready(pool, available), conflict(pool)];
    let conditions: Vec<Value> = (said.iter())
        .map(|said| said.json(&before.conditions, generation, now))
        .collect();
    let unchanged = before.observed_generation == generation
        && before.available == available.to_string()
        && before.assigned == assigned
        && serde_json::to_value(&before.conditions).is_ok_and(|known| known == json!(conditions));
    if unchanged {
        return;
    }
    let name = Name::new("", &pool.name);
    writes.push(Write::Apply {
        object: Object {
            kind: Kind::AddressPool,
            name: name.clone(),
        },
        status: true,
        body: json!({
            "status": {
                "observedGeneration": generation,
                "available": available.to_string(),
                "assigned": assigned,
                "conditions": conditions,
            }
        }),
    });
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    for said in said.iter().filter(|said| said.is_news(&before.conditions)) {
        let Some(reason) = said.event else { continue };
        let told = Told {
            warning: true,
            reason,
            action: "Read",
            note: &said.message,
        };
        writes.push(tell(Kind::AddressPool, &name, uid, &told));
    }
}

/// A condition, as it is to be.
pub(super) struct Said {
    pub kind: &'static str,
    pub is: bool,
    pub reason: &'static str,
    pub message: String,
    /// The warning that goes with it.
    pub event: Option<&'static str>,
}

impl Said {
    fn status(&self) -> &'static str {
        if self.is { "True" } else { "False" }
    }

    /// As it stands in a status; since now, where it was another one before.
    pub(super) fn json(&self, before: &[Condition], generation: Option<i64>, now: &str) -> Value {
        let known = before.iter().find(|c| c.type_ == self.kind);
        let known = known.filter(|c| c.status == self.status());
        let since = known.and_then(|c| serde_json::to_value(&c.last_transition_time).ok());
        let mut value = json!({
            "type": self.kind,
            "status": self.status(),
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": since.unwrap_or_else(|| json!(now)),
        });
        if let Some(generation) = generation {
            value["observedGeneration"] = json!(generation);
        }
        value
    }

    /// Whether it says something that it did not say before.
    pub(super) fn is_news(&self, before: &[Condition]) -> bool {
        let known = before.iter().find(|c| c.type_ == self.kind);
        known
            .is_none_or(|c| (c.reason.as_str(), c.message.as_str()) != (self.reason, &self.message))
    }
}

fn ready(pool: &Pool, available: u128) -> Said {
    let said = |is, reason, message, event| Said {
        kind: "Ready",
        is,
        reason,
        message,
        event,
    };
    if let Some(problem) = &pool.selector_problem {
        let message = format!("it gives no addresses: {problem}");
        return said(false, "InvalidSelector", message, Some("InvalidSelector"));
    }
    if !pool.problems.is_empty() {
        let rest = match pool.ranges.is_empty() {
            true => "",
            false => "; the other entries count",
        };
        let message = format!("{}{rest}", shown(&pool.problems, "; "));
        return said(false, "InvalidAddresses", message, Some("InvalidAddresses"));
    }
    if available == 0 {
        let message = "it has no free address left; add some, or delete Services that have some";
        return said(true, "Exhausted", message.to_owned(), Some("PoolExhausted"));
    }
    said(true, "AddressesFree", String::new(), None)
}

fn conflict(pool: &Pool) -> Said {
    let shared = pool.overlaps.iter();
    let shared: Vec<String> = shared
        .map(|(other, range)| format!("{range} with {other}"))
        .collect();
    match shared.is_empty() {
        true => Said {
            kind: "Conflict",
            is: false,
            reason: "NoOverlap",
            message: String::new(),
            event: None,
        },
        false => Said {
            kind: "Conflict",
            is: true,
            reason: "Overlap",
            message: format!(
                "it shares {}: Services keep what they have of that, and get no more of it; take \
                 it out of one of the pools",
                shown(&shared, ", ")
            ),
            event: Some("PoolConflict"),
        },
    }
}

/// The first ones of many.
fn shown(all: &[String], between: &str) -> String {
    const SHOWN: usize = 4;
    match all.len() {
        0..=SHOWN => all.join(between),
        more => format!(
            "{}{between}and {} more",
            all[..SHOWN].join(between),
            more - SHOWN
        ),
    }
}
