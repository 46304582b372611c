//! What an operator wants the engine to have, and waits for: one thing after the other. It becomes
//! the daemon's own when the engine has it; until then nothing has changed.

use super::{Actor, ApplyReply, CURRENT_TIMEOUT, Command, ENGINE_TIMEOUT, Reply, show};
use crate::daemon::refusal::Refusal;
use crate::daemon::store::Replacement;
use crate::daemon::view::DrainView;
use crate::daemon::wanted::{Wanted, without_active};
use lockstep_api::{
    ApplyFileReply, ApplyFileRequest, DrainReply, DrainRequest, DrainStatus, UndrainRequest,
};
use lockstep_ctl_core::drains::{Drains, Shift, Target, Timestamp, find_targets};
use lockstep_ctl_core::services::parse;
use lockstep_ctl_core::services::sources::Offer;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an operator waits for the engine: it is asked, and told, perhaps after something else.
const PATIENCE: Duration = CURRENT_TIMEOUT.saturating_add(ENGINE_TIMEOUT);
/// The most commands that wait for the one before them.
const MOST_WAITING: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Errand {
    /// Tells errands apart.
    pub(super) number: u64,
    /// When whoever waits is told that the engine does not answer.
    until: Instant,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Apply {
        text: Arc<str>,
        file: Arc<Offer>,
        /// Written before it is applied, put in place after: the file never holds what the engine
        /// has not taken, and a full disk is noticed while nothing has changed yet.
        replacement: Replacement,
        reply: ApplyReply,
    },
    Drain {
        targets: Vec<Target>,
        deadline: Option<Timestamp>,
        reply: Reply<DrainReply>,
    },
    Undrain {
        targets: Vec<Target>,
        ended: Vec<DrainStatus>,
        reply: Reply<DrainReply>,
    },
}

/// The commands that wait, and since when.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<(Command, Instant)>,
    /// Of the last errand.
    number: u64,
}

impl Errand {
    /// The text of the file that it puts in force.
    pub(super) fn text(&self) -> Option<&Arc<str>> {
        match &self.task {
            Task::Apply { text, .. } => Some(text),
            Task::Drain { .. } | Task::Undrain { .. } => None,
        }
    }

    /// The clock has been set: what an operator has said here comes as long after as before.
    pub(super) fn shift(&mut self, shift: Shift) {
        if let Task::Drain { deadline, .. } = &mut self.task {
            *deadline = deadline.map(|deadline| shift.of(deadline));
        }
    }

    fn answer(self, refusal: Refusal) {
        // Somebody who no longer waits for the answer is no error.
        match self.task {
            Task::Apply {
                reply, replacement, ..
            } => {
                // Nothing of it is left when the answer is there.
                drop(replacement);
                drop(reply.send(Err(refusal)));
            }
            Task::Drain { reply, .. } | Task::Undrain { reply, .. } => {
                drop(reply.send(Err(refusal)));
            }
        }
    }
}

impl Actor {
    /// Does what somebody wants of the engine, after what was wanted before.
    pub(super) fn run_errand(&mut self, command: Command) {
        let until = Instant::now() + PATIENCE;
        if self.errand.is_none() {
            return self.begin(command, until);
        }
        if self.queue.waiting.len() < MOST_WAITING {
            return self.queue.waiting.push_back((command, until));
        }
        let text = format!("{MOST_WAITING} commands wait for the engine already; ask again");
        refuse(command, Refusal::Silent(text));
    }

    /// When [`Actor::end_patience`] has something to do.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.errand.as_ref().map(|errand| errand.until)
    }

    /// Those who have waited for too long are told so.
    pub(super) fn end_patience(&mut self) {
        let now = Instant::now();
        while self.patience().is_some_and(|until| until <= now) {
            let text =
                format!("the engine has not answered for {PATIENCE:?}; see `lockstep status`");
            self.fail_errand(Refusal::Silent(text));
        }
    }

    fn begin(&mut self, command: Command, until: Instant) {
        let begun = match command {
            Command::ApplyFile(request, reply) => self.begin_apply(&request, reply),
            Command::Drain(request, deadline, reply) => self.begin_drain(&request, deadline, reply),
            Command::Undrain(request, reply) => self.begin_undrain(&request, reply),
            // It has no need of the engine.
            Command::DrainBalancer(..) => None,
        };
        let Some(task) = begun else {
            return self.begin_next();
        };
        self.queue.number += 1;
        self.errand = Some(Errand {
            number: self.queue.number,
            until,
            task,
        });
        self.tell_engine();
    }

    fn begin_next(&mut self) {
        if let Some((command, until)) = self.queue.waiting.pop_front() {
            self.begin(command, until);
        }
    }

    fn begin_apply(&self, request: &ApplyFileRequest, reply: ApplyReply) -> Option<Task> {
        let begin = || {
            let file = parse(&request.file, &request.text)
                .map_err(|errors| Refusal::Request(errors.to_string()))?;
            self.client()?;
            let replacement = self.store.replace_services(&request.text)?;
            Ok((file, replacement))
        };
        match begin() {
            Ok((file, replacement)) => Some(Task::Apply {
                text: request.text.as_str().into(),
                file: Arc::new(file.into()),
                replacement,
                reply,
            }),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                None
            }
        }
    }

    fn begin_drain(
        &self,
        request: &DrainRequest,
        deadline: Option<Duration>,
        reply: Reply<DrainReply>,
    ) -> Option<Task> {
        match self.targets(&request.backend, &request.service) {
            Ok(targets) => Some(Task::Drain {
                targets,
                deadline: deadline.map(|d| self.clock.now().after(d)),
                reply,
            }),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                None
            }
        }
    }

    fn begin_undrain(&self, request: &UndrainRequest, reply: Reply<DrainReply>) -> Option<Task> {
        let begin = || {
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
            Ok((targets, ended))
        };
        match begin() {
            Ok((targets, ended)) => Some(Task::Undrain {
                targets,
                ended,
                reply,
            }),
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                None
            }
        }
    }

    fn targets(&self, backend: &str, service: &str) -> Result<Vec<Target>, Refusal> {
        let services = self.wanted.services();
        let service = Some(service).filter(|s| !s.is_empty());
        let targets = find_targets(services, backend, service)
            .map_err(|e| Refusal::Request(e.to_string()))?;
        self.client().map(|_| targets)
    }

    /// What should be in force with an errand.
    pub(super) fn with_errand(&self, errand: &Errand) -> (Wanted, Drains) {
        let mut drains = self.drains.clone();
        let wanted = match &errand.task {
            Task::Apply { file, .. } => self.wanted.with_file(Arc::clone(file)),
            Task::Drain {
                targets, deadline, ..
            } => {
                for target in targets {
                    drains.drain(target.clone(), *deadline);
                }
                self.wanted.clone()
            }
            Task::Undrain { targets, .. } => {
                for target in targets {
                    drains.undrain(target);
                }
                self.wanted.clone()
            }
        };
        (wanted, drains)
    }

    /// The engine has it: so has the daemon now.
    pub(super) fn fulfil_errand(&mut self) {
        let Some(errand) = self.errand.take() else {
            return;
        };
        let (_, drains) = self.with_errand(&errand);
        match errand.task {
            Task::Apply {
                text,
                file,
                replacement,
                reply,
            } => {
                let done = replacement.commit().map_err(Refusal::Store);
                match &done {
                    Ok(()) => {
                        self.seen.services = Some(Ok(text.to_string()));
                        self.file_error.clear();
                        self.adopt(&text, file);
                        self.end_drains_of_others();
                    }
                    // What was in force before is to be so again.
                    Err(_) => self.tell_engine(),
                }
                self.publish();
                let epoch = self.epoch;
                let _ = reply.send(done.map(|()| ApplyFileReply {
                    epoch,
                    ..ApplyFileReply::default()
                }));
            }
            Task::Drain {
                targets,
                deadline,
                reply,
            } => {
                let warnings = self.put_drains(drains);
                self.note_begun(&targets, deadline);
                let answer = self.drained(&targets, warnings);
                self.publish();
                let _ = reply.send(Ok(answer));
            }
            Task::Undrain {
                targets,
                ended,
                reply,
            } => {
                let warnings = self.put_drains(drains);
                targets
                    .iter()
                    .for_each(|t| tracing::info!("{} is undrained, as an operator says", show(t)));
                self.publish();
                let _ = reply.send(Ok(DrainReply {
                    epoch: self.epoch,
                    drains: ended,
                    warnings,
                }));
            }
        }
        self.begin_next();
    }

    /// The engine does not have it, for this reason.
    pub(super) fn fail_errand(&mut self, refusal: Refusal) {
        if let Some(errand) = self.errand.take() {
            self.publish();
            errand.answer(refusal);
        }
        self.begin_next();
    }

    /// Nothing that is wanted can be done.
    pub(super) fn fail_errands(&mut self, refusal: &Refusal) {
        let waiting = std::mem::take(&mut self.queue.waiting);
        for (command, _) in waiting {
            refuse(command, refusal.clone());
        }
        self.fail_errand(refusal.clone());
    }

    /// Puts other drains in the place of those there were. Returns what is wrong with that: a
    /// disk that is full must not keep clients on a backend that is to be taken out.
    fn put_drains(&mut self, drains: Drains) -> Vec<String> {
        self.drains = drains;
        match self.store.save_drains(&self.drains) {
            Ok(()) => Vec::new(),
            Err(error) => {
                let text = format!("{error}; a restart of the daemon forgets what changed");
                tracing::error!("{text}");
                vec![text]
            }
        }
    }

    /// What an operator has said here.
    pub(super) fn note_begun(&mut self, targets: &[Target], deadline: Option<Timestamp>) {
        let drains = &self.drains;
        self.begun
            .retain(|target, _| drains.phase(target).is_some());
        for target in targets {
            match deadline {
                Some(deadline) => self.begun.insert(target.clone(), deadline),
                None => self.begun.remove(target),
            };
        }
    }

    fn drained(&self, targets: &[Target], mut warnings: Vec<String>) -> DrainReply {
        let services = self.wanted.services();
        warnings.extend(without_active(&self.drains.over(services), targets));
        warnings.extend(self.without_healthy(targets));
        targets
            .iter()
            .for_each(|t| tracing::info!("{} drains, as an operator says", show(t)));
        let now = self.clock.now();
        let drains = self.drains.iter().filter(|(t, _)| targets.contains(t));
        let drains = drains.map(|(t, phase)| DrainView::new(t, phase, services).to_proto(now));
        DrainReply {
            epoch: self.epoch,
            drains: drains.collect(),
            warnings,
        }
    }
}

/// Answers a command that is not begun. Somebody who no longer waits for that is no error.
fn refuse(command: Command, refusal: Refusal) {
    match command {
        Command::ApplyFile(_, reply) => drop(reply.send(Err(refusal))),
        Command::Drain(_, _, reply) | Command::Undrain(_, reply) => {
            drop(reply.send(Err(refusal)));
        }
        Command::DrainBalancer(_, reply) => drop(reply.send(Err(refusal))),
    }
}
