//! BGP with gobgpd, as route reflector and as a router of another AS.

use crate::common::routers::{Lab, REFLECTOR, services};
use crate::common::wait_for;
use serde_json::Value;

const CONFIG: &str = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
next_hop = ["10.0.0.1", "2001:db8::1"]
communities = ["64512:100", "64512:1:2"]
med = 5
local_pref = 150

[[bgp.peer]]
address = "10.0.0.2"
as = 64512
source = "10.0.0.1"
add_path = true
"#;

const V4: &str = "203.0.113.10";
const V6: &str = "2001:db8:1::10";

/// An attribute of a path, by its type.
fn attribute(path: &Value, kind: u64) -> Value {
    let all = path["attrs"].as_array().unwrap();
    let found = all.iter().find(|a| a["type"] == kind);
    found.cloned().unwrap_or_default()
}

#[test]
fn a_route_reflector_has_both_families_with_their_attributes_until_they_are_withdrawn() {
    let lab = Lab::new(&[V4, V6], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    for prefix in ["203.0.113.10/32", "2001:db8:1::10/128"] {
        wait_for("the route", || lab.gobgp_paths(prefix).len() == 1);
        let path = &lab.gobgp_paths(prefix)[0];
        assert_eq!(attribute(path, 4)["metric"], 5, "{path}");
        assert_eq!(attribute(path, 5)["value"], 150, "{path}");
        let communities = attribute(path, 8)["communities"].clone();
        assert_eq!(
            communities,
            serde_json::json!([64_512_u32 * 65_536 + 100]),
            "{path}"
        );
        assert!(attribute(path, 32).to_string().contains("64512"), "{path}");
    }
    lab.place.edit(&services(&[V6]));
    wait_for("the withdrawal", || {
        lab.gobgp_paths("203.0.113.10/32").is_empty()
    });
    assert_eq!(lab.gobgp_paths("2001:db8:1::10/128").len(), 1);
}

#[test]
fn a_route_reflector_gets_path_identifiers_and_the_session_is_shown() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    wait_for("the route", || {
        lab.gobgp_paths("203.0.113.10/32").len() == 1
    });
    lab.up("10.0.0.2");
    let session = lab.peer("10.0.0.2", "/session");
    assert_eq!(session["add_path"], serde_json::json!(["ipv4", "ipv6"]));
    assert_eq!(session["families"], serde_json::json!(["ipv4", "ipv6"]));
    assert_eq!(session["hold_time_seconds"], 9);
    assert_eq!(session["graceful_restart"], true);
    lab.place.lockstep(&["bgp"]).expect(
        0,
        &["10.0.0.2", "established", "ipv4, ipv6", "203.0.113.10/32"],
    );
    lab.place
        .lockstep(&["bgp", "10.0.0.2"])
        .expect(0, &["64512:100, 64512:1:2", "local pref        150", "9s"]);
    lab.place
        .lockstep(&["bgp", "10.0.0.9"])
        .expect(1, &["10.0.0.9 is no [[bgp.peer]]"]);
}

#[test]
fn an_aggregate_stands_for_its_vips_while_one_of_them_is_announced() {
    let aggregate = CONFIG.replace("med = 5", "aggregates = [\"203.0.113.0/24\"]");
    let lab = Lab::new(&[V4, "203.0.113.11", "198.51.100.1"], &aggregate);
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    let has = |prefix: &str| !lab.gobgp_paths(prefix).is_empty();
    wait_for("the others", || has("198.51.100.1/32"));
    assert!(has("203.0.113.0/24") && !has("203.0.113.10/32"));
    lab.place.edit(&services(&["203.0.113.11"]));
    wait_for("the change", || !has("198.51.100.1/32"));
    assert!(has("203.0.113.0/24"));
    lab.place.edit(&services(&["198.51.100.1"]));
    wait_for("the end of the aggregate", || !has("203.0.113.0/24"));
    lab.place
        .configure(&aggregate.replace("[bgp]", "[bgp]\nspecifics = true"));
    lab.place.edit(&services(&[V4]));
    wait_for("both", || has("203.0.113.0/24") && has("203.0.113.10/32"));
    assert_eq!(lab.peer("10.0.0.2", "/flaps"), 0);
}

#[test]
fn vips_of_a_cluster_go_out_as_they_did_while_its_api_server_is_away() {
    let lab = Lab::new(&[V4, "198.51.100.1", "203.0.113.11"], CONFIG);
    let first = lab.daemon();
    let engine = lab.engine.as_ref().unwrap();
    wait_for("the services", || engine.applied() > 0);
    first.kill();
    // The file has one of them from now on. The others are the cluster's, as far as anybody knows.
    lab.place.edit(&services(&[V4]));
    let away = lab.place.path("no-such-kubeconfig");
    let cluster = format!("{CONFIG}\n[kubernetes]\nkubeconfig = {away:?}\n");
    lab.place.configure(&cluster);
    let route = |peers: &str, community: &str, length: u8| {
        format!(r#"{{ "peers": [{peers}], "communities": ["{community}"], "length": {length} }}"#)
    };
    let (here, elsewhere) = (
        route(r#""10.0.0.2""#, "64512:7", 24),
        route(r#""10.0.0.9""#, "64512:8", 32),
    );
    let kept = format!(
        r#"{{ "198.51.100.1": {{ "bgp": [{here}, {elsewhere}], "layer2": null }},
              "203.0.113.11": {{ "bgp": [], "layer2": null }} }}"#
    );
    std::fs::write(lab.place.path("state/advertised.json"), kept).unwrap();
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    let has = |prefix: &str| lab.gobgp_paths(prefix);
    wait_for("both", || {
        has("203.0.113.10/32").len() == 1 && has("198.51.100.0/24").len() == 1
    });
    let communities = |prefix: &str| attribute(&has(prefix)[0], 8)["communities"].clone();
    let number = |low: u32| 64_512_u32 * 65_536 + low;
    assert_eq!(
        communities("198.51.100.0/24"),
        serde_json::json!([number(100), number(7)])
    );
    assert_eq!(
        communities("203.0.113.10/32"),
        serde_json::json!([number(100)])
    );
    assert!(has("198.51.100.1/32").is_empty() && has("203.0.113.11/32").is_empty());
    lab.place
        .lockstep(&["bgp"])
        .expect(0, &["203.0.113.11", "not advertised"]);
}
