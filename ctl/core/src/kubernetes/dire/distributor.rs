//! A distributor of its own: a pod with Lockstep's engine and daemon, for one `Dire`.
//!
//! It runs in the network of its node, since an engine takes packets from an interface, and has an
//! address there that nobody else uses. All it needs is in its Deployment and its pod: settings in
//! annotations, which the kubelet puts into files (a downward API volume). `services.toml` is an
//! annotation of the running pod: a change of it makes the kubelet write the file at once, where a
//! ConfigMap would take a minute, and the daemon follows the file.

use super::child;
use super::hive::{Hive, Standing};
use super::policy::text;
use crate::kubernetes::write::{Kind, Object};
use crate::kubernetes::{World, Write};
use lockstep_kubernetes::annotations::{DISTRIBUTOR, RENDERED, SERVICES};
use lockstep_kubernetes::facts::{Name, Pod};
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::Distributor;
use lockstep_plan::Replicate;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The label of its pods.
pub const LABEL: &str = DISTRIBUTOR;

/// The annotation that is its `lockstepd.toml`.
const DAEMON: &str = "lockstep.dev/lockstepd";

/// Before the daemon was told anything.
const NOTHING: &str = "service = []\n";

/// Makes it, or what it should be; takes it away where none is asked for.
pub fn writes(
    world: &World,
    name: &Name,
    dire: &Dire,
    hive: &Hive<'_>,
    policy: &Result<Replicate, String>,
) -> Vec<Write> {
    let place = child::name(name);
    let there = world.deployments.get(&place);
    let there = there.filter(|d| d.annotations.get(DISTRIBUTOR).map(|n| &**n) == Some(&*name.name));
    let deployment = Object {
        kind: Kind::Deployment,
        name: place.clone(),
    };
    let (Some(image), Some(wanted)) = (&dire.spec.distributor_image, &dire.spec.distributor) else {
        let gone = there.map(|there| Write::Delete {
            object: deployment,
            uid: there.uid.clone(),
        });
        return gone.into_iter().collect();
    };
    let Some(uid) = dire.metadata.uid.as_deref() else {
        return Vec::new();
    };
    // One that is somebody else's stays as it is.
    if there.is_none() && world.deployments.contains_key(&place) {
        return Vec::new();
    }
    let mut writes = Vec::new();
    let spec = spec(name, dire, image, wanted);
    let rendered = format!("{:016x}", hash(&format!("{uid} {spec}")));
    if there.and_then(|there| there.annotations.get(RENDERED)) != Some(&rendered) {
        let annotations =
            BTreeMap::from([(DISTRIBUTOR, name.name.to_string()), (RENDERED, rendered)]);
        writes.push(Write::Apply {
            object: deployment,
            status: false,
            body: json!({ "metadata": child::metadata(name, uid, &annotations), "spec": spec }),
        });
    }
    if policy.is_ok() {
        writes.extend(pods(world, name).filter_map(|pod| told(pod, name, dire, hive)));
    }
    writes
}

/// The pods of a Dire's distributor.
pub fn pods<'a>(world: &'a World, name: &'a Name) -> impl Iterator<Item = &'a Pod> {
    let pods = world.pods.range(Name::new(&name.namespace, "")..);
    let pods = pods.take_while(|(pod, _)| pod.namespace == name.namespace);
    let its = |pod: &&Pod| pod.labels.get(LABEL).map(|n| &**n) == Some(&*name.name);
    pods.map(|(_, pod)| pod.as_ref()).filter(its)
}

/// Tells a pod what to serve.
fn told(pod: &Pod, name: &Name, dire: &Dire, hive: &Hive<'_>) -> Option<Write> {
    let running = pod.running && !pod.deleting;
    let address = pod.addresses.first().filter(|_| running)?;
    let services = services(name, dire, *address, hive);
    (pod.annotations.get(SERVICES) != Some(&services)).then(|| Write::Apply {
        object: Object {
            kind: Kind::Pod,
            name: pod.name.clone(),
        },
        status: false,
        // With its uid it never makes a pod.
        body: json!({ "metadata": { "uid": pod.uid, "annotations": { SERVICES: services } } }),
    })
}

/// The pod's `services.toml`: the ports at the pod's address, and the replicas.
fn services(name: &Name, dire: &Dire, address: IpAddr, hive: &Hive<'_>) -> String {
    let mut backends = String::new();
    let mut addresses = std::collections::BTreeSet::new();
    let serving = |standing| standing != Standing::Pending;
    for replica in hive.replicas().iter().filter(|r| serving(r.standing)) {
        if let Some(at) = replica.address.filter(|at| addresses.insert(*at)) {
            // One that drains stays until it is gone; the engine sees who does not answer.
            let line = writeln!(
                backends,
                "    {{ address = \"{at}\", name = \"{}\" }},",
                replica.pod.name.name
            );
            line.expect("a String takes everything");
        }
    }
    // A file in which sessions need more replicas than there are is none.
    let needed = super::needed(&super::policy::policy(&dire.spec));
    if addresses.len() < needed {
        return NOTHING.to_owned();
    }
    let vips = dire.spec.forwarded_ports.iter().map(|port| match address {
        IpAddr::V4(v4) => format!("\"{v4}:{port}/tcp\""),
        IpAddr::V6(v6) => format!("\"[{v6}]:{port}/tcp\""),
    });
    let vips: Vec<String> = vips.collect();
    let place = child::name(name);
    format!(
        "[[service]]\nname = \"{place}\"\nvips = [{}]\nmode = \"replicate\"\nbackends = [\n\
         {backends}]\n[service.replicate]\n{}",
        vips.join(", "),
        text(&dire.spec)
    )
}

/// The pod's `lockstepd.toml`.
fn daemon(dire: &Dire, name: &Name) -> String {
    let mut text = format!("[node]\nname = {:?}\n", &*name.name);
    if dire.spec.random_numbers {
        text.push_str("[random]\nlisten = \"0.0.0.0\"\n");
    }
    text
}

fn spec(name: &Name, dire: &Dire, image: &str, wanted: &Distributor) -> Value {
    let label = json!({ LABEL: &*name.name });
    json!({
        "replicas": 1,
        // Two on one node would take each other's ports.
        "strategy": { "type": "Recreate" },
        "selector": { "matchLabels": label },
        "template": {
            "metadata": {
                "labels": label,
                "annotations": { DAEMON: daemon(dire, name), SERVICES: NOTHING },
            },
            "spec": {
                "hostNetwork": true,
                "dnsPolicy": "ClusterFirstWithHostNet",
                "nodeSelector": wanted.node_selector,
                "automountServiceAccountToken": false,
                "initContainers": [topology(image, wanted)],
                "containers": [engine(image), lockstepd(image)],
                "volumes": [
                    {
                        "name": "settings",
                        "downwardAPI": { "items": [
                            file(DAEMON, "lockstepd.toml"),
                            file(SERVICES, "services.toml"),
                        ] },
                    },
                    { "name": "topology", "emptyDir": {} },
                    { "name": "run", "emptyDir": {} },
                    { "name": "state", "emptyDir": {} },
                    { "name": "bpf", "hostPath": { "path": "/sys/fs/bpf", "type": "Directory" } },
                ],
            },
        },
    })
}

fn file(annotation: &str, path: &str) -> Value {
    let field = format!("metadata.annotations['{annotation}']");
    json!({ "path": path, "fieldRef": { "fieldPath": field } })
}

fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path })
}

fn may(capabilities: &[&str]) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": capabilities },
    })
}

/// Finds the queues and cores of the node that it happens to be on.
fn topology(image: &str, wanted: &Distributor) -> Value {
    let detect = "exec lockstep topology detect \"$@\" > /etc/lockstep-engine/topology.toml";
    let mut command = vec![
        "sh",
        "-c",
        detect,
        "detect",
        "--interface",
        &wanted.interface,
    ];
    for address in &wanted.addresses {
        command.extend(["--address", address]);
    }
    json!({
        "name": "topology",
        "image": image,
        "command": command,
        "securityContext": may(&[]),
        "volumeMounts": [mount("topology", "/etc/lockstep-engine")],
    })
}

fn engine(image: &str) -> Value {
    json!({
        "name": "engine",
        "image": image,
        "command": ["lockstep-engine", "--topology", "/etc/lockstep-engine/topology.toml"],
        // AF_XDP, interfaces and routes, the XDP program, and buffers that stay in memory.
        "securityContext": may(&["NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "IPC_LOCK"]),
        "volumeMounts": [
            mount("topology", "/etc/lockstep-engine"),
            mount("run", "/run/lockstep"),
            mount("state", "/var/lib/lockstep"),
            mount("bpf", "/sys/fs/bpf"),
        ],
    })
}

fn lockstepd(image: &str) -> Value {
    json!({
        "name": "lockstepd",
        "image": image,
        "command": ["lockstepd"],
        // It pings the replicas.
        "securityContext": may(&["NET_RAW"]),
        "volumeMounts": [
            mount("settings", "/etc/lockstep"),
            mount("run", "/run/lockstep"),
            mount("state", "/var/lib/lockstep"),
        ],
    })
}

/// FNV-1a, so that another version of this program renders the same to the same.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
