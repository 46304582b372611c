//! `Dire`: replicated sessions of a Deployment.

mod policy;
mod status;

pub use policy::{Commit, Divergence, Group, Limits, Mask};
pub use status::{DireBalancer, DireBalancerReplica, DireReplica, DireStatus, ReplicaState};
pub use status::{Switchover, most};

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Replicated TCP sessions: every pod of a Deployment gets what each client sends, and the client
/// gets one answer, whichever pods die.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "Dire",
    namespaced,
    status = "DireStatus",
    shortname = "dr",
    category = "all",
    derive = "PartialEq",
    doc = "Replicated TCP sessions: every pod of a Deployment gets what each client sends, and the \
           client gets one answer, whichever pods die.",
    printcolumn(name = "Hive", type_ = "string", json_path = ".spec.hiveDeploymentName"),
    printcolumn(name = "Ports", type_ = "string", json_path = ".spec.forwardedPorts"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(name = "Synced", type_ = "integer", json_path = ".status.syncedReplicas"),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.addresses",
        priority = 1
    ),
    printcolumn(
        name = "Sessions",
        type_ = "integer",
        json_path = ".status.sessions",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,56}[a-z0-9])?$')").message(
        "the name has to be lower-case letters, digits and '-', begin with a letter, and have at \
         most 58 characters: its Service is NAME-dire"
    )
)]
#[x_kube(
    validation = Rule::new("(self.commit == 'Quorum') == has(self.quorum)").message(
        "commit: Quorum needs a quorum, and commit: Primary has none"
    ),
    validation = Rule::new(
        "!has(self.quorum) || !has(self.minSync) || self.minSync >= self.quorum"
    ).message("minSync has to be at least the quorum"),
    validation = Rule::new("has(self.distributorImage) == has(self.distributor)").message(
        "distributorImage and distributor go together: the pod needs an address for its engine"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DireSpec {
    /// The Deployment whose pods are the replicas, in the namespace of the Dire. It cannot be
    /// changed.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "hiveDeploymentName cannot be changed: make another Dire for the other Deployment"
    ))]
    pub hive_deployment_name: String,
    /// The `loadBalancerClass` of the installation that serves it, and of its Service. It cannot be
    /// changed, as that of a Service cannot.
    #[serde(default = "class")]
    #[schemars(length(min = 3, max = 317))]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "loadBalancerClass cannot be changed: make another Dire for the other class"
    ))]
    pub load_balancer_class: String,
    /// The TCP ports that clients connect to, and that the pods listen on.
    #[schemars(length(min = 1, max = 64), inner(range(min = 1, max = 65535)))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists_one(q, q == p))").message(
        "forwardedPorts has a port twice"
    ))]
    pub forwarded_ports: Vec<u16>,
    /// The image of a distributor of its own, a pod with Lockstep's engine and daemon. Where none
    /// is named, the balancers of the cluster serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub distributor_image: Option<String>,
    /// Where a distributor of its own runs, and by which addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distributor: Option<Distributor>,
    /// Whose bytes the client gets: the primary's as they come, or those that a quorum has
    /// produced alike.
    #[serde(default)]
    pub commit: Commit,
    /// With `commit: Quorum`: how many replicas have to have produced a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub quorum: Option<u8>,
    /// Replicas that must have accepted before a client is answered; 1 or the quorum where nothing
    /// is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub min_sync: Option<u8>,
    /// What follows when a replica's bytes differ from those sent to the client.
    #[serde(default)]
    pub divergence: Divergence,
    /// What is left out of comparisons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub masks: Vec<Mask>,
    /// Which connections are one session: each its own, or all of one client to any of the ports.
    #[serde(default)]
    pub group: Group,
    /// Times and sizes.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// Whether pods get the client's address, in a PROXY protocol v2 header before its first byte.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether pods that come back, or are new, are fed the sessions that run from their first byte.
    #[serde(default = "yes")]
    pub rejoin: bool,
    /// Whether a distributor of its own also serves random numbers to the pods, the same to each, on
    /// port 26666 of its node. Balancers serve them where their `lockstepd.toml` says so.
    #[serde(default)]
    pub random_numbers: bool,
    /// Whether the pod of a replica that is out of its sessions for good is deleted, so that its
    /// Deployment makes another one: one at a time, never the last one in sync.
    #[serde(default)]
    pub stop_evicted: bool,
    /// The families of its addresses, as in a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
}

/// Where a distributor runs: in the network of a node, whose link it shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distributor {
    /// Addresses of the engine, one of each family at most: extra ones that the network routes to
    /// the node. Replicas see them as the client's.
    #[schemars(length(min = 1, max = 2), inner(length(min = 2, max = 45)))]
    pub addresses: Vec<String>,
    /// The node's interface.
    #[serde(default = "eth0")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub interface: String,
    /// Labels of the nodes that it may run on: those that the addresses are routed to.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub node_selector: std::collections::BTreeMap<String, String>,
}

fn eth0() -> String {
    "eth0".to_owned()
}

/// As `ipFamilyPolicy` of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Both where there are both.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

impl IpFamilyPolicy {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            IpFamilyPolicy::SingleStack => "SingleStack",
            IpFamilyPolicy::PreferDualStack => "PreferDualStack",
            IpFamilyPolicy::RequireDualStack => "RequireDualStack",
        }
    }
}

fn class() -> String {
    crate::CLASS.to_owned()
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
