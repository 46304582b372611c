//! Text in, services or exactly the report out.

use super::*;
use lockstep_plan::{IdleTimeouts, ServiceName, TableSize};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
                 (allowed: name, vips, mode, table_size, idle, replicate, backends)",
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
                 (allowed: address, port, name, weight)",
                "services.toml:6:41: unknown key `wieght`; did you mean `weight`? \
                 (allowed: address, port, name, weight)",
            ],
        ),
        (
            &with("backends = \"10.0.0.1\"\nmode = \"nat\"\nidle = { tcp = \"1s\" }"),
            &[
                "services.toml:4:12: `backends` cannot be \"10.0.0.1\"; it takes a list",
                "services.toml:5:8: `mode` cannot be `nat`; allowed: tunnel, replicate",
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
             use 1 to 63 letters, digits, `-`, `_`, `.` or `/`",
            "services.toml:3:9: `vips`: \"203.0.113.10\" is not a VIP; \
             a VIP is written ADDRESS:PORT/tcp or ADDRESS:PORT/udp, an IPv6 address in brackets",
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
                 use 1 to 63 letters, digits, `-`, `_`, `.`, `/` or `:`",
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
fn render(service: &Service) -> String {
    let vips: Vec<String> = service.vips.iter().map(|v| format!("\"{v}\"")).collect();
    let backend = |b: &Backend| {
        let weight = match b.state {
            BackendState::Active => b.weight.get(),
            BackendState::Draining => 0,
        };
        let (address, name) = (b.address, &b.name);
        format!("{{ address = \"{address}\", name = \"{name}\", weight = {weight} }}")
    };
    let backends: Vec<String> = service.backends.iter().map(backend).collect();
    let IdleTimeouts {
        tcp_syn,
        tcp_established,
        tcp_fin,
        udp,
    } = service.idle;
    format!(
        "[[service]]\nname = \"{}\"\nvips = [{}]\ntable_size = {}\nbackends = [{}]\n\
         idle = {{ tcp_syn = \"{tcp_syn}s\", tcp_established = \"{tcp_established}s\", \
         tcp_fin = \"{tcp_fin}s\", udp = \"{udp}s\" }}\n",
        service.name,
        vips.join(", "),
        service.table_size.get(),
        backends.join(", "),
    )
}

fn any_backends() -> impl Strategy<Value = Vec<Backend>> {
    let one = |(name, weight, draining): (Option<String>, u16, bool), address: IpAddr| Backend {
        name: name.unwrap_or_else(|| address.to_string()),
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
        port: None,
        health: Health::UNKNOWN,
    };
    let facts = (
        proptest::option::of("[a-z][a-z0-9.:/_-]{0,9}"),
        1u16..=10_000,
        any::<bool>(),
    );
    (
        any::<bool>(),
        proptest::collection::btree_map(1u32..60_000, facts, 0..6),
    )
        .prop_map(move |(v6, backends)| {
            let address = |n: u32| match v6 {
                true => IpAddr::from(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n))),
                false => IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)),
            };
            let mut names = BTreeSet::new();
            backends
                .into_iter()
                .map(|(n, facts)| one(facts, address(n)))
                .filter(|b| names.insert(b.name.clone()))
                .collect()
        })
}

fn any_service() -> impl Strategy<Value = Service> {
    let seconds = || 1..=IdleTimeouts::MAX;
    let idle = (seconds(), seconds(), seconds(), seconds());
    let size = prop_oneof![Just(251), Just(65_537), Just(655_373)];
    let name = "[A-Za-z0-9_./-]{1,63}";
    (name, any_backends(), size, idle).prop_map(|(name, backends, size, idle)| Service {
        name: ServiceName::new(&name).unwrap(),
        vips: Vec::new(),
        mode: Mode::TUNNEL,
        backends,
        table_size: TableSize::new(size).unwrap(),
        idle: IdleTimeouts {
            tcp_syn: idle.0,
            tcp_established: idle.1,
            tcp_fin: idle.2,
            udp: idle.3,
        },
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    })
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back(
        mut services in proptest::collection::vec(any_service(), 1..4),
        vips in proptest::collection::vec(1usize..4, 4),
    ) {
        let mut names = BTreeSet::new();
        services.retain(|s| names.insert(s.name.clone()));
        for (at, service) in services.iter_mut().enumerate() {
            service.vips = (0..vips[at])
                .map(|n| format!("[2001:db8::{at}]:{}/udp", n + 1).parse().unwrap())
                .collect();
        }
        let text: String = services.iter().map(render).collect();
        let file = parse("t.toml", &text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(file.services, services);
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
