//! `Advertisement`: how the addresses of pools are made known.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the addresses of pools are made known to the network. Addresses of a pool that no
/// Advertisement names are served, and not announced.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "Advertisement",
    status = "AdvertisementStatus",
    shortname = "adv",
    derive = "PartialEq",
    doc = "How the addresses of AddressPools are made known to the network. Addresses of a pool that \
           no Advertisement names are served, and not announced.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.pools"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Peers",
        type_ = "string",
        json_path = ".spec.peers",
        priority = 1
    ),
    printcolumn(
        name = "Interfaces",
        type_ = "string",
        json_path = ".spec.interfaces",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.type == 'L2' || !has(self.interfaces) || self.interfaces.size() == 0")
        .message("interfaces are for type L2 only; BGP goes to peers"),
    validation = Rule::new(
        "self.type == 'BGP' || ((!has(self.peers) || self.peers.size() == 0) && \
         (!has(self.communities) || self.communities.size() == 0) && \
         !has(self.aggregationLength) && !has(self.aggregationLengthV6))"
    ).message("peers, communities and aggregation lengths are for type BGP only")
)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// By routes or on the link.
    #[serde(rename = "type")]
    pub how: AdvertisementType,
    /// The pools, by name; all, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub pools: Vec<String>,
    /// The nodes that announce them; all, where nothing is said. A balancer that is on no node of the
    /// cluster is none of those selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// `L2`: the interfaces to announce them on; those of `lockstepd.toml`, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 15)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub interfaces: Vec<String>,
    /// `BGP`: addresses of the routers to announce them to; all, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 45)))]
    #[x_kube(
        validation = Rule::new("self.all(a, isIP(a))").message(
            "peers are addresses of routers, as in [[bgp.peer]] of lockstepd.toml"
        ),
        merge_strategy = ListMerge::Set
    )]
    pub peers: Vec<String>,
    /// `BGP`: communities of the routes (`64512:100`, `4200000000:1:2`, `rt:64512:100`,
    /// `no-export`), beside those of the router in `lockstepd.toml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 3, max = 40)))]
    #[x_kube(
        validation = Rule::new(
            "self.all(c, c.matches('^((rt:|soo:)?[0-9]{1,5}:[0-9]{1,10}|[0-9]{1,10}(:[0-9]{1,10}){2}|\
             no-export|no-advertise|no-export-subconfed|blackhole|graceful-shutdown)$'))"
        ).message(
            "communities are written 64512:100, 4200000000:1:2, rt:64512:100 or no-export"
        ),
        merge_strategy = ListMerge::Set
    )]
    pub communities: Vec<String>,
    /// `BGP`: the prefix length that IPv4 addresses are announced in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: Option<u8>,
    /// `BGP`: the same of IPv6.
    #[serde(
        default,
        rename = "aggregationLengthV6",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 128))]
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
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementStatus {
    /// The generation this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether all that it names is there and can be read.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests;
