//! One session: what a packet, the time and an operator do to it (RFC 5880 section 6.8).

use super::{Diagnostic, Flags, Packet, Settings, State};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// Nobody sends faster than this before a session is up (section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// One session. This object performs no I/O: the caller gives it packets, and asks it for one
/// whenever [`Machine::next_deadline`] has come.
#[derive(Debug, Clone)]
pub struct Machine {
    settings: Settings,
    mine: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// In force. Wishes that must wait for the end of a poll sequence stand in `settings`.
    transmit: Duration,
    /// What the neighbor's silence is measured by; see `transmit`.
    receive: Duration,
    poll: Poll,
    /// The last packet that was taken.
    heard: Option<Duration>,
    /// The last packet that was sent in its turn.
    sent: Option<Duration>,
    /// The share of the interval until the next one, in 1/65,536.
    share: u32,
    /// Something changed that the neighbor should not wait for.
    urgent: bool,
    /// How often it came up.
    ups: u64,
    /// When it entered its state.
    since: Duration,
}

/// What the neighbor's packets said (section 6.8.1).
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: u32,
    state: State,
    transmit: Duration,
    receive: Duration,
    multiplier: u8,
    demand: bool,
}

impl Remote {
    /// Nothing yet. The interval of one microsecond is section 6.8.1's.
    const UNKNOWN: Remote = Remote {
        discriminator: 0,
        state: State::Down,
        transmit: Duration::ZERO,
        receive: Duration::from_micros(1),
        multiplier: 0,
        demand: false,
    };
}

/// Whether the neighbor is asked to confirm new intervals (section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    No,
    Asked,
    /// They changed again since. The answer may be to the first ones: another question follows.
    AskedAndChanged,
}

impl Machine {
    /// A session that begins: `discriminator` is random, and no other session of ours has it.
    /// `random` spreads the first packets of sessions that begin together.
    pub fn new(settings: Settings, discriminator: NonZeroU32, now: Duration, random: u16) -> Self {
        let mut machine = Machine {
            settings,
            mine: discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNKNOWN,
            transmit: Duration::ZERO,
            receive: settings.receive,
            poll: Poll::No,
            heard: None,
            sent: None,
            share: 0,
            urgent: true,
            ups: 0,
            since: now,
        };
        machine.transmit = machine.wished();
        machine.draw(random);
        machine
    }

    /// The number that the neighbor calls it by.
    pub const fn discriminator(&self) -> NonZeroU32 {
        self.mine
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Where the neighbor says it stands.
    pub const fn remote_state(&self) -> State {
        self.remote.state
    }

    /// Why it was left last.
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// How often it came up.
    pub const fn ups(&self) -> u64 {
        self.ups
    }

    /// When it entered its state.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// The time between two packets of ours, before jitter (section 6.8.2).
    pub fn interval(&self) -> Duration {
        self.transmit.max(self.remote.receive)
    }

    /// The silence that means that the neighbor is dead; zero before its first packet (section
    /// 6.8.4).
    pub fn detection(&self) -> Duration {
        self.receive.max(self.remote.transmit) * u32::from(self.remote.multiplier)
    }

    /// Follows what the operator says now.
    pub fn configure(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.intervals_changed();
        }
    }

    /// Holds the session down, or lets it begin again. A neighbor that is told so takes it for no
    /// failure (section 6.8.16).
    pub fn administer(&mut self, now: Duration, up: bool) {
        match (self.state, up) {
            (State::AdminDown, true) => self.enter(now, State::Down, Diagnostic::None),
            (State::Down | State::Init | State::Up, false) => {
                self.enter(now, State::AdminDown, Diagnostic::AdministrativelyDown);
            }
            (State::AdminDown, false) | (State::Down | State::Init | State::Up, true) => {}
        }
    }

    /// Takes a packet that is for this session. Returns the answer where it wants one at once.
    pub fn receive(&mut self, now: Duration, packet: &Packet) -> Option<Packet> {
        // A number that is not this session's is another session's, or a guess (section 6.8.6).
        if packet.yours != 0 && packet.yours != self.mine.get() {
            return None;
        }
        self.remote = Remote {
            discriminator: packet.mine.get(),
            state: packet.state,
            transmit: Duration::from_micros(packet.transmit.into()),
            receive: Duration::from_micros(packet.receive.into()),
            multiplier: packet.multiplier.get(),
            demand: packet.flags.demand,
        };
        if packet.flags.last {
            self.poll_answered();
        }
        match next(self.state, packet.state) {
            Next::Discard => return None,
            Next::Stay => {}
            Next::Enter(state, diagnostic) => self.enter(now, state, diagnostic),
        }
        self.heard = Some(now);
        packet.flags.poll.then(|| self.packet(true))
    }

    /// The packet that is due, if one is, and whatever the time alone brings about. `random` is
    /// for the time until the next one.
    pub fn tick(&mut self, now: Duration, random: u16) -> Option<Packet> {
        if self.expires().is_some_and(|at| at <= now) {
            self.expire(now);
        }
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        self.urgent = false;
        self.sent = Some(now);
        self.draw(random);
        Some(self.packet(false))
    }

    /// When [`Machine::tick`] has something to do. `None`: not before a packet comes.
    pub fn next_deadline(&self) -> Option<Duration> {
        match (self.due(), self.expires()) {
            (Some(due), Some(expires)) => Some(due.min(expires)),
            (one, other) => one.or(other),
        }
    }

    /// When the neighbor counts as dead.
    fn expires(&self) -> Option<Duration> {
        self.heard.map(|at| at + self.detection())
    }

    fn expire(&mut self, now: Duration) {
        // Section 6.8.1: what is known of a neighbor that is gone is forgotten, also where the
        // session was down all along.
        self.heard = None;
        self.remote = Remote::UNKNOWN;
        self.poll = Poll::No;
        match self.state {
            State::Init | State::Up => {
                self.enter(now, State::Down, Diagnostic::DetectionTimeExpired)
            }
            State::AdminDown | State::Down => {}
        }
    }

    /// When the next packet is to be sent in its turn (section 6.8.7).
    fn due(&self) -> Option<Duration> {
        let silent = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::No;
        if silent || self.remote.receive.is_zero() {
            return None;
        }
        let Some(sent) = self.sent else {
            return Some(self.since);
        };
        if self.urgent {
            return Some(sent);
        }
        // No share is over 1, and 2^32 µs fit with 2^16 in 64 bits.
        let interval = self.interval().as_micros() as u64;
        Some(sent + Duration::from_micros((interval * u64::from(self.share)) >> 16))
    }

    /// Draws the share of the interval until the next packet: 75 to 100 % of it, 75 to 90 % where
    /// one packet decides, so that neighbors never fall into step (section 6.8.7).
    fn draw(&mut self, random: u16) {
        let span = match self.settings.multiplier {
            0 | 1 => 0x2666,
            _ => 0x4000,
        };
        self.share = 0xC000 + ((u32::from(random) * span) >> 16);
    }

    fn enter(&mut self, now: Duration, state: State, diagnostic: Diagnostic) {
        self.state = state;
        self.since = now;
        self.urgent = true;
        match state {
            // The reason stands until the next one (section 6.8.1 keeps it for the operator).
            State::Init => {}
            State::Up => {
                self.ups += 1;
                self.diagnostic = Diagnostic::None;
            }
            State::AdminDown | State::Down => self.diagnostic = diagnostic,
        }
        self.intervals_changed();
    }

    /// The interval to ask for in this state (section 6.8.3).
    fn wished(&self) -> Duration {
        match self.state {
            State::Up => self.settings.transmit,
            State::AdminDown | State::Down | State::Init => self.settings.transmit.max(SLOW),
        }
    }

    /// Brings new intervals into force, now or once the neighbor knows them (section 6.8.3): it
    /// measures our silence by the old ones until then.
    fn intervals_changed(&mut self) {
        let (transmit, receive) = (self.wished(), self.settings.receive);
        let (was_transmit, was_receive) = (self.transmit, self.receive);
        if self.state != State::Up || transmit < self.transmit {
            self.transmit = transmit;
        }
        if self.state != State::Up || receive > self.receive {
            self.receive = receive;
        }
        if (transmit, receive) == (was_transmit, was_receive) {
            return;
        }
        self.poll = match self.poll {
            // There is nobody to ask.
            _ if self.remote.discriminator == 0 => Poll::No,
            Poll::No => Poll::Asked,
            Poll::Asked | Poll::AskedAndChanged => Poll::AskedAndChanged,
        };
        self.urgent = true;
    }

    fn poll_answered(&mut self) {
        match self.poll {
            Poll::No => {}
            Poll::Asked => {
                self.poll = Poll::No;
                self.transmit = self.wished();
                self.receive = self.settings.receive;
            }
            Poll::AskedAndChanged => {
                self.poll = Poll::Asked;
                self.urgent = true;
            }
        }
    }

    /// What is sent now (section 6.8.7). An answer is never a question.
    fn packet(&self, answer: bool) -> Packet {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Packet {
            state: self.state,
            diagnostic: self.diagnostic,
            flags: Flags {
                poll: !answer && self.poll != Poll::No,
                last: answer,
                independent: false,
                demand: false,
            },
            multiplier: NonZeroU8::new(self.settings.multiplier).unwrap_or(NonZeroU8::MIN),
            mine: self.mine,
            yours: self.remote.discriminator,
            transmit: micros(self.wished()),
            receive: micros(self.settings.receive),
            echo: 0,
        }
    }
}

/// What a packet makes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is not even heard.
    Discard,
    Stay,
    Enter(State, Diagnostic),
}

/// The state machine (sections 6.2 and 6.8.6): our state, and the neighbor's as it says.
fn next(ours: State, theirs: State) -> Next {
    let signaled = Diagnostic::NeighborSignaledDown;
    match (ours, theirs) {
        (State::AdminDown, State::AdminDown | State::Down | State::Init | State::Up) => {
            Next::Discard
        }
        (State::Down, State::Down) => Next::Enter(State::Init, Diagnostic::None),
        (State::Down, State::Init) => Next::Enter(State::Up, Diagnostic::None),
        (State::Down, State::AdminDown | State::Up) => Next::Stay,
        (State::Init, State::Init | State::Up) => Next::Enter(State::Up, Diagnostic::None),
        (State::Init, State::AdminDown) => Next::Enter(State::Down, signaled),
        (State::Init, State::Down) => Next::Stay,
        (State::Up, State::AdminDown | State::Down) => Next::Enter(State::Down, signaled),
        (State::Up, State::Init | State::Up) => Next::Stay,
    }
}

#[cfg(test)]
mod tests;
