//! The manifests of our resources are generated from their types: what a cluster checks is what the
//! daemon reads. `UPDATE=1 cargo test -p lockstep-kubernetes` writes them.

use super::{AddressPool, Advertisement, Dire};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "\
# Generated from ctl/kubernetes/src/resources; a test compares.
# UPDATE=1 cargo test -p lockstep-kubernetes
";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/lockstep/files/crds")
}

/// A resource, as it is installed. It outlives the chart: with it all its objects would go, and with
/// them the addresses of Services.
fn manifest<K: CustomResourceExt>() -> (String, Value) {
    let mut crd = serde_json::to_value(K::crd()).unwrap();
    crd["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    crd["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "lockstep" });
    let plural = crd["spec"]["names"]["plural"].as_str().unwrap().to_owned();
    (format!("{plural}.yaml"), sorted(crd))
}

/// With the keys of all objects in order, whatever the map of `serde_json` is.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.into_iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            let entries = entries.into_iter().filter(|(_, value)| !value.is_null());
            let sorted: Map<_, _> = entries.map(|(key, v)| (key, sorted(v))).collect();
            Value::Object(sorted)
        }
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        value => value,
    }
}

fn yaml(value: &Value) -> String {
    // A rule that is folded over several lines is hard to find again.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(value, options).unwrap();
    format!("{HEAD}{text}")
}

fn manifests() -> Vec<(String, Value)> {
    vec![
        manifest::<AddressPool>(),
        manifest::<Advertisement>(),
        manifest::<Dire>(),
    ]
}

#[test]
fn the_manifests_of_our_resources_are_those_of_their_types() {
    let manifests = manifests();
    let mut there: Vec<String> = Vec::new();
    fs::create_dir_all(folder()).unwrap();
    for (name, value) in &manifests {
        let (path, text) = (folder().join(name), yaml(value));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let is = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            is == text,
            "{} is not what the types say: UPDATE=1 cargo test -p lockstep-kubernetes",
            path.display()
        );
        there.push(name.clone());
    }
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    there.sort();
    assert_eq!(files, there, "no manifest of what there is not any more");
}

#[test]
fn a_manifest_is_read_as_what_was_written() {
    for (name, value) in manifests() {
        let read: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(read, value, "{name}");
        assert_eq!(read["apiVersion"], "apiextensions.k8s.io/v1");
        assert_eq!(read["kind"], "CustomResourceDefinition");
        let version = &read["spec"]["versions"][0];
        assert_eq!(version["subresources"]["status"], json!({}), "{name}");
        assert!(version["additionalPrinterColumns"].is_array(), "{name}");
    }
}
