//! The backends of a listener: those of several Services, each Service with its share of new flows
//! whatever the number of its endpoints.

use super::model::{ListenerView, RouteView, references, service_of};
use crate::kubernetes::backends::{Choice, backends, limit};
use crate::kubernetes::translate::wishes::Wishes;
use crate::kubernetes::{Settings, World};
use lockstep_kubernetes::facts::{Family, Name, Protocol, Service as ServiceFact};
use lockstep_plan::{
    Backend, BackendState, IdleTimeouts, Limits, Mode, Service, ServiceName, TableSize, Unserved,
    Vip, Weight,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The services of a listener: one of each family of its addresses.
pub fn services(
    world: &World,
    settings: &Settings,
    child: &ServiceFact,
    listener: &ListenerView<'_>,
    route: &RouteView<'_>,
) -> Vec<Service> {
    // What is wrong with the wishes stands in the child's own status.
    let Ok(wishes) = Wishes::of(child, &mut Vec::new()) else {
        return Vec::new();
    };
    let protocol = match listener.protocol {
        Protocol::Tcp => lockstep_plan::Protocol::Tcp,
        Protocol::Udp if matches!(wishes.mode, Mode::Replicate(_)) => return Vec::new(),
        Protocol::Udp => lockstep_plan::Protocol::Udp,
        Protocol::Other => return Vec::new(),
    };
    // No other Service has the child's name, so nothing else has this one.
    let name = format!("{}/{}", child.name, listener.listener.name);
    let node = settings.node.as_deref();
    let choice = Choice {
        node,
        zone: node.and_then(|node| world.nodes.get(node)?.zone()),
        local: false,
        publish_not_ready: false,
    };
    let families = [(Family::V4, ""), (Family::V6, "/v6")];
    let services = families.into_iter().filter_map(|(family, suffix)| {
        let addresses = child.ingress.iter().map(|ingress| ingress.address);
        let addresses = addresses.filter(|address| family_of(address) == family);
        let vips = addresses.filter_map(|address| Vip::new(address, listener.port, protocol).ok());
        let vips: Vec<Vip> = vips.collect();
        if vips.is_empty() {
            return None;
        }
        let mut backends = shared(world, route, family, &choice);
        let most = match &wishes.mode {
            Mode::Replicate(_) => Limits::REPLICAS,
            _ => Limits::BACKENDS_PER_SERVICE,
        };
        limit(&mut backends, most);
        // In a tunnel packets keep the port of the VIP.
        if matches!(wishes.mode, Mode::Tunnel(_)) {
            backends.retain(|b| b.port.is_none_or(|port| port.get() == listener.port));
            backends.iter_mut().for_each(|b| b.port = None);
        }
        Some(Service {
            name: ServiceName::new(&format!("{name}{suffix}"))?,
            vips,
            mode: wishes.mode.clone(),
            backends,
            scheduler: wishes.scheduler,
            guard: wishes.guard.clone(),
            unserved: Unserved::Reset,
            table_size: wishes.table_size.unwrap_or(TableSize::DEFAULT),
            idle: IdleTimeouts::DEFAULT,
        })
    });
    services.collect()
}

fn family_of(address: &IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The backends of all Services of a route.
fn shared(
    world: &World,
    route: &RouteView<'_>,
    family: Family,
    choice: &Choice<'_>,
) -> Vec<Backend> {
    let mut groups = Vec::new();
    for reference in references(route.object) {
        let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or(0);
        let found = service_of(world, route.name, route.protocol, reference);
        let (Ok((name, place)), true) = (found, weight > 0) else {
            continue;
        };
        groups.push((weight, of_service(world, &name, place, family, choice)));
    }
    weighted(groups)
}

fn of_service(
    world: &World,
    name: &Name,
    place: usize,
    family: Family,
    choice: &Choice<'_>,
) -> Vec<Backend> {
    let service = world.services.get(name);
    let Some((service, port)) = service.and_then(|s| Some((s, s.ports.get(place)?))) else {
        return Vec::new();
    };
    let slices = world.slices.get(name).into_iter().flat_map(|s| s.values());
    let choice = Choice {
        local: service.local,
        publish_not_ready: service.publish_not_ready,
        ..*choice
    };
    backends(slices.map(AsRef::as_ref), port, family, &choice)
}

/// Backends of several groups, with weights that give each group its share of new flows. A backend
/// of several groups gets its shares of all of them; its port is that of the first one.
pub fn weighted(groups: Vec<(u32, Vec<Backend>)>) -> Vec<Backend> {
    let mut merged: BTreeMap<IpAddr, (Backend, f64)> = BTreeMap::new();
    for (weight, backends) in groups {
        let active = |b: &&Backend| b.state == BackendState::Active;
        let active = backends.iter().filter(active).count().max(1);
        for backend in backends {
            let takes = backend.state == BackendState::Active;
            let share = if takes {
                f64::from(weight) / active as f64
            } else {
                0.0
            };
            let known = merged.entry(backend.address);
            let (known, shares) = known.or_insert_with(|| (backend.clone(), 0.0));
            if takes {
                known.state = BackendState::Active;
            }
            *shares += share;
        }
    }
    let largest = merged.values().map(|(_, share)| *share).fold(0.0, f64::max);
    let alike = merged.values().all(|(b, share)| {
        b.state == BackendState::Draining || (share - largest).abs() <= largest * 1e-9
    });
    let backends = merged.into_values().map(|(backend, share)| Backend {
        weight: match alike {
            true => Weight::DEFAULT,
            // Rounded, and never nothing: a backend that takes flows has a weight.
            false => {
                let scaled = (share / largest * f64::from(Weight::MAX)).round();
                Weight::new(scaled.clamp(1.0, f64::from(Weight::MAX)) as u16)
                    .unwrap_or(Weight::DEFAULT)
            }
        },
        ..backend
    });
    backends.collect()
}
