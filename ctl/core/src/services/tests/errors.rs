//! Everything that is wrong, at its line, at once.

use super::*;

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
