//! Who gets which address.

use super::*;
use crate::kubernetes::fixtures::{Cluster, annotations_of, name};
use serde_json::{Value, json};

mod properties;
mod shared;

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.pool("a", &["192.0.2.1-192.0.2.4"]);
    cluster
}

fn families(policy: &str, families: &[&str]) -> Value {
    json!({ "spec": { "ipFamilyPolicy": policy, "ipFamilies": families } })
}

/// Why a Service does not have what it asks for.
fn refusal(cluster: &Cluster, text: &str) -> (&'static str, String) {
    let refusal = cluster.allocation().refused[&name(text)].clone();
    (refusal.reason, refusal.message)
}

#[track_caller]
fn refused(cluster: &Cluster, text: &str, reason: &str, part: &str) {
    let (is, message) = refusal(cluster, text);
    assert_eq!(is, reason, "{message}");
    assert!(message.contains(part), "{part:?} is not in {message:?}");
}

#[test]
fn each_service_gets_the_first_free_address_the_oldest_first() {
    let mut cluster = cluster();
    cluster.service("b", json!({})).service("a", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("b"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("a"), "192.0.2.2 (a)");
}

#[test]
fn of_the_same_age_the_name_decides() {
    let time = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" } });
    let mut cluster = cluster();
    cluster.service("b", time.clone()).service("a", time);
    cluster.settle();
    assert_eq!(cluster.has("a"), "192.0.2.1 (a)");
}

#[test]
fn only_services_of_ours_get_any() {
    let mut cluster = cluster();
    cluster
        .service("cluster-ip", json!({ "spec": { "type": "ClusterIP" } }))
        .service(
            "other",
            json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
        )
        .service("none", json!({ "spec": { "loadBalancerClass": null } }))
        .service(
            "going",
            json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
        );
    assert_eq!(cluster.allocation(), Allocation::default());
    assert_eq!(cluster.settle().len(), 0);
}

#[test]
fn what_a_status_says_stays_whoever_else_comes() {
    let mut cluster = cluster();
    cluster.service("old", json!({}));
    cluster.settle();
    // Younger, and already has the first address; the older one comes back without.
    cluster.service("young", json!({}));
    cluster.settle();
    cluster.edit("old", json!({ "status": null }));
    cluster.settle();
    assert_eq!(cluster.has("young"), "192.0.2.2 (a)");
    assert_eq!(cluster.has("old"), "192.0.2.1 (a)");
}

#[test]
fn what_another_balancer_left_behind_is_not_taken_over_unless_a_pool_has_it() {
    let status = |ip: &str| json!({ "status": { "loadBalancer": { "ingress": [{ "ip": ip }] } } });
    let mut cluster = cluster();
    cluster
        .service("node-port", status("10.0.0.1"))
        .service("moved", status("192.0.2.3"));
    cluster.settle();
    assert_eq!(cluster.has("moved"), "192.0.2.3 (a)");
    assert_eq!(cluster.has("node-port"), "192.0.2.1 (a)");
}

#[test]
fn an_address_that_another_ones_service_has_is_not_free() {
    let mut cluster = cluster();
    let metallb = json!({
        "spec": { "loadBalancerClass": "metallb" },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
    });
    cluster
        .service("theirs", metallb)
        .service("ours", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("ours"), "192.0.2.2 (a)");
    assert_eq!(cluster.has("theirs"), "192.0.2.1");
}

#[test]
fn addresses_and_pools_that_are_asked_for() {
    let mut cluster = cluster();
    cluster
        .pool_with(
            "b",
            json!({ "addresses": ["198.51.100.1"], "autoAssign": false }),
        )
        .annotated("by-annotation", &[("load-balancer-ips", "192.0.2.2")])
        .service(
            "by-field",
            json!({ "spec": { "loadBalancerIP": "192.0.2.1" } }),
        )
        .annotated("by-pool", &[("address-pool", "b")])
        .service("any", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("by-annotation"), "192.0.2.2 (a)");
    assert_eq!(cluster.has("by-field"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("by-pool"), "198.51.100.1 (b)");
    assert_eq!(cluster.has("any"), "192.0.2.3 (a)");
}

#[test]
fn who_asks_for_an_address_comes_before_those_to_whom_any_is_right() {
    let mut cluster = cluster();
    cluster
        .service("any", json!({}))
        .annotated("this", &[("load-balancer-ips", "192.0.2.1")]);
    cluster.settle();
    assert_eq!(cluster.has("this"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("any"), "192.0.2.2 (a)");
}

#[test]
fn of_two_that_ask_for_one_address_the_older_one_gets_it_and_the_other_one_after_it() {
    let mut cluster = cluster();
    let this = [("load-balancer-ips", "192.0.2.1")];
    cluster.annotated("z", &this).annotated("a", &this);
    cluster.settle();
    assert_eq!(cluster.has("z"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("a"), "");
    refused(
        &cluster,
        "a",
        "AddressTaken",
        "192.0.2.1 is Service default/z's; ask for another",
    );
    cluster.services.remove(&name("z"));
    cluster.settle();
    assert_eq!(cluster.has("a"), "192.0.2.1 (a)");
}

#[test]
fn requests_that_cannot_be_fulfilled_say_what_to_do() {
    let dispute = |cluster: &mut Cluster| {
        cluster
            .pool("x", &["203.0.113.1"])
            .pool("y", &["203.0.113.1"]);
    };
    for (annotations, spec, reason, part) in [
        (
            &[("load-balancer-ips", "192.0.2.x")][..],
            json!({}),
            "InvalidRequest",
            "is not an address",
        ),
        (
            &[("load-balancer-ips", "192.0.2.1,192.0.2.2")],
            json!({}),
            "InvalidRequest",
            "of one family",
        ),
        (
            &[("load-balancer-ips", "192.0.2.1")],
            json!({ "loadBalancerIP": "192.0.2.1" }),
            "InvalidRequest",
            "both spec.loadBalancerIP and",
        ),
        (
            &[("load-balancer-ips", "2001:db8::1")],
            json!({}),
            "InvalidRequest",
            "which has IPv4; ask",
        ),
        (
            &[("load-balancer-ips", "192.0.2.9")],
            json!({}),
            "OutsideEveryPool",
            "add it to one",
        ),
        (
            &[("load-balancer-ips", "203.0.113.1")],
            json!({}),
            "PoolConflict",
            "take 203.0.113.1 out",
        ),
        (
            &[("address-pool", "none")],
            json!({}),
            "PoolNotFound",
            "ask for one of: a, closed, x, y",
        ),
        (
            &[("address-pool", "closed")],
            json!({}),
            "PoolNotAllowed",
            "change its serviceSelector",
        ),
        (
            &[("address-pool", "x")],
            json!({}),
            "PoolExhausted",
            "those that another pool has too",
        ),
        (
            &[("address-pool", "x"), ("load-balancer-ips", "192.0.2.1")],
            json!({}),
            "InvalidRequest",
            "is in AddressPool a, and the annotation asks for x",
        ),
    ] {
        let mut cluster = cluster();
        dispute(&mut cluster);
        let closed =
            json!({ "addresses": ["198.51.100.1"], "serviceSelector": { "namespaces": ["x"] } });
        cluster
            .pool_with("closed", closed)
            .annotated("web", annotations);
        cluster.edit("web", json!({ "spec": spec }));
        cluster.settle();
        assert_eq!(cluster.has("web"), "", "{annotations:?}");
        refused(&cluster, "web", reason, part);
    }
}

#[test]
fn an_address_that_a_pool_avoids_is_neither_given_nor_had_by_asking() {
    let mut cluster = Cluster::default();
    let spec = json!({ "addresses": ["192.0.2.255-192.0.3.1"], "avoidBuggyIPs": true });
    cluster
        .pool_with("a", spec)
        .service("any", json!({}))
        .annotated("this", &[("load-balancer-ips", "192.0.2.255")]);
    cluster.settle();
    assert_eq!(cluster.has("any"), "192.0.3.1 (a)");
    refused(&cluster, "this", "AddressAvoided", "avoidBuggyIPs");
}

#[test]
fn a_pool_that_runs_out_says_so_and_serves_who_waits_once_it_can() {
    let mut cluster = Cluster::default();
    cluster.service("web", json!({}));
    refused(&cluster, "web", "NoPool", "create one");
    cluster.pool_with(
        "a",
        json!({ "addresses": ["192.0.2.1"], "autoAssign": false }),
    );
    refused(&cluster, "web", "NoPool", "set autoAssign");
    cluster.pool("a", &["2001:db8::1"]);
    refused(
        &cluster,
        "web",
        "NoAddressOfFamily",
        "has no IPv4 addresses; add some",
    );
    cluster.pool("a", &["192.0.2.1"]).service("next", json!({}));
    cluster.settle();
    refused(
        &cluster,
        "next",
        "PoolExhausted",
        "AddressPool a has no free IPv4 address left; add",
    );
    cluster.pool("a", &["192.0.2.1-192.0.2.2"]);
    cluster.settle();
    assert_eq!(cluster.has("next"), "192.0.2.2 (a)");
}

#[test]
fn a_pool_that_is_meant_for_a_service_comes_before_those_for_all() {
    let mut cluster = cluster();
    let meant =
        json!({ "addresses": ["198.51.100.1"], "serviceSelector": { "namespaces": ["default"] } });
    cluster
        .pool_with("z", meant)
        .service("web", json!({}))
        .service("more", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("web"), "198.51.100.1 (z)");
    assert_eq!(cluster.has("more"), "192.0.2.1 (a)");
}

#[test]
fn families_as_the_policy_says() {
    let both = &["192.0.2.1-192.0.2.9", "2001:db8::1-2001:db8::9"][..];
    let (v4, v6) = (
        &["192.0.2.1-192.0.2.9"][..],
        &["2001:db8::1-2001:db8::9"][..],
    );
    let (four, six) = (&["IPv4"][..], &["IPv6"][..]);
    let (four_six, six_four) = (&["IPv4", "IPv6"][..], &["IPv6", "IPv4"][..]);
    for (pools, policy, asked, has) in [
        (&[both][..], "SingleStack", four, "192.0.2.1 (p0)"),
        (&[both], "SingleStack", six, "2001:db8::1 (p0)"),
        (
            &[both],
            "PreferDualStack",
            four_six,
            "192.0.2.1 2001:db8::1 (p0)",
        ),
        (
            &[both],
            "PreferDualStack",
            six_four,
            "2001:db8::1 192.0.2.1 (p0)",
        ),
        (&[both], "PreferDualStack", four, "192.0.2.1 (p0)"),
        (&[v4], "PreferDualStack", six_four, "192.0.2.1 (p0)"),
        (
            &[both],
            "RequireDualStack",
            four_six,
            "192.0.2.1 2001:db8::1 (p0)",
        ),
        (&[v4], "RequireDualStack", four_six, ""),
        (&[v6], "SingleStack", four, ""),
        // One of the pools has both; else one of each.
        (&[v4, both], "RequireDualStack", four_six, ""),
        (
            &[v4, v6],
            "RequireDualStack",
            six_four,
            "2001:db8::1 192.0.2.1 (p1, p0)",
        ),
    ] {
        let mut cluster = Cluster::default();
        for (at, pool) in pools.iter().enumerate() {
            cluster.pool(&format!("p{at}"), pool);
        }
        cluster.service("web", families(policy, asked));
        cluster.settle();
        let expected = match pools {
            // They share their IPv4 addresses, so nobody gets those.
            [_, second] if *second == both => String::new(),
            _ => has.to_owned(),
        };
        assert_eq!(
            cluster.has("web"),
            expected,
            "{policy} {asked:?} of {pools:?}"
        );
        assert_eq!(
            cluster.allocation().refused.is_empty(),
            !expected.is_empty()
        );
    }
}

#[test]
fn one_pool_with_both_families_comes_before_two() {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["192.0.2.1"])
        .pool("b", &["198.51.100.1", "2001:db8::1"])
        .service("web", families("RequireDualStack", &["IPv4", "IPv6"]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "198.51.100.1 2001:db8::1 (b)");
}

#[test]
fn require_dual_stack_fails_visibly() {
    let mut cluster = cluster();
    cluster.service("web", families("RequireDualStack", &["IPv4", "IPv6"]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "");
    refused(
        &cluster,
        "web",
        "NoAddressOfFamily",
        "both families, or none",
    );
}

#[test]
fn a_second_family_comes_and_goes_without_moving_the_first() {
    let mut cluster = cluster();
    cluster
        .service("first", json!({}))
        .service("web", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.2 (a)");
    // It asks for both, and there is no second one yet: it keeps what it has, and is told.
    cluster.edit("web", families("RequireDualStack", &["IPv4", "IPv6"]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.2 (a)");
    refused(
        &cluster,
        "web",
        "NoAddressOfFamily",
        "has no IPv6 addresses",
    );
    cluster.pool("six", &["2001:db8::1"]);
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.2 2001:db8::1 (a, six)");
    cluster.edit("web", families("SingleStack", &["IPv4"]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.2 (a)");
}

#[test]
fn one_address_by_name_and_the_other_family_from_the_same_pool() {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["2001:db8::1"])
        .pool("b", &["192.0.2.1-192.0.2.3", "2001:db8:1::1"])
        .service("web", families("RequireDualStack", &["IPv4", "IPv6"]));
    cluster.edit("web", annotations_of(&[("load-balancer-ips", "192.0.2.3")]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.3 2001:db8:1::1 (b)");
}

#[test]
fn a_pool_that_goes_or_shrinks_takes_no_address_from_anybody() {
    let mut cluster = cluster();
    cluster.service("web", json!({}));
    cluster.settle();
    cluster.pool("a", &["192.0.2.2-192.0.2.4"]);
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    let kept = |cluster: &Cluster| {
        cluster.allocation().assigned[&name("web")]
            .kept
            .clone()
            .unwrap()
    };
    assert!(
        kept(&cluster)
            .message
            .contains("no AddressPool has 192.0.2.1 any more; it is kept")
    );
    cluster.pools.clear();
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    // Nobody else gets it while it is kept.
    cluster
        .pool("b", &["192.0.2.1-192.0.2.2"])
        .service("next", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("next"), "192.0.2.2 (b)");
    assert_eq!(cluster.has("web"), "192.0.2.1 (b)");
    let closed = json!({ "addresses": ["192.0.2.1"], "serviceSelector": { "namespaces": ["x"] } });
    cluster.pool_with("b", closed);
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.1 (b)");
    assert!(
        kept(&cluster)
            .message
            .contains("has selectors that leave this Service out now")
    );
}

#[test]
fn pools_in_conflict_take_no_address_from_anybody_and_give_none() {
    let mut cluster = cluster();
    cluster.service("web", json!({}));
    cluster.settle();
    cluster
        .pool("b", &["192.0.2.0/24"])
        .service("next", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    // Outside of what both have.
    assert_eq!(cluster.has("next"), "192.0.2.0 (b)");
}

#[test]
fn another_wish_moves_a_service_once_it_can_be_fulfilled_and_not_before() {
    let mut cluster = cluster();
    cluster.service("web", json!({})).service("next", json!({}));
    cluster.settle();
    cluster.edit("web", annotations_of(&[("load-balancer-ips", "192.0.2.2")]));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    refused(&cluster, "web", "AddressTaken", "default/next");
    cluster.services.remove(&name("next"));
    cluster.settle();
    assert_eq!(cluster.has("web"), "192.0.2.2 (a)");
    // What it let go is free again, after that was written.
    cluster.service("last", json!({}));
    cluster.settle();
    assert_eq!(cluster.has("last"), "192.0.2.1 (a)");
}

#[test]
fn an_address_that_is_let_go_is_given_again_only_after_that_was_written() {
    let mut cluster = Cluster::default();
    cluster.pool("a", &["192.0.2.1"]).pool_with(
        "b",
        json!({ "addresses": ["198.51.100.1"], "autoAssign": false }),
    );
    cluster
        .service("web", json!({}))
        .service("waits", json!({}));
    cluster.settle();
    cluster.edit("web", annotations_of(&[("address-pool", "b")]));
    let first = cluster.allocation();
    assert_eq!(first.assigned[&name("web")].pool, "b");
    assert!(!first.assigned.contains_key(&name("waits")));
    cluster.settle();
    assert_eq!(cluster.has("waits"), "192.0.2.1 (a)");
}

#[test]
fn a_service_that_is_no_longer_for_us_lets_go() {
    for change in [
        json!({ "spec": { "type": "ClusterIP" } }),
        json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
    ] {
        let mut cluster = cluster();
        cluster.service("web", json!({}));
        cluster.settle();
        cluster.edit("web", change);
        let told = cluster.settle();
        assert_eq!(cluster.has("web"), "");
        assert_eq!(told[0].reason, "ClearAssignment");
        cluster.service("next", json!({}));
        cluster.settle();
        assert_eq!(cluster.has("next"), "192.0.2.1 (a)");
    }
}

#[test]
fn what_was_given_stays_while_the_status_that_says_so_is_on_its_way() {
    let mut cluster = cluster();
    cluster.service("b", json!({}));
    let settings = crate::kubernetes::fixtures::settings();
    let first = cluster.allocation();
    let given = |allocation: &Allocation, text: &str| {
        let assigned = allocation.assigned.get(&name(text));
        assigned.map_or(Vec::new(), |assigned| assigned.addresses.clone())
    };
    // An older one asks for an address: alone it would push the younger one on.
    let older = json!({ "metadata": { "creationTimestamp": "2025-01-01T00:00:00Z" } });
    cluster.service("a", older);
    assert_ne!(given(&cluster.allocation(), "b"), given(&first, "b"));
    let second = allocate_after(&cluster.world(), &settings, &first);
    assert_eq!(given(&second, "b"), given(&first, "b"));
    assert_eq!(second.assigned.len(), 2);
    assert_ne!(given(&second, "a"), given(&second, "b"));
    // Not another Service of the name, and not where a status gives it to somebody else.
    let mut other = Cluster::default();
    other.pool("a", &["192.0.2.1-192.0.2.4"]);
    other.service("b", json!({ "metadata": { "uid": "another" } }));
    let wants = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    other.service("c", wants);
    let third = allocate_after(&other.world(), &settings, &first);
    assert_eq!(given(&third, "c"), given(&first, "b"));
    assert_ne!(given(&third, "b"), given(&first, "b"));
    other.edit("b", json!({ "metadata": { "uid": "uid-b" } }));
    let third = allocate_after(&other.world(), &settings, &first);
    assert_ne!(given(&third, "b"), given(&first, "b"));
}
