//! Objects, as users, controllers and kubelets write them.

use super::super::address::server_v4;
use super::super::services::Version;
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
pub fn pool(name: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name},
        "spec": {"addresses": addresses},
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

/// The same of another version of IP.
pub fn web_service_of(version: Version, namespace: &str, name: &str) -> Value {
    let mut service = web_service(namespace, name);
    service["spec"]["ipFamilies"] = json!([family(version)]);
    service
}

/// A Service inside of the cluster: port 80.
pub fn inner_service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "type": "ClusterIP",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
        },
    })
}

fn family(version: Version) -> &'static str {
    match version {
        Version::V4 => "IPv4",
        Version::V6 => "IPv6",
    }
}

/// The EndpointSlice of such a Service. Its pods have the names of the lab's servers.
pub fn slice(namespace: &str, service: &str, endpoints: &[Endpoint]) -> Value {
    slice_of(Version::V4, namespace, service, endpoints)
}

/// The same of another version of IP.
pub fn slice_of(version: Version, namespace: &str, service: &str, endpoints: &[Endpoint]) -> Value {
    let endpoints = endpoints.iter().map(|endpoint| {
        let (index, ready) = match endpoint {
            Endpoint::Ready(index) => (*index, true),
            Endpoint::Terminating(index) => (*index, false),
        };
        let name = format!("s{}", index + 1);
        json!({
            "addresses": [version.server(index)],
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
        "addressType": family(version),
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

/// The Gateway API's kinds, as far as an API server has to know them.
pub fn gateway_definitions() -> Vec<Value> {
    let kinds = [
        ("GatewayClass", "gatewayclasses", "Cluster", "v1"),
        ("Gateway", "gateways", "Namespaced", "v1"),
        ("TCPRoute", "tcproutes", "Namespaced", "v1"),
        ("UDPRoute", "udproutes", "Namespaced", "v1"),
        ("ReferenceGrant", "referencegrants", "Namespaced", "v1beta1"),
    ];
    let definition = |(kind, plural, scope, version): (&str, &str, &str, &str)| {
        let group = "gateway.networking.k8s.io";
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.{group}"),
                // The group is one of Kubernetes' own.
                "annotations": {"api-approved.kubernetes.io": "unapproved, a test's"},
            },
            "spec": {
                "group": group,
                "scope": scope,
                "names": {
                    "kind": kind, "listKind": format!("{kind}List"),
                    "plural": plural, "singular": kind.to_lowercase(),
                },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }],
            },
        })
    };
    kinds.into_iter().map(definition).collect()
}

/// A class of Gateways of Lockstep's, `lockstep`.
pub fn gateway_class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "lockstep"},
        "spec": {"controllerName": super::CONTROLLER},
    })
}

/// A Gateway of it at an address, with a listener at port 80.
pub fn gateway(namespace: &str, name: &str, address: std::net::IpAddr) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "gatewayClassName": "lockstep",
            "addresses": [{"type": "IPAddress", "value": address}],
            "listeners": [{"name": "web", "port": 80, "protocol": "TCP"}],
        },
    })
}

/// A route from a Gateway to port 80 of Services, each with its weight.
pub fn tcp_route(namespace: &str, gateway: &str, services: &[(&str, u32)]) -> Value {
    let services = services
        .iter()
        .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}));
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {
            "parentRefs": [{"name": gateway}],
            "rules": [{"backendRefs": services.collect::<Vec<_>>()}],
        },
    })
}
