//! The hive: the pods of a `Dire`'s Deployment, as replicas.

use crate::kubernetes::World;
use crate::kubernetes::selector;
use lockstep_kubernetes::facts::{Name, Pod};
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::most;
use std::net::IpAddr;
use std::sync::Arc;

/// A Dire's Deployment, as far as it is there.
pub enum Hive<'a> {
    /// There is no such Deployment.
    Missing,
    /// It selects nothing that can be found, and why.
    Invalid(String),
    /// It is there.
    Found {
        /// How many pods it is to have.
        wanted: i32,
        /// Its pods, by name.
        replicas: Vec<Replica<'a>>,
        /// Pods that are more than a service may have.
        beyond: usize,
    },
}

impl<'a> Hive<'a> {
    /// Its pods.
    pub fn replicas(&self) -> &[Replica<'a>] {
        match self {
            Hive::Missing | Hive::Invalid(_) => &[],
            Hive::Found { replicas, .. } => replicas,
        }
    }
}

/// A pod as a replica.
pub struct Replica<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Where it is connected to.
    pub address: Option<IpAddr>,
    /// What it is to sessions.
    pub standing: Standing,
}

/// What a pod is to sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes new ones, and joins those that run.
    Active,
    /// It keeps those that it has: it is not ready, or about to end.
    Draining,
    /// It has not begun to run, or has no address yet.
    Pending,
}

/// The pods of a Dire's Deployment, by its selector.
pub fn find<'a>(world: &'a World, name: &Name, dire: &Dire) -> Hive<'a> {
    let hive = Name::new(&name.namespace, &dire.spec.hive_deployment_name);
    let Some(deployment) = world.deployments.get(&hive) else {
        return Hive::Missing;
    };
    if let Some(problem) = selector::problem(&deployment.selector) {
        return Hive::Invalid(problem);
    }
    let first = Name::new(&name.namespace, "");
    let pods = world.pods.range(first..).map(|(_, pod)| pod);
    let pods = pods.take_while(|pod| pod.name.namespace == name.namespace);
    let pods = pods.filter(|pod| !pod.over && selector::matches(&deployment.selector, &pod.labels));
    let mut replicas: Vec<Replica<'a>> = pods.map(replica).collect();
    let beyond = replicas.len().saturating_sub(most::REPLICAS);
    if beyond > 0 {
        // Those that serve stay, and of them always the same ones.
        replicas.sort_by_key(|r| (r.standing != Standing::Active, r.pod.name.clone()));
        replicas.truncate(most::REPLICAS);
        replicas.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
    }
    Hive::Found {
        wanted: deployment.replicas,
        replicas,
        beyond,
    }
}

fn replica(pod: &Arc<Pod>) -> Replica<'_> {
    let address = pod.addresses.first().copied();
    Replica {
        pod,
        address,
        standing: match (address, pod.running, pod.ready && !pod.deleting) {
            (None, _, _) | (_, false, _) => Standing::Pending,
            (Some(_), true, true) => Standing::Active,
            (Some(_), true, false) => Standing::Draining,
        },
    }
}
