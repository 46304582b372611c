//! Which manager has applied which fields, as server-side apply keeps it: enough of it for what the
//! daemon depends on.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where a field is: keys, and elements of lists that have a key (`type=Ready`).
pub type Path = Vec<String>;

/// The lists whose elements are told apart by a key. All others are one field.
const KEYED: [(&str, &str); 2] = [("conditions", "type"), ("balancers", "name")];

/// What is of the object and of no manager.
const IDENTITY: [&str; 6] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "managedFields",
    "creationTimestamp",
];

/// The fields of each manager (`NAME/`, or `NAME/status` by the status' own path).
#[derive(Default)]
pub struct Owned(BTreeMap<String, BTreeSet<Path>>);

impl Owned {
    /// What `patch` says is there from now on by this manager, and what only it had said before is not.
    pub fn apply(&mut self, manager: &str, object: &mut Value, patch: &Value) {
        let new = leaves(patch);
        let old = self.0.insert(manager.to_owned(), new.clone());
        for path in old.unwrap_or_default().difference(&new) {
            let others = self.0.iter().filter(|(name, _)| *name != manager);
            // Also one that has something within it.
            let kept = others.flat_map(|(_, paths)| paths);
            if !kept.clone().any(|other| other.starts_with(path)) {
                remove(object, path);
            }
        }
        let before = object.clone();
        for path in &new {
            let value = get(patch, path).cloned().unwrap_or_default();
            set(object, path, value);
        }
        // Who had said something else there has it no more.
        let changed = |path: &Path| get(&before, path) != get(object, path);
        for (_, paths) in self.0.iter_mut().filter(|(name, _)| *name != manager) {
            paths.retain(|path| !changed(path));
        }
        self.0.retain(|_, paths| !paths.is_empty());
    }

    /// Somebody has put another object there: managers keep what is as it was.
    pub fn keep(&mut self, before: Option<&Value>, after: &Value) {
        let Some(before) = before else {
            return;
        };
        for paths in self.0.values_mut() {
            paths.retain(|path| {
                let now = get(after, path);
                now.is_some() && (get(before, path).is_none() || now == get(before, path))
            });
        }
        self.0.retain(|_, paths| !paths.is_empty());
    }

    /// As it stands in an object.
    pub fn managed_fields(&self) -> Value {
        let entries = self.0.iter().map(|(manager, paths)| {
            let (name, part) = manager.rsplit_once('/').unwrap();
            let mut fields = json!({});
            for path in paths {
                let mut at = &mut fields;
                for key in path {
                    let key = match key.split_once('=') {
                        Some((key, value)) => format!("k:{{{key:?}:{value:?}}}"),
                        None => format!("f:{key}"),
                    };
                    let map = at.as_object_mut().unwrap();
                    at = map.entry(key).or_insert_with(|| json!({}));
                }
            }
            json!({
                "manager": name, "operation": "Apply", "subresource": part,
                "fieldsType": "FieldsV1", "fieldsV1": fields,
            })
        });
        entries.collect()
    }
}

/// The fields that a patch names.
fn leaves(patch: &Value) -> BTreeSet<Path> {
    fn walk(value: &Value, path: &mut Path, found: &mut BTreeSet<Path>) {
        match (value, key_of(path)) {
            (Value::Object(fields), _) if !fields.is_empty() => {
                for (name, value) in fields {
                    path.push(name.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            (Value::Array(elements), Some(key)) => {
                for element in elements {
                    path.push(format!("{key}={}", element[key].as_str().unwrap()));
                    walk(element, path, found);
                    path.pop();
                }
            }
            _ => _ = found.insert(path.clone()),
        }
    }
    let mut found = BTreeSet::new();
    walk(patch, &mut Vec::new(), &mut found);
    found.retain(|path| match &path[..] {
        [] => false,
        [first] => !["apiVersion", "kind", "metadata"].contains(&first.as_str()),
        [first, second] => first != "metadata" || !IDENTITY.contains(&second.as_str()),
        _ => true,
    });
    found
}

fn key_of(path: &[String]) -> Option<&'static str> {
    let last = path.last()?;
    let found = KEYED.iter().find(|(list, _)| list == last);
    found.map(|(_, key)| *key)
}

fn is(element: &Value, (key, value): (&str, &str)) -> bool {
    element[key] == value
}

fn get<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, key| match at {
        Value::Array(elements) => {
            let pair = key.split_once('=')?;
            elements.iter().find(|element| is(element, pair))
        }
        at => at.get(key.as_str()),
    })
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut at = object;
    for key in path {
        at = match key.split_once('=').filter(|_| !at.is_object()) {
            Some(pair) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let elements = at.as_array_mut().unwrap();
                let place = elements.iter().position(|element| is(element, pair));
                let place = place.unwrap_or_else(|| {
                    elements.push(json!({pair.0: pair.1}));
                    elements.len() - 1
                });
                &mut elements[place]
            }
            None => {
                if !at.is_object() {
                    *at = json!({});
                }
                let fields = at.as_object_mut().unwrap();
                fields.entry(key.clone()).or_insert(Value::Null)
            }
        };
    }
    *at = value;
}

/// Takes a field away, and what is empty then.
fn remove(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    match object {
        Value::Object(fields) => {
            if let Some(field) = fields.get_mut(first) {
                remove(field, rest);
                if rest.is_empty() || is_empty(field) {
                    fields.remove(first);
                }
            }
        }
        Value::Array(elements) => {
            let Some(pair) = first.split_once('=') else {
                return;
            };
            let Some(at) = elements.iter().position(|element| is(element, pair)) else {
                return;
            };
            remove(&mut elements[at], rest);
            if is_empty(&elements[at]) {
                elements.remove(at);
            }
        }
        _ => {}
    }
}

#[test]
fn what_a_manager_does_not_say_any_more_goes_and_what_others_say_stays() {
    let (mut owned, mut object) = (Owned::default(), json!({"metadata": {"name": "web"}}));
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let status = |kinds: &[&str], ip: Value| {
        let conditions: Vec<Value> = kinds.iter().map(|kind| condition(kind)).collect();
        json!({"status": {"conditions": conditions, "ip": ip}})
    };
    owned.apply("ours/status", &mut object, &status(&["A", "B"], json!("1")));
    owned.apply("theirs/status", &mut object, &status(&["C"], json!("2")));
    // Theirs now, by force.
    owned.apply(
        "ours/status",
        &mut object,
        &json!({"status": {"conditions": [condition("B")]}}),
    );
    assert_eq!(object["status"]["ip"], "2");
    let kinds = |object: &Value| {
        let all = object["status"]["conditions"].as_array().unwrap();
        all.iter()
            .map(|c| c["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&object), ["B", "C"]);
    owned.apply("ours/status", &mut object, &json!({}));
    assert_eq!(kinds(&object), ["C"]);
    let fields = owned.managed_fields();
    assert_eq!(fields.as_array().unwrap().len(), 1);
    assert_eq!(fields[0]["manager"], "theirs");
    assert_eq!(fields[0]["fieldsV1"]["f:status"]["f:ip"], json!({}));
    let condition = &fields[0]["fieldsV1"]["f:status"]["f:conditions"];
    assert!(condition["k:{\"type\":\"C\"}"].is_object(), "{condition}");
    // Somebody else writes another value: it is not theirs any more.
    let mut after = object.clone();
    after["status"]["ip"] = json!("3");
    owned.keep(Some(&object), &after);
    let fields = owned.managed_fields();
    assert_eq!(fields[0]["fieldsV1"]["f:status"].get("f:ip"), None);
}
