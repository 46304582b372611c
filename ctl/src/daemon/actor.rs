//! The one task that decides: which services should be in force, and what the engine is told.
//!
//! Everything that happens comes to it as an [`Event`], one after the other, so that there is no
//! order of events in which a file, a drain and a restarting engine disagree. None of them waits
//! for the engine: what that answers is an event too.

use super::Options;
use super::clock::Clock;
use super::parts::{Ending, Orders};
use super::refusal::Refusal;
use super::replicas::{Healths, Replicas};
use super::store::Store;
use super::view::{DrainView, View};
use super::wanted::Wanted;
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{
    ApplyFileReply, ApplyFileRequest, DrainBalancerReply, DrainReply, DrainRequest, UndrainRequest,
};
use lockstep_ctl_core::announce::{Announced, Balancer, Withheld, announcements};
use lockstep_ctl_core::checks::{Verdicts, subjects};
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::drains::{Drains, Phase, Target, Timestamp};
use lockstep_ctl_core::group::reach::Reach;
use lockstep_ctl_core::group::{Group, Own, absorb};
use lockstep_ctl_core::services::sources::{Provided, Provider};
use lockstep_plan::{Backend, Service, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;

mod commands;
mod engine;
mod errand;
mod files;
mod line;

use engine::Before;
use errand::{Errand, Queue};
use line::Line;

/// How long the engine may take to answer. Applying waits for every worker.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to say what it has.
const CURRENT_TIMEOUT: Duration = Duration::from_secs(3);
/// The first wait before the engine is told again what it did not take.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest one.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// How long a backend that the engine was left without before this daemon started is held to be
/// down without a check that says so.
const GUESS: Duration = Duration::from_secs(30);
/// How long VIPs stay announced without an engine: one that takes over from another is there
/// sooner.
const WITHOUT_ENGINE: Duration = Duration::from_millis(200);
/// How long a daemon that starts waits for the engine before it says that there is none: routers
/// that kept routes over the restart of the daemon are not to lose them for it (RFC 4724).
const FIRST_ENGINE: Duration = Duration::from_secs(2);

/// How often the wall clock is looked at while a backend is to be removed at some time of it.
const LOOK: Duration = Duration::from_secs(1);
/// The most files that are compared with what is in force at a time.
const PREVIEWS: usize = 4;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// There is an engine, and this is how to talk to it.
    EngineUp(EngineClient<Channel>),
    /// It is gone.
    EngineDown,
    /// A file may have changed.
    FileChanged,
    /// A provider has other services: all of them.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "for providers, of which there is none yet")
    )]
    Provided(Provider, Provided),
    /// The health of replicas is another one.
    Health(Healths),
    /// What the checks of backends have found is another thing: all of it.
    Checked(Verdicts),
    /// The group is another one, or says other things.
    Group(Group),
    /// The daemon is to end; said when everybody else may be told.
    Ending(Ending, oneshot::Sender<()>),
    /// Somebody wants to know whether events are still handled.
    Alive(oneshot::Sender<()>),
    /// Somebody wants something.
    Command(Command),
}

/// Where the answer to a command goes. Somebody who no longer waits for it is no error.
type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

type ApplyReply = Reply<ApplyFileReply>;

/// Something that somebody wants.
#[derive(Debug)]
pub enum Command {
    /// Put a file's services in force, or show what that would change.
    ApplyFile(ApplyFileRequest, ApplyReply),
    /// Drain a backend, until a deadline.
    Drain(DrainRequest, Option<Duration>, Reply<DrainReply>),
    /// End drains.
    Undrain(UndrainRequest, Reply<DrainReply>),
    /// Take the whole balancer out, or back in.
    DrainBalancer(bool, Reply<DrainBalancerReply>),
}

/// See the module.
#[derive(Debug)]
pub struct Actor {
    store: Store,
    clock: Clock,
    engine_socket: String,
    services_file: String,
    config_file: String,
    wanted: Wanted,
    /// The text of the file among them.
    text: Arc<str>,
    config: Arc<Config>,
    /// The text of it.
    config_text: String,
    /// What was last read from the files, so that the same text is not judged twice.
    seen: Seen,
    file_error: String,
    config_error: String,
    drains: Drains,
    /// The deadlines of those that were begun here: each as long after the beginning as the
    /// operator said, whatever the wall clock is set to meanwhile.
    begun: BTreeMap<Target, Timestamp>,
    /// Whether the whole balancer is drained.
    drained: bool,
    ending: Ending,
    replicas: Replicas,
    /// What the checks have found.
    verdicts: Verdicts,
    /// What other balancers have.
    group: Group,
    /// Whether this balancer alone is cut off from backends.
    reach: Reach,
    /// What the other parts of the daemon are told.
    orders: Orders,
    engine: Option<EngineClient<Channel>>,
    /// When VIPs are withdrawn because there is no engine, while there is none.
    withdraw: Option<Instant>,
    /// What the engine that is there has in force; `None` until it has said so.
    has: Option<Snapshot>,
    /// What the engine had before this daemon, and what is guessed from it.
    before: Before,
    engine_error: String,
    /// The last epoch that the engine is known to have in force.
    epoch: u64,
    /// The largest epoch seen, over restarts of the engine.
    highest: u64,
    /// What was found or put in force last.
    sent: Snapshot,
    /// What is under way to the engine.
    line: Line,
    /// What an operator waits for.
    errand: Option<Errand>,
    /// What comes after it.
    queue: Queue,
    previews: Arc<Semaphore>,
    view: watch::Sender<View>,
}

/// The texts of the files, or why they cannot be read.
#[derive(Debug, Default)]
struct Seen {
    services: Option<Result<String, String>>,
    config: Option<Result<String, String>>,
}

impl Actor {
    /// Reads what is on disk.
    ///
    /// # Errors
    /// When the saved drains cannot be read. A services file with errors is none: the daemon then
    /// goes on with the last one that had none; so it is with a configuration file, but where
    /// there never was one without errors.
    pub fn new(
        options: &Options,
        store: Store,
        replicas: Replicas,
        orders: Orders,
    ) -> anyhow::Result<(Self, watch::Receiver<View>)> {
        let clock = Clock::start();
        let drains = store.load_drains()?;
        let drained = store.load_balancer_drained();
        let mut actor = Actor {
            store,
            clock,
            engine_socket: options.engine_socket.display().to_string(),
            services_file: options.services.display().to_string(),
            config_file: options.config().display().to_string(),
            wanted: Wanted::default(),
            text: "".into(),
            config: Arc::default(),
            config_text: String::new(),
            seen: Seen::default(),
            file_error: String::new(),
            config_error: String::new(),
            drains,
            begun: BTreeMap::new(),
            drained,
            ending: Ending::Running,
            replicas,
            verdicts: Verdicts::new(),
            group: Group::default(),
            reach: Reach::default(),
            orders,
            engine: None,
            withdraw: Some(Instant::now() + FIRST_ENGINE),
            has: None,
            before: Before::default(),
            engine_error: String::new(),
            epoch: 0,
            highest: 0,
            sent: Snapshot::empty(),
            line: Line::default(),
            errand: None,
            queue: Queue::default(),
            previews: Arc::new(Semaphore::new(PREVIEWS)),
            view: watch::Sender::new(View::new(clock)),
        };
        let reader = actor.view.subscribe();
        let ways = actor.store.load_advertised();
        actor.wanted.change(|sources| sources.remember(ways));
        actor.start_with_config()?;
        actor.read_services();
        if actor.wanted.is_unknown() {
            actor.read_last_good();
        }
        actor.publish();
        Ok((actor, reader))
    }

    /// Handles events until nobody can send one.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        loop {
            self.follow_wall_clock(Clock::wall());
            let ramp = self.wanted.next_deadline(self.clock.now());
            let reach = self.reach.next_deadline(self.clock.now());
            let deadlines = self.drains.next_deadline().into_iter();
            let deadline = deadlines.chain(ramp).chain(reach).min();
            let deadline = deadline.and_then(|d| self.clock.instant(d));
            // Nothing wakes when the wall clock is set.
            let look = self.drains.next_deadline().map(|_| Instant::now() + LOOK);
            let (retry, doubt, patience) = (self.line.retry, self.line.doubt, self.patience());
            let guess = self.before.next_deadline();
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.handle(event),
                    None => return,
                },
                landed = self.line.landed() => if !self.land(landed) {
                    continue;
                },
                () = until(deadline) => self.advance(),
                () = until(retry) => self.tell_engine(),
                () = until(doubt) => self.look_again(),
                () = until(patience) => self.end_patience(),
                // What is announced is found by publishing.
                () = until(self.withdraw) => self.withdraw = None,
                () = until(guess) => self.stop_guessing(Instant::now()),
                () = until(look) => continue,
            }
            self.publish();
        }
    }

    /// Deadlines that others have given, or that were saved, are those of the wall clock.
    fn follow_wall_clock(&mut self, wall: Timestamp) {
        let Some(shift) = self.clock.follow(wall) else {
            return;
        };
        tracing::info!("the clock was set by {:?}", shift.size());
        self.wanted.shift(shift);
        self.line.shift(shift);
        if let Some(errand) = &mut self.errand {
            errand.shift(shift);
        }
        self.reach.shift(shift);
        for (target, deadline) in std::mem::take(&mut self.begun) {
            let same = Phase::Draining {
                deadline: Some(deadline),
            };
            if self.drains.phase(&target) == Some(same) {
                let deadline = shift.of(deadline);
                self.drains.drain(target.clone(), Some(deadline));
                self.begun.insert(target, deadline);
            }
        }
        if !self.begun.is_empty() {
            self.save_drains_or_warn();
        }
        self.publish();
    }

    fn handle(&mut self, event: Event) {
        // It may have been set while nothing happened.
        self.follow_wall_clock(Clock::wall());
        match event {
            Event::EngineUp(client) => {
                tracing::info!(socket = self.engine_socket, "connected to the engine");
                self.orders.engine.send_replace(Some(client.clone()));
                self.engine = Some(client);
                self.has = None;
                self.relink();
                self.advance();
            }
            Event::EngineDown => {
                tracing::warn!("the engine has gone; it gets its services when it is back");
                self.orders.engine.send_replace(None);
                self.engine = None;
                self.has = None;
                self.withdraw = Some(Instant::now() + WITHOUT_ENGINE);
                self.engine_error.clear();
                self.relink();
                self.tell_engine();
            }
            Event::FileChanged => {
                self.read_config();
                if self.read_services() {
                    self.line.calm();
                    self.tell_engine();
                }
            }
            Event::Provided(provider, provided) => {
                self.wanted
                    .change(|sources| sources.provide(provider, provided));
                self.line.calm();
                self.tell_engine();
            }
            Event::Health(found) => {
                self.replicas.hear(found);
                self.tell_engine_in_turn();
            }
            Event::Checked(verdicts) => {
                self.before.heard(&verdicts);
                self.verdicts.extend(verdicts);
                self.tell_engine_in_turn();
            }
            Event::Group(group) => {
                self.hear_of_group(group);
                self.tell_engine_in_turn();
            }
            Event::Ending(ending, done) => {
                self.ending = ending;
                self.publish();
                let _ = done.send(());
            }
            Event::Alive(reply) => {
                let _ = reply.send(());
            }
            Event::Command(command) => self.command(command),
        }
    }

    /// The other balancers have said something: their drains are ours.
    fn hear_of_group(&mut self, group: Group) {
        if !group.changes.is_empty() {
            absorb(&mut self.drains, &group.changes);
            self.save_drains_or_warn();
        }
        self.group = group;
    }

    /// Tells everybody what they should know.
    fn publish(&mut self) {
        let services = self.wanted.services();
        self.replicas.follow(services);
        let policies = self.wanted.health();
        let checked = subjects(services, policies, &self.config.health);
        self.verdicts
            .retain(|target, _| checked.contains_key(target));
        let own = Own {
            verdicts: self.found(),
            drains: self.drains.clone(),
            // Nobody else asks for them, and there may be many.
            backends: match self.config.store {
                Some(_) => backends(self.wanted.services()),
                None => BTreeSet::new(),
            },
            heard: self.group.generation,
        };
        let now = self.clock.now();
        self.reach.follow(now, &checked, &own, &self.group);
        tell(&self.orders.subjects, checked);
        tell(&self.orders.own, own);
        tell(&self.orders.placed, self.placed());
        let announced = self.announced();
        if let Some(announced) = &announced {
            tell(&self.orders.announcements, announced.clone());
        }
        let services = self.wanted.services();
        let shares = match self.wanted.spreads_evenly() {
            true => Vec::new(),
            false => self.wanted.shares(self.laid_over(), self.clock.now()),
        };
        self.view.send_replace(View {
            clock: self.clock,
            services_file: self.services_file.clone(),
            config_file: self.config_file.clone(),
            engine_socket: self.engine_socket.clone(),
            epoch: self.epoch,
            engine_connected: self.engine.is_some(),
            engine_settled: self.line.settled,
            engine_error: self.engine_error.clone(),
            file_error: self.file_error.clone(),
            config_error: self.config_error.clone(),
            drained: self.drained,
            announcements: announced.map_or_else(
                || self.orders.announcements.borrow().vips.clone(),
                |announced| announced.vips,
            ),
            drains: DrainView::all(&self.drains, services),
            shares,
        });
    }

    /// What is to be announced; `None` where that is still to be seen.
    fn announced(&self) -> Option<Announced> {
        // Whoever follows at once goes on with what peers have.
        let unknown = self.balancer() == Balancer::WithoutEngine && self.withdraw.is_some();
        if unknown || self.ending == Ending::Restart {
            return None;
        }
        let has = self.has.as_ref().map_or(&[][..], Snapshot::services);
        let cut_off = self.reach.cut_off(self.clock.now());
        let mut announced = announcements(has, self.balancer(), &cut_off);
        if !self.wanted.is_unknown() {
            let wanted = announcements(self.wanted.services(), self.balancer(), &cut_off);
            announced.retain(|address, _| wanted.contains_key(address));
            for (address, state) in wanted {
                let missing = state.or(Some(Withheld::NotInForce));
                announced.entry(address).or_insert(missing);
            }
        }
        Some(Announced::new(announced, self.wanted.ways().clone()))
    }

    /// What the balancer as a whole does.
    fn balancer(&self) -> Balancer {
        let serves = self.has.as_ref().is_some_and(|has| has.epoch() > 0);
        match self.ending {
            Ending::Shutdown => Balancer::Ends,
            Ending::Running | Ending::Restart if self.drained => Balancer::Drained,
            Ending::Running | Ending::Restart if serves => Balancer::Forwards,
            Ending::Running | Ending::Restart => Balancer::WithoutEngine,
        }
    }

    /// What checks have found, without what is only guessed.
    fn found(&self) -> Verdicts {
        let mut found = self.verdicts.clone();
        found.retain(|target, _| !self.before.is_guess(target));
        found
    }
}

/// Every backend of services.
fn backends(services: &[Service]) -> BTreeSet<Target> {
    let of = |service: &Service| {
        let target = |backend: &Backend| Target {
            service: service.name.clone(),
            backend: backend.id(),
        };
        service.backends.iter().map(target).collect::<Vec<_>>()
    };
    services.iter().flat_map(of).collect()
}

/// Sends what is another value than the last.
fn tell<T: PartialEq>(to: &watch::Sender<Arc<T>>, value: T) {
    to.send_if_modified(|known| {
        let differs = **known != value;
        if differs {
            *known = Arc::new(value);
        }
        differs
    });
}

/// Waits for a time, or for ever where there is none.
pub async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn show(target: &Target) -> String {
    format!("backend {} of service {}", target.backend, target.service)
}

#[cfg(test)]
mod tests;
