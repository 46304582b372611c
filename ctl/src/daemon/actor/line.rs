//! The engine is told what should be in force whenever it has something else: one thing at a time,
//! and nothing else that happens waits for its answer.
//!
//! It is asked what it has, then told what differs, each in a task of its own whose end is an event
//! of the actor. What is to be told is made when the first answer is there; what comes later goes
//! after it, all at once.

use super::engine::{asked, current};
use super::errand::Errand;
use super::{Actor, ENGINE_TIMEOUT, FIRST_RETRY, LAST_RETRY, show};
use crate::convert::{snapshot_from_proto, snapshot_to_proto};
use crate::daemon::refusal::{Refusal, refused_plan};
use lockstep_api::engine_client::EngineClient;
use lockstep_ctl_core::drains::Shift;
use lockstep_ctl_core::reconcile::{Action, reconcile};
use lockstep_ctl_core::services::sources::{Placed, Sources};
use lockstep_ctl_core::spread::Ramps;
use lockstep_plan::{Service, ServiceName, Snapshot};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tonic::transport::Channel;

/// What is between this daemon and the engine.
#[derive(Debug)]
pub(super) struct Line {
    /// What is under way, one thing at most.
    under_way: Option<UnderWay>,
    /// It, and what an engine that is gone was asked or told.
    tasks: JoinSet<Landed>,
    /// Counts links to engines: what one says that is gone is not taken for the next one's.
    link: u64,
    /// Whether something has changed since what is under way was made.
    again: bool,
    /// When the engine is told again what it did not take.
    pub(super) retry: Option<Instant>,
    /// The wait before that, the next time.
    wait: Duration,
    /// When it is looked at once more: what it did not answer in time it may have taken since.
    pub(super) doubt: Option<Instant>,
    /// What it took last.
    accepted: Accepted,
    /// Whether this engine has taken anything, or had it all.
    pub(super) settled: bool,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            under_way: None,
            tasks: JoinSet::new(),
            link: 0,
            again: false,
            retry: None,
            wait: FIRST_RETRY,
            doubt: None,
            accepted: Accepted::default(),
            settled: false,
        }
    }
}

#[derive(Debug)]
enum UnderWay {
    /// The engine is asked what it has.
    Asking,
    /// It is told what should be in force.
    Telling(Box<Told>),
}

/// What an engine is told.
#[derive(Debug)]
struct Told {
    accepted: Accepted,
    ramps: Ramps,
    /// The number of the errand that is part of it.
    errand: Option<u64>,
}

/// What the engine is known to be able to do.
#[derive(Debug, Clone, Default)]
pub(super) struct Accepted {
    pub(super) sources: Sources,
    /// The text of the file.
    pub(super) text: Arc<str>,
}

/// The end of a task.
#[derive(Debug)]
pub(super) struct Landed {
    link: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// What the engine has.
    Found(Result<Snapshot, Refusal>),
    /// What it was told, unless that is nothing that can be told, and its epoch where it took it;
    /// `None` where it had that already.
    Told(Option<Snapshot>, Result<Option<u64>, Refusal>),
}

impl Line {
    /// The next end of a task; waits for ever where there is none.
    pub(super) async fn landed(&mut self) -> Result<Landed, JoinError> {
        match self.tasks.join_next().await {
            Some(landed) => landed,
            None => std::future::pending().await,
        }
    }

    /// There is another engine, or none.
    fn relink(&mut self) {
        self.link += 1;
        self.under_way = None;
        self.again = false;
        self.doubt = None;
        self.settled = false;
        self.calm();
    }

    /// The engine is told at once, and again soon where it does not take it.
    pub(super) fn calm(&mut self) {
        self.retry = None;
        self.wait = FIRST_RETRY;
    }

    /// The clock has been set.
    pub(super) fn shift(&mut self, shift: Shift) {
        if let Some(UnderWay::Telling(told)) = &mut self.under_way {
            told.ramps.shift(shift);
        }
    }

    /// What sources said of what the engine took last.
    pub(super) fn accepted(&self) -> &Sources {
        &self.accepted.sources
    }

    fn spawn(&mut self, task: impl Future<Output = What> + Send + 'static) {
        let link = self.link;
        self.tasks.spawn(async move {
            let what = task.await;
            Landed { link, what }
        });
    }
}

impl Actor {
    /// There is another engine, or none.
    pub(super) fn relink(&mut self) {
        if let Some(UnderWay::Telling(_)) = self.line.under_way {
            // The epoch of what the last one is being told is not the next thing's, too.
            self.highest = self.highest.saturating_add(1);
        }
        self.line.relink();
    }

    /// Removes the backends whose deadline has come, and tells the engine.
    pub(super) fn advance(&mut self) {
        let removed = self.drains.advance(self.clock.now());
        if !removed.is_empty() {
            removed
                .iter()
                .for_each(|t| tracing::info!("{} is drained and removed", show(t)));
            self.save_drains_or_warn();
        }
        self.tell_engine();
    }

    /// Tells the engine, unless it is to be told again in a moment anyway: what happens often does
    /// not wear out an engine that refuses, or hangs.
    pub(super) fn tell_engine_in_turn(&mut self) {
        if self.line.retry.is_none() {
            self.tell_engine();
        }
    }

    /// Looks whether the engine has taken later what it did not answer in time.
    pub(super) fn look_again(&mut self) {
        self.line.doubt = None;
        self.tell_engine_in_turn();
    }

    /// Brings the engine to what should be in force, after what is under way to it.
    pub(super) fn tell_engine(&mut self) {
        match self.line.under_way {
            // What it is told is made when it has answered.
            Some(UnderWay::Asking) => return,
            Some(UnderWay::Telling(_)) => {
                self.line.again = true;
                return;
            }
            None => {}
        }
        self.line.again = false;
        self.line.retry = None;
        match self.client() {
            Ok(engine) => {
                self.line.under_way = Some(UnderWay::Asking);
                self.line
                    .spawn(async { What::Found(current(engine).await) });
            }
            // The link says when there is one again.
            Err(refusal) => self.fail_errands(&refusal),
        }
    }

    /// Something that was under way has come to its end. Returns whether anybody is to be told.
    pub(super) fn land(&mut self, landed: Result<Landed, JoinError>) -> bool {
        let Landed { link, what } = match landed {
            Ok(landed) => landed,
            Err(error) => {
                let refusal = Refusal::Engine(format!("the daemon has failed: {error}"));
                self.not_taken(refusal);
                return true;
            }
        };
        if let What::Told(Some(snapshot), _) = &what {
            // Also when no answer came: the engine may have taken it.
            self.highest = self.highest.max(snapshot.epoch());
            if snapshot.epoch() >= self.sent.epoch() {
                self.sent = snapshot.clone();
            }
        }
        if link != self.line.link {
            return false;
        }
        let mut tells = true;
        match what {
            What::Found(Ok(current)) => {
                let has = self.has.as_ref().map(Snapshot::epoch);
                // What it is told now ends in an event, too.
                tells = has != Some(current.epoch()) || self.wanted.is_unknown();
                self.answered(current);
            }
            What::Told(_, Ok(epoch)) => self.taken(epoch),
            What::Found(Err(refusal)) | What::Told(_, Err(refusal)) => self.not_taken(refusal),
        }
        tells
    }

    /// The engine has said what it has: it is told what differs.
    fn answered(&mut self, current: Snapshot) {
        self.warn_of_others(&current);
        self.saw(current.epoch());
        self.replicas.learn(&current);
        if self.has.is_none() && current.epoch() == 0 {
            // It has started anew: what routers were told is not true until it has its services.
            self.withdraw = None;
        }
        if self.wanted.sources().awaits() {
            let services = self.drains.lift(current.services());
            self.wanted.change(|sources| {
                sources.keep(&services);
            });
        }
        self.learn_verdicts(&current);
        self.has = Some(current.clone());
        let Ok(engine) = self.client() else {
            return self.relink();
        };
        let (desired, told) = self.make();
        let sources = &told.accepted.sources;
        let unknown = sources.is_unknown() && !sources.keeps();
        self.line.under_way = Some(UnderWay::Telling(Box::new(told)));
        if unknown {
            return self.taken(None);
        }
        let highest = self.highest;
        self.line.spawn(tell(engine, desired, current, highest));
    }

    /// What the engine is to be told, an errand included.
    fn make(&self) -> (Vec<Service>, Told) {
        let now = self.clock.now();
        let errand = self.errand.as_ref();
        let (mut wanted, drains) = match errand {
            Some(errand) => self.with_errand(errand),
            None => (self.wanted.clone(), self.drains.clone()),
        };
        let services = self.lay_over(wanted.services(), &drains, wanted.health());
        let mut ramps = self.wanted.ramps().clone();
        ramps.follow(&services, now);
        wanted.set_ramps(ramps.clone());
        let text = errand.and_then(Errand::text).unwrap_or(&self.text);
        let told = Told {
            accepted: Accepted {
                sources: wanted.sources().clone(),
                text: Arc::clone(text),
            },
            ramps,
            errand: errand.map(|errand| errand.number),
        };
        (wanted.over(services, now), told)
    }

    /// The engine has what it was told.
    fn taken(&mut self, epoch: Option<u64>) {
        let Some(UnderWay::Telling(told)) = self.line.under_way.take() else {
            return;
        };
        match epoch {
            Some(epoch) => {
                self.saw(epoch);
                self.has = Some(self.sent.clone());
            }
            None => tracing::debug!(epoch = self.epoch, "the engine is up to date"),
        }
        self.engine_error.clear();
        self.withdraw = None;
        self.line.calm();
        self.line.settled = true;
        let waits = self.errand.as_ref().map(|errand| errand.number);
        if told.errand.is_none() || told.errand == waits {
            self.wanted.set_ramps(told.ramps);
            self.line.accepted = told.accepted;
            let applied = self.errand.as_ref().and_then(Errand::text);
            if told.errand.is_none() || applied.is_none() {
                // A file that is applied can still fail to be written.
                self.end_drains_of_others();
            }
            if told.errand.is_some() {
                self.fulfil_errand();
            }
        } else {
            // An errand that nobody waits for any more is not to stay in force.
            self.line.again = true;
        }
        if self.line.again || self.errand.is_some() {
            self.tell_engine();
        }
    }

    /// It has not, or nobody knows whether it has.
    fn not_taken(&mut self, refusal: Refusal) {
        let waits = self.errand.as_ref().map(|errand| errand.number);
        let (errand, told) = match self.line.under_way.take() {
            Some(UnderWay::Telling(told)) => {
                if matches!(refusal, Refusal::Silent(_)) {
                    self.line.doubt = Some(Instant::now() + ENGINE_TIMEOUT);
                }
                (told.errand, Some(told.accepted.sources))
            }
            // It would have been part of what is told.
            Some(UnderWay::Asking) => (waits, None),
            None => (None, None),
        };
        if !matches!(refusal, Refusal::NoEngine(_)) {
            self.engine_error = refusal.to_string();
        }
        if errand.is_some() && errand == waits {
            self.fail_errand(refusal);
            // Without it, and with the next.
            return self.tell_engine();
        }
        let is_wanted = told.is_some_and(|told| told == *self.wanted.sources());
        if let Refusal::Impossible(why) = &refusal
            && (!is_wanted || self.go_back_where_it_cannot_be(why))
        {
            self.line.calm();
            return self.tell_engine();
        }
        if self.engine.is_some() {
            let wait = self.line.wait;
            tracing::error!("{refusal}; trying again in {wait:?}");
            self.line.retry = Some(Instant::now() + wait);
            self.line.wait = (wait * 2).min(LAST_RETRY);
        }
        if self.errand.is_some() {
            self.tell_engine();
        }
    }

    /// Goes back to what the engine took before, where it says that it can never do what it was
    /// told: drains and checks are to go on with what is in force. Returns whether there is
    /// anything to go back to.
    fn go_back_where_it_cannot_be(&mut self, why: &str) -> bool {
        // An error of one service of a provider is no reason to hold up its others.
        let named = why
            .strip_prefix("service ")
            .and_then(|rest| ServiceName::new(rest.split(':').next()?));
        let mut left_out = false;
        if let Some(name) = named {
            self.wanted
                .change(|sources| left_out = sources.refuse(&name, why));
        }
        let (now, before) = (self.wanted.sources(), &self.line.accepted.sources);
        let same = match (now.file(), before.file()) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if left_out || same {
            return left_out;
        }
        let Accepted { sources, text } = self.line.accepted.clone();
        tracing::error!(
            "{} is not applied; what is in force stays",
            self.services_file
        );
        self.file_error = format!("the engine refuses: {why}");
        if let Some(file) = sources.file() {
            self.wanted
                .change(|sources| sources.set_file(Arc::clone(file)));
        }
        self.text = text;
        if let Err(error) = self.store.save_last_good(&self.text) {
            tracing::warn!("{error}");
        }
        true
    }

    /// What became of the services of providers.
    pub(super) fn placed(&self) -> Placed {
        Placed {
            in_force: self.line.accepted.sources.revisions(),
            left_out: self.wanted.left_out().clone(),
        }
    }
}

#[cfg(test)]
impl Actor {
    /// The engine has taken what is wanted.
    pub(super) fn accept(&mut self) {
        self.line.accepted.sources = self.wanted.sources().clone();
        self.end_drains_of_others();
    }

    /// The engine does not answer when it is told what should be in force.
    pub(super) fn hear_nothing(&mut self) {
        self.line.under_way = Some(UnderWay::Telling(Box::new(self.make().1)));
        self.not_taken(Refusal::Silent(String::new()));
    }

    /// An engine that is gone has not answered when it was told this.
    pub(super) fn hear_late(&mut self, told: Snapshot) {
        let what = What::Told(Some(told), Err(Refusal::Silent(String::new())));
        let link = self.line.link.wrapping_sub(1);
        assert!(!self.land(Ok(Landed { link, what })));
    }
}

/// Tells an engine that has `current`.
async fn tell(
    mut engine: EngineClient<Channel>,
    desired: Vec<Service>,
    current: Snapshot,
    highest: u64,
) -> What {
    let snapshot = match reconcile(&desired, &current, highest) {
        Err(errors) => return What::Told(None, Err(refused_plan(&errors))),
        Ok(Action::Nothing) => return What::Told(Some(current), Ok(None)),
        Ok(Action::Apply(snapshot)) => snapshot,
    };
    let message = snapshot_to_proto(&snapshot);
    let sent = snapshot_from_proto(&message).unwrap_or(snapshot);
    let reply = asked(engine.apply(message)).await.map(|reply| {
        tracing::info!(epoch = reply.epoch, workers = reply.workers, "applied");
        Some(reply.epoch)
    });
    What::Told(Some(sent), reply)
}
