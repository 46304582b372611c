//! Follows the objects of a kind: each is converted into what is kept of it and thrown away.
//!
//! A kind that cannot be followed (not installed, not allowed, no API server) is tried again and
//! holds up no other. After a gap that the API server cannot fill (410) that kind alone is listed
//! again, and what is not in the list is gone.

use super::client::{Cluster, code, explain};
use futures::StreamExt;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use lockstep_ctl_core::kubernetes::Change;
use lockstep_kubernetes::facts::{self, Name, gateway};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep};

/// How long a watch lasts before it is begun again where it ended. A connection that is dead and
/// does not say so is noticed by that.
const WATCH: u32 = 30;

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// The first pause after a failure, the longest one, and the one after a refusal that only an
/// operator ends.
const PAUSES: (Duration, Duration, Duration) = (
    Duration::from_millis(100),
    Duration::from_secs(5),
    Duration::from_secs(3),
);

/// A failure so long after the one before it is a first one again.
const CALM: Duration = Duration::from_secs(60);

/// A kind that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services of type LoadBalancer.
    Services,
    /// EndpointSlices, but for those of headless Services.
    Slices,
    /// Namespaces.
    Namespaces,
    /// The node this balancer is on.
    Nodes,
    /// AddressPools.
    Pools,
    /// Advertisements.
    Advertisements,
    /// Dires.
    Dires,
    /// Deployments in namespaces with a Dire.
    Deployments,
    /// Pods in namespaces with a Dire.
    Pods,
    /// GatewayClasses.
    GatewayClasses,
    /// Gateways.
    Gateways,
    /// TCPRoutes.
    TcpRoutes,
    /// UDPRoutes.
    UdpRoutes,
    /// ReferenceGrants.
    Grants,
}

/// The kinds of the Gateway API, followed where the configuration names a controller.
pub const GATEWAY_API: [Kind; 5] = [
    Kind::GatewayClasses,
    Kind::Gateways,
    Kind::TcpRoutes,
    Kind::UdpRoutes,
    Kind::Grants,
];

impl Kind {
    /// The resource, as roles name it, with its group.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Services => "services",
            Kind::Slices => "endpointslices.discovery.k8s.io",
            Kind::Namespaces => "namespaces",
            Kind::Nodes => "nodes",
            Kind::Pools => "addresspools.lockstep.dev",
            Kind::Advertisements => "advertisements.lockstep.dev",
            Kind::Dires => "dires.lockstep.dev",
            Kind::Deployments => "deployments.apps",
            Kind::Pods => "pods",
            Kind::GatewayClasses => "gatewayclasses.gateway.networking.k8s.io",
            Kind::Gateways => "gateways.gateway.networking.k8s.io",
            Kind::TcpRoutes => "tcproutes.gateway.networking.k8s.io",
            Kind::UdpRoutes => "udproutes.gateway.networking.k8s.io",
            Kind::Grants => "referencegrants.gateway.networking.k8s.io",
        }
    }

    /// Whether nothing can be said of what is to be served before it was listed.
    pub fn is_needed(self) -> bool {
        match self {
            Kind::Services | Kind::Slices => true,
            Kind::Dires | Kind::Deployments | Kind::Pods => true,
            Kind::GatewayClasses | Kind::Gateways | Kind::Grants => true,
            Kind::TcpRoutes | Kind::UdpRoutes => true,
            Kind::Namespaces | Kind::Nodes | Kind::Pools | Kind::Advertisements => false,
        }
    }
}

impl Kind {
    /// Whether a cluster may be without it, and all else goes on: not every release of the Gateway
    /// API has each of its kinds.
    pub fn is_optional(self) -> bool {
        GATEWAY_API.contains(&self)
    }
}

/// Objects that are followed together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    /// Their kind.
    pub kind: Kind,
    /// The namespace they are in; `None` for all.
    pub namespace: Option<Arc<str>>,
}

/// What comes of following them.
#[derive(Debug)]
pub enum Told {
    /// An object is there, is another one, or is gone. `at` is when that was heard; `None` where
    /// it is only listed.
    Changed {
        /// Of which.
        feed: Feed,
        /// Its name.
        name: Name,
        /// What.
        change: Change,
        /// When.
        at: Option<Instant>,
    },
    /// All there are have been told.
    Listed {
        /// Of which.
        feed: Feed,
        /// The term that the list was begun in, or a later one.
        term: u64,
    },
    /// They cannot be followed now.
    Failed {
        /// Which.
        feed: Feed,
        /// A sentence.
        why: String,
        /// The status code, where the API server answered.
        code: Option<u16>,
    },
}

/// Follows until it is dropped. `every_service`: not only Services of type LoadBalancer, since routes
/// of the Gateway API name any. With each `term` Services are listed anew: a watch may be behind, and
/// whoever begins to give addresses has to know at least what was so when it began.
pub async fn follow(
    feed: Feed,
    cluster: Cluster,
    every_service: bool,
    term: channel::Receiver<u64>,
    tell: Sender<Told>,
) {
    let client = cluster.client.clone();
    let config = watcher::Config::default().timeout(WATCH).page_size(PAGE);
    let namespace = feed.namespace.clone();
    let follower = Follower { feed, term, tell };
    match follower.feed.kind {
        Kind::Services if every_service => {
            let convert = |name: &Name, object: &core::Service| {
                let object = Arc::new(facts::Service::from(object));
                Some(Change::Service(name.clone(), Some(object)))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Services => {
            let selected = config.clone().fields("spec.type=LoadBalancer");
            let follower = follower.run(Api::all(client.clone()), selected, service);
            // An API server that cannot select by type refuses to.
            let Err(follower) = follower.await else {
                return;
            };
            let _ = follower.run(Api::all(client), config, service).await;
        }
        Kind::Slices => {
            let config = config.labels("!service.kubernetes.io/headless");
            let convert = |name: &Name, object: &discovery::EndpointSlice| {
                Some(Change::Slice(name.clone(), Some(Arc::new(object.into()))))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Namespaces => {
            let convert = |name: &Name, object: &core::Namespace| {
                let object = Arc::new(facts::Namespace::from(object));
                Some(Change::Namespace(name.name.to_string(), Some(object)))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Nodes => {
            let name = cluster.node.unwrap_or_default();
            let config = config.fields(&format!("metadata.name={name}"));
            let convert = |name: &Name, object: &core::Node| {
                let object = Arc::new(facts::Node::from(object));
                Some(Change::Node(name.name.to_string(), Some(object)))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Pools => {
            let convert = |name: &Name, object: &AddressPool| {
                let object = Arc::new(lean(object));
                Some(Change::Pool(name.name.to_string(), Some(object)))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Advertisements => {
            let convert = |name: &Name, object: &Advertisement| {
                let object = Arc::new(lean(object));
                Some(Change::Advertisement(name.name.to_string(), Some(object)))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Dires => {
            let convert = |name: &Name, object: &Dire| {
                Some(Change::Dire(name.clone(), Some(Arc::new(lean(object)))))
            };
            let _ = follower.run(Api::all(client), config, convert).await;
        }
        Kind::Deployments => {
            let api = Api::namespaced(client, namespace.as_deref().unwrap_or_default());
            let convert = |name: &Name, object: &apps::Deployment| {
                let object = Arc::new(facts::Deployment::from(object));
                Some(Change::Deployment(name.clone(), Some(object)))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::Pods => {
            let api = Api::namespaced(client, namespace.as_deref().unwrap_or_default());
            let convert = |name: &Name, object: &core::Pod| {
                let object = Arc::new(facts::Pod::from(object));
                Some(Change::Pod(name.clone(), Some(object)))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::GatewayClasses => {
            let api = Api::all_with(client, &gateway::resources::gateway_classes());
            let convert = |name: &Name, object: &gateway::GatewayClass| {
                let object = Some(Arc::new(lean(object)));
                Some(Change::GatewayClass(name.name.to_string(), object))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::Gateways => {
            let api = Api::all_with(client, &gateway::resources::gateways());
            let convert = |name: &Name, object: &gateway::Gateway| {
                Some(Change::Gateway(name.clone(), Some(Arc::new(lean(object)))))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::TcpRoutes => {
            let api = Api::all_with(client, &gateway::resources::tcp_routes());
            let convert = |name: &Name, object: &gateway::Route| {
                Some(Change::TcpRoute(name.clone(), Some(Arc::new(lean(object)))))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::UdpRoutes => {
            let api = Api::all_with(client, &gateway::resources::udp_routes());
            let convert = |name: &Name, object: &gateway::Route| {
                Some(Change::UdpRoute(name.clone(), Some(Arc::new(lean(object)))))
            };
            let _ = follower.run(api, config, convert).await;
        }
        Kind::Grants => {
            let api = Api::all_with(client, &gateway::resources::reference_grants());
            let convert = |name: &Name, object: &gateway::ReferenceGrant| {
                Some(Change::Grant(name.clone(), Some(Arc::new(lean(object)))))
            };
            let _ = follower.run(api, config, convert).await;
        }
    }
}

fn service(name: &Name, object: &core::Service) -> Option<Change> {
    let service = facts::Service::from(object);
    let is = service.load_balancer;
    is.then(|| Change::Service(name.clone(), Some(Arc::new(service))))
}

/// Without what only the API server needs.
fn lean<K: Resource + Clone>(object: &K) -> K {
    let mut object = object.clone();
    object.meta_mut().managed_fields = None;
    object
}

/// Of an object of this kind that is gone.
pub fn gone(kind: Kind, name: &Name) -> Change {
    match kind {
        Kind::Services => Change::Service(name.clone(), None),
        Kind::Slices => Change::Slice(name.clone(), None),
        Kind::Namespaces => Change::Namespace(name.name.to_string(), None),
        Kind::Nodes => Change::Node(name.name.to_string(), None),
        Kind::Pools => Change::Pool(name.name.to_string(), None),
        Kind::Advertisements => Change::Advertisement(name.name.to_string(), None),
        Kind::Dires => Change::Dire(name.clone(), None),
        Kind::Deployments => Change::Deployment(name.clone(), None),
        Kind::Pods => Change::Pod(name.clone(), None),
        Kind::GatewayClasses => Change::GatewayClass(name.name.to_string(), None),
        Kind::Gateways => Change::Gateway(name.clone(), None),
        Kind::TcpRoutes => Change::TcpRoute(name.clone(), None),
        Kind::UdpRoutes => Change::UdpRoute(name.clone(), None),
        Kind::Grants => Change::Grant(name.clone(), None),
    }
}

struct Follower {
    feed: Feed,
    term: channel::Receiver<u64>,
    tell: Sender<Told>,
}

impl Follower {
    /// Until nobody listens. `convert` returns nothing for an object that is none of ours.
    ///
    /// # Errors
    /// Where the API server cannot select what `config` selects.
    async fn run<K>(
        mut self,
        api: Api<K>,
        config: watcher::Config,
        convert: fn(&Name, &K) -> Option<Change>,
    ) -> Result<(), Self>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let selects = config.field_selector.is_some();
        let mut term = *self.term.borrow_and_update();
        let mut events = pin!(watcher(api.clone(), config.clone()));
        let mut pause = Pause::default();
        let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Ok(()) = self.term.changed(), if self.feed.kind == Kind::Services => {
                    term = *self.term.borrow_and_update();
                    events.set(watcher(api.clone(), config.clone()));
                    continue;
                }
            };
            let Some(event) = event else {
                break;
            };
            let at = Some(Instant::now());
            let going = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    true
                }
                Ok(Event::InitApply(object)) => {
                    let name = name(&object);
                    let change = convert(&name, &object);
                    if change.is_some() {
                        listed.insert(name.clone());
                    }
                    self.changed(&mut known, name, change, None).await
                }
                Ok(Event::InitDone) => {
                    let missing: Vec<Name> = known.difference(&listed).cloned().collect();
                    for name in missing {
                        self.changed(&mut known, name, None, None).await;
                    }
                    let feed = self.feed.clone();
                    self.say(Told::Listed { feed, term }).await
                }
                Ok(Event::Apply(object)) => {
                    let name = name(&object);
                    let change = convert(&name, &object);
                    self.changed(&mut known, name, change, at).await
                }
                Ok(Event::Delete(object)) => {
                    let name = name(&object);
                    self.changed(&mut known, name, None, at).await
                }
                Err(watcher::Error::InitialListFailed(error))
                    if selects && code(&error) == Some(400) =>
                {
                    return Err(self);
                }
                Err(error) => {
                    let (told, wait) = self.failed(&error, &mut pause);
                    let going = self.say(told).await;
                    sleep(wait).await;
                    going
                }
            };
            if !going {
                break;
            }
        }
        Ok(())
    }

    /// Tells of a change. Returns whether anybody listens.
    async fn changed(
        &self,
        known: &mut BTreeSet<Name>,
        name: Name,
        change: Option<Change>,
        at: Option<Instant>,
    ) -> bool {
        let change = match change {
            Some(change) => {
                known.insert(name.clone());
                change
            }
            None if known.remove(&name) => gone(self.feed.kind, &name),
            None => return true,
        };
        let feed = self.feed.clone();
        self.say(Told::Changed {
            feed,
            name,
            change,
            at,
        })
        .await
    }

    async fn say(&self, told: Told) -> bool {
        self.tell.send(told).await.is_ok()
    }

    fn failed(&self, error: &watcher::Error, pause: &mut Pause) -> (Told, Duration) {
        let resource = self.feed.kind.resource();
        let (why, code) = match error {
            watcher::Error::InitialListFailed(error) => {
                (explain(error, "list", resource), code(error))
            }
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                (explain(error, "watch", resource), code(error))
            }
            watcher::Error::WatchError(status) => {
                let error = kube::Error::Api(status.clone());
                (explain(&error, "watch", resource), Some(status.code))
            }
            watcher::Error::NoResourceVersion => {
                (format!("cannot watch {resource}: {error}"), None)
            }
        };
        let wait = match code {
            Some(401 | 403 | 404) => Pause::jittered(PAUSES.2),
            _ => pause.next(Instant::now()),
        };
        let feed = self.feed.clone();
        (Told::Failed { feed, why, code }, wait)
    }
}

fn name<K: Resource>(object: &K) -> Name {
    let namespace = object.namespace().unwrap_or_default();
    Name::new(&namespace, &object.name_any())
}

/// Pauses that grow, each somewhat random, so that many daemons do not come at once.
#[derive(Debug, Default)]
pub struct Pause {
    last: Option<(Instant, Duration)>,
}

impl Pause {
    /// The next one.
    pub fn next(&mut self, now: Instant) -> Duration {
        let (first, longest, _) = PAUSES;
        let pause = match self.last {
            Some((at, pause)) if now.duration_since(at) < CALM => (pause * 2).min(longest),
            _ => first,
        };
        self.last = Some((now, pause));
        Pause::jittered(pause)
    }

    /// Between half of it and half more.
    pub fn jittered(pause: Duration) -> Duration {
        pause.mul_f64(rand::random_range(0.5..1.5))
    }
}
