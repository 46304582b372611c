//! What becomes of classes, Gateways and routes.

use super::child;
use super::model::{GatewayView, ListenerView, RouteView};
use crate::kubernetes::verdict::Verdict;
use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{Settings, World, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use lockstep_kubernetes::facts::gateway::{
    Address, GatewayClassStatus, GatewayStatus, ListenerStatus, RouteParentStatus, RouteStatus,
};
use lockstep_kubernetes::facts::{Name, Protocol};
use serde::Serialize;
use serde_json::json;

fn verdict(kind: &'static str, holds: bool, reason: &'static str, message: &str) -> Verdict {
    Verdict {
        kind,
        holds,
        reason,
        message: message.to_owned(),
    }
}

/// A status of the very object that was looked at.
fn write(kind: Kind, name: &Name, meta: &ObjectMeta, status: &impl Serialize) -> Write {
    Write::Apply {
        object: Object {
            kind,
            name: name.clone(),
        },
        status: true,
        body: json!({ "metadata": { "uid": meta.uid }, "status": status }),
    }
}

/// Classes of ours are accepted.
pub fn classes(world: &World, settings: &Settings, now: Timestamp) -> Vec<Write> {
    let classes = world.gateway_classes.iter();
    let ours = classes.filter(|(_, c)| c.spec.controller_name == settings.gateway_controller);
    let written = ours.filter_map(|(name, class)| {
        let known = class.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let accepted = verdict("Accepted", true, "Accepted", "Gateways of it are served");
        let accepted = accepted.condition(known, class.metadata.generation, now);
        let there = known.iter().find(|c| c.type_ == "Accepted");
        let status = GatewayClassStatus {
            conditions: vec![accepted],
        };
        let same = there == status.conditions.first();
        let name = Name::new("", name);
        (!same).then(|| write(Kind::GatewayClass, &name, &class.metadata, &status))
    });
    written.collect()
}

/// The status of a Gateway, where it is another one.
pub fn gateway(world: &World, gateway: &GatewayView<'_>, now: Timestamp) -> Option<Write> {
    let (name, object) = (gateway.name, gateway.object);
    let generation = object.metadata.generation;
    let nothing = GatewayStatus::default();
    let old = object.status.as_ref().unwrap_or(&nothing);
    let child = child::existing(world, name);
    let ingress = child.iter().flat_map(|child| &child.ingress);
    let addresses = ingress.map(|ingress| Address {
        kind: Some("IPAddress".to_owned()),
        value: ingress.address.to_string(),
    });
    let addresses: Vec<Address> = addresses.collect();
    let programmed = programmed(world, gateway, &addresses);
    let has_address = programmed.holds;
    let conditions = [accepted(gateway), programmed]
        .into_iter()
        .map(|v| v.condition(&old.conditions, generation, now));
    let listeners = gateway.listeners.iter().map(|listener| {
        let known = old
            .listeners
            .iter()
            .find(|l| l.name == listener.listener.name);
        let known: &[Condition] = known.map_or(&[], |known| &known.conditions);
        let verdicts = of_listener(listener, has_address);
        let conditions = verdicts.into_iter();
        ListenerStatus {
            name: listener.listener.name.clone(),
            supported_kinds: listener.kinds.clone(),
            attached_routes: i32::from(listener.route.is_some()),
            conditions: conditions
                .map(|v| v.condition(known, generation, now))
                .collect(),
        }
    });
    let status = GatewayStatus {
        addresses,
        conditions: conditions.collect(),
        listeners: listeners.collect(),
    };
    let differs = in_order(old) != in_order(&status);
    differs.then(|| write(Kind::Gateway, name, &object.metadata, &status))
}

/// The API server keeps lists by their keys, in an order of its own.
fn in_order(status: &GatewayStatus) -> GatewayStatus {
    let mut status = status.clone();
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status.listeners.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in &mut status.listeners {
        listener.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    status
}

fn accepted(gateway: &GatewayView<'_>) -> Verdict {
    if let Err(problem) = child::addresses(gateway) {
        return verdict("Accepted", false, "UnsupportedAddress", &problem);
    }
    let good = gateway
        .listeners
        .iter()
        .filter(|l| l.problem.is_none())
        .count();
    if good == 0 {
        let message = "none of its listeners can be served: see status.listeners";
        return verdict("Accepted", false, "ListenersNotValid", message);
    }
    if good < gateway.listeners.len() {
        let message = "some of its listeners are not served: see status.listeners";
        return verdict("Accepted", true, "ListenersNotValid", message);
    }
    verdict("Accepted", true, "Accepted", "its listeners are served")
}

fn programmed(world: &World, gateway: &GatewayView<'_>, addresses: &[Address]) -> Verdict {
    let child = child::name(gateway.name);
    if child::is_taken(world, gateway.name) {
        let message = format!(
            "Service {child} would be the one of this Gateway, and belongs to somebody else: delete \
             it, or give this Gateway another name"
        );
        return verdict("Programmed", false, "Invalid", &message);
    }
    if gateway.listeners.iter().all(|l| l.problem.is_some()) {
        let message = "none of its listeners can be served: see status.listeners";
        return verdict("Programmed", false, "Invalid", message);
    }
    if addresses.is_empty() {
        let message = format!(
            "Service {child} has no address yet: `kubectl -n {} describe service {}` says why",
            child.namespace, child.name
        );
        return verdict("Programmed", false, "AddressNotAssigned", &message);
    }
    let message = "balancers serve its addresses";
    verdict("Programmed", true, "Programmed", message)
}

fn of_listener(listener: &ListenerView<'_>, has_address: bool) -> [Verdict; 4] {
    let problem = listener.problem.as_ref();
    let accepted = match problem {
        None => verdict("Accepted", true, "Accepted", "it is as it is asked for"),
        Some(problem) => verdict("Accepted", false, problem.reason, &problem.message),
    };
    let conflicted = match listener.conflicts.is_empty() {
        true => verdict("Conflicted", false, "NoConflicts", "its port is its own"),
        false => {
            let message = format!(
                "it has the port of {}: none of them is served, give each its own",
                listener.conflicts.join(", ")
            );
            verdict("Conflicted", true, "ProtocolConflict", &message)
        }
    };
    let resolved = if listener.odd_kinds {
        let fits = match listener.protocol {
            Protocol::Udp => "UDPRoutes",
            Protocol::Tcp | Protocol::Other => "TCPRoutes",
        };
        let message = format!("allowedRoutes names kinds other than {fits}: leave them out");
        verdict("ResolvedRefs", false, "InvalidRouteKinds", &message)
    } else {
        let message = "it names nothing that is not there";
        verdict("ResolvedRefs", true, "ResolvedRefs", message)
    };
    let programmed = match (problem, has_address) {
        (None, true) => verdict("Programmed", true, "Programmed", "balancers serve it"),
        (None, false) => {
            let message = "the Gateway has no address yet";
            verdict("Programmed", false, "Pending", message)
        }
        (Some(problem), _) => verdict("Programmed", false, "Invalid", &problem.message),
    };
    [accepted, programmed, resolved, conflicted]
}

/// The status of a route, where it is another one. Parents by other controllers stay as they are: the
/// list is one field, so that nothing is written to a later version than the one that was looked at.
pub fn route(settings: &Settings, route: &RouteView<'_>, now: Timestamp) -> Option<Write> {
    let object = route.object;
    let generation = object.metadata.generation;
    let nothing = RouteStatus::default();
    let old = object.status.as_ref().unwrap_or(&nothing);
    let controller = &settings.gateway_controller;
    let others = old.parents.iter();
    let mut parents: Vec<RouteParentStatus> = others
        .filter(|parent| parent.controller_name != *controller)
        .cloned()
        .collect();
    for (parent, accepted) in &route.parents {
        let mut known = old.parents.iter();
        let known = known
            .find(|known| known.controller_name == *controller && known.parent_ref == **parent);
        let known: &[Condition] = known.map_or(&[], |known| &known.conditions);
        let verdicts = [accepted.clone(), route.resolved.clone()].into_iter();
        parents.push(RouteParentStatus {
            parent_ref: (*parent).clone(),
            controller_name: controller.clone(),
            conditions: verdicts
                .map(|v| v.condition(known, generation, now))
                .collect(),
        });
    }
    let status = RouteStatus { parents };
    let kind = match route.protocol {
        Protocol::Udp => Kind::UdpRoute,
        Protocol::Tcp | Protocol::Other => Kind::TcpRoute,
    };
    (*old != status).then(|| {
        let mut write = write(kind, route.name, &object.metadata, &status);
        if let Write::Apply { body, .. } = &mut write {
            body["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
        }
        write
    })
}
