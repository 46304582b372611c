//! Replicated TCP sessions: what a service with `mode = "replicate"` asks for.
//!
//! Every limit of a session is here, with its default. What is taken at the engine's start (the
//! number of sessions, their buffers, the ports) is in `topology.toml` instead.

use crate::mask::Mask;
use alloc::vec::Vec;
use core::num::NonZeroU8;
use core::time::Duration;

/// Whose bytes the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Commit {
    /// The primary's, as they come; those of the others are compared behind it.
    Primary,
    /// A byte goes out when this many replicas in sync have produced the same one.
    Quorum(NonZeroU8),
}

/// What follows when a replica's output differs from what the client was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Divergence {
    /// Nothing: outputs are not compared.
    Ignore,
    /// A counter and an event; the replica goes on.
    Count,
    /// The minority is evicted.
    Evict,
    /// The session is reset.
    Reset,
}

/// Which connections are one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// Each is one of its own.
    Connection,
    /// All of one client address to one service (control and data connections of iperf3, FTP,
    /// SIP): events reach every replica in an order that the client could have caused.
    Client,
}

/// The policy of replicated sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicate {
    /// Whose bytes the client gets.
    pub commit: Commit,
    /// Replicas that must have accepted before the client is answered; a session with fewer in
    /// sync is unprotected. At least the quorum.
    pub min_sync: NonZeroU8,
    /// How long the client's SYN waits for `min_sync` replicas.
    pub open_timeout: Duration,
    /// How long a replica may be ahead of a primary that gives nothing, before it becomes primary.
    pub stall_timeout: Duration,
    /// How long a replica may leave what was sent to it unacknowledged.
    pub dead_after: Duration,
    /// How long replicas may disagree about the end of the stream.
    pub fin_timeout: Duration,
    /// How long a session without any replica waits for one.
    pub orphan_timeout: Duration,
    /// Bytes of input that a replica in sync may be behind.
    pub max_lag: u32,
    /// How long the client is slowed down for a replica past `max_lag`, before that one is lagging.
    pub grace: Duration,
    /// How long a replica may be lagging before it is evicted.
    pub lag_timeout: Duration,
    /// What follows a difference.
    pub divergence: Divergence,
    /// What is left out of comparisons.
    pub masks: Vec<Mask>,
    /// Which connections are one session.
    pub group: Grouping,
    /// Whether each replica first gets the client's address in a PROXY protocol v2 header.
    pub proxy_protocol: bool,
    /// Whether replicas that come back, or are new, are fed the log of running sessions.
    pub rejoin: bool,
    /// Bytes of input kept in memory for each session.
    pub log_memory: u32,
    /// Bytes of input kept in files for each session, where the engine has a place for them.
    pub log_disk: u64,
    /// Silence after which the client and the replicas are probed (TCP keep-alive).
    pub keepalive: Duration,
    /// Silence, probes unanswered, after which a client counts as gone.
    pub client_timeout: Duration,
}

impl Replicate {
    /// The defaults, as documented for `services.toml`.
    pub const DEFAULT: Replicate = Replicate {
        commit: Commit::Primary,
        min_sync: NonZeroU8::MIN,
        open_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_millis(20),
        dead_after: Duration::from_secs(3),
        fin_timeout: Duration::from_secs(1),
        orphan_timeout: Duration::from_secs(10),
        max_lag: 1 << 20,
        grace: Duration::from_millis(200),
        lag_timeout: Duration::from_secs(60),
        divergence: Divergence::Count,
        masks: Vec::new(),
        group: Grouping::Connection,
        proxy_protocol: false,
        rejoin: true,
        log_memory: 1 << 20,
        log_disk: 64 << 20,
        keepalive: Duration::from_secs(15),
        client_timeout: Duration::from_secs(60),
    };

    /// The backends without which a service under this policy can serve nobody.
    pub fn needed(&self) -> u8 {
        self.quorum().max(self.min_sync.get())
    }

    /// The replicas that must agree before a byte goes out.
    pub const fn quorum(&self) -> u8 {
        match self.commit {
            Commit::Primary => 1,
            Commit::Quorum(k) => k.get(),
        }
    }
}

impl Default for Replicate {
    fn default() -> Self {
        Self::DEFAULT
    }
}
