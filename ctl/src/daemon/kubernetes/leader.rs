//! Holds the Lease of the leader, or waits for it: the machine of
//! [`lockstep_ctl_core::kubernetes::lease`] with an API server and a clock.

use super::client::{Cluster, chain, explain};
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Error};
use lockstep_ctl_core::kubernetes::lease::{Answer, Lease, Machine, Step, Timing};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(4);

/// How long it may take when the daemon ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// What is known of who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Until when this daemon leads, by [`uptime`], if nothing follows; `None` where it does not.
    pub until: Option<Duration>,
    /// Who holds the Lease.
    pub holder: Option<String>,
    /// Why it could not be asked; empty where it could.
    pub error: String,
}

impl Leadership {
    /// Whether this daemon leads now.
    pub fn leads(&self) -> bool {
        self.until.is_some_and(|until| uptime() < until)
    }
}

/// Time that goes on while the machine sleeps, and never jumps: a leader that was suspended finds
/// at once that its time is over.
pub fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        // Every Linux since 2.6.39 has it.
        .unwrap_or_default()
}

/// Takes part until `end` is said or dropped; a Lease that is held is let go then.
pub async fn run(
    cluster: Cluster,
    name: String,
    timing: Timing,
    tell: watch::Sender<Leadership>,
    mut end: oneshot::Receiver<()>,
) {
    let mut part = Part {
        api: Api::namespaced(cluster.client, &cluster.namespace),
        machine: Machine::new(cluster.me.clone(), timing),
        resource: format!("leases.coordination.k8s.io in {}", cluster.namespace),
        me: cluster.me,
        name,
        timing,
        acquired: None,
        tell,
    };
    tokio::select! {
        () = part.run() => {}
        _ = &mut end => {}
    }
    // A Lease that cannot be let go runs out.
    let _ = timeout(GOODBYE, part.release()).await;
}

struct Part {
    api: Api<Object>,
    machine: Machine,
    resource: String,
    me: String,
    name: String,
    timing: Timing,
    /// When it was taken, as it stands in the Lease.
    acquired: Option<MicroTime>,
    tell: watch::Sender<Leadership>,
}

impl Part {
    async fn run(&mut self) {
        loop {
            let now = uptime();
            match self.machine.next(now) {
                Step::Wait(until) => {
                    // Not later than when it is lost.
                    let lost = self.machine.holds_until().filter(|lost| *lost > now);
                    let until = lost.map_or(until, |lost| lost.min(until));
                    let wait = until.saturating_sub(now).max(Duration::from_millis(1));
                    // All daemons of a cluster may have been started at once.
                    let some = Duration::from_millis(rand::random_range(0..100));
                    sleep(if lost == Some(until) {
                        wait
                    } else {
                        wait + some
                    })
                    .await;
                    self.publish(None);
                }
                step => {
                    let asked = timeout(ANSWER, self.take(&step)).await;
                    let (answer, error) = match asked {
                        Ok(Ok(lease)) => (Answer::Is(lease), String::new()),
                        Ok(Err(error)) => failure(&step, &error, &self.resource),
                        Err(_) => {
                            let text = format!("no answer about {} in {ANSWER:?}", self.resource);
                            (Answer::Failed, text)
                        }
                    };
                    self.machine.answer(uptime(), answer);
                    self.publish(Some(error));
                }
            }
        }
    }

    async fn take(&mut self, step: &Step) -> Result<Lease, Error> {
        let object = match step {
            Step::Create => {
                let object = self.object(None, &self.me, 0, true);
                self.api.create(&PostParams::default(), &object).await?
            }
            Step::Update {
                version,
                renews,
                transitions,
            } => {
                let object = self.object(Some(version), &self.me, *transitions, !*renews);
                let name = &self.name;
                self.api
                    .replace(name, &PostParams::default(), &object)
                    .await?
            }
            Step::Get | Step::Wait(_) => self.api.get(&self.name).await?,
        };
        let spec = object.spec.unwrap_or_default();
        self.acquired = spec.acquire_time;
        Ok(Lease {
            holder: spec.holder_identity.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
            version: object.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// The Lease as it is to be. Its times are for people only.
    fn object(&self, version: Option<&str>, holder: &str, transitions: i32, new: bool) -> Object {
        let now = MicroTime(Timestamp::now());
        let duration = match holder {
            // As client-go lets go.
            "" => 1,
            _ => i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX),
        };
        let acquired = self.acquired.clone().filter(|_| !new);
        Object {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(duration),
                acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Tells what is so now. An error stays until the next answer.
    fn publish(&self, error: Option<String>) {
        let now = uptime();
        self.tell.send_if_modified(|told| {
            let before = told.clone();
            told.until = self.machine.holds_until().filter(|until| now < *until);
            told.holder = self.machine.holder().map(str::to_owned);
            if let Some(error) = error {
                told.error = error;
            }
            match (before.until.is_some(), told.until.is_some()) {
                (false, true) => tracing::info!(me = %self.me, "kubernetes: leads"),
                (true, false) => {
                    tracing::info!(me = %self.me, "kubernetes: does not lead any more");
                }
                (true, true) | (false, false) => {}
            }
            if !told.error.is_empty() && told.error != before.error {
                tracing::warn!("kubernetes: {}", told.error);
            }
            *told != before
        });
    }

    async fn release(mut self) {
        let lease = self.machine.release(uptime());
        self.publish(None);
        if let Some(lease) = lease {
            let object = self.object(Some(&lease.version), "", lease.transitions, false);
            let parameters = PostParams::default();
            let let_go = self.api.replace(&self.name, &parameters, &object).await;
            if let Err(error) = let_go {
                tracing::debug!("kubernetes: the Lease runs out: {}", chain(&error));
            }
        }
    }
}

fn failure(step: &Step, error: &Error, resource: &str) -> (Answer, String) {
    let (verb, code) = match (step, error) {
        (step, Error::Api(status)) => (verb(step), status.code),
        (step, _) => (verb(step), 0),
    };
    match (step, code) {
        (Step::Get | Step::Update { .. }, 404) => (Answer::Missing, String::new()),
        (Step::Create, 404) => {
            let text = format!("cannot make {resource}: make the namespace first (404)");
            (Answer::Failed, text)
        }
        (_, 409) => (Answer::Conflict, String::new()),
        _ => (Answer::Failed, explain(error, verb, resource)),
    }
}

fn verb(step: &Step) -> &'static str {
    match step {
        Step::Get | Step::Wait(_) => "get",
        Step::Create => "create",
        Step::Update { .. } => "update",
    }
}
