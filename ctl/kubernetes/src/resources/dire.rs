//! `Dire`: replicated sessions of a Deployment.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Replicated TCP sessions: every pod of a Deployment gets what each client sends, and the client
/// gets one answer, whichever pods die.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "Dire",
    namespaced,
    status = "DireStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct DireSpec {
    /// The Deployment whose pods are the replicas. It cannot be changed.
    pub hive_deployment_name: String,
    /// The ports that are served, and that the pods listen on.
    pub forwarded_ports: Vec<u16>,
    /// The image of a distributor of its own; the engines on the load-balancer hosts serve it,
    /// where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distributor_image: Option<String>,
    /// Whose bytes the client gets: `primary`, or `quorum` of so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u8>,
    /// Replicas that must have accepted before a client is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sync: Option<u8>,
    /// What follows a replica's different output: `Ignore`, `Count`, `Evict`, `Reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<String>,
    /// Whether connections of one client are one session.
    #[serde(default)]
    pub group_by_client: bool,
    /// Whether pods get the client's address in a PROXY protocol v2 header.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether the pod of an evicted replica is deleted, so that its Deployment makes another.
    #[serde(default)]
    pub stop_evicted: bool,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DireStatus {
    /// The generation this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The address that clients connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The pods there are.
    #[serde(default)]
    pub replicas: Vec<DireReplica>,
    /// How many of them are in sync in every session.
    #[serde(default)]
    pub synced_replicas: i32,
    /// The pod that answers most sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Sessions there are.
    #[serde(default)]
    pub sessions: i64,
    /// `Ready`, `HiveFound`, `Protected`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A pod of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DireReplica {
    /// The pod's name.
    pub pod: String,
    /// Its address.
    pub address: String,
    /// Whether Kubernetes says that it is ready.
    pub ready: bool,
    /// `InSync`, `Joining`, `Lagging`, `Evicted`, or nothing where there is no session.
    #[serde(default)]
    pub state: String,
}
