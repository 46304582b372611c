//! What is kept of the Gateway API's objects (`gateway.networking.k8s.io`): the fields that decide
//! something for TCP and UDP. Fields that are not named here are not read, and those of ours in a
//! status are written by server-side apply, so that nothing of others is lost.

use super::Name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::{ApiResource, GroupVersionKind, NotUsed, Object};
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// A class of Gateways.
pub type GatewayClass = Object<GatewayClassSpec, GatewayClassStatus>;
/// A Gateway.
pub type Gateway = Object<GatewaySpec, GatewayStatus>;
/// A TCPRoute or a UDPRoute: their fields are the same.
pub type Route = Object<RouteSpec, RouteStatus>;
/// Allows routes of one namespace to send to Services of another.
pub type ReferenceGrant = Object<ReferenceGrantSpec, NotUsed>;

/// The kinds, as an API server calls them.
pub mod resources {
    use super::{ApiResource, GROUP, GroupVersionKind};

    fn resource(version: &str, kind: &str, plural: &str) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, kind), plural)
    }

    /// GatewayClasses.
    pub fn gateway_classes() -> ApiResource {
        resource("v1", "GatewayClass", "gatewayclasses")
    }

    /// Gateways.
    pub fn gateways() -> ApiResource {
        resource("v1", "Gateway", "gateways")
    }

    /// TCPRoutes.
    pub fn tcp_routes() -> ApiResource {
        resource("v1", "TCPRoute", "tcproutes")
    }

    /// UDPRoutes.
    pub fn udp_routes() -> ApiResource {
        resource("v1", "UDPRoute", "udproutes")
    }

    /// ReferenceGrants. Every release serves this version of them.
    pub fn reference_grants() -> ApiResource {
        resource("v1beta1", "ReferenceGrant", "referencegrants")
    }
}

/// Of a class: who controls its Gateways.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// The controller.
    pub controller_name: String,
}

/// What became of a class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassStatus {
    /// `Accepted`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a Gateway asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Where clients connect.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// The addresses it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// What its children get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<Infrastructure>,
}

/// A port where clients connect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: i32,
    /// `TCP`, `UDP`, or something that is not balanced here.
    pub protocol: String,
    /// Which routes may be attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// Which routes may be attached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// Of which namespaces; that of the Gateway where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
    /// Of which kinds; those that fit the protocol where nothing is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<RouteKind>,
}

/// Of which namespaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteNamespaces {
    /// `Same`, `All`, `Selector` or `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// With `Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A kind of routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteKind {
    /// Its group; the Gateway API's where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its name.
    pub kind: String,
}

/// An address, asked for or given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// `IPAddress` where none is named.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The address; any where it is empty.
    pub value: String,
}

/// What a Gateway's children get.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// What became of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// The addresses it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// `Accepted`, `Programmed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What became of each listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

/// What became of a listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of routes it takes.
    pub supported_kinds: Vec<RouteKind>,
    /// How many are attached.
    pub attached_routes: i32,
    /// `Accepted`, `Programmed`, `ResolvedRefs`, `Conflicted`.
    pub conditions: Vec<Condition>,
}

/// Where a route's packets come from and go to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSpec {
    /// The Gateways, or their listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// The Services.
    pub rules: Vec<Rule>,
}

/// An object that another one names, and a port of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// Its group, where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind, where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace; the route's where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

impl Reference {
    /// Whether it is of this group and kind, which are those that are meant where none is named.
    pub fn is_of(&self, group: &str, kind: &str) -> bool {
        self.group.as_deref().unwrap_or(group) == group
            && self.kind.as_deref().unwrap_or(kind) == kind
    }

    /// The object, as a route of this namespace names it.
    pub fn named_in(&self, namespace: &str) -> Name {
        Name::new(self.namespace.as_deref().unwrap_or(namespace), &self.name)
    }
}

/// A Gateway, or one of its listeners: by its name, by its port, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// The Gateway.
    #[serde(flatten)]
    pub to: Reference,
    /// The listener; all where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// The Services of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Each with its share.
    pub backend_refs: Vec<BackendRef>,
}

/// A Service, and its share of new flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendRef {
    /// The Service.
    #[serde(flatten)]
    pub to: Reference,
    /// Its share; 1 where none is named, none at 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// What became of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatus {
    /// At each parent, by each controller.
    pub parents: Vec<RouteParentStatus>,
}

/// What became of a route at a parent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentRef,
    /// Who says so.
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// Who may send to what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReferenceGrantSpec {
    /// Who.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Objects of a kind in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantFrom {
    /// Their group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Objects of a kind, or one of them, in the grant's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    /// Their group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
