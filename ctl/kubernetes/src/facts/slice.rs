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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(over: &Value) -> Slice {
        let mut object = json!({
            "metadata": {
                "namespace": "shop", "name": "web-x7k2p",
                "labels": { SERVICE_LABEL: "web" },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [{ "addresses": ["10.0.0.1"] }],
        });
        for (key, value) in over.as_object().unwrap() {
            object[key] = value.clone();
        }
        let object: api::EndpointSlice = serde_json::from_value(object).unwrap();
        Slice::from(&object)
    }

    #[test]
    fn a_slice_is_that_of_the_service_in_its_label() {
        let web = slice(&json!({}));
        assert_eq!(web.name, Name::new("shop", "web-x7k2p"));
        assert_eq!(web.service, Some(Name::new("shop", "web")));
        let nobodys = slice(&json!({ "metadata": { "namespace": "shop", "name": "x" } }));
        assert_eq!(nobodys.service, None);
    }

    #[test]
    fn conditions_that_are_not_there_mean_ready_and_staying() {
        let rows = [
            (json!(null), (true, true, false)),
            (json!({}), (true, true, false)),
            (json!({ "ready": false }), (false, true, false)),
            (json!({ "serving": false }), (true, false, false)),
            (
                json!({ "ready": false, "serving": true, "terminating": true }),
                (false, true, true),
            ),
        ];
        for (conditions, expected) in rows {
            let mut endpoint = json!({ "addresses": ["10.0.0.1"] });
            if !conditions.is_null() {
                endpoint["conditions"] = conditions.clone();
            }
            let slice = slice(&json!({ "endpoints": [endpoint] }));
            let Endpoint {
                ready,
                serving,
                terminating,
                ..
            } = slice.endpoints[0];
            assert_eq!((ready, serving, terminating), expected, "{conditions}");
        }
    }

    #[test]
    fn only_first_addresses_that_are_addresses_count() {
        let endpoints = json!([
            { "addresses": ["10.0.0.1", "10.0.0.2"] },
            { "addresses": [] },
            { "addresses": ["web.example", "10.0.0.3"] },
        ]);
        let web = slice(&json!({ "endpoints": endpoints }));
        let addresses: Vec<IpAddr> = web.endpoints.iter().map(|e| e.address).collect();
        assert_eq!(addresses, [IpAddr::from([10, 0, 0, 1])]);
        let names = slice(&json!({ "addressType": "FQDN", "endpoints": endpoints }));
        assert_eq!((names.family, names.endpoints), (None, Vec::new()));
        let v6 = slice(&json!({ "addressType": "IPv6" }));
        assert_eq!(v6.family, Some(Family::V6));
        let empty = slice(&json!({ "endpoints": null, "ports": null }));
        assert_eq!((empty.endpoints.len(), empty.ports.len()), (0, 0));
    }

    #[test]
    fn an_endpoint_says_where_it_is_and_which_pod() {
        let endpoint = json!({
            "addresses": ["10.0.0.1"],
            "nodeName": "n1",
            "hints": { "forZones": [{ "name": "a" }, { "name": "b" }] },
            "targetRef": { "kind": "Pod", "name": "web-1" },
        });
        let web = slice(&json!({ "endpoints": [endpoint] }));
        let found = &web.endpoints[0];
        assert_eq!(found.node.as_deref(), Some("n1"));
        assert_eq!(found.pod.as_deref(), Some("web-1"));
        let zones: Vec<&str> = found.zones.iter().map(|z| &**z).collect();
        assert_eq!(zones, ["a", "b"]);
        let node =
            json!({ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Node", "name": "n1" } });
        let web = slice(&json!({ "endpoints": [node] }));
        assert_eq!(web.endpoints[0].pod, None);
    }

    #[test]
    fn ports_without_a_number_or_a_protocol_have_the_defaults() {
        let ports = json!([
            { "name": "", "port": 53, "protocol": "UDP" },
            { "protocol": null },
            { "name": "sig", "port": 70000, "protocol": "SCTP" },
        ]);
        let web = slice(&json!({ "ports": ports }));
        let said = web
            .ports
            .iter()
            .map(|p| (p.name.as_str(), p.protocol, p.port));
        let said: Vec<_> = said.collect();
        let expected = [
            ("", Protocol::Udp, Some(53)),
            ("", Protocol::Tcp, None),
            ("sig", Protocol::Other, None),
        ];
        assert_eq!(said, expected);
    }
}
