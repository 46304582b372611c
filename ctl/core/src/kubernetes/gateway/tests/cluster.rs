//! A cluster for tests of Gateways, whose API server does what is written.

use super::super::*;
use crate::kubernetes::Change;
use crate::kubernetes::write::Kind;
use lockstep_kubernetes::annotations;
use lockstep_kubernetes::facts::gateway::{
    Gateway, GatewayClass, GatewayStatus, Route, RouteStatus,
};
use lockstep_kubernetes::facts::{self, Ingress, Name, Namespace, Slice};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const CONTROLLER: &str = "lockstep.dev/gateway";

pub fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("it is a time")
}

pub fn settings() -> Settings {
    Settings {
        class: "lockstep.dev/xdp".to_owned(),
        default_class: false,
        node: None,
        gateway_controller: CONTROLLER.to_owned(),
    }
}

pub fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("it is one"))
}

/// A service: its name, its VIPs, and its backends with their ports or weights.
pub type Served = (String, Vec<String>, Vec<(String, u16)>);

/// A cluster whose API server does what is written.
#[derive(Default)]
pub struct Cluster {
    pub world: World,
}

impl Cluster {
    /// A class of ours, and a Gateway `edge` in `infra` with these listeners.
    pub fn new(listeners: Value) -> Self {
        let mut cluster = Cluster::default();
        let class: Arc<GatewayClass> = read(json!({
            "metadata": { "name": "lockstep", "generation": 1 },
            "spec": { "controllerName": CONTROLLER },
        }));
        cluster.put(Change::GatewayClass("lockstep".to_owned(), Some(class)));
        for (namespace, tier) in [("infra", "infra"), ("shop", "apps"), ("lab", "none")] {
            let labels = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
            let object = Namespace {
                name: namespace.to_owned(),
                labels,
            };
            let object = Some(Arc::new(object));
            cluster.put(Change::Namespace(namespace.to_owned(), object));
        }
        cluster.gateway(json!({ "gatewayClassName": "lockstep", "listeners": listeners }));
        cluster
    }

    pub fn put(&mut self, change: Change) {
        self.world.apply(change);
    }

    pub fn gateway(&mut self, spec: Value) {
        let object = read(json!({
            "metadata": {
                "name": "edge", "namespace": "infra", "uid": "g-1", "generation": 2,
                "annotations": { annotations::ADDRESS_POOL: "outside", "other.dev/a": "b" },
            },
            "spec": spec,
        }));
        self.put(Change::Gateway(edge(), Some(object)));
    }

    pub fn route(&mut self, protocol: &str, name: &Name, age: i64, spec: Value) {
        let created = now() - k8s_openapi::jiff::SignedDuration::from_secs(age);
        let object: Arc<Route> = read(json!({
            "metadata": {
                "name": &*name.name, "namespace": &*name.namespace, "generation": 1,
                "creationTimestamp": created.to_string(),
            },
            "spec": spec,
        }));
        self.put(match protocol {
            "TCP" => Change::TcpRoute(name.clone(), Some(object)),
            _ => Change::UdpRoute(name.clone(), Some(object)),
        });
    }

    /// A Service with one port, 80 or 53, and these endpoints.
    pub fn service(&mut self, name: &Name, protocol: &str, endpoints: &[&str]) {
        let port = if protocol == "TCP" { 80 } else { 53 };
        let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": { "name": &*name.name, "namespace": &*name.namespace },
            "spec": { "ports": [{ "name": "it", "port": port, "protocol": protocol }] },
        }))
        .expect("it is a Service");
        let object = Arc::new(facts::Service::from(&object));
        self.put(Change::Service(name.clone(), Some(object)));
        let endpoints = endpoints.iter().map(|a| json!({ "addresses": [a] }));
        let slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{}-1", name.name), "namespace": &*name.namespace,
                "labels": { "kubernetes.io/service-name": &*name.name },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "it", "port": 8080, "protocol": protocol }],
            "endpoints": endpoints.collect::<Vec<_>>(),
        }))
        .expect("it is a slice");
        let slice = Slice::from(&slice);
        self.put(Change::Slice(slice.name.clone(), Some(Arc::new(slice))));
    }

    pub fn settle(&mut self) {
        for _ in 0..5 {
            let writes = writes(&self.world, &settings(), now());
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.perform(write);
            }
        }
        panic!(
            "it never ends: {:?}",
            writes(&self.world, &settings(), now())
        );
    }

    pub fn perform(&mut self, write: Write) {
        let (object, body) = match write {
            Write::Apply { object, body, .. } => (object, body),
            Write::Delete { object, uid } if object.kind == Kind::Service => {
                assert_eq!(self.world.services[&object.name].uid, uid);
                return self.put(Change::Service(object.name, None));
            }
            write => panic!("nobody asked for {write:?}"),
        };
        let (name, status) = (object.name, body["status"].clone());
        match object.kind {
            Kind::GatewayClass => {
                let mut class = GatewayClass::clone(&self.world.gateway_classes[&*name.name]);
                class.status = Some(serde_json::from_value(status).expect("it is one"));
                let class = Some(Arc::new(class));
                self.put(Change::GatewayClass(name.name.to_string(), class));
            }
            Kind::Gateway => {
                let mut gateway = Gateway::clone(&self.world.gateways[&name]);
                gateway.status = Some(serde_json::from_value(status).expect("it is one"));
                self.put(Change::Gateway(name, Some(Arc::new(gateway))));
            }
            Kind::TcpRoute => {
                let mut route = Route::clone(&self.world.tcp_routes[&name]);
                route.status = Some(serde_json::from_value(status).expect("it is one"));
                self.put(Change::TcpRoute(name, Some(Arc::new(route))));
            }
            Kind::UdpRoute => {
                let mut route = Route::clone(&self.world.udp_routes[&name]);
                route.status = Some(serde_json::from_value(status).expect("it is one"));
                self.put(Change::UdpRoute(name, Some(Arc::new(route))));
            }
            Kind::Service => {
                assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "g-1");
                let mut whole = body;
                whole["metadata"]["name"] = json!(&*name.name);
                whole["metadata"]["namespace"] = json!(&*name.namespace);
                let object: k8s_openapi::api::core::v1::Service =
                    serde_json::from_value(whole).expect("it is a Service");
                let before = self.world.services.get(&name).map(|s| s.ingress.clone());
                let mut object = facts::Service::from(&object);
                object.ingress = before.unwrap_or_default();
                self.put(Change::Service(name, Some(Arc::new(object))));
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    pub fn give(&mut self, address: &str) {
        let name = child::name(&edge());
        let mut service = facts::Service::clone(&self.world.services[&name]);
        service.ingress = vec![Ingress {
            address: address.parse().expect("it is an address"),
            mode: None,
            ports: Vec::new(),
        }];
        self.put(Change::Service(name, Some(Arc::new(service))));
    }

    pub fn status(&self) -> GatewayStatus {
        self.world.gateways[&edge()]
            .status
            .clone()
            .unwrap_or_default()
    }

    /// Type and reason of the conditions of a route at its only parent, those that do not hold
    /// with a `!`.
    pub fn route_says(&self, name: &Name) -> Vec<String> {
        let route = self.world.tcp_routes.get(name);
        let route = route
            .or_else(|| self.world.udp_routes.get(name))
            .expect("it is there");
        let status: RouteStatus = route.status.clone().unwrap_or_default();
        let parents = status.parents.iter();
        let ours = parents.filter(|p| p.controller_name == CONTROLLER);
        let conditions = ours.flat_map(|parent| &parent.conditions);
        conditions.map(short).collect()
    }

    pub fn served(&self) -> Vec<Served> {
        let services = services(&self.world, &settings())
            .into_iter()
            .map(|service| {
                let vips = service.vips.iter().map(ToString::to_string).collect();
                let backends = service.backends.iter();
                let backends = backends.map(|b| (b.address.to_string(), b.weight.get()));
                (service.name.to_string(), vips, backends.collect())
            });
        services.collect()
    }
}

pub fn short(c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> String {
    let not = if c.status == "True" { "" } else { "!" };
    format!("{not}{} {}", c.type_, c.reason)
}

pub fn edge() -> Name {
    Name::new("infra", "edge")
}

pub fn web() -> Name {
    Name::new("infra", "web")
}

pub fn to(parent: Value, backends: Value) -> Value {
    json!({ "parentRefs": [parent], "rules": [{ "backendRefs": backends }] })
}

pub fn tcp(name: &str, port: u16) -> Value {
    json!({ "name": name, "port": port, "protocol": "TCP" })
}
