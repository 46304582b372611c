use super::*;
use crate::resources::rules::{columns, schema, verdict};
use kube::CustomResourceExt;
use serde_json::json;

#[test]
fn entries_are_cidrs_ranges_and_addresses() {
    let (form, bits) = ("each of addresses is", "has bits set after its length");
    for (entry, wanted) in [
        ("192.0.2.0/24", ""),
        ("2001:db8::/120", ""),
        ("192.0.2.10-192.0.2.20", ""),
        ("2001:db8::1-2001:db8::9", ""),
        ("192.0.2.1", ""),
        ("2001:db8::1", ""),
        ("192.0.2.5/24", bits),
        ("192.0.2.0/33", form),
        ("192.0.2.256", form),
        ("192.0.2.1 - 192.0.2.2", form),
        ("192.0.2.1-2001:db8::1", form),
        ("192.0.2.1-192.0.2.2-192.0.2.3", form),
        ("192.0.2.1-", form),
        ("lb.example.com", form),
    ] {
        let said = verdict::<AddressPool>(json!({ "addresses": ["198.51.100.1", entry] }));
        match wanted {
            "" => assert_eq!(said, "", "{entry}"),
            _ => assert!(said.contains(wanted), "{entry}: {said:?}"),
        }
    }
}

#[test]
fn the_schema_bounds_what_rules_do_not() {
    let schema = schema::<AddressPool>();
    let spec = &schema["properties"]["spec"]["properties"];
    assert_eq!(spec["addresses"]["minItems"], 1);
    assert_eq!(spec["addresses"]["maxItems"], 256);
    assert_eq!(spec["addresses"]["items"]["maxLength"], 80);
    assert_eq!(spec["addresses"]["x-kubernetes-list-type"], "set");
    assert_eq!(spec["autoAssign"]["default"], true);
    assert_eq!(spec["avoidBuggyIPs"]["default"], false);
    let selector = &spec["serviceSelector"]["properties"];
    assert_eq!(selector["namespaces"]["maxItems"], 256);
    let conditions = &schema["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
}

#[test]
fn columns_are_those_that_operators_look_for() {
    assert_eq!(
        columns::<AddressPool>(),
        [
            "Auto",
            "Addresses",
            "Available",
            "Assigned",
            "Ready",
            "Conflict",
            "Age"
        ]
    );
    let names = AddressPool::crd().spec.names;
    assert_eq!(names.short_names, Some(vec!["apool".to_owned()]));
}

#[test]
fn what_the_least_says_is_read_with_its_defaults() {
    let least = json!({ "addresses": ["192.0.2.1"] });
    let spec: AddressPoolSpec = serde_json::from_value(least).unwrap();
    assert!(spec.auto_assign && !spec.avoid_buggy_ips && spec.service_selector.is_none());
}
