//! What is known of a cluster, as plain data: judged by functions that ask nobody.

use lockstep_ctl_core::config::kubernetes::Kubernetes;
use lockstep_ctl_core::kubernetes::World;
use lockstep_ctl_core::kubernetes::access::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the daemon is to do.
    pub wanted: Kubernetes,
    /// The API server's address.
    pub server: String,
    /// The namespace of the Lease.
    pub namespace: String,
    /// Why it says nothing; all else is empty then.
    pub silent: Option<String>,
    /// Its version, major and minor.
    pub version: (u32, u32),
    /// Whether we may: what, which verb.
    pub rights: Vec<(Access, &'static str, Right)>,
    /// Our CustomResourceDefinitions.
    pub definitions: BTreeMap<&'static str, Definition>,
    /// Who leads.
    pub leader: Leader,
    /// The objects.
    pub world: World,
    /// Resources that could not be listed.
    pub unread: BTreeMap<&'static str, Unread>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The nodes that the chart has a topology for, `default` for all others; `None` where the chart
    /// is not in use, or that may not be read.
    pub topologies: Option<BTreeSet<String>>,
}

/// Whether something is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// It is.
    Allowed,
    /// It is not.
    Denied,
    /// The API server does not say.
    Unknown(String),
}

/// A CustomResourceDefinition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// As this program knows it.
    Same,
    /// Otherwise, here first.
    Differs(String),
    /// Not there.
    Missing,
    /// It cannot be read.
    Unknown(String),
}

/// Who holds the Lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leader {
    /// Nobody.
    #[default]
    Nobody,
    /// Somebody, who renewed it so long ago, and has it for so long.
    Is(String, Duration, Duration),
    /// It cannot be read.
    Unknown(String),
}

/// Why a resource could not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// The API server does not have it.
    Missing,
    /// Something else.
    Failed(String),
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is to take traffic, by the chart's label.
    pub labelled: bool,
    /// Whether kubelet answers there.
    pub ready: bool,
    /// `6.1.0-31-amd64`
    pub kernel: String,
    /// How the network plugin wraps packets between nodes, where it says that it does.
    pub overlay: Option<String>,
}
