//! A Service as services of the engine: one of each port (and family), at the addresses that stand
//! in the Service's status.
//!
//! A Service is translated when it, its slices or what all of them go by has changed; what Services
//! may not do to each other is settled afterwards (`settle`). The outcome is the same as that of a
//! translation of everything from the beginning, and always makes a snapshot.

mod port;
pub(super) mod wishes;

use super::settle::{Board, Draft, Wanted};
use super::{Settings, World, dire, gateway, names};
use crate::services::sources::Offer;
use lockstep_kubernetes::annotations;
use lockstep_kubernetes::facts::{Name, Protocol, Service, Slice};
use lockstep_plan::{PlanError, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What of a Service cannot be served as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The port that is not served for it. `None` where the Service is served all the same, in a
    /// lesser way, or where it is about all of it.
    pub port: Option<(u16, Protocol)>,
    /// In a word, in CamelCase.
    pub reason: &'static str,
    /// What it is, and what to do.
    pub message: String,
}

/// Whether a Service is for us.
pub fn is_ours(service: &Service, settings: &Settings) -> bool {
    let class = match &service.class {
        Some(class) => *class == settings.class,
        None => settings.default_class,
    };
    service.load_balancer && !service.deleting && class
}

/// Keeps the translation of each Service.
#[derive(Debug, Default)]
pub struct Translator {
    basis: Option<Basis>,
    board: Board,
    /// Services that were made for something else, which makes what is served at their addresses.
    children: BTreeSet<Name>,
}

/// What the translation of every Service goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    settings: Settings,
    /// The zone of this balancer's node.
    zone: Option<String>,
}

impl Translator {
    /// Translates what may be another one. Whether any service, or any problem, is.
    pub fn update(&mut self, world: &mut World, settings: &Settings) -> bool {
        let mut dirty = world.take_dirty();
        let node = settings.node.as_ref().and_then(|n| world.nodes.get(n));
        let basis = Basis {
            settings: settings.clone(),
            zone: node.and_then(|node| node.zone().map(str::to_owned)),
        };
        if self.basis.as_ref() != Some(&basis) {
            dirty.extend(world.services.keys().cloned());
            dirty.extend(self.board.names().cloned());
        }
        for name in &dirty {
            let service = world.services.get(name).filter(|s| is_ours(s, settings));
            match service {
                // What is made of it comes from a `Dire` or a Gateway.
                Some(service) if is_child(service) => _ = self.children.insert(name.clone()),
                Some(service) => self.board.put(name, wanted(world, service, &basis)),
                None => self.board.remove(name),
            }
        }
        self.basis = Some(basis);
        self.put_children(world, settings);
        self.board.settle()
    }

    /// All services, with those of `Dire`s and Gateways.
    pub fn offer(&self) -> Offer {
        Offer {
            services: self.services().map(|s| s.as_ref().clone()).collect(),
            ..Offer::default()
        }
    }

    /// The same, each as it is kept.
    pub fn services(&self) -> impl Iterator<Item = &Arc<lockstep_plan::Service>> {
        self.board.services()
    }

    /// What of a Service cannot be served, and why. Also of one that was made for a `Dire` or a
    /// Gateway.
    pub fn problems(&self, name: &Name) -> &[Problem] {
        self.board.problems(name)
    }

    fn put_children(&mut self, world: &World, settings: &Settings) {
        let services = others(world, settings);
        let mut of_child: BTreeMap<Name, Vec<lockstep_plan::Service>> = BTreeMap::new();
        for service in services {
            if let Some(child) = names::service_of(&service.name) {
                of_child.entry(child).or_default().push(service);
            }
        }
        let ours = |name: &Name| world.services.get(name).filter(|s| is_ours(s, settings));
        of_child.retain(|name, _| ours(name).is_some_and(|s| is_child(s)));
        for name in std::mem::take(&mut self.children) {
            let translated = ours(&name).is_some_and(|s| !is_child(s));
            if !of_child.contains_key(&name) && !translated {
                self.board.remove(&name);
            }
        }
        for (name, services) in of_child {
            let created = world.services.get(&name).map_or(i64::MAX, |s| s.created);
            self.board.put(&name, of_others(created, services));
            self.children.insert(name);
        }
    }
}

/// Services of `Dire`s and Gateways, at the addresses of the Services made for them.
fn others(world: &World, settings: &Settings) -> Vec<lockstep_plan::Service> {
    let mut services = dire::services(world, settings);
    services.extend(gateway::services(world, settings));
    services
}

/// Whether it was made to get addresses for something else.
fn is_child(service: &Service) -> bool {
    let made_for = [annotations::DIRE, annotations::GATEWAY];
    made_for
        .iter()
        .any(|key| service.annotations.contains_key(*key))
}

/// What somebody else has made for a child. What would be wrong by itself is left out, so that it
/// holds up nobody.
fn of_others(created: i64, services: Vec<lockstep_plan::Service>) -> Wanted {
    let mut wanted = Wanted {
        created,
        ..Wanted::default()
    };
    for service in services {
        let alone = Snapshot::new(0, vec![service.clone()]);
        let twice = wanted.drafts.iter().any(|d| {
            let vip = |vip| d.service.vips.contains(vip);
            d.service.name == service.name || service.vips.iter().any(vip)
        });
        let error = match alone {
            Err(errors) => errors.into_iter().next(),
            Ok(_) => twice.then(|| PlanError::DuplicateService(service.name.clone())),
        };
        match error {
            None => wanted.drafts.push(Draft {
                port: None,
                service: Arc::new(service),
            }),
            Some(error) => wanted.problems.push(Problem {
                port: None,
                reason: "Impossible",
                message: error.to_string(),
            }),
        }
    }
    wanted
}

/// What a Service asks for.
fn wanted(world: &World, service: &Service, basis: &Basis) -> Wanted {
    let slices: Vec<&Slice> = world
        .slices
        .get(&service.name)
        .into_iter()
        .flat_map(BTreeMap::values)
        .map(Arc::as_ref)
        .collect();
    let mut wanted = Wanted {
        created: service.created,
        ..Wanted::default()
    };
    let addresses = port::Addresses::of(service, &mut wanted.problems);
    let wishes = wishes::Wishes::of(service, &mut wanted.problems);
    let view = port::View {
        service,
        slices: &slices,
        addresses: &addresses,
        node: basis.settings.node.as_deref(),
        zone: basis.zone.as_deref(),
    };
    let (mut ports, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for port in &service.ports {
        // A name of its own is what the API server asks for.
        let name = names::of_service(&service.name, port, None);
        let twice = !ports.insert((port.port, port.protocol)) || !seen.insert(name);
        let reason = wishes.as_ref().err();
        let refused = reason
            .cloned()
            .or_else(|| port::refusal(service, port, twice));
        match (&wishes, refused) {
            (Ok(wishes), None) => view.translate(port, wishes, &mut wanted),
            (_, refused) => wanted
                .problems
                .extend(refused.map(|(reason, message)| Problem {
                    port: Some((port.port, port.protocol)),
                    reason,
                    message,
                })),
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
