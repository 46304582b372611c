//! Objects, as users, controllers and kubelets write them.

use super::super::address::server_v4;
use serde_json::{Value, json};

/// The class of Services that Lockstep serves.
const CLASS: &str = "lockstep.dev/xdp";
/// So that a deleted pod is there until its program has ended.
const KUBELET: &str = "example.org/kubelet";

/// A pod of a slice: a server of the lab, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// It is to get connections.
    Ready(usize),
    /// It is about to end, and finishes what it has.
    Terminating(usize),
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// An AddressPool.
pub fn pool(name: &str, addresses: &str) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name},
        "spec": {"addresses": [addresses]},
    })
}

/// A Service of our class: port 80.
pub fn web_service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": CLASS,
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
        },
    })
}

/// The EndpointSlice of such a Service. Its pods have the names of the lab's servers.
pub fn slice(namespace: &str, service: &str, endpoints: &[Endpoint]) -> Value {
    let endpoints = endpoints.iter().map(|endpoint| {
        let (index, ready) = match endpoint {
            Endpoint::Ready(index) => (*index, true),
            Endpoint::Terminating(index) => (*index, false),
        };
        let name = format!("s{}", index + 1);
        json!({
            "addresses": [server_v4(index)],
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name},
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// A Deployment of nginx with so many pods.
pub fn deployment(namespace: &str, name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx"}]},
            },
        },
    })
}

/// The pod of a Deployment that a server of the lab is. While it is not `ended`, it is there after it
/// was deleted.
pub fn pod(namespace: &str, deployment: &str, index: usize, ended: bool) -> Value {
    let finalizers = if ended { vec![] } else { vec![KUBELET] };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": format!("s{}", index + 1),
            "labels": {"app": deployment},
            "finalizers": finalizers,
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "nginx", "image": "nginx"}],
        },
    })
}

/// The status of such a pod that serves.
pub fn pod_status(namespace: &str, index: usize) -> Value {
    let address = server_v4(index);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": format!("s{}", index + 1)},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A Dire: port 80 of the pods of a Deployment of nginx.
pub fn dire(namespace: &str, name: &str, deployment: &str) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "Dire",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "hiveDeploymentName": deployment,
            "forwardedPorts": [80],
            "masks": [{"pattern": r"Date: [^\r]*"}],
        },
    })
}
