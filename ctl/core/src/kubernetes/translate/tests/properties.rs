//! Whatever a cluster says, it makes a snapshot, and the same one by whichever way it came there.

use super::*;
use lockstep_kubernetes::facts::{
    Endpoint, Family, FamilyPolicy, Ingress, Node, ServicePort, SlicePort,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;
use std::time::Duration;

/// Few of everything, so that they meet.
const ADDRESSES: [&str; 6] = [
    "203.0.113.1",
    "203.0.113.2",
    "2001:db8::1",
    "10.0.0.1",
    "127.0.0.1",
    "fd00::1",
];

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![
        Protocol::Tcp,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Other,
    ])
}

fn port_name() -> impl Strategy<Value = String> {
    select(vec!["http", "http", "dns", "", "a/b"]).prop_map(str::to_owned)
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (port_name(), protocol(), select(vec![80, 80, 53, 0])).prop_map(|(name, protocol, port)| {
        ServicePort {
            name,
            protocol,
            port,
        }
    })
}

fn any_annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let one = prop_oneof![
        select(vec!["tunnel", "nat", "replicate", "full-nat", "bogus"])
            .prop_map(|mode| (annotations::MODE, mode)),
        select(vec!["wrr", "maglev", "bogus"]).prop_map(|s| (annotations::SCHEDULER, s)),
        select(vec!["251", "252"]).prop_map(|size| (annotations::TABLE_SIZE, size)),
        select(vec!["commit = { quorum = 3 }", "min_sync = 2", "bogus"])
            .prop_map(|policy| (annotations::REPLICATE, policy)),
    ];
    let rare = prop::option::weighted(0.1, Just((annotations::DIRE, "web")));
    (vec(one, 0..3), rare).prop_map(|(some, rare)| {
        let all = some.into_iter().chain(rare);
        all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    })
}

fn any_service(name: Name) -> impl Strategy<Value = Service> {
    let about = (
        any_annotations(),
        0..3_i64,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
    );
    let families = vec(select(vec![Family::V4, Family::V6]), 0..3);
    let addresses = vec(select(ADDRESSES.to_vec()), 0..4);
    let ranges = vec(select(vec!["192.0.2.0/24", "bogus"]), 0..2);
    let flags = any::<[bool; 3]>();
    (
        about,
        families,
        addresses,
        vec(service_port(), 0..4),
        ranges,
        flags,
    )
        .prop_map(
            move |(about, families, addresses, ports, ranges, [local, sticky, published])| {
                let (annotations, created, deleting, ours) = about;
                let ingress = addresses.iter().map(|address| Ingress {
                    address: address.parse().unwrap(),
                    mode: None,
                    ports: Vec::new(),
                });
                Service {
                    name: name.clone(),
                    uid: String::new(),
                    version: String::new(),
                    written_by: BTreeSet::new(),
                    annotated_by: BTreeSet::new(),
                    created,
                    deleting,
                    load_balancer: true,
                    class: ours.then(|| CLASS.to_owned()),
                    annotations,
                    labels: BTreeMap::new(),
                    address: None,
                    families,
                    family_policy: FamilyPolicy::Prefer,
                    ports,
                    local,
                    health_check_port: None,
                    affinity: sticky.then_some(Duration::from_secs(10_800)),
                    source_ranges: ranges.into_iter().map(str::to_owned).collect(),
                    publish_not_ready: published,
                    ingress: ingress.collect(),
                    conditions: BTreeMap::new(),
                }
            },
        )
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let v4 = (0..5_u8).prop_map(|last| IpAddr::from([10, 0, 0, last]));
    let v6 = (0..3_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
    let vip = select(ADDRESSES.to_vec()).prop_map(|address| address.parse().unwrap());
    let zones = vec("[ab]".prop_map(|z| Arc::from(z.as_str())), 0..2);
    let node = prop::option::of("n[12]");
    let pod = prop::option::of("[a-c ]");
    (
        prop_oneof![4 => v4, 2 => v6, 1 => vip],
        any::<[bool; 3]>(),
        zones,
        node,
        pod,
    )
        .prop_map(
            |(address, [ready, serving, terminating], zones, node, pod)| Endpoint {
                address,
                ready,
                serving,
                terminating,
                node: node.map(Arc::from),
                zones,
                pod: pod.map(Arc::from),
            },
        )
}

fn any_slice(name: Name) -> impl Strategy<Value = Slice> {
    let port = (
        port_name(),
        protocol(),
        prop::option::of(select(vec![80, 8080, 0])),
    );
    let ports = vec(port, 1..3);
    let family = select(vec![
        Some(Family::V4),
        Some(Family::V4),
        Some(Family::V6),
        None,
    ]);
    (
        prop::option::weighted(0.9, object()),
        family,
        ports,
        vec(any_endpoint(), 0..5),
    )
        .prop_map(move |(service, family, ports, endpoints)| Slice {
            name: name.clone(),
            service,
            family,
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| SlicePort {
                    name,
                    protocol,
                    port,
                })
                .collect(),
            endpoints,
        })
}

fn object() -> impl Strategy<Value = Name> {
    select(vec!["a", "b", "c"]).prop_map(|name| Name::new("shop", name))
}

fn any_change() -> impl Strategy<Value = Change> {
    let gone = || prop::bool::weighted(0.2);
    let services = (object().prop_flat_map(any_service), gone())
        .prop_map(|(s, gone)| Change::Service(s.name.clone(), (!gone).then(|| Arc::new(s))));
    let names = select(vec!["1", "2", "3", "4"]).prop_map(|name| Name::new("shop", name));
    let slices = (names.prop_flat_map(any_slice), gone())
        .prop_map(|(s, gone)| Change::Slice(s.name.clone(), (!gone).then(|| Arc::new(s))));
    let zone = Just("topology.kubernetes.io/zone".to_owned());
    let nodes = (btree_map(zone, "[ab]", 0..2), gone()).prop_map(|(labels, gone)| {
        let name = "n1".to_owned();
        let node = Node {
            name: name.clone(),
            labels,
        };
        Change::Node(name, (!gone).then(|| Arc::new(node)))
    });
    prop_oneof![4 => services, 4 => slices, 1 => nodes]
}

fn outcome(translator: &Translator) -> (Vec<lockstep_plan::Service>, Vec<Vec<Problem>>) {
    let problems =
        ["a", "b", "c"].map(|name| translator.problems(&Name::new("shop", name)).to_vec());
    (translator.offer().services, problems.to_vec())
}

proptest! {
    #[test]
    fn any_cluster_makes_a_snapshot_whichever_way_it_came_there(
        changes in vec(vec(any_change(), 1..4), 1..12),
    ) {
        let mut world = World::default();
        let mut translator = Translator::default();
        let mut before = outcome(&translator);
        for at_once in changes {
            for change in at_once {
                world.apply(change);
            }
            let changed = translator.update(&mut world, &settings());
            let after = outcome(&translator);
            let snapshot = Snapshot::new(1, after.0.clone());
            prop_assert!(snapshot.is_ok(), "{:#?}", snapshot.err());
            let mut anew = Translator::default();
            anew.update(&mut world, &settings());
            prop_assert_eq!(&after, &outcome(&anew));
            prop_assert!(changed || before == after);
            before = after;
        }
    }
}
