//! Bidirectional forwarding detection, single hop, asynchronous mode (RFC 5880, RFC 5881): two
//! neighbors send each other small packets many times a second, and each knows within a known time
//! that the other, or the way to it, is dead.
//!
//! No sockets, no clock, no randomness in here: packets, time and random numbers are arguments.
//! Time is what has passed since any fixed moment, by a clock that does not jump.
//!
//! Not there: authentication, echo and demand mode of our own. A neighbor's wish for demand mode is
//! followed (RFC 5880 section 6.6), its echo packets are not looped (we say so in every packet).

use crate::drains::Timestamp;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

mod machine;
mod packet;

pub use machine::Machine;
pub use packet::{Flags, Packet, PacketError};

/// What an operator says about the session with a neighbor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The address to speak from; by the host's routes where there is none.
    pub local: Option<IpAddr>,
    /// We would like to send a packet this often.
    pub transmit: Duration,
    /// We can take a packet this often.
    pub receive: Duration,
    /// This many missing packets mean that we are dead; at least one.
    pub multiplier: u8,
}

impl Default for Settings {
    /// Dead after 900 ms: what most routers are shipped with.
    fn default() -> Self {
        Settings {
            local: None,
            transmit: Duration::from_millis(300),
            receive: Duration::from_millis(300),
            multiplier: 3,
        }
    }
}

/// What state a session is in (RFC 5880 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Held down by an operator. No sign of a failure.
    AdminDown,
    /// Nothing is heard, or not enough yet.
    Down,
    /// The neighbor is heard, and does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    /// Every state, by number.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::AdminDown => "admin down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        })
    }
}

/// Why a session was left last (RFC 5880 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Diagnostic {
    /// It never was.
    #[default]
    None,
    /// No packet came for the detection time.
    DetectionTimeExpired,
    /// The neighbor said that the session is down.
    NeighborSignaledDown,
    /// An operator wanted it so.
    AdministrativelyDown,
    /// One that we never give: echo failed, path down and the like.
    Other(u8),
}

impl Diagnostic {
    /// Its number on the wire, five bits.
    pub const fn code(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::NeighborSignaledDown => 3,
            Diagnostic::AdministrativelyDown => 7,
            Diagnostic::Other(code) => code & 0x1f,
        }
    }

    /// What a number on the wire means.
    pub const fn from_code(code: u8) -> Self {
        match code & 0x1f {
            0 => Diagnostic::None,
            1 => Diagnostic::DetectionTimeExpired,
            3 => Diagnostic::NeighborSignaledDown,
            7 => Diagnostic::AdministrativelyDown,
            other => Diagnostic::Other(other),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnostic::None => f.write_str("none"),
            Diagnostic::DetectionTimeExpired => f.write_str("nothing heard in time"),
            Diagnostic::NeighborSignaledDown => f.write_str("the neighbor said down"),
            Diagnostic::AdministrativelyDown => f.write_str("taken down by an operator"),
            Diagnostic::Other(2) => f.write_str("echo failed"),
            Diagnostic::Other(4) => f.write_str("forwarding plane reset"),
            Diagnostic::Other(5) => f.write_str("path down"),
            Diagnostic::Other(6) => f.write_str("concatenated path down"),
            Diagnostic::Other(8) => f.write_str("reverse concatenated path down"),
            Diagnostic::Other(code) => write!(f, "diagnostic {code}"),
        }
    }
}

/// A session as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Where it stands.
    pub state: State,
    /// Where the neighbor says it stands.
    pub remote: State,
    /// Why it was left last, as we see it.
    pub diagnostic: Diagnostic,
    /// Since when it is in its state.
    pub since: Timestamp,
    /// We send this often.
    pub transmit: Duration,
    /// Silence for so long means dead; zero before the first packet.
    pub detection: Duration,
    /// How often it came up.
    pub ups: u64,
}
