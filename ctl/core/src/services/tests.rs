//! Text in, services or exactly the report out.

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
fn errors_of_keys_and_types_name_what_is_allowed() {
    assert_reports(&[
        (
            "[[service]]\n",
            &["services.toml:1:1: `name` is missing in `service`"],
        ),
        (
            "[[service]]\nname = \"a\"\nvip = []\nbackends = []\n",
            &[
                "services.toml:1:1: `vips` is missing in `service`",
                "services.toml:3:1: unknown key `vip`; did you mean `vips`? \
                 (allowed: name, vips, mode, encapsulation, gue_port, scheduler, sticky, slow_start, \
                 table_size, idle, allow, deny, rate, source_rate, health, all_down, replicate, backends)",
            ],
        ),
        (
            "[[services]]\n",
            &[
                "services.toml: `service` is missing",
                "services.toml:1:3: unknown key `services`; did you mean `service`? (allowed: service)",
            ],
        ),
        (
            &with(
                r#"backends = [
                { adress = "10.0.0.1" },
                { address = "10.0.0.2", wieght = 1 },
            ]"#,
            ),
            &[
                "services.toml:5:17: `address` is missing in `backends`",
                "services.toml:5:19: unknown key `adress`; did you mean `address`? \
                 (allowed: address, port, name, weight, priority)",
                "services.toml:6:41: unknown key `wieght`; did you mean `weight`? \
                 (allowed: address, port, name, weight, priority)",
            ],
        ),
        (
            &with("backends = \"10.0.0.1\"\nmode = \"dsr\"\nidle = { tcp = \"1s\" }"),
            &[
                "services.toml:4:12: `backends` cannot be \"10.0.0.1\"; it takes a list",
                "services.toml:5:8: `mode` cannot be `dsr`; allowed: tunnel, nat, full-nat, replicate",
                "services.toml:6:10: unknown key `tcp`; \
                 allowed: tcp_syn, tcp_established, tcp_fin, udp",
            ],
        ),
        (
            "[[service]]\nname = \"web\nvips = 1\n",
            &["services.toml:2:12: invalid basic string, expected `\"`"],
        ),
    ]);
}

#[test]
fn errors_of_names_vips_and_backends_are_listed_at_once() {
    assert_reports(&[(
        r#"[[service]]
name = "my web"
vips = ["203.0.113.10", "127.0.0.1:80/tcp", 7]
backends = ["10.0.0.1"]
"#,
        &[
            "services.toml:2:8: `name`: \"my web\" is not a name; \
             use 1 to 253 letters, digits, `-`, `_`, `.` or `/`",
            "services.toml:3:9: `vips`: \"203.0.113.10\" is not a VIP; \
             a VIP is written ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets; \
             PORT is 0 for every port, 1 to 65535, or a range such as 8000-8099",
            "services.toml:3:25: `vips`: \"127.0.0.1:80/tcp\" is not a VIP; \
             127.0.0.1 is not a unicast address that clients can reach",
            "services.toml:3:45: `vips` cannot be `7`; \
             it takes a string such as \"203.0.113.10:80/tcp\"",
            "services.toml:4:13: `backends` cannot be \"10.0.0.1\"; it takes a table",
        ],
    )]);
}

#[test]
fn errors_of_numbers_and_times_are_listed_at_once() {
    assert_reports(&[
        (
            &with(
                r#"table_size = 65536
idle = { tcp_syn = "90", tcp_fin = "1500ms", udp = "13h", tcp_established = 9 }
backends = [
  { address = "10.0.0.1:80" },
  { address = "10.0.0.2", weight = -1 },
  { address = "10.0.0.3", weight = 10001 },
  { address = "10.0.0.4", weight = "5" },
  { address = "10.0.0.4", name = "a b" },
]"#,
            ),
            &[
                "services.toml:4:14: `table_size`: 65536 is not a prime; the nearest is 65537",
                "services.toml:5:20: `tcp_syn`: \"90\" is not a duration; \
                 a duration is a whole number and ms, s, m or h, such as \"500ms\" or \"5m\"",
                "services.toml:5:36: `tcp_fin`: \"1500ms\" is out of range; \
                 an idle time is from \"1s\" to \"12h\", in whole seconds",
                "services.toml:5:52: `udp`: \"13h\" is out of range; \
                 an idle time is from \"1s\" to \"12h\", in whole seconds",
                "services.toml:5:77: `tcp_established` cannot be `9`; \
                 it takes a string such as \"60s\"",
                "services.toml:7:15: `address`: \"10.0.0.1:80\" is not an IP address; \
                 write one such as \"10.0.1.11\"; a port goes into `port`",
                "services.toml:8:36: `weight` cannot be `-1`; \
                 it takes a whole number from 1 to 10000, or 0 to drain",
                "services.toml:9:36: `weight` cannot be `10001`; \
                 it takes a whole number from 1 to 10000, or 0 to drain",
                "services.toml:10:36: `weight` cannot be \"5\"; \
                 it takes a whole number from 1 to 10000, or 0 to drain",
                "services.toml:11:34: `name`: \"a b\" is not a name; \
                 use 1 to 253 letters, digits, `-`, `_`, `.`, `/` or `:`",
            ],
        ),
        (
            &with("table_size = 7\nidle = { udp = \"0s\" }\nbackends = []"),
            &[
                "services.toml:4:14: `table_size` cannot be `7`; it takes a prime from 251 to 655373",
                "services.toml:5:16: `udp`: \"0s\" is out of range; \
                 an idle time is from \"1s\" to \"12h\", in whole seconds",
            ],
        ),
    ]);
}

#[test]
fn errors_of_services_together_stand_at_their_lines() {
    let service = with("backends = []");
    assert_reports(&[
        (
            &service.repeat(3),
            &[
                "services.toml:6:8: service web: the name is used twice; give each service its own",
                "services.toml:7:9: service web: VIP 203.0.113.10:80/tcp belongs to service web already",
                "services.toml:10:8: service web: the name is used twice; give each service its own",
                "services.toml:11:9: service web: VIP 203.0.113.10:80/tcp belongs to service web already",
            ],
        ),
        (
            &service.replace("\"203.0.113.10:80/tcp\"", ""),
            &[
                "services.toml:3:8: service web: has no VIP; add one such as \"203.0.113.10:80/tcp\"",
            ],
        ),
        (
            &with(
                r#"backends = [
  { address = "10.0.0.1" },
  { address = "10.0.0.1" },
  { address = "224.0.0.1" },
  { address = "203.0.113.10" },
  { address = "fd00::1" },
  { address = "10.0.0.1" },
]"#,
            ),
            &[
                "services.toml:6:15: service web: backend 10.0.0.1 is listed twice; \
                 raise its weight instead",
                "services.toml:7:15: service web: backend 224.0.0.1 is not a unicast address off this host",
                "services.toml:8:15: service web: backend 203.0.113.10 is a VIP of service web: \
                 packets would loop",
                "services.toml:9:15: service web: its backends have IPv4 and IPv6 addresses; \
                 a tunnel service needs one version for all (the clients' version does not matter)",
                "services.toml:10:15: service web: backend 10.0.0.1 is listed twice; \
                 raise its weight instead",
            ],
        ),
        (
            &with(
                r#"backends = [
  { address = "10.0.0.1", name = "a" },
  { address = "10.0.0.2", name = "a" },
  { address = "10.0.0.3", name = "10.0.0.4" },
  { address = "10.0.0.5", name = "10.0.0.5" },
]"#,
            ),
            &[
                "services.toml:6:34: service web: backend 10.0.0.1 is named a already; \
                 give each backend its own name",
                "services.toml:7:34: service web: backend 10.0.0.3 is named 10.0.0.4; \
                 a name that is an address has to be the backend's own",
            ],
        ),
    ]);
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
fn errors_of_flows_are_listed_at_once() {
    assert_reports(&[(
        &with(
            r#"encapsulation = "vxlan"
gue_port = 0
scheduler = "rr"
sticky = "cookie"
slow_start = "0s"
allow = ["192.0.2.1/24", "x"]
deny = [7]
rate = { new_flows = 0, bytes = 1 }
source_rate = { new_flows = 1, prefix_ipv4 = 33 }
backends = [{ address = "10.0.0.1", priority = 16 }]"#,
        ),
        &[
            "services.toml:4:17: `encapsulation` cannot be `vxlan`; allowed: ipip, gue",
            "services.toml:5:12: `gue_port` cannot be `0`; it takes a whole number from 1 to 65535",
            "services.toml:6:13: `scheduler` cannot be `rr`; did you mean `wrr`? \
             (allowed: maglev, wrr, wlc, source-hash, random)",
            "services.toml:7:10: `sticky`: \"cookie\" is not known; it is \"client\"",
            "services.toml:8:14: `slow_start`: \"0s\" is out of range; it is from \"1s\" to \"12h\"",
            "services.toml:9:10: `allow`: \"192.0.2.1/24\" is not a prefix; 192.0.2.1/24 has bits set \
             behind its length; 192.0.2.0/24 is meant?",
            "services.toml:9:26: `allow`: \"x\" is not a prefix; a prefix is written ADDRESS/LENGTH, \
             such as 192.0.2.0/24 or 2001:db8::/32",
            "services.toml:10:9: `deny` cannot be `7`; it takes a string such as \"192.0.2.0/24\"",
            "services.toml:11:22: `new_flows` cannot be `0`; \
             it takes a whole number from 1 to 4294967295",
            "services.toml:11:25: unknown key `bytes`; allowed: new_flows, packets",
            "services.toml:12:46: `prefix_ipv4` cannot be `33`; it takes a whole number from 1 to 32",
            "services.toml:13:48: `priority` cannot be `16`; it takes a whole number from 0 to 15",
        ],
    )]);
}

#[test]
fn what_is_nearly_right_is_answered_with_what_is() {
    let rows = [
        (
            "sticky = true",
            "4:10: `sticky` cannot be `true`; it takes \"client\": all flows of a client go to one \
             backend",
        ),
        (
            "slow_start = \"30\"",
            "4:14: `slow_start`: \"30\" is not a duration; did you mean \"30s\"?",
        ),
        (
            "slow_start = 30",
            "4:14: `slow_start` cannot be `30`; it takes a string such as \"30s\"",
        ),
        (
            "deny = [\"10.0.0.0/33\"]",
            "4:9: `deny`: \"10.0.0.0/33\" is not a prefix; a prefix of IPv4 has a length of 0 to 32, \
             and 33 is more",
        ),
        (
            "deny = [\"2001:db8::/1280\"]",
            "4:9: `deny`: \"2001:db8::/1280\" is not a prefix; a prefix of IPv6 has a length of 0 to \
             128, and 1280 is more",
        ),
    ];
    for (line, expected) in rows {
        let text = with(&format!("{line}\nbackends = []"));
        let expected = format!("services.toml:{expected}");
        assert_reports(&[(&text, &[expected.as_str()])]);
    }
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

/// A service in TOML, with every key written out.
fn render(service: &Service, spread: &Spread) -> String {
    let vips: Vec<String> = service.vips.iter().map(|v| format!("\"{v}\"")).collect();
    let backend = |b: &Backend| {
        let weight = match b.state {
            BackendState::Active => b.weight.get(),
            BackendState::Draining => 0,
        };
        let (address, name) = (b.address, &b.name);
        let port = b.port.map_or(String::new(), |p| format!(", port = {p}"));
        let priority = spread.priority(b.id()).get();
        format!(
            "{{ address = \"{address}\", name = \"{name}\", weight = {weight}, \
             priority = {priority}{port} }}"
        )
    };
    let backends: Vec<String> = service.backends.iter().map(backend).collect();
    let IdleTimeouts {
        tcp_syn,
        tcp_established,
        tcp_fin,
        udp,
    } = service.idle;
    let settings: String = settings(service, spread)
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} = {}\n", value?)))
        .collect();
    format!(
        "[[service]]\nname = \"{}\"\nvips = [{}]\nmode = \"{}\"\n{settings}table_size = {}\nbackends = [{}]\n\
         idle = {{ tcp_syn = \"{tcp_syn}s\", tcp_established = \"{tcp_established}s\", \
         tcp_fin = \"{tcp_fin}s\", udp = \"{udp}s\" }}\n",
        service.name,
        vips.join(", "),
        service.mode.name(),
        service.table_size.get(),
        backends.join(", "),
    )
}

/// Backends, of IPv6 where the VIPs are, and their tiers.
fn any_backends() -> impl Strategy<Value = (Vec<Backend>, BTreeMap<BackendId, Priority>)> {
    type Facts = (Option<String>, u16, bool, Option<NonZeroU16>, u8);
    let one = |(name, weight, draining, port, _): Facts, address: IpAddr| Backend {
        // A name that is an address has to be its own.
        name: name
            .filter(|name| name.parse::<IpAddr>().is_err())
            .unwrap_or_else(|| address.to_string()),
        address,
        weight: if draining {
            Weight::DEFAULT
        } else {
            Weight::new(weight).unwrap()
        },
        state: if draining {
            BackendState::Draining
        } else {
            BackendState::Active
        },
        port,
        health: Health::UNKNOWN,
    };
    let facts = (
        proptest::option::of("[a-z][a-z0-9.:/_-]{0,9}"),
        1u16..=10_000,
        any::<bool>(),
        proptest::option::of(any::<NonZeroU16>()),
        0..=Priority::MAX,
    );
    proptest::collection::btree_map(1u32..60_000, facts, 0..6).prop_map(move |backends| {
        let mut names = BTreeSet::new();
        let mut priorities = BTreeMap::new();
        let mut found = Vec::new();
        for (n, facts) in backends {
            let address = IpAddr::from(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n)));
            let priority = Priority::new(facts.4).unwrap();
            let backend = one(facts, address);
            if names.insert(backend.name.clone()) {
                if priority != Priority::default() {
                    priorities.insert(backend.id(), priority);
                }
                found.push(backend);
            }
        }
        (found, priorities)
    })
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let prefix = (any::<u128>(), 0u8..=128, any::<bool>()).prop_map(|(bits, length, v4)| {
        let (address, length) = match v4 {
            true => (IpAddr::from(Ipv4Addr::from_bits(bits as u32)), length % 33),
            false => (IpAddr::from(Ipv6Addr::from_bits(bits)), length),
        };
        Prefix::new(masked(address, length), length).unwrap()
    });
    let prefixes = || proptest::collection::vec(prefix.clone(), 0..4);
    let number = || any::<NonZeroU32>();
    let source = (number(), 1u8..=32, 1u8..=128);
    (
        prefixes(),
        prefixes(),
        proptest::option::of(number()),
        proptest::option::of(number()),
        proptest::option::of(source),
    )
        .prop_map(|(allow, deny, new_flows, packets, source)| Guard {
            allow,
            deny,
            new_flows,
            packets,
            source: source.map(|(new_flows, prefix_v4, prefix_v6)| SourceRate {
                new_flows,
                prefix_v4,
                prefix_v6,
            }),
        })
}

fn any_service() -> impl Strategy<Value = (Service, Spread)> {
    let seconds = || 1..=IdleTimeouts::MAX;
    let idle = (seconds(), seconds(), seconds(), seconds());
    let size = prop_oneof![Just(251), Just(65_537), Just(655_373)];
    let name = "[A-Za-z0-9_./-]{1,253}";
    let mode = prop_oneof![
        Just(Mode::TUNNEL),
        any::<NonZeroU16>().prop_map(|port| Mode::Tunnel(Encapsulation::Gue { port })),
        Just(Mode::Nat),
        Just(Mode::FullNat),
    ];
    let scheduler = proptest::sample::select(&Scheduler::ALL[..]);
    let slow_start = proptest::option::of((1u64..=43_200).prop_map(Duration::from_secs));
    let flows = (mode, scheduler, slow_start, any_guard());
    (name, any_backends(), size, idle, flows).prop_map(|(name, backends, size, idle, flows)| {
        let (mode, scheduler, slow_start, guard) = flows;
        let (mut backends, priorities) = backends;
        if !mode.translates() {
            backends.iter_mut().for_each(|b| b.port = None);
        }
        let spread = Spread {
            slow_start,
            priorities,
        };
        let service = Service {
            name: ServiceName::new(&name).unwrap(),
            vips: Vec::new(),
            mode,
            backends,
            table_size: TableSize::new(size).unwrap(),
            idle: IdleTimeouts {
                tcp_syn: idle.0,
                tcp_established: idle.1,
                tcp_fin: idle.2,
                udp: idle.3,
            },
            scheduler,
            guard,
            unserved: lockstep_plan::Unserved::Drop,
        };
        (service, spread)
    })
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back(
        mut services in proptest::collection::vec(any_service(), 1..4),
        vips in proptest::collection::vec(1usize..4, 4),
        ranges in any::<bool>(),
    ) {
        let mut names = BTreeSet::new();
        services.retain(|(s, _)| names.insert(s.name.clone()));
        for (at, (service, _)) in services.iter_mut().enumerate() {
            let with_ports = service.backends.iter().any(|b| b.port.is_some());
            let last = if ranges && !with_ports { "-9000" } else { "" };
            service.vips = (0..vips[at])
                .map(|n| format!("[2001:db8::{at}:{n}]:{}{last}/udp", n + 1).parse().unwrap())
                .collect();
        }
        let text: String = services.iter().map(|(s, spread)| render(s, spread)).collect();
        let file = parse("t.toml", &text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let spreads = services.iter().map(|(s, spread)| (s.name.clone(), spread.clone()));
        prop_assert_eq!(file.spreads, spreads.collect::<Spreads>());
        prop_assert_eq!(file.services, services.into_iter().map(|(s, _)| s).collect::<Vec<_>>());
    }

    /// A file with a letter too many, too few or another one is read or refused, never a panic,
    /// and a refusal says where.
    #[test]
    fn a_damaged_file_is_answered(at in 0usize..220, cut in 0usize..3, put in "[\\]\\[{}\"=,0-9a-z\n]{0,2}") {
        let text = with("table_size = 251\nbackends = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.2\", weight = 7 }]\nidle = { udp = \"1s\" }");
        let (at, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let damaged = format!("{}{put}{}", &text[..at], &text[end..]);
        if let Err(found) = parse("t.toml", &damaged) {
            prop_assert!(found.has_errors());
            prop_assert!(found.iter().all(|d| !d.message.is_empty()));
        }
    }
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

/// What may be the consequence of an error is not reported beside it: without its mode the third
/// service would be one of tunnels, which leave ports alone.
#[test]
fn errors_of_keys_and_of_their_meaning_are_reported_at_once() {
    let text = r#"
[[service]]
name = "unknown key"
vips = ["203.0.113.10:80/tcp"]
backend = []
backends = [{ address = "10.0.0.1" }]
[[service]]
name = "b"
vips = ["203.0.113.11:80/tcp"]
mode = "nat"
gue_port = 6080
backends = [{ address = "10.0.0.1" }]
[[service]]
name = "c"
vips = ["203.0.113.12:80/tcp"]
mode = "natt"
backends = [{ address = "10.0.0.1", port = 81 }]
[[service]]
name = "d"
vips = ["203.0.113.11:80/tcp"]
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.300" }]
[[service]]
name = "e"
vips = ["203.0.113.11:80/tcp"]
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.1" }]
"#;
    let errors = parse("services.toml", text).unwrap_err();
    let lines: Vec<_> = errors.iter().map(|e| e.position.unwrap().line).collect();
    assert_eq!(lines, [3, 5, 11, 16, 21, 24, 25], "{errors}");
}
