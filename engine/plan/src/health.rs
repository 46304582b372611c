//! What the daemon knows of a replica by asking it: whether it answers, and how fast.

use core::time::Duration;

/// Whether a backend answers the daemon's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verdict {
    /// It was not asked (yet).
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It has stopped answering.
    Down,
}

impl Verdict {
    /// The verdict's name in commands' output.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Unknown => "unknown",
            Verdict::Up => "up",
            Verdict::Down => "down",
        }
    }
}

/// A backend's health as the daemon sees it. Only replicas are asked: a tunnel's are
/// [`Health::UNKNOWN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Health {
    /// Whether it answers.
    pub verdict: Verdict,
    /// How long its answers take: what the first primary of a session is chosen by.
    pub rtt: Option<Duration>,
}

impl Health {
    /// That of a backend that was not asked.
    pub const UNKNOWN: Health = Health {
        verdict: Verdict::Unknown,
        rtt: None,
    };
}
