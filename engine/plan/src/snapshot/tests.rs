//! Each conflict, alone and together.

use super::*;
use crate::{Backend, BackendState, IdleTimeouts, TableSize, Weight};
use alloc::string::ToString;
use alloc::vec;

fn backend(address: &str) -> Backend {
    Backend {
        name: address.to_string(),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
    }
}

fn service(name: &str, vips: &[&str], backends: &[&str]) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vips.iter().map(|v| v.parse().unwrap()).collect(),
        mode: Mode::Tunnel,
        backends: backends.iter().map(|b| backend(b)).collect(),
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
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
}
