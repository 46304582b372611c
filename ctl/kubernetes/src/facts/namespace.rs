//! Namespaces and nodes: what selectors ask of them.

use k8s_openapi::api::core::v1 as api;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl From<&api::Namespace> for Namespace {
    fn from(object: &api::Namespace) -> Self {
        Namespace {
            name: object.metadata.name.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// The zone it is in.
    pub fn zone(&self) -> Option<&str> {
        let zone = self.labels.get("topology.kubernetes.io/zone");
        zone.map(String::as_str)
    }
}

impl From<&api::Node> for Node {
    fn from(object: &api::Node) -> Self {
        Node {
            name: object.metadata.name.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
        }
    }
}
