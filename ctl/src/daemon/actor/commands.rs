//! What the command line asks for.

use super::engine::asked;
use super::{Actor, show};
use crate::convert::{described, snapshot_to_proto};
use crate::daemon::refusal::{Refusal, refused_plan};
use crate::daemon::view::{DrainView, announcement_to_proto};
use crate::daemon::wanted::{Wanted, without_active};
use lockstep_api::{
    Announcement, ApplyFileReply, ApplyFileRequest, DrainBalancerReply, DrainReply, DrainRequest,
    UndrainRequest,
};
use lockstep_ctl_core::announce::announcements;
use lockstep_ctl_core::drains::{Drains, Target, find_targets};
use lockstep_ctl_core::group::agreed;
use lockstep_ctl_core::reconcile::{Action, reconcile};
use lockstep_ctl_core::services::{ServicesFile, parse};
use lockstep_ctl_core::spread::Spreads;
use lockstep_plan::health::Verdict;
use lockstep_plan::{Backend, BackendState, Service, Snapshot};
use std::time::Duration;

impl Actor {
    pub(super) async fn apply_file(
        &mut self,
        request: &ApplyFileRequest,
    ) -> Result<ApplyFileReply, Refusal> {
        let file = parse(&request.file, &request.text)
            .map_err(|errors| Refusal::Request(errors.to_string()))?;
        if request.preview {
            return self.preview(file).await;
        }
        self.client()?;
        // Written before it is applied, put in place after: the file never holds what the engine
        // has not taken, and a full disk is noticed while nothing has changed yet.
        let replacement = self.store.replace_services(&request.text)?;
        let before = (self.wanted.clone(), self.drains.clone());
        let mut drains = self.drains.clone();
        self.end_unlisted(&mut drains, &file.services);
        self.drains = drains;
        self.wanted.replace(file.clone());
        let applied = self.sync().await;
        let done = match applied {
            Ok(epoch) => replacement.commit().map(|()| epoch).map_err(Refusal::Store),
            Err(refusal) => Err(refusal),
        };
        let epoch = match done {
            Ok(epoch) => epoch,
            Err(refusal) => {
                (self.wanted, self.drains) = before;
                self.sync_or_retry().await;
                return Err(refusal);
            }
        };
        self.save_drains_or_warn();
        self.seen.services = Some(Ok(request.text.clone()));
        self.file_error.clear();
        self.adopt(&request.text, file);
        Ok(ApplyFileReply {
            epoch,
            ..ApplyFileReply::default()
        })
    }

    /// What a file would change. What it says is compared with what the file in force says, where
    /// the engine has that: neither with the weights that tiers and slow starts make of it.
    pub(super) async fn preview(&self, file: ServicesFile) -> Result<ApplyFileReply, Refusal> {
        let current = self.current().await?;
        let now = self.clock.now();
        let in_force = self.wanted.over(self.laid_over(), now);
        let in_force = reconcile(&in_force, &current, 0) == Ok(Action::Nothing);
        let (now_said, spreads) = match in_force {
            true => (self.laid_over(), self.wanted.spreads()),
            false => (current.services().to_vec(), Spreads::new()),
        };
        let mut drains = self.drains.clone();
        self.end_unlisted(&mut drains, &file.services);
        let epoch = current.epoch().saturating_add(1);
        let said = self.lay_over(&file.services, &drains, &file.health);
        let (announced, announced_then) = match self.config.announces() {
            true => (
                self.would_announce(&self.laid_over()),
                self.would_announce(&said),
            ),
            false => (Vec::new(), Vec::new()),
        };
        let mut proposed = Wanted::default();
        proposed.replace(file);
        let services = proposed.over(said.clone(), now);
        let services = Snapshot::new(epoch, services).map_err(|errors| refused_plan(&errors))?;
        let mut engine = self.client()?;
        let preview = engine.preview(snapshot_to_proto(&services));
        Ok(ApplyFileReply {
            epoch: current.epoch(),
            preview: Some(asked(preview).await?),
            current: Some(described(current.epoch(), &now_said, &spreads)),
            proposed: Some(described(epoch, &said, &proposed.spreads())),
            announced,
            announced_then,
            changes: Vec::new(),
        })
    }

    pub(super) async fn drain(
        &mut self,
        request: &DrainRequest,
        deadline: Option<Duration>,
    ) -> Result<DrainReply, Refusal> {
        let targets = self.targets(&request.backend, &request.service)?;
        let deadline = deadline.map(|d| self.clock.now().after(d));
        let mut drains = self.drains.clone();
        targets
            .iter()
            .for_each(|t| drains.drain(t.clone(), deadline));
        let epoch = self.put_drains(drains).await?;
        let services = self.wanted.services();
        let mut warnings = without_active(&self.drains.over(services), &targets);
        warnings.extend(self.without_healthy(&targets));
        let began = |(t, _): &(&Target, _)| targets.contains(t);
        targets
            .iter()
            .for_each(|t| tracing::info!("{} drains, as an operator says", show(t)));
        let now = self.clock.now();
        let drains = self.drains.iter().filter(began);
        let drains = drains.map(|(t, phase)| DrainView::new(t, phase, services).to_proto(now));
        Ok(DrainReply {
            epoch,
            drains: drains.collect(),
            warnings,
        })
    }

    pub(super) async fn undrain(
        &mut self,
        request: &UndrainRequest,
    ) -> Result<DrainReply, Refusal> {
        let targets = self.targets(&request.backend, &request.service)?;
        let now = self.clock.now();
        let services = self.wanted.services();
        let ending = self.drains.iter().filter(|(t, _)| targets.contains(t));
        let ended: Vec<_> = ending
            .map(|(t, phase)| DrainView::new(t, phase, services).to_proto(now))
            .collect();
        if ended.is_empty() {
            let text = format!(
                "backend {} is not draining; see `lockstep status`",
                request.backend
            );
            return Err(Refusal::Request(text));
        }
        let mut drains = self.drains.clone();
        targets.iter().for_each(|t| {
            drains.undrain(t);
        });
        let epoch = self.put_drains(drains).await?;
        targets
            .iter()
            .for_each(|t| tracing::info!("{} is undrained, as an operator says", show(t)));
        Ok(DrainReply {
            epoch,
            drains: ended,
            warnings: Vec::new(),
        })
    }

    pub(super) fn targets(&self, backend: &str, service: &str) -> Result<Vec<Target>, Refusal> {
        let services = self.wanted.services();
        let service = Some(service).filter(|s| !s.is_empty());
        find_targets(services, backend, service).map_err(|e| Refusal::Request(e.to_string()))
    }

    /// Saves other drains and puts them in force; leaves everything as it was where that fails.
    pub(super) async fn put_drains(&mut self, drains: Drains) -> Result<u64, Refusal> {
        self.client()?;
        self.store.save_drains(&drains)?;
        let before = (
            self.wanted.clone(),
            std::mem::replace(&mut self.drains, drains),
        );
        let applied = self.sync().await;
        if applied.is_err() {
            (self.wanted, self.drains) = before;
            self.save_drains_or_warn();
            self.sync_or_retry().await;
        }
        applied
    }

    /// A warning for each service concerned whose active backends are all down by their checks.
    fn without_healthy(&self, targets: &[Target]) -> Vec<String> {
        let verdicts = agreed(&self.verdicts, &self.group);
        let drained = self.drains.over(self.wanted.services());
        let concerned = |s: &&Service| targets.iter().any(|t| t.service == s.name);
        let are_down = |s: &&Service| {
            let is_active = |b: &&Backend| b.state == BackendState::Active;
            let mut active = s.backends.iter().filter(is_active).peekable();
            let is_down = |b: &Backend| {
                let target = Target {
                    service: s.name.clone(),
                    backend: b.id(),
                };
                verdicts.get(&target) == Some(&Verdict::Down)
            };
            active.peek().is_some() && active.all(is_down)
        };
        let services = drained.iter().filter(concerned).filter(are_down);
        services
            .map(|s| {
                format!(
                    "service {}: every backend that is left is down by its checks; see `lockstep health`",
                    s.name
                )
            })
            .collect()
    }

    /// What is announced of services, as messages.
    fn would_announce(&self, services: &[Service]) -> Vec<Announcement> {
        let cut_off = self.reach.cut_off(self.clock.now());
        let announced = announcements(services, self.balancer(), &cut_off);
        announced.iter().map(announcement_to_proto).collect()
    }

    /// Takes the whole balancer out of the routers' tables, or puts it back in.
    pub(super) fn drain_balancer(&mut self, drained: bool) -> Result<DrainBalancerReply, Refusal> {
        // A disk that is full must not keep clients here.
        if let Err(error) = self.store.save_balancer_drained(drained) {
            tracing::error!("{error}; a restart of the daemon forgets it");
        }
        tracing::info!(drained, "the balancer as a whole, as an operator says");
        self.drained = drained;
        self.publish();
        let announced = self.orders.announcements.borrow();
        Ok(DrainBalancerReply {
            drained,
            announcements: announced.iter().map(announcement_to_proto).collect(),
        })
    }
}
