use super::*;
use crate::resources::rules::{columns, schema, verdict};
use kube::CustomResourceExt;
use serde_json::json;

#[test]
fn each_type_has_what_is_its_own() {
    let (l2_only, bgp_only) = ("type L2 only", "type BGP only");
    for (spec, wanted) in [
        (json!({ "type": "BGP" }), ""),
        (json!({ "type": "L2", "pools": ["a"] }), ""),
        (json!({ "type": "L2", "interfaces": ["eth0"] }), ""),
        (json!({ "type": "BGP", "interfaces": [] }), ""),
        (json!({ "type": "BGP", "interfaces": ["eth0"] }), l2_only),
        (
            json!({
                "type": "BGP",
                "peers": ["10.0.0.1", "2001:db8::1"],
                "communities": ["64512:100", "4200000000:1:2", "rt:64512:7", "soo:1:2", "no-export"],
                "aggregationLength": 24,
                "aggregationLengthV6": 64,
            }),
            "",
        ),
        (json!({ "type": "L2", "peers": [], "communities": [] }), ""),
        (json!({ "type": "L2", "peers": ["10.0.0.1"] }), bgp_only),
        (
            json!({ "type": "L2", "communities": ["64512:1"] }),
            bgp_only,
        ),
        (json!({ "type": "L2", "aggregationLength": 24 }), bgp_only),
        (json!({ "type": "L2", "aggregationLengthV6": 64 }), bgp_only),
        (
            json!({ "type": "BGP", "peers": ["router-1"] }),
            "addresses of routers",
        ),
        (
            json!({ "type": "BGP", "communities": ["64512"] }),
            "communities are written",
        ),
        (
            json!({ "type": "BGP", "communities": ["1:2:3:4"] }),
            "communities are written",
        ),
    ] {
        let said = verdict::<Advertisement>(spec.clone());
        match wanted {
            "" => assert_eq!(said, "", "{spec}"),
            _ => assert!(said.contains(wanted), "{spec}: {said:?}"),
        }
    }
}

#[test]
fn the_schema_bounds_what_rules_do_not() {
    let schema = schema::<Advertisement>();
    let spec = &schema["properties"]["spec"]["properties"];
    for (list, most) in [
        ("pools", 64),
        ("interfaces", 64),
        ("peers", 64),
        ("communities", 32),
    ] {
        assert_eq!(spec[list]["maxItems"], most, "{list}");
        assert_eq!(spec[list]["x-kubernetes-list-type"], "set", "{list}");
    }
    for (length, most) in [("aggregationLength", 32.0), ("aggregationLengthV6", 128.0)] {
        assert_eq!(spec[length]["minimum"].as_f64(), Some(1.0));
        assert_eq!(spec[length]["maximum"].as_f64(), Some(most));
    }
    assert_eq!(spec["type"]["enum"], json!(["BGP", "L2"]));
    let conditions = &schema["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
}

#[test]
fn columns_are_those_that_operators_look_for() {
    assert_eq!(
        columns::<Advertisement>(),
        ["Type", "Pools", "Ready", "Age"]
    );
    let names = Advertisement::crd().spec.names;
    assert_eq!(names.short_names, Some(vec!["adv".to_owned()]));
}
