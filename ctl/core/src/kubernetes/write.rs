//! What the leader writes to the API server. Each is done as a whole, and again while it is wanted:
//! none follows from another one's success.

use lockstep_kubernetes::facts::Name;
use serde_json::Value;

/// A kind of object that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `v1` ConfigMap.
    ConfigMap,
    /// `apps/v1` Deployment.
    Deployment,
    /// `lockstep.dev/v1alpha1` AddressPool.
    AddressPool,
    /// `lockstep.dev/v1alpha1` Advertisement.
    Advertisement,
    /// `lockstep.dev/v1alpha1` Dire.
    Dire,
    /// `gateway.networking.k8s.io/v1` GatewayClass.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io/v1` TCPRoute.
    TcpRoute,
    /// `gateway.networking.k8s.io/v1` UDPRoute.
    UdpRoute,
    /// `v1` Pod: deleted only.
    Pod,
}

/// An object, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace (empty where the kind has none) and name.
    pub name: Name,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Server-side apply of what is ours of an object: `body` without `apiVersion`, `kind` and
    /// name, which follow from the object.
    Apply {
        /// What.
        object: Object,
        /// To its `status`, or to the object.
        status: bool,
        /// The fields that are ours.
        body: Value,
    },
    /// Server-side apply to an object's `status` by another manager than the leader's: what this
    /// balancer alone knows. Every balancer does these, leader or not. An empty body takes back
    /// what the manager has written.
    Part {
        /// What.
        object: Object,
        /// The field manager.
        manager: String,
        /// The fields that are this manager's.
        body: Value,
    },
    /// Server-side apply of annotations to an object, by a manager of their own: the object may be
    /// one that the leader has made, and would be without all else.
    Annotate {
        /// What.
        object: Object,
        /// Its `metadata`, with the annotations that are ours.
        body: Value,
    },
    /// Deletes this very object.
    Delete {
        /// What.
        object: Object,
        /// Its uid.
        uid: String,
    },
    /// Tells of something (`events.k8s.io/v1`).
    Event(Event),
}

/// Something to tell of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Of which.
    pub about: Object,
    /// Its uid.
    pub uid: String,
    /// Whether somebody has to do something.
    pub warning: bool,
    /// `IPAllocated`, `AllocationFailed`, ...
    pub reason: &'static str,
    /// What was done or tried, one word: `Allocate`, `Release`, ...
    pub action: &'static str,
    /// A sentence; of a warning it says what to do.
    pub note: String,
}
