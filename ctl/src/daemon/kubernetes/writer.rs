//! Writes what the leader wants written, until the world is so.
//!
//! The leader says again and again everything that it wants; what the API server has taken is not
//! sent a second time while the watch that shows it is on its way. What fails, and what does not
//! last, is tried again after pauses that grow, object by object.

use super::client::{Cluster, code, explain};
use super::events::Events;
use super::leader::uptime;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use lockstep_ctl_core::kubernetes::Write;
use lockstep_ctl_core::kubernetes::write::{Event, Kind, Object};
use lockstep_kubernetes::{annotations_manager, manager};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Writes under way at once.
const AT_ONCE: usize = 16;

/// How long one may take.
const ANSWER: Duration = Duration::from_secs(4);

/// The first and the longest pause after a write that failed.
const FAILED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// The same after one that was taken, and is wanted all the same: the watch is slow at first;
/// later on somebody else writes there, or the API server does not keep what we write.
const TAKEN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What is known of objects that nothing is to be written to any more is kept for so long.
const KEPT: Duration = Duration::from_secs(600);

/// What is not wanted for so long, and then again, is told of again.
const ONCE: Duration = Duration::from_secs(5);

/// How an error ends that says that the object is another version by now.
const CONFLICT: &str = "(409)";

/// Errors that are kept for the operator.
const ERRORS: usize = 16;

/// From one account of what became of it to the next.
const TELL: Duration = Duration::from_millis(250);

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// By the leader.
    pub writes: Writes,
    /// Until when it leads, by [`uptime`]: after it none of these may be written.
    pub until: Duration,
    /// By every balancer, each its own.
    pub parts: Writes,
}

/// Many of them, and no copies.
pub type Writes = Arc<Vec<Arc<Write>>>;

/// Writes, to be shared.
pub fn shared(writes: Vec<Write>) -> Writes {
    Arc::new(writes.into_iter().map(Arc::new).collect())
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// Writes that the API server has taken.
    pub done: u64,
    /// Those that it has refused, or not answered.
    pub failed: u64,
    /// Those that failed last and are still wanted: what, and why.
    pub errors: BTreeMap<String, String>,
    /// Writes that are wanted and not done.
    pub open: usize,
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// To the object, or to its status.
    Apply(Object, bool),
    /// This balancer's part of its status.
    Part(Object, String),
    /// To its annotations.
    Annotate(Object),
    /// This very object is deleted.
    Delete(Object, String),
    /// Something is told.
    Event(Event),
}

/// What is known of a target.
struct Memory {
    /// What was tried last.
    write: Arc<Write>,
    /// How often this was taken, or failed, in a row.
    tries: u32,
    /// When it may be tried again, were it still wanted.
    again: Instant,
    /// Why it failed; `None` where it was taken.
    error: Option<String>,
    /// When it was wanted last.
    wanted: Instant,
}

impl Memory {
    /// Whether something may be written to the same target only after the pause: what was taken
    /// already, and whatever it says where the last try failed, but for another object of the name.
    fn holds_up(&self, write: &Write) -> bool {
        let failed = self.error.is_some() && uid(&self.write) == uid(write);
        failed || is_same(&self.write, write)
    }
}

fn uid(write: &Write) -> Option<&Value> {
    match write {
        Write::Apply { body, .. } | Write::Part { body, .. } | Write::Annotate { body, .. } => {
            body.pointer("/metadata/uid")
        }
        Write::Delete { .. } | Write::Event(_) => None,
    }
}

/// Writes until nobody wants anything any more, as the installation of a class.
pub async fn run(
    cluster: Cluster,
    class: String,
    mut wanted: watch::Receiver<Wanted>,
    tell: watch::Sender<Written>,
) {
    let mut writer = Writer::new(&cluster, &class);
    let mut told = Instant::now();
    let mut news = false;
    loop {
        let next = writer.start();
        let now = Instant::now();
        if news && told + TELL <= now {
            (told, news) = (now, false);
            writer.publish(&tell);
        }
        let publish = news.then(|| told + TELL);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                writer.want(&wanted.borrow_and_update().clone());
                news = true;
            }
            // Nothing is known of one that was aborted.
            Some(done) = writer.under_way.join_next() => if let Ok((target, write, outcome)) = done {
                writer.done(target, write, outcome);
                news = true;
            },
            () = until(next.into_iter().chain(publish).min()) => {}
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// How writes are carried out.
#[derive(Clone)]
struct Hand {
    client: Client,
    events: Events,
    /// The field managers, of objects and of annotations.
    managers: Arc<(String, String)>,
}

struct Writer {
    hand: Hand,
    wanted: BTreeMap<Target, Arc<Write>>,
    /// When each of those may be tried that is neither under way nor done.
    due: BTreeSet<(Instant, Target)>,
    until: Duration,
    memory: BTreeMap<Target, Memory>,
    /// What is under way.
    busy: BTreeMap<Target, AbortHandle>,
    under_way: JoinSet<(Target, Arc<Write>, Result<(), String>)>,
    /// What the log says that we may not write, or that is not there.
    said: BTreeSet<(&'static str, Kind)>,
    written: Written,
}

impl Writer {
    fn new(cluster: &Cluster, class: &str) -> Self {
        let events = Events::new(cluster.client.clone(), cluster.me.clone());
        Writer {
            hand: Hand {
                client: cluster.client.clone(),
                events,
                managers: Arc::new((manager(class), annotations_manager(class))),
            },
            wanted: BTreeMap::new(),
            due: BTreeSet::new(),
            until: Duration::ZERO,
            memory: BTreeMap::new(),
            busy: BTreeMap::new(),
            under_way: JoinSet::new(),
            said: BTreeSet::new(),
            written: Written::default(),
        }
    }

    /// Says once of each kind, and not once of each object, that the API server refuses it, which only
    /// an operator changes.
    fn say(&mut self, target: &Target, error: Option<&str>) {
        let what = match target {
            Target::Apply(object, true) | Target::Part(object, _) => ("status", object.kind),
            Target::Apply(object, false) | Target::Annotate(object) => ("object", object.kind),
            Target::Delete(object, _) => ("deletion", object.kind),
            Target::Event(_) => ("event", Kind::Service),
        };
        let Some(error) = error else {
            self.said.remove(&what);
            return;
        };
        let refused = ["(401)", "(403)"].iter().any(|code| error.contains(code));
        if refused && self.said.insert(what) {
            tracing::warn!("kubernetes: {}: {error}", describe(target));
        }
    }

    fn want(&mut self, wanted: &Wanted) {
        let now = Instant::now();
        self.until = wanted.until;
        if !self.leads() {
            // Another may lead: what is under way is left, but for what only this one writes.
            self.busy.retain(|target, handle| {
                let stays = matches!(target, Target::Part(..));
                if !stays {
                    handle.abort();
                }
                stays
            });
        }
        for target in self.wanted.keys() {
            if let Some(memory) = self.memory.get_mut(target) {
                memory.wanted = now;
            }
        }
        self.memory.retain(|target, memory| {
            let kept = match target {
                // Wanted anew, it happens once more.
                Target::Event(_) => ONCE,
                Target::Apply(..) | Target::Part(..) | Target::Annotate(_) | Target::Delete(..) => {
                    KEPT
                }
            };
            now.duration_since(memory.wanted) < kept
        });
        let writes = wanted.writes.iter().chain(wanted.parts.iter());
        self.wanted = writes.map(|w| (target(w), Arc::clone(w))).collect();
        let idle = self.wanted.iter();
        let idle = idle.filter(|(target, _)| !self.busy.contains_key(target));
        self.due = idle
            .map(|(target, write)| (self.due(target, write, now), target.clone()))
            .collect();
    }

    /// When something may be tried.
    fn due(&self, target: &Target, write: &Write, now: Instant) -> Instant {
        match self.memory.get(target) {
            Some(memory) if memory.holds_up(write) => memory.again,
            _ => now,
        }
    }

    fn leads(&self) -> bool {
        uptime() < self.until
    }

    /// Starts what is due. Returns when the next thing is.
    fn start(&mut self) -> Option<Instant> {
        let (now, leads) = (Instant::now(), self.leads());
        // The next one that is done starts more.
        while self.under_way.len() < AT_ONCE {
            let (due, _) = self.due.first()?;
            if *due > now {
                return Some(*due);
            }
            let (_, target) = self.due.pop_first()?;
            // Whoever leads again says again what it wants.
            let may = leads || matches!(target, Target::Part(..));
            let Some(write) = self.wanted.get(&target).filter(|_| may) else {
                continue;
            };
            let (hand, write, busy) = (self.hand.clone(), Arc::clone(write), target.clone());
            let handle = self.under_way.spawn(async move {
                let outcome = timeout(ANSWER, hand.carry_out(&write)).await;
                let slow = || Err(format!("no answer in {ANSWER:?}"));
                (target, write, outcome.unwrap_or_else(|_| slow()))
            });
            self.busy.insert(busy, handle);
        }
        None
    }

    fn done(&mut self, target: Target, write: Arc<Write>, outcome: Result<(), String>) {
        let now = Instant::now();
        self.busy.remove(&target);
        let error = outcome.err();
        self.say(&target, error.as_deref());
        match &error {
            None => self.written.done += 1,
            Some(error) => {
                self.written.failed += 1;
                tracing::debug!("kubernetes: {}: {error}", describe(&target));
            }
        }
        let known = self.memory.remove(&target);
        let again = known.filter(|k| k.holds_up(&write) && k.error.is_some() == error.is_some());
        let tries = again.map_or(0, |known| known.tries.saturating_add(1));
        let (first, longest) = match (&error, &target) {
            (Some(_), _) => FAILED,
            // What was told once is told.
            (None, Target::Event(_)) => (KEPT, KEPT),
            (None, _) => TAKEN,
        };
        let pause = first.saturating_mul(1 << tries.min(16)).min(longest);
        let memory = Memory {
            write,
            tries,
            again: now + super::watch::Pause::jittered(pause),
            error,
            wanted: now,
        };
        self.memory.insert(target.clone(), memory);
        if let Some(wanted) = self.wanted.get(&target) {
            let due = self.due(&target, wanted, now);
            self.due.insert((due, target));
        }
    }

    fn publish(&mut self, tell: &watch::Sender<Written>) {
        let errors = self.wanted.keys().filter_map(|target| {
            let memory = self.memory.get(target)?;
            // That somebody else has written there meanwhile is usual, and over with the next try.
            let error = memory.error.clone()?;
            let usual = memory.tries == 0 && error.ends_with(CONFLICT);
            (!usual).then(|| (describe(target), error))
        });
        self.written.errors = errors.take(ERRORS).collect();
        let is_open = |(target, write): &(&Target, &Arc<Write>)| match self.memory.get(target) {
            Some(memory) => memory.error.is_some() || !is_same(&memory.write, write),
            None => true,
        };
        self.written.open = self.wanted.iter().filter(is_open).count();
        tell.send_if_modified(|told| {
            let differs = *told != self.written;
            if differs {
                told.clone_from(&self.written);
            }
            differs
        });
    }
}

/// Whether both say the same. When a condition changed is not told by what is not written yet, and of
/// which version that is said makes no difference either.
fn is_same(one: &Write, other: &Write) -> bool {
    fn same(one: &Value, other: &Value) -> bool {
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => {
                let at = |(key, value): (&String, &Value)| {
                    let passes = key == "lastTransitionTime" || key == "resourceVersion";
                    let is = |other| passes || same(value, other);
                    other.get(key).is_some_and(is)
                };
                one.len() == other.len() && one.iter().all(at)
            }
            (Value::Array(one), Value::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
            }
            (one, other) => one == other,
        }
    }
    match (one, other) {
        (Write::Apply { body: one, .. }, Write::Apply { body: other, .. })
        | (Write::Part { body: one, .. }, Write::Part { body: other, .. }) => same(one, other),
        (one, other) => one == other,
    }
}

fn target(write: &Write) -> Target {
    match write {
        Write::Apply { object, status, .. } => Target::Apply(object.clone(), *status),
        Write::Part {
            object, manager, ..
        } => Target::Part(object.clone(), manager.clone()),
        Write::Annotate { object, .. } => Target::Annotate(object.clone()),
        Write::Delete { object, uid } => Target::Delete(object.clone(), uid.clone()),
        Write::Event(event) => Target::Event(event.clone()),
    }
}

fn describe(target: &Target) -> String {
    let (object, what) = match target {
        Target::Apply(object, true) | Target::Part(object, _) => (object, "status of "),
        Target::Apply(object, false) => (object, ""),
        Target::Annotate(object) => (object, "annotations of "),
        Target::Delete(object, _) => (object, "deletion of "),
        Target::Event(event) => (&event.about, "event of "),
    };
    let resource = resource(object.kind);
    let (kind, namespace) = (resource.kind, &object.name.namespace);
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{what}{kind} {namespace}{slash}{}", object.name.name)
}

impl Hand {
    async fn carry_out(&self, write: &Write) -> Result<(), String> {
        let client = &self.client;
        let (own, annotates) = &*self.managers;
        match write {
            Write::Apply {
                object,
                status,
                body,
            } => apply(client, object, *status, body, own).await,
            Write::Part {
                object,
                manager,
                body,
            } => apply(client, object, true, body, manager).await,
            Write::Annotate { object, body } => apply(client, object, false, body, annotates).await,
            Write::Delete { object, uid } => delete(client, object, uid).await,
            Write::Event(event) => self.events.tell(event).await,
        }
    }
}

async fn delete(client: &Client, object: &Object, uid: &str) -> Result<(), String> {
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    let name = &*object.name.name;
    match api(client, object).delete(name, &parameters).await {
        Ok(_) => Ok(()),
        // It is gone, or another one has its name.
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(explain(&error, "delete", &resource(object.kind).plural)),
    }
}

async fn apply(
    client: &Client,
    object: &Object,
    status: bool,
    body: &Value,
    manager: &str,
) -> Result<(), String> {
    let (api, name) = (api(client, object), &*object.name.name);
    let patch = Patch::Apply(whole(object, body));
    let parameters = PatchParams::apply(manager).force();
    let (applied, what) = match status {
        true => (api.patch_status(name, &parameters, &patch).await, "/status"),
        false => (api.patch(name, &parameters, &patch).await, ""),
    };
    let plural = resource(object.kind).plural;
    match applied {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(&error, "patch", &format!("{plural}{what}"))),
    }
}

/// The fields that are ours, with those that say which object they are of.
fn whole(object: &Object, body: &Value) -> Value {
    let resource = resource(object.kind);
    let mut whole = body.clone();
    whole["apiVersion"] = json!(resource.api_version);
    whole["kind"] = json!(resource.kind);
    if !whole["metadata"].is_object() {
        whole["metadata"] = json!({});
    }
    whole["metadata"]["name"] = json!(&*object.name.name);
    if !object.name.namespace.is_empty() {
        whole["metadata"]["namespace"] = json!(&*object.name.namespace);
    }
    whole
}

fn api(client: &Client, object: &Object) -> Api<DynamicObject> {
    let resource = resource(object.kind);
    match &*object.name.namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

/// How the API server calls a kind.
pub fn resource(kind: Kind) -> ApiResource {
    let gateway = "gateway.networking.k8s.io";
    let (group, version, kind, plural) = match kind {
        Kind::Service => ("", "v1", "Service", "services"),
        Kind::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
        Kind::Pod => ("", "v1", "Pod", "pods"),
        Kind::Deployment => ("apps", "v1", "Deployment", "deployments"),
        Kind::AddressPool => ("lockstep.dev", "v1alpha1", "AddressPool", "addresspools"),
        Kind::Advertisement => (
            "lockstep.dev",
            "v1alpha1",
            "Advertisement",
            "advertisements",
        ),
        Kind::Dire => ("lockstep.dev", "v1alpha1", "Dire", "dires"),
        Kind::GatewayClass => (gateway, "v1", "GatewayClass", "gatewayclasses"),
        Kind::Gateway => (gateway, "v1", "Gateway", "gateways"),
        Kind::TcpRoute => (gateway, "v1", "TCPRoute", "tcproutes"),
        Kind::UdpRoute => (gateway, "v1", "UDPRoute", "udproutes"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

#[cfg(test)]
mod tests;
