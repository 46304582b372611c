//! The daemon with a real API server: addresses, endpoints, outages, two daemons, many Services.

use crate::common::kube::{KubeApi, percentile};
use crate::common::{Daemon, FakeEngine, Place, optimized, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

const POOLS: &str = "/apis/lockstep.dev/v1alpha1/addresspools";

/// A balancer that follows a cluster: its daemon, its engine, its files.
struct Balancer {
    daemon: Option<Daemon>,
    engine: FakeEngine,
    place: Place,
}

impl Balancer {
    /// That serves Services of this class.
    fn new(name: &str, class: &str, api: &KubeApi) -> Self {
        Balancer::with(name, class, api, "")
    }

    /// With more in its section.
    fn with(name: &str, class: &str, api: &KubeApi, more: &str) -> Self {
        let place = Place::new("service = []\n");
        place.configure(&format!(
            "[node]\nname = \"{name}\"\n[kubernetes]\nkubeconfig = \"{}\"\nnode = \"{name}\"\n\
             class = \"{class}\"\nlease = \"{name}-test\"\n{more}",
            api.kubeconfig().display()
        ));
        let engine = place.engine();
        let daemon = Some(place.daemon());
        Balancer {
            daemon,
            engine,
            place,
        }
    }

    fn kubernetes(&self) -> Value {
        let answer = self.place.lockstep(&["kubernetes", "--output", "json"]);
        serde_json::from_str(&answer.out).unwrap_or_default()
    }

    /// The addresses of all backends that the engine has.
    fn backends(&self) -> BTreeSet<String> {
        let current = self.engine.current();
        let backends = current.services.iter().flat_map(|s| &s.backends);
        backends.map(|b| b.address.clone()).collect()
    }

    fn has(&self, backends: &[&str]) -> bool {
        self.backends() == backends.iter().map(|b| (*b).to_owned()).collect()
    }

    fn vips(&self) -> BTreeSet<String> {
        let current = self.engine.current();
        let vips = current.services.iter().flat_map(|s| &s.vips);
        vips.map(|v| v.address.clone()).collect()
    }

    fn leads(&self) -> bool {
        self.kubernetes().pointer("/cluster/leads") == Some(&json!(true))
    }

    /// SIGTERM, and another daemon.
    fn restart(&mut self) {
        self.daemon.take().unwrap().terminate();
        self.daemon = Some(self.place.daemon());
    }
}

fn pool(name: &str, addresses: &str) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name}, "spec": {"addresses": [addresses]},
    })
}

fn service(namespace: &str, name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": class,
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
    })
}

fn slice(namespace: &str, service: &str, addresses: &[String]) -> Value {
    let endpoints = addresses.iter().map(
        |address| json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": "n1"}),
    );
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn services(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services")
}

fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

/// A Service with these endpoints, as Kubernetes makes them of its pods.
fn serve(api: &KubeApi, namespace: &str, name: &str, class: &str, endpoints: &[&str]) {
    api.apply(&services(namespace), service(namespace, name, class));
    endpoints_of(api, namespace, name, endpoints);
}

fn endpoints_of(api: &KubeApi, namespace: &str, name: &str, endpoints: &[&str]) {
    let endpoints: Vec<String> = endpoints.iter().map(|e| (*e).to_owned()).collect();
    api.apply(&slices(namespace), slice(namespace, name, &endpoints));
}

#[test]
fn a_service_gets_an_address_and_the_engine_follows_its_endpoints() {
    let api = KubeApi::start();
    let class = "lockstep.dev/follows";
    api.namespace("follows");
    api.apply(POOLS, pool("follows", "203.0.113.0/28"));
    let balancer = Balancer::new("follows", class, &api);
    serve(&api, "follows", "web", class, &["10.1.0.1", "10.1.0.2"]);
    wait_for("the engine", || balancer.has(&["10.1.0.1", "10.1.0.2"]));
    assert_eq!(api.addresses("follows", "web"), ["203.0.113.0"]);
    assert_eq!(balancer.vips(), BTreeSet::from(["203.0.113.0".to_owned()]));

    let mut times: Vec<Duration> = (0..200)
        .map(|n| {
            let address = format!("10.2.{}.{}", n / 100, n % 100 + 1);
            let begun = Instant::now();
            endpoints_of(&api, "follows", "web", &[&address]);
            wait_for("the change", || balancer.has(&[&address]));
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "from the API's client to the engine, 200 changes: p50 {:?}, p99 {:?}, max {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
        times[times.len() - 1]
    );
    // The goal is 300 ms; this machine may have other things to do.
    assert!(percentile(&times, 90) < Duration::from_secs(2), "{times:?}");

    // The daemon's own histogram, which is told some times a second.
    let family = "lockstep_kubernetes_event_to_engine_seconds";
    let histogram = || {
        let metrics = balancer.place.lockstep(&["metrics"]).out;
        let lines = metrics.lines().filter(|line| line.starts_with(family));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let under = |bound: &str| {
        let key = format!("{family}_bucket{{le=\"{bound}\"}} ");
        let lines = histogram();
        let line = lines.iter().find_map(|line| line.strip_prefix(&key));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    wait_for("the histogram", || under("+Inf") >= 200);
    println!("{}", histogram().join("\n"));
    assert!(under("1") >= 180, "{:?}", histogram());

    let shown = balancer.place.lockstep(&["k8s"]);
    shown.expect(
        0,
        &[
            "follows/web",
            "203.0.113.0",
            "this balancer leads",
            "answers",
        ],
    );
    api.delete(&format!("{}/web", services("follows")));
    wait_for("the end of it", || balancer.vips().is_empty());
}

#[test]
fn services_that_cannot_be_served_say_why_and_hold_up_no_other() {
    let api = KubeApi::start();
    let class = "lockstep.dev/ailing";
    api.namespace("ailing");
    let balancer = Balancer::new("ailing", class, &api);
    serve(&api, "ailing", "first", class, &["10.1.0.1"]);
    let problem = || {
        let answer = balancer.place.lockstep(&["kubernetes"]);
        (answer.code == 1 && answer.out.contains("ailing/first")).then_some(answer.out)
    };
    wait_for("the reason", || {
        problem().is_some_and(|text| text.contains("pool"))
    });
    let status = balancer.place.lockstep(&["status"]);
    assert!(
        status.out.contains("kubernetes: ailing/first"),
        "{status:?}"
    );
    let events = "/apis/events.k8s.io/v1/namespaces/ailing/events";
    wait_for("an event", || {
        let events = api.get(events).unwrap_or_default();
        events["items"].as_array().is_some_and(|events| {
            let failed = |event: &&Value| event["reason"] == "AllocationFailed";
            events
                .iter()
                .find(failed)
                .is_some_and(|e| e["type"] == "Warning")
        })
    });
    api.apply(POOLS, pool("ailing", "203.0.113.16/32"));
    wait_for("an address", || {
        !api.addresses("ailing", "first").is_empty()
    });
    serve(&api, "ailing", "second", class, &["10.1.0.2"]);
    wait_for("a pool without addresses", || {
        let answer = balancer.place.lockstep(&["kubernetes"]);
        answer.code == 1 && answer.out.contains("ailing/second")
    });
    assert!(balancer.has(&["10.1.0.1"]));
}

#[test]
fn without_an_api_server_nothing_changes_and_a_restarted_daemon_knows_its_services() {
    let api = KubeApi::start();
    let class = "lockstep.dev/outage";
    api.namespace("outage");
    api.apply(POOLS, pool("outage", "203.0.113.32/28"));
    let mut balancer = Balancer::new("outage", class, &api);
    serve(&api, "outage", "web", class, &["10.1.0.1", "10.1.0.2"]);
    wait_for("the engine", || balancer.has(&["10.1.0.1", "10.1.0.2"]));
    let vips = balancer.vips();
    wait_for("what is kept", || {
        balancer.place.path("state/kubernetes.json").exists()
    });

    let stopped = api.stop();
    wait_for("the report", || {
        let answer = balancer.place.lockstep(&["kubernetes"]);
        answer.code == 1 && answer.out.contains("does NOT answer")
    });
    assert!(balancer.has(&["10.1.0.1", "10.1.0.2"]));
    // Daemon and engine are started anew: whatever they know they have kept themselves.
    balancer.restart();
    let engine = balancer.place.path("engine.sock");
    fs::remove_file(engine).unwrap();
    let engine = balancer.place.engine();
    std::mem::replace(&mut balancer.engine, engine).kill();
    wait_for("what was kept", || balancer.has(&["10.1.0.1", "10.1.0.2"]));
    assert_eq!(balancer.vips(), vips);
    // Before it has read that, it leaves to the engine what the engine has.
    wait_for("what it has read", || {
        balancer.kubernetes()["cluster"]["serves"] == "restored"
    });

    api.start_again(stopped);
    endpoints_of(&api, "outage", "web", &["10.1.0.3"]);
    wait_for("what is new", || balancer.has(&["10.1.0.3"]));
    assert_eq!(balancer.vips(), vips);
    assert_eq!(api.addresses("outage", "web"), ["203.0.113.32"]);
    wait_for("no trouble", || {
        balancer.place.lockstep(&["kubernetes"]).code == 0
    });
}

#[test]
fn of_two_daemons_one_leads_and_addresses_stay_when_it_ends() {
    let api = KubeApi::start();
    let class = "lockstep.dev/two";
    api.namespace("two");
    api.apply(POOLS, pool("two", "203.0.113.48/28"));
    let mut first = Balancer::new("two", class, &api);
    wait_for("a leader", || first.leads());
    let second = Balancer::new("two", class, &api);
    for name in ["a", "b", "c"] {
        serve(&api, "two", name, class, &["10.1.0.1"]);
    }
    wait_for("both engines", || {
        first.vips().len() == 3 && second.vips() == first.vips()
    });
    assert!(first.leads() && !second.leads());
    let addresses = || ["a", "b", "c"].map(|name| api.addresses("two", name));
    let before = addresses();
    first.daemon.take().unwrap().terminate();
    wait_for("the other one", || second.leads());
    serve(&api, "two", "d", class, &["10.1.0.1"]);
    wait_for("another address", || !api.addresses("two", "d").is_empty());
    assert_eq!(addresses(), before);
    wait_for("the engine of who leads now", || second.vips().len() == 4);
    // The engine without a daemon forwards as before.
    assert_eq!(first.vips().len(), 3);
}

#[test]
#[ignore = "a Lease runs out: make test-long"]
fn a_leader_that_is_killed_is_followed_when_its_lease_runs_out() {
    let api = KubeApi::start();
    let class = "lockstep.dev/killed";
    let mut first = Balancer::new("killed", class, &api);
    wait_for("a leader", || first.leads());
    let second = Balancer::new("killed", class, &api);
    wait_for("the other one", || {
        second.kubernetes()["cluster"]["leader"].is_string()
    });
    first.daemon.take().unwrap().kill();
    let begun = Instant::now();
    while !second.leads() {
        wait_for("a look", || second.kubernetes()["cluster"].is_object());
        assert!(begun.elapsed() < Duration::from_secs(40));
    }
    println!("leads after {:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(10));
}

#[test]
#[ignore = "5,000 Services with 20 endpoints each: make test-long"]
fn five_thousand_services_are_in_force_seconds_after_a_cold_start() {
    const SERVICES: usize = 5_000;
    const ENDPOINTS: usize = 20;
    let api = KubeApi::start();
    let class = "lockstep.dev/many";
    api.namespace("many");
    let address = |n: usize| format!("10.{}.{}.{}", 100 + n / 65_536, n / 256 % 256, n % 256);
    let objects = (0..SERVICES).flat_map(|n| {
        let name = format!("s{n}");
        let mut object = service("many", &name, class);
        object["metadata"]["annotations"] = json!({"a": "x".repeat(200)});
        let endpoints: Vec<String> = (0..ENDPOINTS).map(|e| address(n * ENDPOINTS + e)).collect();
        let slice = slice("many", &name, &endpoints);
        [(services("many"), object), (slices("many"), slice)]
    });
    api.apply_all(objects);
    let given = (0..SERVICES).map(|n| {
        let name = format!("s{n}");
        let address = format!("198.18.{}.{}", n / 256, n % 256);
        let status = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "many", "name": name},
            "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy"}]}},
        });
        (format!("{}/{name}/status", services("many")), status)
    });
    api.patch_all(given);
    let begun = Instant::now();
    let balancer = Balancer::with("many", class, &api, "lead = false\n");
    wait_for("the engine", || {
        balancer.engine.applied() > 0 && balancer.engine.current().services.len() == SERVICES
    });
    let took = begun.elapsed();
    let pid = balancer.daemon.as_ref().unwrap().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    let peak: u64 = peak.parse().unwrap();
    println!(
        "{SERVICES} Services x {ENDPOINTS}: {took:?}, at most {} MiB",
        peak / 1024
    );
    let kinds = balancer.kubernetes()["cluster"]["kinds"].clone();
    for kind in kinds.as_array().unwrap() {
        assert!(kind["lists"].as_u64().unwrap() <= 1, "{kind}");
    }
    // The goals. Programs that are not optimized are given the time for that, and no more memory.
    let goal = match optimized() {
        Some(_) => Duration::from_secs(2),
        None => Duration::from_secs(8),
    };
    assert!(took < goal, "{took:?}");
    assert!(peak / 1024 <= 300, "{peak} kB");
}

#[test]
#[ignore = "5,000 Services get their addresses: make test-long"]
fn five_thousand_services_get_addresses_while_endpoints_are_followed_in_time() {
    const SERVICES: usize = 5_000;
    let api = KubeApi::start();
    let class = "lockstep.dev/writes";
    api.namespace("writes");
    api.apply(POOLS, pool("writes", "198.19.0.0/16"));
    let balancer = Balancer::new("writes", class, &api);
    serve(&api, "writes", "web", class, &["10.1.0.1"]);
    wait_for("the engine", || balancer.has(&["10.1.0.1"]));
    let objects = (0..SERVICES).map(|n| {
        let object = service("writes", &format!("s{n}"), class);
        (services("writes"), object)
    });
    let begun = Instant::now();
    api.apply_all(objects);
    let made = begun.elapsed();
    let written = || {
        let cluster = balancer.kubernetes()["cluster"].take();
        (cluster["writes"].as_u64(), cluster["writes_open"].as_u64())
    };
    wait_for("the first ones", || {
        written().0.is_some_and(|writes| writes > 100)
    });
    // While statuses are written, endpoints are in force as soon as ever.
    let mut times: Vec<Duration> = (0..100)
        .map(|n| {
            let address = format!("10.3.0.{}", n + 1);
            let begun = Instant::now();
            endpoints_of(&api, "writes", "web", &[&address]);
            wait_for("the change", || balancer.has(&[&address]));
            begun.elapsed()
        })
        .collect();
    times.sort();
    while balancer.vips().len() <= SERVICES {
        wait_for("a look", || written().0.is_some());
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{:?}",
            written()
        );
    }
    let took = begun.elapsed();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    println!(
        "{SERVICES} made in {made:?}, in force after {took:?}; changes p50 {p50:?}, p99 {p99:?}"
    );
    let goal = match optimized() {
        Some(_) => Duration::from_millis(300),
        None => Duration::from_secs(2),
    };
    assert!(p99 <= goal, "{times:?}");
}
