//! What the rules of a schema say of an object, for tests.

use kube::CustomResourceExt;
use kube::core::cel::{Validator, apply_defaults};
use serde_json::{Value, json};

/// The schema that the API server has of a resource.
pub fn schema<T: CustomResourceExt>() -> Value {
    let crd = serde_json::to_value(T::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// What the rules say of an object with this spec; nothing where it is right.
pub fn verdict<T: CustomResourceExt>(spec: Value) -> String {
    let schema = schema::<T>();
    let object = json!({ "metadata": { "name": "one" }, "spec": spec });
    let object = apply_defaults(&schema, &object);
    match Validator::new().validate(&schema, &object, None) {
        Ok(()) => String::new(),
        Err(errors) => errors.iter().map(|e| e.message.clone()).collect(),
    }
}

/// The columns that `kubectl get` shows without `-o wide`.
pub fn columns<T: CustomResourceExt>() -> Vec<String> {
    let columns = T::crd().spec.versions[0].additional_printer_columns.clone();
    let columns = columns.into_iter().flatten();
    let shown = columns.filter(|c| c.priority.unwrap_or(0) == 0);
    shown.map(|c| c.name).collect()
}
