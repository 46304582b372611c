//! What of the cluster is told to the command line and in metrics.

use super::known::State;
use super::latency::BOUNDS;
use super::provider::{Provider, Started};
use super::watch::{Feed, Kind};
use super::writer::Written;
use lockstep_api::{
    KubernetesKind, KubernetesLatency, KubernetesLeftOut, KubernetesPool, KubernetesReply,
    KubernetesService, KubernetesState,
};
use lockstep_ctl_core::config::kubernetes::Kubernetes;
use lockstep_ctl_core::kubernetes::World;
use lockstep_ctl_core::kubernetes::allocate::ALLOCATED;
use lockstep_ctl_core::services::sources::Placed;
use lockstep_kubernetes::facts::{Name, Service};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// What connections that are over have counted: counters never go back.
#[derive(Debug, Default)]
pub struct Past {
    feeds: BTreeMap<Kind, (u64, u64)>,
    writes: (u64, u64),
    requests: (u64, u64, u64),
}

impl Past {
    /// A connection ends.
    pub fn add(&mut self, feeds: &BTreeMap<Feed, State>, written: &Written) {
        for (feed, state) in feeds {
            self.add_feed(feed, state);
        }
        self.writes.0 += written.done;
        self.writes.1 += written.failed;
    }

    /// Objects are not followed any more.
    pub fn add_feed(&mut self, feed: &Feed, state: &State) {
        let counted = self.feeds.entry(feed.kind).or_default();
        counted.0 += state.lists;
        counted.1 += state.events;
    }

    /// Its requests are over, too.
    pub fn add_requests(&mut self, (answered, refused, failed): (u64, u64, u64)) {
        self.requests.0 += answered;
        self.requests.1 += refused;
        self.requests.2 += failed;
    }
}

/// Where there is nobody to ask.
pub fn without(wanted: &Kubernetes, error: String) -> KubernetesReply {
    KubernetesReply {
        configured: true,
        error,
        class: wanted.class.clone(),
        may_lead: wanted.lead,
        ..KubernetesReply::default()
    }
}

/// All there is to tell.
pub fn reply(provider: &Provider<'_>, placed: &Placed) -> KubernetesReply {
    let (cluster, wanted) = (&provider.cluster, &provider.wanted);
    let metered = cluster.meter.read();
    let leadership = provider.leadership.borrow().clone();
    let written = provider.written.borrow().clone();
    let past = &provider.lasting.past;
    let state = match provider.started {
        Started::No => KubernetesState::KubernetesAwaited,
        Started::Restored => KubernetesState::KubernetesRestored,
        Started::Yes => KubernetesState::KubernetesCurrent,
    };
    let leads = leadership.leads();
    let errors = written.errors.iter();
    KubernetesReply {
        configured: true,
        server: cluster.server.clone(),
        connected: metered.answers == Some(true),
        since_unix_ms: metered.since.0,
        error: metered.error,
        node: cluster.node.clone().unwrap_or_default(),
        class: wanted.class.clone(),
        state: state.into(),
        may_lead: wanted.lead,
        leads,
        leader: leadership.holder.unwrap_or_default(),
        lease: format!("{}/{}", cluster.namespace, wanted.lease),
        lease_error: leadership.error,
        kinds: kinds(provider),
        pools: pools(&provider.world),
        services: services(provider),
        left_out: (placed.left_out.iter())
            .map(|(service, why)| KubernetesLeftOut {
                service: service.to_string(),
                why: why.clone(),
            })
            .collect(),
        write_errors: errors.map(|(what, why)| format!("{what}: {why}")).collect(),
        writes: past.writes.0 + written.done,
        writes_failed: past.writes.1 + written.failed,
        writes_open: written.open as u64,
        requests: past.requests.0 + metered.answered,
        requests_refused: past.requests.1 + metered.refused,
        requests_failed: past.requests.2 + metered.failed,
        latency: Some(KubernetesLatency {
            bounds: BOUNDS.to_vec(),
            buckets: provider.lasting.latency.buckets.to_vec(),
            sum: provider.lasting.latency.sum.as_secs_f64(),
        }),
    }
}

fn kinds(provider: &Provider<'_>) -> Vec<KubernetesKind> {
    let now = Instant::now();
    let mut before = provider.lasting.past.feeds.clone();
    (provider.feeds.iter())
        .map(|(feed, state)| {
            let (lists, events) = before.remove(&feed.kind).unwrap_or_default();
            KubernetesKind {
                resource: feed.kind.resource().to_owned(),
                namespace: feed.namespace.as_deref().unwrap_or_default().to_owned(),
                objects: objects(&provider.world, feed) as u64,
                listed: state.listed,
                lists: lists + state.lists,
                events: events + state.events,
                error: state.trouble(now).unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

fn objects(world: &World, feed: &Feed) -> usize {
    let here = |name: &&Name| {
        let namespace = feed.namespace.as_ref();
        namespace.is_none_or(|namespace| name.namespace == *namespace)
    };
    match feed.kind {
        Kind::Services => world.services.len(),
        Kind::Slices => world.slices.values().map(BTreeMap::len).sum(),
        Kind::Namespaces => world.namespaces.len(),
        Kind::Nodes => world.nodes.len(),
        Kind::Pools => world.pools.len(),
        Kind::Advertisements => world.advertisements.len(),
        Kind::Dires => world.dires.len(),
        Kind::Deployments => world.deployments.keys().filter(here).count(),
        Kind::Pods => world.pods.keys().filter(here).count(),
        Kind::GatewayClasses => world.gateway_classes.len(),
        Kind::Gateways => world.gateways.len(),
        Kind::TcpRoutes => world.tcp_routes.len(),
        Kind::UdpRoutes => world.udp_routes.len(),
        Kind::Grants => world.grants.len(),
    }
}

fn pools(world: &World) -> Vec<KubernetesPool> {
    let pool = |(name, pool): (&String, &std::sync::Arc<_>)| {
        let pool: &lockstep_kubernetes::resources::AddressPool = pool;
        let status = pool.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        let problem = ready.filter(|c| c.status != "True");
        KubernetesPool {
            name: name.clone(),
            available: status.available,
            assigned: status.assigned,
            problem: problem.map_or_else(String::new, |c| c.message.clone()),
        }
    };
    world.pools.iter().map(pool).collect()
}

fn services(provider: &Provider<'_>) -> Vec<KubernetesService> {
    let (world, mind) = (&provider.world, &provider.mind);
    let ours = world.services.iter().filter(|(_, s)| mind.is_ours(s));
    ours.map(|(name, service)| {
        let slices = world.slices.get(name).into_iter().flat_map(|s| s.values());
        let endpoints: usize = slices.map(|slice| slice.endpoints.len()).sum();
        let told = mind.translator.problems(name).iter();
        let told = told.map(|problem| problem.message.clone());
        let addresses = service.ingress.iter();
        KubernetesService {
            name: name.to_string(),
            addresses: addresses.map(|i| i.address.to_string()).collect(),
            endpoints: u32::try_from(endpoints).unwrap_or(u32::MAX),
            problems: address(service).into_iter().chain(told).collect(),
        }
    })
    .collect()
}

/// Why a Service does not have the addresses that it asks for.
fn address(service: &Service) -> Option<String> {
    let condition = service.conditions.get(ALLOCATED);
    match condition {
        Some(condition) if condition.status != "True" => Some(condition.message.clone()),
        None if service.ingress.is_empty() => {
            Some("it has no address yet: no leader has given it one".to_owned())
        }
        _ => None,
    }
}
