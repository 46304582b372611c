//! Pods and Deployments: the replicas of a `Dire`.

use super::Name;
use crate::annotations;
use k8s_openapi::api::{apps::v1::Deployment as ApiDeployment, core::v1::Pod as ApiPod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: Name,
    /// Which pods are its.
    pub selector: LabelSelector,
    /// How many it is to have.
    pub replicas: i32,
    /// So that this one is deleted and no later one of the name.
    pub uid: String,
    /// Annotations that begin with [`annotations::PREFIX`].
    pub annotations: BTreeMap<String, String>,
}

impl From<&ApiDeployment> for Deployment {
    fn from(object: &ApiDeployment) -> Self {
        let meta = &object.metadata;
        let spec = object.spec.clone().unwrap_or_default();
        Deployment {
            name: Name::new(
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default(),
            ),
            selector: spec.selector,
            replicas: spec.replicas.unwrap_or(1),
            uid: meta.uid.clone().unwrap_or_default(),
            annotations: ours(meta),
        }
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// So that this one is deleted and no later one of the name.
    pub uid: String,
    /// The ReplicaSet that has made it, if one has.
    pub replica_set: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations that begin with [`annotations::PREFIX`].
    pub annotations: BTreeMap<String, String>,
    /// Its addresses, of each family one.
    pub addresses: Vec<IpAddr>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is about to end.
    pub deleting: bool,
    /// Whether it runs: neither waiting for a node nor over.
    pub running: bool,
    /// Whether it is over: it has succeeded or failed, and has no address that is its own.
    pub over: bool,
    /// The node it is on.
    pub node: Option<Arc<str>>,
}

impl From<&ApiPod> for Pod {
    fn from(object: &ApiPod) -> Self {
        let meta = &object.metadata;
        let status = object.status.clone().unwrap_or_default();
        let addresses = status.pod_ips.iter().flatten();
        let addresses = addresses.filter_map(|ip| ip.ip.parse().ok());
        let mut addresses: Vec<IpAddr> = addresses.collect();
        if let (true, Some(ip)) = (addresses.is_empty(), &status.pod_ip) {
            addresses.extend(ip.parse::<IpAddr>());
        }
        let node = object.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let mut owners = meta.owner_references.iter().flatten();
        let owner = owners.find(|o| o.controller == Some(true) && o.kind == "ReplicaSet");
        let mut conditions = status.conditions.iter().flatten();
        Pod {
            name: Name::new(
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default(),
            ),
            uid: meta.uid.clone().unwrap_or_default(),
            replica_set: owner.map(|owner| owner.name.clone()),
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: ours(meta),
            addresses,
            ready: conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
            deleting: meta.deletion_timestamp.is_some(),
            running: status.phase.as_deref() == Some("Running"),
            over: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            node: node.map(Arc::from),
        }
    }
}

fn ours(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let all = meta.annotations.iter().flatten();
    let ours = all.filter(|(key, _)| key.starts_with(annotations::PREFIX));
    ours.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
