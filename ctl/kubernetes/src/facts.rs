//! What is kept of the objects of others: the fields that decide something, parsed once. An object
//! with 20 endpoints takes a kilobyte this way, and not ten.

pub mod gateway;
mod namespace;
mod pod;
mod service;
mod slice;

pub use namespace::{Namespace, Node};
pub use pod::{Deployment, Pod};
pub use service::{Condition, FamilyPolicy, Ingress, Service, ServicePort};
pub use slice::{Endpoint, Slice, SlicePort};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The name of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
}

impl Name {
    /// A name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Name {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Something that is not balanced (SCTP).
    Other,
}

impl Protocol {
    /// Of its name in Kubernetes; TCP where there is none.
    pub fn of(name: Option<&str>) -> Self {
        match name {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => Protocol::Other,
        }
    }
}
