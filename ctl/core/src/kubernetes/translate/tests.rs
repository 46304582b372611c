use super::*;
use crate::kubernetes::Change;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use lockstep_kubernetes::CLASS;
use lockstep_plan::{BackendState, Scheduler, Unserved};
use serde_json::{Value, json};

mod cost;
mod endpoints;
mod properties;
mod wishes;

fn settings() -> Settings {
    Settings {
        class: CLASS.to_owned(),
        default_class: false,
        node: Some("n1".to_owned()),
        gateway_controller: String::new(),
    }
}

/// A Service `shop/NAME` with an address and a port; `over` says what is different.
fn service(name: &str, over: &Value) -> (Name, Arc<Service>) {
    let mut object = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": CLASS, "ipFamilies": ["IPv4"],
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } },
    });
    merge(&mut object, over);
    let object: core::Service = serde_json::from_value(object).unwrap();
    let service = Service::from(&object);
    (service.name.clone(), Arc::new(service))
}

/// As a JSON merge patch (RFC 7396), without deletions.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A slice of `shop/SERVICE`: its endpoints by their addresses, all ready, at a port of that name.
fn slice(name: &str, service: &str, port: (&str, u16), addresses: &[&str]) -> (Name, Arc<Slice>) {
    let v6 = addresses.first().is_some_and(|a| a.contains(':'));
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }))
        .collect();
    let object: discovery::EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": name,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": [{ "name": port.0, "port": port.1, "protocol": "TCP" }],
        "endpoints": endpoints,
    }))
    .unwrap();
    let slice = Slice::from(&object);
    (slice.name.clone(), Arc::new(slice))
}

#[derive(Default)]
struct Cluster {
    world: World,
    translator: Translator,
}

impl Cluster {
    fn of(services: &[(Name, Arc<Service>)], slices: &[(Name, Arc<Slice>)]) -> Self {
        let mut cluster = Cluster::default();
        for (name, service) in services.iter().cloned() {
            cluster.world.apply(Change::Service(name, Some(service)));
        }
        for (name, slice) in slices.iter().cloned() {
            cluster.world.apply(Change::Slice(name, Some(slice)));
        }
        cluster.update();
        cluster
    }

    fn change(&mut self, change: Change) -> bool {
        self.world.apply(change);
        self.update()
    }

    fn update(&mut self) -> bool {
        self.translator.update(&mut self.world, &settings())
    }

    fn services(&self) -> Vec<lockstep_plan::Service> {
        let services = self.translator.offer().services;
        assert_eq!(Snapshot::new(1, services.clone()).err(), None);
        services
    }

    /// Services in a line each: name, mode, VIPs, backends.
    fn said(&self) -> Vec<String> {
        self.services().iter().map(line).collect()
    }

    /// Problems in a line each: port, reason, and the sentence.
    fn problems(&self, name: &str) -> Vec<String> {
        let problems = self.translator.problems(&Name::new("shop", name));
        let one = |p: &Problem| {
            let port = p.port.map_or("-".to_owned(), |port| port.0.to_string());
            format!("{port} {}: {}", p.reason, p.message)
        };
        problems.iter().map(one).collect()
    }
}

fn line(service: &lockstep_plan::Service) -> String {
    let vips: Vec<String> = service.vips.iter().map(ToString::to_string).collect();
    let backends = service.backends.iter().map(|b| {
        let port = b.port.map_or(String::new(), |port| format!(":{port}"));
        let state = match b.state {
            BackendState::Active => "",
            BackendState::Draining => " draining",
        };
        format!("{}{port}{state}", b.address)
    });
    let backends: Vec<String> = backends.collect();
    let (vips, backends) = (vips.join(" "), backends.join(", "));
    let mode = service.mode.name();
    format!("{} {mode} {vips} -> {backends}", service.name)
}

/// The only Service there is, with two pods at another port.
fn alone(over: &Value) -> Cluster {
    let slices = [slice(
        "web-1",
        "web",
        ("http", 8080),
        &["10.0.0.1", "10.0.0.2"],
    )];
    Cluster::of(&[service("web", over)], &slices)
}

fn annotated(annotations: Value) -> Value {
    json!({ "metadata": { "annotations": annotations } })
}

#[test]
fn a_service_is_served_at_the_addresses_of_its_status() {
    let cluster = alone(&json!({}));
    let expected = ["shop/web/http full-nat 203.0.113.1:80/tcp -> 10.0.0.1:8080, 10.0.0.2:8080"];
    assert_eq!(cluster.said(), expected);
    assert_eq!(cluster.problems("web"), [""; 0]);
    let two = json!({ "status": { "loadBalancer": {
        "ingress": [{ "ip": "203.0.113.2" }, { "ip": "203.0.113.1" }, { "hostname": "web.example" }]
    } } });
    let expected = "shop/web/http full-nat 203.0.113.1:80/tcp 203.0.113.2:80/tcp -> 10.0.0.1:8080";
    assert!(alone(&two).said()[0].starts_with(expected));
    let none = json!({ "status": { "loadBalancer": { "ingress": [] } } });
    assert_eq!(alone(&none).said(), [""; 0]);
}

#[test]
fn services_of_others_are_left_alone() {
    let rows = [
        json!({ "spec": { "loadBalancerClass": "example.com/other" } }),
        json!({ "spec": { "loadBalancerClass": null } }),
        json!({ "spec": { "type": "ClusterIP" } }),
        json!({ "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z" } }),
        annotated(json!({ "lockstep.dev/dire": "web" })),
        annotated(json!({ "lockstep.dev/gateway": "web" })),
    ];
    for over in rows {
        assert_eq!(alone(&over).said(), [""; 0], "{over}");
    }
    let (_, without_class) = service("web", &json!({ "spec": { "loadBalancerClass": null } }));
    let every = Settings {
        default_class: true,
        ..settings()
    };
    assert!(is_ours(&without_class, &every));
    assert!(!is_ours(&without_class, &settings()));
}

#[test]
fn each_family_has_a_service_of_its_own() {
    let dual = json!({
        "spec": { "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack" },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }, { "ip": "2001:db8::1" }] } },
    });
    for mode in ["full-nat", "tunnel", "replicate"] {
        let mut dual = dual.clone();
        merge(&mut dual, &annotated(json!({ "lockstep.dev/mode": mode })));
        let slices = [
            slice("web-4", "web", ("http", 80), &["10.0.0.1"]),
            slice("web-6", "web", ("http", 80), &["fd00::1"]),
        ];
        let expected = [
            format!("shop/web/http/v4 {mode} 203.0.113.1:80/tcp -> 10.0.0.1"),
            format!("shop/web/http {mode} [2001:db8::1]:80/tcp -> fd00::1"),
        ];
        assert_eq!(
            Cluster::of(&[service("web", &dual)], &slices).said(),
            expected
        );
    }
}

#[test]
fn of_two_that_have_one_port_of_one_address_the_older_one_is_served() {
    let created = |time: &str| json!({ "metadata": { "creationTimestamp": time } });
    let web = service("web", &created("2026-01-02T00:00:00Z"));
    let api = service("api", &created("2026-01-03T00:00:00Z"));
    let mut cluster = Cluster::of(&[api.clone(), web.clone()], &[]);
    assert_eq!(
        cluster.said(),
        ["shop/web/http full-nat 203.0.113.1:80/tcp -> "]
    );
    assert_eq!(cluster.problems("web"), [""; 0]);
    let problems = cluster.problems("api");
    assert!(
        problems[0].starts_with("80 PortTaken: 203.0.113.1:80/tcp is a port of Service shop/web")
    );
    // The other one has it as soon as it is free.
    assert!(cluster.change(Change::Service(web.0.clone(), None)));
    assert_eq!(
        cluster.said(),
        ["shop/api/http full-nat 203.0.113.1:80/tcp -> "]
    );
    assert_eq!(cluster.problems("api"), [""; 0]);
    assert!(cluster.change(Change::Service(web.0, Some(web.1))));
    assert_eq!(
        cluster.said(),
        ["shop/web/http full-nat 203.0.113.1:80/tcp -> "]
    );
    // Of two as old it is the one whose name is first; other ports of one address are nobody's.
    let other =
        json!({ "spec": { "ports": [{ "name": "alt", "port": 8080, "protocol": "TCP" }] } });
    let three = [
        service("b", &json!({})),
        service("a", &json!({})),
        service("c", &other),
    ];
    let cluster = Cluster::of(&three, &[]);
    let names: Vec<String> = cluster
        .services()
        .iter()
        .map(|s| s.name.to_string())
        .collect();
    assert_eq!(names, ["shop/a/http", "shop/c/alt"]);
}

#[test]
fn what_is_as_it_was_makes_no_work() {
    let web = service("web", &json!({}));
    let pods = slice("web-1", "web", ("http", 8080), &["10.0.0.1"]);
    let mut cluster = Cluster::of(std::slice::from_ref(&web), std::slice::from_ref(&pods));
    let again = || Arc::new(Service::clone(&web.1));
    assert!(
        !cluster
            .world
            .apply(Change::Service(web.0.clone(), Some(again())))
    );
    assert!(
        !cluster
            .world
            .apply(Change::Slice(pods.0.clone(), Some(pods.1.clone())))
    );
    assert!(cluster.world.take_dirty().is_empty());
    assert!(!cluster.update());
    // A slice that changes hands leaves the other Service.
    let (name, moved) = slice("web-1", "api", ("http", 8080), &["10.0.0.1"]);
    assert!(cluster.change(Change::Slice(name, Some(moved))));
    assert_eq!(
        cluster.said(),
        ["shop/web/http full-nat 203.0.113.1:80/tcp -> "]
    );
}

#[test]
fn what_was_made_for_a_child_is_left_out_where_it_cannot_stand() {
    let fine = crate::testing::service("shop/game-dire", &["10.0.0.1"]);
    let mut without_vip = crate::testing::service("shop/game-dire/b", &["10.0.0.1"]);
    without_vip.vips.clear();
    let wanted = of_others(7, vec![fine.clone(), without_vip, fine.clone()]);
    assert_eq!((wanted.created, wanted.drafts.len()), (7, 1));
    assert_eq!(*wanted.drafts[0].service, fine);
    let said: Vec<&str> = wanted.problems.iter().map(|p| p.message.as_str()).collect();
    assert!(said[0].contains("has no VIP"), "{said:?}");
    assert!(said[1].contains("the name is used twice"), "{said:?}");
}
