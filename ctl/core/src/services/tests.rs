//! Text in, services or exactly the report out.

mod errors;
mod rendering;

use super::*;
use crate::policy::settings;
use crate::spread::Priority;
use lockstep_plan::guard::masked;
use lockstep_plan::{IdleTimeouts, Prefix, ServiceName, SourceRate, TableSize};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// A service of three lines, and these after them.
fn with(lines: &str) -> String {
    format!("[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n{lines}\n")
}

fn report(text: &str) -> String {
    match parse("services.toml", text) {
        Ok(file) => panic!("accepted: {file:#?}\nfor:\n{text}"),
        Err(found) => found.to_string(),
    }
}

fn assert_reports(rows: &[(&str, &[&str])]) {
    for (text, lines) in rows {
        assert_eq!(report(text), lines.join("\n"), "for:\n{text}");
    }
}

#[test]
fn a_whole_file_is_read() {
    let text = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp", "[2001:db8::10]:80/tcp"]
mode = "tunnel"
table_size = 251
idle = { tcp_syn = "30s", tcp_established = "1h", tcp_fin = "1m", udp = "10s" }
backends = [
    { address = "10.0.1.11" },
    { address = "10.0.1.12", name = "web-2", weight = 50 },
    { address = "10.0.1.13", weight = 0 },
]

[[service]]
name = "dns"
vips = ["203.0.113.10:53/udp"]

[[service.backends]]
address = "fd00::1"
"#;
    let backend = |name: &str, address: &str, weight, state| Backend {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        weight: Weight::new(weight).unwrap(),
        state,
        port: None,
        health: Health::UNKNOWN,
    };
    let web = Service {
        name: ServiceName::new("web").unwrap(),
        vips: vec![
            "203.0.113.10:80/tcp".parse().unwrap(),
            "[2001:db8::10]:80/tcp".parse().unwrap(),
        ],
        mode: Mode::TUNNEL,
        backends: vec![
            backend("10.0.1.11", "10.0.1.11", 100, BackendState::Active),
            backend("web-2", "10.0.1.12", 50, BackendState::Active),
            backend("10.0.1.13", "10.0.1.13", 100, BackendState::Draining),
        ],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(251).unwrap(),
        idle: IdleTimeouts {
            tcp_syn: 30,
            tcp_established: 3_600,
            tcp_fin: 60,
            udp: 10,
        },
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let dns = Service {
        name: ServiceName::new("dns").unwrap(),
        vips: vec!["203.0.113.10:53/udp".parse().unwrap()],
        mode: Mode::TUNNEL,
        backends: vec![backend("fd00::1", "fd00::1", 100, BackendState::Active)],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let file = parse("services.toml", text).unwrap();
    assert_eq!(file.services, [web, dns]);
    assert!(file.warnings.is_empty(), "{}", file.warnings);
}

#[test]
fn a_file_says_that_it_has_no_services() {
    assert_eq!(
        parse("services.toml", "service = []\n").unwrap().services,
        []
    );
    assert_reports(&[("", &["services.toml: `service` is missing"])]);
}

#[test]
fn what_becomes_of_new_flows_is_read() {
    let text = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp", "203.0.113.10:30000-30999/udp"]
encapsulation = "gue"
gue_port = 6081
scheduler = "wlc"
slow_start = "90s"
allow = ["192.0.2.0/24", "198.51.100.7"]
deny = ["2001:db8::/32"]
rate = { new_flows = 10, packets = 20 }
source_rate = { new_flows = 5, prefix_ipv6 = 48 }
backends = [{ address = "10.0.1.11" }, { address = "10.0.1.12", priority = 15 }]

[[service]]
name = "shop"
vips = ["203.0.113.11:443/tcp"]
mode = "full-nat"
scheduler = "maglev"
sticky = "client"
backends = [{ address = "10.0.1.13", port = 8443, priority = 0 }]
"#;
    let file = parse("services.toml", text).unwrap();
    let [web, shop] = &file.services[..] else {
        panic!("{:?}", file.services)
    };
    let port = NonZeroU16::new(6081).unwrap();
    assert_eq!(web.mode, Mode::Tunnel(Encapsulation::Gue { port }));
    assert_eq!(web.scheduler, Scheduler::LeastConnections);
    assert_eq!(
        (web.vips[1].port(), web.vips[1].last_port()),
        (30_000, 30_999)
    );
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    assert_eq!(
        web.guard,
        Guard {
            allow: vec![prefix("192.0.2.0/24"), prefix("198.51.100.7/32")],
            deny: vec![prefix("2001:db8::/32")],
            new_flows: NonZeroU32::new(10),
            packets: NonZeroU32::new(20),
            source: Some(SourceRate {
                new_flows: NonZeroU32::new(5).unwrap(),
                prefix_v4: 24,
                prefix_v6: 48,
            }),
        }
    );
    let spread = &file.spreads[&web.name];
    assert_eq!(spread.slow_start, Some(Duration::from_secs(90)));
    let tiers: Vec<u8> = web
        .backends
        .iter()
        .map(|b| spread.priority(b.id()).get())
        .collect();
    assert_eq!(tiers, [0, 15]);
    assert_eq!(
        (&shop.mode, shop.scheduler),
        (&Mode::FullNat, Scheduler::SourceHash)
    );
    assert_eq!(shop.backends[0].port, NonZeroU16::new(8443));
    assert_eq!(file.spreads[&shop.name], Spread::default());
    let bare = parse("services.toml", &with("sticky = \"client\"\nbackends = []")).unwrap();
    assert_eq!(bare.services[0].scheduler, Scheduler::SourceHash);
}

#[test]
fn keys_that_mean_nothing_in_a_mode_are_errors_that_say_what_to_do() {
    let all = r#"encapsulation = "ipip"
gue_port = 6080
scheduler = "wrr"
sticky = "client"
slow_start = "30s"
table_size = 5003
rate = {}
backends = [{ address = "10.0.0.1", priority = 1 }, { address = "10.0.0.2", priority = 0 }]"#;
    let gue_port = "services.toml:5:12: service web: `gue_port` is where backends listen for GUE, but \
                    its tunnel is IP in IP; set encapsulation = \"gue\", or leave `gue_port` out";
    let sticky = "services.toml:7:10: service web: sticky = \"client\" needs a choice by the client's \
                  address alone, and scheduler = \"wrr\" chooses anew for each flow; \
                  leave one of both out";
    let rate = "services.toml:10:8: service web: `rate` without keys limits nothing; \
                write { new_flows = 1000 }, { packets = 100000 } or both";
    assert_reports(&[(&with(all), &[gue_port, sticky, rate])]);
    let tunnels = |mode: &str, at: &str, key: &str| {
        format!(
            "services.toml:{at}: service web: `{key}` is about tunnels, and mode = \"{mode}\" has none; \
             set mode = \"tunnel\", or leave it out"
        )
    };
    for mode in ["nat", "full-nat"] {
        assert_reports(&[(
            &with(&format!("{all}\nmode = \"{mode}\"")),
            &[
                &tunnels(mode, "4:17", "encapsulation"),
                &tunnels(mode, "5:12", "gue_port"),
                sticky,
                rate,
            ],
        )]);
    }
    let choice = |at: &str, key: &str| {
        format!(
            "services.toml:{at}: service web: `{key}` is about the choice of a backend, and \
             mode = \"replicate\" takes all; leave it out, or use another mode"
        )
    };
    assert_reports(&[(
        &with(&format!("{all}\nmode = \"replicate\"")),
        &[
            &tunnels("replicate", "4:17", "encapsulation"),
            &tunnels("replicate", "5:12", "gue_port"),
            &choice("6:13", "scheduler"),
            &choice("7:10", "sticky"),
            sticky,
            &choice("8:14", "slow_start"),
            &choice("9:14", "table_size"),
            rate,
            &choice("11:48", "priority"),
            &choice("11:88", "priority"),
        ],
    )]);
    let twice = "sticky = \"client\"\nscheduler = \"source-hash\"\nbackends = []";
    assert_reports(&[(
        &with(twice),
        &[
            "services.toml:4:10: service web: scheduler = \"source-hash\" is sticky already; \
           leave `sticky` or `scheduler` out",
        ],
    )]);
}

#[test]
fn services_that_rewrite_have_one_ip_version_and_ranges_that_do_not_overlap() {
    assert_reports(&[
        (
            &with("mode = \"nat\"\nbackends = [{ address = \"fd00::1\" }]"),
            &[
                "services.toml:3:9: service web: VIP 203.0.113.10:80/tcp and backend fd00::1 are not \
                 of one IP version, which mode = \"nat\" needs; use mode = \"tunnel\" or \"replicate\", \
                 or a service for each version",
            ],
        ),
        (
            &with("backends = []").replace(
                "80/tcp",
                "80-90/tcp\", \"203.0.113.10:90-99/tcp\", \"203.0.113.10:9-5/tcp",
            ),
            &[
                "services.toml:3:61: `vips`: \"203.0.113.10:9-5/tcp\" is not a VIP; 9-5 is no range of \
                 ports: it goes from a lower one, at least 1, to a higher one; did you mean 5-9?",
            ],
        ),
        (
            &with("backends = []").replace("80/tcp", "80-90/tcp\", \"203.0.113.10:90-99/tcp"),
            &[
                "services.toml:3:35: service web: VIP 203.0.113.10:90-99/tcp has ports \
                 of 203.0.113.10:80-90/tcp, which belongs to service web; ranges of one address may not \
                 overlap each other (a single port within a range may)",
            ],
        ),
    ]);
}

/// The keys of a table, as the error about one that is unknown lists them.
fn allowed(text: &str) -> Vec<String> {
    let report = report(text);
    let (_, keys) = report.split_once("allowed: ").unwrap();
    let keys = keys.lines().next().unwrap().trim_end_matches(')');
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_book_names_each_key_and_no_other() {
    let book = include_str!("../../../../docs/src/operations/services.md");
    let table = |before: &str| -> Vec<String> {
        let (_, after) = book.split_once(before).unwrap();
        let rows = after.lines().skip_while(|line| !line.starts_with("| `"));
        rows.take_while(|line| line.starts_with("| `"))
            .map(|row| row.split('`').nth(1).unwrap().to_owned())
            .collect()
    };
    let unknown = |inside: &str| with(&format!("backends = []\n{inside}"));
    for (before, text) in [
        ("`[[service]]`:", unknown("x = 1")),
        ("`idle`,", unknown("idle = { x = 1 }")),
        (
            "`health`, the keys:",
            unknown("health = { x = 1, type = \"tcp\" }"),
        ),
        ("`rate`,", unknown("rate = { x = 1 }")),
        (
            "`source_rate`,",
            unknown("source_rate = { x = 1, new_flows = 1 }"),
        ),
        (
            "`backends`, each:",
            with("backends = [{ address = \"10.0.0.1\", x = 1 }]"),
        ),
    ] {
        assert_eq!(table(before), allowed(&text), "{before}");
    }
}

#[test]
fn too_many_backends_are_an_error_at_their_service() {
    let backends: Vec<String> = (0..4_097u32)
        .map(|n| format!("{{ address = \"{}\" }}", Ipv4Addr::from(0x0a00_0001 + n)))
        .collect();
    let text = with(&format!("backends = [{}]", backends.join(", ")));
    let expected =
        "services.toml:2:8: backends of one service: 4097 are more than the 4096 an engine holds";
    assert_eq!(report(&text), expected);
}

#[test]
fn a_service_that_drops_everything_is_a_warning() {
    let text = with("backends = [{ address = \"10.0.0.1\", weight = 0 }]");
    let file = parse("services.toml", &text).unwrap();
    let expected = "services.toml:4:12: warning: service web has no active backend; \
                    its packets are dropped as no_backend";
    assert_eq!(file.warnings.to_string(), expected);
}

#[test]
fn an_empty_list_of_the_allowed_opens_nothing() {
    let text =
        "[[service]]\nname = \"a\"\nvips = [\"203.0.113.1:80/tcp\"]\nallow = []\nbackends = []\n";
    let error = parse("s.toml", text).unwrap_err().to_string();
    assert!(
        error.contains(
            "s.toml:4:9: service a: `allow` is empty, and so would serve everybody; leave it out"
        ),
        "{error}"
    );
}
