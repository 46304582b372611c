//! `AddressPool`: addresses that Services may have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Addresses that Services of our class may have.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    status = "AddressPoolStatus",
    shortname = "apool",
    derive = "PartialEq",
    doc = "Addresses that Services of Lockstep's class may have.",
    printcolumn(name = "Auto", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.available"),
    printcolumn(name = "Assigned", type_ = "integer", json_path = ".status.assigned"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Conflict",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Conflict\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// CIDRs (`192.0.2.0/24`, `2001:db8::/120`), ranges (`192.0.2.10-192.0.2.20`) and addresses.
    #[schemars(length(min = 1, max = 256), inner(length(min = 2, max = 80)))]
    #[x_kube(
        validation = Rule::new(
            "self.all(a, isCIDR(a) || isIP(a) || (a.split('-').size() == 2 && \
             a.split('-').all(p, isIP(p)) && ip(a.split('-')[0]).family() == \
             ip(a.split('-')[1]).family()))"
        ).message(
            "each of addresses is a CIDR (192.0.2.0/24), a range of one family \
             (192.0.2.10-192.0.2.20) or an address, without spaces"
        ),
        validation = Rule::new("self.all(a, !isCIDR(a) || cidr(a) == cidr(a).masked())").message(
            "a CIDR of addresses has bits set after its length: write its first address, as in \
             192.0.2.0/24"
        ),
        merge_strategy = ListMerge::Set
    )]
    pub addresses: Vec<String>,
    /// Whether Services that name no pool get addresses of this one.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Whether addresses that end in .0 or .255 are left out: some networks drop them.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// The `loadBalancerClass` of Services that may have its addresses; any of Lockstep's, where none is
    /// named. Of several installations in a cluster each names its own in its pools: only one of them
    /// gives an address then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 317))]
    pub load_balancer_class: Option<String>,
    /// Which Services may have its addresses; all, where nothing is said. Those that it selects get
    /// addresses of it rather than of a pool for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<Selector>,
}

/// Which Services: those of a namespace that is named or has the labels, where one of both is said,
/// and that have the labels themselves.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Namespaces, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Namespaces, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Services, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
}

/// What became of a pool.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The generation this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Addresses that are free, as text: an IPv6 prefix has more than a number holds.
    #[serde(default)]
    pub available: String,
    /// Addresses that Services have.
    #[serde(default)]
    pub assigned: i64,
    /// `Ready`: whether its entries and selectors can be read. `Conflict`: whether another pool has
    /// addresses of it.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
