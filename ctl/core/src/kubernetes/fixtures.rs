//! A cluster for tests: objects as the API server has them, and what is written to them.

use super::allocate::{Allocation, allocate};
use super::translate::Problem;
use super::write::{Event, Kind};
use super::{Change, Settings, World, Write, status};
use lockstep_kubernetes::annotations::ALLOCATED_FROM;
use lockstep_kubernetes::facts::{Name, Namespace, Node, Service};
use lockstep_kubernetes::resources::{AddressPool, Advertisement};
use lockstep_kubernetes::{CLASS, annotations_manager, manager};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub services: BTreeMap<Name, Value>,
    pub pools: BTreeMap<String, Value>,
    pub advertisements: BTreeMap<String, Value>,
    /// Namespaces and nodes, with a label each.
    pub labels: BTreeMap<String, (&'static str, &'static str)>,
    /// What cannot be served.
    pub problems: BTreeMap<Name, Vec<Problem>>,
    /// Counts, so that each object is younger than the one before.
    made: u32,
    /// The time.
    pub now: u32,
}

pub fn settings() -> Settings {
    Settings {
        class: "lockstep.dev/xdp".to_owned(),
        default_class: false,
        node: Some("node-1".to_owned()),
        gateway_controller: "lockstep.dev/gateway".to_owned(),
    }
}

pub fn name(text: &str) -> Name {
    Name::new("default", text)
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Puts the fields of one value over those of another.
fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from,
    }
}

impl Cluster {
    /// A Service of ours in `default`; `more` goes over it.
    pub fn service(&mut self, text: &str, more: Value) -> &mut Self {
        self.made += 1;
        let (day, second) = (self.made / 60 + 1, self.made % 60);
        let mut object = json!({
            "metadata": {
                "name": text,
                "namespace": "default",
                "uid": format!("uid-{text}"),
                "resourceVersion": "1",
                "creationTimestamp": format!("2026-01-{day:02}T00:00:{second:02}Z"),
            },
            "spec": {
                "type": "LoadBalancer",
                "loadBalancerClass": "lockstep.dev/xdp",
                "ipFamilies": ["IPv4"],
                "ports": [{ "port": 80 }],
            },
        });
        merge(&mut object, more);
        self.services.insert(name(text), object);
        self
    }

    /// Changes a Service.
    pub fn edit(&mut self, text: &str, more: Value) -> &mut Self {
        merge(self.services.get_mut(&name(text)).unwrap(), more);
        self
    }

    /// A Service with these annotations of ours.
    pub fn annotated(&mut self, text: &str, annotations: &[(&str, &str)]) -> &mut Self {
        self.service(text, annotations_of(annotations))
    }

    pub fn pool(&mut self, name: &str, addresses: &[&str]) -> &mut Self {
        self.pool_with(name, json!({ "addresses": addresses }))
    }

    pub fn pool_with(&mut self, name: &str, spec: Value) -> &mut Self {
        let before = self.pools.get(name);
        let generation = before.map_or(0, |b| b["metadata"]["generation"].as_i64().unwrap());
        let mut object = json!({
            "apiVersion": "lockstep.dev/v1alpha1",
            "kind": "AddressPool",
            "metadata": { "name": name, "uid": format!("uid-{name}"), "generation": generation + 1 },
            "spec": spec,
        });
        if let Some(before) = before {
            object["status"] = before["status"].clone();
        }
        self.pools.insert(name.to_owned(), object);
        self
    }

    pub fn advertisement(&mut self, name: &str, spec: Value) -> &mut Self {
        let object = json!({
            "apiVersion": "lockstep.dev/v1alpha1",
            "kind": "Advertisement",
            "metadata": { "name": name, "uid": format!("uid-{name}"), "generation": 1 },
            "spec": spec,
        });
        self.advertisements.insert(name.to_owned(), object);
        self
    }

    /// What is known of it.
    pub fn world(&self) -> World {
        let mut world = World::default();
        for (name, object) in &self.services {
            let service: k8s_openapi::api::core::v1::Service = read(object);
            let service = Arc::new(Service::from(&service));
            world.apply(Change::Service(name.clone(), Some(service)));
        }
        for (name, object) in &self.pools {
            let pool: AddressPool = read(object);
            world.apply(Change::Pool(name.clone(), Some(Arc::new(pool))));
        }
        for (name, object) in &self.advertisements {
            let object: Advertisement = read(object);
            world.apply(Change::Advertisement(name.clone(), Some(Arc::new(object))));
        }
        for (name, (key, value)) in &self.labels {
            let labels = BTreeMap::from([((*key).to_owned(), (*value).to_owned())]);
            let namespace = Namespace {
                name: name.clone(),
                labels: labels.clone(),
            };
            world.apply(Change::Namespace(name.clone(), Some(Arc::new(namespace))));
            let node = Node {
                name: name.clone(),
                labels,
            };
            world.apply(Change::Node(name.clone(), Some(Arc::new(node))));
        }
        world
    }

    pub fn allocation(&self) -> Allocation {
        allocate(&self.world(), &settings())
    }

    /// The addresses of a Service in its status, and its pool.
    pub fn has(&self, text: &str) -> String {
        let object = &self.services[&name(text)];
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
        let ips = ingress
            .into_iter()
            .flatten()
            .map(|i| i["ip"].as_str().unwrap());
        let pool = object["metadata"]["annotations"][ALLOCATED_FROM].as_str();
        let ips: Vec<&str> = ips.collect();
        match pool {
            Some(pool) => format!("{} ({pool})", ips.join(" ")),
            None => ips.join(" "),
        }
    }

    /// What the leader writes now.
    pub fn writes(&self) -> Vec<Write> {
        let (world, settings) = (self.world(), settings());
        let allocation = allocate(&world, &settings);
        let problems = |name: &Name| self.problems.get(name).map_or(&[][..], Vec::as_slice);
        let now = format!("2026-02-01T00:{:02}:{:02}Z", self.now / 60, self.now % 60);
        status::all(&world, &allocation, &problems, &settings, &now)
    }

    /// Server-side apply of everything by the installation of the usual class.
    pub fn apply(&mut self, writes: Vec<Write>) -> Vec<Event> {
        self.apply_as(CLASS, writes)
    }

    /// The same by another one.
    pub fn apply_as(&mut self, class: &str, writes: Vec<Write>) -> Vec<Event> {
        let mut events = Vec::new();
        for write in writes {
            match write {
                Write::Event(event) => events.push(event),
                Write::Delete { object, .. } => panic!("{object:?} is deleted"),
                Write::Annotate { object, body } => {
                    assert_eq!(object.kind, Kind::Service);
                    let service = self.services.get_mut(&object.name).unwrap();
                    annotate(service, &body);
                    let has = !body["metadata"]["annotations"][ALLOCATED_FROM].is_null();
                    let path = format!("f:{ALLOCATED_FROM}");
                    let fields = json!({ "f:metadata": { "f:annotations": { path: {} } } });
                    own(service, &annotations_manager(class), has.then_some(fields));
                }
                Write::Part { object, .. } => panic!("{object:?} is no pool of one balancer"),
                Write::Apply {
                    object,
                    status,
                    body,
                } => {
                    let key = object.name.name.to_string();
                    let target = match object.kind {
                        Kind::Service => self.services.get_mut(&object.name),
                        Kind::AddressPool => self.pools.get_mut(&key),
                        Kind::Advertisement => self.advertisements.get_mut(&key),
                        kind => panic!("{kind:?} is written"),
                    };
                    assert!(status, "only a status is written: {body}");
                    let target = target.unwrap();
                    let version = &body["metadata"]["resourceVersion"];
                    if !version.is_null() {
                        assert_eq!(
                            version, &target["metadata"]["resourceVersion"],
                            "a conflict"
                        );
                    }
                    let has = !body["status"].is_null();
                    target["status"] = if has {
                        body["status"].clone()
                    } else {
                        json!({})
                    };
                    let fields = json!({ "f:status": { "f:loadBalancer": {} } });
                    own(target, &manager(class), has.then_some(fields));
                }
            }
        }
        events
    }

    /// Writes until there is nothing to write, and returns what was told.
    pub fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..8 {
            self.now += 1;
            let writes = self.writes();
            if writes.is_empty() {
                return events;
            }
            events.extend(self.apply(writes));
        }
        panic!("there is always something to write: {:?}", self.writes());
    }

    /// A condition of a Service: status, reason, message.
    pub fn condition(&self, text: &str, kind: &str) -> Option<(String, String, String)> {
        condition(&self.services[&name(text)], kind)
    }

    /// The same of a pool.
    pub fn pool_condition(&self, name: &str, kind: &str) -> Option<(String, String, String)> {
        condition(&self.pools[name], kind)
    }
}

fn annotate(object: &mut Value, body: &Value) {
    let annotations = &body["metadata"]["annotations"];
    assert_eq!(body["metadata"]["uid"], object["metadata"]["uid"]);
    let metadata = object["metadata"].as_object_mut().unwrap();
    let known = metadata.entry("annotations").or_insert_with(|| json!({}));
    known.as_object_mut().unwrap().remove(ALLOCATED_FROM);
    merge(known, annotations.clone());
}

/// What a manager has of an object from now on; and it is another version of it.
fn own(object: &mut Value, manager: &str, fields: Option<Value>) {
    let meta = &mut object["metadata"];
    let version = meta["resourceVersion"]
        .as_str()
        .map_or(0, |v| v.parse().unwrap());
    meta["resourceVersion"] = json!(format!("{}", version + 1_u32));
    let known = meta["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut known: Vec<Value> = known
        .into_iter()
        .filter(|m| m["manager"] != manager)
        .collect();
    known.extend(fields.map(|fields| json!({ "manager": manager, "fieldsV1": fields })));
    meta["managedFields"] = json!(known);
}

pub fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Annotations of our group.
pub fn annotations_of(annotations: &[(&str, &str)]) -> Value {
    let all = annotations.iter();
    let all = all.map(|(key, value)| (format!("lockstep.dev/{key}"), json!(value)));
    json!({ "metadata": { "annotations": serde_json::Map::from_iter(all) } })
}
