//! `Advertisement`: how the addresses of pools are made known.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the addresses of pools are made known to the network. Addresses of a pool that no
/// Advertisement names are served, and not announced.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "Advertisement",
    status = "AdvertisementStatus",
    shortname = "adv"
)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// By routes or on the link.
    #[serde(rename = "type")]
    pub how: AdvertisementType,
    /// The pools, by name; all, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// The nodes that announce them; all, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// `L2`: the interfaces to announce them on; those of `lockstepd.toml`, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// `BGP`: addresses of the routers to announce them to; all, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// `BGP`: communities of the routes (`64512:100`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// `BGP`: the prefix length that IPv4 addresses are announced in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation_length: Option<u8>,
    /// `BGP`: the same of IPv6.
    #[serde(
        default,
        rename = "aggregationLengthV6",
        skip_serializing_if = "Option::is_none"
    )]
    pub aggregation_length_v6: Option<u8>,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdvertisementType {
    /// By routes.
    #[serde(rename = "BGP")]
    Bgp,
    /// On the link: ARP and ND.
    L2,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementStatus {
    /// The generation this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
