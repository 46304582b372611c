use super::*;
use crate::kubernetes::Change;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use lockstep_kubernetes::CLASS;
use lockstep_plan::{BackendState, Scheduler, Unserved};
use serde_json::{Value, json};

mod cost;
mod properties;

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
fn endpoints_of_the_other_family_are_tunnelled_to_and_not_rewritten_to() {
    let v6 = |mode: &str| {
        let mut over = json!({
            "spec": { "ipFamilies": ["IPv6"] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "2001:db8::1" }] } },
        });
        merge(&mut over, &annotated(json!({ "lockstep.dev/mode": mode })));
        let slices = [slice("web-1", "web", ("http", 80), &["10.0.0.1"])];
        Cluster::of(&[service("web", &over)], &slices)
    };
    assert_eq!(
        v6("tunnel").said(),
        ["shop/web/http tunnel [2001:db8::1]:80/tcp -> 10.0.0.1"]
    );
    assert_eq!(v6("replicate").said().len(), 1);
    for mode in ["nat", "full-nat"] {
        assert_eq!(v6(mode).said(), [""; 0]);
        let problems = v6(mode).problems("web");
        assert!(
            problems[0].starts_with("80 FamilyMismatch: "),
            "{problems:?}"
        );
        assert!(
            problems[0].contains("add IPv6 to ipFamilies"),
            "{problems:?}"
        );
    }
}

#[test]
fn annotations_say_how_in_the_words_of_services_toml() {
    let of = |annotations: Value| alone(&annotated(annotations)).services().remove(0);
    let plain = of(json!({}));
    assert_eq!(plain.scheduler, Scheduler::Maglev);
    assert_eq!(plain.table_size.get(), 2_039);
    assert_eq!(plain.unserved, Unserved::Reset);
    let chosen = of(json!({
        "lockstep.dev/mode": " nat ", "lockstep.dev/scheduler": "wlc",
        "lockstep.dev/table-size": "65537",
    }));
    assert_eq!(chosen.mode, lockstep_plan::Mode::Nat);
    assert_eq!(chosen.scheduler, Scheduler::LeastConnections);
    assert_eq!(chosen.table_size.get(), 65_537);
    let policy = of(json!({
        "lockstep.dev/mode": "replicate",
        "lockstep.dev/replicate": "commit = { quorum = 2 }\nproxy_protocol = true",
    }));
    let policy = policy.mode.replicate().unwrap();
    assert_eq!((policy.quorum(), policy.min_sync.get()), (2, 2));
    assert!(policy.proxy_protocol);
}

#[test]
fn affinity_is_a_choice_by_the_clients_address() {
    let of = |annotations: Value| {
        let mut over = annotated(annotations);
        merge(
            &mut over,
            &json!({ "spec": { "sessionAffinity": "ClientIP" } }),
        );
        let cluster = alone(&over);
        (
            cluster.services().remove(0).scheduler,
            cluster.problems("web"),
        )
    };
    for annotations in [
        json!({}),
        json!({ "lockstep.dev/scheduler": "maglev" }),
        json!({ "lockstep.dev/scheduler": "source-hash" }),
    ] {
        assert_eq!(of(annotations), (Scheduler::SourceHash, vec![]));
    }
    let (scheduler, problems) = of(json!({ "lockstep.dev/scheduler": "wrr" }));
    assert_eq!(scheduler, Scheduler::SourceHash);
    assert!(
        problems[0].contains("leave one of both out"),
        "{problems:?}"
    );
}

#[test]
fn a_time_after_which_affinity_ends_is_told_to_mean_nothing_unless_it_is_the_default() {
    let of = |seconds: u32| {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        let over = json!({
            "spec": { "sessionAffinity": "ClientIP", "sessionAffinityConfig": config },
        });
        let cluster = alone(&over);
        assert_eq!(
            cluster.services().remove(0).scheduler,
            Scheduler::SourceHash
        );
        cluster.problems("web")
    };
    assert_eq!(of(10_800), [""; 0]);
    let problems = of(60);
    assert!(
        problems[0].contains("not for 60 s: leave out"),
        "{problems:?}"
    );
}

#[test]
fn source_ranges_never_open_what_they_close() {
    let of = |ranges: &[&str]| {
        let cluster = alone(&json!({ "spec": { "loadBalancerSourceRanges": ranges } }));
        let guard = cluster.services().remove(0).guard;
        let text = |prefixes: &[lockstep_plan::Prefix]| -> Vec<String> {
            prefixes.iter().map(ToString::to_string).collect()
        };
        (
            text(&guard.allow),
            text(&guard.deny),
            cluster.problems("web").len(),
        )
    };
    let strings =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).to_owned()).collect() };
    assert_eq!(of(&[]), (vec![], vec![], 0));
    // As Kubernetes reads them: spaces and host bits mean nothing.
    let (allow, deny, problems) = of(&[" 192.0.2.0/24 ", "198.51.100.7/24", "2001:db8::/32"]);
    assert_eq!(
        allow,
        strings(&["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"])
    );
    assert_eq!((deny, problems), (vec![], 0));
    let (allow, deny, problems) = of(&["192.0.2.0/24", "nonsense"]);
    assert_eq!(
        (allow, deny, problems),
        (strings(&["192.0.2.0/24"]), vec![], 1)
    );
    for nonsense in [
        "nonsense",
        "192.0.2.0",
        "192.0.2.0/33",
        "2001:db8::/129",
        "/8",
        "",
    ] {
        let (allow, deny, problems) = of(&[nonsense]);
        assert_eq!((allow, problems), (vec![], 1), "{nonsense}");
        assert_eq!(deny, strings(&["0.0.0.0/0", "::/0"]), "{nonsense}");
    }
}

#[test]
fn what_cannot_be_served_says_what_to_do() {
    let sctp = json!({ "spec": { "ports": [
        { "name": "http", "port": 80, "protocol": "TCP" },
        { "name": "sig", "port": 3868, "protocol": "SCTP" },
    ] } });
    let mode = |mode: &str| annotated(json!({ "lockstep.dev/mode": mode }));
    let policy = |policy: &str| {
        annotated(json!({ "lockstep.dev/mode": "replicate", "lockstep.dev/replicate": policy }))
    };
    let mut udp = mode("replicate");
    let port = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }]);
    merge(&mut udp, &json!({ "spec": { "ports": port } }));
    let twice = json!({ "spec": { "ports": [
        { "name": "http", "port": 80, "protocol": "TCP" }, { "name": "web", "port": 80, "protocol": "TCP" },
    ] } });
    let loopback = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } } });
    let rows = [
        (
            sctp,
            1,
            "3868 UnsupportedProtocol: port 3868 is neither TCP nor UDP",
        ),
        (
            mode("tunel"),
            0,
            "80 InvalidMode: lockstep.dev/mode: \"tunel\" is no mode; did you mean `tunnel`?",
        ),
        (
            mode("tunnel"),
            0,
            "80 PortMismatch: the targetPort of port 80 is another one",
        ),
        (
            policy("commit = 3"),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: ",
        ),
        (
            policy("quorum = 3"),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: ",
        ),
        (
            policy(&format!(
                "masks = [{}]",
                "{ offset = 0, length = 1 },".repeat(9)
            )),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: more than 8 masks",
        ),
        (udp, 0, "53 UnsupportedProtocol: port 53 is UDP"),
        (
            twice,
            1,
            "80 DuplicatePort: port 80 or its name is there twice",
        ),
        (
            loopback,
            0,
            "- AddressUnusable: 127.0.0.1 is not a unicast address",
        ),
        (
            annotated(json!({ "lockstep.dev/scheduler": "maglef" })),
            1,
            "- InvalidScheduler: lockstep.dev/scheduler: \"maglef\" is no scheduler; did you mean `maglev`?",
        ),
        (
            annotated(json!({ "lockstep.dev/table-size": "65536" })),
            1,
            "- InvalidTableSize: lockstep.dev/table-size: 65536 is not a prime; the nearest is 65537",
        ),
        (
            annotated(json!({ "lockstep.dev/table-size": "many" })),
            1,
            "- InvalidTableSize: lockstep.dev/table-size: \"many\" is no table size",
        ),
        (
            annotated(json!({ "lockstep.dev/replicate": "min_sync = 2" })),
            1,
            "- AnnotationIgnored: lockstep.dev/replicate says how",
        ),
    ];
    for (over, served, problem) in rows {
        let cluster = alone(&over);
        assert_eq!(cluster.said().len(), served, "{over}");
        let problems = cluster.problems("web");
        assert_eq!(problems.len(), 1, "{over}: {problems:?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
    }
}

#[test]
fn a_tunnel_serves_the_slices_whose_port_is_the_services() {
    let slices = [
        slice("web-1", "web", ("http", 8080), &["10.0.0.1"]),
        slice("web-2", "web", ("http", 80), &["10.0.0.2"]),
    ];
    let tunnel = annotated(json!({ "lockstep.dev/mode": "tunnel" }));
    let cluster = Cluster::of(&[service("web", &tunnel)], &slices);
    assert_eq!(
        cluster.said(),
        ["shop/web/http tunnel 203.0.113.1:80/tcp -> 10.0.0.2"]
    );
    assert!(cluster.problems("web")[0].starts_with("- PortMismatch"));
}

#[test]
fn a_service_without_endpoints_keeps_its_address_and_refuses() {
    let cluster = Cluster::of(&[service("web", &json!({}))], &[]);
    assert_eq!(
        cluster.said(),
        ["shop/web/http full-nat 203.0.113.1:80/tcp -> "]
    );
    assert_eq!(cluster.services()[0].unserved, Unserved::Reset);
    // Another node may have endpoints: a client that tries again may find it.
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    let cluster = Cluster::of(&[service("web", &local)], &[]);
    assert_eq!(cluster.services()[0].unserved, Unserved::Drop);
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
fn an_address_of_a_service_is_no_endpoint_of_any() {
    let behind = service(
        "other",
        &json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.2" }] } } }),
    );
    let mut cluster = alone(&json!({}));
    assert_eq!(cluster.services()[0].backends.len(), 2);
    assert!(cluster.change(Change::Service(behind.0.clone(), Some(behind.1))));
    let web = "shop/web/http full-nat 203.0.113.1:80/tcp -> 10.0.0.1:8080";
    assert_eq!(
        cluster.said(),
        ["shop/other/http full-nat 10.0.0.2:80/tcp -> ", web]
    );
    assert!(cluster.problems("web")[0].starts_with("- EndpointIsAddress: endpoint 10.0.0.2"));
    assert!(cluster.change(Change::Service(behind.0, None)));
    assert_eq!(cluster.services()[0].backends.len(), 2);
    assert_eq!(cluster.problems("web"), [""; 0]);
}

#[test]
fn tables_are_as_large_as_the_number_of_known_addresses_asks_for() {
    let rows = [
        (0, 2_039),
        (20, 2_039),
        (21, 16_381),
        (160, 16_381),
        (161, 65_537),
        (4_096, 65_537),
    ];
    for (known, entries) in rows {
        assert_eq!(port::table_size(known).get(), entries, "{known}");
    }
    // Readiness changes nothing about it.
    let addresses: Vec<String> = (1..=21).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (name, slice) = slice("web-1", "web", ("http", 80), &addresses);
    let mut unready = Slice::clone(&slice);
    for endpoint in unready.endpoints.iter_mut().take(15) {
        (endpoint.ready, endpoint.serving) = (false, false);
    }
    let cluster = Cluster::of(&[service("web", &json!({}))], &[(name, Arc::new(unready))]);
    let served = cluster.services().remove(0);
    assert_eq!(
        (served.backends.len(), served.table_size.get()),
        (6, 16_381)
    );
}

#[test]
fn more_endpoints_than_an_engine_holds_are_left_out_and_said() {
    let addresses: Vec<String> = (0..130).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let slices = [slice("web-1", "web", ("http", 80), &addresses)];
    let over = annotated(json!({ "lockstep.dev/mode": "replicate" }));
    let cluster = Cluster::of(&[service("web", &over)], &slices);
    assert_eq!(cluster.services()[0].backends.len(), 128);
    let problems = cluster.problems("web");
    assert!(
        problems[0].starts_with("- TooManyEndpoints: port 80: 2 endpoints are more than the 128")
    );
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
fn a_zone_that_becomes_known_is_followed() {
    let (name, hinted) = slice("web-1", "web", ("http", 80), &["10.0.0.1", "10.0.0.2"]);
    let mut hinted = Slice::clone(&hinted);
    for (endpoint, zone) in hinted.endpoints.iter_mut().zip(["a", "b"]) {
        endpoint.zones = vec![zone.into()];
    }
    let mut cluster = Cluster::of(&[service("web", &json!({}))], &[(name, Arc::new(hinted))]);
    assert!(cluster.said()[0].ends_with("-> 10.0.0.1, 10.0.0.2"));
    let zone = ("topology.kubernetes.io/zone".to_owned(), "b".to_owned());
    let node = lockstep_kubernetes::facts::Node {
        name: "n1".to_owned(),
        labels: BTreeMap::from([zone]),
    };
    assert!(cluster.change(Change::Node("n1".to_owned(), Some(Arc::new(node)))));
    assert!(cluster.said()[0].ends_with("-> 10.0.0.1 draining, 10.0.0.2"));
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
