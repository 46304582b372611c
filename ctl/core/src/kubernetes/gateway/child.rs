//! The child of a Gateway: the Service that gets its addresses.

use super::model::GatewayView;
use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{Settings, World, Write};
use lockstep_kubernetes::annotations::{GATEWAY, LOAD_BALANCER_IPS, OWNER, PREFIX};
use lockstep_kubernetes::facts::{FamilyPolicy, Name, Protocol, Service};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Its name. Names of Services are shorter than those of Gateways.
pub fn name(gateway: &Name) -> Name {
    let text = &*gateway.name;
    let plain = text.len() <= 55 && !text.contains('.');
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    if plain && starts {
        return Name::new(&gateway.namespace, &format!("{text}-gateway"));
    }
    let kept = text.chars().take(40);
    let kept: String = kept.map(|c| if c == '.' { '-' } else { c }).collect();
    // FNV-1a: two long names do not become one.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = hash >> 32;
    Name::new(&gateway.namespace, &format!("g{kept}-{hash:08x}-gateway"))
}

/// The child, if it is there and this Gateway's.
pub fn existing<'a>(world: &'a World, gateway: &Name) -> Option<&'a Service> {
    let service = world.services.get(&name(gateway))?;
    is_of(service, gateway).then_some(service)
}

/// Whether a Service of the child's name is somebody else's.
pub fn is_taken(world: &World, gateway: &Name) -> bool {
    let service = world.services.get(&name(gateway));
    service.is_some_and(|service| !is_of(service, gateway))
}

fn is_of(service: &Service, gateway: &Name) -> bool {
    let owner = service.annotations.get(GATEWAY);
    owner.is_some_and(|owner| **owner == *gateway.name)
}

/// Takes away the children of Gateways that are another controller's now. Where the class is not there
/// nobody has taken them over: one that is deleted by mistake costs no address.
pub fn leftovers(world: &World, settings: &Settings) -> Vec<Write> {
    let gateways = world.gateways.iter();
    let left = gateways.filter_map(|(gateway, object)| {
        let class = world.gateway_classes.get(&object.spec.gateway_class_name)?;
        let uid = object.metadata.uid.as_ref()?;
        let child = existing(world, gateway)?;
        let ours = child.annotations.get(OWNER) == Some(uid)
            && child.class.as_ref() == Some(&settings.class)
            && !child.deleting;
        let is_theirs = class.spec.controller_name != settings.gateway_controller;
        (ours && is_theirs).then(|| Write::Delete {
            object: Object {
                kind: Kind::Service,
                name: child.name.clone(),
            },
            uid: child.uid.clone(),
        })
    });
    left.collect()
}

/// Makes it, or what it should be.
pub fn write(world: &World, settings: &Settings, gateway: &GatewayView<'_>) -> Option<Write> {
    let uid = gateway.object.metadata.uid.as_deref()?;
    let ports: BTreeSet<(Protocol, u16)> = ports(gateway);
    if ports.is_empty() || is_taken(world, gateway.name) {
        return None;
    }
    let annotations = annotations(gateway, uid);
    let families = families(gateway);
    if let Some(there) = existing(world, gateway.name) {
        let same = |(key, value): (&String, &String)| there.annotations.get(key) == Some(value);
        let there_ports: BTreeSet<_> = there.ports.iter().map(|p| (p.protocol, p.port)).collect();
        let wanted = annotations.iter().all(same)
            && there.annotations.contains_key(LOAD_BALANCER_IPS)
                == annotations.contains_key(LOAD_BALANCER_IPS)
            && there.load_balancer
            && there.class.as_ref() == Some(&settings.class)
            && families.is_none_or(|_| there.family_policy == FamilyPolicy::Require)
            && there_ports == ports;
        if wanted {
            return None;
        }
    }
    let mut spec = json!({
        "type": "LoadBalancer",
        "loadBalancerClass": settings.class,
        "allocateLoadBalancerNodePorts": false,
        "ports": ports.iter().map(port).collect::<Vec<Value>>(),
    });
    if let Some(policy) = families {
        spec["ipFamilyPolicy"] = policy.into();
    }
    Some(Write::Apply {
        object: Object {
            kind: Kind::Service,
            name: name(gateway.name),
        },
        status: false,
        body: json!({
            "metadata": {
                "labels": {
                    "app.kubernetes.io/managed-by": "lockstep",
                    "gateway.networking.k8s.io/gateway-class-name":
                        gateway.object.spec.gateway_class_name,
                },
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "name": &*gateway.name.name,
                    "uid": uid,
                    "controller": true,
                }],
            },
            "spec": spec,
        }),
    })
}

/// The addresses that are asked for.
///
/// # Errors
/// Which of them is none.
pub fn addresses(gateway: &GatewayView<'_>) -> Result<Vec<std::net::IpAddr>, String> {
    let wanted = gateway.object.spec.addresses.iter();
    let wanted = wanted.map(|address| {
        let kind = address.kind.as_deref().unwrap_or("IPAddress");
        let parsed = address.value.parse().ok().filter(|_| kind == "IPAddress");
        parsed.ok_or_else(|| {
            format!(
                "{kind} {:?} is no address that a Gateway can have here: name IP addresses of a pool",
                address.value
            )
        })
    });
    wanted.collect()
}

fn annotations(gateway: &GatewayView<'_>, uid: &str) -> BTreeMap<String, String> {
    let meta = gateway.object.metadata.annotations.iter().flatten();
    let infrastructure = gateway.object.spec.infrastructure.iter();
    let infrastructure = infrastructure.flat_map(|i| &i.annotations);
    let handed_down = meta
        .chain(infrastructure)
        .filter(|(key, _)| key.starts_with(PREFIX));
    let mut all: BTreeMap<String, String> = handed_down
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Ok(addresses) = addresses(gateway)
        && !addresses.is_empty()
    {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        all.insert(LOAD_BALANCER_IPS.to_owned(), texts.join(","));
    }
    all.insert(GATEWAY.to_owned(), gateway.name.name.to_string());
    all.insert(OWNER.to_owned(), uid.to_owned());
    all
}

/// Addresses of both families are asked for by a Service of both.
fn families(gateway: &GatewayView<'_>) -> Option<&'static str> {
    let addresses = addresses(gateway).unwrap_or_default();
    let both = addresses.iter().any(|a| a.is_ipv4()) && addresses.iter().any(|a| a.is_ipv6());
    both.then_some("RequireDualStack")
}

fn ports(gateway: &GatewayView<'_>) -> BTreeSet<(Protocol, u16)> {
    let good = gateway.listeners.iter().filter(|l| l.problem.is_none());
    good.map(|l| (l.protocol, l.port)).collect()
}

fn port((protocol, port): &(Protocol, u16)) -> Value {
    let (text, upper) = match protocol {
        Protocol::Udp => ("udp", "UDP"),
        Protocol::Tcp | Protocol::Other => ("tcp", "TCP"),
    };
    json!({ "name": format!("{text}-{port}"), "protocol": upper, "port": port, "targetPort": port })
}
