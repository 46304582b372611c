//! Whose a packet is, where several workers share the work.
//!
//! A flow belongs to one worker for its life. Under RSS that is the one whose queue its packets come
//! to, as far as the NIC sends all of them there; under RPS the workers themselves spread flows.

use super::Dataplane;
use crate::tables::{Ring, Tables};
use alloc::boxed::Box;
use core::net::IpAddr;
use lockstep_plan::Grouping;
use lockstep_wire::FlowKey;

/// How the packets of an engine are spread over its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// This worker.
    pub me: u8,
    /// The workers that process packets, one at least; a worker's place here is its share of what is
    /// divided.
    pub processing: Box<[u8]>,
    /// What decides.
    pub by: SpreadBy,
}

/// What decides which worker a flow belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SpreadBy {
    /// The queue that its packets come to (RSS).
    #[default]
    Queue,
    /// Its client's address and port (RPS).
    Flow,
}

impl Spread {
    /// One worker has everything.
    pub fn alone() -> Self {
        Spread {
            me: 0,
            processing: Box::new([0]),
            by: SpreadBy::Queue,
        }
    }

    /// Which share is this worker's; none where it only receives and sends.
    pub fn share(&self) -> Option<usize> {
        self.processing.iter().position(|&worker| worker == self.me)
    }

    /// The worker with that share, when it is another than this one.
    #[inline]
    pub fn other(&self, share: usize) -> Option<u8> {
        let owner = *self.processing.get(share)?;
        (owner != self.me).then_some(owner)
    }

    /// The share that a client's flows are in which come from this port. The same in every worker.
    #[inline]
    pub fn share_of(&self, client: IpAddr, port: u16) -> usize {
        spread(client, port, self.processing.len())
    }
}

/// How packets are spread, with what the tables in force say of it.
pub(super) struct Spreading {
    how: Spread,
    /// Whether a service keeps all connections of a client in one worker.
    groups: bool,
}

impl Spreading {
    /// These tables are in force from now on.
    pub(super) fn adopt(&mut self, tables: &Tables) {
        let groups = |ring: &Ring| {
            let policy = ring.replicate.as_ref();
            policy.is_some_and(|policy| policy.group == Grouping::Client)
        };
        self.groups = tables.rings().iter().any(groups);
    }
}

impl Default for Spreading {
    fn default() -> Self {
        Spreading {
            how: Spread::alone(),
            groups: false,
        }
    }
}

impl Dataplane {
    /// The same, where packets are spread over several workers.
    #[must_use]
    pub fn with_spread(mut self, spread: Spread) -> Self {
        self.spread.how = spread;
        self
    }

    /// How packets are spread over workers.
    pub fn spread(&self) -> &Spread {
        &self.spread.how
    }

    /// Whether frames may belong to other workers: under RPS; and where packets are rewritten by
    /// several workers, since NICs do not send an answer to the queue of what it answers.
    #[inline]
    pub fn has_other_owners(&self) -> bool {
        match self.spread.how.by {
            SpreadBy::Flow => true,
            SpreadBy::Queue => {
                self.spread.how.processing.len() > 1 && !self.tables.answers().is_empty()
            }
        }
    }

    /// The worker that a frame belongs to, when it is another than this one. To be asked where
    /// [`has_other_owners`](Self::has_other_owners), before the frame is processed, and not of
    /// frames that another worker has handed over.
    #[inline]
    pub fn owner(&self, frame: &[u8]) -> Option<u8> {
        let share = match &lockstep_wire::flow_of(frame) {
            Some(key) => self.share_of_flow(key),
            None => self.share_of_unusual(frame),
        };
        self.spread.how.other(share?)
    }

    /// The share that a flow is in; none where it belongs to the worker that its packets come to.
    #[inline]
    fn share_of_flow(&self, key: &FlowKey) -> Option<usize> {
        if !self.tables.answers().is_empty()
            && let Some(share) = self.rewritten_share(key)
        {
            return Some(share);
        }
        if self.spread.how.by == SpreadBy::Queue {
            return None;
        }
        let shares = self.spread.how.processing.len();
        // Looking for the VIP costs more than all the rest, and is seldom needed.
        let by_session = match self.spread.groups {
            true => session_share(&self.tables, key, shares),
            false => port_share(&self.tables, key, shares).unwrap_or(None),
        };
        Some(by_session.unwrap_or_else(|| {
            self.spread
                .how
                .share_of(key.source_address(), key.source_port())
        }))
    }

    /// The share of a packet that shows no flow itself. An ICMP error belongs to the flow that it
    /// quotes, in the direction of the client's packets. The later fragments of a datagram have no
    /// ports, so all fragments of a client belong together, wherever its flows are. Whoever processes
    /// may have the others.
    #[cold]
    fn share_of_unusual(&self, frame: &[u8]) -> Option<usize> {
        if let Ok((headers, _)) = lockstep_wire::parse_icmp_error(frame) {
            return self.share_of_flow(&headers.key);
        }
        if self.spread.how.by == SpreadBy::Queue {
            return None;
        }
        match lockstep_wire::parse_fragment(frame) {
            Ok(part) => Some(
                self.spread
                    .how
                    .share_of(part.headers.key.source_address(), 0),
            ),
            Err(_) => Some(self.spread.how.share().unwrap_or(0)),
        }
    }
}

impl Dataplane {
    /// The share of a packet that is rewritten, as far as it is not where the packet came: an
    /// answer's is that of its flow, by its client, or by the engine's port that it goes to; a
    /// client's packet has to go where the backend's answers will, and where the errors about those.
    fn rewritten_share(&self, key: &FlowKey) -> Option<usize> {
        let tables = &self.tables;
        let (source, source_port) = (key.source_address(), key.source_port());
        let (address, port) = (key.destination_address(), key.destination_port());
        if tables.answers().may_be(key)
            && tables.is_answer(source, source_port, key.protocol())
            // A backend can be a client of a VIP.
            && tables.vip(address, port, key.protocol()).is_none()
        {
            return match self.flows.nat.has(address) {
                true => {
                    let (share, shares) =
                        (self.spread.how.share(), self.spread.how.processing.len());
                    self.flows.nat.share_of(port, share.unwrap_or(0), shares)
                }
                false => Some(self.spread.how.share_of(address, port)),
            };
        }
        if self.spread.how.by == SpreadBy::Flow {
            return None;
        }
        let vip = tables.vip(address, port, key.protocol())?;
        let is_rewritten = tables.ring(vip).is_some_and(|ring| ring.mode.translates());
        is_rewritten.then(|| self.spread.how.share_of(source, source_port))
    }
}

/// The share of what belongs to a session, as far as the packet alone says it: an answer from a
/// replica by its local port, a packet of a client by its address where all connections of a client
/// are one group.
#[inline]
pub(crate) fn session_share(tables: &Tables, key: &FlowKey, shares: usize) -> Option<usize> {
    if let Some(share) = port_share(tables, key, shares) {
        return share;
    }
    let (address, port) = (key.destination_address(), key.destination_port());
    let vip = tables.vip(address, port, key.protocol())?;
    let policy = tables.ring(vip)?.replicate.as_ref()?;
    (policy.group == Grouping::Client).then(|| spread(key.source_address(), 0, shares))
}

/// The share that the local port is in which an answer from a replica goes to; none for other packets.
#[inline]
fn port_share(tables: &Tables, key: &FlowKey, shares: usize) -> Option<Option<usize>> {
    let (address, port) = (key.destination_address(), key.destination_port());
    let is_session = tables.is_session(address, port, key.protocol());
    is_session.then(|| tables.session_port_share(port, shares))
}

/// A number below `shares` for an address and a port.
#[inline]
fn spread(address: IpAddr, port: u16, shares: usize) -> usize {
    let word = match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ mixed(bits as u64)
        }
    };
    let hash = mixed(word.rotate_left(16) ^ u64::from(port));
    // A multiplication instead of a division. There are 255 workers at most.
    (((hash >> 32) * shares as u64) >> 32) as usize
}

/// The finalizer of MurmurHash3: every bit depends on every one.
#[inline]
const fn mixed(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests;
