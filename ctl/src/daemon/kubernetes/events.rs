//! Events: what the leader tells people about objects (`events.k8s.io/v1`).
//!
//! The same thing said again within an hour becomes a series of the first event, as
//! `kubectl describe` shows it: `x2 over 10m`.

use super::client::{code, explain};
use super::writer::resource;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lockstep_ctl_core::kubernetes::write::Event;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// For how long the same thing is one series.
const SERIES: Duration = Duration::from_secs(3_600);

/// Series that are remembered.
const REMEMBERED: usize = 4_096;

/// The longest note that the API server takes, in bytes.
const NOTE: usize = 1_024;

/// Who tells.
const CONTROLLER: &str = "lockstep.dev/lockstepd";

/// See the module.
#[derive(Clone)]
pub struct Events {
    client: Client,
    me: String,
    told: Arc<Mutex<BTreeMap<Event, Series>>>,
}

#[derive(Debug, Clone)]
struct Series {
    /// The name of the event's object.
    name: String,
    count: i32,
    at: Instant,
}

impl Events {
    /// Told by this process.
    pub fn new(client: Client, me: String) -> Self {
        Events {
            client,
            me,
            told: Arc::default(),
        }
    }

    /// Tells.
    ///
    /// # Errors
    /// A sentence, where it could not be told.
    pub async fn tell(&self, event: &Event) -> Result<(), String> {
        let namespace = namespace(event);
        let events: Api<api::Event> = Api::namespaced(self.client.clone(), namespace);
        let series = self.again(event);
        let name = match series {
            Some(series) if self.repeat(&events, &series).await? => series.name,
            _ => {
                let object = self.object(event);
                let name = object.metadata.name.clone().unwrap_or_default();
                let created = events.create(&PostParams::default(), &object).await;
                match created {
                    Ok(_) => name,
                    Err(error) => {
                        return Err(explain(&error, "create", "events.events.k8s.io"));
                    }
                }
            }
        };
        self.remember(event, name);
        Ok(())
    }

    /// The series of the same thing, if that was told not long ago.
    fn again(&self, event: &Event) -> Option<Series> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let series = told.get(event)?;
        (series.at.elapsed() < SERIES).then(|| series.clone())
    }

    /// Counts it once more. Returns whether there still is such an event.
    async fn repeat(&self, events: &Api<api::Event>, series: &Series) -> Result<bool, String> {
        let now = MicroTime(Timestamp::now());
        let patch = json!({"series": {"count": series.count + 1, "lastObservedTime": now}});
        let patched = events
            .patch(&series.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match patched {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(404) => Ok(false),
            Err(error) => Err(explain(&error, "patch", "events.events.k8s.io")),
        }
    }

    fn remember(&self, event: &Event, name: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REMEMBERED {
            told.retain(|_, series| series.at.elapsed() < SERIES);
        }
        if told.len() >= REMEMBERED {
            let oldest = told.iter().min_by_key(|(_, series)| series.at);
            let oldest = oldest.map(|(event, _)| event.clone());
            oldest.and_then(|event| told.remove(&event));
        }
        let before = told.get(event).filter(|known| known.name == name);
        let count = before.map_or(1, |known| known.count + 1);
        let at = Instant::now();
        told.insert(event.clone(), Series { name, count, at });
    }

    fn object(&self, event: &Event) -> api::Event {
        let now = Timestamp::now();
        let (about, resource) = (&event.about.name, resource(event.about.kind));
        let mut note = event.note.clone();
        note.truncate(note.floor_char_boundary(NOTE));
        api::Event {
            metadata: ObjectMeta {
                // As client-go names them: unique for one object.
                name: Some(format!("{}.{:x}", about.name, now.as_nanosecond())),
                namespace: Some(namespace(event).to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.me.chars().take(128).collect()),
            action: Some(event.action.to_owned()),
            reason: Some(event.reason.to_owned()),
            note: Some(note),
            type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(resource.api_version),
                kind: Some(resource.kind),
                name: Some(about.name.to_string()),
                namespace: Some(about.namespace.to_string()).filter(|n| !n.is_empty()),
                uid: Some(event.uid.clone()),
                ..ObjectReference::default()
            }),
            ..api::Event::default()
        }
    }
}

/// Events of objects without a namespace are in the default one.
fn namespace(event: &Event) -> &str {
    match &*event.about.name.namespace {
        "" => "default",
        namespace => namespace,
    }
}
