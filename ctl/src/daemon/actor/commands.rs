//! What the command line asks for.

use super::engine::{asked, current};
use super::{Actor, ApplyReply, Command};
use crate::convert::{described, snapshot_to_proto};
use crate::daemon::refusal::{Refusal, refused_plan};
use crate::daemon::view::announcement_to_proto;
use crate::daemon::wanted::Wanted;
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{
    Announcement, ApplyFileReply, ApplyFileRequest, CheckChange, DrainBalancerReply, FileKind,
};
use lockstep_ctl_core::announce::{Announced, announcements};
use lockstep_ctl_core::diff::checks;
use lockstep_ctl_core::drains::{Target, Timestamp};
use lockstep_ctl_core::group::agreed;
use lockstep_ctl_core::services::parse;
use lockstep_ctl_core::spread::{Spreads, same_but_for_ramps};
use lockstep_plan::health::Verdict;
use lockstep_plan::{Backend, BackendState, Service, Snapshot};
use std::sync::Arc;
use tonic::transport::Channel;

/// What a file would change, to be found out beside everything else.
struct Preview {
    engine: EngineClient<Channel>,
    now: Timestamp,
    /// What should be in force, as its sources have it, and as an engine has it.
    said_now: Vec<Service>,
    over_now: Vec<Service>,
    wanted: Wanted,
    /// The same with the file.
    said: Vec<Service>,
    proposed: Wanted,
    announced: Vec<Announcement>,
    announced_then: Vec<Announcement>,
    checks: Vec<CheckChange>,
}

impl Actor {
    /// Does what somebody wants. Only what the engine is to have waits for it.
    pub(super) fn command(&mut self, command: Command) {
        // Somebody who no longer waits for an answer is no error.
        match command {
            Command::DrainBalancer(drained, reply) => {
                let _ = reply.send(Ok(self.drain_balancer(drained)));
            }
            Command::ApplyFile(request, reply) if request.kind() == FileKind::Config => {
                let answer = self.apply_config(&request);
                self.publish();
                let _ = reply.send(answer);
            }
            Command::ApplyFile(request, reply) if request.preview => self.preview(&request, reply),
            Command::ApplyFile(..) | Command::Drain(..) | Command::Undrain(..) => {
                self.run_errand(command);
            }
        }
    }

    /// Finds out what a file would change.
    fn preview(&self, request: &ApplyFileRequest, reply: ApplyReply) {
        let begun = self.begin_preview(request);
        let permit = Arc::clone(&self.previews).try_acquire_owned();
        match (begun, permit) {
            (Ok(preview), Ok(permit)) => drop(tokio::spawn(async move {
                let _ = reply.send(preview.run().await);
                drop(permit);
            })),
            (Err(refusal), _) => drop(reply.send(Err(refusal))),
            (Ok(_), Err(_)) => {
                let text = "other files are being compared already; ask again".to_owned();
                let _ = reply.send(Err(Refusal::Silent(text)));
            }
        }
    }

    fn begin_preview(&self, request: &ApplyFileRequest) -> Result<Preview, Refusal> {
        let file = parse(&request.file, &request.text)
            .map_err(|errors| Refusal::Request(errors.to_string()))?;
        let (engine, now) = (self.client()?, self.clock.now());
        let said_now = self.laid_over();
        let proposed = self.wanted.with_file(Arc::new(file.into()));
        let said = self.lay_over(proposed.services(), &self.drains, proposed.health());
        let (announced, announced_then) = match self.config.announces() {
            true => (self.would_announce(&said_now), self.would_announce(&said)),
            false => (Vec::new(), Vec::new()),
        };
        Ok(Preview {
            engine,
            now,
            over_now: self.wanted.over(said_now.clone(), now),
            said_now,
            wanted: self.wanted.clone(),
            said,
            proposed,
            announced,
            announced_then,
            checks: check_changes(&self.text, &request.text),
        })
    }

    /// A warning for each service concerned whose active backends are all down by their checks.
    pub(super) fn without_healthy(&self, targets: &[Target]) -> Vec<String> {
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
        let announced = Announced::new(announced, self.wanted.ways().clone());
        announced.vips.iter().map(announcement_to_proto).collect()
    }

    /// Takes the whole balancer out of the routers' tables, or puts it back in.
    pub(super) fn drain_balancer(&mut self, drained: bool) -> DrainBalancerReply {
        // A disk that is full must not keep clients here.
        if let Err(error) = self.store.save_balancer_drained(drained) {
            tracing::error!("{error}; a restart of the daemon forgets it");
        }
        tracing::info!(drained, "the balancer as a whole, as an operator says");
        self.drained = drained;
        self.publish();
        let announced = self.orders.announcements.borrow();
        DrainBalancerReply {
            drained,
            announcements: announced.vips.iter().map(announcement_to_proto).collect(),
        }
    }
}

fn check_changes(before: &str, after: &str) -> Vec<CheckChange> {
    let services = checks(before, after).into_iter();
    let lines = services.flat_map(|(service, lines)| {
        lines.into_iter().map(move |change| CheckChange {
            service: service.as_str().to_owned(),
            change,
        })
    });
    lines.collect()
}

impl Preview {
    /// What the file says is compared with what its sources say now, where the engine has that:
    /// neither with the weights that tiers and slow starts make of it.
    async fn run(mut self) -> Result<ApplyFileReply, Refusal> {
        let current = current(self.engine.clone()).await?;
        let (services, spreads) = (current.services(), self.wanted.spreads());
        let in_force = same_but_for_ramps(&self.over_now, services, spreads);
        let (said_now, spreads) = match in_force {
            true => (self.said_now, self.wanted.spreads().clone()),
            false => (current.services().to_vec(), Spreads::new()),
        };
        let epoch = current.epoch().saturating_add(1);
        let services = self.proposed.over(self.said.clone(), self.now);
        let services = Snapshot::new(epoch, services).map_err(|errors| refused_plan(&errors))?;
        let preview = self.engine.preview(snapshot_to_proto(&services));
        Ok(ApplyFileReply {
            epoch: current.epoch(),
            preview: Some(asked(preview).await?),
            current: Some(described(current.epoch(), &said_now, &spreads)),
            proposed: Some(described(epoch, &self.said, self.proposed.spreads())),
            announced: self.announced,
            announced_then: self.announced_then,
            changes: Vec::new(),
            checks: self.checks,
        })
    }
}
