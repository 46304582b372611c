//! Tables: a cluster in, services and writes out. A small API server that applies what is written
//! shows that writing comes to an end.

use super::*;
use crate::kubernetes::Change;
use crate::kubernetes::write::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime};
use lockstep_kubernetes::annotations;
use lockstep_kubernetes::facts::{self, Deployment, FamilyPolicy, Ingress, Pod, ServicePort};
use lockstep_kubernetes::resources::dire::{DireStatus, ReplicaState, Switchover};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

mod balancers;
mod distributors;
mod ends;
mod policies;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("it is a time")
}

fn settings() -> Settings {
    Settings {
        class: "lockstep.dev/xdp".to_owned(),
        default_class: false,
        node: None,
        gateway_controller: "lockstep.dev/gateway".to_owned(),
    }
}

fn game() -> Name {
    Name::new("default", "game")
}

/// A Dire called `game` of the Deployment `hive`, with these keys more.
fn dire(spec: Value) -> Dire {
    let mut whole = json!({ "hiveDeploymentName": "hive", "forwardedPorts": [5201, 5202] });
    for (key, value) in spec.as_object().expect("each is an object") {
        whole[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "Dire",
        "metadata": {
            "name": "game", "namespace": "default", "uid": "u-1", "generation": 3,
            "annotations": { annotations::ADDRESS_POOL: "outside", "other.dev/x": "y" },
        },
        "spec": whole,
    });
    serde_json::from_value(object).expect("it is a Dire")
}

fn pod(name: &str, address: &str) -> Pod {
    Pod {
        name: Name::new("default", name),
        uid: format!("uid-{name}"),
        replica_set: Some("hive-5d9c".to_owned()),
        labels: BTreeMap::from([("app".to_owned(), "hive".to_owned())]),
        annotations: BTreeMap::new(),
        addresses: address.parse().into_iter().collect(),
        ready: true,
        deleting: false,
        running: true,
        over: false,
        node: None,
    }
}

fn deployment(replicas: i32) -> Deployment {
    let labels = BTreeMap::from([("app".to_owned(), "hive".to_owned())]);
    Deployment {
        name: Name::new("default", "hive"),
        selector: LabelSelector {
            match_labels: Some(labels),
            match_expressions: None,
        },
        replicas,
        uid: "uid-hive".to_owned(),
        annotations: BTreeMap::new(),
    }
}

/// A cluster whose API server does what is written.
struct Cluster {
    world: World,
    events: Vec<(String, String)>,
    deleted: Vec<String>,
    clock: Timestamp,
    /// The leader's monotonic clock.
    uptime: Duration,
    ages: Ages,
}

impl Cluster {
    fn new(dire: Dire, pods: Vec<Pod>) -> Self {
        let mut cluster = Cluster {
            world: World::default(),
            events: Vec::new(),
            deleted: Vec::new(),
            clock: now(),
            uptime: Duration::ZERO,
            ages: Ages::default(),
        };
        let wanted = i32::try_from(pods.len()).expect("they are few");
        cluster.put(Change::Dire(game(), Some(Arc::new(dire))));
        let hive = deployment(wanted);
        cluster.put(Change::Deployment(hive.name.clone(), Some(Arc::new(hive))));
        for pod in pods {
            cluster.put_pod(pod);
        }
        cluster
    }

    fn put(&mut self, change: Change) {
        self.world.apply(change);
    }

    fn put_pod(&mut self, pod: Pod) {
        self.put(Change::Pod(pod.name.clone(), Some(Arc::new(pod))));
    }

    fn lose_pod(&mut self, name: &str) {
        self.put(Change::Pod(Name::new("default", name), None));
    }

    fn dire(&self) -> &Dire {
        &self.world.dires[&game()]
    }

    fn status(&self) -> DireStatus {
        self.dire().status.clone().unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut Dire)) {
        let mut dire = self.dire().clone();
        change(&mut dire);
        self.put(Change::Dire(game(), Some(Arc::new(dire))));
    }

    /// Does what the leader writes until it writes nothing.
    fn settle(&mut self) {
        for _ in 0..5 {
            let writes = self.writes();
            if writes.is_empty() {
                return;
            }
            self.perform(writes);
        }
        panic!("it never ends: {:?}", self.writes());
    }

    fn writes(&mut self) -> Vec<Write> {
        self.ages.look(&self.world, self.uptime);
        writes(&self.world, &settings(), &self.ages, self.clock)
    }

    fn perform(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Apply {
                    object,
                    status: false,
                    body,
                } if object.kind == Kind::Service => self.apply_service(object.name, &body),
                Write::Apply {
                    object,
                    status: true,
                    body,
                } if object.kind == Kind::Dire => self.change(|dire| {
                    let balancers = dire.status.take().unwrap_or_default().balancers;
                    let status = serde_json::from_value(body["status"].clone());
                    let status: DireStatus = status.expect("it is a status");
                    dire.status = Some(DireStatus {
                        balancers,
                        ..status
                    });
                }),
                Write::Part { manager, body, .. } => self.apply_part(&manager, &body),
                Write::Delete { object, uid } => {
                    assert_eq!(object.kind, Kind::Pod);
                    assert_eq!(self.world.pods[&object.name].uid, uid);
                    self.deleted.push(object.name.name.to_string());
                    let mut pod = Pod::clone(&self.world.pods[&object.name]);
                    pod.deleting = true;
                    self.put_pod(pod);
                }
                Write::Event(event) => {
                    assert_eq!(event.uid, "u-1");
                    self.events.push((event.reason.to_owned(), event.note));
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    fn apply_service(&mut self, name: Name, body: &Value) {
        let before = self.world.services.get(&name).map(Arc::clone);
        let annotations = serde_json::from_value(body["metadata"]["annotations"].clone());
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
        let ports = body["spec"]["ports"].as_array().expect("there are ports");
        let ports = ports.iter().map(|port| ServicePort {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            protocol: facts::Protocol::of(port["protocol"].as_str()),
            port: u16::try_from(port["port"].as_u64().unwrap_or(0)).unwrap_or(0),
        });
        // The API server keeps them in an order of its own.
        let mut ports: Vec<ServicePort> = ports.collect();
        ports.reverse();
        let object = json!({
            "metadata": { "name": &*name.name, "namespace": &*name.namespace },
            "spec": { "type": body["spec"]["type"] },
        });
        let object: k8s_openapi::api::core::v1::Service =
            serde_json::from_value(object).expect("it is a Service");
        let mut service = facts::Service::from(&object);
        service.class = body["spec"]["loadBalancerClass"]
            .as_str()
            .map(str::to_owned);
        service.annotations = annotations.expect("they are texts");
        service.ports = ports;
        service.family_policy = match body["spec"]["ipFamilyPolicy"].as_str() {
            Some("RequireDualStack") => FamilyPolicy::Require,
            _ => FamilyPolicy::Single,
        };
        service.ingress = before.map(|b| b.ingress.clone()).unwrap_or_default();
        self.put(Change::Service(name, Some(Arc::new(service))));
    }

    /// The pools give its child an address.
    fn give(&mut self, addresses: &[&str]) {
        let name = child::name(&game());
        let mut service = facts::Service::clone(&self.world.services[&name]);
        let ingress = addresses.iter().map(|address| Ingress {
            address: address.parse().expect("it is an address"),
            mode: None,
            ports: Vec::new(),
        });
        service.ingress = ingress.collect();
        self.put(Change::Service(name, Some(Arc::new(service))));
    }

    fn apply_part(&mut self, manager: &str, body: &Value) {
        let name = manager.strip_prefix("lockstepd-").expect("it is a part");
        let part = body["status"]["balancers"][0].clone();
        self.change(|dire| {
            let status = dire.status.get_or_insert_default();
            status.balancers.retain(|there| there.name != name);
            if !part.is_null() {
                let part = serde_json::from_value(part);
                status.balancers.push(part.expect("it is a part"));
            }
        });
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let conditions = self.status().conditions;
        let found = conditions.into_iter().find(|c| c.type_ == kind);
        let found = found.expect("there is each");
        (found.status, found.reason, found.message)
    }

    fn reasons(&self) -> Vec<&str> {
        self.events.iter().map(|(reason, _)| &**reason).collect()
    }

    fn states(&self) -> Vec<(String, ReplicaState)> {
        let replicas = self.status().replicas.into_iter();
        replicas.map(|r| (r.pod, r.state)).collect()
    }
}

fn three() -> Vec<Pod> {
    vec![
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.3"),
    ]
}

fn serving(spec: Value) -> Cluster {
    let mut cluster = Cluster::new(dire(spec), three());
    cluster.settle();
    cluster.give(&["192.0.2.1"]);
    cluster.settle();
    cluster
}

#[test]
fn a_child_asks_for_the_addresses_as_the_dire_does() {
    let cluster = {
        let mut cluster = Cluster::new(dire(json!({})), three());
        cluster.settle();
        cluster
    };
    let child = &cluster.world.services[&child::name(&game())];
    assert_eq!(child.name, Name::new("default", "game-dire"));
    assert!(child.load_balancer);
    assert_eq!(child.class.as_deref(), Some("lockstep.dev/xdp"));
    let annotations: BTreeMap<&str, &str> = child
        .annotations
        .iter()
        .map(|(k, v)| (&**k, &**v))
        .collect();
    let wanted = [
        (annotations::ADDRESS_POOL, "outside"),
        (annotations::DIRE, "game"),
        (annotations::MODE, "replicate"),
        (annotations::OWNER, "u-1"),
    ];
    assert_eq!(annotations, BTreeMap::from(wanted));
    let (status, reason, message) = cluster.condition("Ready");
    assert_eq!((&*status, &*reason), ("False", "NoAddress"));
    assert!(message.contains("describe service game-dire"), "{message}");
    assert_eq!(services(&cluster.world, &settings()), []);
}

#[test]
fn the_pods_of_the_deployment_are_the_replicas_of_every_port() {
    let mut cluster = Cluster::new(
        dire(json!({ "commit": "Quorum", "quorum": 2, "group": "Client" })),
        three(),
    );
    let mut stranger = pod("stranger", "10.0.0.9");
    stranger.labels.clear();
    let mut elsewhere = pod("elsewhere", "10.0.0.8");
    elsewhere.name = Name::new("other", "elsewhere");
    let mut waiting = pod("waiting", "");
    waiting.running = false;
    let mut over = pod("over", "10.0.0.3");
    over.over = true;
    let mut unready = pod("unready", "10.0.0.4");
    unready.ready = false;
    let mut ending = pod("ending", "10.0.0.5");
    ending.deleting = true;
    for pod in [stranger, elsewhere, waiting, over, unready, ending] {
        cluster.put_pod(pod);
    }
    cluster.settle();
    cluster.give(&["192.0.2.1", "2001:db8::1"]);
    cluster.settle();
    let services = services(&cluster.world, &settings());
    let [service] = &services[..] else {
        panic!("one service: {services:#?}");
    };
    assert_eq!(service.name.as_str(), "default/game-dire");
    let vips: Vec<String> = service.vips.iter().map(ToString::to_string).collect();
    let wanted = [
        "192.0.2.1:5201/tcp",
        "192.0.2.1:5202/tcp",
        "[2001:db8::1]:5201/tcp",
        "[2001:db8::1]:5202/tcp",
    ];
    assert_eq!(vips, wanted);
    let backends = service.backends.iter();
    let backends: Vec<_> = backends
        .map(|b| (&*b.name, b.address.to_string(), b.state))
        .collect();
    let (active, draining) = (BackendState::Active, BackendState::Draining);
    let wanted = [
        ("a", "10.0.0.1", active),
        ("b", "10.0.0.2", active),
        ("c", "10.0.0.3", active),
        ("ending", "10.0.0.5", draining),
        ("unready", "10.0.0.4", draining),
    ];
    assert_eq!(backends, wanted.map(|(n, a, s)| (n, a.to_owned(), s)));
    let policy = service.mode.replicate().expect("it replicates");
    assert_eq!(policy.quorum(), 2);
    assert_eq!(policy.min_sync.get(), 2);
    assert!(lockstep_plan::Snapshot::new(1, services.clone()).is_ok());
    let (idle, draining) = (ReplicaState::Idle, ReplicaState::Draining);
    let states = [
        ("a", idle),
        ("b", idle),
        ("c", idle),
        ("ending", draining),
        ("unready", draining),
        ("waiting", ReplicaState::Pending),
    ];
    assert_eq!(cluster.states(), states.map(|(n, s)| (n.to_owned(), s)));
    let status = cluster.status();
    assert_eq!(status.synced_replicas, 3);
    assert_eq!(status.addresses, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(cluster.condition("Ready").0, "True");
    assert_eq!(cluster.condition("HiveFound").0, "True");
    assert_eq!(cluster.condition("Protected").0, "True");
}

#[test]
fn what_stands_in_the_way_is_said_with_what_to_do() {
    type Spoil = fn(&mut Cluster);
    let rows: [(&str, Spoil, &str, &str, &str); 9] = [
        (
            "no Deployment",
            |c| c.put(Change::Deployment(Name::new("default", "hive"), None)),
            "HiveFound",
            "DeploymentNotFound",
            "create it",
        ),
        (
            "no pods",
            |c| ["a", "b", "c"].iter().for_each(|name| c.lose_pod(name)),
            "HiveFound",
            "NoPods",
            "scale deployment hive",
        ),
        (
            "pods without address",
            |c| {
                ["a", "b", "c"]
                    .iter()
                    .for_each(|name| c.put_pod(pod(name, "")))
            },
            "HiveFound",
            "NoAddresses",
            "describe pods",
        ),
        (
            "no pod is ready",
            |c| {
                for mut pod in three() {
                    pod.ready = false;
                    c.put_pod(pod);
                }
            },
            "Ready",
            "TooFewReplicas",
            "get pods",
        ),
        (
            "one is left",
            |c| ["a", "b"].iter().for_each(|name| c.lose_pod(name)),
            "Protected",
            "TooFewReplicas",
            "one too many",
        ),
        (
            "a policy out of range",
            |c| c.change(|d| d.spec.limits.max_lag = Some("2Gi".to_owned())),
            "Ready",
            "PolicyInvalid",
            "1GiB",
        ),
        (
            "a pattern that is none",
            |c| {
                c.change(|d| {
                    d.spec.masks = vec![lockstep_kubernetes::resources::dire::Mask {
                        offset: None,
                        length: None,
                        pattern: Some("abc(".to_owned()),
                    }];
                });
            },
            "Ready",
            "PolicyInvalid",
            "regular expression",
        ),
        (
            "a Service of the name",
            |c| {
                let name = child::name(&game());
                let mut taken = facts::Service::clone(&c.world.services[&name]);
                taken.annotations.clear();
                c.put(Change::Service(name, Some(Arc::new(taken))));
            },
            "Ready",
            "ServiceConflict",
            "delete it",
        ),
        (
            "an expression that is none",
            |c| {
                let mut hive = deployment(3);
                hive.selector.match_expressions = Some(vec![
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                        key: "app".to_owned(),
                        operator: "Like".to_owned(),
                        values: None,
                    },
                ]);
                c.put(Change::Deployment(hive.name.clone(), Some(Arc::new(hive))));
            },
            "HiveFound",
            "SelectorInvalid",
            "app",
        ),
    ];
    for (what, spoil, kind, reason, message) in rows {
        let mut cluster = serving(json!({}));
        let before = cluster.condition(kind);
        assert_eq!(before.0, "True", "{what}");
        cluster.clock += k8s_openapi::jiff::SignedDuration::from_secs(60);
        spoil(&mut cluster);
        cluster.settle();
        let (status, why, said) = cluster.condition(kind);
        assert_eq!((&*status, &*why), ("False", reason), "{what}: {said}");
        assert!(said.contains(message), "{what}: {said}");
        let conditions = cluster.status().conditions;
        let at = conditions.iter().find(|c| c.type_ == kind);
        let at = at.map(|c| c.last_transition_time.0);
        assert_eq!(at, Some(cluster.clock), "{what}");
    }
}

#[test]
fn a_time_of_transition_stays_while_only_the_reason_changes() {
    let mut cluster = serving(json!({}));
    cluster.put(Change::Deployment(Name::new("default", "hive"), None));
    cluster.settle();
    cluster.clock += k8s_openapi::jiff::SignedDuration::from_secs(60);
    cluster.put(Change::Deployment(
        Name::new("default", "hive"),
        Some(Arc::new(deployment(0))),
    ));
    ["a", "b", "c"]
        .iter()
        .for_each(|name| cluster.lose_pod(name));
    cluster.settle();
    assert_eq!(cluster.condition("HiveFound").1, "NoPods");
    let conditions = cluster.status().conditions;
    let found = conditions.iter().find(|c| c.type_ == "HiveFound");
    assert_eq!(found.map(|c| c.last_transition_time.0), Some(now()));
    // Each is told of once.
    assert_eq!(cluster.reasons(), ["HiveNotFound", "HiveNotFound"]);
}

#[test]
fn without_pods_its_address_stays_served_so_that_sessions_wait_for_the_next_ones() {
    let mut cluster = serving(json!({ "commit": "Quorum", "quorum": 3 }));
    ["a", "b", "c"]
        .iter()
        .for_each(|name| cluster.lose_pod(name));
    let services = services(&cluster.world, &settings());
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].backends, []);
    assert!(lockstep_plan::Snapshot::new(1, services).is_ok());
}

#[test]
fn another_dire_of_the_name_takes_over_the_child() {
    let mut cluster = serving(json!({}));
    cluster.change(|dire| {
        dire.metadata.uid = Some("u-2".to_owned());
        dire.status = None;
    });
    let writes = writes(&cluster.world, &settings(), &Ages::default(), now());
    let owners = writes.iter().filter_map(|write| match write {
        Write::Apply { object, body, .. } if object.kind == Kind::Service => {
            Some(body["metadata"]["ownerReferences"][0]["uid"].clone())
        }
        _ => None,
    });
    assert_eq!(owners.collect::<Vec<_>>(), ["u-2"]);
}

#[test]
fn a_dire_that_is_deleted_is_neither_served_nor_written_to() {
    let mut cluster = serving(json!({}));
    cluster.change(|dire| {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
        dire.metadata.deletion_timestamp = Some(time);
    });
    assert_eq!(services(&cluster.world, &settings()), []);
    assert_eq!(
        writes(&cluster.world, &settings(), &Ages::default(), now()),
        []
    );
}

#[test]
fn pods_that_are_too_many_get_nothing_and_are_counted() {
    let many = (0..130).map(|n| pod(&format!("p{n:03}"), &format!("10.0.1.{n}")));
    let mut cluster = Cluster::new(dire(json!({})), many.collect());
    cluster.settle();
    cluster.give(&["192.0.2.1"]);
    cluster.settle();
    assert_eq!(services(&cluster.world, &settings())[0].backends.len(), 128);
    let (status, reason, message) = cluster.condition("HiveFound");
    assert_eq!((&*status, &*reason), ("True", "TooManyPods"));
    assert!(message.contains("2 pods more"), "{message}");
}

#[test]
fn namespaces_to_watch_are_those_with_a_dire() {
    let cluster = serving(json!({}));
    let namespaces = namespaces(&cluster.world, &settings());
    assert_eq!(
        namespaces.iter().map(|n| &**n).collect::<Vec<_>>(),
        ["default"]
    );
    assert!(super::namespaces(&World::default(), &settings()).is_empty());
}
