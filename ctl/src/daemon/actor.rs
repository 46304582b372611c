//! The one task that decides: which services should be in force, and what the engine is told.
//!
//! Everything that happens comes to it as an [`Event`], one after the other, so that there is no
//! order of events in which a file, a drain and a restarting engine disagree.

use super::Options;
use super::clock::Clock;
use super::parts::Orders;
use super::refusal::{Refusal, refused_plan};
use super::replicas::{Healths, Replicas};
use super::store::{Store, StoreError};
use super::view::{DrainView, View};
use super::wanted::{Wanted, without_active};
use crate::convert::{described, snapshot_from_proto, snapshot_to_proto};
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{
    ApplyFileReply, ApplyFileRequest, CurrentRequest, DrainReply, DrainRequest, UndrainRequest,
};
use lockstep_ctl_core::checks::Verdicts;
use lockstep_ctl_core::drains::{Drains, Target, find_targets};
use lockstep_ctl_core::group::Group;
use lockstep_ctl_core::reconcile::{Action, reconcile};
use lockstep_ctl_core::services::{ServicesFile, parse};
use lockstep_ctl_core::spread::Spreads;
use lockstep_plan::{Service, Snapshot};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long the engine may take to answer. Applying waits for every worker.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait before the engine is told again what it did not take.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest one.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// There is an engine, and this is how to talk to it.
    EngineUp(EngineClient<Channel>),
    /// It is gone.
    EngineDown,
    /// The services file may have changed.
    FileChanged,
    /// The health of replicas is another one.
    Health(Healths),
    /// What the checks of backends have found is another thing: all of it.
    Checked(Verdicts),
    /// The group is another one, or says other things.
    Group(Group),
    /// Somebody wants something.
    Command(Command),
}

/// Where the answer to a command goes. Somebody who no longer waits for it is no error.
type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Something that somebody wants.
#[derive(Debug)]
pub enum Command {
    /// Put a file's services in force, or show what that would change.
    ApplyFile(ApplyFileRequest, Reply<ApplyFileReply>),
    /// Drain a backend, until a deadline.
    Drain(DrainRequest, Option<Duration>, Reply<DrainReply>),
    /// End drains.
    Undrain(UndrainRequest, Reply<DrainReply>),
}

/// See the module.
#[derive(Debug)]
pub struct Actor {
    store: Store,
    clock: Clock,
    engine_socket: String,
    services_file: String,
    wanted: Wanted,
    /// What was last read from the file, so that the same text is not judged twice.
    seen: Option<Result<String, String>>,
    file_error: String,
    drains: Drains,
    replicas: Replicas,
    /// What the checks have found.
    verdicts: Verdicts,
    /// What other balancers have.
    group: Group,
    /// What the other parts of the daemon are told.
    orders: Orders,
    engine: Option<EngineClient<Channel>>,
    engine_error: String,
    /// The last epoch that the engine is known to have in force.
    epoch: u64,
    /// The largest epoch seen, over restarts of the engine.
    highest: u64,
    /// What was found or put in force last.
    sent: Snapshot,
    /// When the engine is told again, and the wait after that one.
    retry: Option<(Instant, Duration)>,
    view: watch::Sender<View>,
}

impl Actor {
    /// Reads what is on disk.
    ///
    /// # Errors
    /// When the saved drains cannot be read. A services file with errors is none: the daemon then
    /// goes on with the last one that had none.
    pub fn new(
        options: &Options,
        store: Store,
        replicas: Replicas,
        orders: Orders,
    ) -> Result<(Self, watch::Receiver<View>), StoreError> {
        let clock = Clock::start();
        let services_file = options.services.display().to_string();
        let engine_socket = options.engine_socket.display().to_string();
        let (view, reader) = watch::channel(View {
            clock,
            services_file: services_file.clone(),
            engine_socket: engine_socket.clone(),
            epoch: 0,
            engine_connected: false,
            engine_error: String::new(),
            file_error: String::new(),
            drains: Vec::new(),
            shares: Vec::new(),
        });
        let drains = store.load_drains()?;
        let mut actor = Actor {
            store,
            clock,
            engine_socket,
            services_file,
            wanted: Wanted::default(),
            seen: None,
            file_error: String::new(),
            drains,
            replicas,
            verdicts: Verdicts::new(),
            group: Group::default(),
            orders,
            engine: None,
            engine_error: String::new(),
            epoch: 0,
            highest: 0,
            sent: Snapshot::empty(),
            retry: None,
            view,
        };
        actor.read_file();
        if actor.wanted.is_unknown() {
            actor.read_last_good();
        }
        actor.publish();
        Ok((actor, reader))
    }

    /// Handles events until nobody can send one.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        loop {
            let ramp = self.wanted.next_deadline(self.clock.now());
            let deadline = self.drains.next_deadline().into_iter().chain(ramp).min();
            let deadline = deadline.and_then(|d| self.clock.instant(d));
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                () = until(deadline) => self.advance().await,
                () = until(self.retry.map(|(at, _)| at)) => self.sync_or_retry().await,
            }
            self.publish();
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::EngineUp(client) => {
                tracing::info!(socket = self.engine_socket, "connected to the engine");
                self.engine = Some(client);
                self.advance().await;
            }
            Event::EngineDown => {
                tracing::warn!("the engine has gone; it gets its services when it is back");
                self.engine = None;
                self.engine_error.clear();
                self.retry = None;
            }
            Event::FileChanged => {
                if self.read_file() {
                    self.sync_or_retry().await;
                }
            }
            Event::Health(found) => {
                self.replicas.hear(found);
                self.sync_or_retry().await;
            }
            Event::Checked(verdicts) => {
                self.verdicts = verdicts;
                self.sync_or_retry().await;
            }
            Event::Group(group) => {
                self.group = group;
                self.sync_or_retry().await;
            }
            Event::Command(Command::ApplyFile(request, reply)) => {
                let answer = self.apply_file(&request).await;
                self.publish();
                let _ = reply.send(answer);
            }
            Event::Command(Command::Drain(request, deadline, reply)) => {
                let answer = self.drain(&request, deadline).await;
                self.publish();
                let _ = reply.send(answer);
            }
            Event::Command(Command::Undrain(request, reply)) => {
                let answer = self.undrain(&request).await;
                self.publish();
                let _ = reply.send(answer);
            }
        }
    }

    fn publish(&self) {
        let services = self.wanted.services();
        self.replicas.follow(services);
        self.view.send_replace(View {
            clock: self.clock,
            services_file: self.services_file.clone(),
            engine_socket: self.engine_socket.clone(),
            epoch: self.epoch,
            engine_connected: self.engine.is_some(),
            engine_error: self.engine_error.clone(),
            file_error: self.file_error.clone(),
            drains: DrainView::all(&self.drains, services),
            shares: self.wanted.shares(self.laid_over(), self.clock.now()),
        });
    }

    // ---- The file ------------------------------------------------------------------------

    /// Reads the services file. Returns whether there are new services to put in force.
    fn read_file(&mut self) -> bool {
        let read = self
            .store
            .load_services()
            .map_err(|error| error.to_string());
        if self.seen.as_ref() == Some(&read) {
            return false;
        }
        self.seen = Some(read.clone());
        let parsed = read.and_then(|text| {
            let file = parse(&self.services_file, &text).map_err(|errors| errors.to_string())?;
            Ok((text, file))
        });
        match parsed {
            Ok((text, file)) => {
                file.warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(
                    services = file.services.len(),
                    "read {}",
                    self.services_file
                );
                self.file_error.clear();
                self.adopt(&text, file);
                true
            }
            Err(error) => {
                error.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!(
                    "{} is not applied; what is in force stays",
                    self.services_file
                );
                self.file_error = error;
                false
            }
        }
    }

    fn read_last_good(&mut self) {
        let text = match self.store.load_last_good() {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => return tracing::warn!("{error}"),
        };
        if let Ok(file) = parse("the last services without errors", &text) {
            tracing::warn!("going on with the last services without errors");
            self.wanted.replace(file);
        }
    }

    /// Makes these the services that should be in force, from a text without errors.
    fn adopt(&mut self, text: &str, file: ServicesFile) {
        let ended = self.drains.retain_in(&file.services);
        if !ended.is_empty() {
            ended
                .iter()
                .for_each(|t| tracing::info!("drain of {} ends: not in the file", show(t)));
            self.save_drains_or_warn();
        }
        if let Err(error) = self.store.save_last_good(text) {
            tracing::warn!("{error}; needed only if the file is damaged when the daemon restarts");
        }
        self.wanted.replace(file);
    }

    fn save_drains_or_warn(&self) {
        if let Err(error) = self.store.save_drains(&self.drains) {
            tracing::error!("{error}; a restart of the daemon forgets what changed");
        }
    }

    // ---- The engine ----------------------------------------------------------------------

    /// Removes the backends whose deadline has come, and tells the engine.
    async fn advance(&mut self) {
        let removed = self.drains.advance(self.clock.now());
        if !removed.is_empty() {
            removed
                .iter()
                .for_each(|t| tracing::info!("{} is drained and removed", show(t)));
            self.save_drains_or_warn();
        }
        self.sync_or_retry().await;
    }

    /// Tells the engine, and plans to tell it again when it does not take it.
    async fn sync_or_retry(&mut self) {
        let wait = self.retry.take().map_or(FIRST_RETRY, |(_, next)| next);
        match self.sync().await {
            Ok(_) => {}
            // The link says when there is one again.
            Err(Refusal::NoEngine(_)) if self.engine.is_none() => {}
            Err(refusal) => {
                tracing::error!("{refusal}; trying again in {wait:?}");
                self.retry = Some((Instant::now() + wait, (wait * 2).min(LAST_RETRY)));
            }
        }
    }

    /// Brings the engine to what should be in force. Returns the epoch in force then.
    async fn sync(&mut self) -> Result<u64, Refusal> {
        let done = self.try_sync().await;
        match &done {
            Ok(_) => self.engine_error.clear(),
            Err(Refusal::NoEngine(_)) => {}
            Err(refusal) => self.engine_error = refusal.to_string(),
        }
        done
    }

    async fn try_sync(&mut self) -> Result<u64, Refusal> {
        let current = self.current().await?;
        self.warn_of_others(&current);
        self.saw(current.epoch());
        self.replicas.learn(&current);
        if self.wanted.is_unknown() {
            return Ok(self.epoch);
        }
        let now = self.clock.now();
        self.wanted.follow(&self.drains, now);
        let desired = self.wanted.over(self.laid_over(), now);
        let action =
            reconcile(&desired, &current, self.highest).map_err(|errors| refused_plan(&errors))?;
        match action {
            Action::Nothing => {
                tracing::debug!(epoch = self.epoch, "the engine is up to date");
                self.sent = current;
            }
            Action::Apply(snapshot) => {
                // Also when no answer comes: the engine may have taken it.
                let message = snapshot_to_proto(&snapshot);
                self.sent = snapshot_from_proto(&message).unwrap_or(snapshot);
                let mut engine = self.client()?;
                let reply = asked(engine.apply(message)).await?;
                self.saw(reply.epoch);
                tracing::info!(epoch = reply.epoch, workers = reply.workers, "applied");
            }
        }
        Ok(self.epoch)
    }

    /// The services of the file with their drains and their health.
    fn laid_over(&self) -> Vec<Service> {
        self.replicas.over(self.drains.over(self.wanted.services()))
    }

    /// Says so where the engine has what this daemon has not sent. One that was started again
    /// has nothing.
    fn warn_of_others(&self, current: &Snapshot) {
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

    fn saw(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
    }

    fn client(&self) -> Result<EngineClient<Channel>, Refusal> {
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

    /// The snapshot in force. One that this version cannot read is taken for one without
    /// services under its epoch, and so replaced.
    async fn current(&self) -> Result<Snapshot, Refusal> {
        let mut engine = self.client()?;
        let message = asked(engine.current(CurrentRequest {})).await?;
        snapshot_from_proto(&message).or_else(|error| {
            tracing::warn!("the engine's snapshot: {error}");
            Snapshot::new(message.epoch, Vec::new()).map_err(|_| Refusal::Engine(error.to_string()))
        })
    }

    // ---- Commands ------------------------------------------------------------------------

    async fn apply_file(&mut self, request: &ApplyFileRequest) -> Result<ApplyFileReply, Refusal> {
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
        self.drains.retain_in(&file.services);
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
        self.seen = Some(Ok(request.text.clone()));
        self.file_error.clear();
        self.adopt(&request.text, file);
        Ok(ApplyFileReply {
            epoch,
            ..ApplyFileReply::default()
        })
    }

    /// What a file would change. What it says is compared with what the file in force says, where
    /// the engine has that: neither with the weights that tiers and slow starts make of it.
    async fn preview(&self, file: ServicesFile) -> Result<ApplyFileReply, Refusal> {
        let current = self.current().await?;
        let now = self.clock.now();
        let in_force = self.wanted.over(self.laid_over(), now);
        let in_force = reconcile(&in_force, &current, 0) == Ok(Action::Nothing);
        let (now_said, spreads) = match in_force {
            true => (self.laid_over(), self.wanted.spreads()),
            false => (current.services().to_vec(), Spreads::new()),
        };
        let mut drains = self.drains.clone();
        drains.retain_in(&file.services);
        let epoch = current.epoch().saturating_add(1);
        let said = self.replicas.over(drains.over(&file.services));
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
        })
    }

    async fn drain(
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
        let warnings = without_active(&self.drains.over(services), &targets);
        let began = |(t, _): &(&Target, _)| targets.contains(t);
        let now = self.clock.now();
        let drains = self.drains.iter().filter(began);
        let drains = drains.map(|(t, phase)| DrainView::new(t, phase, services).to_proto(now));
        Ok(DrainReply {
            epoch,
            drains: drains.collect(),
            warnings,
        })
    }

    async fn undrain(&mut self, request: &UndrainRequest) -> Result<DrainReply, Refusal> {
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
        Ok(DrainReply {
            epoch,
            drains: ended,
            warnings: Vec::new(),
        })
    }

    fn targets(&self, backend: &str, service: &str) -> Result<Vec<Target>, Refusal> {
        let services = self.wanted.services();
        let service = Some(service).filter(|s| !s.is_empty());
        find_targets(services, backend, service).map_err(|e| Refusal::Request(e.to_string()))
    }

    /// Saves other drains and puts them in force; leaves everything as it was where that fails.
    async fn put_drains(&mut self, drains: Drains) -> Result<u64, Refusal> {
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
}

/// Waits for a time, or for ever where there is none.
pub async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// An answer of the engine.
async fn asked<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    let Ok(answer) = timeout(ENGINE_TIMEOUT, call).await else {
        let text =
            format!("the engine has not answered for {ENGINE_TIMEOUT:?}; see `lockstep status`");
        return Err(Refusal::Silent(text));
    };
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| match status.code() {
            Code::Unavailable | Code::Cancelled | Code::Unknown => {
                Refusal::NoEngine(format!("no answer from the engine ({})", status.message()))
            }
            _ => Refusal::Engine(format!("the engine refuses: {}", status.message())),
        })
}

fn show(target: &Target) -> String {
    format!("backend {} of service {}", target.backend, target.service)
}
