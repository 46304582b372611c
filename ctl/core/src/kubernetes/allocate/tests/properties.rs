//! What holds whatever happens in a cluster.

use super::*;
use crate::kubernetes::fixtures::settings;
use crate::kubernetes::{Change, Write};
use lockstep_kubernetes::CLASS;
use proptest::prelude::*;
use std::sync::Arc;

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A Service comes, or is another one now.
    Put(usize, Shape),
    /// One goes.
    Remove(usize),
    /// A pool comes, or is another one now.
    Pool(usize, Vec<usize>, bool),
    /// One goes.
    RemovePool(usize),
}

/// What a Service asks for.
#[derive(Debug, Clone)]
struct Shape {
    policy: usize,
    ports: Vec<u16>,
    key: Option<usize>,
    pool: Option<usize>,
    address: Option<u8>,
    local: bool,
}

const ENTRIES: [&str; 6] = [
    "192.0.2.0-192.0.2.2",
    "192.0.2.2-192.0.2.4",
    "192.0.2.5",
    "2001:db8::1-2001:db8::2",
    "2001:db8::2-2001:db8::4",
    "nonsense",
];

fn shape() -> impl Strategy<Value = Shape> {
    let seldom = |most: usize| prop::option::weighted(0.3, 0..most);
    let ports = prop::collection::vec(80_u16..83, 1..3);
    let address = prop::option::weighted(0.3, 0_u8..8);
    (
        0_usize..4,
        ports,
        seldom(2),
        seldom(3),
        address,
        any::<bool>(),
    )
        .prop_map(|(policy, ports, key, pool, address, local)| Shape {
            policy,
            ports,
            key,
            pool,
            address,
            local,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let entries = prop::collection::vec(0..ENTRIES.len(), 1..4);
    prop_oneof![
        4 => (0_usize..6, shape()).prop_map(|(at, shape)| Step::Put(at, shape)),
        1 => (0_usize..6).prop_map(Step::Remove),
        2 => (0_usize..3, entries, any::<bool>()).prop_map(|(at, e, avoid)| Step::Pool(at, e, avoid)),
        1 => (0_usize..3).prop_map(Step::RemovePool),
    ]
}

fn text(at: usize) -> String {
    format!("s{at}")
}

fn put(cluster: &mut Cluster, at: usize, shape: &Shape) {
    let text = text(at);
    let before = cluster.services.get(&name(&text)).cloned();
    cluster.service(&text, json!({}));
    if let Some(before) = before {
        // What asks for nothing any more is the same one as before otherwise.
        let object = cluster.services.get_mut(&name(&text)).unwrap();
        object["status"] = before["status"].clone();
        object["metadata"] = before["metadata"].clone();
    }
    let (policy, families) = [
        ("SingleStack", &["IPv4"][..]),
        ("SingleStack", &["IPv6"]),
        ("PreferDualStack", &["IPv4", "IPv6"]),
        ("RequireDualStack", &["IPv6", "IPv4"]),
    ][shape.policy];
    let pool = shape.pool.map(|pool| format!("p{pool}"));
    let key = shape.key.map(|key| format!("k{key}"));
    let address = shape.address.map(|last| format!("192.0.2.{last}"));
    let ports: Vec<Value> = shape
        .ports
        .iter()
        .map(|port| json!({ "port": port }))
        .collect();
    cluster.edit(
        &text,
        json!({
            "metadata": { "annotations": {
                "lockstep.dev/address-pool": pool.unwrap_or_default(),
                "lockstep.dev/allow-shared-ip": key.unwrap_or_default(),
                "lockstep.dev/load-balancer-ips": address.unwrap_or_default(),
            } },
            "spec": {
                "ipFamilyPolicy": policy,
                "ipFamilies": families,
                "ports": ports,
                "externalTrafficPolicy": if shape.local { "Local" } else { "Cluster" },
            },
        }),
    );
}

fn happen(cluster: &mut Cluster, step: &Step) {
    match step {
        Step::Put(at, shape) => put(cluster, *at, shape),
        Step::Remove(at) => {
            cluster.services.remove(&name(&text(*at)));
        }
        Step::Pool(at, entries, avoid) => {
            let entries: Vec<&str> = entries.iter().map(|at| ENTRIES[*at]).collect();
            let spec = json!({ "addresses": entries, "avoidBuggyIPs": avoid });
            cluster.pool_with(&format!("p{at}"), spec);
        }
        Step::RemovePool(at) => {
            cluster.pools.remove(&format!("p{at}"));
        }
    }
}

/// The addresses that the statuses name.
fn named(world: &World) -> BTreeMap<Name, BTreeSet<IpAddr>> {
    let addresses = |service: &Arc<Service>| service.ingress.iter().map(|i| i.address).collect();
    let services = world.services.iter();
    services
        .map(|(name, service)| (name.clone(), addresses(service)))
        .collect()
}

/// Nobody has an address twice, or one that somebody else has who does not agree.
fn no_address_twice(world: &World) {
    for (name, service) in &world.services {
        let mut families = BTreeSet::new();
        for ingress in &service.ingress {
            assert!(
                families.insert(family(ingress.address)),
                "{name}: {:?}",
                service.ingress
            );
        }
        for address in service.ingress.iter().map(|i| i.address) {
            let others = world.services.values().map(AsRef::as_ref);
            let others = others.filter(|o| o.ingress.iter().any(|i| i.address == address));
            assert_eq!(
                sharing::problem(service, others),
                None,
                "{address} of {name}"
            );
        }
    }
}

/// What came new is in one pool, that gives it.
fn new_ones_are_of_a_pool(world: &World, before: &BTreeMap<Name, BTreeSet<IpAddr>>) {
    let pools = Pools::of(world, CLASS);
    for (name, now) in named(world) {
        let had = before.get(&name).cloned().unwrap_or_default();
        for address in now.difference(&had) {
            let with: Vec<&Pool> = pools.with(*address).collect();
            assert_eq!(with.len(), 1, "{address} of {name}");
            assert!(!with[0].avoids(*address), "{address} of {name}");
        }
    }
}

/// Whom a step may move: its Service, those that share an address with it, and those that wait for
/// what they have asked for.
fn concerned(before: &World, waits: &BTreeMap<Name, Refusal>, step: &Step) -> BTreeSet<Name> {
    let mut found: BTreeSet<Name> = waits.keys().cloned().collect();
    let (Step::Put(at, _) | Step::Remove(at)) = step else {
        return found;
    };
    let subject = name(&text(*at));
    let had = named(before);
    let its = had.get(&subject).cloned().unwrap_or_default();
    let sharing = had.iter().filter(|(_, theirs)| !theirs.is_disjoint(&its));
    found.extend(sharing.map(|(name, _)| name.clone()));
    found.insert(subject);
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn addresses_stay_where_they_are(steps in prop::collection::vec(step(), 1..24)) {
        let mut cluster = Cluster::default();
        for step in steps {
            let before = cluster.world();
            let waits = allocate(&before, &settings()).refused;
            let (had, may_move) = (named(&before), concerned(&before, &waits, &step));
            happen(&mut cluster, &step);
            cluster.settle();
            let world = cluster.world();
            no_address_twice(&world);
            new_ones_are_of_a_pool(&world, &had);
            for (name, now) in named(&world) {
                let had = had.get(&name).cloned().unwrap_or_default();
                prop_assert!(
                    may_move.contains(&name) || now.is_superset(&had),
                    "{name} had {had:?} and has {now:?}"
                );
            }
        }
    }

    #[test]
    fn a_leader_that_follows_another_one_in_the_middle_comes_to_the_same(
        steps in prop::collection::vec(step(), 1..12),
        written in any::<u64>(),
    ) {
        let mut one = Cluster::default();
        for step in &steps {
            happen(&mut one, step);
        }
        let mut other = one.clone();
        one.settle();
        // The first leader gets as far as this; the next one begins with the world as it is then.
        let writes = other.writes().into_iter().enumerate();
        let done: Vec<Write> = writes
            .filter(|(at, _)| written >> (at % 64) & 1 == 1)
            .map(|(_, write)| write)
            .collect();
        other.apply(done);
        other.settle();
        prop_assert_eq!(named(&one.world()), named(&other.world()));
        prop_assert_eq!(one.allocation(), other.allocation());
    }

    #[test]
    fn the_order_in_which_objects_arrive_decides_nothing(
        steps in prop::collection::vec(step(), 1..16),
        order in any::<u64>(),
    ) {
        let mut cluster = Cluster::default();
        for step in &steps {
            happen(&mut cluster, step);
        }
        let world = cluster.world();
        let mut changes: Vec<Change> = Vec::new();
        for (name, service) in &world.services {
            changes.push(Change::Service(name.clone(), Some(service.clone())));
        }
        for (name, pool) in &world.pools {
            changes.push(Change::Pool(name.clone(), Some(pool.clone())));
        }
        let mut other = World::default();
        let mut seed = order;
        while !changes.is_empty() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(seed >> 33).unwrap() % changes.len();
            other.apply(changes.swap_remove(at));
        }
        prop_assert_eq!(allocate(&world, &settings()), allocate(&other, &settings()));
    }
}
