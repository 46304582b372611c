//! TCPRoutes and UDPRoutes of the Gateway API, on what serves Services.
//!
//! A Gateway of a class of ours gets its addresses by a child Service, as a `Dire` does. Each
//! listener that a route is attached to is a service of the engine, whose backends are those of all
//! Services that the route names, each Service with its share.

mod backends;
mod child;
mod model;
mod status;

use super::{Settings, World, Write};
use k8s_openapi::jiff::Timestamp;
use lockstep_plan::Service;
use model::Model;

/// What this balancer serves for Gateways.
pub fn services(world: &World, settings: &Settings) -> Vec<Service> {
    if world.gateways.is_empty() {
        return Vec::new();
    }
    let model = Model::of(world, settings);
    let mut services = Vec::new();
    for gateway in &model.gateways {
        let Some(child) = child::existing(world, gateway.name) else {
            continue;
        };
        for listener in &gateway.listeners {
            let route = listener.route.map(|route| &model.routes[route]);
            if let Some(route) = route {
                services.extend(backends::services(world, settings, child, listener, route));
            }
        }
    }
    services
}

/// What the leader writes. Nothing, when all is as it should be.
pub fn writes(world: &World, settings: &Settings, now: Timestamp) -> Vec<Write> {
    let model = Model::of(world, settings);
    let mut writes = status::classes(world, settings, now);
    for gateway in &model.gateways {
        writes.extend(child::write(world, settings, gateway));
        writes.extend(status::gateway(world, gateway, now));
    }
    writes.extend(child::leftovers(world, settings));
    for route in &model.routes {
        writes.extend(status::route(settings, route, now));
    }
    writes
}

#[cfg(test)]
mod tests;
