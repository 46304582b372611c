//! Gateways and routes in, services and status out.

use super::*;
use crate::kubernetes::Change;
use crate::kubernetes::write::Kind;
use cluster::{Cluster, edge, now, read, settings, short, tcp, to, web};
use lockstep_kubernetes::annotations;
use lockstep_kubernetes::facts::gateway::{GatewayClass, ReferenceGrant, Route, resources};
use lockstep_kubernetes::facts::{self, Name};
use lockstep_plan::{Backend, BackendState, Health, Weight};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

mod cluster;

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
            [
                "!Accepted NotAllowedByListeners",
                "ResolvedRefs ResolvedRefs",
            ],
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
    let mut odd = tcp("odd", 8002);
    odd["allowedRoutes"] = json!({ "kinds": [{ "kind": "HTTPRoute" }] });
    let http = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let over = json!({ "name": "over", "port": 8001, "protocol": "HTTP" });
    let dns = json!({ "name": "dns", "port": 8000, "protocol": "UDP" });
    let listeners = [
        tcp("a", 8000),
        tcp("b", 8000),
        dns,
        http,
        odd,
        tcp("c", 8001),
        over,
    ];
    let mut cluster = Cluster::new(json!(listeners));
    cluster.settle();
    let status = cluster.status();
    let listeners = status.listeners.iter().map(|listener| {
        let said = listener.conditions.iter().map(short).collect::<Vec<_>>();
        let row = [&*listener.name, &*said[0], &*said[2], &*said[3]];
        row.join(", ")
    });
    let wanted = [
        // Both of those that contradict each other; UDP contradicts no TCP.
        "a, !Accepted PortUnavailable, ResolvedRefs ResolvedRefs, Conflicted ProtocolConflict",
        "b, !Accepted PortUnavailable, ResolvedRefs ResolvedRefs, Conflicted ProtocolConflict",
        "dns, Accepted Accepted, ResolvedRefs ResolvedRefs, !Conflicted NoConflicts",
        "http, !Accepted UnsupportedProtocol, ResolvedRefs ResolvedRefs, !Conflicted NoConflicts",
        "odd, Accepted Accepted, !ResolvedRefs InvalidRouteKinds, !Conflicted NoConflicts",
        "c, !Accepted PortUnavailable, ResolvedRefs ResolvedRefs, Conflicted ProtocolConflict",
        "over, !Accepted UnsupportedProtocol, ResolvedRefs ResolvedRefs, Conflicted ProtocolConflict",
    ];
    assert_eq!(listeners.collect::<Vec<_>>(), wanted);
    assert_eq!(short(&status.conditions[0]), "Accepted ListenersNotValid");
    let child = &cluster.world.services[&child::name(&edge())];
    let ports: Vec<u16> = child.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [8002, 8000]);
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
fn a_gateway_that_another_controller_takes_over_loses_its_child_and_nothing_else_does() {
    let mut cluster = Cluster::new(json!([tcp("web", 8000)]));
    cluster.settle();
    let name = child::name(&edge());
    let class = |controller: &str| -> Arc<GatewayClass> {
        read(json!({ "metadata": { "name": "other" }, "spec": { "controllerName": controller } }))
    };
    // Nobody has it, while its class is not there.
    cluster.gateway(json!({ "gatewayClassName": "other", "listeners": [tcp("web", 8000)] }));
    cluster.settle();
    assert!(cluster.world.services.contains_key(&name));
    let theirs = Some(class("other.dev/x"));
    cluster.put(Change::GatewayClass("other".to_owned(), theirs));
    // That of another installation, or of another Gateway of the name, is not ours to delete.
    let mine = cluster.world.services[&name].clone();
    let mut foreign = facts::Service::clone(&mine);
    foreign.class = Some("example.org/lb".to_owned());
    let mut older = facts::Service::clone(&mine);
    older
        .annotations
        .insert(annotations::OWNER.to_owned(), "g-0".to_owned());
    for other in [foreign, older] {
        cluster.put(Change::Service(name.clone(), Some(Arc::new(other))));
        cluster.settle();
        assert!(cluster.world.services.contains_key(&name));
    }
    cluster.put(Change::Service(name.clone(), Some(mine)));
    cluster.settle();
    assert!(!cluster.world.services.contains_key(&name));
}

#[test]
fn what_is_said_of_a_route_is_said_of_the_version_that_was_looked_at() {
    let mut cluster = Cluster::new(json!([tcp("web", 8000)]));
    let backends = json!([{ "name": "web", "port": 80 }]);
    cluster.route("TCP", &web(), 9, to(json!({ "name": "edge" }), backends));
    let mut route = Route::clone(&cluster.world.tcp_routes[&web()]);
    route.metadata.resource_version = Some("7".to_owned());
    cluster.put(Change::TcpRoute(web(), Some(Arc::new(route))));
    let writes = writes(&cluster.world, &settings(), now());
    let mut of_route = writes.iter().filter_map(|write| match write {
        Write::Apply { object, body, .. } if object.kind == Kind::TcpRoute => Some(body),
        _ => None,
    });
    let body = of_route.next().expect("it is said");
    assert_eq!(body["metadata"]["resourceVersion"], "7");
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
