//! Asks the API server.

use super::seen::{Definition, Leader, Node, Right, Seen, Unread};
use crate::daemon::kubernetes::client::{Cluster, code, connect, explain};
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, CustomResourceExt, Error, Resource, ResourceExt};
use lockstep_ctl_core::config::kubernetes::Kubernetes;
use lockstep_ctl_core::kubernetes::access::{ACCESS, Access, TOPOLOGIES};
use lockstep_ctl_core::kubernetes::{Change, World};
use lockstep_kubernetes::facts::{self, Name, gateway};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the API server may take for its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Objects of a page, and pages of a kind: who has more has its first ones looked at.
const PAGE: u32 = 500;
const PAGES: usize = 200;

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// Where the nodes that take traffic are labelled.
pub const LABEL: &str = "lockstep.dev/engine";

/// All there is to see.
///
/// # Errors
/// A sentence, where there is nobody to ask.
pub async fn look(wanted: &Kubernetes) -> Result<Seen, String> {
    let cluster = connect(wanted, Some("check")).await?;
    let mut seen = Seen {
        wanted: wanted.clone(),
        server: cluster.server.clone(),
        namespace: cluster.namespace.clone(),
        ..Seen::default()
    };
    match version(&cluster).await {
        Ok(version) => seen.version = version,
        Err(problem) => {
            seen.silent = Some(problem);
            return Ok(seen);
        }
    }
    seen.rights = rights(&cluster, wanted).await;
    for (name, ours) in [
        (AddressPool::crd_name(), AddressPool::crd()),
        (Advertisement::crd_name(), Advertisement::crd()),
        (Dire::crd_name(), Dire::crd()),
    ] {
        let there = definition(&cluster, name, &ours).await;
        seen.definitions.insert(name, there);
    }
    seen.leader = leader(&cluster, &wanted.lease).await;
    let mut reader = Reader {
        cluster: &cluster,
        world: World::default(),
        unread: BTreeMap::new(),
    };
    seen.nodes = reader.nodes().await;
    reader.objects().await;
    if wanted.gateway_controller.is_some() {
        reader.gateways().await;
    }
    (seen.world, seen.unread) = (reader.world, reader.unread);
    let maps: Api<core::ConfigMap> = Api::namespaced(cluster.client.clone(), &seen.namespace);
    let map = maps.get_opt(TOPOLOGIES).await.ok().flatten();
    seen.topologies = map.map(|map| {
        let files = map.data.unwrap_or_default().into_keys();
        let names = files.filter_map(|file| Some(file.strip_suffix(".toml")?.to_owned()));
        names.collect()
    });
    Ok(seen)
}

async fn version(cluster: &Cluster) -> Result<(u32, u32), String> {
    let asked = timeout(PATIENCE, cluster.client.apiserver_version()).await;
    let info = match asked {
        Ok(Ok(info)) => info,
        Ok(Err(error)) => return Err(explain(&error, "get", "/version")),
        Err(_) => return Err(format!("no answer in {PATIENCE:?}")),
    };
    // Some write `36+`.
    let number = |text: &str| text.trim_end_matches('+').parse();
    match (number(&info.major), number(&info.minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(format!("{:?} is no version", info.git_version)),
    }
}

async fn rights(cluster: &Cluster, wanted: &Kubernetes) -> Vec<(Access, &'static str, Right)> {
    let gateways = wanted.gateway_controller.is_some();
    let needed = ACCESS
        .iter()
        .filter(|row| row.is_needed(wanted.lead, gateways));
    let verbs = needed.flat_map(|row| row.verbs.iter().map(move |verb| (*row, *verb)));
    let asked = stream::iter(verbs)
        .map(|(row, verb)| async move { (row, verb, right(cluster, &row, verb).await) });
    asked.buffered(AT_ONCE).collect().await
}

async fn right(cluster: &Cluster, row: &Access, verb: &str) -> Right {
    let (resource, sub) = match row.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (row.resource, None),
    };
    let namespace = row.own_namespace.then(|| cluster.namespace.clone());
    let name = row.names.first().map(|name| (*name).to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(row.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: sub,
                verb: Some(verb.to_owned()),
                namespace,
                name,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    match reviews.create(&PostParams::default(), &review).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => Right::Allowed,
        Ok(_) => Right::Denied,
        Err(error) => {
            let what = "selfsubjectaccessreviews.authorization.k8s.io";
            Right::Unknown(explain(&error, "create", what))
        }
    }
}

async fn definition(cluster: &Cluster, name: &str, ours: &CustomResourceDefinition) -> Definition {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    match definitions.get_opt(name).await {
        Ok(None) => Definition::Missing,
        Err(error) => Definition::Unknown(explain(&error, "get", name)),
        Ok(Some(there)) => match compare(ours, &there) {
            None => Definition::Same,
            Some(place) => Definition::Differs(place),
        },
    }
}

/// The first place at which ours says something that is otherwise there. What the API server adds by
/// itself is not ours.
pub fn compare(
    ours: &CustomResourceDefinition,
    there: &CustomResourceDefinition,
) -> Option<String> {
    let versions = |definition: &CustomResourceDefinition| -> Value {
        let versions = definition.spec.versions.iter();
        let versions =
            versions.map(|v| (v.name.clone(), serde_json::to_value(v).unwrap_or_default()));
        versions.collect::<serde_json::Map<_, _>>().into()
    };
    differs(&versions(ours), &versions(there), "")
}

fn differs(ours: &Value, there: &Value, path: &str) -> Option<String> {
    match (ours, there) {
        (Value::Object(ours), Value::Object(there)) => {
            let properties = path.ends_with(".properties");
            let more = there
                .keys()
                .find(|key| properties && !ours.contains_key(*key));
            if let Some(key) = more {
                return Some(format!("{path}.{key}"));
            }
            ours.iter().find_map(|(key, value)| {
                let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
                match there.get(key) {
                    None if is_nothing(value) => None,
                    None => Some(path),
                    Some(other) => differs(value, other, &path),
                }
            })
        }
        (Value::Array(ours), Value::Array(there)) if ours.len() == there.len() => {
            let mut pairs = ours.iter().zip(there);
            pairs.find_map(|(one, other)| differs(one, other, path))
        }
        (one, other) if one == other => None,
        _ => Some(path.to_owned()),
    }
}

/// What the API server need not keep.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}

async fn leader(cluster: &Cluster, lease: &str) -> Leader {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let there = match leases.get_opt(lease).await {
        Ok(there) => there,
        Err(error) => return Leader::Unknown(explain(&error, "get", "leases.coordination.k8s.io")),
    };
    let spec = there.and_then(|lease| lease.spec).unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let (Some(holder), Some(renewed)) = (holder, spec.renew_time) else {
        return Leader::Nobody;
    };
    let ago = Timestamp::now().duration_since(renewed.0);
    let ago = Duration::try_from(ago).unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let long = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Leader::Is(holder, ago, long)
}

/// Lists what there is.
struct Reader<'a> {
    cluster: &'a Cluster,
    world: World,
    unread: BTreeMap<&'static str, Unread>,
}

impl Reader<'_> {
    async fn list<K>(&mut self, resource: &'static str) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let listed = pages(Api::all(self.cluster.client.clone())).await;
        self.read(resource, listed)
    }

    /// What was listed; where it could not be, that is noted.
    fn read<K>(&mut self, resource: &'static str, listed: Result<Vec<K>, Error>) -> Vec<K> {
        match listed {
            Ok(objects) => objects,
            Err(error) => {
                let why = match code(&error) {
                    Some(404) => Unread::Missing,
                    _ => Unread::Failed(explain(&error, "list", resource)),
                };
                self.unread.insert(resource, why);
                Vec::new()
            }
        }
    }

    async fn nodes(&mut self) -> Vec<Node> {
        let all: Vec<core::Node> = self.list("nodes").await;
        let mut nodes = Vec::new();
        for node in &all {
            let fact = Arc::new(facts::Node::from(node));
            let status = node.status.clone().unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            nodes.push(Node {
                name: fact.name.clone(),
                labelled: fact.labels.get(LABEL).is_some_and(|value| value == "true"),
                ready: conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True"),
                overlay: overlay(node.annotations()),
                kernel: status
                    .node_info
                    .map(|info| info.kernel_version)
                    .unwrap_or_default(),
            });
            self.world
                .apply(Change::Node(fact.name.clone(), Some(fact)));
        }
        nodes
    }

    async fn objects(&mut self) {
        for namespace in self.list::<core::Namespace>("namespaces").await {
            let fact = Arc::new(facts::Namespace::from(&namespace));
            self.world
                .apply(Change::Namespace(fact.name.clone(), Some(fact)));
        }
        for pool in self.list::<AddressPool>("addresspools.lockstep.dev").await {
            self.world
                .apply(Change::Pool(pool.name_any(), Some(Arc::new(pool))));
        }
        for object in self
            .list::<Advertisement>("advertisements.lockstep.dev")
            .await
        {
            self.world.apply(Change::Advertisement(
                object.name_any(),
                Some(Arc::new(object)),
            ));
        }
        for dire in self.list::<Dire>("dires.lockstep.dev").await {
            self.world
                .apply(Change::Dire(name(&dire), Some(Arc::new(dire))));
        }
        // Those of no Dire decide nothing.
        if !self.world.dires.is_empty() {
            for object in self.list::<apps::Deployment>("deployments.apps").await {
                let fact = Arc::new(facts::Deployment::from(&object));
                self.world
                    .apply(Change::Deployment(name(&object), Some(fact)));
            }
            for pod in self.list::<core::Pod>("pods").await {
                let fact = Arc::new(facts::Pod::from(&pod));
                self.world.apply(Change::Pod(name(&pod), Some(fact)));
            }
        }
        for service in self.list::<core::Service>("services").await {
            let fact = Arc::new(facts::Service::from(&service));
            self.world
                .apply(Change::Service(name(&service), Some(fact)));
        }
        for slice in self
            .list::<discovery::EndpointSlice>("endpointslices.discovery.k8s.io")
            .await
        {
            let fact = Arc::new(facts::Slice::from(&slice));
            self.world.apply(Change::Slice(name(&slice), Some(fact)));
        }
    }

    /// Only whether the kinds are there, and the classes.
    async fn gateways(&mut self) {
        let client = self.cluster.client.clone();
        let api = Api::all_with(client.clone(), &gateway::resources::gateway_classes());
        let classes: Vec<gateway::GatewayClass> =
            self.read("gatewayclasses.gateway.networking.k8s.io", pages(api).await);
        for class in classes {
            let name = class.name_any();
            self.world
                .apply(Change::GatewayClass(name, Some(Arc::new(class))));
        }
        let one = ListParams::default().limit(1);
        for (resource, kind) in [
            (
                "gateways.gateway.networking.k8s.io",
                gateway::resources::gateways(),
            ),
            (
                "tcproutes.gateway.networking.k8s.io",
                gateway::resources::tcp_routes(),
            ),
            (
                "udproutes.gateway.networking.k8s.io",
                gateway::resources::udp_routes(),
            ),
            (
                "referencegrants.gateway.networking.k8s.io",
                gateway::resources::reference_grants(),
            ),
        ] {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            let listed = api.list(&one).await;
            let _ = self.read(resource, listed.map(|list| list.items));
        }
    }
}

/// What the annotations of a node say of packets between nodes: flannel names its backend, and Calico
/// the address of its tunnel.
pub fn overlay(annotations: &BTreeMap<String, String>) -> Option<String> {
    let flannel = annotations.get("flannel.alpha.coreos.com/backend-type");
    let flannel = flannel.filter(|backend| !["host-gw", "alloc"].contains(&backend.as_str()));
    if let Some(backend) = flannel {
        return Some(format!("flannel: {backend}"));
    }
    let tunnels = [
        ("projectcalico.org/IPv4VXLANTunnelAddr", "Calico: VXLAN"),
        ("projectcalico.org/IPv6VXLANTunnelAddr", "Calico: VXLAN"),
        ("projectcalico.org/IPv4IPIPTunnelAddr", "Calico: IP in IP"),
    ];
    let found = tunnels
        .iter()
        .find(|(key, _)| annotations.contains_key(*key));
    found.map(|(_, says)| (*says).to_owned())
}

fn name<K: Resource>(object: &K) -> Name {
    Name::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

async fn pages<K>(api: Api<K>) -> Result<Vec<K>, Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut parameters = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    for _ in 0..PAGES {
        let page = api.list(&parameters).await?;
        let next = page
            .metadata
            .continue_
            .clone()
            .filter(|token| !token.is_empty());
        objects.extend(page.items);
        match next {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    Ok(objects)
}
