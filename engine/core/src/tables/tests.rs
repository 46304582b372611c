//! Slots across snapshots, VIP lookup, rooms, previews.

use super::*;
use crate::counters::{BACKEND_SLOTS, VIP_SLOTS};
use crate::fixtures::{
    VIP, VIP_UDP, VIP6, addresses, backend, compile, draining, route, service, three, via_router,
    web,
};
use core::net::Ipv4Addr;
use lockstep_plan::{Limits, TableSize};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{format, vec};

fn reference(tables: &Tables, service: &str, address: &str) -> BackendRef {
    let ring = tables
        .rings()
        .iter()
        .find(|r| r.name.as_str() == service)
        .unwrap();
    let address: IpAddr = address.parse().unwrap();
    ring.members
        .iter()
        .find(|m| m.backend.address == address)
        .unwrap()
        .backend_ref
}

#[test]
fn a_destination_finds_its_vip_and_the_wildcard_only_after_it() {
    let tables = compile(
        &Tables::default(),
        1,
        vec![
            service("web", &[VIP, VIP6], three()),
            service("all", &["203.0.113.10:0/tcp"], three()),
        ],
    );
    let name = |address: &str, port, protocol| {
        tables
            .vip(address.parse().unwrap(), port, protocol)
            .and_then(|v| tables.service_name(v))
    };
    assert_eq!(name("203.0.113.10", 80, 6).as_deref(), Some("web"));
    assert_eq!(name("2001:db8::10", 80, 6).as_deref(), Some("web"));
    assert_eq!(name("203.0.113.10", 443, 6).as_deref(), Some("all"));
    assert_eq!(name("203.0.113.10", 80, 17), None);
    assert_eq!(name("203.0.113.11", 80, 6), None);
}

#[test]
fn a_destination_finds_its_port_before_a_range_and_a_range_before_every_port() {
    let tables = compile(
        &Tables::default(),
        1,
        vec![
            service(
                "port",
                &["203.0.113.10:150/udp", "[2001:db8::10]:150/udp"],
                three(),
            ),
            service(
                "range",
                &[
                    "203.0.113.10:100-200/udp",
                    "203.0.113.10:201-300/udp",
                    "203.0.113.10:65000-65535/udp",
                    "[2001:db8::10]:100-200/udp",
                ],
                three(),
            ),
            service(
                "other",
                &["203.0.113.9:0/udp", "203.0.113.10:301-310/tcp"],
                three(),
            ),
            service("all", &["203.0.113.10:0/udp"], three()),
        ],
    );
    let name = |address: &str, port, protocol| {
        tables
            .vip(address.parse().unwrap(), port, protocol)
            .and_then(|v| tables.service_name(v))
    };
    for (port, expected) in [
        (1, "all"),
        (99, "all"),
        (100, "range"),
        (149, "range"),
        (150, "port"),
        (151, "range"),
        (200, "range"),
        (201, "range"),
        (300, "range"),
        (301, "all"),
        (64_999, "all"),
        (65_000, "range"),
        (65_535, "range"),
    ] {
        assert_eq!(
            name("203.0.113.10", port, 17).as_deref(),
            Some(expected),
            "{port}"
        );
    }
    assert_eq!(name("203.0.113.9", 100, 17).as_deref(), Some("other"));
    assert_eq!(name("203.0.113.10", 305, 6).as_deref(), Some("other"));
    assert_eq!(name("203.0.113.10", 100, 6), None, "another protocol");
    assert_eq!(name("203.0.113.11", 150, 17), None, "another address");
    assert_eq!(name("2001:db8::10", 150, 17).as_deref(), Some("port"));
    assert_eq!(name("2001:db8::10", 100, 17).as_deref(), Some("range"));
    assert_eq!(name("2001:db8::10", 99, 17), None);
    let rooms: Vec<String> = tables.rooms().map(|(vip, _)| vip.to_string()).collect();
    assert!(
        rooms.contains(&"203.0.113.10:65000-65535/udp".to_string()),
        "{rooms:?}"
    );
}

proptest! {
    /// The index finds what a walk over all VIPs finds.
    #[test]
    fn the_index_agrees_with_a_walk_over_all_vips(
        starts in proptest::collection::btree_map(1_u16..2_000, 1_u16..40, 0..40),
        singles in proptest::collection::btree_set(1_u16..2_000, 0..20),
        every: bool,
        ports in proptest::collection::vec(0_u16..2_100, 50),
    ) {
        let address: IpAddr = "203.0.113.10".parse().unwrap();
        let mut vips = Vec::new();
        let mut free = 1;
        for (&first, &length) in &starts {
            let first = first.max(free);
            free = first + length + 1;
            vips.push(Vip::with_ports(address, first, first + length, Protocol::Udp).unwrap());
        }
        vips.extend(singles.iter().map(|&p| Vip::new(address, p, Protocol::Udp).unwrap()));
        vips.extend(every.then(|| Vip::new(address, 0, Protocol::Udp).unwrap()));
        let slots: Vec<(Vip, u16)> = vips.iter().copied().zip(1..).collect();
        let index = VipIndex::new(slots.iter().copied());
        let width = |vip: &Vip| match vip.port() {
            0 => u16::MAX,
            first => vip.last_port() - first,
        };
        for port in ports {
            let narrowest = slots
                .iter()
                .filter(|(vip, _)| vip.has_port(port))
                .min_by_key(|(vip, _)| width(vip));
            prop_assert_eq!(index.find(address, port, 17), narrowest.map(|&(_, slot)| slot), "{}", port);
        }
    }
}

#[test]
fn what_stays_keeps_its_slot_and_what_goes_is_told_from_its_successor() {
    let one = compile(&Tables::default(), 1, web());
    let kept = reference(&one, "web", "10.0.0.1");
    let gone = reference(&one, "web", "10.0.0.2");
    let backends = vec![
        backend("10.0.0.9"),
        backend("10.0.0.3"),
        backend("10.0.0.1"),
    ];
    let two = compile(&one, 2, vec![service("web", &[VIP], backends)]);
    assert_eq!(reference(&two, "web", "10.0.0.1"), kept);
    assert!(two.hop(kept).is_some());
    assert!(two.hop(gone).is_none(), "a removed backend is nobody");
    let vip6 = one.vip("2001:db8::10".parse().unwrap(), 80, 6).unwrap();
    assert!(one.vip_slot(vip6).is_some() && two.vip_slot(vip6).is_none());

    // A backend that comes back is a new one: its old flows were given to others meanwhile.
    let three = compile(&two, 3, web());
    assert_ne!(reference(&three, "web", "10.0.0.2"), gone);
    assert!(three.hop(gone).is_none());
}

#[test]
fn slots_are_used_again_under_churn_and_never_mistaken() {
    let mut tables = Tables::default();
    let mut old = Vec::new();
    for epoch in 1..1000_u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + epoch).to_string();
        let vip = format!("{}:80/tcp", Ipv4Addr::from(0xcb00_0000 + epoch % 7));
        let services = vec![service("web", &[&vip], vec![backend(&address)])];
        tables = compile(&tables, epoch.into(), services);
        let current = reference(&tables, "web", &address);
        assert!(
            current.slot() < 200,
            "slot {} after {epoch} epochs",
            current.slot()
        );
        assert!(tables.hop(current).is_some());
        old.push(current);
        // The last 60 owners are all still told apart.
        for earlier in old.iter().rev().skip(1).take(60) {
            assert!(tables.hop(*earlier).is_none());
        }
    }
}

#[test]
fn a_vip_that_changes_service_is_another_vip() {
    let one = compile(&Tables::default(), 1, vec![service("a", &[VIP], three())]);
    let before = one.vip("203.0.113.10".parse().unwrap(), 80, 6).unwrap();
    let two = compile(&one, 2, vec![service("b", &[VIP], three())]);
    assert!(two.vip_slot(before).is_none());
    let after = two.vip("203.0.113.10".parse().unwrap(), 80, 6).unwrap();
    assert_eq!(two.service_name(after).as_deref(), Some("b"));
}

#[test]
fn draining_backends_have_no_share_but_a_hop() {
    let backends = vec![backend("10.0.0.1"), draining("10.0.0.2")];
    let tables = compile(
        &Tables::default(),
        1,
        vec![service("web", &[VIP], backends)],
    );
    let ring = &tables.rings()[0];
    assert_eq!(ring.members[1].entries, 0);
    assert_eq!(ring.share(&ring.members[0]), 1.0);
    assert!(tables.hop(ring.members[1].backend_ref).is_some());
    assert!((0..1000_u64).all(|n| ring.select(n << 54) == Some(ring.members[0].backend_ref)));
}

#[test]
fn a_service_without_active_backends_selects_none() {
    for backends in [vec![], vec![draining("10.0.0.1")]] {
        let tables = compile(
            &Tables::default(),
            1,
            vec![service("web", &[VIP], backends)],
        );
        assert_eq!(tables.rings()[0].select(12345), None);
    }
}

#[test]
fn the_room_is_the_tunnel_header_and_the_tag_most_ways_need() {
    let tagged = Route {
        link: LinkHeader {
            vlan: Some(100),
            ..route().link
        },
        ..route()
    };
    let rooms = |services: Vec<_>, resolve: fn(IpAddr) -> NextHop, with: Route| {
        let snapshot = Snapshot::new(1, services).unwrap();
        let resolve = |a| match resolve(a) {
            NextHop::Via(_) => NextHop::Via(with),
            other => other,
        };
        let tables = Tables::compile(&Tables::default(), &snapshot, addresses(), resolve).unwrap();
        tables.rooms().map(|(_, room)| room).collect::<Vec<_>>()
    };
    let v6 = vec![service("six", &[VIP], vec![backend("fd00::1")])];
    assert_eq!(rooms(web(), via_router, route()), [20, 20, 20]);
    assert_eq!(rooms(web(), via_router, tagged), [24, 24, 24]);
    assert_eq!(rooms(v6.clone(), via_router, route()), [40]);
    assert_eq!(
        rooms(v6, |_| NextHop::NoRoute, tagged),
        [40],
        "unknown ways are untagged"
    );
    assert_eq!(
        rooms(vec![service("none", &[VIP], vec![])], via_router, route()),
        [0]
    );
}

#[test]
fn tunnels_need_an_engine_address_of_their_version() {
    let only_v4 = EngineAddresses {
        v6: None,
        ..addresses()
    };
    let snapshot =
        Snapshot::new(1, vec![service("six", &[VIP], vec![backend("fd00::1")])]).unwrap();
    let error = Tables::compile(&Tables::default(), &snapshot, only_v4, via_router).unwrap_err();
    assert!(error.to_string().contains("service six"), "{error}");
    assert!(error.to_string().contains("no IPv6 address"), "{error}");

    let snapshot = Snapshot::new(1, vec![service("web", &["192.0.2.1:80/tcp"], three())]).unwrap();
    let error =
        Tables::compile(&Tables::default(), &snapshot, addresses(), via_router).unwrap_err();
    assert!(
        error.to_string().contains("is an engine address"),
        "{error}"
    );
}

#[test]
fn rerouting_changes_ways_and_nothing_else() {
    let one = compile(&Tables::default(), 1, web());
    let two = one.rerouted(|_| Some(NextHop::NoNeighbour));
    let backend = reference(&one, "web", "10.0.0.1");
    assert!(one.hop(backend).unwrap().route.is_ok());
    assert_eq!(
        two.hop(backend).unwrap().route,
        Err(DropReason::NoNeighbour)
    );
    assert_eq!(two.epoch(), 1);
    let port = one.rerouted(|_| Some(NextHop::NoPort));
    assert_eq!(port.hop(backend).unwrap().route, Err(DropReason::NoPort));
}

#[test]
fn a_preview_says_how_much_of_the_ring_moves() {
    let one = compile(&Tables::default(), 1, web());
    let same = compile(&one, 2, web());
    assert_eq!(
        ring_share_moved(Some(&one.rings()[0]), Some(&same.rings()[0])),
        0.0
    );
    let two = compile(
        &one,
        3,
        vec![service("web", &[VIP, VIP6, VIP_UDP], three()[..2].to_vec())],
    );
    let moved = ring_share_moved(Some(&one.rings()[0]), Some(&two.rings()[0]));
    assert!(
        (0.33..0.67).contains(&moved),
        "a third at least, twice that at most: {moved}"
    );
    assert_eq!(ring_share_moved(None, Some(&two.rings()[0])), 1.0);
    assert_eq!(ring_share_moved(Some(&one.rings()[0]), None), 1.0);
    assert_eq!(ring_share_moved(None, None), 0.0);
}

#[test]
fn replacing_everything_at_the_limits_stays_within_the_counters() {
    let snapshot = |epoch: u64| {
        // Every address differs between even and odd epochs.
        let side = (epoch % 2) as u32;
        let services = (0..32_u32).map(|n| {
            let backends = (0..Limits::BACKENDS_PER_SERVICE as u32)
                .map(|b| {
                    let address = Ipv4Addr::from(0x0a00_0000 + side * 0x10_0000 + n * 4096 + b);
                    backend(&address.to_string())
                })
                .collect();
            let vips: Vec<String> = (0..Limits::VIPS as u32 / 32)
                .map(|v| {
                    format!(
                        "{}:80/tcp",
                        Ipv4Addr::from(0xcb00_0000 + side * 0x10_0000 + n * 512 + v)
                    )
                })
                .collect();
            let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
            service(&format!("s{n}"), &vips, backends)
        });
        Snapshot::new(epoch, services.collect()).unwrap()
    };
    let mut tables = Tables::default();
    for epoch in 1..=4 {
        tables = Tables::compile(&tables, &snapshot(epoch), addresses(), via_router).unwrap();
        let backends = tables.rings().iter().flat_map(|r| &r.members);
        let backend = backends.map(|m| m.backend_ref.slot()).max().unwrap();
        let vip = tables.vips().map(|(vip, _, _)| vip.slot()).max().unwrap();
        assert!(
            backend < BACKEND_SLOTS && vip < VIP_SLOTS,
            "{backend} {vip}"
        );
        assert_eq!(tables.vips().count(), Limits::VIPS);
    }
}

/// Looking for the owner of each entry among all members would take a hundred times as long.
#[test]
fn a_preview_of_the_largest_service_takes_milliseconds() {
    let all: Vec<Backend> = (0..4096_u32)
        .map(|n| backend(&Ipv4Addr::from(0x0a00_0001 + n).to_string()))
        .collect();
    let large = |backends: Vec<Backend>| {
        let mut service = service("large", &[VIP], backends);
        service.table_size = TableSize::DEFAULT;
        vec![service]
    };
    let one = compile(&Tables::default(), 1, large(all.clone()));
    let two = compile(&one, 2, large(all[1..].to_vec()));
    let (before, after) = (Some(&one.rings()[0]), Some(&two.rings()[0]));
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let moved = ring_share_moved(before, after);
        fastest = fastest.min(start.elapsed());
        let gone = one.rings()[0].share(&one.rings()[0].members[0]);
        assert!((gone..0.05).contains(&moved), "{moved} moves");
    }
    std::println!("4,096 backends compared in {fastest:?}");
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");

    // A table that is carried over is not walked at all.
    let same = compile(&one, 2, large(all));
    assert_eq!(ring_share_moved(before, Some(&same.rings()[0])), 0.0);
}
