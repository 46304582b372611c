//! Objects of manifests, read by the types of the API.

use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, rbac::v1 as rbac};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use lockstep_kubernetes::resources::{AddressPool, Advertisement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All objects of a manifest.
pub struct Objects(Vec<Value>);

/// Kind, namespace and name.
pub fn name(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

impl Objects {
    /// Of a YAML text with any number of documents.
    pub fn read(text: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        Objects(
            documents
                .into_iter()
                .filter(|document| !document.is_null())
                .collect(),
        )
    }

    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    pub fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.iter().filter(move |object| object["kind"] == kind)
    }

    pub fn get(&self, kind: &str, name: &str) -> &Value {
        let found = self
            .of(kind)
            .find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// The files in ConfigMaps: the map's name, the file's, the text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.of("ConfigMap").flat_map(|map| {
            let name = map["metadata"]["name"].as_str().unwrap();
            let files = map["data"].as_object().into_iter().flatten();
            files.map(move |(file, text)| (name, file.as_str(), text.as_str().unwrap()))
        })
    }

    pub fn file(&self, map: &str, file: &str) -> Option<&str> {
        let mut files = self.files();
        files
            .find(|(of, name, _)| *of == map && *name == file)
            .map(|(.., text)| text)
    }

    /// The pod of a Deployment or DaemonSet.
    pub fn pod(&self, workload: &str) -> &Value {
        let is = |object: &&Value| {
            object["metadata"]["name"] == workload && object["spec"]["template"].is_object()
        };
        &self.iter().find(is).unwrap()["spec"]["template"]["spec"]
    }

    /// Its containers, those that come first and the sidecars among them.
    pub fn containers(&self, workload: &str) -> impl Iterator<Item = &Value> {
        let pod = self.pod(workload);
        let lists = [&pod["initContainers"], &pod["containers"]];
        lists.into_iter().filter_map(Value::as_array).flatten()
    }

    pub fn container(&self, workload: &str, name: &str) -> &Value {
        let mut containers = self.containers(workload);
        containers
            .find(|container| container["name"] == name)
            .unwrap()
    }
}

/// Whether an object is one of the API: every field of it is known, and has the right type.
pub fn strictly(object: &Value) -> Result<(), String> {
    let (version, kind) = (&object["apiVersion"], &object["kind"]);
    let check = match (
        version.as_str().unwrap_or_default(),
        kind.as_str().unwrap_or_default(),
    ) {
        ("v1", "Namespace") => back::<core::Namespace>,
        ("v1", "ServiceAccount") => back::<core::ServiceAccount>,
        ("v1", "ConfigMap") => back::<core::ConfigMap>,
        ("apps/v1", "Deployment") => back::<apps::Deployment>,
        ("apps/v1", "DaemonSet") => back::<apps::DaemonSet>,
        ("rbac.authorization.k8s.io/v1", "Role") => back::<rbac::Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => back::<rbac::RoleBinding>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => back::<rbac::ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => back::<rbac::ClusterRoleBinding>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => back::<CustomResourceDefinition>,
        ("lockstep.dev/v1alpha1", "AddressPool") => back::<AddressPool>,
        ("lockstep.dev/v1alpha1", "Advertisement") => back::<Advertisement>,
        other => return Err(format!("{other:?} is no kind that is deployed")),
    };
    let (.., name) = name(object);
    check(object).map_err(|problem| format!("{kind} {name}: {problem}"))
}

/// What is read and written again has every field that was there.
fn back<T: Serialize + DeserializeOwned>(object: &Value) -> Result<(), String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(read).map_err(|error| error.to_string())?;
    match lost(object, &written, "") {
        None => Ok(()),
        Some(path) => Err(format!("{path} is no field of it, or has another type")),
    }
}

/// The first thing that is in one and not, or otherwise, in the other. An empty list or object may be
/// none.
fn lost(is: &Value, written: &Value, path: &str) -> Option<String> {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    match (is, written) {
        (Value::Object(is), Value::Object(written)) => is.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
            match written.get(key) {
                Some(other) => lost(value, other, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        (Value::Array(is), Value::Array(written)) if is.len() == written.len() => {
            let mut pairs = is.iter().zip(written).enumerate();
            pairs.find_map(|(at, (one, other))| lost(one, other, &format!("{path}[{at}]")))
        }
        // 32 is 32.0.
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => None,
        (one, other) if one == other || empty(one) && empty(other) => None,
        _ => Some(path.to_owned()),
    }
}
