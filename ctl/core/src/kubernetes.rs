//! Kubernetes: from the objects of a cluster to the services of this balancer, and to what the
//! leader writes back. No client in here: objects come in as facts, writes go out as data.
//!
//! Addresses are decided by the leader alone and stand in the status of each Service: what a
//! balancer serves follows from status, whoever leads. There is no other database.

pub mod access;
pub mod advertise;
pub mod allocate;
pub mod backends;
pub mod dire;
#[cfg(test)]
mod fixtures;
pub mod gateway;
pub mod lease;
pub mod names;
pub mod pools;
pub mod selector;
mod settle;
pub mod status;
pub mod translate;
mod verdict;
pub mod world;
pub mod write;

pub use world::{Change, World};
pub use write::Write;

/// What of the configuration decides something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The `loadBalancerClass` of Services that are ours.
    pub class: String,
    /// Also Services without a class.
    pub default_class: bool,
    /// The node this balancer is on, by its name in Kubernetes.
    pub node: Option<String>,
    /// The `controllerName` of GatewayClasses that are ours.
    pub gateway_controller: String,
}
