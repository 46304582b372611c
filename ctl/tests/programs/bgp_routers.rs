//! BGP with FRR and BIRD: other ASes, both families, passwords, short AS numbers.

use crate::common::routers::{Lab, services};
use crate::common::wait_for;
use serde_json::json;

const V4: &str = "203.0.113.10";
const V6: &str = "2001:db8:1::10";

const FRR: &str = "\
router bgp 64513
 bgp router-id 10.0.0.3
 no bgp ebgp-requires-policy
 neighbor 10.0.0.1 remote-as 64512
 neighbor 10.0.0.1 update-source 10.0.0.3
 neighbor 10.0.0.1 timers connect 1
 neighbor 2001:db8::1 remote-as 64512
 neighbor 2001:db8::1 update-source 2001:db8::3
 neighbor 2001:db8::1 timers connect 1
 address-family ipv4 unicast
  neighbor 10.0.0.1 activate
  no neighbor 2001:db8::1 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 2001:db8::1 activate
 exit-address-family
";

#[test]
fn frr_of_another_as_has_both_families_with_their_attributes_until_they_are_withdrawn() {
    let config = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
listen = ["10.0.0.1:179", "[2001:db8::1]:179"]
med = 7
prepend = 2
communities = ["64512:100", "64512:1:2", "rt:64512:9"]
[[bgp.peer]]
address = "10.0.0.3"
as = 64513
source = "10.0.0.1"
[[bgp.peer]]
address = "2001:db8::3"
as = 64513
source = "2001:db8::1"
"#;
    let lab = Lab::new(&[V4, V6], config);
    let _router = lab.frr(FRR);
    let daemon = lab.daemon();
    let rows = [
        ("ipv4", "203.0.113.10/32", "10.0.0.1"),
        ("ipv6", "2001:db8:1::10/128", "2001:db8::1"),
    ];
    let paths = |family: &str, prefix: &str| {
        let all = lab.vtysh(&format!("show bgp {family} unicast {prefix} json"));
        all["paths"].as_array().cloned().unwrap_or_default()
    };
    for (family, prefix, next_hop) in rows {
        wait_for("the route", || paths(family, prefix).len() == 1);
        let path = &paths(family, prefix)[0];
        assert_eq!(path["aspath"]["string"], "64512 64512 64512", "{path}");
        assert_eq!(path["metric"], 7, "{path}");
        assert_eq!(path["community"]["string"], "64512:100", "{path}");
        assert_eq!(path["largeCommunity"]["string"], "64512:1:2", "{path}");
        assert_eq!(path["extendedCommunity"]["string"], "RT:64512:9", "{path}");
        assert_eq!(path["nexthops"][0]["ip"], next_hop, "{path}");
    }
    for router in ["10.0.0.3", "2001:db8::3"] {
        lab.up(router);
        assert_eq!(lab.peer(router, "/flaps"), 0, "{}", daemon.log());
    }
    lab.place.edit(&services(&[V4]));
    wait_for("the withdrawal", || {
        paths("ipv6", "2001:db8:1::10/128").is_empty()
    });
    assert_eq!(paths("ipv4", "203.0.113.10/32").len(), 1);
    daemon.terminate();
    wait_for("the last withdrawal", || {
        paths("ipv4", "203.0.113.10/32").is_empty()
    });
}

#[test]
fn a_router_that_asks_for_a_refresh_has_all_routes_again() {
    let config = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
peer = [{ address = "10.0.0.3", as = 64513, source = "10.0.0.1" }]
"#;
    let lab = Lab::new(&[V4], config);
    let _router = lab.frr(FRR);
    let _daemon = lab.daemon();
    let announced = || lab.peer("10.0.0.3", "/counters/updates_sent").as_u64();
    wait_for("the route", || announced() > Some(0));
    let before = announced().unwrap();
    lab.vtysh("clear bgp ipv4 unicast 10.0.0.1 soft in");
    wait_for("the route again", || announced() > Some(before));
    assert_eq!(lab.peer("10.0.0.3", "/flaps"), 0);
}

fn bird(options: &str) -> String {
    format!(
        "log stderr all;
router id 10.0.0.4;
protocol device {{ }}
protocol bgp balancer {{
  local 10.0.0.4 as 64514;
  multihop 2;
  strict bind yes;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  {options}
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
"
    )
}

#[test]
fn a_router_with_short_as_numbers_has_as_trans_and_the_path_beside_it() {
    let config = r#"
[bgp]
as = 4200000000
router_id = "10.0.0.1"
next_hop = ["10.0.0.1", "2001:db8::1"]
[[bgp.peer]]
address = "10.0.0.4"
as = 64514
source = "10.0.0.1"
"#;
    let lab = Lab::new(&[V4, V6], config);
    let _router = lab.bird(&bird("neighbor 10.0.0.1 external; enable as4 off;"));
    let _daemon = lab.daemon();
    for vip in [V4, V6] {
        let route = || lab.birdc(&format!("show route for {vip} all"));
        // BIRD puts the one into the other (RFC 6793 §4.2.3).
        wait_for("the route", || {
            route().contains("BGP.as_path: 4200000000\n")
        });
    }
    lab.up("10.0.0.4");
    assert_eq!(lab.peer("10.0.0.4", "/session/four_octet_as"), false);
    assert_eq!(
        lab.peer("10.0.0.4", "/session/families"),
        json!(["ipv4", "ipv6"])
    );
}

fn with_password(password: &str, passive: bool, router: &str, own: &str) -> String {
    format!(
        r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
listen = ["10.0.0.1:179", "[2001:db8::1]:179"]
[[bgp.peer]]
address = "{router}"
as = 64514
source = "{own}"
next_hop = "10.0.0.1"
password = "{password}"
passive = {passive}
"#
    )
}

#[test]
fn passwords_have_to_be_the_same_whoever_connects() {
    for (passive, router, own) in [
        (false, "10.0.0.4", "10.0.0.1"),
        (true, "10.0.0.4", "10.0.0.1"),
        (true, "2001:db8::4", "2001:db8::1"),
    ] {
        let lab = Lab::new(&[V4], &with_password("guessed", passive, router, own));
        let away = if passive { "" } else { "passive yes;" };
        let options = format!("neighbor {own} as 64512; password \"hush\"; {away}");
        let config = bird(&options).replace("local 10.0.0.4", &format!("local {router}"));
        let _router = lab.bird(&config);
        let daemon = lab.daemon();
        if passive {
            wait_for("BIRD's attempt to be ignored", || {
                lab.birdc("show protocols all balancer").contains("Connect")
            });
        } else {
            wait_for("no answer", || {
                lab.peer(router, "/last_error") == "the router does not answer"
            });
        }
        wait_for("the daemon", || lab.peer(router, "/state").is_string());
        assert_eq!(lab.peer(router, "/counters/sessions"), 0);
        // A changed password is taken up without a restart of the daemon.
        lab.place
            .configure(&with_password("hush", passive, router, own));
        lab.up(router);
        wait_for("the route", || {
            lab.birdc("show route").contains("203.0.113.10/32")
        });
        let all = format!("{}{}", daemon.log(), lab.bgp());
        assert!(!all.contains("hush") && !all.contains("guessed"), "{all}");
    }
}

#[test]
fn a_changed_configuration_restarts_only_the_sessions_that_it_concerns() {
    let config = |med: u32, hold: &str| {
        format!(
            r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
[[bgp.peer]]
address = "10.0.0.4"
as = 64514
source = "10.0.0.1"
med = {med}
[[bgp.peer]]
address = "10.0.0.3"
as = 64513
source = "10.0.0.1"
hold_time = "{hold}"
"#
        )
    };
    let lab = Lab::new(&[V4], &config(5, "9s"));
    let _bird = lab.bird(&bird("neighbor 10.0.0.1 as 64512; passive yes;"));
    let _frr = lab.frr(FRR);
    let _daemon = lab.daemon();
    let has = |what: &str| lab.birdc("show route all").contains(what);
    wait_for("the route", || has("BGP.med: 5"));
    lab.up("10.0.0.3");
    lab.place.configure(&config(6, "30s"));
    wait_for("another MED", || has("BGP.med: 6"));
    wait_for("another hold time", || {
        // FRR proposes more.
        lab.peer("10.0.0.3", "/session/hold_time_seconds") == 30
    });
    assert_eq!(lab.peer("10.0.0.4", "/flaps"), 0);
    assert_eq!(lab.peer("10.0.0.4", "/counters/sessions"), 1);
}

#[test]
fn only_packets_from_near_enough_are_taken_with_ttl_security() {
    let config = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
[[bgp.peer]]
address = "10.0.0.4"
as = 64514
source = "10.0.0.1"
ttl_security = 1
hold_time = "3s"
"#;
    let lab = Lab::new(&[V4], config);
    // BIRD looks at our packets, too, and its own say that they come from here.
    let near = bird("neighbor 10.0.0.1 as 64512; passive yes; ttl security on;");
    let near = near.replace("multihop 2", "multihop 1");
    let router = lab.bird(&near);
    let daemon = lab.daemon();
    lab.up("10.0.0.4");
    daemon.terminate();
    drop(router);
    let router = lab.bird(&near.replace("ttl security on", "ttl security off"));
    let _daemon = lab.daemon();
    wait_for("the router's end", || {
        router.log().contains("Hold timer expired")
    });
    assert_eq!(lab.peer("10.0.0.4", "/counters/sessions"), 0);
    assert_eq!(lab.peer("10.0.0.4", "/counters/messages_received"), 0);
}

/// A block of the page about routers, by its language.
fn documented(language: &str) -> String {
    let page = include_str!("../../../docs/src/operations/routing.md");
    let start = format!("```{language}\n");
    let (_, block) = page.split_once(&start).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn routers_that_are_set_up_as_the_book_says_have_the_routes() {
    let lab = Lab::new(&[V4, V6], &documented("toml"));
    let _reflector = lab.gobgpd(&documented("gobgp"));
    let _frr = lab.frr(&documented("frr"));
    // In this namespace the balancer is no neighbor, but the same host.
    let neighbor = "neighbor 10.0.0.1 as 64512;";
    let bird = documented("bird").replace(neighbor, &format!("{neighbor} multihop 2;"));
    let _bird = lab.bird(&bird);
    let _daemon = lab.daemon();
    for router in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        lab.up(router);
        wait_for("the routes", || lab.peer(router, "/routes") == 2);
    }
    for prefix in ["203.0.113.10/32", "2001:db8:1::10/128"] {
        wait_for("GoBGP's route", || !lab.gobgp_paths(prefix).is_empty());
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let frr = format!("show bgp {family} unicast {prefix} json");
        wait_for("FRR's route", || lab.vtysh(&frr)["paths"].is_array());
        wait_for("BIRD's route", || {
            lab.birdc(&format!("show route {prefix}"))
                .contains("balancer")
        });
    }
    let shown = lab.place.lockstep(&["bgp"]);
    shown.expect(
        0,
        &[
            "reflector",
            "frr",
            "bird",
            "203.0.113.10/32",
            "10.0.0.2, 10.0.0.3, 10.0.0.4",
        ],
    );
    println!(
        "{}\n{}",
        shown.out,
        lab.place.lockstep(&["bgp", "10.0.0.2"]).out
    );
}
