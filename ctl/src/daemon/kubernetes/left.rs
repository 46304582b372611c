//! Services of which a watch tells no more, and that may be there all the same: one that is of another
//! type now looks to those who select by the type as if it were deleted. What is left of us in it
//! (an annotation, a condition) is taken back, and to know of it each is read once it has gone.

use super::client::explain;
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use lockstep_ctl_core::kubernetes::World;
use lockstep_kubernetes::facts::{Ingress, Name, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Services that are suspected at once. Of more the others keep what is left in them.
const MOST: usize = 4_096;

/// Questions under way at once.
const AT_ONCE: usize = 8;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(4);

/// From when one has gone to when it is read, and the longest pause before it is read again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// Who does not lead forgets one after so long: the leader has seen to it.
const KEPT: Duration = Duration::from_secs(60);

/// What the API server says of one; nothing, where it is not there.
pub type Answer = Result<Option<Arc<Service>>, String>;

/// See the module.
#[derive(Debug, Default)]
pub struct Left {
    suspects: BTreeMap<Name, Suspect>,
    asked: JoinSet<(Name, Answer)>,
}

#[derive(Debug)]
struct Suspect {
    uid: String,
    /// What it had.
    ingress: Vec<Ingress>,
    since: Instant,
    /// When it is read, and the pause after that; `None` while it is.
    due: Option<Instant>,
    pause: Duration,
}

impl Left {
    /// Nothing more is told of a Service with something of ours.
    pub fn suspect(&mut self, service: &Service, now: Instant) {
        self.suspects
            .retain(|_, s| s.due.is_none() || now.duration_since(s.since) < KEPT);
        if self.suspects.len() >= MOST {
            return;
        }
        let suspect = Suspect {
            uid: service.uid.clone(),
            ingress: service.ingress.clone(),
            since: now,
            due: Some(now + PAUSES.0),
            pause: PAUSES.0,
        };
        self.suspects.insert(service.name.clone(), suspect);
    }

    /// When the next one is to be read.
    pub fn due(&self) -> Option<Instant> {
        let waits = self.asked.len() < AT_ONCE;
        let due = self.suspects.values().filter_map(|s| s.due);
        due.min().filter(|_| waits)
    }

    /// Reads those that are due.
    pub fn ask(&mut self, client: &Client, now: Instant) {
        for (name, suspect) in &mut self.suspects {
            if self.asked.len() >= AT_ONCE {
                return;
            }
            if suspect.due.is_some_and(|due| due <= now) {
                suspect.due = None;
                let (client, name) = (client.clone(), name.clone());
                self.asked.spawn(async move {
                    let answer = timeout(ANSWER, read(&client, &name)).await;
                    let answer = answer.unwrap_or_else(|_| Err("no answer".to_owned()));
                    (name, answer)
                });
            }
        }
    }

    /// The next answer; waits for ever where none is due.
    pub async fn answered(&mut self) -> (Name, Answer) {
        loop {
            match self.asked.join_next().await {
                Some(Ok(answered)) => return answered,
                // Nothing is aborted, and nothing panics.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Takes what was read. Returns whether there is something to take back now that was not known,
    /// or nothing any more.
    pub fn take(
        &mut self,
        world: &mut World,
        name: &Name,
        answer: Answer,
        is_left: impl Fn(&Service) -> bool,
    ) -> bool {
        let Some(suspect) = self.suspects.get_mut(name) else {
            return false;
        };
        let service = match answer {
            Ok(service) => service.filter(|service| service.uid == suspect.uid),
            Err(error) => {
                tracing::debug!("kubernetes: what is left in Service {name}: {error}");
                suspect.wait();
                return false;
            }
        };
        // Of one that is told of again nothing has to be asked.
        let told = world.services.contains_key(name);
        let service = service.filter(|s| !told && !s.load_balancer && !s.deleting && is_left(s));
        let Some(service) = service else {
            self.suspects.remove(name);
            return world.left.remove(name).is_some();
        };
        suspect.wait();
        let mut service = Service::clone(&service);
        if service.ingress.is_empty() {
            // The API server takes addresses away with the type: they are told of.
            service.ingress.clone_from(&suspect.ingress);
        }
        let service = Arc::new(service);
        let before = world.left.insert(name.clone(), Arc::clone(&service));
        before.as_ref() != Some(&service)
    }
}

impl Suspect {
    fn wait(&mut self) {
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

async fn read(client: &Client, name: &Name) -> Answer {
    let api: Api<core::Service> = Api::namespaced(client.clone(), &name.namespace);
    match api.get_opt(&name.name).await {
        Ok(service) => Ok(service.map(|service| Arc::new(Service::from(&service)))),
        Err(error) => Err(explain(&error, "get", "services")),
    }
}
