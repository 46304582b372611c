//! What is written, and when nothing is.

use super::*;
use crate::kubernetes::allocate::{ALLOCATED, allocate};
use crate::kubernetes::fixtures::settings;
use crate::kubernetes::fixtures::{Cluster, annotations_of, condition, name};
use lockstep_kubernetes::facts::Protocol;
use serde_json::{Value, json};

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["192.0.2.1-192.0.2.2"])
        .service("web", json!({}));
    cluster
}

fn reasons(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.reason).collect()
}

fn status<'a>(cluster: &'a Cluster, text: &str) -> &'a Value {
    &cluster.services[&name(text)]["status"]
}

fn three(status: &str, reason: &str, message: &str) -> Option<(String, String, String)> {
    Some((status.to_owned(), reason.to_owned(), message.to_owned()))
}

#[test]
fn a_service_gets_its_address_a_condition_and_the_name_of_the_pool() {
    let mut cluster = cluster();
    let told = cluster.settle();
    assert_eq!(
        *status(&cluster, "web"),
        json!({
            "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "Proxy" }] },
            "conditions": [{
                "type": "lockstep.dev/AddressAllocated",
                "status": "True",
                "reason": "Allocated",
                "message": "",
                "lastTransitionTime": "2026-02-01T00:00:01Z",
            }],
        })
    );
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    assert_eq!(reasons(&told), ["IPAllocated"]);
    assert_eq!(told[0].note, "192.0.2.1 from AddressPool a");
    assert_eq!((told[0].uid.as_str(), told[0].warning), ("uid-web", false));
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.now += 60;
    assert_eq!(cluster.writes(), []);
}

#[test]
fn tunnels_leave_the_vip_in_packets_and_every_other_mode_does_not() {
    for (mode, ip_mode) in [
        ("tunnel", "VIP"),
        ("nat", "Proxy"),
        ("full-nat", "Proxy"),
        ("replicate", "Proxy"),
    ] {
        let mut cluster = cluster();
        cluster.edit("web", annotations_of(&[("mode", mode)]));
        cluster.settle();
        let ingress = &status(&cluster, "web")["loadBalancer"]["ingress"][0];
        assert_eq!(ingress["ipMode"], ip_mode, "{mode}");
    }
}

#[test]
fn a_service_that_gets_none_is_told_why_once_and_what_to_do() {
    let mut cluster = cluster();
    cluster.edit("web", annotations_of(&[("address-pool", "b")]));
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["AllocationFailed"]);
    assert!(told[0].warning);
    assert_eq!(
        told[0].note,
        "there is no AddressPool b; create it, or ask for one of: a"
    );
    assert_eq!(
        cluster.condition("web", ALLOCATED),
        three("False", "PoolNotFound", &told[0].note)
    );
    let since =
        |cluster: &Cluster| status(cluster, "web")["conditions"][0]["lastTransitionTime"].clone();
    let at_first = since(&cluster);
    // Another reason is told, and the time stays: it is still not there.
    cluster.now += 60;
    cluster.edit("web", annotations_of(&[("address-pool", "c")]));
    assert_eq!(reasons(&cluster.settle()), ["AllocationFailed"]);
    assert_eq!(since(&cluster), at_first);
    // A flip has another one.
    cluster.pool("c", &["198.51.100.0/30"]);
    assert_eq!(reasons(&cluster.settle()), ["IPAllocated"]);
    assert_eq!(cluster.has("web"), "198.51.100.0 (c)");
    assert_ne!(since(&cluster), at_first);
}

#[test]
fn a_wish_that_cannot_be_fulfilled_leaves_the_address_and_says_so() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.edit("web", annotations_of(&[("address-pool", "b")]));
    assert_eq!(reasons(&cluster.settle()), ["AllocationFailed"]);
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    let message = "keeps 192.0.2.1 meanwhile: there is no AddressPool b; create it, or ask for one \
                   of: a";
    assert_eq!(
        cluster.condition("web", ALLOCATED),
        three("True", "PoolNotFound", message)
    );
}

#[test]
fn an_address_whose_pool_has_gone_is_kept_and_that_is_told() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.pools.clear();
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["AddressKept"]);
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    assert_eq!(
        cluster.condition("web", ALLOCATED),
        three("True", "Kept", &told[0].note)
    );
}

#[test]
fn a_service_that_moves_hears_of_both_addresses() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.edit("web", annotations_of(&[("load-balancer-ips", "192.0.2.2")]));
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["IPAllocated", "ClearAssignment"]);
    assert_eq!(told[1].note, "192.0.2.1 is not this Service's any more");
    assert!(!told[1].warning);
}

#[test]
fn ports_that_cannot_be_served_are_named_among_all_of_them() {
    let mut cluster = cluster();
    cluster.edit(
        "web",
        json!({ "spec": { "ports": [{ "port": 80 }, { "port": 90, "protocol": "SCTP" }] } }),
    );
    let problem = Problem {
        port: Some((90, Protocol::Other)),
        reason: "ProtocolNotBalanced",
        message: "SCTP is not balanced; use TCP or UDP".to_owned(),
    };
    cluster.problems.insert(name("web"), vec![problem]);
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["IPAllocated", "PortsNotServed"]);
    assert_eq!(
        status(&cluster, "web")["loadBalancer"]["ingress"][0]["ports"],
        json!([
            { "port": 80, "protocol": "TCP" },
            { "port": 90, "protocol": "SCTP", "error": "lockstep.dev/ProtocolNotBalanced" },
        ])
    );
    let message = "port 90: SCTP is not balanced; use TCP or UDP";
    assert_eq!(
        cluster.condition("web", PORTS_ERROR),
        three("True", "ProtocolNotBalanced", message)
    );
    // What is repaired leaves nothing behind.
    cluster.problems.clear();
    assert_eq!(reasons(&cluster.settle()), [""; 0]);
    assert_eq!(cluster.condition("web", PORTS_ERROR), None);
    assert_eq!(
        status(&cluster, "web")["loadBalancer"]["ingress"][0].get("ports"),
        None
    );
}

#[test]
fn what_concerns_the_whole_service_is_no_error_of_a_port() {
    let mut cluster = cluster();
    let problem = Problem {
        port: None,
        reason: "InvalidMode",
        message: "write nat".to_owned(),
    };
    cluster.problems.insert(name("web"), vec![problem]);
    cluster.settle();
    assert_eq!(
        cluster.condition("web", PORTS_ERROR),
        three("True", "InvalidMode", "write nat")
    );
    assert_eq!(
        status(&cluster, "web")["loadBalancer"]["ingress"][0].get("ports"),
        None
    );
}

#[test]
fn a_service_that_goes_to_another_class_is_given_up_and_nothing_of_it_is_emptied() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.edit(
        "web",
        json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
    );
    let bodies: Vec<Value> = (cluster.writes().into_iter())
        .filter_map(|write| match write {
            Write::Apply { object, body, .. } | Write::Annotate { object, body }
                if object.kind == Kind::Service =>
            {
                Some(body)
            }
            _ => None,
        })
        .collect();
    let metadata = json!({ "uid": "uid-web", "annotations": {} });
    assert_eq!(
        bodies,
        [
            json!({ "metadata": metadata }),
            json!({ "metadata": { "uid": "uid-web" } }),
        ]
    );
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["ClearAssignment"]);
    assert_eq!(
        told[0].note,
        "let go of 192.0.2.1: its loadBalancerClass is example.com/lb"
    );
}

#[test]
fn what_somebody_else_has_written_as_if_it_were_ours_is_left_there_and_not_told_of() {
    let mut cluster = Cluster::default();
    let copied = annotations_of(&[("ip-allocated-from-pool", "a")]);
    cluster.service("other", copied.clone()).edit(
        "other",
        json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
    );
    assert_eq!(cluster.writes(), []);
    // Nor is it taken out of one of ours that has no address.
    cluster.service("web", copied);
    assert_eq!(reasons(&cluster.settle()), ["AllocationFailed"]);
    assert_eq!(cluster.has("web"), " (a)");
}

#[test]
fn an_address_that_another_installation_gave_counts_in_the_pool() {
    let mut cluster = cluster();
    cluster.settle();
    let other = json!({
        "spec": { "loadBalancerClass": "example.com/lb" },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.2" }] } },
    });
    cluster.service("other", other);
    cluster.settle();
    let status = &cluster.pools["a"]["status"];
    assert_eq!(
        (&status["assigned"], &status["available"]),
        (&json!(2), &json!("0"))
    );
}

#[test]
fn services_of_others_and_those_about_to_go_are_left_alone() {
    let going = json!({
        "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
    });
    let mut cluster = Cluster::default();
    cluster.service("going", going).service(
        "other",
        json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
    );
    assert_eq!(cluster.writes(), []);
}

#[test]
fn a_pool_counts_what_it_has_and_what_services_have_of_it() {
    let mut cluster = cluster();
    cluster.pool("six", &["2001:db8::/64"]);
    assert_eq!(reasons(&cluster.settle()), ["IPAllocated"]);
    let counts = |cluster: &Cluster, pool: &str| {
        let status = &cluster.pools[pool]["status"];
        (
            status["available"].clone(),
            status["assigned"].clone(),
            status["observedGeneration"].clone(),
        )
    };
    assert_eq!(counts(&cluster, "a"), (json!("1"), json!(1), json!(1)));
    assert_eq!(
        counts(&cluster, "six"),
        (json!("18446744073709551616"), json!(0), json!(1))
    );
    assert_eq!(
        cluster.pool_condition("a", "Ready"),
        three("True", "AddressesFree", "")
    );
    assert_eq!(
        cluster.pool_condition("a", "Conflict"),
        three("False", "NoOverlap", "")
    );
    cluster.service("next", json!({}));
    assert_eq!(reasons(&cluster.settle()), ["IPAllocated", "PoolExhausted"]);
    assert_eq!(counts(&cluster, "a"), (json!("0"), json!(2), json!(1)));
    assert_eq!(cluster.pool_condition("a", "Ready").unwrap().1, "Exhausted");
}

#[test]
fn pools_in_conflict_name_each_other_and_what_they_share() {
    let mut cluster = cluster();
    cluster.settle();
    cluster.pool("b", &["192.0.2.2-192.0.2.9"]);
    let told = cluster.settle();
    // All that was free in the first one is what they share.
    assert_eq!(
        reasons(&told),
        ["PoolExhausted", "PoolConflict", "PoolConflict"]
    );
    let told: Vec<&str> = told[1..]
        .iter()
        .map(|event| event.about.name.name.as_ref())
        .collect();
    assert_eq!(told, ["a", "b"]);
    for (pool, other) in [("a", "b"), ("b", "a")] {
        let (status, reason, message) = cluster.pool_condition(pool, "Conflict").unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("True", "Overlap"));
        let shares = format!("it shares 192.0.2.2 with {other}: ");
        assert!(message.starts_with(&shares), "{message}");
    }
    assert_eq!(cluster.pools["a"]["status"]["available"], "0");
    cluster.pools.remove("b");
    cluster.settle();
    assert_eq!(
        cluster.pool_condition("a", "Conflict"),
        three("False", "NoOverlap", "")
    );
}

#[test]
fn a_pool_with_an_entry_that_is_none_says_which_and_gives_the_others() {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["192.0.2.1", "192.0.2.5/24"])
        .service("web", json!({}));
    let told = cluster.settle();
    assert_eq!(reasons(&told), ["IPAllocated", "InvalidAddresses"]);
    let (status, reason, message) = cluster.pool_condition("a", "Ready").unwrap();
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "InvalidAddresses")
    );
    assert!(
        message.ends_with("or the one address alone; the other entries count"),
        "{message}"
    );
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
}

#[test]
fn an_advertisement_says_what_of_it_cannot_be_done() {
    for (spec, reason, part) in [
        (json!({ "type": "BGP" }), "Announced", ""),
        (
            json!({ "type": "BGP", "pools": ["b"] }),
            "PoolNotFound",
            "no AddressPool b; create it",
        ),
        (
            json!({ "type": "BGP", "peers": ["router"] }),
            "InvalidPeer",
            "is not an address",
        ),
        (
            json!({ "type": "BGP", "communities": ["1:2:3:4"] }),
            "InvalidCommunity",
            "write one such as",
        ),
        (
            json!({ "type": "L2", "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Is" }] } }),
            "InvalidSelector",
            "nodeSelector: ",
        ),
    ] {
        let mut cluster = cluster();
        cluster.advertisement("adv", spec);
        let told = cluster.settle();
        let found = condition(&cluster.advertisements["adv"], "Ready").unwrap();
        assert_eq!(found.1, reason);
        assert!(found.2.contains(part), "{}", found.2);
        let warned = told
            .iter()
            .any(|event| event.reason == reason && event.warning);
        assert_eq!(warned, reason != "Announced");
    }
}

/// What the leader of an installation with a class writes.
fn writes_of(cluster: &Cluster, class: &str) -> Vec<Write> {
    let settings = Settings {
        class: class.to_owned(),
        ..settings()
    };
    let world = cluster.world();
    let allocation = allocate(&world, &settings);
    let mut writes = all(
        &world,
        &allocation,
        &|_| &[],
        &settings,
        "2026-02-01T00:00:01Z",
    );
    writes.retain(|write| {
        let object = match write {
            Write::Apply { object, .. } | Write::Annotate { object, .. } => object,
            Write::Event(event) => &event.about,
            Write::Part { .. } | Write::Delete { .. } => panic!("{write:?}"),
        };
        object.kind == Kind::Service
    });
    writes
}

#[test]
fn installations_with_other_classes_take_nothing_from_each_other() {
    const OTHER: &str = "example.org/other";
    let mut cluster = cluster();
    cluster.service("api", json!({ "spec": { "loadBalancerClass": OTHER } }));
    for class in [lockstep_kubernetes::CLASS, OTHER] {
        // The address, then the name of its pool.
        for _ in 0..2 {
            let writes = writes_of(&cluster, class);
            assert!(!writes.is_empty());
            cluster.apply_as(class, writes);
        }
    }
    assert_eq!(cluster.has("web"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("api"), "192.0.2.2 (a)");
    for class in [lockstep_kubernetes::CLASS, OTHER] {
        assert_eq!(writes_of(&cluster, class), [], "{class}");
    }
    // One that changes hands is let go of by the one that had it, and by no other.
    cluster.edit(
        "api",
        json!({ "spec": { "loadBalancerClass": "example.org/third" } }),
    );
    assert_eq!(writes_of(&cluster, lockstep_kubernetes::CLASS), []);
    let writes = writes_of(&cluster, OTHER);
    cluster.apply_as(OTHER, writes);
    assert_eq!(writes_of(&cluster, OTHER), []);
    assert_eq!(
        (cluster.has("web"), cluster.has("api")),
        ("192.0.2.1 (a)".to_owned(), String::new())
    );
}

#[test]
fn a_status_is_written_to_the_very_version_that_was_decided_about() {
    let mut cluster = cluster();
    let of_status = |writes: Vec<Write>| {
        let bodies = writes.into_iter().filter_map(|write| match write {
            Write::Apply { object, body, .. } if object.kind == Kind::Service => Some(body),
            _ => None,
        });
        let all: Vec<Value> = bodies.map(|body| body["metadata"].clone()).collect();
        all
    };
    let metadata = json!({ "uid": "uid-web", "resourceVersion": "1" });
    assert_eq!(of_status(cluster.writes()), [metadata]);
    cluster.settle();
    // Given up it is whatever version that is.
    cluster.edit("web", json!({ "spec": { "type": "ClusterIP" } }));
    assert_eq!(of_status(cluster.writes()), [json!({ "uid": "uid-web" })]);
}
