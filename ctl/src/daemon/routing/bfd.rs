//! BFD with routers, single hop (RFC 5881): the sockets and timers around
//! [`Machine`](lockstep_ctl_core::bfd::Machine).
//!
//! It has a thread of its own: whatever keeps the daemon's other threads busy, packets leave and
//! are read in time. Sessions with routers die with the daemon, and are meant to: without it
//! nobody withdraws what it announced.

use crate::daemon::apart;
use crate::daemon::clock::Clock;
use lockstep_ctl_core::bfd::{Machine, Packet, Session, Settings, State};
use lockstep_ctl_core::drains::Timestamp;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

mod socket;

use socket::{Family, Speaker};

/// What every part of the daemon may look at: the session of each neighbor.
pub type Sessions = Arc<BTreeMap<IpAddr, Session>>;

/// Packets read in one go. Then timers have their turn, whatever still waits.
const BURST: usize = 64;

/// When to try again to have the port that somebody else has.
const AGAIN: Duration = Duration::from_secs(5);

/// How often a neighbor is told that a session ends for no fault, and how far apart.
const GOODBYES: (usize, Duration) = (3, Duration::from_millis(10));

/// Keeps sessions with the `wanted` neighbors. The future ends after the sender of `wanted` is
/// gone; neighbors are then told that this is no failure (RFC 5880 section 6.8.16), as is one that
/// is no longer wanted.
pub fn start(
    wanted: watch::Receiver<Arc<BTreeMap<IpAddr, Settings>>>,
) -> (impl Future<Output = ()> + Send, watch::Receiver<Sessions>) {
    let sessions = watch::Sender::<Sessions>::default();
    let seen = sessions.subscribe();
    let future = apart::run("bfd", move || Bfd::new(sessions).run(wanted));
    (future, seen)
}

/// A session and its socket.
struct Live {
    machine: Machine,
    settings: Settings,
    speaker: Speaker,
    /// The last state that was told.
    told: State,
}

struct Bfd {
    sessions: BTreeMap<IpAddr, Live>,
    listeners: [(Family, Option<UdpSocket>); 2],
    /// When to try the listeners again.
    again: Option<Instant>,
    tell: watch::Sender<Sessions>,
    clock: Clock,
    started: Timestamp,
    goodbyes: JoinSet<()>,
}

impl Bfd {
    fn new(tell: watch::Sender<Sessions>) -> Self {
        let clock = Clock::start();
        Bfd {
            sessions: BTreeMap::new(),
            listeners: [(Family::V4, None), (Family::V6, None)],
            again: None,
            tell,
            clock,
            started: clock.now(),
            goodbyes: JoinSet::new(),
        }
    }

    async fn run(mut self, mut wanted: watch::Receiver<Arc<BTreeMap<IpAddr, Settings>>>) {
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            self.follow(&now_wanted);
            let gone = loop {
                self.listen();
                // What has come is read before anybody is taken for silent: after this process
                // was stopped for a while, the packets of that while are in the queue.
                self.hear();
                self.tick();
                self.publish();
                tokio::select! {
                    changed = wanted.changed() => break changed.is_err(),
                    () = readable(&self.listeners) => {}
                    () = until(self.wake()) => {}
                    Some(_) = self.goodbyes.join_next() => {}
                }
            };
            if gone {
                break;
            }
        }
        self.follow(&BTreeMap::new());
        while self.goodbyes.join_next().await.is_some() {}
        self.publish();
    }

    fn now(&self) -> Duration {
        self.clock.uptime()
    }

    /// Begins, changes and ends sessions.
    fn follow(&mut self, wanted: &BTreeMap<IpAddr, Settings>) {
        let now = self.now();
        let leaving = |peer: &IpAddr, live: &Live| {
            // Another address of ours is another session to the neighbor.
            wanted
                .get(peer)
                .is_none_or(|s| s.local != live.settings.local)
        };
        let leave: Vec<(IpAddr, Live)> = (self
            .sessions
            .extract_if(.., |peer, live| leaving(peer, live)))
        .collect();
        for (peer, live) in leave {
            tracing::info!(%peer, "bfd: the session ends, it is no longer configured");
            self.say_goodbye(now, live);
        }
        for (&peer, &settings) in wanted {
            let number = self.free_discriminator();
            match self.sessions.entry(peer) {
                Entry::Occupied(mut known) => {
                    let live = known.get_mut();
                    live.settings = settings;
                    live.machine.configure(settings);
                }
                Entry::Vacant(place) => {
                    place.insert(Live {
                        machine: Machine::new(settings, number, now, rand::random()),
                        settings,
                        speaker: Speaker::new(peer, settings.local),
                        told: State::Down,
                    });
                }
            }
        }
    }

    /// A random number that no session has (RFC 5880 section 6.8.1): who does not see our packets
    /// cannot guess it.
    fn free_discriminator(&self) -> NonZeroU32 {
        loop {
            let number: NonZeroU32 = match NonZeroU32::new(rand::random()) {
                Some(number) => number,
                None => continue,
            };
            let taken = |live: &Live| live.machine.discriminator() == number;
            if !self.sessions.values().any(taken) {
                return number;
            }
        }
    }

    /// Tells a neighbor a few times, since nothing follows that could make up for a loss.
    fn say_goodbye(&mut self, now: Duration, mut live: Live) {
        live.machine.administer(now, false);
        let Some(packet) = live.machine.tick(now, 0) else {
            return;
        };
        self.goodbyes.spawn(async move {
            let (times, pause) = GOODBYES;
            for _ in 0..times {
                live.speaker.send(&packet);
                sleep(pause).await;
            }
        });
    }

    /// Has a socket for each family that is spoken, and none for the others.
    fn listen(&mut self) {
        let now = Instant::now();
        if self.again.is_some_and(|at| at > now) {
            return;
        }
        self.again = None;
        for (family, listener) in &mut self.listeners {
            if !self
                .sessions
                .keys()
                .any(|peer| Family::of(*peer) == *family)
            {
                *listener = None;
            } else if listener.is_none() {
                match socket::listen(*family) {
                    Ok(socket) => *listener = Some(socket),
                    Err(error) => {
                        self.again = Some(now + AGAIN);
                        tracing::error!(
                            "bfd: cannot listen on UDP port {}: {error}; where another program \
                             speaks BFD on this host (bfdd, bird), stop it there or leave `bfd` \
                             out of lockstepd.toml; routers are told of a failure later without it",
                            socket::PORT
                        );
                    }
                }
            }
        }
    }

    /// Reads what has come, so much at most that timers are not late.
    fn hear(&mut self) {
        let now = self.now();
        let mut bytes = [0; 256];
        for (_, listener) in &self.listeners {
            let Some(listener) = listener else {
                continue;
            };
            for _ in 0..BURST {
                let (length, from) = match listener.try_recv_from(&mut bytes) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::debug!("bfd: cannot receive: {error}");
                        break;
                    }
                };
                let Some(live) = self.sessions.get_mut(&from.ip()) else {
                    continue;
                };
                match Packet::parse(&bytes[..length]) {
                    Ok(packet) => {
                        if let Some(answer) = live.machine.receive(now, &packet) {
                            live.speaker.send(&answer);
                        }
                    }
                    Err(error) => tracing::debug!(peer = %from.ip(), "bfd: a bad packet: {error}"),
                }
            }
        }
    }

    /// Sends what is due.
    fn tick(&mut self) {
        let now = self.now();
        for live in self.sessions.values_mut() {
            if let Some(packet) = live.machine.tick(now, rand::random()) {
                live.speaker.send(&packet);
            }
        }
    }

    /// When something is due next.
    fn wake(&self) -> Option<Instant> {
        let machines = self.sessions.values().map(|live| &live.machine);
        let due = machines.filter_map(Machine::next_deadline).min();
        let due = due.map(|at| Instant::now() + at.saturating_sub(self.now()));
        due.into_iter().chain(self.again).min()
    }

    fn publish(&mut self) {
        for (peer, live) in &mut self.sessions {
            let (state, machine) = (live.machine.state(), &live.machine);
            if state == live.told {
                continue;
            }
            match (live.told, state) {
                (State::Up, _) => {
                    tracing::warn!(%peer, "bfd: the session is down: {}", machine.diagnostic());
                }
                (_, State::Up) => tracing::info!(
                    %peer,
                    "bfd: the session is up; silence of {:?} means dead",
                    machine.detection()
                ),
                _ => tracing::debug!(%peer, "bfd: {state}"),
            }
            live.told = state;
        }
        let session = |live: &Live| Session {
            state: live.machine.state(),
            remote: live.machine.remote_state(),
            diagnostic: live.machine.diagnostic(),
            since: self.started.after(live.machine.since()),
            transmit: live.machine.interval(),
            detection: live.machine.detection(),
            ups: live.machine.ups(),
        };
        let sessions = self.sessions.iter();
        let sessions: BTreeMap<IpAddr, Session> = sessions
            .map(|(peer, live)| (*peer, session(live)))
            .collect();
        self.tell.send_if_modified(|told| {
            let differs = **told != sessions;
            if differs {
                *told = Arc::new(sessions);
            }
            differs
        });
    }
}

/// Waits until one of the sockets has something.
async fn readable(listeners: &[(Family, Option<UdpSocket>); 2]) {
    let one = async |listener: &Option<UdpSocket>| match listener {
        // An error comes out of the next read as well.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    };
    tokio::select! {
        () = one(&listeners[0].1) => {}
        () = one(&listeners[1].1) => {}
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
