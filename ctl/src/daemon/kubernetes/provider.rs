//! One task that owns what is known of the cluster: it follows the kinds, tells the actor what is
//! to be served, and, where this daemon leads, the writer what is to be written.

use super::client::Cluster;
use super::decide::{May, Mind};
use super::health::{Local, Locals, PORTS};
use super::keep::Keeper;
use super::known::{Feeds, State, is_complete, may};
use super::latency::Latency;
use super::leader::Leadership;
use super::left::Left;
use super::report;
use super::watch::{self, Feed, Kind, Told, gone};
use super::writer::{Wanted, Written, shared};
use crate::daemon::actor::Event;
use crate::daemon::parts::Wires;
use lockstep_ctl_core::config::kubernetes::Kubernetes;
use lockstep_ctl_core::kubernetes::dire::Sessions;
use lockstep_ctl_core::kubernetes::world::{Change, World};
use lockstep_ctl_core::services::sources::{Provided, Provider as Source};
use lockstep_kubernetes::facts::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What is told, and waits to be taken: those who follow kinds wait when it is full.
const TOLD: usize = 1_024;

/// What is taken in one go.
const BURST: usize = 4_096;

/// Changes come in groups: so long nothing may follow, and so long the first one waits at most,
/// before what follows from them is told.
const QUIET: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(25));

/// The same before the leader decides: what is served comes first.
const DECIDE: Duration = Duration::from_millis(30);

/// So many times as long as a decision took passes until the next one at least.
const REST: u32 = 5;

/// How long an API server may take to say everything before what it said last time is served.
const GRACE: Duration = Duration::from_secs(3);

/// What is to be written is found anew after so long, also where nothing was told: some of it
/// follows from time.
const ANEW: Duration = Duration::from_secs(10);

/// From one report to the next.
const REPORT: Duration = Duration::from_millis(250);

/// Namespaces in which pods and Deployments are followed one by one.
const NAMESPACES: usize = 256;

/// What goes on from one connection to the next.
#[derive(Debug, Default)]
pub struct Lasting {
    /// Counts what was provided.
    pub revision: u64,
    /// How long it took from an event to what is in force.
    pub latency: Latency,
    /// Lists, events and writes of connections that are over.
    pub past: report::Past,
}

/// See the module.
pub struct Provider<'a> {
    pub(super) cluster: Cluster,
    pub(super) wanted: Kubernetes,
    pub(super) world: World,
    pub(super) mind: Mind,
    pub(super) feeds: Feeds,
    pub(super) lasting: &'a mut Lasting,
    pub(super) leadership: channel::Receiver<Leadership>,
    pub(super) written: channel::Receiver<Written>,
    pub(super) started: Started,
    wires: Wires,
    followers: JoinSet<()>,
    handles: BTreeMap<Feed, AbortHandle>,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// Counts how often this daemon began to lead: what is known of Services has to be of this term.
    term: channel::Sender<u64>,
    leads: bool,
    left: Left,
    writes: channel::Sender<Wanted>,
    locals: channel::Sender<Locals>,
    sessions: channel::Receiver<Arc<Sessions>>,
    replicates: channel::Sender<bool>,
    keeper: Keeper,
    /// What was in the file of last time and was not told yet.
    restored: BTreeSet<(Kind, Name)>,
    /// When the changes were heard that nothing followed from yet.
    pending: Vec<Instant>,
    changed: Option<(Instant, Instant)>,
    decide: Option<Instant>,
    /// Whether the world is another one since the last decision.
    undecided: bool,
    /// What could be written by it.
    may: May,
    decided: Instant,
    /// How long that took: while thousands of Services get their addresses, each one that comes back
    /// is no reason to decide about all of them anew at once.
    took: Duration,
    begun: Instant,
    reported: Option<Instant>,
}

/// Whether anything can be said of what is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Not yet.
    No,
    /// By what was known last time.
    Restored,
    /// By what the API server says.
    Yes,
}

/// The channels of one connection.
pub struct Channels {
    /// Who leads.
    pub leadership: channel::Receiver<Leadership>,
    /// What became of what was to be written.
    pub written: channel::Receiver<Written>,
    /// What is to be written.
    pub writes: channel::Sender<Wanted>,
    /// What is answered to health checks of this node.
    pub locals: channel::Sender<Locals>,
    /// The replicated sessions of the engine.
    pub sessions: channel::Receiver<Arc<Sessions>>,
    /// Whether anybody wants to know of them: there is a Dire.
    pub replicates: channel::Sender<bool>,
}

impl<'a> Provider<'a> {
    /// Begins with nothing.
    pub fn new(
        cluster: Cluster,
        wanted: Kubernetes,
        wires: Wires,
        channels: Channels,
        lasting: &'a mut Lasting,
    ) -> Self {
        let (tell, told) = mpsc::channel(TOLD);
        let settings = wanted.settings(cluster.node.clone());
        let mut provider = Provider {
            mind: Mind::new(settings, cluster.guessed),
            keeper: Keeper::new(&wires.state_dir),
            cluster,
            wanted,
            world: World::default(),
            feeds: BTreeMap::new(),
            lasting,
            leadership: channels.leadership,
            written: channels.written,
            started: Started::No,
            wires,
            followers: JoinSet::new(),
            handles: BTreeMap::new(),
            tell,
            told,
            term: channel::Sender::default(),
            leads: false,
            left: Left::default(),
            writes: channels.writes,
            locals: channels.locals,
            sessions: channels.sessions,
            replicates: channels.replicates,
            restored: BTreeSet::new(),
            pending: Vec::new(),
            changed: None,
            decide: None,
            undecided: true,
            may: May::default(),
            decided: Instant::now(),
            took: Duration::ZERO,
            begun: Instant::now(),
            reported: None,
        };
        let always = [
            Kind::Services,
            Kind::Slices,
            Kind::Namespaces,
            Kind::Pools,
            Kind::Advertisements,
            Kind::Dires,
        ];
        let node = provider.cluster.node.is_some().then_some(Kind::Nodes);
        let gateways = match provider.wanted.gateway_controller {
            Some(_) => &watch::GATEWAY_API[..],
            None => &[],
        };
        let always = always.into_iter().chain(node);
        for kind in always.chain(gateways.iter().copied()) {
            provider.follow(Feed {
                kind,
                namespace: None,
            });
        }
        provider
    }

    /// Until somebody ends it.
    pub async fn run(&mut self) {
        loop {
            self.act().await;
            let wake = self.wake();
            tokio::select! {
                biased;
                Ok(()) = self.leadership.changed() => {
                    self.leadership.borrow_and_update();
                    self.decide = Some(Instant::now());
                }
                Ok(()) = self.sessions.changed() => {
                    self.sessions.borrow_and_update();
                    self.decide.get_or_insert(Instant::now() + DECIDE);
                }
                Ok(()) = self.wires.placed.changed() => {
                    let placed = self.wires.placed.borrow_and_update().clone();
                    let in_force = placed.in_force.get(&Source::Kubernetes);
                    self.lasting.latency.in_force(in_force.copied(), Instant::now());
                }
                (name, answer) = self.left.answered() => {
                    let mind = &self.mind;
                    let is_left = |service: &_| mind.has_written(service);
                    if self.left.take(&mut self.world, &name, answer, is_left) {
                        self.undecided = true;
                        self.decide.get_or_insert(Instant::now() + DECIDE);
                    }
                }
                () = self.keeper.is_done() => {}
                Some(told) = self.told.recv() => {
                    self.take(told);
                    for _ in 0..BURST {
                        let Ok(told) = self.told.try_recv() else {
                            break;
                        };
                        self.take(told);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Keeps what is known, at the end.
    pub async fn finish(self) {
        self.lasting.past.add(&self.feeds, &self.written.borrow());
        if self.started == Started::Yes {
            self.keeper.finish(&self.world).await;
        }
    }

    fn wake(&self) -> Instant {
        let grace = (self.started != Started::Yes && !self.had_time()).then(|| self.begun + GRACE);
        let report = self.reported.map_or_else(Instant::now, |at| at + REPORT);
        let keep = self.keeper.due().filter(|_| self.started == Started::Yes);
        let left = self.left.due().filter(|_| self.leads);
        let times = [self.flush_due(), self.decide, grace, keep, left];
        times.into_iter().flatten().fold(report, Instant::min)
    }

    fn flush_due(&self) -> Option<Instant> {
        let (first, last) = self.changed?;
        (self.started != Started::No).then(|| (first + QUIET.1).min(last + QUIET.0))
    }

    /// Does what is due.
    async fn act(&mut self) {
        let now = Instant::now();
        self.follow_the_lead();
        if self.leads {
            self.left.ask(&self.cluster.client, now);
        }
        if self.started == Started::No && now >= self.begun + GRACE && !self.keeper.was_read() {
            self.restore().await;
        }
        if self.started != Started::Yes
            && is_complete(&self.feeds, self.cluster.guessed, self.had_time())
        {
            // What is of kinds that are not known stays until they are.
            self.started = Started::Yes;
            self.changed = Some((now, now));
        }
        if self.flush_due().is_some_and(|due| due <= now) {
            self.flush().await;
        }
        if self.decide.is_some_and(|due| due <= now) {
            self.decide = None;
            self.decide();
        }
        if self.started == Started::Yes {
            self.keeper.keep(&self.world);
        }
        if self.reported.is_none_or(|at| at + REPORT <= now) {
            self.reported = Some(now);
            let reply = report::reply(self, &self.wires.placed.borrow());
            let differs = |told: &mut _| {
                let differs = *told != reply;
                *told = reply;
                differs
            };
            self.wires.reports.kubernetes.send_if_modified(differs);
        }
    }

    /// Whoever begins to lead has to know what Services have by now: the leader before it may have
    /// given addresses that a watch does not show yet.
    fn follow_the_lead(&mut self) {
        let leads = self.leadership.borrow().until.is_some();
        if leads && !self.leads {
            self.term.send_modify(|term| *term += 1);
            let services = Feed {
                kind: Kind::Services,
                namespace: None,
            };
            if let Some(state) = self.feeds.get_mut(&services) {
                state.listed = false;
            }
        }
        self.leads = leads;
    }

    fn follow(&mut self, feed: Feed) {
        if self.feeds.contains_key(&feed) {
            return;
        }
        self.feeds.insert(feed.clone(), State::default());
        let (cluster, tell) = (self.cluster.clone(), self.tell.clone());
        let every_service = self.wanted.gateway_controller.is_some();
        let term = self.term.subscribe();
        let follow = watch::follow(feed.clone(), cluster, every_service, term, tell);
        let handle = self.followers.spawn(follow);
        self.handles.insert(feed, handle);
    }

    /// Objects that nothing depends on any more.
    fn leave(&mut self, feed: &Feed) {
        if let Some(handle) = self.handles.remove(feed) {
            handle.abort();
        }
        if let Some(state) = self.feeds.remove(feed) {
            self.lasting.past.add_feed(feed, &state);
        }
        let is_its = |name: &&Name| Some(&name.namespace) == feed.namespace.as_ref();
        let names: Vec<Name> = match feed.kind {
            Kind::Deployments => self
                .world
                .deployments
                .keys()
                .filter(is_its)
                .cloned()
                .collect(),
            Kind::Pods => self.world.pods.keys().filter(is_its).cloned().collect(),
            _ => Vec::new(),
        };
        for name in names {
            self.apply(gone(feed.kind, &name), None);
        }
    }

    /// Pods and Deployments are followed where there is a Dire, and nowhere else.
    fn follow_replicas(&mut self) {
        let namespaces = self.mind.dire_namespaces(&self.world);
        let replicates = !namespaces.is_empty();
        self.replicates
            .send_if_modified(|told| std::mem::replace(told, replicates) != replicates);
        let is_idle = |feed: &&Feed| {
            let namespace = feed.namespace.as_ref();
            namespace.is_some_and(|namespace| !namespaces.contains(namespace))
        };
        let idle: Vec<Feed> = self.feeds.keys().filter(is_idle).cloned().collect();
        for feed in &idle {
            self.leave(feed);
        }
        for namespace in namespaces.into_iter().take(NAMESPACES) {
            for kind in [Kind::Deployments, Kind::Pods] {
                self.follow(Feed {
                    kind,
                    namespace: Some(namespace.clone()),
                });
            }
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Changed {
                feed,
                name,
                change,
                at,
            } => {
                // What was under way when it was left.
                let Some(state) = self.feeds.get_mut(&feed) else {
                    return;
                };
                state.events += u64::from(at.is_some());
                state.failure = None;
                if !self.restored.is_empty() {
                    self.restored.remove(&(feed.kind, name));
                }
                self.suspect(&change);
                self.apply(change, at);
                if feed.kind == Kind::Dires {
                    self.follow_replicas();
                }
            }
            Told::Listed { feed, term } => {
                if let Some(state) = self.feeds.get_mut(&feed) {
                    state.listed |= feed.kind != Kind::Services || term >= *self.term.borrow();
                    state.lists += 1;
                    state.failure = None;
                }
                // Something may be written now that could not be.
                self.decide.get_or_insert(Instant::now() + DECIDE);
                let is_its = |(kind, name): &(Kind, Name)| {
                    let here = feed.namespace.as_ref().is_none_or(|n| *n == name.namespace);
                    *kind == feed.kind && here
                };
                let missing: Vec<_> = self.restored.extract_if(.., |r| is_its(r)).collect();
                for (kind, name) in missing {
                    self.apply(gone(kind, &name), None);
                }
            }
            Told::Failed { feed, why, code } => {
                let Some(state) = self.feeds.get_mut(&feed) else {
                    return;
                };
                let known = state.failure.as_ref().map(|(why, _, _)| why);
                if code != Some(410) && known != Some(&why) {
                    tracing::warn!("kubernetes: {why}");
                }
                state.failure = Some((why, code, Instant::now()));
            }
        }
    }

    /// A Service that is of another type now looks as if it were gone.
    fn suspect(&mut self, change: &Change) {
        let selects = self.wanted.lead && self.wanted.gateway_controller.is_none();
        let Change::Service(name, None) = change else {
            return;
        };
        let known = self.world.services.get(name).filter(|_| selects);
        if let Some(service) = known.filter(|service| self.mind.has_written(service)) {
            self.left.suspect(service, Instant::now());
        }
    }

    fn apply(&mut self, change: Change, at: Option<Instant>) {
        if !self.world.apply(change) {
            return;
        }
        self.keeper.changed();
        let now = Instant::now();
        self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
        if self.pending.len() < BURST {
            self.pending.extend(at);
        }
    }

    /// Whether the API server could have said everything by now.
    fn had_time(&self) -> bool {
        self.begun.elapsed() >= GRACE
    }

    /// Serves what was known last time, as far as the API server has not said anything by now.
    async fn restore(&mut self) {
        let Some(changes) = self.keeper.read().await else {
            return;
        };
        let listed: BTreeSet<Kind> = (self.feeds.iter())
            .filter(|(_, state)| state.listed)
            .map(|(feed, _)| feed.kind)
            .collect();
        for (kind, name, change) in changes {
            if !listed.contains(&kind) && !self.mind.has(&self.world, &change) {
                self.restored.insert((kind, name));
                self.world.apply(change);
            }
        }
        self.follow_replicas();
        self.started = Started::Restored;
        let now = Instant::now();
        self.changed = Some((now, now));
        tracing::warn!(
            server = %self.cluster.server,
            "kubernetes: the API server has not told everything yet; serves what it said last time"
        );
    }

    /// Tells the actor what is to be served, where that is something else now.
    async fn flush(&mut self) {
        self.changed = None;
        let heard = std::mem::take(&mut self.pending);
        if self.mind.update(&mut self.world) || self.mind.is_new() {
            self.lasting.revision += 1;
            let revision = self.lasting.revision;
            self.lasting.latency.told(revision, heard);
            let provided = Provided::Services {
                revision,
                offer: Arc::new(self.mind.offer(&self.world)),
            };
            let event = Event::Provided(Source::Kubernetes, provided);
            if self.wires.events.send(event).await.is_err() {
                return;
            }
        }
        self.publish_locals();
        self.undecided = true;
        let due = (Instant::now() + DECIDE).max(self.decided + self.took * REST);
        self.decide.get_or_insert(due);
    }

    /// Tells the writer what is to be written, where this daemon leads.
    fn decide(&mut self) {
        let leadership = self.leadership.borrow().clone();
        if self.decided.elapsed() >= ANEW {
            self.undecided = true;
        }
        let may = match self.started {
            Started::Yes => may(&self.feeds),
            Started::No | Started::Restored => May::default(),
        };
        if self.may != may {
            self.may = may;
            self.undecided = true;
        }
        let (balancer, sessions) = (&self.cluster.name, self.sessions.borrow());
        let parts = (self.mind).parts(&self.world, &sessions, balancer, &self.may);
        drop(sessions);
        let parts = shared(parts);
        let wanted = match leadership.until {
            Some(until) if self.started == Started::Yes => {
                let known = self.writes.borrow().writes.clone();
                let writes = match std::mem::take(&mut self.undecided) {
                    true => {
                        let begun = Instant::now();
                        let writes = self.mind.writes(&self.world, &self.may);
                        self.decided = Instant::now();
                        self.took = self.decided.duration_since(begun);
                        shared(writes)
                    }
                    false => known,
                };
                Wanted {
                    writes,
                    until,
                    parts,
                }
            }
            _ => {
                self.undecided = true;
                self.mind.forget();
                Wanted {
                    parts,
                    ..Wanted::default()
                }
            }
        };
        self.writes.send_if_modified(|told| {
            let differs = *told != wanted;
            *told = wanted;
            differs
        });
    }

    /// What is answered to those who ask this node for its backends.
    fn publish_locals(&self) {
        if self.wanted.health_checks.is_none() {
            return;
        }
        let services = self.world.services.iter();
        let asked = services.filter(|(_, service)| service.local && self.mind.is_ours(service));
        let locals = asked.filter_map(|(name, service)| {
            let local = Local {
                service: name.clone(),
                endpoints: self.mind.local_endpoints(&self.world, name),
            };
            Some((service.health_check_port?, local))
        });
        let locals: BTreeMap<u16, Local> = locals.take(PORTS).collect();
        self.locals.send_if_modified(|told| {
            let differs = **told != locals;
            *told = Arc::new(locals);
            differs
        });
    }
}
