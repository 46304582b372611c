//! Gateways and routes in, services and status out.

use super::*;
use crate::kubernetes::Change;
use crate::kubernetes::write::Kind;
use lockstep_kubernetes::annotations;
use lockstep_kubernetes::facts::gateway::{
    Gateway, GatewayClass, GatewayStatus, ReferenceGrant, Route, RouteStatus, resources,
};
use lockstep_kubernetes::facts::{self, Ingress, Name, Namespace, Slice};
use lockstep_plan::{Backend, BackendState, Health, Weight};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const CONTROLLER: &str = "lockstep.dev/gateway";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("it is a time")
}

fn settings() -> Settings {
    Settings {
        class: "lockstep.dev/xdp".to_owned(),
        default_class: false,
        node: None,
        gateway_controller: CONTROLLER.to_owned(),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("it is one"))
}

/// A service: its name, its VIPs, and its backends with their ports or weights.
type Served = (String, Vec<String>, Vec<(String, u16)>);

/// A cluster whose API server does what is written.
#[derive(Default)]
struct Cluster {
    world: World,
}

impl Cluster {
    /// A class of ours, and a Gateway `edge` in `infra` with these listeners.
    fn new(listeners: Value) -> Self {
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

    fn put(&mut self, change: Change) {
        self.world.apply(change);
    }

    fn gateway(&mut self, spec: Value) {
        let object = read(json!({
            "metadata": {
                "name": "edge", "namespace": "infra", "uid": "g-1", "generation": 2,
                "annotations": { annotations::ADDRESS_POOL: "outside", "other.dev/a": "b" },
            },
            "spec": spec,
        }));
        self.put(Change::Gateway(edge(), Some(object)));
    }

    fn route(&mut self, protocol: &str, name: &Name, age: i64, spec: Value) {
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
    fn service(&mut self, name: &Name, protocol: &str, endpoints: &[&str]) {
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

    fn settle(&mut self) {
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

    fn perform(&mut self, write: Write) {
        let Write::Apply { object, body, .. } = write else {
            panic!("nobody asked for {write:?}");
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

    fn give(&mut self, address: &str) {
        let name = child::name(&edge());
        let mut service = facts::Service::clone(&self.world.services[&name]);
        service.ingress = vec![Ingress {
            address: address.parse().expect("it is an address"),
            mode: None,
            ports: Vec::new(),
        }];
        self.put(Change::Service(name, Some(Arc::new(service))));
    }

    fn status(&self) -> GatewayStatus {
        self.world.gateways[&edge()]
            .status
            .clone()
            .unwrap_or_default()
    }

    /// Type and reason of the conditions of a route at its only parent, those that do not hold
    /// with a `!`.
    fn route_says(&self, name: &Name) -> Vec<String> {
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

    fn served(&self) -> Vec<Served> {
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

fn short(c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> String {
    let not = if c.status == "True" { "" } else { "!" };
    format!("{not}{} {}", c.type_, c.reason)
}

fn edge() -> Name {
    Name::new("infra", "edge")
}

fn web() -> Name {
    Name::new("infra", "web")
}

fn to(parent: Value, backends: Value) -> Value {
    json!({ "parentRefs": [parent], "rules": [{ "backendRefs": backends }] })
}

fn tcp(name: &str, port: u16) -> Value {
    json!({ "name": name, "port": port, "protocol": "TCP" })
}

#[test]
fn a_route_sends_what_comes_to_a_listener_to_its_service() {
    let dns = json!({ "name": "dns", "port": 53, "protocol": "UDP" });
    let mut cluster = Cluster::new(json!([tcp("web", 8000), dns]));
    cluster.service(&web(), "TCP", &["10.0.0.1", "10.0.0.2"]);
    let names = Name::new("infra", "names");
    cluster.service(&names, "UDP", &["10.0.0.9"]);
    let backends = json!([{ "name": "web", "port": 80 }]);
    cluster.route("TCP", &web(), 9, to(json!({ "name": "edge" }), backends));
    let backends = json!([{ "name": "names", "port": 53 }]);
    cluster.route(
        "UDP",
        &names,
        9,
        to(json!({ "name": "edge", "sectionName": "dns" }), backends),
    );
    cluster.settle();
    let status = cluster.status();
    let said: Vec<_> = status.conditions.iter().map(short).collect();
    assert_eq!(
        said,
        ["Accepted Accepted", "!Programmed AddressNotAssigned"]
    );
    assert_eq!(cluster.served(), []);
    let child = &cluster.world.services[&Name::new("infra", "edge-gateway")];
    assert_eq!(child.annotations[annotations::ADDRESS_POOL], "outside");
    assert_eq!(child.annotations[annotations::GATEWAY], "edge");
    assert!(!child.annotations.contains_key("other.dev/a"));
    assert_eq!(child.ports.len(), 2);

    cluster.give("192.0.2.1");
    cluster.settle();
    let served = |name: &str, vip: &str, backends: &[&str]| {
        let backends = backends.iter().map(|b| ((*b).to_owned(), 100));
        (
            name.to_owned(),
            vec![vip.to_owned()],
            backends.collect::<Vec<_>>(),
        )
    };
    let wanted = [
        served(
            "infra/edge-gateway/web",
            "192.0.2.1:8000/tcp",
            &["10.0.0.1", "10.0.0.2"],
        ),
        served("infra/edge-gateway/dns", "192.0.2.1:53/udp", &["10.0.0.9"]),
    ];
    assert_eq!(cluster.served(), wanted);
    let all = services(&cluster.world, &settings());
    assert_eq!(all[0].backends[0].port.map(u16::from), Some(8080));
    assert!(lockstep_plan::Snapshot::new(1, all).is_ok());
    let status = cluster.status();
    let said: Vec<_> = status.conditions.iter().map(short).collect();
    assert_eq!(said, ["Accepted Accepted", "Programmed Programmed"]);
    assert_eq!(status.addresses[0].value, "192.0.2.1");
    for listener in &status.listeners {
        assert_eq!(listener.attached_routes, 1, "{}", listener.name);
        let said: Vec<_> = listener.conditions.iter().map(short).collect();
        let wanted = [
            "Accepted Accepted",
            "Programmed Programmed",
            "ResolvedRefs ResolvedRefs",
            "!Conflicted NoConflicts",
        ];
        assert_eq!(said, wanted);
    }
    assert_eq!(
        cluster.route_says(&web()),
        ["Accepted Accepted", "ResolvedRefs ResolvedRefs"]
    );
    let class = cluster.world.gateway_classes["lockstep"].status.clone();
    assert_eq!(short(&class.unwrap().conditions[0]), "Accepted Accepted");
}

#[test]
fn what_a_route_cannot_be_attached_or_resolved_for_is_said() {
    let good = || json!([{ "name": "web", "port": 80 }]);
    let at =
        |section: &str| json!({ "name": "edge", "namespace": "infra", "sectionName": section });
    let shop = Name::new("shop", "route");
    let lab = Name::new("lab", "route");
    let own = Name::new("infra", "route");
    let rows: [(&str, &str, &Name, Value, [&str; 2]); 13] = [
        (
            "as it should be",
            "TCP",
            &own,
            to(at("same"), good()),
            ["Accepted Accepted", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "no such listener",
            "TCP",
            &own,
            to(at("other"), good()),
            ["!Accepted NoMatchingParent", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "another protocol",
            "UDP",
            &own,
            to(at("same"), json!([])),
            ["!Accepted NoMatchingParent", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "by its port",
            "TCP",
            &own,
            to(json!({ "name": "edge", "port": 8001 }), good()),
            ["Accepted Accepted", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "by a port there is not",
            "TCP",
            &own,
            to(json!({ "name": "edge", "port": 1 }), good()),
            ["!Accepted NoMatchingParent", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "another namespace",
            "TCP",
            &shop,
            to(at("same"), json!([])),
            [
                "!Accepted NotAllowedByListeners",
                "ResolvedRefs ResolvedRefs",
            ],
        ),
        (
            "all namespaces",
            "TCP",
            &shop,
            to(at("all"), json!([])),
            ["Accepted Accepted", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "a namespace that is selected",
            "TCP",
            &shop,
            to(at("apps"), json!([])),
            ["Accepted Accepted", "ResolvedRefs ResolvedRefs"],
        ),
        (
            "one that is not",
            "TCP",
            &lab,
            to(at("apps"), json!([])),
            [
                "!Accepted NotAllowedByListeners",
                "ResolvedRefs ResolvedRefs",
            ],
        ),
        (
            "no such Service",
            "TCP",
            &own,
            to(at("same"), json!([{ "name": "none", "port": 80 }])),
            ["Accepted Accepted", "!ResolvedRefs BackendNotFound"],
        ),
        (
            "no such port",
            "TCP",
            &own,
            to(at("same"), json!([{ "name": "web", "port": 81 }])),
            ["Accepted Accepted", "!ResolvedRefs BackendNotFound"],
        ),
        (
            "no Service at all",
            "TCP",
            &own,
            to(
                at("same"),
                json!([{ "name": "web", "kind": "Pod", "port": 80 }]),
            ),
            ["Accepted Accepted", "!ResolvedRefs InvalidKind"],
        ),
        (
            "a Service of another namespace",
            "TCP",
            &shop,
            to(
                at("all"),
                json!([{ "name": "web", "namespace": "infra", "port": 80 }]),
            ),
            ["Accepted Accepted", "!ResolvedRefs RefNotPermitted"],
        ),
    ];
    for (what, protocol, name, spec, wanted) in rows {
        let allowed = |from: Value| json!({ "namespaces": from });
        let mut all = tcp("all", 8001);
        all["allowedRoutes"] = allowed(json!({ "from": "All" }));
        let mut apps = tcp("apps", 8002);
        let selector = json!({ "matchLabels": { "tier": "apps" } });
        apps["allowedRoutes"] = allowed(json!({ "from": "Selector", "selector": selector }));
        let mut cluster = Cluster::new(json!([tcp("same", 8000), all, apps]));
        cluster.service(&web(), "TCP", &["10.0.0.1"]);
        cluster.route(protocol, name, 9, spec);
        cluster.settle();
        assert_eq!(cluster.route_says(name), wanted, "{what}");
    }
}

#[test]
fn a_grant_opens_a_service_to_routes_of_another_namespace() {
    let mut all = tcp("all", 8001);
    all["allowedRoutes"] = json!({ "namespaces": { "from": "All" } });
    let mut cluster = Cluster::new(json!([all]));
    cluster.service(&web(), "TCP", &["10.0.0.1"]);
    let route = Name::new("shop", "route");
    let parent = json!({ "name": "edge", "namespace": "infra" });
    let backends = json!([{ "name": "web", "namespace": "infra", "port": 80 }]);
    cluster.route("TCP", &route, 9, to(parent, backends));
    cluster.settle();
    cluster.give("192.0.2.1");
    assert_eq!(cluster.served()[0].2, []);
    let grant: Arc<ReferenceGrant> = read(json!({
        "metadata": { "name": "shop", "namespace": "infra" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "TCPRoute", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Service", "name": "web" }],
        },
    }));
    let name = Name::new("infra", "shop");
    cluster.put(Change::Grant(name.clone(), Some(grant)));
    cluster.settle();
    assert_eq!(cluster.route_says(&route)[1], "ResolvedRefs ResolvedRefs");
    assert_eq!(cluster.served()[0].2, [("10.0.0.1".to_owned(), 100)]);
    cluster.put(Change::Grant(name, None));
    cluster.settle();
    assert_eq!(
        cluster.route_says(&route)[1],
        "!ResolvedRefs RefNotPermitted"
    );
}

#[test]
fn of_two_routes_at_a_listener_the_older_one_has_it() {
    let mut cluster = Cluster::new(json!([tcp("web", 8000)]));
    cluster.service(&web(), "TCP", &["10.0.0.1"]);
    let (old, young) = (Name::new("infra", "z-old"), Name::new("infra", "a-young"));
    let backends = json!([{ "name": "web", "port": 80 }]);
    for (name, age) in [(&young, 1), (&old, 9)] {
        cluster.route(
            "TCP",
            name,
            age,
            to(json!({ "name": "edge" }), backends.clone()),
        );
    }
    cluster.settle();
    assert_eq!(cluster.route_says(&old)[0], "Accepted Accepted");
    assert_eq!(cluster.route_says(&young)[0], "!Accepted ListenerInUse");
    cluster.put(Change::TcpRoute(old, None));
    cluster.settle();
    assert_eq!(cluster.route_says(&young)[0], "Accepted Accepted");
}

#[test]
fn a_listener_that_cannot_be_says_why_and_holds_up_no_other() {
    let mut odd = tcp("odd", 8001);
    odd["allowedRoutes"] = json!({ "kinds": [{ "kind": "HTTPRoute" }] });
    let http = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let mut cluster = Cluster::new(json!([tcp("a", 8000), tcp("b", 8000), http, odd]));
    cluster.settle();
    let status = cluster.status();
    let listeners = status.listeners.iter().map(|listener| {
        let said = listener.conditions.iter().map(short).collect::<Vec<_>>();
        (said[0].clone(), said[2].clone(), said[3].clone())
    });
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let fine = "ResolvedRefs ResolvedRefs";
    let alone = "!Conflicted NoConflicts";
    let wanted = [
        row("Accepted Accepted", fine, alone),
        row(
            "!Accepted PortUnavailable",
            fine,
            "Conflicted ProtocolConflict",
        ),
        row("!Accepted UnsupportedProtocol", fine, alone),
        row(
            "Accepted Accepted",
            "!ResolvedRefs InvalidRouteKinds",
            alone,
        ),
    ];
    assert_eq!(listeners.collect::<Vec<_>>(), wanted);
    assert_eq!(short(&status.conditions[0]), "Accepted ListenersNotValid");
    let child = &cluster.world.services[&child::name(&edge())];
    assert_eq!(child.ports.len(), 2);
}

#[test]
fn addresses_that_are_asked_for_are_the_childs() {
    let mut cluster = Cluster::new(json!([tcp("web", 8000)]));
    let addresses =
        json!([{ "value": "192.0.2.7" }, { "type": "IPAddress", "value": "2001:db8::7" }]);
    let spec = |addresses: Value| {
        json!({
            "gatewayClassName": "lockstep", "listeners": [tcp("web", 8000)], "addresses": addresses,
        })
    };
    cluster.gateway(spec(addresses));
    cluster.settle();
    let child = cluster.world.services[&child::name(&edge())].clone();
    let wanted = child.annotations[annotations::LOAD_BALANCER_IPS].as_str();
    assert_eq!(wanted, "192.0.2.7,2001:db8::7");
    assert_eq!(child.family_policy, facts::FamilyPolicy::Require);
    cluster.gateway(spec(
        json!([{ "type": "Hostname", "value": "edge.example" }]),
    ));
    cluster.settle();
    assert_eq!(
        short(&cluster.status().conditions[0]),
        "!Accepted UnsupportedAddress"
    );
}

#[test]
fn other_controllers_keep_their_gateways_and_their_part_of_a_route() {
    let mut cluster = Cluster::new(json!([tcp("web", 8000)]));
    cluster.service(&web(), "TCP", &["10.0.0.1"]);
    let backends = json!([{ "name": "web", "port": 80 }]);
    cluster.route("TCP", &web(), 9, to(json!({ "name": "edge" }), backends));
    let mut route = Route::clone(&cluster.world.tcp_routes[&web()]);
    let theirs = json!({ "parentRef": { "name": "other" }, "controllerName": "other.dev/x", "conditions": [] });
    route.status = Some(serde_json::from_value(json!({ "parents": [theirs] })).unwrap());
    cluster.put(Change::TcpRoute(web(), Some(Arc::new(route))));
    cluster.settle();
    let status = cluster.world.tcp_routes[&web()].status.clone().unwrap();
    assert_eq!(status.parents.len(), 2);
    // The Gateway goes to another class: ours is taken back, theirs stays.
    cluster.gateway(json!({ "gatewayClassName": "other", "listeners": [tcp("web", 8000)] }));
    cluster.settle();
    let status = cluster.world.tcp_routes[&web()].status.clone().unwrap();
    assert_eq!(status.parents.len(), 1);
    assert_eq!(status.parents[0].controller_name, "other.dev/x");
    assert_eq!(cluster.served(), []);
}

#[test]
fn children_have_names_of_services_whatever_the_gateways_is() {
    let long = "a".repeat(200);
    let mut seen = std::collections::BTreeSet::new();
    for text in ["edge", "edge.one", "edge-one", "1st", &long, &long[1..]] {
        let name = child::name(&Name::new("infra", text)).name;
        assert!(name.len() <= 63 && !name.contains('.'), "{name}");
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(seen.insert(name));
    }
}

#[test]
fn kinds_are_called_as_the_api_server_calls_them() {
    let all = [
        resources::gateway_classes(),
        resources::gateways(),
        resources::tcp_routes(),
        resources::udp_routes(),
        resources::reference_grants(),
    ];
    let all = all.map(|kind| format!("{}/{}", kind.api_version, kind.plural));
    let group = "gateway.networking.k8s.io";
    let wanted = [
        format!("{group}/v1/gatewayclasses"),
        format!("{group}/v1/gateways"),
        format!("{group}/v1/tcproutes"),
        format!("{group}/v1/udproutes"),
        format!("{group}/v1beta1/referencegrants"),
    ];
    assert_eq!(all, wanted);
}

fn backend(address: u32, active: bool) -> Backend {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + address).into();
    Backend {
        name: format!("{address}"),
        address,
        weight: Weight::DEFAULT,
        state: if active {
            BackendState::Active
        } else {
            BackendState::Draining
        },
        port: None,
        health: Health::UNKNOWN,
    }
}

proptest! {
    /// Each Service gets its share of what is new, within the error of weights that are whole.
    #[test]
    fn services_get_their_shares_whatever_the_number_of_their_endpoints(
        groups in prop::collection::vec((1..100_u32, 1..40_u32, 0..5_u32), 1..5)
    ) {
        let mut first = 0;
        let mut members = Vec::new();
        let given = groups.iter().map(|(weight, active, draining)| {
            let range = first..first + active + draining;
            let backends = range.clone().map(|n| backend(n, n < range.start + active)).collect();
            members.push(range.clone());
            first = range.end;
            (*weight, backends)
        });
        let given: Vec<_> = given.collect();
        let merged = backends::weighted(given);
        prop_assert_eq!(merged.len() as u32, first);
        let active = |b: &&Backend| b.state == BackendState::Active;
        let sum = |backends: &[Backend]| -> f64 {
            backends.iter().filter(active).map(|b| f64::from(b.weight.get())).sum()
        };
        let all = sum(&merged);
        let total: u32 = groups.iter().map(|(weight, ..)| weight).sum();
        for ((weight, ..), range) in groups.iter().zip(&members) {
            let own = sum(&merged[range.start as usize..range.end as usize]) / all;
            let wanted = f64::from(*weight) / f64::from(total);
            prop_assert!((own - wanted).abs() < 0.02, "{own} instead of {wanted}");
        }
    }
}
