//! An EndpointSlice.

use super::{Family, Name, Protocol};
use k8s_openapi::api::discovery::v1 as api;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// The label that says whose slice it is.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Some endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its name.
    pub name: Name,
    /// The Service it belongs to; a slice without one is nobody's.
    pub service: Option<Name>,
    /// The family of its addresses; `None` where they are host names (FQDN), which are skipped.
    pub family: Option<Family>,
    /// The ports that each endpoint has.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of the endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// The name of the Service's port.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port; any, where there is none.
    pub port: Option<u16>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its first address. All are fungible.
    pub address: IpAddr,
    /// Whether it is to get new flows.
    pub ready: bool,
    /// Whether it answers.
    pub serving: bool,
    /// Whether it is about to end.
    pub terminating: bool,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// The zones it is meant to serve, where there are hints.
    pub zones: Vec<Arc<str>>,
    /// The pod it is.
    pub pod: Option<Arc<str>>,
}

impl From<&api::EndpointSlice> for Slice {
    fn from(object: &api::EndpointSlice) -> Self {
        let meta = &object.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let labels = meta.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_LABEL));
        let ports = object.ports.iter().flatten().map(|port| SlicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::of(port.protocol.as_deref()),
            port: port.port.and_then(|port| u16::try_from(port).ok()),
        });
        let family = match object.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let endpoints = object.endpoints.iter().flatten().filter_map(endpoint);
        Slice {
            name: Name::new(namespace, meta.name.as_deref().unwrap_or_default()),
            service: service.map(|service| Name::new(namespace, service)),
            family,
            ports: ports.collect(),
            endpoints: match family {
                Some(_) => endpoints.collect(),
                None => Vec::new(),
            },
        }
    }
}

fn endpoint(object: &api::Endpoint) -> Option<Endpoint> {
    let conditions = object.conditions.clone().unwrap_or_default();
    let hints = object.hints.iter().flat_map(|hints| hints.for_zones.iter());
    let pod = object.target_ref.as_ref();
    let pod = pod.filter(|target| target.kind.as_deref() == Some("Pod"));
    Some(Endpoint {
        address: object.addresses.first()?.parse().ok()?,
        // Nothing said means yes, and of ending no (EndpointConditions).
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: object.node_name.as_deref().map(Arc::from),
        zones: hints
            .flatten()
            .map(|z| Arc::from(z.name.as_str()))
            .collect(),
        pod: pod.and_then(|target| target.name.as_deref().map(Arc::from)),
    })
}
