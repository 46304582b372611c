//! One next hop: an address on a link, whose MAC address the kernel finds out.
//!
//! The kernel sees none of the workers' traffic, so it neither resolves a neighbor for it nor
//! notices that one is in use or gone. A [`HopEntry`] says when to tell it (`NTF_USE`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The first wait for a neighbor that does not answer, doubled each time.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the kernel is told of an unconfirmed neighbor that it is still in use. The kernel
/// forgets one after `gc_stale_time` (60 s).
pub(super) const REFRESH: Duration = Duration::from_secs(25);
/// The least time between two such notices, should an entry turn stale all the time.
pub(super) const REFRESH_GAP: Duration = Duration::from_secs(1);

/// A next hop's key: a neighbor's address counts on its link only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hop {
    pub(super) ifindex: u32,
    pub(super) address: IpAddr,
}

/// The kernel's states of a neighbor, by the names of `NUD_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Nud {
    None,
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    NoArp,
    Permanent,
}

/// What the kernel says of a neighbor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) state: Nud,
    pub(super) mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// The address that frames may be sent to. One under verification (DELAY, PROBE) counts, as
    /// it does for the kernel's own traffic (RFC 4861, section 7.3.3).
    pub(super) const fn usable(self) -> Option<[u8; 6]> {
        match self.state {
            Nud::Reachable | Nud::Stale | Nud::Delay | Nud::Probe | Nud::NoArp | Nud::Permanent => {
                self.mac
            }
            Nud::None | Nud::Incomplete | Nud::Failed => None,
        }
    }
}

/// What a neighbor in some state needs from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// The kernel will say when something changes.
    Leave,
    /// The kernel is verifying the address; look after it should that take long.
    Watch,
    /// Nobody confirms the address: have the kernel do so.
    Refresh,
    /// There is no address: have the kernel find it.
    Resolve,
}

const fn care(neighbour: Option<Neighbour>) -> Care {
    let Some(neighbour) = neighbour else {
        return Care::Resolve;
    };
    match neighbour.state {
        Nud::None | Nud::Incomplete | Nud::Failed => Care::Resolve,
        Nud::Stale => Care::Refresh,
        Nud::Delay | Nud::Probe => Care::Watch,
        // Least of all PERMANENT: NTF_USE takes that mark from an entry and resolves it anew
        // (Linux since 5.16), so that the operator's setting would be lost.
        Nud::Reachable | Nud::NoArp | Nud::Permanent => Care::Leave,
    }
}

/// What to ask the kernel about a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// What it knows.
    Look,
    /// To resolve or verify the neighbor.
    Use,
}

/// What is known of a hop, and when to ask again.
#[derive(Debug)]
pub(super) struct HopEntry {
    /// The followed addresses that it leads to.
    pub(super) users: BTreeSet<IpAddr>,
    /// False until the kernel has been asked: "not known" is not "not there".
    pub(super) looked: bool,
    pub(super) neighbour: Option<Neighbour>,
    /// When to ask what; the state's timers hold the same time.
    pub(super) due: Option<(Instant, Ask)>,
    attempts: u32,
    used_at: Option<Instant>,
}

impl HopEntry {
    /// A hop that nothing is known of: to be looked at once.
    pub(super) fn new(now: Instant) -> Self {
        HopEntry {
            users: BTreeSet::new(),
            looked: false,
            neighbour: None,
            due: Some((now, Ask::Look)),
            attempts: 0,
            used_at: None,
        }
    }

    /// Takes what the kernel says of the neighbor. True when the usable address is another, or
    /// known for the first time not to be there.
    pub(super) fn update(&mut self, now: Instant, neighbour: Option<Neighbour>) -> bool {
        let first = !self.looked;
        let before = (care(self.neighbour), self.mac());
        self.looked = true;
        self.neighbour = neighbour;
        match (before.0, care(neighbour)) {
            // The back-off runs on, whether the kernel failed again or forgot the entry.
            (Care::Resolve, Care::Resolve) if !first => {
                self.due = Some((self.due.map_or(now, |(at, _)| at), Ask::Use));
            }
            (_, Care::Resolve) => {
                self.attempts = 0;
                self.due = Some((now, Ask::Use));
            }
            (_, Care::Refresh) => {
                let earliest = self.used_at.map_or(now, |at| at + REFRESH_GAP);
                self.due = Some((earliest.max(now), Ask::Use));
            }
            (_, Care::Watch) => self.due = Some((now + REFRESH, Ask::Use)),
            (_, Care::Leave) => self.due = None,
        }
        first || before.1 != self.mac()
    }

    /// The kernel is being told of the hop's use now: when to do so again, unless it says that
    /// there is no need.
    pub(super) fn used(&mut self, now: Instant) {
        self.used_at = Some(now);
        let wait = match care(self.neighbour) {
            Care::Resolve => {
                let wait = RETRY_FIRST * 2u32.pow(self.attempts.min(5));
                self.attempts = self.attempts.saturating_add(1);
                wait.min(RETRY_MAX)
            }
            Care::Refresh | Care::Watch | Care::Leave => REFRESH,
        };
        self.due = Some((now + wait, Ask::Use));
    }

    /// The address to send to.
    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        self.neighbour.and_then(Neighbour::usable)
    }
}

#[cfg(test)]
mod tests;
