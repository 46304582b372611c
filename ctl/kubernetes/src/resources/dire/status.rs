//! What becomes of a `Dire`.
//!
//! Several balancers serve one Dire, and each knows its own sessions only. Each writes what it sees
//! under its own name into `balancers`, by server-side apply with a field manager of its own; the
//! leader sums up all of them in the rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most of what a status holds.
pub mod most {
    /// Replicas, as many as an engine has of a service.
    pub const REPLICAS: usize = 128;
    /// Balancers.
    pub const BALANCERS: usize = 64;
}

/// What became of it.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DireStatus {
    /// The generation this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The addresses that clients connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// The pods there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pod".into()]))]
    pub replicas: Vec<DireReplica>,
    /// How many of them lack nothing: ready, and in sync in every session that runs.
    #[serde(default)]
    pub synced_replicas: i32,
    /// The pod whose answers most sessions get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Sessions there are, over all balancers.
    #[serde(default)]
    pub sessions: i64,
    /// The last time that another replica became the primary of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switchover: Option<Switchover>,
    /// What each balancer sees that has sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub balancers: Vec<DireBalancer>,
    /// `Ready`, `HiveFound`, `Protected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A pod of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DireReplica {
    /// The pod's name.
    pub pod: String,
    /// Its address, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether Kubernetes says that it is ready.
    #[serde(default)]
    pub ready: bool,
    /// How it stands, in the session that it stands worst in.
    pub state: ReplicaState,
    /// Why it was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// How a replica stands; a later one is worse.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ReplicaState {
    /// It waits for sessions.
    Idle,
    /// It is in sync in every session it is in.
    InSync,
    /// It is fed what it has missed.
    Joining,
    /// It is too far behind to count.
    Lagging,
    /// It is out of a session, and cannot come back to it.
    Evicted,
    /// It gets no new sessions: not ready, or about to end.
    Draining,
    /// It has not begun to run, or has no address yet.
    Pending,
}

/// What one balancer sees.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DireBalancer {
    /// The balancer's name.
    pub name: String,
    /// When it last said so. It does every 30 seconds while it has sessions.
    pub renew_time: MicroTime,
    /// Its sessions.
    #[serde(default)]
    pub sessions: i64,
    /// Those of them that have just enough replicas in sync.
    #[serde(default)]
    pub degraded: i64,
    /// Those of them that have too few replicas in sync.
    #[serde(default)]
    pub unprotected: i64,
    /// The last time that another replica became primary in one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switchover: Option<Switchover>,
    /// Replicas of its sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pod".into()]))]
    pub replicas: Vec<DireBalancerReplica>,
}

/// A replica as one balancer sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DireBalancerReplica {
    /// The pod's name.
    pub pod: String,
    /// Sessions that get its answers.
    #[serde(default)]
    pub primary: i64,
    /// Sessions that it is in sync in.
    #[serde(default)]
    pub in_sync: i64,
    /// Sessions that it is fed, or will be.
    #[serde(default)]
    pub joining: i64,
    /// Sessions that it lags in.
    #[serde(default)]
    pub lagging: i64,
    /// Sessions that it is out of for good.
    #[serde(default)]
    pub evicted: i64,
    /// Sessions that would have too few replicas without it.
    #[serde(default)]
    pub needed: i64,
    /// Why it was evicted, of one of these sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Another replica became primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switchover {
    /// When.
    pub time: MicroTime,
    /// The pod that was primary.
    pub from: String,
    /// The pod that is.
    pub to: String,
    /// Why.
    pub cause: String,
}
