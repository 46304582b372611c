//! The status and the annotation of a Service.

use super::{PORTS_ERROR, Settings, Told, tell};
use crate::kubernetes::Write;
use crate::kubernetes::allocate::{ALLOCATED, Assigned, Refusal, is_annotated, is_written};
use crate::kubernetes::translate::{Problem, is_ours};
use crate::kubernetes::write::{Kind, Object};
use lockstep_kubernetes::annotations::{ALLOCATED_FROM, MODE};
use lockstep_kubernetes::facts::{Condition, Ingress, Protocol, Service};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What was decided of a Service.
pub(super) struct Decided<'a> {
    pub service: &'a Service,
    pub assigned: Option<&'a Assigned>,
    pub refused: Option<&'a Refusal>,
    pub problems: &'a [Problem],
}

/// What differs.
pub(super) fn write(
    decided: &Decided<'_>,
    settings: &Settings,
    now: &str,
    writes: &mut Vec<Write>,
) {
    let service = decided.service;
    if service.deleting {
        // It keeps what it has until it has gone.
        return;
    }
    if !is_ours(service, settings) {
        release(service, settings, writes);
        return;
    }
    let ingress = ingress(decided);
    let conditions = conditions(decided, now);
    let same = |(kind, new): (&String, &Condition)| service.conditions.get(kind) == Some(new);
    let differs = ingress != service.ingress
        || !conditions.iter().all(same)
        || !conditions.contains_key(PORTS_ERROR) && service.conditions.contains_key(PORTS_ERROR);
    if differs {
        writes.push(Write::Apply {
            object: object(service),
            status: true,
            body: json!({
                // Another Service of the name is another one's to decide about. And what is decided
                // about this version is of no later one: a write of a leader that is none any more
                // may come late.
                "metadata": { "uid": service.uid, "resourceVersion": service.version },
                "status": {
                    "loadBalancer": { "ingress": ingress.iter().map(ingress_json).collect::<Vec<_>>() },
                    "conditions": conditions.iter().map(condition_json).collect::<Vec<_>>(),
                }
            }),
        });
        events(decided, &conditions, writes);
        // The annotation makes another version of it, so it follows.
        return;
    }
    let pool = decided.assigned.map(|assigned| assigned.pool.as_str());
    // One that is kept after its pool has gone keeps the name of that: advertisements go by it.
    let pool = pool.filter(|pool| !pool.is_empty());
    // What somebody else has written there is not ours to take out.
    if pool.is_some() || is_annotated(service, settings) {
        annotate(service, pool, writes);
    }
}

/// Takes back what is of this balancer in a Service that is no longer for it, by what its field
/// managers have there. What another one has written meanwhile is that one's, and stays: these fields
/// are given up, not emptied. Nor is anything of an installation with another class taken back: its
/// Services are not ours, and so has it other managers.
pub(super) fn release(service: &Service, settings: &Settings, writes: &mut Vec<Write>) {
    if is_annotated(service, settings) {
        annotate(service, None, writes);
    }
    if !is_written(service, settings) {
        return;
    }
    writes.push(Write::Apply {
        object: object(service),
        status: true,
        body: json!({ "metadata": { "uid": service.uid } }),
    });
    let why = match (service.load_balancer, service.class.as_deref()) {
        (false, _) => "it is not of type LoadBalancer any more".to_owned(),
        (true, None) => "it has no loadBalancerClass".to_owned(),
        (true, Some(class)) => format!("its loadBalancerClass is {class}"),
    };
    let had = list(service.ingress.iter().map(|ingress| ingress.address));
    let note = format!("let go of {had}: {why}");
    writes.push(told(service, false, "ClearAssignment", "Release", &note));
}

fn object(service: &Service) -> Object {
    Object {
        kind: Kind::Service,
        name: service.name.clone(),
    }
}

fn told(
    service: &Service,
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: &str,
) -> Write {
    let told = Told {
        warning,
        reason,
        action,
        note,
    };
    tell(Kind::Service, &service.name, &service.uid, &told)
}

/// Writes the pool into the annotation, or takes it out.
fn annotate(service: &Service, pool: Option<&str>, writes: &mut Vec<Write>) {
    let has = service.annotations.get(ALLOCATED_FROM).map(String::as_str);
    if has == pool {
        return;
    }
    let annotations: BTreeMap<&str, &str> = pool.map(|p| (ALLOCATED_FROM, p)).into_iter().collect();
    // With its uid, so that no Service is made where this one has gone meanwhile.
    let metadata = json!({ "uid": service.uid, "annotations": annotations });
    writes.push(Write::Annotate {
        object: object(service),
        body: json!({ "metadata": metadata }),
    });
}

/// The addresses that the status is to have.
fn ingress(decided: &Decided<'_>) -> Vec<Ingress> {
    let service = decided.service;
    // Packets for a pod still have the VIP as their destination where tunnels carry them, and are
    // rewritten to the pod's in every other mode: nodes may shortcut the former only (KEP-1860).
    let mode = match service.annotations.get(MODE).map(|mode| mode.trim()) {
        Some("tunnel") => "VIP",
        _ => "Proxy",
    };
    let fails = |port: (u16, Protocol)| decided.problems.iter().find(|p| p.port == Some(port));
    let any = decided
        .problems
        .iter()
        .any(|problem| problem.port.is_some());
    let ports = || {
        let ports = service.ports.iter().map(|port| (port.port, port.protocol));
        // All of them or none (PortStatus): the field is new to most readers.
        let ports = ports.filter(|_| any).map(|port| {
            let error = fails(port).map(|problem| error(problem.reason));
            (port.0, port.1, error)
        });
        ports.collect()
    };
    let addresses = decided.assigned.into_iter().flat_map(|a| &a.addresses);
    addresses
        .map(|address| Ingress {
            address: *address,
            mode: Some(mode.to_owned()),
            ports: ports(),
        })
        .collect()
}

/// A reason of ours, as PortStatus wants those that Kubernetes does not know.
fn error(reason: &str) -> String {
    format!("{}/{reason}", lockstep_kubernetes::GROUP)
}

fn ingress_json(ingress: &Ingress) -> Value {
    let protocol = |protocol: &Protocol| match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Other => "SCTP",
    };
    let ports = ingress.ports.iter().map(|(port, of, error)| match error {
        Some(error) => json!({ "port": port, "protocol": protocol(of), "error": error }),
        None => json!({ "port": port, "protocol": protocol(of) }),
    });
    let ports: Vec<Value> = ports.collect();
    let mut value = json!({ "ip": ingress.address, "ipMode": ingress.mode });
    if !ports.is_empty() {
        value["ports"] = ports.into();
    }
    value
}

/// The conditions of ours that it is to have.
fn conditions(decided: &Decided<'_>, now: &str) -> BTreeMap<String, Condition> {
    let mut found = BTreeMap::new();
    let mut put = |kind: &str, is: bool, reason: &str, message: String| {
        let status = if is { "True" } else { "False" };
        let before = decided.service.conditions.get(kind);
        let since = before.filter(|before| before.status == status);
        let since = since.map_or(now, |before| before.since.as_str());
        let condition = Condition {
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            since: since.to_owned(),
        };
        found.insert(kind.to_owned(), condition);
    };
    match (decided.assigned, decided.refused) {
        (None, None) => {}
        (None, Some(refusal)) => put(ALLOCATED, false, refusal.reason, refusal.message.clone()),
        (Some(assigned), Some(refusal)) => {
            let has = list(assigned.addresses.iter().copied());
            let message = format!("keeps {has} meanwhile: {}", refusal.message);
            put(ALLOCATED, true, refusal.reason, message);
        }
        (Some(assigned), None) => match &assigned.kept {
            Some(kept) => put(ALLOCATED, true, kept.reason, kept.message.clone()),
            None => put(ALLOCATED, true, "Allocated", String::new()),
        },
    }
    if let Some(first) = decided.problems.first() {
        let all = decided.problems.iter().map(|problem| match problem.port {
            Some((port, _)) => format!("port {port}: {}", problem.message),
            None => problem.message.clone(),
        });
        put(
            PORTS_ERROR,
            true,
            first.reason,
            cut(&all.collect::<Vec<_>>().join("; ")),
        );
    }
    found
}

/// A condition's message has room for so much (metav1.Condition).
fn cut(message: &str) -> String {
    const MOST: usize = 4_000;
    message.chars().take(MOST).collect()
}

fn condition_json((kind, condition): (&String, &Condition)) -> Value {
    json!({
        "type": kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since,
    })
}

/// What is told of it: of addresses that came or went, and of what cannot be had.
fn events(decided: &Decided<'_>, now: &BTreeMap<String, Condition>, writes: &mut Vec<Write>) {
    let service = decided.service;
    let before: Vec<IpAddr> = service.ingress.iter().map(|i| i.address).collect();
    let has = decided.assigned.map_or(&[][..], |a| &a.addresses);
    let came: Vec<IpAddr> = has
        .iter()
        .filter(|a| !before.contains(a))
        .copied()
        .collect();
    if let Some(assigned) = decided.assigned.filter(|_| !came.is_empty()) {
        let note = format!(
            "{} from AddressPool {}",
            list(came.into_iter()),
            assigned.pool
        );
        writes.push(told(service, false, "IPAllocated", "Allocate", &note));
    }
    let gone: Vec<IpAddr> = before.into_iter().filter(|a| !has.contains(a)).collect();
    if !gone.is_empty() {
        let note = format!("{} is not this Service's any more", list(gone.into_iter()));
        writes.push(told(
            service,
            has.is_empty(),
            "ClearAssignment",
            "Release",
            &note,
        ));
    }
    let is_new = |kind: &str| {
        let said = |condition: &Condition| (condition.reason.clone(), condition.message.clone());
        now.get(kind).map(said) != service.conditions.get(kind).map(said)
    };
    let kept = decided.assigned.and_then(|assigned| assigned.kept.as_ref());
    match (decided.refused, kept) {
        _ if !is_new(ALLOCATED) => {}
        (Some(refusal), _) => {
            let note = &refusal.message;
            writes.push(told(service, true, "AllocationFailed", "Allocate", note));
        }
        (None, Some(kept)) => {
            writes.push(told(
                service,
                true,
                "AddressKept",
                "Allocate",
                &kept.message,
            ));
        }
        (None, None) => {}
    }
    if let Some(condition) = now.get(PORTS_ERROR).filter(|_| is_new(PORTS_ERROR)) {
        let note = &condition.message;
        writes.push(told(service, true, "PortsNotServed", "Translate", note));
    }
}

fn list(addresses: impl Iterator<Item = IpAddr>) -> String {
    let all: Vec<String> = addresses.map(|address| address.to_string()).collect();
    match all.is_empty() {
        true => "no address".to_owned(),
        false => all.join(", "),
    }
}
