use super::*;
use crate::testing::{backend, service};
use lockstep_plan::{TableSize, Weight};

fn text(before: &[Service], after: &[Service]) -> Vec<String> {
    let mut lines = Vec::new();
    for found in diff(before, after) {
        lines.push(format!("{} {}", found.kind.name(), found.name));
        lines.extend(found.changes.iter().map(ToString::to_string));
    }
    lines
}

#[test]
fn the_same_services_in_another_order_have_no_difference() {
    let before = [service("a", &["10.0.0.1", "10.0.0.2"]), service("b", &[])];
    let after = [service("b", &[]), service("a", &["10.0.0.2", "10.0.0.1"])];
    assert_eq!(diff(&before, &after), []);
}

#[test]
fn a_service_added_or_removed_shows_what_it_has() {
    let services = [service("a", &["10.0.0.1"])];
    let added = [
        "added a",
        "+ vip 203.0.113.10:97/tcp",
        "+ backend 10.0.0.1 weight 100",
    ];
    let removed = [
        "removed a",
        "- vip 203.0.113.10:97/tcp",
        "- backend 10.0.0.1 weight 100",
    ];
    assert_eq!(text(&[], &services), added);
    assert_eq!(text(&services, &[]), removed);
    let bare = [Service {
        vips: vec![],
        ..service("a", &[])
    }];
    assert_eq!(text(&[], &bare), ["added a"]);
}

#[test]
fn every_change_in_a_service_has_its_line() {
    let mut before = service("a", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut after = service("a", &["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    before.backends[1].name = "old".to_owned();
    after.backends[0].name = "new".to_owned();
    after.backends[0].weight = Weight::new(7).unwrap();
    after.backends[1].state = BackendState::Draining;
    after.backends[2] = Backend {
        state: BackendState::Draining,
        ..backend("10.0.0.4")
    };
    after.vips = vec!["203.0.113.10:53/udp".parse().unwrap()];
    after.table_size = TableSize::new(251).unwrap();
    after.idle.udp = 1;
    assert_eq!(
        text(&[before], &[after]),
        [
            "changed a",
            "- vip 203.0.113.10:97/tcp",
            "+ vip 203.0.113.10:53/udp",
            "~ table_size: 65537 -> 251",
            "~ idle.udp: 300s -> 1s",
            "- backend 10.0.0.1 weight 100",
            "~ backend 10.0.0.2: name old -> new",
            "~ backend old (10.0.0.2): weight 100 -> 7",
            "~ backend 10.0.0.3: active -> draining",
            "+ backend 10.0.0.4 weight 100 draining",
        ]
    );
}
