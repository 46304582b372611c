//! `Dire`: from a Deployment's pods to a service that replicates, and what is written back.
//!
//! A Dire gets its addresses by a child, the Service `NAME-dire`, as any other Service does. All
//! its ports are one service of the engine, so that connections of one client to several of them
//! can be one session. Sessions are each balancer's own: each writes what it sees into the status
//! ([`parts`]), and the leader sums up what all have written ([`writes`]).

mod ages;
mod child;
mod distributor;
mod events;
mod hive;
mod policy;
mod sessions;
mod status;
mod stop;

pub use ages::Ages;
pub use policy::text as policy_text;
pub use sessions::{ReplicaView, SessionView, Sessions, parts};

use super::{Settings, World, Write};
use hive::{Hive, Standing};
use k8s_openapi::jiff::Timestamp;
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::Dire;
use lockstep_plan::{
    Backend, BackendState, Guard, Health, IdleTimeouts, Mode, Protocol, Replicate, Scheduler,
    Service, ServiceName, TableSize, Unserved, Vip, Weight,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The Dires of this installation: of each class one serves them, and writes to them.
fn ours<'a>(
    world: &'a World,
    settings: &'a Settings,
) -> impl Iterator<Item = (&'a Name, &'a Arc<Dire>)> {
    let dires = world.dires.iter();
    dires.filter(|(_, dire)| dire.spec.load_balancer_class == settings.class)
}

/// The namespaces whose pods and Deployments decide something: those with a Dire of ours.
pub fn namespaces(world: &World, settings: &Settings) -> BTreeSet<Arc<str>> {
    let names = ours(world, settings).map(|(name, _)| name);
    names.map(|name| Arc::clone(&name.namespace)).collect()
}

/// The name of a Dire's service in the engine: that of its child, which no other Service can have.
pub fn service_name(dire: &Name) -> Option<ServiceName> {
    ServiceName::new(&child::name(dire).to_string())
}

/// What this balancer serves for Dires. Those with a distributor of their own are served there.
pub fn services(world: &World, settings: &Settings) -> Vec<Service> {
    let dires = ours(world, settings);
    dires.filter_map(|(n, d)| service(world, n, d)).collect()
}

fn service(world: &World, name: &Name, dire: &Dire) -> Option<Service> {
    if dire.metadata.deletion_timestamp.is_some() || dire.spec.distributor_image.is_some() {
        return None;
    }
    let child = child::existing(world, name)?;
    let policy = policy::policy(&dire.spec).ok()?;
    let addresses = child.ingress.iter().map(|ingress| ingress.address);
    let vips = addresses.flat_map(|address| {
        let ports = dire.spec.forwarded_ports.iter();
        ports.filter_map(move |port| Vip::new(address, *port, Protocol::Tcp).ok())
    });
    let vips: BTreeSet<Vip> = vips.collect();
    if vips.is_empty() {
        return None;
    }
    Some(Service {
        name: service_name(name)?,
        vips: vips.into_iter().collect(),
        mode: Mode::Replicate(Arc::new(policy)),
        backends: backends(&hive::find(world, name, dire)),
        scheduler: Scheduler::default(),
        guard: Guard::default(),
        // Whoever connects while there is no pod finds out at once.
        unserved: Unserved::Reset,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
    })
}

fn backends(hive: &Hive<'_>) -> Vec<Backend> {
    let replicas = hive.replicas().iter().filter_map(|replica| {
        Some(Backend {
            name: replica.pod.name.name.to_string(),
            address: replica.address?,
            weight: Weight::DEFAULT,
            state: match replica.standing {
                Standing::Active => BackendState::Active,
                Standing::Draining => BackendState::Draining,
                Standing::Pending => return None,
            },
            port: None,
            health: Health::UNKNOWN,
        })
    });
    // An address that two pods have is that of the one that runs now; the other is going.
    let mut seen = BTreeSet::new();
    let mut backends: Vec<Backend> = replicas.collect();
    backends.sort_by_key(|b| b.state == BackendState::Draining);
    backends.retain(|backend| seen.insert(backend.address));
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    backends
}

/// What the leader writes. Nothing, when all is as it should be. `ages` are those of the balancers'
/// parts by the leader's own clock.
pub fn writes(world: &World, settings: &Settings, ages: &Ages, now: Timestamp) -> Vec<Write> {
    let mut writes = Vec::new();
    for (name, dire) in ours(world, settings) {
        if dire.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let hive = hive::find(world, name, dire);
        let policy = policy::policy(&dire.spec);
        writes.extend(child::write(world, settings, name, dire));
        writes.extend(distributor::writes(world, name, dire, &hive, &policy));
        let status = status::status(&status::Situation {
            world,
            name,
            dire,
            hive: &hive,
            policy: &policy,
            ages,
            now,
        });
        writes.extend(status::write(name, dire, &status));
        writes.extend(events::events(name, dire, &status));
        writes.extend(sessions::stale(name, dire, ages));
        writes.extend(stop::write(world, name, dire, &hive));
    }
    writes
}

/// How many replicas a session needs; 1 where the policy is none.
fn needed(policy: &Result<Replicate, String>) -> usize {
    policy.as_ref().map_or(1, |p| usize::from(p.needed()))
}

/// The object itself, to be written to or told of.
fn object(name: &Name) -> super::write::Object {
    super::write::Object {
        kind: super::write::Kind::Dire,
        name: name.clone(),
    }
}

#[cfg(test)]
mod tests;
