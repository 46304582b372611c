//! What stands together, and what is left out.

use super::*;
use crate::testing::service;

fn offer(services: Vec<Service>) -> Arc<Offer> {
    Arc::new(Offer {
        services,
        ..Offer::default()
    })
}

fn said(revision: u64, services: Vec<Service>) -> Provided {
    let offer = offer(services);
    Provided::Services { revision, offer }
}

fn with_file(services: Vec<Service>) -> Sources {
    let mut sources = Sources::default();
    sources.set_file(offer(services));
    sources
}

fn named(sources: &Sources) -> Vec<String> {
    let services = sources.union().offer.services;
    services.iter().map(|s| s.name.to_string()).collect()
}

fn left_out(sources: &Sources) -> Vec<(String, String)> {
    let left_out = sources.union().left_out.into_iter();
    left_out
        .map(|(name, why)| (name.to_string(), why))
        .collect()
}

const KUBERNETES: Provider = Provider::Kubernetes;

#[test]
fn services_of_a_provider_stand_beside_the_files_with_all_that_is_theirs() {
    let mut sources = with_file(vec![service("a", &["10.0.0.1"])]);
    let name = ServiceName::new("b").unwrap();
    let provided = Offer {
        services: vec![service("b", &["10.0.0.2"])],
        spreads: Spreads::from([(name.clone(), crate::spread::Spread::default())]),
        health: BTreeMap::from([(name.clone(), Policy::default())]),
        ..Offer::default()
    };
    let offer = Arc::new(provided);
    let revision = 7;
    sources.provide(KUBERNETES, Provided::Services { revision, offer });
    let union = sources.union();
    assert_eq!(named(&sources), ["a", "b"]);
    assert_eq!(sources.revisions(), BTreeMap::from([(KUBERNETES, 7)]));
    assert!(union.offer.spreads.contains_key(&name) && union.offer.health.contains_key(&name));
    sources.provide(KUBERNETES, said(8, vec![]));
    assert_eq!(named(&sources), ["a"]);
}

#[test]
fn the_file_wins_over_a_provider_and_nobody_else_loses_by_it() {
    // b: the name. c: the VIP. d: its VIP is a backend of the file. e and f: the same VIP.
    let mut c = service("c", &["10.0.0.2"]);
    c.vips = service("b", &[]).vips;
    let mut d = service("d", &["10.0.0.2"]);
    d.vips = vec!["10.0.0.1:80/tcp".parse().unwrap()];
    let (e, mut f) = (service("e", &["10.0.0.2"]), service("f", &["10.0.0.2"]));
    f.vips = e.vips.clone();
    let good = service("g", &["10.0.0.2"]);
    let mut sources = with_file(vec![service("b", &["10.0.0.1"])]);
    let mut bs = service("b", &["10.0.0.9"]);
    bs.vips = vec!["203.0.113.99:1/tcp".parse().unwrap()];
    sources.provide(KUBERNETES, said(1, vec![bs, c, d, e, f, good]));
    assert_eq!(named(&sources), ["b", "e", "g"]);
    let union = sources.union();
    assert_eq!(union.offer.services[0].backends[0].name, "10.0.0.1");
    assert!(Snapshot::new(1, union.offer.services).is_ok());
    let left_out = left_out(&sources);
    let names: Vec<_> = left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d", "f"]);
    assert_eq!(left_out[0].1, NAME_TAKEN);
    assert!(
        left_out[1].1.contains("belongs to service b already"),
        "{left_out:?}"
    );
    assert!(left_out[2].1.contains("would loop"), "{left_out:?}");
    assert!(
        left_out[3].1.contains("belongs to service e already"),
        "{left_out:?}"
    );
}

#[test]
fn what_no_engine_has_room_for_is_left_out_from_the_end() {
    let backends = |from: usize, count: usize| -> Vec<String> {
        let address = |n: usize| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        (from..from + count).map(address).collect()
    };
    let with = |name: &str, from: usize, count: usize| {
        let backends = backends(from, count);
        let mut service = service(
            "x",
            &backends.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        service.name = ServiceName::new(name).unwrap();
        let port: u16 = name[1..].parse().unwrap();
        service.vips = vec![format!("203.0.113.10:{port}/tcp").parse().unwrap()];
        service
    };
    let mut services: Vec<Service> = (100..133)
        .map(|n| with(&format!("s{n}"), 1, Limits::BACKENDS_PER_SERVICE))
        .collect();
    services.push(with("s099", 1, Limits::BACKENDS_PER_SERVICE + 1));
    let mut sources = with_file(vec![]);
    sources.provide(KUBERNETES, said(1, services));
    let left_out = left_out(&sources);
    let names: Vec<_> = left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["s099", "s132"], "{left_out:?}");
    assert_eq!(named(&sources).len(), 32);
}

#[test]
fn what_the_engine_has_stays_while_a_provider_is_awaited() {
    let in_force = [service("a", &["10.0.0.9"]), service("k", &["10.0.0.2"])];
    let mut sources = with_file(vec![service("a", &["10.0.0.1"])]);
    assert!(!sources.keep(&in_force), "nobody is awaited");
    assert!(sources.expect(&BTreeSet::from([KUBERNETES])));
    assert!(sources.keep(&in_force) && !sources.keep(&[]));
    assert_eq!(named(&sources), ["a", "k"]);
    assert_eq!(
        sources.union().offer.services[0].backends[0].name,
        "10.0.0.1"
    );
    assert!(!sources.expect(&BTreeSet::from([KUBERNETES])));
    // A file that takes its place is no conflict to be told of.
    sources.set_file(offer(vec![service("k", &["10.0.0.3"])]));
    assert_eq!(
        (named(&sources), left_out(&sources)),
        (vec!["k".to_owned()], vec![])
    );
    sources.provide(KUBERNETES, said(1, vec![service("l", &[])]));
    sources.provide(KUBERNETES, Provided::Awaited);
    assert_eq!(named(&sources), ["k", "l"], "what it said, it said");
    assert!(sources.expect(&BTreeSet::new()));
    assert_eq!(named(&sources), ["k"]);
}

#[test]
fn nothing_is_known_until_somebody_has_said_something() {
    let mut sources = Sources::default();
    assert!(sources.is_unknown());
    sources.expect(&BTreeSet::from([KUBERNETES]));
    assert!(sources.is_unknown());
    sources.provide(KUBERNETES, said(1, vec![]));
    assert!(!sources.is_unknown());
    assert!(!with_file(vec![]).is_unknown());
}

#[test]
fn what_the_engine_can_never_have_is_left_out_until_it_is_another() {
    let mut sources = with_file(vec![service("a", &[])]);
    let (b, c) = (service("b", &["10.0.0.1"]), service("c", &[]));
    sources.provide(KUBERNETES, said(1, vec![b.clone(), c.clone()]));
    let name = |name| ServiceName::new(name).unwrap();
    assert!(sources.refuse(&name("b"), "no IPv6"));
    assert!(!sources.refuse(&name("b"), "no IPv6"), "it is out already");
    assert!(
        !sources.refuse(&name("a"), "the file's"),
        "the file is judged as a whole"
    );
    assert_eq!(named(&sources), ["a", "c"]);
    assert_eq!(left_out(&sources), [("b".to_owned(), "no IPv6".to_owned())]);
    sources.provide(KUBERNETES, said(2, vec![b, c.clone()]));
    assert_eq!(named(&sources), ["a", "c"], "the same again");
    sources.provide(KUBERNETES, said(3, vec![service("b", &["10.0.0.2"]), c]));
    assert_eq!(named(&sources), ["a", "b", "c"]);
}

#[test]
fn the_ways_of_a_providers_vips_go_on_while_it_is_awaited_and_none_are_of_the_file() {
    use crate::announce::ways::{Advertised, Advertisements};
    let way = |text: &str| (text.parse().unwrap(), Advertised::default());
    let ways = |all: &[&str]| all.iter().map(|a| way(a)).collect::<Advertisements>();
    let of = |sources: &Sources| sources.union().offer.advertised;
    let mut sources = Sources::default();
    sources.remember(ways(&["203.0.113.10", "203.0.113.99"]));
    assert_eq!(of(&sources), ways(&[]), "there is no provider");
    sources.expect(&BTreeSet::from([KUBERNETES]));
    assert_eq!(of(&sources), ways(&["203.0.113.10", "203.0.113.99"]));
    // It has a service with this VIP.
    sources.set_file(offer(vec![service("a", &["10.0.0.1"])]));
    assert_eq!(of(&sources), ways(&["203.0.113.99"]));
    let offer = Arc::new(Offer {
        advertised: ways(&["203.0.113.10", "203.0.113.50"]),
        ..Offer::default()
    });
    let revision = 1;
    sources.provide(KUBERNETES, Provided::Services { revision, offer });
    assert_eq!(of(&sources), ways(&["203.0.113.50"]));
}
