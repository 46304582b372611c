//! A Service.

use super::{Family, Name, Protocol};
use crate::annotations;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api_meta;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// What of a Service decides something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// So that events are about this one and no later one of the name.
    pub uid: String,
    /// Its `resourceVersion`: what is decided about this version is not written to a later one.
    pub version: String,
    /// When it was made, in seconds since 1970: of two that want one address the older one has it.
    pub created: i64,
    /// Whether it is about to go.
    pub deleting: bool,
    /// Whether it is of type LoadBalancer.
    pub load_balancer: bool,
    /// Its `loadBalancerClass`.
    pub class: Option<String>,
    /// Annotations that begin with [`annotations::PREFIX`].
    pub annotations: BTreeMap<String, String>,
    /// Its labels, which pools select by.
    pub labels: BTreeMap<String, String>,
    /// `spec.loadBalancerIP`, as it stands there.
    pub address: Option<String>,
    /// The families it asks for; the first one is the preferred one.
    pub families: Vec<Family>,
    /// Whether it may have, or has to have, both.
    pub family_policy: FamilyPolicy,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalTrafficPolicy: Local`: only backends on the balancer's own node.
    pub local: bool,
    /// Where others ask whether this node has backends of it.
    pub health_check_port: Option<u16>,
    /// `sessionAffinity: ClientIP`, and for how long.
    pub affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`, as they stand there.
    pub source_ranges: Vec<String>,
    /// Whether endpoints that are not ready serve too.
    pub publish_not_ready: bool,
    /// The addresses in its status.
    pub ingress: Vec<Ingress>,
    /// Conditions of its status, by type.
    pub conditions: BTreeMap<String, Condition>,
    /// The field managers of ours, of whatever installation, that have something in its status.
    pub written_by: BTreeSet<String>,
    /// Those that have its [`annotations::ALLOCATED_FROM`].
    pub annotated_by: BTreeSet<String>,
}

/// A condition of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when the status is that, as it stands there.
    pub since: String,
}

/// Which families a Service may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FamilyPolicy {
    /// One.
    #[default]
    Single,
    /// Both where there are both.
    Prefer,
    /// Both or nothing.
    Require,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name; empty where it is the only one.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port clients connect to.
    pub port: u16,
}

/// An address in the status of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// The address.
    pub address: IpAddr,
    /// `VIP` or `Proxy`.
    pub mode: Option<String>,
    /// Ports with what is wrong with them.
    pub ports: Vec<(u16, Protocol, Option<String>)>,
}

impl From<&api::Service> for Service {
    fn from(object: &api::Service) -> Self {
        let meta = &object.metadata;
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let name = Name::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let ours = |(key, _): &(&String, &String)| key.starts_with(annotations::PREFIX);
        let annotations = meta.annotations.iter().flatten().filter(ours);
        let ports = spec.ports.unwrap_or_default();
        let ports = ports.into_iter().filter_map(|port| {
            Some(ServicePort {
                protocol: Protocol::of(port.protocol.as_deref()),
                port: u16::try_from(port.port).ok()?,
                name: port.name.unwrap_or_default(),
            })
        });
        let families = spec.ip_families.unwrap_or_default();
        let families = families.iter().map(|family| match family.as_str() {
            "IPv6" => Family::V6,
            _ => Family::V4,
        });
        let affinity = spec.session_affinity_config.and_then(|c| c.client_ip);
        let seconds = affinity.and_then(|c| c.timeout_seconds).unwrap_or(10_800);
        let sticks = spec.session_affinity.as_deref() == Some("ClientIP");
        let conditions = status.conditions.unwrap_or_default().into_iter();
        let balancer = status.load_balancer.and_then(|b| b.ingress);
        let annotation = format!(
            "/f:metadata/f:annotations/f:{}",
            annotations::ALLOCATED_FROM
        );
        let annotation = annotation.replace("f:lockstep.dev/", "f:lockstep.dev~1");
        Service {
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            written_by: managers(
                meta,
                &["/f:status/f:loadBalancer", "/f:status/f:conditions"],
            ),
            annotated_by: managers(meta, &[&annotation]),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            deleting: meta.deletion_timestamp.is_some(),
            load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
            class: spec.load_balancer_class,
            annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
            labels: meta.labels.clone().unwrap_or_default(),
            address: spec.load_balancer_ip.filter(|text| !text.is_empty()),
            families: families.collect(),
            family_policy: match spec.ip_family_policy.as_deref() {
                Some("PreferDualStack") => FamilyPolicy::Prefer,
                Some("RequireDualStack") => FamilyPolicy::Require,
                _ => FamilyPolicy::Single,
            },
            ports: ports.collect(),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_port: spec
                .health_check_node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            affinity: sticks.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
            source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            ingress: balancer.iter().flatten().filter_map(ingress).collect(),
            conditions: conditions.map(condition).collect(),
            name,
        }
    }
}

/// The managers of ours that have one of these fields.
fn managers(meta: &api_meta::ObjectMeta, paths: &[&str]) -> BTreeSet<String> {
    let entries = meta.managed_fields.iter().flatten();
    let has = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        let at = |path: &&str| fields.is_some_and(|fields| fields.0.pointer(path).is_some());
        paths.iter().any(at)
    });
    let names = has.filter_map(|entry| entry.manager.as_deref());
    let ours = names.filter(|name| name.starts_with(crate::FIELD_MANAGER));
    ours.map(str::to_owned).collect()
}

fn condition(object: api_meta::Condition) -> (String, Condition) {
    let condition = Condition {
        since: object.last_transition_time.0.to_string(),
        status: object.status,
        reason: object.reason,
        message: object.message,
    };
    (object.type_, condition)
}

fn ingress(object: &api::LoadBalancerIngress) -> Option<Ingress> {
    let ports = object.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        let protocol = Protocol::of(Some(&port.protocol));
        Some((number, protocol, port.error.clone()))
    });
    Some(Ingress {
        address: object.ip.as_ref()?.parse().ok()?,
        mode: object.ip_mode.clone(),
        ports: ports.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(object: Value) -> Service {
        let object: api::Service = serde_json::from_value(object).unwrap();
        Service::from(&object)
    }

    #[test]
    fn what_is_kept_of_a_service() {
        let web = service(json!({
            "metadata": {
                "namespace": "shop", "name": "web", "uid": "u1",
                "creationTimestamp": "1970-01-02T00:00:00Z",
                "labels": { "app": "web" },
                "annotations": { "lockstep.dev/mode": "nat", "example.com/other": "x" },
                "resourceVersion": "17",
                "managedFields": [
                    { "manager": "lockstepd", "operation": "Apply", "subresource": "status",
                      "fieldsV1": { "f:status": { "f:loadBalancer": {} } } },
                    { "manager": "lockstepd-annotations", "operation": "Apply", "fieldsV1": {
                        "f:metadata": { "f:annotations": {
                            "f:lockstep.dev/ip-allocated-from-pool": {} } } } },
                    { "manager": "kubectl", "operation": "Update", "fieldsV1": {
                        "f:status": {}, "f:metadata": { "f:annotations": {
                            "f:lockstep.dev/ip-allocated-from-pool": {} } } } },
                ],
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "lockstep.dev/xdp",
                "loadBalancerIP": "203.0.113.9",
                "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack",
                "ports": [{ "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
                "externalTrafficPolicy": "Local", "healthCheckNodePort": 30123,
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
                "publishNotReadyAddresses": true,
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "203.0.113.1", "ipMode": "VIP", "ports": [
                    { "port": 80, "protocol": "TCP", "error": "lockstep.dev/PortTaken" },
                ] },
                { "hostname": "web.example" },
            ] } },
        }));
        assert_eq!(web.name, Name::new("shop", "web"));
        assert_eq!((web.uid.as_str(), web.created), ("u1", 86_400));
        assert_eq!(web.version, "17");
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(web.written_by, set("lockstepd"));
        assert_eq!(web.annotated_by, set("lockstepd-annotations"));
        assert!(web.load_balancer && !web.deleting && web.local && web.publish_not_ready);
        assert_eq!(web.class.as_deref(), Some(crate::CLASS));
        let annotations: Vec<&str> = web.annotations.keys().map(String::as_str).collect();
        assert_eq!(annotations, ["lockstep.dev/mode"]);
        assert_eq!(web.labels["app"], "web");
        assert_eq!(web.address.as_deref(), Some("203.0.113.9"));
        assert_eq!(web.families, [Family::V6, Family::V4]);
        assert_eq!(web.family_policy, FamilyPolicy::Prefer);
        let ports = web
            .ports
            .iter()
            .map(|p| (p.name.as_str(), p.protocol, p.port));
        let ports: Vec<_> = ports.collect();
        assert_eq!(ports, [("", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)]);
        assert_eq!(web.health_check_port, Some(30_123));
        assert_eq!(web.affinity, Some(Duration::from_secs(60)));
        assert_eq!(web.source_ranges, ["192.0.2.0/24"]);
        assert_eq!(web.ingress.len(), 1);
        assert_eq!(web.ingress[0].mode.as_deref(), Some("VIP"));
        let error = Some("lockstep.dev/PortTaken".to_owned());
        assert_eq!(web.ingress[0].ports, [(80, Protocol::Tcp, error)]);
    }

    #[test]
    fn a_service_that_says_nothing_asks_for_nothing() {
        let bare = service(json!({ "metadata": { "namespace": "shop", "name": "web" } }));
        assert!(!bare.load_balancer && !bare.local && !bare.publish_not_ready && !bare.deleting);
        assert_eq!(
            (bare.class, bare.address, bare.affinity),
            (None, None, None)
        );
        assert_eq!(bare.family_policy, FamilyPolicy::Single);
        assert!(bare.ports.is_empty() && bare.ingress.is_empty());
        // Zero is what the API server writes where there is none; three hours are its default.
        let sticky = service(json!({
            "metadata": { "namespace": "shop", "name": "web" },
            "spec": { "sessionAffinity": "ClientIP", "healthCheckNodePort": 0, "loadBalancerIP": "" },
        }));
        assert_eq!(sticky.affinity, Some(Duration::from_secs(10_800)));
        assert_eq!((sticky.health_check_port, sticky.address), (None, None));
    }
}
