//! All sessions of a worker: packets in, packets out, and the machine of each session between.
//!
//! [`Replicator::receive`] takes a packet to its connection, [`Replicator::poll`] then drives every
//! session that got one and sends what there is to send: so a burst costs one pass over a session
//! and one acknowledgment on each of its connections. [`Replicator::tick`] does the same for those
//! whose time has come.

mod admit;
mod events;
mod flows;
mod groups;
mod proxy;
mod random;
mod report;
mod serve;

pub use events::{EventQueue, SessionEvent};
pub use report::{SessionDetails, SwitchoverError};

use super::chunks::ChunkPool;
use super::counters::ReplicateCounters;
use super::event::SessionId;
use super::session::{Action, Session, SessionState};
use super::spill::{SpillQueue, SpillReply};
use super::stack::cookie::Cookies;
use super::stack::pool::Pool;
use super::stack::ports::Ports;
use super::stack::segment::Segment;
use super::stack::time_wait::{Late, TimeWait};
use super::stack::wheel::Wheel;
use super::stack::{Connection, Scratch, Transmit, Way};
use crate::Micros;
use crate::dataplane::{Spread, reason, session_share};
use crate::tables::{BackendRef, EngineAddresses, PortId, Tables, VipRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use flows::Flows;
use groups::{GroupPlace, Groups};
use lockstep_plan::DropReason;
use lockstep_wire::{FlowKey, LinkHeader, protocol};
use random::Random;

/// Sessions whose client has not acknowledged the SYN-ACK yet, at most; past that SYNs are answered
/// with cookies.
pub const HALF_OPEN: usize = 256;

/// Events that wait in the worker at most.
const EVENT_QUEUE: usize = 1_024;
/// Sessions that one tick looks at for their timers, and as many for new tables.
const TICK: usize = 512;

/// The sizes of a replicator, fixed for its life.
#[derive(Debug, Clone)]
pub struct ReplicatorConfig {
    /// This worker, and those that hold sessions; their port ranges are of one size, one behind the
    /// other.
    pub spread: Spread,
    /// This worker's local ports for connections to replicas.
    pub ports: RangeInclusive<u16>,
    /// Sessions at most.
    pub sessions: usize,
    /// Connections to replicas at most.
    pub connections: usize,
    /// Bytes of a client connection's receive buffer, and of its send buffer.
    pub client_buffer: usize,
    /// Likewise of a connection to a replica.
    pub replica_buffer: usize,
    /// Bytes that all input logs may take in memory.
    pub log_memory: usize,
    /// The longest IP packet each interface takes, by [`PortId`].
    pub mtus: Vec<u16>,
    /// The engine's addresses: where connections to replicas come from.
    pub addresses: EngineAddresses,
    /// Random and secret: sequence numbers, cookies and hashes come from it.
    pub seed: [u64; 2],
}

/// A session with its connections.
struct Served {
    session: Session,
    /// The flow of the client's packets.
    key: FlowKey,
    client: Box<Connection>,
    /// The way of the client's last packet, back.
    way: Way,
    vip: VipRef,
    legs: Vec<Option<Box<Connection>>>,
    /// Where each leg goes from and to.
    ends: Vec<Option<LegEnds>>,
    /// The group it belongs to, where connections are grouped.
    group: Option<GroupPlace>,
    /// Counted as half-open.
    half_open: bool,
    /// The state it is counted under.
    state: SessionState,
    /// In the list of those to be served.
    dirty: bool,
}

/// Both ends of a connection to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LegEnds {
    local: SocketAddr,
    remote: SocketAddr,
    /// The flow of the replica's packets.
    key: FlowKey,
    backend: BackendRef,
}

/// A worker's sessions.
pub struct Replicator {
    config: ReplicatorConfig,
    sessions: Box<[Option<Box<Served>>]>,
    /// Places in `sessions` that are free.
    places: Vec<u32>,
    /// Closed connections for clients, and for replicas.
    clients: Pool,
    replicas: Pool,
    flows: Flows,
    groups: Groups,
    ports: Ports,
    wheel: Wheel,
    time_wait: TimeWait,
    cookies: Cookies,
    /// When a cookie was last sent.
    last_cookie: Option<Micros>,
    half_open: usize,
    /// Sessions to be served in the next poll.
    dirty: Vec<u32>,
    /// Those being served, while they are.
    serving: Vec<u32>,
    /// Some were marked for what happened to others of their group.
    regrouped: bool,
    shared: Shared,
    /// The next session that has to see new tables.
    adopting: Option<u32>,
    next_number: u64,
    random: Random,
    /// RSTs that may still be sent in this tick.
    resets: u32,
    last_tick: Micros,
}

/// What serving a session takes beside the session.
struct Shared {
    pool: ChunkPool,
    spill: SpillQueue,
    events: EventQueue,
    counters: Arc<ReplicateCounters>,
    actions: Vec<Action>,
    scratch: Scratch,
}

/// How often a poll goes over sessions that others of their group have set in motion.
const ROUNDS: usize = 4;

/// RSTs for packets of no session, in each millisecond.
const RESETS_PER_TICK: u32 = 2;

impl Replicator {
    /// A replicator without sessions. All its memory is taken here, most of it untouched until it
    /// is used.
    pub fn new(config: ReplicatorConfig) -> Self {
        let mut random = Random::new(config.seed);
        let count = config.sessions;
        let clients = Pool::new(count, config.client_buffer);
        let replicas = Pool::new(config.connections, config.replica_buffer);
        Replicator {
            sessions: (0..count).map(|_| None).collect(),
            places: (0..count as u32).rev().collect(),
            clients,
            replicas,
            flows: Flows::new(count, random.next()),
            groups: Groups::new([random.next(), random.next()]),
            ports: Ports::new(config.ports.clone()),
            wheel: Wheel::new(count),
            time_wait: TimeWait::new(count * 4, random.next()),
            cookies: Cookies::new([random.next(), random.next()]),
            last_cookie: None,
            half_open: 0,
            dirty: Vec::with_capacity(count),
            serving: Vec::with_capacity(count),
            regrouped: false,
            shared: Shared {
                pool: ChunkPool::new(config.log_memory),
                spill: SpillQueue::new(0),
                events: EventQueue::new(EVENT_QUEUE),
                counters: Arc::new(ReplicateCounters::default()),
                actions: Vec::with_capacity(256),
                scratch: Scratch::new(),
            },
            adopting: None,
            next_number: 1,
            random,
            resets: RESETS_PER_TICK,
            last_tick: Micros::ZERO,
            config,
        }
    }

    /// The same with somebody who writes to files, and so many requests to them that may wait.
    /// Without, what has no room in memory is cut.
    #[must_use]
    pub fn with_spill(mut self, requests: usize) -> Self {
        self.shared.spill = SpillQueue::new(requests);
        self
    }

    /// Takes a packet in, and answers at most by one packet. What else there is to send goes with
    /// the next [`Replicator::poll`].
    pub fn receive(
        &mut self,
        now: Micros,
        tables: &Tables,
        port: PortId,
        frame: &mut [u8],
        out: &mut impl Transmit,
    ) -> Result<(), DropReason> {
        let headers = lockstep_wire::parse(frame).map_err(reason)?;
        if headers.key.protocol() != protocol::TCP {
            return Err(DropReason::NoSession);
        }
        let way = way_back(port, &headers, frame);
        let network = usize::from(headers.network);
        // The parser has seen that it is all there.
        let packet = frame
            .get_mut(network..network + usize::from(headers.length))
            .ok_or(DropReason::Truncated)?;
        let segment = Segment::read(&headers, packet).ok_or(DropReason::BadTransportChecksum)?;
        if tables.is_engine_address(segment.key.destination_address())
            && self.receive_from_replica(now, &segment, packet, out)
        {
            return Ok(());
        }
        if let Some(place) = self.flows.find(&segment.key) {
            let served = self.sessions[place as usize].as_mut();
            let served = served.ok_or(DropReason::NoSession)?;
            // Whoever merely knows the addresses must not have the answers.
            if served.way != way && served.client.is_plausible(&segment) {
                served.way = way;
            }
            served.client.set_way(served.way);
            let scratch = &mut self.shared.scratch;
            served.client.receive(now, &segment, packet, out, scratch);
            self.mark(place);
            return Ok(());
        }
        match self.time_wait.receive(&segment, out) {
            Late::Settled => Ok(()),
            Late::Unknown | Late::Opens => self.admit(now, tables, &segment, packet, way, out),
        }
    }

    /// True when the segment is of one of our connections to replicas.
    fn receive_from_replica(
        &mut self,
        now: Micros,
        segment: &Segment,
        packet: &mut [u8],
        out: &mut impl Transmit,
    ) -> bool {
        let Some(owner) = self.ports.owner(segment.key.destination_port()) else {
            return false;
        };
        let Some(served) = &mut self.sessions[owner.session as usize] else {
            return false;
        };
        let replica = usize::from(owner.replica);
        let ends = served.ends.get(replica).copied().flatten();
        let Some(leg) = served.legs.get_mut(replica).and_then(Option::as_mut) else {
            return false;
        };
        if ends.is_none_or(|ends| ends.key != segment.key) {
            return false;
        }
        leg.receive(now, segment, packet, out, &mut self.shared.scratch);
        self.mark(owner.session);
        true
    }

    /// The worker that a frame belongs to, when it is another than this one: the one with its
    /// local port, or, where all connections of a client are one group, the client's.
    pub fn owner(&self, tables: &Tables, frame: &[u8]) -> Option<u8> {
        let shares = self.config.spread.processing.len();
        if shares <= 1 {
            return None;
        }
        let key = lockstep_wire::parse(frame).ok()?.key;
        let share = session_share(tables, &key, shares)?;
        self.config.spread.other(share)
    }

    /// Drives the sessions that got packets, and sends. To be called after every burst.
    pub fn poll(&mut self, now: Micros, tables: &Tables, out: &mut impl Transmit) {
        for _ in 0..ROUNDS {
            self.regrouped = false;
            core::mem::swap(&mut self.dirty, &mut self.serving);
            let mut serving = core::mem::take(&mut self.serving);
            for place in serving.drain(..) {
                self.serve(now, tables, place, out);
            }
            self.serving = serving;
            if !self.regrouped {
                break;
            }
        }
    }

    /// Sees to timers, to new tables and to what has waited long enough. To be called every
    /// millisecond.
    pub fn tick(&mut self, now: Micros, tables: &Tables, out: &mut impl Transmit) {
        if now.since(self.last_tick) >= core::time::Duration::from_millis(1) {
            self.last_tick = now;
            self.resets = RESETS_PER_TICK;
        }
        for _ in 0..TICK {
            let Some(place) = self.wheel.expired(now) else {
                break;
            };
            if let Some(served) = &mut self.sessions[place as usize] {
                served.wake(now);
                self.mark(place);
            }
        }
        self.adopt_some(now, tables, out);
        self.time_wait.expire(now);
        self.poll(now, tables, out);
        self.publish();
    }

    /// New tables are in force: every session sees them within the next ticks.
    pub fn adopt(&mut self) {
        self.adopting = Some(0);
    }

    /// When [`Replicator::tick`] has to be called, if no packet comes before; `None` when there is
    /// nothing to wait for.
    pub fn next_deadline(&self) -> Option<Micros> {
        if !self.dirty.is_empty() || self.adopting.is_some() {
            return Some(Micros::ZERO);
        }
        self.wheel.next()
    }

    /// Requests for the thread that owns the files.
    pub fn spill_queue(&mut self) -> &mut SpillQueue {
        &mut self.shared.spill
    }

    /// Takes an answer of that thread.
    pub fn spilled(&mut self, reply: SpillReply) {
        let place = self.place(reply.session());
        let served = place.and_then(|at| self.sessions[at as usize].as_mut().map(|s| (at, s)));
        let Some((place, served)) = served else {
            self.shared.pool.put(reply.into_chunk());
            return;
        };
        let group = self.groups.get(served.group);
        let mut resources = self.shared.resources(group);
        served.session.spilled(reply, &mut resources);
        self.mark(place);
    }

    /// What has happened, for whoever listens.
    pub fn events(&mut self) -> &mut EventQueue {
        &mut self.shared.events
    }

    /// The counters, for whoever reads them.
    pub fn counters(&self) -> &Arc<ReplicateCounters> {
        &self.shared.counters
    }

    /// Sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len() - self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of a session.
    fn place(&self, id: SessionId) -> Option<u32> {
        (id.worker == self.config.spread.me)
            .then(|| self.flows.named(id.number))
            .flatten()
    }

    fn mark(&mut self, place: u32) {
        if let Some(served) = &mut self.sessions[place as usize]
            && !served.dirty
        {
            served.dirty = true;
            self.dirty.push(place);
        }
    }

    fn publish(&self) {
        let counters = &self.shared.counters;
        counters.sessions.set(self.len() as u64);
        counters.half_open.set(self.half_open as u64);
        counters.connections.set(self.replicas.used() as u64);
        counters.time_wait.set(self.time_wait.len() as u64);
        let chunks = self.shared.pool.total() - self.shared.pool.free();
        let bytes = chunks * super::chunks::CHUNK;
        counters.log_memory.set(bytes as u64);
    }
}

/// The way a packet came, back: out of the same port, to whom it came from.
fn way_back(port: PortId, headers: &lockstep_wire::Headers, frame: &[u8]) -> Way {
    const CUSTOMER_TAG: [u8; 2] = lockstep_wire::vlan::CUSTOMER_TAG.to_be_bytes();
    let mut link = LinkHeader {
        destination: [0; 6],
        source: [0; 6],
        vlan: None,
    };
    if let Some((addresses, rest)) = frame.split_first_chunk::<12>() {
        link.source.copy_from_slice(&addresses[..6]);
        link.destination.copy_from_slice(&addresses[6..]);
        if let Some((tag, _)) = rest.split_first_chunk::<4>()
            && headers.room == 0
            && tag[..2] == CUSTOMER_TAG
        {
            link.vlan = Some(u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff);
        }
    }
    Way { port, link }
}

impl core::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Replicator")
            .field("sessions", &self.len())
            .field("half_open", &self.half_open)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
