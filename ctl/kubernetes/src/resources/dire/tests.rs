use super::*;
use kube::CustomResourceExt;
use kube::core::cel::{Validator, apply_defaults};
use serde_json::{Value, json};

fn schema() -> Value {
    let crd = serde_json::to_value(Dire::crd()).expect("it is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn dire(spec: Value) -> Value {
    json!({ "metadata": { "name": "game", "namespace": "default" }, "spec": spec })
}

/// What the rules say of a new object, or of one in the place of another.
fn verdict(object: &Value, old: Option<&Value>) -> String {
    let schema = schema();
    let object = apply_defaults(&schema, object);
    let old = old.map(|old| apply_defaults(&schema, old));
    match Validator::new().validate(&schema, &object, old.as_ref()) {
        Ok(()) => String::new(),
        Err(errors) => errors.iter().map(|e| e.message.clone()).collect(),
    }
}

#[test]
fn rules_of_one_object() {
    let long = "x".repeat(59);
    for (why, spec, wanted) in [
        ("the least", json!({}), ""),
        ("a quorum", json!({ "commit": "Quorum", "quorum": 2 }), ""),
        (
            "a quorum without its number",
            json!({ "commit": "Quorum" }),
            "needs a quorum",
        ),
        (
            "a number without a quorum",
            json!({ "quorum": 2 }),
            "needs a quorum",
        ),
        ("minSync", json!({ "minSync": 3 }), ""),
        (
            "minSync of the quorum",
            json!({ "commit": "Quorum", "quorum": 2, "minSync": 2 }),
            "",
        ),
        (
            "minSync below the quorum",
            json!({ "commit": "Quorum", "quorum": 2, "minSync": 1 }),
            "at least the quorum",
        ),
        (
            "an image",
            json!({ "distributorImage": "lockstep:1", "distributor": { "addresses": ["10.0.0.9"] } }),
            "",
        ),
        (
            "an image without an address",
            json!({ "distributorImage": "lockstep:1" }),
            "go together",
        ),
        (
            "a port twice",
            json!({ "forwardedPorts": [80, 81, 80] }),
            "a port twice",
        ),
        (
            "a range",
            json!({ "masks": [{ "offset": 0, "length": 8 }] }),
            "",
        ),
        (
            "a pattern",
            json!({ "masks": [{ "pattern": "Date: [^\r]*" }] }),
            "",
        ),
        (
            "half a range",
            json!({ "masks": [{ "offset": 0 }] }),
            "a mask is",
        ),
        (
            "a range and a pattern",
            json!({ "masks": [{ "offset": 0, "length": 8, "pattern": "Date: " }] }),
            "a mask is",
        ),
    ] {
        let mut whole = json!({ "hiveDeploymentName": "game", "forwardedPorts": [80] });
        for (key, value) in spec.as_object().expect("each is an object") {
            whole[key] = value.clone();
        }
        let said = verdict(&dire(whole), None);
        assert!(
            if wanted.is_empty() {
                said.is_empty()
            } else {
                said.contains(wanted)
            },
            "{why}: {said:?}"
        );
    }
    let mut named = dire(json!({ "hiveDeploymentName": "game", "forwardedPorts": [80] }));
    for (name, wanted) in [
        (long.as_str(), "58"),
        ("1game", "58"),
        ("g", ""),
        (&long[1..], ""),
    ] {
        named["metadata"]["name"] = json!(name);
        let said = verdict(&named, None);
        assert_eq!(said.contains("58"), !wanted.is_empty(), "{name}: {said}");
    }
}

#[test]
fn the_deployment_cannot_be_changed_and_all_else_can() {
    let old = dire(json!({ "hiveDeploymentName": "game", "forwardedPorts": [80] }));
    let other = dire(json!({ "hiveDeploymentName": "other", "forwardedPorts": [80] }));
    assert!(verdict(&other, Some(&old)).contains("cannot be changed"));
    let more = dire(json!({
        "hiveDeploymentName": "game", "forwardedPorts": [80, 81],
        "commit": "Quorum", "quorum": 2, "stopEvicted": true,
    }));
    assert_eq!(verdict(&more, Some(&old)), "");
}

#[test]
fn the_schema_bounds_what_rules_do_not() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    assert_eq!(spec["forwardedPorts"]["minItems"], 1);
    assert_eq!(spec["forwardedPorts"]["maxItems"], 64);
    assert_eq!(
        spec["forwardedPorts"]["items"]["minimum"].as_f64(),
        Some(1.0)
    );
    assert_eq!(
        spec["forwardedPorts"]["items"]["maximum"].as_f64(),
        Some(65_535.0)
    );
    assert_eq!(spec["quorum"]["minimum"].as_f64(), Some(1.0));
    assert_eq!(spec["quorum"]["maximum"].as_f64(), Some(128.0));
    assert_eq!(spec["commit"]["default"], "Primary");
    assert_eq!(spec["divergence"]["default"], "Count");
    assert_eq!(spec["rejoin"]["default"], true);
    let status = &schema["properties"]["status"]["properties"];
    for (list, key) in [
        ("conditions", "type"),
        ("replicas", "pod"),
        ("balancers", "name"),
    ] {
        assert_eq!(status[list]["x-kubernetes-list-type"], "map", "{list}");
        assert_eq!(status[list]["x-kubernetes-list-map-keys"][0], key, "{list}");
    }
    assert_eq!(
        most::REPLICAS as f64,
        status["replicas"]["maxItems"].as_f64().unwrap()
    );
    assert_eq!(
        most::BALANCERS as f64,
        status["balancers"]["maxItems"].as_f64().unwrap()
    );
}

#[test]
fn columns_are_those_that_operators_look_for() {
    let crd = Dire::crd();
    assert_eq!(crd.spec.names.short_names, Some(vec!["dr".to_owned()]));
    let columns = crd.spec.versions[0].additional_printer_columns.clone();
    let columns = columns.into_iter().flatten();
    let shown = columns
        .filter(|c| c.priority.unwrap_or(0) == 0)
        .map(|c| c.name);
    let shown: Vec<String> = shown.collect();
    assert_eq!(
        shown,
        ["Hive", "Ports", "Ready", "Primary", "Synced", "Age"]
    );
}

#[test]
fn what_the_least_says_is_read_with_its_defaults() {
    let least = dire(json!({ "hiveDeploymentName": "game", "forwardedPorts": [80, 81] }));
    let mut least = least;
    least["apiVersion"] = json!("lockstep.dev/v1alpha1");
    least["kind"] = json!("Dire");
    let read: Dire = serde_json::from_value(least).expect("it is a Dire");
    assert!(read.spec.rejoin && !read.spec.stop_evicted);
    assert_eq!(read.spec.commit, Commit::Primary);
    assert_eq!(read.spec.forwarded_ports, [80, 81]);
}
