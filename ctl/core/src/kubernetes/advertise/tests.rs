//! Which addresses go where.

use super::*;
use crate::kubernetes::fixtures::{Cluster, settings};
use serde_json::{Value, json};

/// Two Services with an address of a pool each, and these advertisements.
fn cluster(advertisements: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    cluster
        .pool("a", &["192.0.2.1"])
        .pool_with("b", json!({ "addresses": ["2001:db8::1"] }))
        .service("four", json!({}))
        .service("six", json!({ "spec": { "ipFamilies": ["IPv6"] } }));
    cluster.labels.insert("node-1".to_owned(), ("rack", "r1"));
    for (at, spec) in advertisements.iter().enumerate() {
        cluster.advertisement(&format!("adv{at}"), spec.clone());
    }
    cluster.settle();
    cluster
}

fn found(cluster: &Cluster) -> Advertisements {
    advertised(&cluster.world(), &settings())
}

fn of(cluster: &Cluster, address: &str) -> Advertised {
    found(cluster)[&address.parse::<IpAddr>().unwrap()].clone()
}

fn everywhere(length: Option<u8>) -> Route {
    Route {
        peers: BTreeSet::new(),
        communities: BTreeSet::new(),
        length,
    }
}

#[test]
fn an_address_that_nothing_names_is_known_and_announced_nowhere() {
    let cluster = cluster(&[json!({ "type": "BGP", "pools": ["b"] })]);
    assert_eq!(found(&cluster).len(), 2);
    assert_eq!(of(&cluster, "192.0.2.1"), Advertised::default());
    assert!(!of(&cluster, "192.0.2.1").is_somehow());
    assert!(of(&cluster, "2001:db8::1").is_somehow());
}

#[test]
fn without_pools_it_is_for_all_of_them() {
    let cluster = cluster(&[json!({ "type": "L2" })]);
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(of(&cluster, address).layer2, Some(Interfaces::All));
        assert_eq!(of(&cluster, address).bgp, BTreeSet::new());
    }
}

#[test]
fn routes_have_peers_communities_and_the_length_of_their_family() {
    let spec = json!({
        "type": "BGP",
        "peers": ["10.0.0.1"],
        "communities": ["64512:1", "no-export"],
        "aggregationLength": 24,
        "aggregationLengthV6": 64,
    });
    let cluster = cluster(&[spec, json!({ "type": "BGP" })]);
    let communities = ["64512:1", "no-export"].map(|text| text.parse().unwrap());
    let first = |length| Route {
        peers: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        communities: BTreeSet::from(communities),
        length: Some(length),
    };
    let expected = |length| BTreeSet::from([first(length), everywhere(None)]);
    assert_eq!(of(&cluster, "192.0.2.1").bgp, expected(24));
    assert_eq!(of(&cluster, "2001:db8::1").bgp, expected(64));
}

#[test]
fn several_of_layer_2_name_all_their_interfaces() {
    let on = |names: &[&str]| json!({ "type": "L2", "interfaces": names });
    let two = cluster(&[on(&["eth0"]), on(&["eth1", "eth0"])]);
    let names = ["eth0", "eth1"].map(str::to_owned);
    assert_eq!(
        of(&two, "192.0.2.1").layer2,
        Some(Interfaces::Named(BTreeSet::from(names)))
    );
    let all = cluster(&[on(&["eth0"]), on(&[])]);
    assert_eq!(of(&all, "192.0.2.1").layer2, Some(Interfaces::All));
}

#[test]
fn a_node_selector_takes_the_own_node_by_its_labels() {
    let rack =
        |name: &str| json!({ "type": "L2", "nodeSelector": { "matchLabels": { "rack": name } } });
    assert!(of(&cluster(&[rack("r1")]), "192.0.2.1").is_somehow());
    assert!(!of(&cluster(&[rack("r2")]), "192.0.2.1").is_somehow());
    let nowhere = Settings {
        node: None,
        ..settings()
    };
    let found = advertised(&cluster(&[rack("r1")]).world(), &nowhere);
    assert!(found.values().all(|advertised| !advertised.is_somehow()));
}

#[test]
fn peers_that_cannot_be_read_are_not_all_peers() {
    let cluster = cluster(&[json!({ "type": "BGP", "peers": ["router"] })]);
    assert!(!of(&cluster, "192.0.2.1").is_somehow());
}

#[test]
fn an_address_stays_announced_when_its_pool_goes() {
    let mut cluster = cluster(&[json!({ "type": "L2", "pools": ["a"] })]);
    cluster.pools.clear();
    cluster.settle();
    assert!(of(&cluster, "192.0.2.1").is_somehow());
    assert!(!of(&cluster, "2001:db8::1").is_somehow());
}

#[test]
fn services_of_others_have_none() {
    let mut cluster = cluster(&[json!({ "type": "L2" })]);
    cluster.edit(
        "four",
        json!({ "spec": { "loadBalancerClass": "example.com/lb" } }),
    );
    assert_eq!(found(&cluster).len(), 1);
}
