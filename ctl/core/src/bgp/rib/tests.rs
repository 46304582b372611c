//! What is told, read by the codec's own parser; and what routers are spared.

use super::super::open::Settings;
use super::super::routes::{Policy, Wanted};
use super::*;
use crate::announce::ways::{Advertised, Advertisements, Route};
use crate::announce::{Announced, Announcements, Withheld};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

fn settings(local_as: u32, remote_as: u32) -> Settings {
    Settings {
        local_as,
        router_id: [10, 0, 0, 1].into(),
        remote_as,
        hold_time: 9,
        families: Families::from(Family::ALL),
        add_path: true,
        graceful_restart: None,
        passive: false,
    }
}

fn session() -> Session {
    Session {
        router_id: [10, 0, 0, 2].into(),
        hold_time: Duration::from_secs(9),
        four_octet_as: true,
        families: Families::from(Family::ALL),
        add_path: Families::new(),
        graceful_restart: None,
    }
}

fn attributes(settings: &Settings) -> Attributes {
    let policy = Policy {
        next_hop_v6: Some("2001:db8::1".parse().unwrap()),
        local_pref: 150,
        med: Some(5),
        prepend: 2,
        communities: vec![
            Community::Standard(64512 << 16 | 100),
            Community::Large(1, 2, 3),
            Community::Extended(Community::ROUTE_TARGET, 64512, 7),
        ],
        ..Policy::default()
    };
    policy.attributes(settings, "10.0.0.1".parse().unwrap())
}

fn set(all: &[&str]) -> Prefixes {
    let plain = |p: &&str| (p.parse().unwrap(), BTreeSet::new());
    all.iter().map(plain).collect()
}

/// The messages, each in its limit, as the codec reads them.
fn read(session: &Session, mut bytes: &[u8]) -> Vec<BgpUpdateMessage> {
    let add_path = |family| session.add_path.contains(&family);
    let add_path = HashMap::from([
        (AddressType::Ipv4Unicast, add_path(Family::Ipv4)),
        (AddressType::Ipv6Unicast, add_path(Family::Ipv6)),
    ]);
    let mut context = BgpParsingContext::new(
        session.four_octet_as,
        HashMap::new(),
        add_path,
        true,
        true,
        true,
        true,
    );
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        assert!(length <= MAX_MESSAGE, "{length}");
        let (message, rest) = bytes.split_at(length);
        bytes = rest;
        match BgpMessage::parse(&mut SliceReader::new(message), &mut context).unwrap() {
            BgpMessage::Update(update) => all.push(update),
            other => panic!("{other:?}"),
        }
    }
    all
}

/// What a router has after these messages: each prefix, and the attributes it came with.
type Table = BTreeMap<(IpNet, Option<u32>), Vec<PathAttribute>>;

fn apply(table: &mut Table, updates: &[BgpUpdateMessage]) {
    for update in updates {
        for gone in update.withdraw_routes() {
            table.remove(&(gone.network().address().into(), gone.path_id()));
        }
        let mut rest = Vec::new();
        let (mut reached, mut gone) = (Vec::new(), Vec::new());
        for attribute in update.path_attributes() {
            match attribute.value() {
                PathAttributeValue::MpReach(MpReach::Ipv6Unicast { nlri, .. }) => {
                    reached.extend(nlri.iter().copied());
                    rest.push(attribute.clone());
                }
                PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                    gone.extend(nlri.iter().copied());
                }
                _ => rest.push(attribute.clone()),
            }
        }
        for one in gone {
            table.remove(&(one.network().address().into(), one.path_id()));
        }
        for one in reached {
            table.insert(
                (one.network().address().into(), one.path_id()),
                rest.clone(),
            );
        }
        for one in update.nlri() {
            table.insert(
                (one.network().address().into(), one.path_id()),
                rest.clone(),
            );
        }
    }
}

fn names(table: &Table) -> Prefixes {
    let plain = |(prefix, _): &(IpNet, _)| (*prefix, BTreeSet::new());
    table.keys().map(plain).collect()
}

#[test]
fn everything_is_told_once_then_differences_with_withdrawals_first() {
    let (settings, session) = (settings(64512, 64512), session());
    let attributes = attributes(&settings);
    let mut told = Told::default();
    let first = set(&["203.0.113.10/32", "2001:db8:1::10/128"]);
    let updates = told.update(&session, &first, &attributes);
    let messages = read(&session, &updates.bytes);
    assert_eq!((updates.announced, updates.withdrawn), (2, 0));
    assert_eq!(messages.len() as u64, updates.messages);
    let ends: Vec<_> = messages.iter().filter_map(|m| m.end_of_rib()).collect();
    assert_eq!(ends, [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast]);
    assert!(messages[2].end_of_rib().is_some(), "after all routes");
    let mut table = Table::new();
    apply(&mut table, &messages);
    assert_eq!(names(&table), first);

    assert_eq!(
        told.update(&session, &first, &attributes),
        Updates::default()
    );

    let second = set(&["203.0.113.11/32", "2001:db8:1::10/128"]);
    let updates = told.update(&session, &second, &attributes);
    let messages = read(&session, &updates.bytes);
    assert_eq!(messages.len(), 2, "no End-of-RIB again");
    assert_eq!(
        messages[0].withdraw_routes().len(),
        1,
        "first what is wrong"
    );
    apply(&mut table, &messages);
    assert_eq!((names(&table), told.prefixes()), (second.clone(), &second));
}

#[test]
fn other_attributes_are_told_for_all_routes_again() {
    let (settings, session) = (settings(64512, 64512), session());
    let mut attributes = attributes(&settings);
    let mut told = Told::default();
    let wanted = set(&["203.0.113.10/32", "2001:db8:1::10/128"]);
    told.update(&session, &wanted, &attributes);
    attributes.med = None;
    let updates = told.update(&session, &wanted, &attributes);
    assert_eq!((updates.announced, updates.withdrawn), (2, 0));
}

#[test]
fn families_without_agreement_or_next_hop_are_not_told() {
    let settings = settings(64512, 64512);
    let only_v4 = Session {
        families: Families::from([Family::Ipv4]),
        ..session()
    };
    let wanted = set(&["203.0.113.10/32", "2001:db8:1::10/128"]);
    let mut told = Told::default();
    told.update(&only_v4, &wanted, &attributes(&settings));
    assert_eq!(told.prefixes(), &set(&["203.0.113.10/32"]));
    let mut without = attributes(&settings);
    without.next_hop_v6 = None;
    let mut told = Told::default();
    let updates = told.update(&session(), &wanted, &without);
    assert_eq!(told.prefixes(), &set(&["203.0.113.10/32"]));
    assert_eq!(updates.announced, 1);
}

fn values(session: &Session, attributes: &Attributes) -> Vec<PathAttributeValue> {
    let mut told = Told::default();
    let updates = told.update(session, &set(&["203.0.113.10/32"]), attributes);
    let messages = read(session, &updates.bytes);
    let all = messages[0].path_attributes().iter();
    all.map(|a| a.value().clone()).collect()
}

#[test]
fn routers_of_the_own_as_get_local_pref_and_no_path() {
    use PathAttributeValue as V;
    let found = values(&session(), &attributes(&settings(64512, 64512)));
    assert_eq!(
        found[..5],
        [
            V::Origin(Origin::IGP),
            V::AsPath(AsPath::as4_path_segments(vec![])),
            V::NextHop(NextHop::new([10, 0, 0, 1].into())),
            V::MultiExitDiscriminator(MultiExitDiscriminator::new(5)),
            V::LocalPreference(LocalPreference::new(150)),
        ]
    );
    assert!(matches!(
        &found[5..],
        [
            V::Communities(_),
            V::ExtendedCommunities(_),
            V::LargeCommunities(_)
        ]
    ));
}

#[test]
fn routers_of_other_ases_get_the_path_with_our_as_as_often_as_asked() {
    use PathAttributeValue as V;
    let found = values(&session(), &attributes(&settings(4_200_000_000, 64513)));
    let path = As4PathSegment::new(AsPathSegmentType::AsSequence, vec![4_200_000_000; 3]);
    assert!(found.contains(&V::AsPath(AsPath::as4_path_segments(vec![path]))));
    assert!(!found.iter().any(|v| matches!(v, V::LocalPreference(_))));
}

#[test]
fn routers_with_two_octets_get_as_trans_and_the_path_beside_it() {
    use PathAttributeValue as V;
    let old = Session {
        four_octet_as: false,
        ..session()
    };
    let found = values(&old, &attributes(&settings(4_200_000_000, 64513)));
    let short = As2PathSegment::new(AsPathSegmentType::AsSequence, vec![23_456; 3]);
    let long = As4PathSegment::new(AsPathSegmentType::AsSequence, vec![4_200_000_000; 3]);
    assert!(found.contains(&V::AsPath(AsPath::as2_path_segments(vec![short]))));
    let beside = V::As4Path(As4Path::new(vec![long]));
    let at = found.iter().position(|v| *v == beside).unwrap();
    assert!(
        matches!(found[at - 1], V::ExtendedCommunities(_)),
        "in order"
    );
    let found = values(&old, &attributes(&settings(64512, 64513)));
    assert!(
        !found.iter().any(|v| matches!(v, V::As4Path(_))),
        "none is long"
    );
}

#[test]
fn a_refresh_says_one_family_again_to_its_end() {
    let (settings, session) = (settings(64512, 64512), session());
    let mut told = Told::default();
    let wanted = set(&["203.0.113.10/32", "2001:db8:1::10/128"]);
    assert_eq!(told.replay(&session, Family::Ipv6), Updates::default());
    told.update(&session, &wanted, &attributes(&settings));
    let updates = told.replay(&session, Family::Ipv6);
    let messages = read(&session, &updates.bytes);
    let mut table = Table::new();
    apply(&mut table, &messages);
    assert_eq!(names(&table), set(&["2001:db8:1::10/128"]));
    assert_eq!(messages[1].end_of_rib(), Some(AddressType::Ipv6Unicast));
}

/// What the router 10.0.0.2 is to have.
fn wanted(
    vips: &Announcements,
    ways: Advertisements,
    aggregates: &[&str],
    specifics: bool,
) -> Prefixes {
    let announced = Announced::new(vips.clone(), ways);
    let aggregates: Vec<IpNet> = aggregates.iter().map(|a| a.parse().unwrap()).collect();
    let wanted = Wanted::of(&announced, &aggregates, specifics);
    wanted.to("10.0.0.2".parse().unwrap())
}

#[test]
fn aggregates_stand_for_the_vips_inside_of_them() {
    let vip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut vips = Announcements::from([
        (vip("203.0.113.10"), None),
        (vip("203.0.113.11"), Some(Withheld::NoEngine)),
        (vip("198.51.100.1"), None),
    ]);
    let found = |vips: &Announcements, specifics| {
        wanted(vips, Advertisements::new(), &["203.0.113.0/24"], specifics)
    };
    let both = set(&["203.0.113.0/24", "198.51.100.1/32"]);
    assert_eq!(found(&vips, false), both);
    let specific = set(&["203.0.113.0/24", "203.0.113.10/32", "198.51.100.1/32"]);
    assert_eq!(found(&vips, true), specific);
    vips.insert(vip("203.0.113.10"), Some(Withheld::Drained));
    assert_eq!(found(&vips, false), set(&["198.51.100.1/32"]));
}

fn route(peers: &[&str], communities: &[&str], length: Option<u8>) -> Route {
    Route {
        peers: peers.iter().map(|p| p.parse().unwrap()).collect(),
        communities: communities.iter().map(|c| c.parse().unwrap()).collect(),
        length,
    }
}

#[test]
fn a_vip_of_a_cluster_goes_to_the_routers_and_as_the_prefix_that_its_advertisements_say() {
    let communities = |all: &[&str]| all.iter().map(|c| c.parse().unwrap()).collect();
    for (routes, has) in [
        (vec![], None),
        (
            vec![route(&[], &[], None)],
            Some(("203.0.112.0/23", &[][..])),
        ),
        (
            vec![route(&[], &[], Some(32))],
            Some(("203.0.113.10/32", &[])),
        ),
        (
            vec![route(&[], &[], Some(26))],
            Some(("203.0.113.0/26", &[])),
        ),
        (
            vec![route(&["10.0.0.2"], &["64512:1"], Some(32))],
            Some(("203.0.113.10/32", &["64512:1"])),
        ),
        (vec![route(&["10.0.0.3"], &[], Some(32))], None),
        // What several say of one prefix comes together, and what is said to others does not.
        (
            vec![
                route(&["10.0.0.2", "10.0.0.3"], &["64512:1"], Some(32)),
                route(&[], &["64512:2"], Some(32)),
                route(&["10.0.0.3"], &["64512:3"], Some(32)),
            ],
            Some(("203.0.113.10/32", &["64512:1", "64512:2"])),
        ),
    ] {
        let vip: IpAddr = "203.0.113.10".parse().unwrap();
        let vips = Announcements::from([(vip, None)]);
        let way = Advertised {
            bgp: routes.iter().cloned().collect(),
            layer2: None,
        };
        let found = wanted(
            &vips,
            Advertisements::from([(vip, way)]),
            &["203.0.112.0/23"],
            false,
        );
        let has = has.map(|(prefix, all)| (prefix.parse().unwrap(), communities(all)));
        assert_eq!(found, Prefixes::from_iter(has), "{routes:?}");
    }
}

#[test]
fn prefixes_have_the_communities_of_their_own_and_only_those_that_change_are_told_again() {
    let (settings, session) = (settings(64512, 64512), session());
    let attributes = attributes(&settings);
    let own: BTreeSet<Community> = ["64512:7", "64512:100"].map(|c| c.parse().unwrap()).into();
    let mut wanted = set(&["203.0.113.10/32", "2001:db8:1::10/128"]);
    wanted.insert("203.0.113.11/32".parse().unwrap(), own);
    let (mut told, mut table) = (Told::default(), Table::new());
    let first = told.update(&session, &wanted, &attributes);
    assert_eq!(first.announced, 3);
    apply(&mut table, &read(&session, &first.bytes));
    let has = |table: &Table, prefix: &str| -> Vec<u32> {
        let attributes = &table[&(prefix.parse().unwrap(), None)];
        let standard = attributes.iter().find_map(|a| match a.value() {
            PathAttributeValue::Communities(all) => Some(all.communities()),
            _ => None,
        });
        standard.into_iter().flatten().map(|c| c.value()).collect()
    };
    let number = |low: u32| 64512 << 16 | low;
    // What the session has already is not there twice.
    assert_eq!(has(&table, "203.0.113.11/32"), [number(100), number(7)]);
    assert_eq!(has(&table, "203.0.113.10/32"), [number(100)]);
    assert_eq!(has(&table, "2001:db8:1::10/128"), [number(100)]);
    assert_eq!(
        told.update(&session, &wanted, &attributes),
        Updates::default()
    );
    let other = ["64512:8".parse().unwrap()].into();
    wanted.insert("203.0.113.11/32".parse().unwrap(), other);
    let second = told.update(&session, &wanted, &attributes);
    assert_eq!((second.announced, second.withdrawn), (1, 0));
    apply(&mut table, &read(&session, &second.bytes));
    assert_eq!(has(&table, "203.0.113.11/32"), [number(100), number(8)]);
    // Said again, it is the same.
    let again = told.replay(&session, Family::Ipv4);
    let mut replayed = Table::new();
    apply(&mut replayed, &read(&session, &again.bytes));
    assert_eq!(has(&replayed, "203.0.113.11/32"), [number(100), number(8)]);
}

fn some_prefixes() -> impl Strategy<Value = Prefixes> {
    let v4 = (any::<u16>(), 20..=32_u8).prop_map(|(n, length)| {
        let address = u32::from_be_bytes([10, 0, 0, 0]) | u32::from(n);
        ipnet::Ipv4Net::new(address.into(), length)
            .unwrap()
            .trunc()
            .into()
    });
    let v6 = (any::<u16>(), 40..=128_u8).prop_map(|(n, length)| {
        let address = 0x2001_0db8_u128 << 96 | u128::from(n) << 40 | u128::from(n);
        ipnet::Ipv6Net::new(address.into(), length)
            .unwrap()
            .trunc()
            .into()
    });
    let communities = prop_oneof![
        9 => Just(BTreeSet::new()),
        1 => (0_u32..9).prop_map(|low| BTreeSet::from([Community::Standard(low)])),
    ];
    proptest::collection::btree_map(prop_oneof![v4, v6], communities, 0..2_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_router_has_what_it_is_to_have_whatever_came_before(
        steps in proptest::collection::vec(some_prefixes(), 1..4),
        add_path in any::<bool>(),
        four_octet_as in any::<bool>(),
    ) {
        let settings = settings(4_200_000_000, 64513);
        let attributes = attributes(&settings);
        let session = Session {
            four_octet_as,
            add_path: if add_path { Families::from(Family::ALL) } else { Families::new() },
            ..session()
        };
        let (mut told, mut table) = (Told::default(), Table::new());
        for wanted in steps {
            let updates = told.update(&session, &wanted, &attributes);
            apply(&mut table, &read(&session, &updates.bytes));
            prop_assert!(names(&table).keys().eq(wanted.keys()));
            prop_assert_eq!(told.prefixes(), &wanted);
            let id = add_path.then_some(PATH_ID);
            prop_assert!(table.keys().all(|(_, path)| *path == id));
        }
    }
}
