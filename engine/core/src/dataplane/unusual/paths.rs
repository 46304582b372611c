//! MTUs on the way to backends that are less than that of the first link.

use crate::tables::{Delivery, Hop};
use crate::time::Seconds;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::DropReason;
use lockstep_wire::Headers;

/// Ways that are remembered; another one takes the place of the oldest.
const PATHS: usize = 64;
/// Seconds after which a way is tried again with what its link takes (RFC 1191 section 6.3).
const REMEMBERED: u32 = 600;
/// The longest headers of a tunnel: IPv6 and UDP.
pub(super) const MOST_HEADERS: u16 = 48;

/// The ways whose MTU is known to be less than that of their first link.
pub(in crate::dataplane) struct PathMtus {
    paths: Vec<PathMtu>,
    watch: u16,
}

#[derive(Debug, Clone, Copy)]
struct PathMtu {
    end: IpAddr,
    mtu: u16,
    learned: Seconds,
}

impl PathMtus {
    pub(super) fn new() -> Self {
        PathMtus {
            paths: Vec::with_capacity(PATHS),
            watch: u16::MAX,
        }
    }

    /// The length of packets up to which none of the ways needs to be looked at: one comparison
    /// is all that this costs the others.
    #[inline]
    pub(in crate::dataplane) fn watch(&self) -> u16 {
        self.watch
    }

    /// Whether a packet longer than that fits the way to its backend nevertheless.
    #[cold]
    #[inline(never)]
    pub(in crate::dataplane) fn admit(
        &self,
        hop: &Hop,
        headers: &Headers,
    ) -> Result<(), DropReason> {
        match self.mtu(hop) {
            Some(mtu) if headers.length > mtu => Err(DropReason::TooBig),
            Some(_) | None => Ok(()),
        }
    }

    /// The longest packet of a client that fits the way to a backend.
    pub(super) fn mtu(&self, hop: &Hop) -> Option<u16> {
        let first = hop.route.ok()?.mtu;
        match &hop.delivery {
            Delivery::Tunnel(outer) => {
                let (_, end) = outer.addresses();
                let path = self.paths.iter().find(|path| path.end == end);
                let mtu = path.map_or(first, |path| path.mtu.min(first));
                mtu.checked_sub(outer.len())
            }
            Delivery::Nat(_) | Delivery::FullNat(_) => Some(first),
            Delivery::Session => None,
        }
    }

    /// Remembers the MTU of the way to a tunnel's end.
    pub(super) fn learn(&mut self, end: IpAddr, mtu: u16, now: Seconds) {
        let learned = PathMtu {
            end,
            mtu,
            learned: now,
        };
        if let Some(known) = self.paths.iter_mut().find(|path| path.end == end) {
            // What is longer is heard of again once this is forgotten.
            known.mtu = known.mtu.min(mtu);
            known.learned = now;
        } else if self.paths.len() < PATHS {
            self.paths.push(learned);
        } else if let Some(oldest) = self
            .paths
            .iter_mut()
            .max_by_key(|path| now.since(path.learned))
        {
            *oldest = learned;
        }
        self.watch_least();
    }

    /// Forgets what is old.
    pub(super) fn tick(&mut self, now: Seconds) {
        let before = self.paths.len();
        self.paths
            .retain(|path| now.since(path.learned) < REMEMBERED);
        if self.paths.len() != before {
            self.watch_least();
        }
    }

    fn watch_least(&mut self) {
        let least = self.paths.iter().map(|path| path.mtu).min();
        self.watch = least.map_or(u16::MAX, |mtu| mtu.saturating_sub(MOST_HEADERS));
    }
}
