//! An API server in this process: objects with versions, lists and watches with field selectors,
//! bookmarks, conflicts, status apart from the rest, fields with their managers, and failures on demand.

use super::client::Meter;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt, future};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

mod fields;

use fields::Owned;

/// What is answered.
type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// A copy is the same server.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// By resource (`/api/v1/services`), then by `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Which fields each manager has applied, by resource and `namespace/name`.
    owned: BTreeMap<(String, String), Owned>,
    /// All changes: the version, the resource, what happened.
    history: Vec<(u64, String, Happened)>,
    /// Watches from before this version are told that it is gone.
    oldest: u64,
    watches: Vec<Watch>,
    /// Watches that hear nothing any more, and do not notice.
    behind: Vec<Watch>,
    /// Requests are answered by this status code: by a part of `METHOD /path`.
    refusals: BTreeMap<String, u16>,
    /// Whether no request is answered.
    away: bool,
    /// Resources that are not installed.
    absent: Vec<String>,
    /// `METHOD /path` of every request.
    requests: Vec<String>,
}

struct Watch {
    resource: String,
    selector: Selector,
    to: UnboundedSender<Value>,
}

/// An object before and after a change, at a version.
#[derive(Clone)]
struct Happened {
    before: Option<Value>,
    after: Option<Value>,
    version: u64,
}

/// A field and its value, where only objects with that are asked for.
#[derive(Clone, Default)]
struct Selector(Option<(Vec<String>, String)>);

impl Selector {
    fn of(query: &BTreeMap<String, String>) -> Self {
        let text = query.get("fieldSelector");
        let text = text.map(|text| text.replace("%3D", "=").replace("%3d", "="));
        let pair = text.as_deref().and_then(|text| text.split_once('='));
        Selector(pair.map(|(field, value)| {
            let path = field.split('.').map(str::to_owned).collect();
            (path, value.to_owned())
        }))
    }

    fn has(&self, object: &Value) -> bool {
        self.0.as_ref().is_none_or(|(path, value)| {
            let at = path
                .iter()
                .fold(object, |object, key| &object[key.as_str()]);
            at == value.as_str()
        })
    }

    /// What somebody is told who sees only these: an object that is none of them any more is gone.
    fn event(&self, happened: &Happened) -> Option<Value> {
        let seen = |object: &Option<Value>| object.clone().filter(|object| self.has(object));
        let (before, after) = (seen(&happened.before), seen(&happened.after));
        let (what, mut object) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
        };
        object["metadata"]["resourceVersion"] = json!(happened.version.to_string());
        Some(json!({"type": what, "object": object}))
    }
}

impl FakeApi {
    /// A client of it, whose requests are counted.
    pub fn measured(&self, meter: &Meter) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await.map_err(tower::BoxError::from) }
        });
        let builder = ClientBuilder::new(service, "default");
        builder.with_layer(meter).build()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        self.measured(&Meter::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Puts an object there, or in the place of the one there is, as another client does.
    pub fn put(&self, resource: &str, object: Value) {
        self.state().put(resource, object);
    }

    /// Changes an object, as another client does: fields that stay as they were keep their managers.
    pub fn edit(&self, resource: &str, key: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(resource, key);
        edit(&mut object);
        self.put(resource, object);
    }

    /// Takes an object away.
    pub fn remove(&self, resource: &str, key: &str) {
        self.state().remove(resource, key);
    }

    /// An object; null where there is none.
    pub fn get(&self, resource: &str, key: &str) -> Value {
        let state = self.state();
        let objects = state.objects.get(resource);
        objects
            .and_then(|o| o.get(key))
            .cloned()
            .unwrap_or_default()
    }

    /// All objects of a resource.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.state();
        let objects = state.objects.get(resource);
        objects.map_or_else(Vec::new, |o| o.values().cloned().collect())
    }

    /// Answers requests whose `METHOD /path` contains this by a status code; 0 ends that.
    pub fn refuse(&self, part: &str, code: u16) {
        let mut state = self.state();
        match code {
            0 => state.refusals.remove(part),
            code => state.refusals.insert(part.to_owned(), code),
        };
    }

    /// Forgets what happened and breaks watches of a resource: they are too old (410).
    pub fn compact(&self, resource: &str) {
        let mut state = self.state();
        state.oldest = state.version;
        let gone = json!({"type": "ERROR", "object": status(410, "too old resource version")});
        state.watches.retain(|watch| {
            let hit = watch.resource == resource;
            if hit {
                let _ = watch.to.unbounded_send(gone.clone());
            }
            !hit
        });
    }

    /// Watches of a resource that are open hear nothing from now on, and do not notice.
    pub fn stall(&self, resource: &str) {
        let mut state = self.state();
        let all = std::mem::take(&mut state.watches);
        let (stalled, others) = all.into_iter().partition(|w| w.resource == resource);
        state.watches = others;
        let stalled: Vec<Watch> = stalled;
        state.behind.extend(stalled);
    }

    /// Ends all watches, and answers nothing; or answers again.
    pub fn away(&self, away: bool) {
        let mut state = self.state();
        state.away = away;
        state.watches.clear();
    }

    /// A resource that is not installed.
    pub fn absent(&self, resource: &str, absent: bool) {
        let mut state = self.state();
        state.absent.retain(|known| known != resource);
        if absent {
            state.absent.push(resource.to_owned());
        }
    }

    /// How many requests there were whose `METHOD /path by MANAGER` contains this.
    pub fn count(&self, part: &str) -> usize {
        self.requests(part).len()
    }

    /// Those requests.
    pub fn requests(&self, part: &str) -> Vec<String> {
        let state = self.state();
        let all = state.requests.iter();
        all.filter(|r| r.contains(part)).cloned().collect()
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Answer>, String> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        let mut state = self.state();
        let path = head.uri.path().to_owned();
        let query = query(head.uri.query().unwrap_or_default());
        let line = format!("{} {path}", head.method);
        let watches = query.contains_key("watch");
        let line = match query.get("fieldManager") {
            _ if watches => format!("WATCH {path}"),
            Some(manager) => format!("{line} by {manager}"),
            None => line,
        };
        state.requests.push(line.clone());
        if state.away {
            return Err("connection refused".to_owned());
        }
        let refusal = state.refusals.iter().find(|(part, _)| line.contains(*part));
        if let Some((_, code)) = refusal {
            return Ok(answer(*code, &status(*code, "refused by the test")));
        }
        let place = Place::of(&path);
        if state.absent.contains(&place.resource) {
            return Ok(answer(404, &status(404, "page not found")));
        }
        if watches {
            return Ok(state.watch(&place, &query));
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let kind = head.headers.get("content-type");
        let applies = kind.is_some_and(|kind| kind == "application/apply-patch+yaml");
        let manager = query.get("fieldManager").filter(|_| applies);
        let (code, value) = match head.method {
            Method::GET if place.name.is_empty() => (200, state.list(&place, &query)),
            Method::GET => state.read(&place),
            Method::POST => state.create(&place, body),
            Method::PUT => state.replace(&place, body),
            Method::PATCH => state.patch(&place, body, manager.map(|m| m.replace("%3A", ":"))),
            Method::DELETE => state.delete(&place, &body),
            _ => (405, status(405, "no such method")),
        };
        Ok(answer(code, &value))
    }
}

/// What a path is about.
struct Place {
    resource: String,
    namespace: String,
    name: String,
    status: bool,
}

impl Place {
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let root = if parts[0] == "api" { 2 } else { 3 };
        let (base, rest) = parts.split_at(root);
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        Place {
            resource: format!("/{}/{}", base.join("/"), rest[0]),
            namespace: namespace.to_owned(),
            name: rest.get(1).copied().unwrap_or_default().to_owned(),
            status: rest.get(2) == Some(&"status"),
        }
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn has(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str();
        self.namespace.is_empty() || namespace == Some(&self.namespace)
    }
}

fn key(object: &Value) -> String {
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().unwrap_or_default();
    format!("{namespace}/{}", meta["name"].as_str().unwrap())
}

impl State {
    fn put(&mut self, resource: &str, mut object: Value) -> Value {
        self.version += 1;
        let key = key(&object);
        let objects = self.objects.entry(resource.to_owned()).or_default();
        let before = objects.get(&key).cloned();
        let owned = self.owned.entry((resource.to_owned(), key.clone()));
        let owned = owned.or_default();
        owned.keep(before.as_ref(), &object);
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        if meta["uid"].is_null() {
            let known = before
                .as_ref()
                .map(|before| before["metadata"]["uid"].clone());
            meta["uid"] = known.unwrap_or_else(|| json!(format!("uid-{}", self.version)));
        }
        meta["managedFields"] = owned.managed_fields();
        objects.insert(key, object.clone());
        self.tell(resource, before, Some(object.clone()));
        object
    }

    fn remove(&mut self, resource: &str, key: &str) -> Option<Value> {
        let object = self.objects.get_mut(resource)?.remove(key)?;
        self.owned.remove(&(resource.to_owned(), key.to_owned()));
        self.version += 1;
        self.tell(resource, Some(object.clone()), None);
        Some(object)
    }

    fn tell(&mut self, resource: &str, before: Option<Value>, after: Option<Value>) {
        let happened = Happened {
            before,
            after,
            version: self.version,
        };
        self.watches.retain(|watch| {
            let event = (watch.resource == resource)
                .then(|| watch.selector.event(&happened))
                .flatten();
            event.is_none_or(|event| watch.to.unbounded_send(event).is_ok())
        });
        self.history
            .push((self.version, resource.to_owned(), happened));
    }

    fn list(&self, place: &Place, query: &BTreeMap<String, String>) -> Value {
        let selector = Selector::of(query);
        let objects = self.objects.get(&place.resource);
        let items = objects.into_iter().flat_map(|o| o.values());
        let items = items.filter(|object| place.has(object) && selector.has(object));
        let items: Vec<&Value> = items.collect();
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()},
            "items": items,
        })
    }

    fn watch(&mut self, place: &Place, query: &BTreeMap<String, String>) -> Response<Answer> {
        let from = query.get("resourceVersion").and_then(|v| v.parse().ok());
        let from: u64 = from.unwrap_or(0);
        let selector = Selector::of(query);
        let (to, events) = unbounded();
        if from < self.oldest {
            let gone = status(410, "too old resource version");
            let _ = to.unbounded_send(json!({"type": "ERROR", "object": gone}));
        } else {
            for (version, resource, happened) in &self.history {
                if *version > from && *resource == place.resource {
                    let event = selector.event(happened);
                    let _ = event.map(|event| to.unbounded_send(event));
                }
            }
            let mark = json!({
                "apiVersion": "v1", "kind": "Bookmark",
                "metadata": {"resourceVersion": self.version.to_string()},
            });
            let _ = to.unbounded_send(json!({"type": "BOOKMARK", "object": mark}));
            self.watches.push(Watch {
                resource: place.resource.clone(),
                selector,
                to,
            });
        }
        let namespace = place.namespace.clone();
        let lines = events.filter_map(move |event: Value| {
            let object = &event["object"]["metadata"]["namespace"];
            let is_here = namespace.is_empty() || object.as_str().is_none_or(|n| n == namespace);
            let line = Bytes::from(format!("{event}\n"));
            future::ready(is_here.then_some(Ok::<_, Infallible>(Frame::data(line))))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    fn read(&self, place: &Place) -> (u16, Value) {
        let objects = self.objects.get(&place.resource);
        match objects.and_then(|objects| objects.get(&place.key())) {
            Some(object) => (200, object.clone()),
            None => (404, status(404, "not found")),
        }
    }

    fn create(&mut self, place: &Place, mut object: Value) -> (u16, Value) {
        if !place.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(place.namespace);
        }
        let objects = self.objects.get(&place.resource);
        match objects.is_some_and(|objects| objects.contains_key(&key(&object))) {
            true => (409, status(409, "already exists")),
            false => (201, self.put(&place.resource, object)),
        }
    }

    fn replace(&mut self, place: &Place, mut object: Value) -> (u16, Value) {
        let (code, known) = self.read(place);
        if code != 200 {
            return (code, known);
        }
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
            return (409, status(409, "the object has been modified"));
        }
        object["metadata"]["namespace"] = known["metadata"]["namespace"].clone();
        (200, self.put(&place.resource, object))
    }

    /// Status by its own path only, and nothing else by that one. With a manager it is server-side
    /// apply: what that has applied before, and does not now, goes.
    fn patch(&mut self, place: &Place, mut patch: Value, manager: Option<String>) -> (u16, Value) {
        let (code, mut object) = self.read(place);
        let uid = &patch["metadata"]["uid"];
        if code != 200 && uid.is_null() && !place.status && manager.is_some() {
            // Server-side apply makes what is not there.
            let (code, made) = self.create(place, json!({"metadata": {"name": place.name}}));
            return match code {
                201 => self.patch(place, patch, manager),
                code => (code, made),
            };
        }
        if code != 200 {
            return (code, object);
        }
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return (409, status(409, "another uid"));
        }
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return (409, status(409, "the object has been modified"));
        }
        let fields = patch.as_object_mut().unwrap();
        let is_status = |name: &str| name == "status";
        fields.retain(|name, _| is_status(name) == place.status);
        let before = object.clone();
        match manager {
            None => merge(object.as_object_mut().unwrap(), fields),
            Some(manager) => {
                let at = (place.resource.clone(), place.key());
                let owned = self.owned.entry(at).or_default();
                let part = if place.status { "status" } else { "" };
                owned.apply(&format!("{manager}/{part}"), &mut object, &patch);
            }
        }
        match object == before {
            // No write, no event.
            true => (200, object),
            false => (200, self.put(&place.resource, object)),
        }
    }

    fn delete(&mut self, place: &Place, options: &Value) -> (u16, Value) {
        let (code, object) = self.read(place);
        if code != 200 {
            return (code, object);
        }
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return (409, status(409, "another uid"));
        }
        self.remove(&place.resource, &place.key());
        (200, object)
    }
}

fn merge(object: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (object.get_mut(name), value) {
            (Some(Value::Object(known)), Value::Object(value)) => merge(known, value),
            _ => {
                object.insert(name.clone(), value.clone());
            }
        }
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": "", "metadata": {},
    })
}

fn answer(code: u16, value: &Value) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
