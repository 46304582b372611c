use super::*;
use lockstep_kubernetes::facts::{Name, SlicePort};
use proptest::prelude::*;
use std::sync::Arc;

fn http() -> ServicePort {
    ServicePort {
        name: "http".to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

fn slice(name: &str, target: Option<u16>, endpoints: Vec<Endpoint>) -> Slice {
    let v6 = endpoints.first().is_some_and(|e| e.address.is_ipv6());
    Slice {
        name: Name::new("shop", name),
        service: Some(Name::new("shop", "web")),
        family: Some(if v6 { Family::V6 } else { Family::V4 }),
        ports: vec![SlicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: target,
        }],
        endpoints,
    }
}

/// An endpoint whose flags are letters: r(eady), s(erving), t(erminating).
fn endpoint(address: &str, flags: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready: flags.contains('r'),
        serving: flags.contains('s'),
        terminating: flags.contains('t'),
        node: None,
        zones: Vec::new(),
        pod: None,
    }
}

fn on(mut endpoint: Endpoint, node: &str, zones: &[&str]) -> Endpoint {
    endpoint.node = Some(node.into());
    endpoint.zones = zones.iter().map(|z| Arc::from(*z)).collect();
    endpoint
}

/// Backends in words: `10.0.0.1:8080 draining`.
fn said(backends: &[Backend]) -> Vec<String> {
    let one = |b: &Backend| {
        let port = b.port.map_or(String::new(), |port| format!(":{port}"));
        let state = match b.state {
            BackendState::Active => "",
            BackendState::Draining => " draining",
        };
        format!("{}{port}{state}", b.address)
    };
    backends.iter().map(one).collect()
}

fn of(slices: &[Slice], choice: &Choice<'_>) -> Vec<String> {
    said(&backends(slices.iter(), &http(), Family::V4, choice))
}

#[test]
fn the_state_of_an_endpoint_says_which_flows_it_gets() {
    let all = Choice::default();
    type Endpoints = &'static [(&'static str, &'static str)];
    let rows: [(&str, Endpoints, &[&str]); 7] = [
        (
            "ready ones get new flows, those that end keep theirs, others have none",
            &[
                ("10.0.0.1", "rs"),
                ("10.0.0.2", "st"),
                ("10.0.0.3", "t"),
                ("10.0.0.4", ""),
                ("10.0.0.5", "s"),
            ],
            &["10.0.0.1", "10.0.0.2 draining", "10.0.0.3 draining"],
        ),
        (
            "without a ready one those that end and serve get new flows",
            &[("10.0.0.2", "st"), ("10.0.0.3", "t"), ("10.0.0.4", "")],
            &["10.0.0.2", "10.0.0.3 draining"],
        ),
        ("nobody", &[("10.0.0.4", "")], &[]),
        ("nothing", &[], &[]),
        (
            "ready although it ends",
            &[("10.0.0.1", "rst")],
            &["10.0.0.1"],
        ),
        (
            "in the order of addresses",
            &[("10.0.0.9", "rs"), ("10.0.0.10", "rs"), ("10.0.0.1", "rs")],
            &["10.0.0.1", "10.0.0.9", "10.0.0.10"],
        ),
        (
            "no address of a host elsewhere",
            &[
                ("127.0.0.1", "rs"),
                ("0.0.0.0", "rs"),
                ("224.0.0.1", "rs"),
                ("10.0.0.1", "rs"),
            ],
            &["10.0.0.1"],
        ),
    ];
    for (what, endpoints, expected) in rows {
        let endpoints = endpoints.iter().map(|(a, f)| endpoint(a, f)).collect();
        assert_eq!(
            of(&[slice("a", Some(80), endpoints)], &all),
            expected,
            "{what}"
        );
    }
}

#[test]
fn a_datagram_does_not_follow_an_endpoint_that_does_not_serve() {
    let mut slice = slice(
        "a",
        Some(53),
        vec![
            endpoint("10.0.0.1", "t"),
            endpoint("10.0.0.2", "st"),
            endpoint("10.0.0.3", "rs"),
        ],
    );
    slice.ports[0].protocol = Protocol::Udp;
    let dns = ServicePort {
        protocol: Protocol::Udp,
        port: 53,
        ..http()
    };
    let found = backends([&slice].into_iter(), &dns, Family::V4, &Choice::default());
    assert_eq!(said(&found), ["10.0.0.2 draining", "10.0.0.3"]);
}

#[test]
fn endpoints_that_are_not_ready_serve_where_they_are_published() {
    let slices = [slice(
        "a",
        Some(80),
        vec![endpoint("10.0.0.1", ""), endpoint("10.0.0.2", "t")],
    )];
    let published = Choice {
        publish_not_ready: true,
        ..Choice::default()
    };
    assert_eq!(of(&slices, &published), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_backend_in_its_best_state() {
    let slices = [
        slice(
            "a",
            Some(80),
            vec![endpoint("10.0.0.1", "st"), endpoint("10.0.0.2", "rs")],
        ),
        slice(
            "b",
            Some(80),
            vec![endpoint("10.0.0.1", "rs"), endpoint("10.0.0.3", "rs")],
        ),
    ];
    let found = gather(slices.iter(), &http(), Family::V4, &Choice::default());
    assert_eq!(said(&found.backends), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!((found.known, found.several_ports), (3, 0));
}

#[test]
fn ports_come_from_each_slice_by_the_name_of_the_port() {
    let mut other = slice("c", Some(9090), vec![endpoint("10.0.0.4", "rs")]);
    other.ports[0].name = "metrics".to_owned();
    let mut datagrams = slice("d", Some(80), vec![endpoint("10.0.0.5", "rs")]);
    datagrams.ports[0].protocol = Protocol::Udp;
    let slices = [
        slice("a", Some(8080), vec![endpoint("10.0.0.1", "rs")]),
        slice("b", Some(8081), vec![endpoint("10.0.0.2", "rs")]),
        other,
        datagrams,
        slice("e", Some(80), vec![endpoint("10.0.0.6", "rs")]),
        slice("f", None, vec![endpoint("10.0.0.7", "rs")]),
    ];
    let expected = ["10.0.0.1:8080", "10.0.0.2:8081", "10.0.0.6", "10.0.0.7"];
    assert_eq!(of(&slices, &Choice::default()), expected);
}

#[test]
fn an_address_with_two_ports_is_one_backend_and_is_counted() {
    let slices = [
        slice("a", Some(8081), vec![endpoint("10.0.0.1", "rs")]),
        slice("b", Some(8080), vec![endpoint("10.0.0.1", "rs")]),
        slice("c", Some(8082), vec![endpoint("10.0.0.1", "rs")]),
    ];
    let found = gather(slices.iter(), &http(), Family::V4, &Choice::default());
    assert_eq!(said(&found.backends), ["10.0.0.1:8080"]);
    assert_eq!((found.known, found.several_ports), (1, 1));
}

#[test]
fn families_are_apart_and_host_names_are_skipped() {
    let mut names = slice("c", Some(80), vec![endpoint("10.0.0.3", "rs")]);
    names.family = None;
    let slices = [
        slice("a", Some(80), vec![endpoint("10.0.0.1", "rs")]),
        slice("b", Some(80), vec![endpoint("2001:db8::1", "rs")]),
        names,
    ];
    let all = Choice::default();
    let of = |family| said(&backends(slices.iter(), &http(), family, &all));
    assert_eq!(of(Family::V4), ["10.0.0.1"]);
    assert_eq!(of(Family::V6), ["2001:db8::1"]);
}

#[test]
fn a_local_service_has_the_endpoints_of_this_node_only() {
    let slices = [slice(
        "a",
        Some(80),
        vec![
            on(endpoint("10.0.0.1", "rs"), "here", &[]),
            on(endpoint("10.0.0.2", "rs"), "there", &[]),
            endpoint("10.0.0.3", "rs"),
            on(endpoint("10.0.0.4", "st"), "here", &[]),
        ],
    )];
    let local = |node| Choice {
        node,
        local: true,
        ..Choice::default()
    };
    assert_eq!(
        of(&slices, &local(Some("here"))),
        ["10.0.0.1", "10.0.0.4 draining"]
    );
    assert_eq!(of(&slices, &local(Some("nowhere"))), [""; 0]);
    // A balancer beside the cluster is as near to every pod.
    assert_eq!(of(&slices, &local(None)).len(), 4);
    let found = gather(slices.iter(), &http(), Family::V4, &local(Some("here")));
    assert_eq!(found.known, 4);
    // Those of another node that are ready are no reason to leave out the own ones that end.
    let only_closing = [slice(
        "a",
        Some(80),
        vec![
            on(endpoint("10.0.0.1", "rs"), "there", &[]),
            on(endpoint("10.0.0.4", "st"), "here", &[]),
        ],
    )];
    assert_eq!(of(&only_closing, &local(Some("here"))), ["10.0.0.4"]);
}

#[test]
fn hints_are_followed_where_all_have_them_and_this_zone_is_covered() {
    let here = on(endpoint("10.0.0.1", "rs"), "n1", &["a"]);
    let there = on(endpoint("10.0.0.2", "rs"), "n2", &["b"]);
    let both = on(endpoint("10.0.0.3", "rs"), "n3", &["b", "a"]);
    let without = endpoint("10.0.0.4", "rs");
    let closing = endpoint("10.0.0.5", "st");
    let choice = |zone| Choice {
        zone,
        ..Choice::default()
    };
    let of = |endpoints: &[&Endpoint], choice: &Choice<'_>| {
        let endpoints = endpoints.iter().map(|&e| e.clone()).collect();
        of(&[slice("s", Some(80), endpoints)], choice)
    };
    let hinted = [&here, &there, &both, &closing];
    let expected = [
        "10.0.0.1",
        "10.0.0.2 draining",
        "10.0.0.3",
        "10.0.0.5 draining",
    ];
    assert_eq!(of(&hinted, &choice(Some("a"))), expected);
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5 draining"];
    assert_eq!(
        of(&hinted, &choice(Some("c"))),
        all,
        "no endpoint is meant for it"
    );
    assert_eq!(of(&hinted, &choice(None)), all, "a balancer without a zone");
    let local = Choice {
        local: true,
        zone: Some("a"),
        node: Some("n2"),
        ..Choice::default()
    };
    assert_eq!(
        of(&hinted, &local),
        ["10.0.0.2"],
        "the node goes before the zone"
    );
    let partly = [&here, &there, &without];
    assert_eq!(of(&partly, &choice(Some("a"))).len(), 3);
    assert!(
        of(&partly, &choice(Some("a")))
            .iter()
            .all(|b| !b.contains("draining"))
    );
}

#[test]
fn a_backend_is_named_after_its_pod_or_its_address() {
    let pod = |address: &str, pod: &str| Endpoint {
        pod: Some(pod.into()),
        ..endpoint(address, "rs")
    };
    let slices = [slice(
        "a",
        Some(80),
        vec![
            pod("10.0.0.1", "web-7d4b9-x2x4z"),
            pod("10.0.0.2", "web-7d4b9-x2x4z"),
            pod("10.0.0.3", "10.0.0.4"),
            pod("10.0.0.4", "a b"),
            endpoint("10.0.0.5", "rs"),
        ],
    )];
    let found = backends(slices.iter(), &http(), Family::V4, &Choice::default());
    let names: Vec<&str> = found.iter().map(|b| b.name.as_str()).collect();
    let expected = [
        "web-7d4b9-x2x4z",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "10.0.0.5",
    ];
    assert_eq!(names, expected);
}

#[test]
fn of_too_many_those_that_take_new_flows_are_left_in_the_order_of_addresses() {
    let slices = [slice(
        "a",
        Some(80),
        vec![
            endpoint("10.0.0.1", "st"),
            endpoint("10.0.0.2", "rs"),
            endpoint("10.0.0.3", "rs"),
            endpoint("10.0.0.4", "rs"),
        ],
    )];
    let found = backends(slices.iter(), &http(), Family::V4, &Choice::default());
    for (most, left_out, expected) in [
        (
            4,
            0,
            &["10.0.0.1 draining", "10.0.0.2", "10.0.0.3", "10.0.0.4"][..],
        ),
        (3, 1, &["10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        (2, 2, &["10.0.0.2", "10.0.0.3"]),
        (0, 4, &[]),
    ] {
        let mut some = found.clone();
        assert_eq!(limit(&mut some, most), left_out);
        assert_eq!(said(&some), expected);
    }
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let zones = prop::collection::vec("[ab]".prop_map(|z| Arc::from(z.as_str())), 0..2);
    (0u8..12, any::<[bool; 3]>(), zones, prop::option::of("[xy]")).prop_map(
        |(last, [ready, serving, terminating], zones, node)| Endpoint {
            address: IpAddr::from([10, 0, 0, last]),
            ready,
            serving,
            terminating,
            node: node.map(|n| Arc::from(n.as_str())),
            zones,
            pod: Some(Arc::from(format!("pod-{}", last / 2))),
        },
    )
}

proptest! {
    #[test]
    fn backends_do_not_depend_on_how_endpoints_are_cut_into_slices(
        endpoints in prop::collection::vec((any_endpoint(), 0..3_usize), 0..20),
        local in any::<bool>(),
        publish_not_ready in any::<bool>(),
        node in prop::option::of("[xy]"),
        zone in prop::option::of("[ab]"),
    ) {
        let choice = Choice { node: node.as_deref(), zone: zone.as_deref(), local, publish_not_ready };
        let one = [slice("a", Some(8080), endpoints.iter().map(|(e, _)| e.clone()).collect())];
        let cut = [2, 0, 1].map(|part| {
            let own = endpoints.iter().filter(|(_, at)| *at == part);
            slice(&part.to_string(), Some(8080), own.map(|(e, _)| e.clone()).collect())
        });
        let whole = gather(one.iter(), &http(), Family::V4, &choice);
        let parts = gather(cut.iter(), &http(), Family::V4, &choice);
        prop_assert_eq!(said(&whole.backends), said(&parts.backends));
        prop_assert_eq!(whole.known, parts.known);
        // Sorted by address, no address and no name twice.
        prop_assert!(whole.backends.is_sorted_by(|a, b| a.address < b.address));
        let names: BTreeSet<&str> = whole.backends.iter().map(|b| b.name.as_str()).collect();
        prop_assert_eq!(names.len(), whole.backends.len());
        // Somebody gets new flows where somebody near is ready.
        let near_ready = endpoints.iter().any(|(e, _)| (e.ready || publish_not_ready) && is_near(e, &choice));
        let active = whole.backends.iter().any(|b| b.state == BackendState::Active);
        prop_assert!(active || !near_ready);
    }
}
