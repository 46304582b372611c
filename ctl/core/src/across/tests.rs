use super::*;
use crate::{config, services};

const SERVICES: &str = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp"]
backends = [{ address = "10.0.1.11" }]
"#;
const CONFIG: &str = "[metrics]\nlisten = \"10.0.0.1:9478\"\n";
const TOPOLOGY: &str = r#"
[engine]
addresses = ["10.0.0.100"]
[[interface]]
name = "eth0"
[[worker]]
core = 0
queues = ["eth0:0"]
"#;

fn found(services: &str, config: &str, topology: &str) -> Vec<String> {
    let services_file = services::parse("s", services).unwrap();
    let config_file = config::parse("c", config).unwrap().config;
    let topology_file = Topology::parse("t", topology).unwrap();
    let found = compare(&Files {
        services: Some(Read {
            file: "s",
            text: services,
            value: &services_file,
        }),
        config: Some(Read {
            file: "c",
            text: config,
            value: &config_file,
        }),
        topology: Some(Read {
            file: "t",
            text: topology,
            value: &topology_file,
        }),
    });
    found.iter().map(ToString::to_string).collect()
}

/// The lines begin like these, and there are no others.
#[track_caller]
fn expect(found: &[String], wanted: &[&str]) {
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (line, wanted) in found.iter().zip(wanted) {
        assert!(line.starts_with(wanted), "{line} does not begin {wanted}");
    }
}

#[test]
fn files_that_fit_are_not_complained_of() {
    expect(&found(SERVICES, CONFIG, TOPOLOGY), &[]);
}

#[test]
fn an_engine_address_is_nobody_elses() {
    let services = SERVICES.replace("203.0.113.10", "10.0.0.100");
    expect(
        &found(&services, CONFIG, TOPOLOGY),
        &["s:4:9: service web: VIP 10.0.0.100 is an engine address"],
    );
    let services = SERVICES.replace("10.0.1.11", "10.0.0.100");
    expect(
        &found(&services, CONFIG, TOPOLOGY),
        &["s:5:25: service web: backend 10.0.0.100 is an engine address"],
    );
    let config = "[metrics]\nlisten = \"10.0.0.100:9478\"\n[bgp]\nas = 1\nrouter_id = \"10.0.0.1\"\n\
                  [[bgp.peer]]\naddress = \"10.0.0.2\"\nas = 2\nsource = \"10.0.0.100\"\n";
    expect(
        &found(SERVICES, config, TOPOLOGY),
        &[
            "c:2:10: [metrics] listens at 10.0.0.100:9478, an engine address",
            "c:2:10: router 10.0.0.2: `source` 10.0.0.100 is an engine address",
        ],
    );
}

#[test]
fn backends_are_reached_over_a_version_that_the_engine_has() {
    let services = SERVICES.replace("10.0.1.11", "fd00::11");
    let wanted =
        "s:3:8: service web: its backends are reached over IPv6, but the engine has no IPv6";
    expect(&found(&services, CONFIG, TOPOLOGY), &[wanted]);
    let both = TOPOLOGY.replace("\"10.0.0.100\"", "\"10.0.0.100\", \"fd00::100\"");
    expect(&found(&services, CONFIG, &both), &[]);
    // It rewrites where they go to only.
    let nat = SERVICES.replace("backends", "mode = \"nat\"\nbackends");
    let v6 = TOPOLOGY.replace("10.0.0.100", "fd00::100");
    expect(&found(&nat, CONFIG, &v6), &[]);
}

#[test]
fn listeners_have_ports_of_their_own() {
    let config = "[metrics]\nlisten = \"0.0.0.0:9478\"\n[random]\nlisten = \"10.0.0.1:9478\"\n";
    expect(
        &found(SERVICES, config, TOPOLOGY),
        &["c:4:10: [random] listens at 10.0.0.1:9478, as [metrics] does"],
    );
    let apart = config.replace("0.0.0.0", "10.0.0.2");
    expect(&found(SERVICES, &apart, TOPOLOGY), &[]);
    let config = CONFIG.replace("10.0.0.1:", "203.0.113.10:");
    let wanted = "c:2:10: [metrics] listens at 203.0.113.10:9478, a VIP";
    expect(&found(SERVICES, &config, TOPOLOGY), &[wanted]);
}

#[test]
fn checks_can_be_made() {
    let with = |check: &str| {
        let health = format!("health = {{ {check} }}\nbackends");
        SERVICES.replace("backends", &health)
    };
    let script = with("type = \"script\", command = [\"x\"]");
    let wanted = "s:3:8: service web: its check is a script, and none is run";
    expect(&found(&script, CONFIG, TOPOLOGY), &[wanted]);
    let allowed = format!("{CONFIG}[health]\nscripts = \"/etc/lockstep/checks\"\n");
    expect(&found(&script, &allowed, TOPOLOGY), &[]);
    let dropped = format!("{CONFIG}[process]\ndrop = [\"net_admin\", \"net_raw\"]\n");
    expect(
        &found(
            &with("type = \"tcp\", via = \"tunnel\""),
            &dropped,
            TOPOLOGY,
        ),
        &[
            "s:3:8: service web: via = \"tunnel\" needs net_admin, which [process] drops",
            "s:3:8: service web: via = \"tunnel\" needs net_raw, which [process] drops",
        ],
    );
    let wanted = "s:3:8: warning: service web: [process] drops net_raw, which pings need";
    expect(
        &found(&with("type = \"icmp\""), &dropped, TOPOLOGY),
        &[wanted],
    );
}

#[test]
fn vips_are_announced_to_somebody() {
    let services = SERVICES.replace("203.0.113.10:80", "[2001:db8::10]:80");
    let bgp = "[bgp]\nas = 1\nrouter_id = \"10.0.0.1\"\naggregates = [\"2001:db8::/64\", \"192.0.2.0/24\"]\n\
               [[bgp.peer]]\naddress = \"10.0.0.2\"\nas = 2\n";
    expect(
        &found(&services, bgp, TOPOLOGY),
        &[
            "s:4:9: warning: VIP 2001:db8::10 is announced to nobody",
            "c:4:32: warning: no VIP is in 192.0.2.0/24",
        ],
    );
    let peer = bgp.replace(
        "as = 2",
        "as = 2\nfamilies = [\"ipv6\"]\nnext_hop = \"2001:db8:1::1\"",
    );
    let found = found(&services, &peer, TOPOLOGY);
    expect(&found, &["c:4:32: warning: no VIP is in 192.0.2.0/24"]);
}
