//! What the daemon asks of the API server: the roles of the chart allow this and no more, `lockstep
//! kubernetes check` asks for each of it, and tests compare the daemon with it.

use super::write::Kind;

/// Who needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Every daemon.
    Every,
    /// Those that may lead (`lead` in `[kubernetes]`).
    Leader,
}

/// Something that is done to objects of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Who does it.
    pub who: Who,
    /// The API group; empty for the core one.
    pub group: &'static str,
    /// The resource, with its subresource: `services/status`.
    pub resource: &'static str,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// The only objects of it, where not all.
    pub names: &'static [&'static str],
    /// Whether only objects in the Lease's namespace.
    pub own_namespace: bool,
    /// What for.
    pub why: &'static str,
}

/// The group of the Gateway API: asked for only where `gateway_controller` is set.
pub const GATEWAY: &str = "gateway.networking.k8s.io";

/// Our resources' group.
const OURS: &str = lockstep_kubernetes::GROUP;

/// What is followed.
const READ: &[&str] = &["list", "watch"];

/// The names of our CustomResourceDefinitions.
pub const DEFINITIONS: &[&str] = &[
    "addresspools.lockstep.dev",
    "advertisements.lockstep.dev",
    "dires.lockstep.dev",
];

/// The ConfigMap of the chart with each node's topology.
pub const TOPOLOGIES: &str = "lockstep-topology";

const fn every(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Access {
    Access {
        who: Who::Every,
        group,
        resource,
        verbs,
        names: &[],
        own_namespace: false,
        why,
    }
}

const fn leader(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Access {
    Access {
        who: Who::Leader,
        ..every(group, resource, verbs, why)
    }
}

/// All of it.
pub const ACCESS: &[Access] = &[
    every("", "services", READ, "what is served"),
    every("", "namespaces", READ, "selectors of pools"),
    every(
        "",
        "nodes",
        READ,
        "the zone of a node, and selectors of advertisements",
    ),
    every("", "pods", READ, "the replicas of Dires"),
    every("apps", "deployments", READ, "the pods of a Dire"),
    every("discovery.k8s.io", "endpointslices", READ, "backends"),
    every(OURS, "addresspools", READ, "addresses of Services"),
    every(OURS, "advertisements", READ, "what is announced, and how"),
    every(OURS, "dires", READ, "replicated services"),
    every(
        OURS,
        "dires/status",
        &["patch"],
        "what the engine of this node says of sessions",
    ),
    every(GATEWAY, "gatewayclasses", READ, "the Gateway API"),
    every(GATEWAY, "gateways", READ, "the Gateway API"),
    every(GATEWAY, "tcproutes", READ, "the Gateway API"),
    every(GATEWAY, "udproutes", READ, "the Gateway API"),
    every(GATEWAY, "referencegrants", READ, "the Gateway API"),
    leader(
        "",
        "services/status",
        &["patch"],
        "the addresses of Services",
    ),
    leader(
        "",
        "services",
        &["create", "patch", "get", "delete"],
        "Services of Dires and Gateways, which pool an address is from, and what a Service has kept \
         that is of another type now",
    ),
    leader(
        "",
        "pods",
        &["patch", "delete"],
        "services of a Dire's own distributor, and stopEvicted",
    ),
    leader(
        "apps",
        "deployments",
        &["create", "patch", "delete"],
        "a Dire's own distributor",
    ),
    leader(
        OURS,
        "addresspools/status",
        &["patch"],
        "what pools have left",
    ),
    leader(
        OURS,
        "advertisements/status",
        &["patch"],
        "what is wrong with them",
    ),
    leader(OURS, "dires/status", &["patch"], "their state"),
    leader(
        GATEWAY,
        "gatewayclasses/status",
        &["patch"],
        "the Gateway API",
    ),
    leader(GATEWAY, "gateways/status", &["patch"], "the Gateway API"),
    leader(GATEWAY, "tcproutes/status", &["patch"], "the Gateway API"),
    leader(GATEWAY, "udproutes/status", &["patch"], "the Gateway API"),
    leader(
        "events.k8s.io",
        "events",
        &["create", "patch"],
        "what happened, for people",
    ),
    Access {
        own_namespace: true,
        ..leader(
            "coordination.k8s.io",
            "leases",
            &["get", "create", "update"],
            "who leads",
        )
    },
    Access {
        names: DEFINITIONS,
        ..leader(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            &["get"],
            "lockstep kubernetes check",
        )
    },
    Access {
        names: &[TOPOLOGIES],
        own_namespace: true,
        ..leader("", "configmaps", &["get"], "lockstep kubernetes check")
    },
];

/// What is done to objects of a kind that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Server-side apply to an object that is there.
    Apply,
    /// The same to one that may not be there, which makes it.
    Make,
    /// Server-side apply to its status.
    Status,
    /// Deletion.
    Delete,
    /// One of which no more is told is looked at.
    Look,
}

/// The ways in which objects of a kind are written.
pub const fn ways(kind: Kind) -> &'static [Way] {
    match kind {
        Kind::Service => &[Way::Make, Way::Status, Way::Delete, Way::Look],
        Kind::Deployment => &[Way::Make, Way::Delete],
        Kind::Pod => &[Way::Apply, Way::Delete],
        Kind::ConfigMap => &[],
        Kind::AddressPool | Kind::Advertisement | Kind::Dire => &[Way::Status],
        Kind::GatewayClass | Kind::Gateway | Kind::TcpRoute | Kind::UdpRoute => &[Way::Status],
    }
}

impl Way {
    /// The verbs that it takes.
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Way::Apply | Way::Status => &["patch"],
            Way::Make => &["create", "patch"],
            Way::Delete => &["delete"],
            Way::Look => &["get"],
        }
    }
}

impl Access {
    /// Whether a daemon needs it that may lead, or not, and has the Gateway API or not.
    pub fn is_needed(&self, leads: bool, gateways: bool) -> bool {
        (leads || self.who == Who::Every) && (gateways || self.group != GATEWAY)
    }

    /// As `kubectl auth can-i` has it: `services/status`, `leases.coordination.k8s.io`.
    pub fn name(&self) -> String {
        let (plain, sub) = match self.resource.split_once('/') {
            Some((plain, sub)) => (plain, format!("/{sub}")),
            None => (self.resource, String::new()),
        };
        match self.group {
            "" => self.resource.to_owned(),
            group => format!("{plain}.{group}{sub}"),
        }
    }
}
