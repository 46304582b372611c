//! The child of a `Dire`: the Service that gets its addresses.

use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{Settings, World, Write};
use lockstep_kubernetes::annotations::{
    ADDRESS_POOL, ALLOW_SHARED_IP, DIRE, DISTRIBUTOR, LOAD_BALANCER_IPS, MODE, OWNER,
};
use lockstep_kubernetes::facts::{FamilyPolicy, Name, Protocol, Service};
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::IpFamilyPolicy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Annotations of the Dire that are the child's too: they choose its addresses.
const HANDED_DOWN: [&str; 3] = [ADDRESS_POOL, LOAD_BALANCER_IPS, ALLOW_SHARED_IP];

/// Its name.
pub fn name(dire: &Name) -> Name {
    Name::new(&dire.namespace, &format!("{}-dire", dire.name))
}

/// The child, if it is there and this Dire's.
pub fn existing<'a>(world: &'a World, dire: &Name) -> Option<&'a Service> {
    let service = world.services.get(&name(dire))?;
    is_of(service, dire).then_some(service)
}

/// Whether a Service of the child's name is somebody else's.
pub fn is_taken(world: &World, dire: &Name) -> bool {
    let service = world.services.get(&name(dire));
    service.is_some_and(|service| !is_of(service, dire))
}

fn is_of(service: &Service, dire: &Name) -> bool {
    let keys = [DIRE, DISTRIBUTOR].into_iter();
    let mut owners = keys.filter_map(|key| service.annotations.get(key));
    owners.any(|owner| **owner == *dire.name)
}

/// Makes it, or what it should be.
pub fn write(world: &World, settings: &Settings, dire: &Name, object: &Dire) -> Option<Write> {
    let uid = object.metadata.uid.as_deref()?;
    if is_taken(world, dire) {
        return None;
    }
    let annotations = annotations(dire, uid, object);
    if let Some(there) = existing(world, dire)
        && is_as_wanted(there, settings, &annotations, object)
    {
        return None;
    }
    let mut spec = json!({
        "type": "LoadBalancer",
        "loadBalancerClass": settings.class,
        "allocateLoadBalancerNodePorts": false,
        "ports": object.spec.forwarded_ports.iter().map(port).collect::<Vec<Value>>(),
    });
    if let Some(policy) = object.spec.ip_family_policy {
        spec["ipFamilyPolicy"] = policy.name().into();
    }
    if object.spec.distributor_image.is_some() {
        spec["selector"] = json!({ super::distributor::LABEL: &*dire.name });
    }
    Some(Write::Apply {
        object: Object {
            kind: Kind::Service,
            name: name(dire),
        },
        status: false,
        body: json!({ "metadata": metadata(dire, uid, &annotations), "spec": spec }),
    })
}

/// Of every child: whose it is, and that it goes with it.
pub fn metadata(dire: &Name, uid: &str, annotations: &BTreeMap<&str, String>) -> Value {
    json!({
        "labels": { "app.kubernetes.io/managed-by": "lockstep" },
        "annotations": annotations,
        "ownerReferences": [{
            "apiVersion": "lockstep.dev/v1alpha1",
            "kind": "Dire",
            "name": &*dire.name,
            "uid": uid,
            "controller": true,
        }],
    })
}

fn annotations<'a>(dire: &Name, uid: &str, object: &Dire) -> BTreeMap<&'a str, String> {
    let mut annotations = BTreeMap::from([(OWNER, uid.to_owned())]);
    if object.spec.distributor_image.is_none() {
        annotations.insert(DIRE, dire.name.to_string());
        annotations.insert(MODE, "replicate".to_owned());
    } else {
        // It is balanced to as any pod is.
        annotations.insert(DISTRIBUTOR, dire.name.to_string());
    }
    let of_dire = object.metadata.annotations.as_ref();
    for key in HANDED_DOWN {
        if let Some(value) = of_dire.and_then(|all| all.get(key)) {
            annotations.insert(key, value.clone());
        }
    }
    annotations
}

fn is_as_wanted(
    there: &Service,
    settings: &Settings,
    annotations: &BTreeMap<&str, String>,
    object: &Dire,
) -> bool {
    let ours = HANDED_DOWN
        .into_iter()
        .chain([DIRE, DISTRIBUTOR, OWNER, MODE]);
    let same = |key| there.annotations.get(key) == annotations.get(key);
    // Their order is not ours: the API server merges them.
    let ports = there.ports.iter().map(|p| (p.protocol, p.port));
    let ports: BTreeSet<_> = ports.collect();
    let wanted = object.spec.forwarded_ports.iter();
    let wanted: BTreeSet<_> = wanted.map(|port| (Protocol::Tcp, *port)).collect();
    let families = match object.spec.ip_family_policy {
        // What the cluster chooses.
        None => there.family_policy,
        Some(IpFamilyPolicy::SingleStack) => FamilyPolicy::Single,
        Some(IpFamilyPolicy::PreferDualStack) => FamilyPolicy::Prefer,
        Some(IpFamilyPolicy::RequireDualStack) => FamilyPolicy::Require,
    };
    there.load_balancer
        && there.class.as_ref() == Some(&settings.class)
        && there.family_policy == families
        && ours.into_iter().all(same)
        && ports == wanted
}

fn port(port: &u16) -> Value {
    json!({
        "name": format!("port-{port}"), "protocol": "TCP", "port": port, "targetPort": port,
    })
}
