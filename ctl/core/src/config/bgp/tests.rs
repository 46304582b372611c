//! `[bgp]`: what is read, and what is refused.

use super::*;
use crate::bgp::routes::Community;
use crate::config::parse;

fn bgp(text: &str) -> Bgp {
    parse("lockstepd.toml", text).unwrap().config.bgp
}

fn errors(text: &str) -> String {
    parse("lockstepd.toml", text).unwrap_err().to_string()
}

const FULL: &str = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
hold_time = "30s"
graceful_restart = "60s"
listen = ["10.0.0.1:1790"]
aggregates = ["203.0.113.0/24"]
local_pref = 200
med = 7
communities = ["64512:100", "no-export"]
next_hop = ["10.0.0.1", "2001:db8::1"]

[[bgp.peer]]
address = "10.0.0.254"
as = 64512
add_path = true
communities = ["4200000000:1:2", "rt:64512:9"]

[[bgp.peer]]
address = "2001:db8::ffff"
as = 4200000001
port = 1179
passive = true
password = "hush"
families = ["ipv6"]
ttl_security = 2
source = "2001:db8::1"
hold_time = "0s"
prepend = 2
description = "edge"
"#;

#[test]
fn peers_have_what_they_say_and_else_what_all_have() {
    let bgp = bgp(FULL);
    assert_eq!(bgp.listen, ["10.0.0.1:1790".parse().unwrap()]);
    assert_eq!(bgp.aggregates, ["203.0.113.0/24".parse().unwrap()]);
    let inner = &bgp.peers[&"10.0.0.254".parse::<IpAddr>().unwrap()];
    assert_eq!(inner.settings.hold_time, 30);
    assert_eq!(inner.settings.graceful_restart, Some(60));
    assert_eq!(inner.settings.families, Families::from(Family::ALL));
    assert!(inner.settings.add_path && inner.settings.is_internal());
    assert_eq!((inner.policy.local_pref, inner.policy.med), (200, Some(7)));
    let large = Community::Large(4_200_000_000, 1, 2);
    let target = Community::Extended(Community::ROUTE_TARGET, 64512, 9);
    assert_eq!(inner.policy.communities, [large, target]);
    assert_eq!((inner.port, inner.distance), (179, Distance::Any));
    let edge = &bgp.peers[&"2001:db8::ffff".parse::<IpAddr>().unwrap()];
    assert_eq!(edge.settings.hold_time, 0);
    assert_eq!(edge.settings.families, Families::from([Family::Ipv6]));
    assert!(edge.settings.passive && !edge.settings.is_internal());
    assert_eq!(edge.distance, Distance::Secured(NonZeroU8::new(2).unwrap()));
    assert_eq!(edge.policy.prepend, 2);
    let standard = Community::Standard(64512 << 16 | 100);
    let exported = Community::Standard(0xffff_ff01);
    assert_eq!(edge.policy.communities, [standard, exported]);
}

#[test]
fn a_short_configuration_is_enough() {
    let text = "[bgp]\nas = 64512\nrouter_id = \"10.0.0.1\"\npeer = [{ address = \"10.0.0.254\", as = 64513 }]\n";
    let bgp = bgp(text);
    let peer = bgp.peers.values().next().unwrap();
    assert!(bgp.listen.is_empty());
    assert_eq!(peer.settings.families, Families::from([Family::Ipv4]));
    assert_eq!(peer.settings.graceful_restart, Some(120));
    assert_eq!(peer.distance, Distance::Hops(NonZeroU8::MIN));
}

#[test]
fn passive_peers_are_listened_for() {
    let text = FULL.replace("listen = [\"10.0.0.1:1790\"]\n", "");
    assert_eq!(bgp(&text).listen.len(), 2);
}

#[test]
fn secrets_are_never_printed() {
    assert!(!format!("{:?}", bgp(FULL)).contains("hush"));
    let long = format!("password = \"{}\"", "hush".repeat(30));
    let error = errors(&FULL.replace("password = \"hush\"", &long));
    assert!(
        error.contains("120 bytes") && !error.contains("hush"),
        "{error}"
    );
    let number = errors(&FULL.replace("password = \"hush\"", "password_file = 7"));
    assert!(number.contains("password_file"), "{number}");
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_is_allowed() {
    let rows = [
        (
            "as = 64512\nrouter",
            "router",
            "`as` is missing in [bgp]; the AS number",
        ),
        (
            "router_id = \"10.0.0.1\"\n",
            "",
            "`router_id` is missing in [bgp]; an IPv4",
        ),
        (
            "router_id = \"10.0.0.1\"",
            "router_id = \"0.0.0.0\"",
            ":4:13: `router_id`: \"0.0.0.0\" is not a router id",
        ),
        (
            "hold_time = \"30s\"",
            "hold_time = \"2s\"",
            ":5:13: `hold_time`: \"2s\" is out of range",
        ),
        ("\"60s\"", "true", ":6:20:"),
        (
            "\"60s\"",
            "\"2h\"",
            "\"2h\" is out of range; from \"1s\" to \"4095s\"",
        ),
        (
            "203.0.113.0/24",
            "203.0.113.1/24",
            "the prefix is 203.0.113.0/24",
        ),
        (
            "\"203.0.113.0/24\"",
            "\"203.0.113.0\"",
            "\"203.0.113.0\" is not a prefix",
        ),
        ("64512:100", "64512:100000", "is not a community"),
        (
            "\"2001:db8::1\"]",
            "\"10.0.0.2\"]",
            "two next hops of one family",
        ),
        (
            "prepend = 2",
            "local_pref = 2",
            "`local_pref` is never told this peer; routers of another AS",
        ),
        (
            "add_path = true",
            "prepend = 2",
            "`prepend` is never told this peer; routers of the own AS",
        ),
        ("prepend = 2", "prepend = 33", "a whole number from 0 to 32"),
        (
            "ttl_security = 2",
            "ttl_security = 2\nmultihop = 3",
            "`multihop` is there already",
        ),
        (
            "source = \"2001:db8::1\"",
            "source = \"10.0.0.1\"",
            "10.0.0.1 cannot connect to 2001:db8::ffff",
        ),
        (
            "families = [\"ipv6\"]",
            "families = []",
            "a session carries something",
        ),
        (
            "families = [\"ipv6\"]",
            "families = [\"ipv5\"]",
            "\"ipv5\" is not a family",
        ),
        ("passive = true", "pasive = true", "did you mean `passive`?"),
        (
            "10.0.0.254",
            "2001:db8::ffff",
            "2001:db8::ffff is a peer already",
        ),
        ("\"10.0.0.254\"", "\"fe80::1\"", "is no address of one host"),
        ("port = 1179", "port = 0", "a whole number from 1 to 65535"),
        ("as = 4200000001", "as = 0", "the number of an AS"),
        (
            "password = \"hush\"",
            "password = \"hush\"\npassword_file = \"/x\"",
            "either `password` or",
        ),
    ];
    for (from, to, expected) in rows {
        let text = FULL.replacen(from, to, 1);
        assert_ne!(text, FULL, "{from}");
        let found = errors(&text);
        assert!(found.contains(expected), "{from} -> {to}: {found}");
    }
    let alone = FULL.replace("next_hop = [\"10.0.0.1\", \"2001:db8::1\"]\n", "");
    let both = alone.replace("families = [\"ipv6\"]", "families = [\"ipv4\", \"ipv6\"]");
    let error = errors(&both);
    assert!(
        error.contains("routes of ipv4 to 2001:db8::ffff have no next hop"),
        "{error}"
    );
}
