use super::*;
use crate::testing::{backend, service};
use lockstep_plan::health::Verdict;
use lockstep_plan::mask::{Mask, Pattern};
use lockstep_plan::{Commit, Health, TableSize, Weight};
use std::num::NonZeroU8;
use std::sync::Arc;

fn text(before: &[Service], after: &[Service]) -> Vec<String> {
    let spreads = Spreads::new();
    let side = |services| Side {
        services,
        spreads: &spreads,
    };
    lines(side(before), side(after))
}

fn lines(before: Side<'_>, after: Side<'_>) -> Vec<String> {
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
    assert!(text(&before, &after).is_empty());
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

#[test]
fn a_change_of_policy_has_a_line_a_key() {
    let tunnel = service("a", &["10.0.0.1", "10.0.0.2"]);
    let mut before = Service {
        mode: Mode::Replicate(Arc::new(Replicate::DEFAULT)),
        ..tunnel.clone()
    };
    let mut after = Service {
        mode: Mode::Replicate(Arc::new(Replicate {
            commit: Commit::Quorum(NonZeroU8::new(2).unwrap()),
            min_sync: NonZeroU8::new(2).unwrap(),
            max_lag: 64 << 10,
            masks: vec![
                Mask::Range {
                    offset: 4,
                    length: 8,
                },
                Mask::Pattern(Pattern::new("Date: .*").unwrap()),
            ],
            ..Replicate::DEFAULT
        })),
        ..tunnel.clone()
    };
    before.backends[0].port = NonZeroU16::new(80);
    after.backends[1].port = NonZeroU16::new(81);
    let policy = [
        "~ replicate.commit: \"primary\" -> { quorum = 2 }",
        "~ replicate.min_sync: 1 -> 2",
        "~ replicate.max_lag: \"1MiB\" -> \"64KiB\"",
        "~ replicate.masks: [] -> [{ offset = 4, length = 8 }, { pattern = \"Date: .*\" }]",
    ];
    let ports = [
        "~ backend 10.0.0.1: port 80 -> of the VIP",
        "~ backend 10.0.0.2: port of the VIP -> 81",
    ];
    let changed = [&["changed a"], &policy[..], &ports].concat();
    assert_eq!(
        text(std::slice::from_ref(&before), std::slice::from_ref(&after)),
        changed
    );

    let changed = text(std::slice::from_ref(&tunnel), &[after.clone()]);
    let mode = ["changed a", "~ mode: tunnel -> replicate"];
    assert_eq!(changed, [&mode, &policy[..], &ports[1..]].concat());
    let back = text(&[after], &[tunnel]);
    assert_eq!(back[1], "~ mode: replicate -> tunnel");
    assert_eq!(back.len(), 3, "{back:?}");

    let added = text(&[], &[before]);
    assert!(
        added.contains(&"+ backend 10.0.0.1 port 80 weight 100".to_owned()),
        "{added:?}"
    );
}

#[test]
fn health_is_no_difference() {
    let before = service("a", &["10.0.0.1"]);
    let mut after = before.clone();
    after.backends[0].health = Health {
        verdict: Verdict::Down,
        rtt: None,
    };
    assert!(text(&[before], &[after]).is_empty());
}

#[test]
fn what_becomes_of_new_flows_has_a_line_a_key() {
    let read = |lines: &str| {
        let text = format!("[[service]]\nname = \"a\"\nvips = [\"203.0.113.10:97/tcp\"]\n{lines}");
        crate::services::parse("t.toml", &text).unwrap()
    };
    let before = read("backends = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.2\" }]");
    let after = read(
        r#"encapsulation = "gue"
scheduler = "wlc"
slow_start = "30s"
allow = ["192.0.2.0/24", "2001:db8::/32"]
deny = ["192.0.2.7"]
rate = { new_flows = 5 }
source_rate = { new_flows = 1 }
backends = [{ address = "10.0.0.2", priority = 1 }, { address = "10.0.0.3", priority = 2 }]"#,
    );
    fn side(file: &crate::services::ServicesFile) -> Side<'_> {
        Side {
            services: &file.services,
            spreads: &file.spreads,
        }
    }
    assert_eq!(
        lines(side(&before), side(&after)),
        [
            "changed a",
            "~ encapsulation: \"ipip\" -> \"gue\"",
            "~ gue_port: none -> 6080",
            "~ scheduler: \"maglev\" -> \"wlc\"",
            "~ slow_start: none -> \"30s\"",
            "~ allow: none -> [\"192.0.2.0/24\", \"2001:db8::/32\"]",
            "~ deny: none -> [\"192.0.2.7/32\"]",
            "~ rate: none -> { new_flows = 5 }",
            "~ source_rate: none -> { new_flows = 1, prefix_ipv4 = 24, prefix_ipv6 = 56 }",
            "- backend 10.0.0.1 weight 100",
            "~ backend 10.0.0.2: priority 0 -> 1",
            "+ backend 10.0.0.3 weight 100 priority 2",
        ]
    );
    let nat =
        read("mode = \"nat\"\nbackends = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.2\" }]");
    assert_eq!(
        lines(side(&before), side(&nat)),
        ["changed a", "~ mode: tunnel -> nat"]
    );
}
