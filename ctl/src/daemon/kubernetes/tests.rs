//! The whole part with an API server in this process: what it tells the actor, and what it writes.

use super::client::Meter;
use super::fake::FakeApi;
use super::*;
use crate::daemon::actor::Event;
use crate::daemon::parts::{Orders, Reports};
use lockstep_api::KubernetesState;
use lockstep_ctl_core::config::parse;
use lockstep_ctl_core::services::sources::{Offer, Placed, Provided, Provider as Source};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

mod children;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POOLS: &str = "/apis/lockstep.dev/v1alpha1/addresspools";
const ADVERTISEMENTS: &str = "/apis/lockstep.dev/v1alpha1/advertisements";
const DIRES: &str = "/apis/lockstep.dev/v1alpha1/dires";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const EVENTS: &str = "/apis/events.k8s.io/v1/events";
const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

/// How long something may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon's part, without the daemon.
struct Desk {
    api: FakeApi,
    wires: Wires,
    orders: Orders,
    inbox: mpsc::Receiver<Event>,
    offer: Arc<Offer>,
    part: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    dir: Arc<TempDir>,
    /// Whether nobody has said which node this is.
    guessed: bool,
}

impl Desk {
    /// With an API server that has a pool.
    fn new() -> Self {
        let api = FakeApi::default();
        api.put(POOLS, pool());
        let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
        desk.start("");
        desk
    }

    fn with(api: &FakeApi, dir: Arc<TempDir>) -> Self {
        let (events, inbox) = mpsc::channel(64);
        let (orders, reports) = (Orders::new(Config::default()), Reports::default());
        let wires = Wires::new(&orders, &reports, events, dir.path().to_owned());
        Desk {
            api: api.clone(),
            wires,
            orders,
            inbox,
            offer: Arc::default(),
            part: None,
            dir,
            guessed: false,
        }
    }

    /// As a daemon starts, with more in its section.
    fn start(&mut self, more: &str) {
        let text = format!("[kubernetes]\nnode = \"n1\"\n{more}");
        let settings = parse("lockstepd.toml", &text).unwrap().config.kubernetes;
        let meter = Meter::default();
        let cluster = Cluster {
            client: self.api.measured(&meter),
            server: "https://fake/".to_owned(),
            namespace: "lockstep-system".to_owned(),
            name: "lb1".to_owned(),
            me: format!("lb1_{:p}", &self.offer),
            node: Some("n1".to_owned()),
            guessed: self.guessed,
            meter,
        };
        let (end, ended) = oneshot::channel();
        let (wires, settings) = (self.wires.clone(), settings.unwrap());
        let part = tokio::spawn(async move {
            let mut lasting = Lasting::default();
            let ends = async move { ended.await.is_ok() };
            attend(cluster, settings, &wires, &mut lasting, ends).await;
        });
        self.part = Some((end, part));
    }

    /// As it ends.
    async fn end(&mut self) {
        let (end, part) = self.part.take().unwrap();
        end.send(()).unwrap();
        part.await.unwrap();
    }

    /// As the actor and the engine: takes what is provided, until it is so.
    async fn until_offered(&mut self, holds: impl Fn(&Offer) -> bool) {
        let offered = async {
            while !holds(&self.offer) {
                match self.inbox.recv().await.expect("the part runs") {
                    Event::Provided(Source::Kubernetes, Provided::Services { revision, offer }) => {
                        self.offer = offer;
                        let placed = Placed {
                            in_force: [(Source::Kubernetes, revision)].into(),
                            ..Placed::default()
                        };
                        self.orders.placed.send_replace(Arc::new(placed));
                    }
                    _ => panic!("nothing else is told"),
                }
            }
        };
        if timeout(PATIENCE, offered).await.is_err() {
            panic!("waited in vain; offered was {:#?}", self.offer);
        }
    }

    /// Until the API server has it so, or the report. The actor listens meanwhile.
    async fn until(&mut self, what: &str, holds: impl Fn(&FakeApi, &KubernetesReply) -> bool) {
        let mut reports = self.wires.reports.kubernetes.subscribe();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            while let Ok(Event::Provided(_, Provided::Services { offer, .. })) =
                self.inbox.try_recv()
            {
                self.offer = offer;
            }
            let reply = reports.borrow_and_update().clone();
            if holds(&self.api, &reply) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited in vain: {what}\n{reply:#?}"
            );
            let _ = timeout(Duration::from_millis(20), reports.changed()).await;
        }
    }

    fn addresses(&self, service: &str) -> Vec<Value> {
        let object = self.api.get(SERVICES, service);
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
        ingress.map_or_else(Vec::new, |i| i.iter().map(|i| i["ip"].clone()).collect())
    }

    fn backends(&self) -> usize {
        backends(&self.offer)
    }
}

fn backends(offer: &Offer) -> usize {
    offer.services.iter().map(|s| s.backends.len()).sum()
}

/// What Services get their addresses from.
fn pool() -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "public", "generation": 1},
        "spec": {"addresses": ["203.0.113.0/28"]},
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "lockstep.dev/xdp",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
    })
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoints = addresses.iter().map(
        |address| json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": "n1"}),
    );
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// One Service with two endpoints that is served.
async fn served() -> Desk {
    let mut desk = Desk::new();
    desk.api.put(SERVICES, service("web"));
    desk.api
        .put(SLICES, slice("web", &["10.1.0.1", "10.1.0.2"]));
    desk.until_offered(|offer| backends(offer) == 2).await;
    desk
}

#[tokio::test]
async fn a_service_gets_an_address_and_its_endpoints_are_offered() {
    let desk = served().await;
    assert_eq!(desk.addresses("shop/web"), [json!("203.0.113.0")]);
    let service = &desk.offer.services[0];
    assert_eq!(service.name.as_str(), "shop/web/http");
    assert_eq!(service.vips[0].to_string(), "203.0.113.0:80/tcp");
    let ports: Vec<_> = service.backends.iter().map(|b| b.port).collect();
    assert!(ports.iter().all(|p| p.is_some_and(|p| p.get() == 8080)));
    assert_eq!(
        desk.api
            .count("PATCH /api/v1/namespaces/shop/services/web/status"),
        1
    );
    let lease = desk.api.get(LEASES, "lockstep-system/lockstep");
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
    assert!(holder.starts_with("lb1_"), "{holder}");
}

#[tokio::test]
async fn events_and_what_is_in_force_are_counted() {
    let mut desk = served().await;
    let is_told = |api: &FakeApi, _: &KubernetesReply| {
        let events = api.all(EVENTS);
        events.iter().any(|event| event["reason"] == "IPAllocated")
    };
    desk.until("an event", is_told).await;
    let mut ready = vec!["10.1.0.1"];
    for n in 0..5 {
        ready = if n % 2 == 0 {
            vec!["10.1.0.1"]
        } else {
            vec!["10.1.0.1", "10.1.0.2"]
        };
        desk.api.put(SLICES, slice("web", &ready));
        let wanted = ready.len();
        desk.until_offered(|offer| backends(offer) == wanted).await;
    }
    assert_eq!(desk.backends(), ready.len());
    let is_counted = |_: &FakeApi, reply: &KubernetesReply| {
        let latency = reply.latency.clone().unwrap_or_default();
        let slices = reply
            .kinds
            .iter()
            .find(|kind| kind.resource.contains("slices"));
        latency.buckets.iter().sum::<u64>() >= 5 && slices.is_some_and(|s| s.events >= 5)
    };
    desk.until("the histogram", is_counted).await;
}

#[tokio::test]
async fn a_gap_in_a_watch_lists_that_kind_again_and_nothing_else() {
    let mut desk = served().await;
    let (slices, services) = (
        desk.api.count("GET /apis/discovery"),
        desk.api.count("GET /api/v1/services"),
    );
    // What was missed: one slice is gone, another one is there.
    desk.api.compact(SLICES);
    desk.api.remove(SLICES, "shop/web-1");
    let mut other = slice("web", &["10.1.0.9"]);
    other["metadata"]["name"] = json!("web-2");
    desk.api.put(SLICES, other);
    let is_other = |offer: &Offer| {
        let mut backends = offer.services.iter().flat_map(|s| &s.backends);
        backends.clone().count() == 1 && backends.all(|b| b.address.to_string() == "10.1.0.9")
    };
    desk.until_offered(is_other).await;
    assert_eq!(desk.api.count("GET /apis/discovery"), slices + 1);
    assert_eq!(desk.api.count("GET /api/v1/services"), services);
}

#[tokio::test]
async fn an_api_server_that_goes_away_changes_nothing_and_is_followed_when_it_is_back() {
    let mut desk = served().await;
    desk.api.away(true);
    desk.until("the report", |_, reply| {
        !reply.connected && !reply.error.is_empty()
    })
    .await;
    assert_eq!(desk.backends(), 2);
    desk.api
        .put(SLICES, slice("web", &["10.1.0.1", "10.1.0.2", "10.1.0.3"]));
    desk.api.away(false);
    desk.until_offered(|offer| backends(offer) == 3).await;
    desk.until("the report", |_, reply| reply.connected).await;
    assert_eq!(desk.addresses("shop/web"), [json!("203.0.113.0")]);
}

#[tokio::test]
async fn kinds_that_are_not_installed_or_not_allowed_hold_up_no_other() {
    let api = FakeApi::default();
    api.absent(DIRES, true);
    api.absent(ADVERTISEMENTS, true);
    api.refuse("GET /apis/lockstep.dev/v1alpha1/addresspools", 403);
    let mut given = service("web");
    given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    api.put(SERVICES, given);
    api.put(SLICES, slice("web", &["10.1.0.1"]));
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    desk.start("");
    // What the status says is served.
    desk.until_offered(|offer| backends(offer) == 1).await;
    let says = |reply: &KubernetesReply, part: &str| {
        reply.kinds.iter().any(|kind| kind.error.contains(part))
    };
    desk.until("what is missing", |_, reply| {
        says(reply, "no dires.lockstep.dev (404)") && says(reply, "may not list addresspools")
    })
    .await;
    // And nothing is taken away by a leader that does not know the pools.
    desk.until("the lead", |_, reply| reply.leads).await;
    assert_eq!(desk.addresses("shop/web"), [json!("198.51.100.7")]);
    assert_eq!(api.count("PATCH"), 0);
    api.absent(DIRES, false);
    api.absent(ADVERTISEMENTS, false);
    api.refuse("GET /apis/lockstep.dev/v1alpha1/addresspools", 0);
    desk.until("all kinds", |_, reply| {
        reply
            .kinds
            .iter()
            .all(|kind| kind.listed && kind.error.is_empty())
    })
    .await;
}

#[tokio::test]
async fn services_get_addresses_although_nothing_is_told_of_dires_nodes_and_advertisements() {
    let api = FakeApi::default();
    let refused = ["dires", "advertisements", "nodes"];
    for kind in refused {
        api.refuse(&format!("/{kind}"), 403);
    }
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    // Nor may it ask whether the host's name is a node's.
    desk.guessed = true;
    api.put(POOLS, pool());
    api.put(SERVICES, service("web"));
    api.put(SLICES, slice("web", &["10.1.0.1"]));
    desk.start("");
    desk.until_offered(|offer| backends(offer) == 1).await;
    assert_eq!(desk.addresses("shop/web"), [json!("203.0.113.0")]);
    desk.until("what is refused", |_, reply| {
        let failed = reply.kinds.iter().filter(|kind| !kind.error.is_empty());
        failed.count() == refused.len()
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_no_node_serves_endpoints_of_every_node() {
    let api = FakeApi::default();
    let mut given = service("web");
    given["spec"]["externalTrafficPolicy"] = json!("Local");
    given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    api.put(SERVICES, given);
    let mut endpoints = slice("web", &["10.1.0.1", "10.1.0.2"]);
    endpoints["endpoints"][0]["nodeName"] = json!("n2");
    api.put(SLICES, endpoints);
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    desk.guessed = true;
    desk.start("lead = false\n");
    desk.until_offered(|offer| backends(offer) == 2).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    api.put(NODES, node);
    desk.until_offered(|offer| backends(offer) == 1).await;
    api.remove(NODES, "/n1");
    desk.until_offered(|offer| backends(offer) == 2).await;
}

#[tokio::test]
async fn a_daemon_that_starts_while_the_api_server_is_away_serves_what_it_said_last() {
    let mut desk = served().await;
    desk.end().await;
    desk.api.away(true);
    let mut after = Desk::with(&desk.api, desk.dir.clone());
    after.start("");
    after.until_offered(|offer| backends(offer) == 2).await;
    assert_eq!(after.offer.services, desk.offer.services);
    after
        .until("the report", |_, reply| {
            reply.state() == KubernetesState::KubernetesRestored && !reply.connected
        })
        .await;
    // What went away meanwhile is gone when the API server is back.
    desk.api.remove(SLICES, "shop/web-1");
    desk.api.put(SERVICES, service("api"));
    desk.api.away(false);
    after.until_offered(|offer| backends(offer) == 0).await;
    let both = |api: &FakeApi, reply: &KubernetesReply| {
        let ingress = &api.get(SERVICES, "shop/api")["status"]["loadBalancer"]["ingress"];
        reply.state() == KubernetesState::KubernetesCurrent && ingress.is_array()
    };
    after.until("another address", both).await;
    assert_eq!(after.addresses("shop/web"), [json!("203.0.113.0")]);
    assert_eq!(after.addresses("shop/api"), [json!("203.0.113.1")]);
}

#[tokio::test]
async fn of_two_daemons_one_leads_and_the_other_follows_when_it_ends() {
    let mut first = served().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut second = Desk::with(&first.api, dir);
    second.start("");
    second.until_offered(|offer| backends(offer) == 2).await;
    assert_eq!(second.offer.services, first.offer.services);
    second
        .until("the first one leads", |_, reply| {
            !reply.leads && !reply.leader.is_empty()
        })
        .await;
    first.end().await;
    // At once: the Lease was let go.
    let begun = std::time::Instant::now();
    second
        .until("the second one leads", |_, reply| reply.leads)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    first.api.put(SERVICES, service("api"));
    second
        .until_offered(|offer| offer.services.len() == 2)
        .await;
    assert_eq!(second.addresses("shop/web"), [json!("203.0.113.0")]);
}

#[tokio::test]
async fn a_daemon_that_may_not_lead_serves_and_writes_nothing() {
    let api = FakeApi::default();
    let mut given = service("web");
    given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    api.put(SERVICES, given);
    api.put(SERVICES, service("new"));
    api.put(SLICES, slice("web", &["10.1.0.1"]));
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    desk.start("lead = false\n");
    desk.until_offered(|offer| backends(offer) == 1).await;
    let problem = |reply: &KubernetesReply| {
        let new = reply.services.iter().find(|s| s.name == "shop/new");
        new.is_some_and(|s| s.problems.iter().any(|p| p.contains("no address yet")))
    };
    desk.until("the report", |_, reply| problem(reply) && !reply.may_lead)
        .await;
    assert_eq!(
        api.count("leases") + api.count("PATCH") + api.count("POST"),
        0
    );
}

#[tokio::test]
async fn pods_are_followed_only_where_there_is_a_dire() {
    let mut desk = served().await;
    assert_eq!(desk.api.count(PODS), 0);
    let dire = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "Dire",
        "metadata": {"namespace": "games", "name": "hive", "generation": 1},
        "spec": {"hiveDeploymentName": "hive", "forwardedPorts": [7000]},
    });
    desk.api.put(DIRES, dire);
    desk.until("the pods of one namespace", |api, _| {
        api.count("WATCH /api/v1/namespaces/games/pods") > 0
    })
    .await;
    desk.api.remove(DIRES, "games/hive");
    desk.until("no kind of that namespace", |_, reply| {
        !reply.kinds.is_empty() && reply.kinds.iter().all(|kind| kind.namespace.is_empty())
    })
    .await;
}

#[tokio::test]
async fn a_service_that_is_another_type_now_lets_its_address_go() {
    let mut desk = served().await;
    let mut changed = service("web");
    changed["spec"]["type"] = json!("ClusterIP");
    // As an API server does it: class and addresses go with the type.
    changed["spec"]
        .as_object_mut()
        .unwrap()
        .remove("loadBalancerClass");
    desk.api.put(SERVICES, changed);
    desk.until_offered(|offer| offer.services.is_empty()).await;
    desk.api.put(SERVICES, service("next"));
    let has_it = |api: &FakeApi, _: &KubernetesReply| {
        let next = api.get(SERVICES, "shop/next");
        next["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.0"
    };
    desk.until("the address at the next one", has_it).await;
}

#[tokio::test]
async fn a_service_that_is_another_type_now_keeps_nothing_of_ours_and_that_is_told_once() {
    let mut desk = served().await;
    let is_annotated = |api: &FakeApi| {
        let web = api.get(SERVICES, "shop/web");
        web["metadata"]["annotations"]["lockstep.dev/ip-allocated-from-pool"] == "public"
    };
    desk.until("the pool's name", |api, _| is_annotated(api))
        .await;
    // To those who select by type it is as if it were deleted.
    desk.api.edit(SERVICES, "shop/web", |web| {
        web["spec"]["type"] = json!("ClusterIP");
        web["status"]
            .as_object_mut()
            .unwrap()
            .remove("loadBalancer");
    });
    desk.until_offered(|offer| offer.services.is_empty()).await;
    let is_clean = |api: &FakeApi, _: &KubernetesReply| {
        let web = api.get(SERVICES, "shop/web");
        !is_annotated(api) && web["status"]["conditions"].is_null()
    };
    desk.until("nothing of ours", is_clean).await;
    let clear = |api: &FakeApi| {
        let events = api.all(EVENTS).into_iter();
        let clear = events.filter(|event| event["reason"] == "ClearAssignment");
        clear.collect::<Vec<_>>()
    };
    desk.until("an event", |api, _| !clear(api).is_empty())
        .await;
    let writes = desk.api.count("PATCH /api/v1/namespaces/shop/services/web");
    // What becomes of another one shows that this one is done with.
    desk.api.put(SERVICES, service("next"));
    let has_it = |api: &FakeApi, _: &KubernetesReply| {
        let next = api.get(SERVICES, "shop/next");
        next["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.0"
    };
    desk.until("the address at the next one", has_it).await;
    let told = clear(&desk.api);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["series"], Value::Null);
    let note = told[0]["note"].as_str().unwrap();
    assert_eq!(
        note,
        "let go of 203.0.113.0: it is not of type LoadBalancer any more"
    );
    let after = desk.api.count("PATCH /api/v1/namespaces/shop/services/web");
    assert_eq!(after, writes);
}

#[tokio::test]
async fn a_new_leader_whose_watch_is_behind_gives_no_address_twice() {
    let api = FakeApi::default();
    // Another daemon leads.
    let lease = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": "lockstep-system", "name": "lockstep"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
        })
    };
    api.put(LEASES, lease("lb9"));
    api.put(POOLS, pool());
    api.put(SERVICES, service("web"));
    let mut desk = Desk::with(&api, Arc::new(tempfile::tempdir().unwrap()));
    desk.start("");
    let follows = |reply: &KubernetesReply| reply.services.len() == 1 && !reply.leader.is_empty();
    desk.until("it follows", |_, reply| follows(reply)).await;
    // The last thing that the leader does; the watch of who follows does not tell of it.
    api.stall(SERVICES);
    let mut given = service("api");
    given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.0"}]}});
    api.put(SERVICES, given);
    api.put(LEASES, lease(""));
    let has_one = |api: &FakeApi, _: &KubernetesReply| {
        let web = api.get(SERVICES, "shop/web");
        web["status"]["loadBalancer"]["ingress"].is_array()
    };
    desk.until("an address", has_one).await;
    assert_eq!(desk.addresses("shop/web"), [json!("203.0.113.1")]);
    assert_eq!(desk.addresses("shop/api"), [json!("203.0.113.0")]);
}
