//! What is behind a Service: which endpoints it is served by.

use super::*;

#[test]
fn endpoints_of_the_other_family_are_tunnelled_to_and_not_rewritten_to() {
    let v6 = |mode: &str| {
        let mut over = json!({
            "spec": { "ipFamilies": ["IPv6"] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "2001:db8::1" }] } },
        });
        merge(&mut over, &annotated(json!({ "lockstep.dev/mode": mode })));
        let slices = [slice("web-1", "web", ("http", 80), &["10.0.0.1"])];
        Cluster::of(&[service("web", &over)], &slices)
    };
    assert_eq!(
        v6("tunnel").said(),
        ["shop/web/http tunnel [2001:db8::1]:80/tcp -> 10.0.0.1"]
    );
    assert_eq!(v6("replicate").said().len(), 1);
    for mode in ["nat", "full-nat"] {
        assert_eq!(v6(mode).said(), [""; 0]);
        let problems = v6(mode).problems("web");
        assert!(
            problems[0].starts_with("80 FamilyMismatch: "),
            "{problems:?}"
        );
        assert!(
            problems[0].contains("add IPv6 to ipFamilies"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_tunnel_serves_the_slices_whose_port_is_the_services() {
    let slices = [
        slice("web-1", "web", ("http", 8080), &["10.0.0.1"]),
        slice("web-2", "web", ("http", 80), &["10.0.0.2"]),
    ];
    let tunnel = annotated(json!({ "lockstep.dev/mode": "tunnel" }));
    let cluster = Cluster::of(&[service("web", &tunnel)], &slices);
    assert_eq!(
        cluster.said(),
        ["shop/web/http tunnel 203.0.113.1:80/tcp -> 10.0.0.2"]
    );
    assert!(cluster.problems("web")[0].starts_with("- PortMismatch"));
}

#[test]
fn a_service_without_endpoints_keeps_its_address_and_refuses() {
    let cluster = Cluster::of(&[service("web", &json!({}))], &[]);
    assert_eq!(
        cluster.said(),
        ["shop/web/http full-nat 203.0.113.1:80/tcp -> "]
    );
    assert_eq!(cluster.services()[0].unserved, Unserved::Reset);
    // Another node may have endpoints: a client that tries again may find it.
    let local = json!({ "spec": { "externalTrafficPolicy": "Local" } });
    let cluster = Cluster::of(&[service("web", &local)], &[]);
    assert_eq!(cluster.services()[0].unserved, Unserved::Drop);
}

#[test]
fn an_address_of_a_service_is_no_endpoint_of_any() {
    let behind = service(
        "other",
        &json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.2" }] } } }),
    );
    let mut cluster = alone(&json!({}));
    assert_eq!(cluster.services()[0].backends.len(), 2);
    assert!(cluster.change(Change::Service(behind.0.clone(), Some(behind.1))));
    let web = "shop/web/http full-nat 203.0.113.1:80/tcp -> 10.0.0.1:8080";
    assert_eq!(
        cluster.said(),
        ["shop/other/http full-nat 10.0.0.2:80/tcp -> ", web]
    );
    assert!(cluster.problems("web")[0].starts_with("- EndpointIsAddress: endpoint 10.0.0.2"));
    assert!(cluster.change(Change::Service(behind.0, None)));
    assert_eq!(cluster.services()[0].backends.len(), 2);
    assert_eq!(cluster.problems("web"), [""; 0]);
}

#[test]
fn tables_are_as_large_as_the_number_of_known_addresses_asks_for() {
    let rows = [
        (0, 2_039),
        (20, 2_039),
        (21, 16_381),
        (160, 16_381),
        (161, 65_537),
        (4_096, 65_537),
    ];
    for (known, entries) in rows {
        assert_eq!(port::table_size(known).get(), entries, "{known}");
    }
    // Readiness changes nothing about it.
    let addresses: Vec<String> = (1..=21).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (name, slice) = slice("web-1", "web", ("http", 80), &addresses);
    let mut unready = Slice::clone(&slice);
    for endpoint in unready.endpoints.iter_mut().take(15) {
        (endpoint.ready, endpoint.serving) = (false, false);
    }
    let cluster = Cluster::of(&[service("web", &json!({}))], &[(name, Arc::new(unready))]);
    let served = cluster.services().remove(0);
    assert_eq!(
        (served.backends.len(), served.table_size.get()),
        (6, 16_381)
    );
}

#[test]
fn more_endpoints_than_an_engine_holds_are_left_out_and_said() {
    let addresses: Vec<String> = (0..130).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let slices = [slice("web-1", "web", ("http", 80), &addresses)];
    let over = annotated(json!({ "lockstep.dev/mode": "replicate" }));
    let cluster = Cluster::of(&[service("web", &over)], &slices);
    assert_eq!(cluster.services()[0].backends.len(), 128);
    let problems = cluster.problems("web");
    assert!(
        problems[0].starts_with("- TooManyEndpoints: port 80: 2 endpoints are more than the 128")
    );
}

#[test]
fn a_zone_that_becomes_known_is_followed() {
    let (name, hinted) = slice("web-1", "web", ("http", 80), &["10.0.0.1", "10.0.0.2"]);
    let mut hinted = Slice::clone(&hinted);
    for (endpoint, zone) in hinted.endpoints.iter_mut().zip(["a", "b"]) {
        endpoint.zones = vec![zone.into()];
    }
    let mut cluster = Cluster::of(&[service("web", &json!({}))], &[(name, Arc::new(hinted))]);
    assert!(cluster.said()[0].ends_with("-> 10.0.0.1, 10.0.0.2"));
    let zone = ("topology.kubernetes.io/zone".to_owned(), "b".to_owned());
    let node = lockstep_kubernetes::facts::Node {
        name: "n1".to_owned(),
        labels: BTreeMap::from([zone]),
    };
    assert!(cluster.change(Change::Node("n1".to_owned(), Some(Arc::new(node)))));
    assert!(cluster.said()[0].ends_with("-> 10.0.0.1 draining, 10.0.0.2"));
}
