//! The engine: what it has, and what is laid over services before it gets them.

use super::{Actor, CURRENT_TIMEOUT, ENGINE_TIMEOUT, GUESS};
use crate::convert::snapshot_from_proto;
use crate::daemon::refusal::Refusal;
use lockstep_api::CurrentRequest;
use lockstep_api::engine_client::EngineClient;
use lockstep_ctl_core::checks::{self, Policy, Verdicts};
use lockstep_ctl_core::drains::{Drains, Target};
use lockstep_ctl_core::group::agreed;
use lockstep_plan::health::Verdict;
use lockstep_plan::{Service, ServiceName, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What is known of backends from before this daemon.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// What the engine had when it was first heard.
    had: Option<Snapshot>,
    /// The services that are compared with that.
    learnt: BTreeSet<ServiceName>,
    /// Whether there are no others to come.
    learnt_all: bool,
    /// Backends that are held to be down because the engine was left without them, until a check
    /// says something or this moment comes.
    guessed: BTreeMap<Target, Instant>,
}

impl Before {
    /// Checks have said something.
    pub(super) fn heard(&mut self, verdicts: &Verdicts) {
        self.guessed
            .retain(|target, _| !verdicts.contains_key(target));
    }

    pub(super) fn is_guess(&self, target: &Target) -> bool {
        self.guessed.contains_key(target)
    }

    /// When [`Actor::stop_guessing`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.guessed.values().min().copied()
    }

    fn end(&mut self) {
        self.learnt_all = true;
        self.had = None;
        self.learnt.clear();
    }
}

impl Actor {
    /// The services with their drains and their health.
    pub(super) fn laid_over(&self) -> Vec<Service> {
        self.lay_over(self.wanted.services(), &self.drains, self.wanted.health())
    }

    /// Services with drains, and what is known of their backends.
    pub(super) fn lay_over(
        &self,
        services: &[Service],
        drains: &Drains,
        policies: &BTreeMap<ServiceName, Policy>,
    ) -> Vec<Service> {
        let mut services = self.replicas.over(drains.over(services));
        let verdicts = agreed(&self.verdicts, &self.group);
        checks::lay_over(&mut services, policies, &verdicts);
        services
    }

    /// A backend that the engine was left without is down until a check says something else: a
    /// daemon that was started again is not to send clients there. Each service once, and only
    /// until everybody has said what was there before: a backend that comes later begins as one
    /// that serves.
    pub(super) fn learn_verdicts(&mut self, current: &Snapshot) {
        if self.before.learnt_all {
            return;
        }
        let had = self.before.had.get_or_insert_with(|| current.clone());
        let until = Instant::now() + GUESS;
        let drained = self.drains.over(self.wanted.services());
        for service in drained.iter().filter(|s| self.wanted.is_checked(&s.name)) {
            if !self.before.learnt.insert(service.name.clone()) {
                continue;
            }
            let in_force = had.services().iter().find(|s| s.name == service.name);
            let Some(in_force) = in_force else { continue };
            for backend in &service.backends {
                let target = Target {
                    service: service.name.clone(),
                    backend: backend.id(),
                };
                let there = in_force.backends.iter().any(|b| b.id() == backend.id());
                if !there && !self.verdicts.contains_key(&target) {
                    self.verdicts.insert(target.clone(), Verdict::Down);
                    self.before.guessed.insert(target, until);
                }
            }
        }
        if !self.wanted.is_unknown() && !self.wanted.sources().awaits() {
            self.before.end();
        }
    }

    /// Forgets what no check has said anything about.
    pub(super) fn stop_guessing(&mut self, now: Instant) {
        let over = self.before.guessed.extract_if(.., |_, until| *until <= now);
        for (target, _) in over {
            self.verdicts.remove(&target);
        }
        self.tell_engine_in_turn();
    }

    /// Says so where the engine has what this daemon has not sent. One that was started again
    /// has nothing.
    pub(super) fn warn_of_others(&self, current: &Snapshot) {
        let (epoch, sent) = (current.epoch(), self.sent.epoch());
        if sent > 0 && epoch >= sent && *current != self.sent {
            tracing::warn!(
                epoch,
                sent,
                "the engine has services that this daemon has not sent: is another lockstepd \
                 running on its socket? One of them has to be stopped"
            );
        }
    }

    pub(super) fn saw(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
    }

    pub(super) fn client(&self) -> Result<EngineClient<Channel>, Refusal> {
        let missing = || {
            format!(
                "lockstep-engine is not running (nobody at {})",
                self.engine_socket
            )
        };
        self.engine
            .clone()
            .ok_or_else(|| Refusal::NoEngine(missing()))
    }
}

/// The snapshot in force. One that this version cannot read is taken for one without services
/// under its epoch, and so replaced.
pub(super) async fn current(mut engine: EngineClient<Channel>) -> Result<Snapshot, Refusal> {
    let message = asked_for(CURRENT_TIMEOUT, engine.current(CurrentRequest {})).await?;
    snapshot_from_proto(&message).or_else(|error| {
        tracing::warn!("the engine's snapshot: {error}");
        Snapshot::new(message.epoch, Vec::new()).map_err(|_| Refusal::Engine(error.to_string()))
    })
}

/// An answer of the engine.
pub(super) async fn asked<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    asked_for(ENGINE_TIMEOUT, call).await
}

async fn asked_for<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    let Ok(answer) = timeout(patience, call).await else {
        let text = format!("the engine has not answered for {patience:?}; see `lockstep status`");
        return Err(Refusal::Silent(text));
    };
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| match status.code() {
            Code::InvalidArgument => Refusal::Impossible(status.message().to_owned()),
            Code::Unavailable | Code::Cancelled | Code::Unknown => {
                Refusal::NoEngine(format!("no answer from the engine ({})", status.message()))
            }
            _ => Refusal::Engine(format!("the engine refuses: {}", status.message())),
        })
}
