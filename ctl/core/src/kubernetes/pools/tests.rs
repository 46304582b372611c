//! What pools have.

use super::*;
use crate::kubernetes::fixtures::Cluster;
use lockstep_kubernetes::CLASS;
use proptest::prelude::*;
use serde_json::json;

fn shown(ranges: &[Range]) -> String {
    let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    all.join(" ")
}

#[test]
fn entries_are_cidrs_ranges_and_addresses_of_both_families() {
    for (entries, ranges, size) in [
        (&["192.0.2.0/28"][..], "192.0.2.0/28", 16),
        (&["192.0.2.10-192.0.2.20"], "192.0.2.10-192.0.2.20", 11),
        (&["192.0.2.7"], "192.0.2.7", 1),
        (&["192.0.2.4-192.0.2.7"], "192.0.2.4/30", 4),
        (&["2001:db8::/120"], "2001:db8::/120", 256),
        (&["2001:db8::1-2001:db8::3"], "2001:db8::1-2001:db8::3", 3),
        (&["2001:db8::/64"], "2001:db8::/64", 1 << 64),
        // What touches or overlaps in one pool is one, and counts once.
        (
            &["192.0.2.4/30", "192.0.2.0/30", "192.0.2.2"],
            "192.0.2.0/29",
            8,
        ),
        (&["2001:db8::1", "192.0.2.1"], "192.0.2.1 2001:db8::1", 2),
        (&[" 192.0.2.1 - 192.0.2.2 "], "192.0.2.1-192.0.2.2", 2),
    ] {
        let mut cluster = Cluster::default();
        let pools = Pools::of(&cluster.pool("a", entries).world(), CLASS);
        let pool = pools.get("a").unwrap();
        assert_eq!(pool.problems, [""; 0], "{entries:?}");
        assert_eq!(shown(&pool.ranges), ranges, "{entries:?}");
        assert_eq!(pool.size(), size, "{entries:?}");
    }
}

#[test]
fn an_entry_that_is_none_says_what_to_write_and_the_others_count() {
    for (entry, problem) in [
        ("192.0.2.300", "write one such as \"192.0.2.0/28\""),
        ("192.0.2.0/33", "no address, CIDR or range"),
        ("web", "no address, CIDR or range"),
        ("", "no address, CIDR or range"),
        ("192.0.2.1-", "no address, CIDR or range"),
        ("192.0.2.1-192.0.2.2-192.0.2.3", "no address, CIDR or range"),
        (
            "192.0.2.5/24",
            "write 192.0.2.0/24, or the one address alone",
        ),
        ("192.0.2.9-192.0.2.5", "write 192.0.2.5-192.0.2.9"),
        ("192.0.2.9-2001:db8::1", "write two ranges"),
        ("127.0.0.1", "loopback addresses (127.0.0.0/8)"),
        ("0.0.0.0/0", "the unspecified address"),
        ("239.1.2.3", "multicast addresses"),
        ("255.255.255.255", "the broadcast address"),
        ("::1", "the loopback address"),
        ("ff02::1", "multicast addresses"),
        ("::ffff:192.0.2.1", "IPv4 addresses written as IPv6"),
    ] {
        let mut cluster = Cluster::default();
        let pools = Pools::of(&cluster.pool("a", &[entry, "192.0.2.1"]).world(), CLASS);
        let pool = pools.get("a").unwrap();
        assert_eq!(shown(&pool.ranges), "192.0.2.1", "{entry:?}");
        assert_eq!(pool.problems.len(), 1, "{entry:?}");
        assert!(pool.problems[0].contains(problem), "{}", pool.problems[0]);
    }
}

#[test]
fn what_two_pools_have_is_disputed_in_both_and_the_rest_is_not() {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["192.0.2.0/28", "2001:db8::/64"])
        .pool("b", &["192.0.2.14-192.0.2.20"])
        .pool("c", &["192.0.2.15", "198.51.100.1"])
        .pool("d", &["203.0.113.0/24"]);
    let pools = Pools::of(&cluster.world(), CLASS);
    let overlaps = |name: &str| -> Vec<String> {
        let all = &pools.get(name).unwrap().overlaps;
        all.iter()
            .map(|(other, r)| format!("{other} {r}"))
            .collect()
    };
    assert_eq!(overlaps("a"), ["b 192.0.2.14/31", "c 192.0.2.15"]);
    assert_eq!(overlaps("b"), ["a 192.0.2.14/31", "c 192.0.2.15"]);
    assert_eq!(overlaps("c"), ["a 192.0.2.15", "b 192.0.2.15"]);
    assert_eq!(overlaps("d"), [""; 0]);
    let undisputed = |name: &str| shown(&pools.get(name).unwrap().undisputed);
    assert_eq!(undisputed("a"), "192.0.2.0-192.0.2.13 2001:db8::/64");
    assert_eq!(undisputed("b"), "192.0.2.16-192.0.2.20");
    assert_eq!(undisputed("c"), "198.51.100.1");
}

#[test]
fn addresses_that_networks_drop_are_not_counted_where_they_are_avoided() {
    for (entry, size) in [
        ("192.0.2.0/24", 254),
        ("10.0.0.0/16", 65_536 - 512),
        ("192.0.2.255-192.0.3.0", 0),
        ("192.0.2.254-192.0.3.1", 2),
        ("2001:db8::/120", 256),
    ] {
        let mut cluster = Cluster::default();
        let spec = json!({ "addresses": [entry], "avoidBuggyIPs": true });
        let pools = Pools::of(&cluster.pool_with("a", spec).world(), CLASS);
        let pool = pools.get("a").unwrap();
        assert_eq!(pool.size(), size, "{entry}");
    }
}

#[test]
fn a_selector_takes_namespaces_by_name_or_label_and_services_by_label() {
    let labels = |key: &str| json!({ "matchLabels": { key: "yes" } });
    for (selector, admits) in [
        (json!({}), true),
        (json!({ "namespaces": ["default"] }), true),
        (json!({ "namespaces": ["other"] }), false),
        (json!({ "namespaceSelector": labels("team") }), true),
        (json!({ "namespaceSelector": labels("else") }), false),
        (
            json!({ "namespaces": ["other"], "namespaceSelector": labels("team") }),
            true,
        ),
        (json!({ "serviceSelector": labels("public") }), true),
        (json!({ "serviceSelector": labels("private") }), false),
        (
            json!({ "namespaces": ["other"], "serviceSelector": labels("public") }),
            false,
        ),
        (
            json!({ "serviceSelector": { "matchExpressions": [{ "key": "public", "operator": "Is" }] } }),
            false,
        ),
    ] {
        let mut cluster = Cluster::default();
        cluster
            .pool_with("a", json!({ "addresses": [], "serviceSelector": selector }))
            .service(
                "web",
                json!({ "metadata": { "labels": { "public": "yes" } } }),
            )
            .labels
            .insert("default".to_owned(), ("team", "yes"));
        let world = cluster.world();
        let pools = Pools::of(&world, CLASS);
        let web = world.services.values().next().unwrap();
        let is = pools.get("a").unwrap().admits(web, &world);
        assert_eq!(is, admits, "{selector}");
    }
}

fn any_range() -> impl Strategy<Value = Range> {
    (any::<bool>(), 0_u8..=255, 0_u8..=40).prop_map(|(v4, first, more)| {
        let last = first.saturating_add(more);
        let text = match v4 {
            true => format!("10.0.0.{first}-10.0.0.{last}"),
            false => format!("2001:db8::{first:x}-2001:db8::{last:x}"),
        };
        text.parse().unwrap()
    })
}

proptest! {
    #[test]
    fn ranges_are_read_as_they_are_written(range in any_range()) {
        prop_assert_eq!(range.to_string().parse::<Range>(), Ok(range));
    }

    #[test]
    fn sums_and_differences_are_those_of_sets(
        ranges in prop::collection::vec(any_range(), 0..8),
        gone in prop::collection::vec(any_range(), 0..8),
    ) {
        let (all, holes) = (range::joined(ranges.clone()), range::joined(gone.clone()));
        let left = range::without(&all, &holes);
        for byte in 0..=255_u8 {
            for address in [IpAddr::from([10, 0, 0, byte]), format!("2001:db8::{byte:x}").parse().unwrap()] {
                let is = ranges.iter().any(|r| r.contains(address));
                let was = gone.iter().any(|r| r.contains(address));
                prop_assert_eq!(range::contain(&all, address), is);
                prop_assert_eq!(range::contain(&left, address), is && !was);
            }
        }
        for pair in all.windows(2) {
            prop_assert!(pair[0] < pair[1] && !pair[0].meets(&pair[1]));
        }
    }

    #[test]
    fn buggy_addresses_are_counted_as_they_are_found(first in 0_u32..2_000, more in 0_u32..2_000) {
        let address = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number);
        let range: Range = format!("{}-{}", address(first), address(first + more)).parse().unwrap();
        let buggy = (first..=first + more).filter(|n| range::is_buggy(address(*n).into()));
        prop_assert_eq!(range.buggy(), buggy.count() as u128);
    }

    #[test]
    fn no_text_breaks_it(text in "[0-9a-f.:/ -]{0,40}") {
        let _ = text.parse::<Range>();
    }
}

#[test]
fn a_pool_that_names_a_class_is_for_services_of_that_class_only() {
    let mut cluster = Cluster::default();
    cluster.pool("all", &["192.0.2.0/30"]).pool_with(
        "other",
        json!({ "addresses": ["192.0.2.8/30"], "loadBalancerClass": "example.org/lb" }),
    );
    let world = cluster.world();
    let names = |class: &str| -> Vec<String> {
        let pools = Pools::of(&world, class);
        pools.iter().map(|pool| pool.name.clone()).collect()
    };
    assert_eq!(names(CLASS), ["all"]);
    assert_eq!(names("example.org/lb"), ["all", "other"]);
}
