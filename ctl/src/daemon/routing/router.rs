//! The session with one router: a task that passes what happens to its state machine, and carries
//! out what that says.

use super::bfd::Sessions;
use super::connection::{Connection, Incoming};
use super::report::{self, Sent};
use super::socket;
use crate::daemon::actor::until;
use crate::daemon::clock::Clock;
use lockstep_api::BgpReply;
use lockstep_ctl_core::bfd;
use lockstep_ctl_core::bgp::notification::Notification;
use lockstep_ctl_core::bgp::open;
use lockstep_ctl_core::bgp::peer::{self, Event, Output, SLOTS, Say, Slot, State};
use lockstep_ctl_core::bgp::rib::{Told, Updates};
use lockstep_ctl_core::bgp::routes::{Attributes, Prefixes, Wanted};
use lockstep_ctl_core::bgp::wire;
use lockstep_ctl_core::config::bgp::Peer;
use lockstep_ctl_core::drains::Timestamp;
use netgauze_bgp_pkt::BgpMessage;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// What a router's task is to do.
#[derive(Debug, Clone)]
pub enum Order {
    /// Have a session. What has changed is the policy only.
    Run(Arc<Peer>),
    /// End it with this as the last word, or without one.
    Stop(Option<Notification>),
}

/// What a router's task is told.
#[derive(Debug)]
pub struct Ears {
    /// What to do.
    pub orders: watch::Receiver<Order>,
    /// What to announce; `None` until that is known.
    pub prefixes: watch::Receiver<Option<Arc<Wanted>>>,
    /// How the paths to routers with BFD are.
    pub paths: watch::Receiver<Sessions>,
    /// Connections that the router has opened.
    pub accepted: mpsc::Receiver<TcpStream>,
}

/// Counters alone are told this much later at most.
const REPORT: Duration = Duration::from_millis(500);

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The session with one router.
pub struct Router {
    address: IpAddr,
    peer: Arc<Peer>,
    machine: peer::Peer,
    ears: Ears,
    connections: [Option<Connection>; SLOTS],
    dial: Option<Dial>,
    /// A connection that the machine has not given a slot yet.
    accepted: Option<TcpStream>,
    told: Told,
    sent: Sent,
    /// The state of the BFD session, where there is one.
    path: Option<bfd::State>,
    clock: Clock,
    state: (State, Timestamp),
    /// Why there is no session, as the log has it.
    said: Option<String>,
    reply: watch::Sender<BgpReply>,
    report_at: Option<tokio::time::Instant>,
}

/// What has happened outside of the machine.
enum Happened {
    Ordered,
    Prefixes,
    Paths,
    Timer,
    Report,
    Dialled(io::Result<TcpStream>),
    Accepted(Option<TcpStream>),
    Came(Slot, Incoming),
}

impl Router {
    /// Nothing is done before [`Router::run`]. `restarted`: since when this daemon runs, when it
    /// follows one that did not take leave.
    pub fn new(
        address: IpAddr,
        ears: Ears,
        restarted: Option<Timestamp>,
        clock: Clock,
        reply: watch::Sender<BgpReply>,
    ) -> Option<Self> {
        let Order::Run(peer) = ears.orders.borrow().clone() else {
            return None;
        };
        let now = clock.now();
        let time = peer.settings.graceful_restart;
        let window = time.map(|seconds| Duration::from_secs(seconds.into()));
        let restarted = restarted.zip(window).map(|(at, window)| at.after(window));
        let machine = peer::Peer::new(peer.settings.clone(), restarted, rand::random(), now);
        Some(Router {
            address,
            peer,
            machine,
            ears,
            connections: [const { None }; SLOTS],
            dial: None,
            accepted: None,
            told: Told::default(),
            sent: Sent::default(),
            path: None,
            clock,
            state: (State::Idle, now),
            said: None,
            reply,
            report_at: None,
        })
    }

    /// Keeps the session until it is told to stop.
    pub async fn run(mut self) {
        loop {
            self.carry_out();
            self.notice();
            match self.wait().await {
                Happened::Ordered => {
                    let order = self.ears.orders.borrow_and_update().clone();
                    match order {
                        Order::Run(peer) => {
                            self.peer = peer;
                            self.push();
                            self.report();
                        }
                        Order::Stop(why) => return self.stop(why).await,
                    }
                }
                Happened::Prefixes => self.push(),
                Happened::Paths => self.look_at_path(),
                Happened::Timer => self.handle(Event::Timer),
                Happened::Report => self.report(),
                Happened::Dialled(result) => self.dialled(result),
                Happened::Accepted(stream) => {
                    self.accepted = stream;
                    if self.accepted.is_some() {
                        self.handle(Event::Accepted);
                    }
                }
                Happened::Came(slot, incoming) => self.came(slot, incoming),
            }
        }
    }

    /// Waits for whatever happens first. What is dropped here is asked again: nothing is lost.
    async fn wait(&mut self) -> Happened {
        let deadline = self.machine.next_deadline();
        let deadline = deadline.and_then(|at| self.clock.instant(at));
        let connections = &mut self.connections;
        let dial = &mut self.dial;
        tokio::select! {
            biased;
            // Whoever gave orders is gone: the same as a restart.
            _ = self.ears.orders.changed() => Happened::Ordered,
            Ok(()) = self.ears.prefixes.changed() => Happened::Prefixes,
            Ok(()) = self.ears.paths.changed() => Happened::Paths,
            () = until(deadline) => Happened::Timer,
            () = until(self.report_at) => Happened::Report,
            result = async { match dial { Some(dial) => dial.await, None => pending().await } } => {
                *dial = None;
                Happened::Dialled(result)
            }
            Some(stream) = self.ears.accepted.recv() => Happened::Accepted(Some(stream)),
            (slot, incoming) = next_of(connections) => Happened::Came(slot, incoming),
        }
    }

    fn handle(&mut self, event: Event) {
        // What is counted can wait a little.
        if self.report_at.is_none() {
            self.report_at = tokio::time::Instant::now().checked_add(REPORT);
        }
        self.machine.handle(self.clock.now(), event);
    }

    /// A path that fails ends the session at once. One that never was up is nothing to go by, and
    /// one that an operator has taken down is no failure (RFC 5882 §3.2).
    fn look_at_path(&mut self) {
        let path = self
            .ears
            .paths
            .borrow_and_update()
            .get(&self.address)
            .copied();
        let before = std::mem::replace(&mut self.path, path.map(|p| p.state));
        let failed =
            path.is_some_and(|p| p.state == bfd::State::Down && p.remote != bfd::State::AdminDown);
        if before != self.path {
            if before == Some(bfd::State::Up) && failed {
                self.handle(Event::BfdDown);
            }
            self.report_at = Some(tokio::time::Instant::now());
        }
    }

    fn dialled(&mut self, result: io::Result<TcpStream>) {
        match result.and_then(Connection::start) {
            Ok(connection) => {
                self.connections[Slot::OURS.index()] = Some(connection);
                self.handle(Event::Connected);
            }
            Err(error) => self.handle(Event::Refused(error.to_string())),
        }
    }

    fn came(&mut self, slot: Slot, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => {
                self.sent.messages_received += 1;
                self.handle(Event::Received(slot, message));
            }
            Incoming::Broken(why) => self.handle(Event::Broken(slot, why)),
            Incoming::Closed => {
                self.connections[slot.index()] = None;
                self.handle(Event::Closed(slot));
            }
        }
    }

    /// Does what the machine says.
    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Connect => self.dial = Some(self.connect()),
                Output::Accept(slot) => self.accept(slot),
                Output::Send(slot, say) => {
                    let bytes = self.words(&say);
                    self.sent.messages += 1;
                    self.send(slot, bytes);
                }
                Output::Close(slot) => {
                    self.connections[slot.index()] = None;
                    if slot == Slot::OURS {
                        self.dial = None;
                    }
                }
                Output::Up(_) => {
                    self.told = Told::default();
                    self.push();
                }
                Output::Down => {
                    self.told = Told::default();
                    self.report();
                }
                Output::Refresh(family) => {
                    if let Some((slot, session)) = self.machine.session() {
                        let updates = self.told.replay(session, family);
                        self.send_updates(slot, updates);
                    }
                }
            }
        }
    }

    fn connect(&self) -> Dial {
        let (address, peer) = (self.address, self.peer.clone());
        Box::pin(async move { socket::connect(address, &peer).await })
    }

    fn accept(&mut self, slot: Option<Slot>) {
        let Some((stream, slot)) = self.accepted.take().zip(slot) else {
            return;
        };
        let prepared = socket::prepare(&stream, self.address, &self.peer);
        match prepared.and_then(|()| Connection::start(stream)) {
            Ok(connection) => self.connections[slot.index()] = Some(connection),
            Err(error) => {
                tracing::warn!("{}: connection not usable: {error}", self.name());
                self.handle(Event::Closed(slot));
            }
        }
    }

    fn words(&self, say: &Say) -> Vec<u8> {
        match say {
            Say::Open { restarted } => {
                let open = open::offer(&self.peer.settings, *restarted);
                wire::encode(&BgpMessage::Open(open))
            }
            Say::Keepalive => wire::encode(&BgpMessage::KeepAlive),
            Say::Notification(why) => wire::notification(why),
        }
    }

    fn send(&mut self, slot: Slot, bytes: Vec<u8>) {
        let connection = self.connections[slot.index()].as_ref();
        if connection.is_some_and(|connection| !connection.send(bytes)) {
            tracing::warn!("{} does not read what it is sent", self.name());
            self.connections[slot.index()] = None;
            self.handle(Event::Closed(slot));
        }
    }

    /// Tells the router what it lacks.
    fn push(&mut self) {
        let wanted = self.ears.prefixes.borrow_and_update().clone();
        let (Some(wanted), Some((slot, session))) = (wanted, self.machine.session()) else {
            return;
        };
        let Some(attributes) = self.attributes(slot) else {
            return;
        };
        let updates = self
            .told
            .update(session, &wanted.to(self.address), &attributes);
        self.send_updates(slot, updates);
        self.report();
    }

    fn attributes(&self, slot: Slot) -> Option<Attributes> {
        let local = self.connections[slot.index()].as_ref()?.local;
        Some(self.peer.policy.attributes(&self.peer.settings, local))
    }

    fn send_updates(&mut self, slot: Slot, updates: Updates) {
        self.sent.count(&updates);
        self.send(slot, updates.bytes);
    }

    /// Ends the session. What has changed in the last moment is told before.
    async fn stop(mut self, why: Option<Notification>) {
        if self.ears.prefixes.has_changed().unwrap_or(false) {
            self.push();
        }
        self.handle(Event::Stop(why));
        let open = self.connections.each_mut().map(Option::take);
        while let Some(output) = self.machine.poll() {
            if let Output::Send(slot, say) = output {
                let bytes = self.words(&say);
                if let Some(connection) = &open[slot.index()] {
                    connection.send(bytes);
                }
            }
        }
        for connection in open.into_iter().flatten() {
            connection.finish().await;
        }
        self.reply
            .send_modify(|reply| report::forget(reply, self.address));
    }

    /// Logs a new state, and has it reported.
    fn notice(&mut self) {
        let state = self.machine.state();
        if state == self.state.0 {
            return;
        }
        let lost = self.state.0 == State::Established;
        self.state = (state, self.clock.now());
        match self.machine.cause() {
            _ if state == State::Established => {
                self.said = None;
                tracing::info!("{}: session is up", self.name());
            }
            Some(cause) if lost => tracing::warn!("{}: session is lost: {cause}", self.name()),
            Some(cause) => {
                let cause = cause.to_string();
                // Once a reason, not once a try.
                if self.said.as_ref() != Some(&cause) {
                    tracing::warn!("{}: no session: {cause}", self.name());
                }
                self.said = Some(cause);
            }
            None => tracing::debug!("{}: {}", self.name(), state.name()),
        }
        self.report();
    }

    fn report(&mut self) {
        self.report_at = None;
        let session = self.machine.session();
        let local = session.and_then(|(slot, _)| self.connections[slot.index()].as_ref());
        let entry = report::peer(&report::Seen {
            address: self.address,
            peer: &self.peer,
            machine: &self.machine,
            state: self.state,
            local: local.map(|connection| connection.local),
            routes: self.told.prefixes().len(),
            sent: &self.sent,
            path: self.path,
        });
        let wanted = self.ears.prefixes.borrow().clone();
        let wanted = wanted.map_or_else(Prefixes::new, |wanted| wanted.to(self.address));
        self.reply.send_if_modified(|reply| {
            report::update(reply, self.address, entry, self.told.prefixes(), &wanted)
        });
    }

    fn name(&self) -> String {
        match self.peer.description.as_str() {
            "" => format!("router {}", self.address),
            description => format!("router {} ({description})", self.address),
        }
    }
}

/// The next message of any connection.
async fn next_of(connections: &mut [Option<Connection>; SLOTS]) -> (Slot, Incoming) {
    poll_fn(|context| {
        for slot in Slot::all() {
            let connection = connections[slot.index()].as_mut();
            if let Some(Poll::Ready(next)) = connection.map(|c| c.poll_next(context)) {
                return Poll::Ready((slot, next));
            }
        }
        Poll::Pending
    })
    .await
}
