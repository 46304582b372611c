//! What the leader writes to Services, pools and advertisements.
//!
//! Only what differs from what the world says is there: what is written comes back as the world, and
//! then there is nothing more to write. Events are told of changes, together with them.

use super::allocate::Allocation;
use super::pools::Pools;
use super::translate::{Problem, Translator};
use super::write::{Event, Kind, Object};
use super::{Settings, World, Write};
use lockstep_kubernetes::facts::Name;

mod advertisement;
mod pool;
mod service;

/// The condition of a Service with ports that cannot be served (KEP-1435's `LoadBalancerPortsError`).
pub const PORTS_ERROR: &str = "LoadBalancerPortsError";

/// What is to be written, where something is. `now` is the time, as RFC 3339 has it.
pub fn writes(
    world: &World,
    allocation: &Allocation,
    translator: &Translator,
    settings: &Settings,
    now: &str,
) -> Vec<Write> {
    all(
        world,
        allocation,
        &|name| translator.problems(name),
        settings,
        now,
    )
}

pub(super) fn all<'a>(
    world: &World,
    allocation: &Allocation,
    problems: &dyn Fn(&Name) -> &'a [Problem],
    settings: &Settings,
    now: &str,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let pools = Pools::of(world, &settings.class);
    for service in world.left.values() {
        service::release(service, settings, &mut writes);
    }
    for (name, service) in &world.services {
        service::write(
            &service::Decided {
                service,
                assigned: allocation.assigned.get(name),
                refused: allocation.refused.get(name),
                problems: problems(name),
            },
            settings,
            now,
            &mut writes,
        );
    }
    pool::write(world, &pools, allocation, settings, now, &mut writes);
    advertisement::write(world, now, &mut writes);
    writes
}

/// An event, as it is about to be written.
struct Told<'a> {
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: &'a str,
}

fn tell(kind: Kind, name: &Name, uid: &str, told: &Told<'_>) -> Write {
    Write::Event(Event {
        about: Object {
            kind,
            name: name.clone(),
        },
        uid: uid.to_owned(),
        warning: told.warning,
        reason: told.reason,
        action: told.action,
        note: shortened(told.note),
    })
}

/// The API server takes notes of a kilobyte (events.k8s.io/v1).
fn shortened(note: &str) -> String {
    const MOST: usize = 1_000;
    match note.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &note[..end]),
        None => note.to_owned(),
    }
}

#[cfg(test)]
mod tests;
