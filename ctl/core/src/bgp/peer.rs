//! The state machine of a session with a router (RFC 4271 §8). No clock, no sockets: the caller
//! passes events and the time, carries out [`Output`]s, and waits for [`Peer::next_deadline`].
//!
//! A router may be connected to in one way and connect to us in the other at the same moment. Each
//! connection has a machine of its own ([`machine`]); [`Peer`] keeps one of them.

use super::Family;
use super::notification::Notification;
use super::open::{self, Session, Settings};
use super::wire::Message;
use crate::drains::Timestamp;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

pub mod machine;

pub use machine::State;
use machine::{Input, Machine, Step};

/// The connections there can be: ours, theirs, and theirs once more, as a router that restarts
/// connects before we have seen its old connection end.
pub const SLOTS: usize = 3;

/// One of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(usize);

impl Slot {
    /// The connection that we open.
    pub const OURS: Slot = Slot(0);

    /// Each.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(Slot)
    }

    /// Its number, below [`SLOTS`].
    pub const fn index(self) -> usize {
        self.0
    }

    const fn is_ours(self) -> bool {
        self.0 == 0
    }
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A deadline has passed.
    Timer,
    /// Our connection stands.
    Connected,
    /// It does not come about, as the system says it.
    Refused(String),
    /// The router has connected; answered with the slot by [`Output::Accept`].
    Accepted,
    /// A connection was closed, or failed.
    Closed(Slot),
    /// A message has come.
    Received(Slot, Message),
    /// Bytes have come that end the session.
    Broken(Slot, Notification),
    /// BFD has seen the path fail.
    BfdDown,
    /// The session is to end for good, with this as the last word; without one where another
    /// daemon follows at once (RFC 4724 §4: a NOTIFICATION would end what the router keeps).
    Stop(Option<Notification>),
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// OPEN; whether with the restart bit of RFC 4724.
    Open {
        /// See there.
        restarted: bool,
    },
    /// KEEPALIVE.
    Keepalive,
    /// NOTIFICATION.
    Notification(Notification),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to the router; what was under way is given up.
    Connect,
    /// The connection that was accepted has this slot; `None`: close it.
    Accept(Option<Slot>),
    /// Send a message.
    Send(Slot, Say),
    /// Send what is queued, and close; for ours, also stop connecting.
    Close(Slot),
    /// There is a session: tell the router all routes.
    Up(Slot),
    /// The session is over.
    Down,
    /// The router wants the routes of a family again.
    Refresh(Family),
}

/// Why there is no session, or why the last one has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The connection did not come about.
    Refused(String),
    /// No answer to a connection, or to OPEN.
    Silent,
    /// The connection was closed.
    Closed,
    /// The router has ended it.
    Theirs(Notification),
    /// We have ended it.
    Ours(Notification),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Refused(why) => write!(f, "cannot connect: {why}"),
            Cause::Silent => f.write_str("the router does not answer"),
            Cause::Closed => f.write_str("the connection was closed"),
            Cause::Theirs(why) => write!(f, "the router ended the session: {why}"),
            Cause::Ours(why) => write!(f, "ended here: {why}"),
        }
    }
}

/// How often things happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Sessions that came up.
    pub ups: u64,
    /// Sessions that were lost.
    pub flaps: u64,
    /// NOTIFICATIONs sent.
    pub notifications_sent: u64,
    /// NOTIFICATIONs received.
    pub notifications_received: u64,
    /// UPDATEs received, and ignored.
    pub updates_received: u64,
    /// Those of them that were malformed and treated as withdrawals.
    pub malformed: u64,
}

/// The session with a router, and the attempts to have one.
#[derive(Debug)]
pub struct Peer {
    settings: Settings,
    machines: [Machine; SLOTS],
    /// Until when OPEN says that we have restarted.
    restarted: Option<Timestamp>,
    /// How long to wait before the next attempt.
    back_off: Duration,
    up_since: Option<Timestamp>,
    cause: Option<Cause>,
    counters: Counters,
    random: Random,
    outputs: VecDeque<Output>,
}

/// The first wait after a failure, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A session that was there for this long was not a failed attempt.
const STABLE: Duration = Duration::from_secs(10);

impl Peer {
    /// Begins. `restarted`: until when the router is told that we have restarted; `seed` decides
    /// about jitter only.
    pub fn new(
        settings: Settings,
        restarted: Option<Timestamp>,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let mut peer = Peer {
            machines: [(); SLOTS].map(|()| Machine::default()),
            settings,
            restarted,
            back_off: BACK_OFF.0,
            up_since: None,
            cause: None,
            counters: Counters::default(),
            random: Random(seed),
            outputs: VecDeque::new(),
        };
        let passive = peer.settings.passive;
        for slot in Slot::all().filter(|s| !(s.is_ours() && passive)) {
            peer.step(now, slot, Input::Start(slot.is_ours()));
        }
        peer
    }

    /// What it goes by.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How far it has come.
    pub fn state(&self) -> State {
        let states = self.machines.iter().map(Machine::state);
        let furthest = states.max().unwrap_or(State::Idle);
        // Two of the machines listen always; that is no state of the session while ours waits.
        match furthest {
            State::Active if !self.settings.passive => State::Active.min(self.ours().shown()),
            other => other,
        }
    }

    fn ours(&self) -> &Machine {
        &self.machines[Slot::OURS.index()]
    }

    /// The session there is, with its connection.
    pub fn session(&self) -> Option<(Slot, &Session)> {
        Slot::all().find_map(|slot| Some((slot, self.machines[slot.index()].established()?)))
    }

    /// Why there is no session, or why the last one has ended.
    pub const fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// How often things happened.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When [`Event::Timer`] is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.machines.iter().filter_map(Machine::deadline).min()
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Timer => self.timers(now),
            Event::Connected => self.step(now, Slot::OURS, Input::Connected),
            Event::Refused(why) => {
                self.note(Cause::Refused(why));
                self.step(now, Slot::OURS, Input::Closed);
            }
            Event::Accepted => self.accept(now),
            Event::Closed(slot) => {
                if self.machines[slot.index()].state() >= State::OpenSent {
                    self.note(Cause::Closed);
                }
                self.step(now, slot, Input::Closed);
            }
            Event::Received(slot, message) => self.receive(now, slot, message),
            Event::Broken(slot, why) => self.step(now, slot, Input::End(why)),
            Event::BfdDown => {
                if let Some((slot, _)) = self.session() {
                    self.step(now, slot, Input::End(Notification::BFD_DOWN));
                }
            }
            Event::Stop(why) => {
                for slot in Slot::all() {
                    self.step(now, slot, Input::Stop(why.clone()));
                }
            }
        }
    }

    fn timers(&mut self, now: Timestamp) {
        for slot in Slot::all() {
            while let Some(input) = self.machines[slot.index()].due(now) {
                // While another connection is further, there is no need for ours.
                let busy = self.machines.iter().any(|m| m.state() >= State::OpenSent);
                if matches!(input, Input::Retry) && slot.is_ours() && busy {
                    let wait = self.random.jitter(self.back_off);
                    self.machines[slot.index()].retry_at(now.after(wait));
                    continue;
                }
                self.step(now, slot, input);
            }
        }
    }

    /// The router has connected. There is always room: a newer connection replaces one that has
    /// not become a session.
    fn accept(&mut self, now: Timestamp) {
        let theirs = || Slot::all().filter(|s| !s.is_ours());
        let state = |slot: Slot| self.machines[slot.index()].state();
        let free = theirs().find(|&s| state(s) == State::Active);
        let slot = free.or_else(|| theirs().find(|&s| state(s) < State::Established));
        let stopped = theirs().any(|s| state(s) == State::Idle);
        let Some(slot) = slot.filter(|_| !stopped) else {
            self.outputs.push_back(Output::Accept(None));
            return;
        };
        if free.is_none() {
            self.step(now, slot, Input::Closed);
        }
        self.outputs.push_back(Output::Accept(Some(slot)));
        self.step(now, slot, Input::Connected);
    }

    fn receive(&mut self, now: Timestamp, slot: Slot, message: Message) {
        match message {
            Message::Open(open) => self.opened(now, slot, &open),
            Message::Update(update) => {
                self.counters.updates_received += 1;
                let malformed = update == super::received::Update::TreatedAsWithdrawal;
                self.counters.malformed += u64::from(malformed);
                self.step(now, slot, Input::Update);
            }
            Message::Notification(why) => {
                self.counters.notifications_received += 1;
                let collision = why == Notification::COLLISION;
                let why = match (why.code, why.subcode) {
                    (2, 2) => why.because(format!(
                        "this balancer says AS {}, `as` in [bgp]",
                        self.settings.local_as
                    )),
                    _ => why,
                };
                if !collision && self.machines[slot.index()].state() >= State::OpenSent {
                    self.note(Cause::Theirs(why));
                }
                self.step(now, slot, Input::Notification);
            }
            Message::Keepalive => self.step(now, slot, Input::Keepalive),
            Message::Refresh(family) => {
                let common = |f: &Family| {
                    let session = self.machines[slot.index()].established();
                    session.is_some_and(|s| s.families.contains(f))
                };
                let family = family.filter(common);
                self.step(now, slot, Input::Refresh(family));
            }
        }
    }

    /// An OPEN: the moment at which one of several connections is kept (RFC 4271 §6.8).
    fn opened(
        &mut self,
        now: Timestamp,
        slot: Slot,
        message: &netgauze_bgp_pkt::open::BgpOpenMessage,
    ) {
        let session = match open::agree(&self.settings, message) {
            Ok(session) => session,
            Err(why) => return self.step(now, slot, Input::End(why)),
        };
        if self.machines[slot.index()].state() == State::OpenSent {
            for other in Slot::all().filter(|&s| s != slot) {
                if !self.yields(now, slot, other, &session) {
                    return self.step(now, slot, Input::End(Notification::COLLISION));
                }
            }
        }
        self.step(now, slot, Input::Open(Box::new(session)));
    }

    /// Whether `other` gives way to `slot`, whose OPEN has come; it is closed then.
    fn yields(&mut self, now: Timestamp, slot: Slot, other: Slot, session: &Session) -> bool {
        let machine = &self.machines[other.index()];
        match machine.state() {
            State::Idle | State::Connect | State::Active | State::OpenSent => true,
            State::OpenConfirm => {
                // The connection of the side with the greater id is kept; of two that the router
                // has opened, the newer. Equal ids: the greater AS (RFC 6286 §2.3).
                let us = (self.settings.router_id, self.settings.local_as);
                let ours_wins = us > (session.router_id, self.settings.remote_as);
                let wins = match (slot.is_ours(), other.is_ours()) {
                    (true, _) => ours_wins,
                    (false, true) => !ours_wins,
                    (false, false) => true,
                };
                if wins {
                    self.step(now, other, Input::End(Notification::COLLISION));
                }
                wins
            }
            State::Established => {
                // RFC 4724 §5: a router that knows graceful restart and opens a new session has
                // lost the old one, which then ends without a NOTIFICATION.
                let restarts = machine
                    .established()
                    .is_some_and(|s| s.graceful_restart.is_some());
                if restarts {
                    self.note(Cause::Closed);
                    self.step(now, other, Input::Closed);
                }
                restarts
            }
        }
    }

    fn note(&mut self, cause: Cause) {
        self.cause = Some(cause);
    }

    /// One step of a machine, and what follows from it here.
    fn step(&mut self, now: Timestamp, slot: Slot, input: Input) {
        let steps = self.machines[slot.index()].step(input);
        for step in steps {
            match step {
                Step::Connect => {
                    self.machines[slot.index()].retry_at(now.after(machine::CONNECT));
                    self.outputs.push_back(Output::Connect);
                }
                Step::Wait => {
                    let wait = self.random.jitter(self.back_off);
                    self.back_off = (self.back_off * 2).min(BACK_OFF.1);
                    self.machines[slot.index()].retry_at(now.after(wait));
                }
                Step::Open => {
                    let restarted = self.restarted.is_some_and(|until| now < until);
                    let say = Say::Open { restarted };
                    self.outputs.push_back(Output::Send(slot, say));
                    self.machines[slot.index()].hold_for(now, machine::OPEN);
                }
                Step::Keepalive => {
                    self.outputs.push_back(Output::Send(slot, Say::Keepalive));
                    let jitter = self.random.fraction();
                    self.machines[slot.index()].sent(now, jitter);
                }
                Step::Heard => self.machines[slot.index()].heard(now),
                Step::Silent => self.note(Cause::Silent),
                Step::Notify(why) => {
                    self.counters.notifications_sent += 1;
                    let silent = self.cause == Some(Cause::Silent);
                    let same = silent && why == Notification::HOLD_TIMER;
                    if why != Notification::COLLISION && !same {
                        self.note(Cause::Ours(why.clone()));
                    }
                    let say = Say::Notification(why);
                    self.outputs.push_back(Output::Send(slot, say));
                }
                Step::Close => self.outputs.push_back(Output::Close(slot)),
                Step::Up => self.up(now, slot),
                Step::Down => self.down(now),
                Step::Refresh(family) => self.outputs.push_back(Output::Refresh(family)),
            }
        }
    }

    fn up(&mut self, now: Timestamp, slot: Slot) {
        self.counters.ups += 1;
        self.up_since = Some(now);
        self.restarted = None;
        self.outputs.push_back(Output::Up(slot));
        // Connections that are still being opened began before this one was kept.
        for other in Slot::all().filter(|&s| s != slot) {
            match self.machines[other.index()].state() {
                State::Connect => self.step(now, other, Input::Closed),
                State::OpenSent | State::OpenConfirm => {
                    self.step(now, other, Input::End(Notification::COLLISION));
                }
                State::Idle | State::Active | State::Established => {}
            }
        }
    }

    fn down(&mut self, now: Timestamp) {
        self.counters.flaps += 1;
        let lasted = self.up_since.take().map(|since| now.since(since));
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            self.back_off = BACK_OFF.0;
        }
        // Ours has waited for as long as theirs was there.
        if self.ours().shown() == State::Active {
            let wait = self.random.jitter(self.back_off);
            self.machines[Slot::OURS.index()].retry_at(now.after(wait));
        }
        self.outputs.push_back(Output::Down);
    }
}

/// Random numbers for jitter (splitmix64): nobody has to be unable to guess them.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// From 0 to 255.
    fn fraction(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 56) as u8
    }

    /// Three quarters of a time to all of it (RFC 4271 §10).
    fn jitter(&mut self, time: Duration) -> Duration {
        jittered(time, self.fraction())
    }
}

fn jittered(time: Duration, fraction: u8) -> Duration {
    time * 3 / 4 + time / 4 * u32::from(fraction) / 255
}

#[cfg(test)]
mod tests;
