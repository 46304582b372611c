//! Each conflict, alone and together.

use super::*;
use crate::{
    Backend, BackendState, Commit, Guard, Health, IdleTimeouts, Scheduler, TableSize, Weight,
};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use core::num::{NonZeroU8, NonZeroU16};

fn backend(address: &str) -> Backend {
    Backend {
        name: address.to_string(),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

fn service(name: &str, vips: &[&str], backends: &[&str]) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vips.iter().map(|v| v.parse().unwrap()).collect(),
        mode: Mode::TUNNEL,
        backends: backends.iter().map(|b| backend(b)).collect(),
        unserved: crate::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    }
}

fn errors(services: Vec<Service>) -> Vec<alloc::string::String> {
    Snapshot::new(1, services)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn services_that_stand_together_make_a_snapshot() {
    let services = vec![
        service(
            "web",
            &["203.0.113.1:80/tcp", "[2001:db8::1]:80/tcp"],
            &["10.0.0.1", "10.0.0.2"],
        ),
        service("dns", &["203.0.113.1:53/udp"], &["fd00::1"]),
        service("empty", &["203.0.113.2:1/tcp"], &[]),
    ];
    let snapshot = Snapshot::new(7, services.clone()).unwrap();
    assert_eq!(snapshot.epoch(), 7);
    assert_eq!(snapshot.services(), services);
    assert_eq!(snapshot.service("dns"), Some(&services[1]));
}

#[test]
fn every_conflict_is_reported_at_once() {
    let vip = "203.0.113.1:80/tcp";
    let mut late = service("web", &[vip], &["10.0.0.1", "10.0.0.1", "fd00::1"]);
    late.idle.udp = 0;
    let found = errors(vec![
        service("web", &[vip], &["203.0.113.1"]),
        service("bare", &[], &["224.0.0.1"]),
        late,
    ]);
    for expected in [
        "name is used twice",
        "bare: has no VIP",
        "belongs to service web already",
        "10.0.0.1 is listed twice",
        "IPv4 and IPv6",
        "packets would loop",
        "224.0.0.1 is not a unicast",
        "idle times",
    ] {
        assert!(
            found.iter().any(|e| e.contains(expected)),
            "{expected} in {found:#?}"
        );
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn limits_are_named_with_the_count() {
    let vips: Vec<_> = (0..=Limits::VIPS as u32)
        .map(|i| {
            let address = core::net::Ipv4Addr::from(0xcb00_0000 + i);
            alloc::format!("{address}:80/tcp")
        })
        .collect();
    let vips: Vec<_> = vips.iter().map(alloc::string::String::as_str).collect();
    let found = errors(vec![service("wide", &vips, &[])]);
    assert_eq!(
        found,
        ["VIPs: 16385 are more than the 16384 an engine holds"]
    );

    let backends: Vec<_> = (1..=129).map(|n| alloc::format!("10.0.0.{n}")).collect();
    let backends: Vec<_> = backends.iter().map(alloc::string::String::as_str).collect();
    let vip = "203.0.113.1:80/tcp";
    assert!(Snapshot::new(1, vec![service("many", &[vip], &backends)]).is_ok());
    assert!(
        Snapshot::new(
            1,
            vec![replicated(&[vip], &backends[..128], Replicate::DEFAULT)]
        )
        .is_ok()
    );
    assert_eq!(
        errors(vec![replicated(&[vip], &backends, Replicate::DEFAULT)]),
        ["backends of one service that replicates: 129 are more than the 128 an engine holds"]
    );
}

/// A service that replicates to these backends, the first one on port 5202.
fn replicated(vips: &[&str], backends: &[&str], policy: Replicate) -> Service {
    let mut service = Service {
        mode: Mode::Replicate(Arc::new(policy)),
        ..service("game", vips, backends)
    };
    if let Some(first) = service.backends.first_mut() {
        first.port = NonZeroU16::new(5202);
    }
    service
}

#[test]
fn a_service_replicates_to_backends_of_both_ip_versions() {
    let policy = Replicate {
        commit: Commit::Quorum(NonZeroU8::new(2).unwrap()),
        min_sync: NonZeroU8::new(2).unwrap(),
        ..Replicate::DEFAULT
    };
    let service = replicated(&["203.0.113.1:80/tcp"], &["10.0.0.1", "fd00::1"], policy);
    assert_eq!(service.mode.name(), "replicate");
    assert!(Snapshot::new(1, vec![service]).is_ok());
    // Every port, when no backend has one of its own.
    let mut every = replicated(&["203.0.113.1:0/tcp"], &["10.0.0.1"], Replicate::DEFAULT);
    every.backends[0].port = None;
    assert!(Snapshot::new(1, vec![every]).is_ok());
}

#[test]
fn a_policy_that_cannot_hold_says_why() {
    let policy = |quorum, min_sync| Replicate {
        commit: NonZeroU8::new(quorum).map_or(Commit::Primary, Commit::Quorum),
        min_sync: NonZeroU8::new(min_sync).unwrap(),
        ..Replicate::DEFAULT
    };
    let vip = "203.0.113.1:80/tcp";
    let two = ["10.0.0.1", "10.0.0.2"];
    let mut tunnel = service("web", &[vip], &["10.0.0.1"]);
    tunnel.backends[0].port = NonZeroU16::new(80);
    let rows: [(Service, &[&str]); 7] = [
        (
            tunnel,
            &["service web: backend 10.0.0.1 has a port, but packets in a tunnel keep"],
        ),
        (
            replicated(&["203.0.113.1:53/udp"], &two, policy(0, 1)),
            &["VIP 203.0.113.1:53/udp is not TCP"],
        ),
        (
            replicated(&["203.0.113.1:0/tcp"], &two, policy(0, 1)),
            &[
                "VIP 203.0.113.1:0/tcp stands for several ports, each to the same port of a backend, \
               but backend 10.0.0.1 has a port of its own",
            ],
        ),
        (
            replicated(&[vip], &two, policy(3, 3)),
            &["a quorum of 3 can never be reached by 2 backends"],
        ),
        (
            replicated(&[vip], &two, policy(2, 3)),
            &["min_sync = 3 can never be reached by 2 backends"],
        ),
        (
            replicated(&[vip], &two, policy(2, 1)),
            &["min_sync = 1 is less than the quorum of 2"],
        ),
        (
            replicated(&[vip], &[], policy(2, 1)),
            &["less than the quorum", "can never be reached by 0 backends"],
        ),
    ];
    for (service, expected) in rows {
        // Backends that are too few may come yet: that is said apart.
        let few = too_few_backends(core::slice::from_ref(&service));
        let mut found = match Snapshot::new(1, vec![service]) {
            Ok(_) => Vec::new(),
            Err(found) => found,
        };
        found.extend(few);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{expected} in {found}");
        }
    }
}

#[test]
fn rewritten_services_have_one_ip_version_and_ports_that_can_be_told() {
    let mut mixed = service("a", &["203.0.113.1:80/tcp"], &["10.0.0.1", "fd00::1"]);
    mixed.mode = Mode::Nat;
    let mut six = service(
        "b",
        &["203.0.113.2:80/tcp", "[2001:db8::1]:80/tcp"],
        &["10.0.0.2"],
    );
    six.mode = Mode::FullNat;
    let mut ported = service(
        "c",
        &["203.0.113.3:0/tcp", "203.0.113.3:10-20/udp"],
        &["10.0.0.3"],
    );
    ported.mode = Mode::Nat;
    ported.backends[0].port = NonZeroU16::new(8080);
    let found = errors(vec![mixed, six, ported]);
    let parts = [
        "service a: VIP 203.0.113.1:80/tcp and backend fd00::1 are not of one IP version, which mode = \"nat\"",
        "service b: VIP [2001:db8::1]:80/tcp and backend 10.0.0.2",
        "service c: VIP 203.0.113.3:0/tcp stands for several ports",
        "service c: VIP 203.0.113.3:10-20/udp stands for several ports",
    ];
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for (error, part) in found.iter().zip(parts) {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn ranges_of_one_address_may_not_overlap() {
    let ranges = [
        "203.0.113.1:100-200/udp",
        "203.0.113.1:150/udp",
        "203.0.113.1:200-300/udp",
    ];
    let other = [
        "203.0.113.1:100-300/tcp",
        "203.0.113.2:100-300/udp",
        "203.0.113.1:0/udp",
    ];
    let found = errors(vec![service("a", &ranges, &[]), service("b", &other, &[])]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("203.0.113.1:200-300/udp has ports of 203.0.113.1:100-200/udp"),
        "{found:#?}"
    );
}
