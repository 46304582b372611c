//! Tells routers which VIPs are here: BGP, and BFD beside it.
//!
//! Each router has a task of its own ([`router`]); here they are started, stopped and told what
//! to announce.

use super::actor::until;
use super::clock::Clock;
use super::parts::{Ending, Wires};
use super::view::announcement_to_proto;
use lockstep_ctl_core::announce::{Announced, Withheld};
use lockstep_ctl_core::bfd::Settings;
use lockstep_ctl_core::bgp::notification::Notification;
use lockstep_ctl_core::bgp::routes::Wanted;
use lockstep_ctl_core::config::bgp::{Bgp, Peer};
use lockstep_ctl_core::drains::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod bfd;
mod connection;
mod leave;
mod listener;
mod report;
mod router;
mod socket;

use leave::Leave;
use listener::Listeners;
use router::{Ears, Order, Router};

/// How long a daemon that starts waits for its engine before it says that nothing is here: routers
/// that keep routes of the daemon before it would drop them.
const SETTLE: Duration = Duration::from_secs(5);
/// When to try again to listen.
const RETRY: Duration = Duration::from_secs(2);
/// The last word to routers.
const GOODBYE: &str = "lockstepd ends";
/// Connections of a router that wait for its task.
const ACCEPTED: usize = 2;

/// Talks to every router, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let (wanted, to_watch) = watch::channel(Arc::default());
    let (watching, paths) = bfd::start(to_watch);
    let (mut routing, mut accepted) = Routing::new(&wires, wanted, paths);
    let config = wires.config.borrow_and_update().clone();
    routing.follow(&config.bgp).await;
    let ending = loop {
        tokio::select! {
            biased;
            ending = ended(&mut wires.ending) => break ending,
            Ok(()) = wires.announcements.changed() => {
                let announcements = wires.announcements.borrow_and_update().clone();
                routing.hear(announcements);
            }
            () = until(routing.settle_at) => routing.settle(),
            Ok(()) = wires.config.changed() => {
                let config = wires.config.borrow_and_update().clone();
                routing.follow(&config.bgp).await;
            }
            () = until(routing.listen_at) => routing.listen().await,
            Some((stream, from)) = accepted.recv() => routing.hand_over(stream, from),
        }
    };
    if wires.announcements.has_changed().unwrap_or(false) {
        let announcements = wires.announcements.borrow_and_update().clone();
        routing.hear(announcements);
    }
    routing.end(ending).await;
    // Whoever wants its sessions is gone: they end.
    watching.await;
}

/// How the daemon ends; whoever would say it is gone when it is aborted.
async fn ended(ending: &mut watch::Receiver<Ending>) -> Ending {
    let said = ending.wait_for(|e| *e != Ending::Running).await;
    said.map_or(Ending::Restart, |how| *how)
}

/// A router's task, and what it hears by.
#[derive(Debug)]
struct Task {
    peer: Arc<Peer>,
    orders: watch::Sender<Order>,
    accepted: mpsc::Sender<TcpStream>,
    handle: JoinHandle<()>,
}

impl Task {
    /// Tells it to end, and what says when it has.
    fn stop(self, why: Option<Notification>) -> JoinHandle<()> {
        self.orders.send_replace(Order::Stop(why));
        self.handle
    }
}

#[derive(Debug)]
struct Routing {
    bgp: Bgp,
    tasks: BTreeMap<IpAddr, Task>,
    /// Tasks that were told to end, whose router may be there again meanwhile.
    ending: BTreeMap<IpAddr, JoinHandle<()>>,
    listeners: Listeners,
    /// The BFD sessions to have, and how they are.
    wanted: watch::Sender<Arc<BTreeMap<IpAddr, Settings>>>,
    paths: watch::Receiver<bfd::Sessions>,
    announcements: Arc<Announced>,
    prefixes: watch::Sender<Option<Arc<Wanted>>>,
    reply: watch::Sender<lockstep_api::BgpReply>,
    clock: Clock,
    leave: Option<Leave>,
    /// When this daemon started, when the one before has not taken leave.
    restarted: Option<Timestamp>,
    /// When what is announced counts, whatever it is.
    settle_at: Option<Instant>,
    /// When to try again to listen.
    listen_at: Option<Instant>,
    state_dir: std::path::PathBuf,
}

impl Routing {
    fn new(
        wires: &Wires,
        wanted: watch::Sender<Arc<BTreeMap<IpAddr, Settings>>>,
        paths: watch::Receiver<bfd::Sessions>,
    ) -> (Self, mpsc::Receiver<(TcpStream, SocketAddr)>) {
        let (listeners, accepted) = Listeners::new();
        let routing = Routing {
            bgp: Bgp::default(),
            tasks: BTreeMap::new(),
            ending: BTreeMap::new(),
            listeners,
            wanted,
            paths,
            announcements: Arc::default(),
            prefixes: watch::Sender::new(None),
            reply: wires.reports.bgp.clone(),
            clock: Clock::start(),
            leave: None,
            restarted: None,
            settle_at: Instant::now().checked_add(SETTLE),
            listen_at: None,
            state_dir: wires.state_dir.clone(),
        };
        (routing, accepted)
    }

    /// Has the routers of the configuration, and no others. Sessions go on where only what routes
    /// have is another.
    async fn follow(&mut self, bgp: &Bgp) {
        let changed = |address: &IpAddr, task: &Task| match bgp.peers.get(address) {
            None => Some(Notification::DECONFIGURED),
            Some(peer) if needs_session(&task.peer, peer) => Some(Notification::RECONFIGURED),
            Some(_) => None,
        };
        let ends: Vec<(IpAddr, Notification)> = (self.tasks.iter())
            .filter_map(|(address, task)| Some((*address, changed(address, task)?)))
            .collect();
        self.ending.retain(|_, handle| !handle.is_finished());
        for (address, why) in ends {
            self.listeners.forget(address);
            if let Some(task) = self.tasks.remove(&address) {
                self.ending.insert(address, task.stop(Some(why)));
            }
        }
        self.bgp = bgp.clone();
        if self.leave.is_none() && !bgp.peers.is_empty() {
            let (leave, pending) = Leave::pending(&self.state_dir);
            self.restarted = pending.then(|| self.clock.now());
            self.leave = Some(leave);
        }
        self.tell();
        self.watch();
        for (&address, peer) in &bgp.peers {
            match self.tasks.get_mut(&address) {
                Some(task) if *task.peer == *peer => {}
                Some(task) => {
                    task.peer = Arc::new(peer.clone());
                    task.orders.send_replace(Order::Run(task.peer.clone()));
                }
                None => self.start(address, peer),
            }
        }
        self.listen().await;
    }

    /// Has a task for a router, which begins when the one before it has ended.
    fn start(&mut self, address: IpAddr, peer: &Peer) {
        let before = self.ending.remove(&address);
        let peer = Arc::new(peer.clone());
        let (orders, to_do) = watch::channel(Order::Run(peer.clone()));
        let (accepted, come) = mpsc::channel(ACCEPTED);
        let ears = Ears {
            orders: to_do,
            prefixes: self.prefixes.subscribe(),
            paths: self.paths.clone(),
            accepted: come,
        };
        let (clock, reply) = (self.clock, self.reply.clone());
        let restarted = self.restarted;
        let handle = tokio::spawn(async move {
            if let Some(before) = before {
                // One that panicked has said so.
                let _ = before.await;
            }
            if let Some(router) = Router::new(address, ears, restarted, clock, reply) {
                router.run().await;
            }
        });
        let task = Task {
            peer,
            orders,
            accepted,
            handle,
        };
        self.tasks.insert(address, task);
    }

    /// Has the BFD sessions of the configuration.
    fn watch(&self) {
        let settings = |(&address, peer): (&IpAddr, &Peer)| {
            let local = peer.source;
            Some((address, Settings { local, ..peer.bfd? }))
        };
        let wanted = Arc::new(self.bgp.peers.iter().filter_map(settings).collect());
        self.wanted.send_if_modified(|known| {
            let new = *known != wanted;
            *known = wanted;
            new
        });
    }

    async fn listen(&mut self) {
        let result = self.listeners.follow(&self.bgp).await;
        self.listen_at = match &result {
            Ok(()) => None,
            Err(_) => Instant::now().checked_add(RETRY),
        };
        let error = result.err().unwrap_or_default();
        self.reply.send_if_modified(|reply| {
            let new = reply.listen_error != error;
            if new && !error.is_empty() {
                tracing::warn!("routers cannot connect: {error}");
            }
            reply.listen_error.clone_from(&error);
            new
        });
    }

    /// Gives a connection to the task of its router. Others are nobody's: closed.
    fn hand_over(&self, stream: TcpStream, from: SocketAddr) {
        match self.tasks.get(&from.ip().to_canonical()) {
            // One that does not come to it has enough of them.
            Some(task) => drop(task.accepted.try_send(stream)),
            None => tracing::debug!("{from} is no router of lockstepd.toml: connection closed"),
        }
    }

    fn hear(&mut self, announcements: Arc<Announced>) {
        let mut states = announcements.vips.values();
        if !states.all(|state| *state == Some(Withheld::NoEngine)) {
            self.settle_at = None;
        }
        self.announcements = announcements;
        self.tell();
    }

    fn settle(&mut self) {
        self.settle_at = None;
        self.tell();
    }

    /// Tells every router what is to be announced, once that is known.
    fn tell(&self) {
        let Bgp {
            aggregates,
            specifics,
            ..
        } = &self.bgp;
        let wanted = Wanted::of(&self.announcements, aggregates, *specifics);
        let withheld: Vec<_> = (self.announcements)
            .withheld(|way| !way.bgp.is_empty())
            .map(|(address, why)| announcement_to_proto((&address, &Some(why))))
            .collect();
        self.reply.send_if_modified(|reply| {
            let new = reply.withheld != withheld;
            reply.withheld = withheld;
            new
        });
        if self.settle_at.is_some() {
            return;
        }
        self.prefixes.send_if_modified(|known| {
            let new = known.as_deref() != Some(&wanted);
            if new {
                *known = Some(Arc::new(wanted));
            }
            new
        });
    }

    async fn end(mut self, ending: Ending) {
        let why = match ending {
            Ending::Shutdown => Some(Notification::shutdown(GOODBYE)),
            Ending::Restart | Ending::Running => None,
        };
        let tasks = std::mem::take(&mut self.tasks);
        let ends = tasks.into_values().map(|task| task.stop(why.clone()));
        let ends: Vec<_> = ends
            .chain(std::mem::take(&mut self.ending).into_values())
            .collect();
        futures::future::join_all(ends).await;
        if ending == Ending::Shutdown
            && let Some(leave) = self.leave.take()
        {
            leave.taken();
        }
    }
}

/// Whether a session has to begin again for a peer to be like this.
fn needs_session(old: &Peer, new: &Peer) -> bool {
    let session = |peer: &Peer| Peer {
        policy: Default::default(),
        description: String::new(),
        bfd: None,
        ..peer.clone()
    };
    session(old) != session(new)
}
