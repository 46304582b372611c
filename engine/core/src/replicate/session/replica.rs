//! A replica of a session: where it reads and writes, and whether it counts.

use super::Candidate;
use crate::Micros;
use crate::replicate::chain::Hash;
use crate::replicate::event::EvictCause;
use crate::replicate::mask::{Masker, Masks};
use alloc::sync::Arc;
use core::time::Duration;

/// The first wait before an evicted replica is tried again.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// The longest one.
pub(super) const LAST_BACKOFF: Duration = Duration::from_secs(30);

/// Whether a replica counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// It is being connected to, or fed the log from the start.
    Joining,
    /// It may become primary, and holds the client up when it is slow.
    InSync,
    /// It is fed what is still kept, and holds up nobody.
    Lagging,
    /// It is out, until it is tried again.
    Evicted(EvictCause),
}

/// The hash of an output that is behind what the client was sent.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub hash: Hash,
    pub masker: Masker,
}

impl Running {
    /// At the start of a stream.
    pub fn new(seed: u64, masks: &Arc<Masks>) -> Self {
        Running {
            hash: Hash::new(seed),
            masker: Masker::new(Arc::clone(masks)),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.masker.hash(bytes, &mut self.hash);
    }
}

/// What is known of a difference between a replica's output and the client's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where it was noticed.
    pub offset: u64,
    /// Whether it was counted already.
    pub counted: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Replica {
    pub candidate: Candidate,
    /// The service no longer has it.
    pub removed: bool,
    pub state: ReplicaState,
    /// Since when it has that state.
    pub since: Micros,
    /// Whether it has a leg, or was asked to get one.
    pub connected: bool,
    /// When it was.
    pub connected_at: Micros,
    /// Whether the handshake was completed.
    pub accepted: bool,
    /// Whether this is, or will be, the connection it began the session with.
    pub first: bool,
    /// How often its group had evicted it when that was looked at last.
    pub generation: u32,
    /// Since when it has reset this connection of a group, and is not known to have died.
    pub reset_at: Option<Micros>,
    /// Whether it has reset a connection of the group, and may have died.
    pub doubted: bool,
    /// How long the handshake took.
    pub handshake: Option<Duration>,
    /// Input bytes given to it.
    pub fed: u64,
    /// Whether it was given the client's FIN.
    pub finished: bool,
    /// Output bytes consumed: at most what the client was sent, until that is complete.
    pub out: u64,
    /// Output bytes received: those, and what is unread in its leg.
    pub position: u64,
    /// Whether it has sent its FIN, and all before it was consumed.
    pub ended: bool,
    /// Since when it votes for the end of the stream where the client stands.
    pub ended_at: Option<Micros>,
    /// While its output is behind what the client was sent, and compared.
    pub running: Option<Running>,
    /// Output that is known to be what the client was sent.
    pub verified: u64,
    /// What the client had been sent when it was connected: a joining replica is checked past here.
    pub target: u64,
    pub differs: Option<Difference>,
    /// The client's stream has become that of replicas like this one: where it meets the committed
    /// offset, it is as good as any.
    pub forgiven: bool,
    /// When it last took or gave a byte.
    pub moved_at: Micros,
    /// When it is tried again.
    pub retry_at: Micros,
    pub backoff: Duration,
}

impl Replica {
    pub fn new(candidate: Candidate, now: Micros) -> Self {
        Replica {
            candidate,
            removed: false,
            state: ReplicaState::Joining,
            since: now,
            connected: false,
            connected_at: now,
            accepted: false,
            first: true,
            generation: 0,
            reset_at: None,
            doubted: false,
            handshake: None,
            fed: 0,
            finished: false,
            out: 0,
            position: 0,
            ended: false,
            ended_at: None,
            running: None,
            verified: 0,
            target: 0,
            differs: None,
            forgiven: false,
            moved_at: now,
            retry_at: now,
            backoff: FIRST_BACKOFF,
        }
    }

    pub fn set(&mut self, state: ReplicaState, now: Micros) {
        self.state = state;
        self.since = now;
    }

    pub fn is_in_sync(&self) -> bool {
        self.state == ReplicaState::InSync
    }

    /// Whether bytes go to and come from it.
    pub fn is_live(&self) -> bool {
        self.connected && self.accepted && !matches!(self.state, ReplicaState::Evicted(_))
    }

    /// Whether its output ends where the client's does, and is the same.
    pub fn is_level(&self, committed: u64) -> bool {
        self.out == committed && self.running.is_none()
    }

    /// In sync, and as far as is known its output is what the client was sent.
    pub fn agrees(&self) -> bool {
        self.is_in_sync() && self.differs.is_none()
    }

    /// Whether its service still wants it in sessions to come.
    pub fn is_wanted(&self) -> bool {
        !self.removed && !self.candidate.draining && !self.candidate.down
    }

    /// Its round trip: the daemon's measurement, refined by the handshake.
    pub fn rtt(&self) -> Duration {
        match (self.candidate.rtt, self.handshake) {
            (Some(measured), Some(handshake)) => (measured + handshake) / 2,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Duration::MAX,
        }
    }

    /// Begins a new connection: everything from the start.
    pub fn connect(&mut self, now: Micros, committed: u64) {
        self.set(ReplicaState::Joining, now);
        self.connected = true;
        self.connected_at = now;
        self.moved_at = now;
        self.accepted = false;
        self.reset_at = None;
        self.fed = 0;
        self.finished = false;
        self.out = 0;
        self.position = 0;
        self.ended = false;
        self.running = None;
        self.verified = 0;
        self.target = committed;
        self.differs = None;
        self.forgiven = false;
    }

    /// Sets when it is tried again: later each time, unless it has been of use for a while.
    pub fn back_off(&mut self, now: Micros) {
        let of_use = matches!(self.state, ReplicaState::InSync | ReplicaState::Lagging);
        if of_use && now.since(self.since) >= LAST_BACKOFF {
            self.backoff = FIRST_BACKOFF;
        }
        self.retry_at = now + self.backoff;
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
    }
}
