//! A client, servers and the wires between them and a session; time is a number.

mod server;
mod wire;

pub use server::{Program, Server};
pub use wire::Wire;

use crate::Micros;
use crate::replicate::chunks::{CHUNK, Chunk, ChunkPool};
use crate::replicate::counters::ReplicateCounters;
use crate::replicate::event::{EndCause, EventKind, ReplicaIndex, SessionId};
use crate::replicate::group::Group;
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::mask::Masks;
use crate::replicate::session::{
    Action, Candidate, ReplicaState, Resources, Session, SessionState,
};
use crate::replicate::spill::{SpillQueue, SpillReply, SpillRequest};
use crate::tables::BackendRef;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;
use lockstep_plan::Replicate;

/// Everything.
pub struct World {
    pub now: Micros,
    pub session: Session,
    pub client: Wire,
    pub legs: Vec<Option<Wire>>,
    pub servers: Vec<Server>,
    /// What the client has not sent yet, and whether it ends behind it.
    pub sending: VecDeque<u8>,
    pub ends: bool,
    pub sent: Vec<u8>,
    /// What it had read when it sent each byte.
    pub had: Vec<usize>,
    /// What one server alone would have answered so far.
    ideal: (Program, VecDeque<u8>),
    pub received: Vec<u8>,
    pub events: Vec<EventKind>,
    pub answered: bool,
    pub refused: bool,
    pub ended: Option<EndCause>,
    pub pool: ChunkPool,
    pub group: Option<Rc<RefCell<Group>>>,
    pub spill: SpillQueue,
    pub disk_hangs: bool,
    pub files: BTreeMap<u64, Vec<u8>>,
    pub counters: ReplicateCounters,
    pub replica_rooms: (usize, usize),
    pub rtts: Vec<Option<Duration>>,
    pub down: Vec<bool>,
    pub draining: Vec<bool>,
    pub listed: usize,
}

/// A policy with a part replaced.
pub fn policy(change: impl FnOnce(&mut Replicate)) -> Replicate {
    let mut policy = Replicate::DEFAULT;
    change(&mut policy);
    policy
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    pub fn new(policy: Replicate, servers: usize) -> Self {
        Self::with_prefix(policy, servers, &[])
    }

    pub fn with_prefix(policy: Replicate, servers: usize, prefix: &[u8]) -> Self {
        Self::begun(Micros::new(1_000_000), policy, servers, prefix)
    }

    /// Of a session that begins at this time.
    pub fn begun(now: Micros, policy: Replicate, servers: usize, prefix: &[u8]) -> Self {
        let masks = Masks::new(&policy.masks).unwrap();
        let id = SessionId {
            worker: 0,
            number: 1,
        };
        let session = Session::new(
            now,
            id,
            Arc::new(policy),
            Arc::new(masks),
            (0..servers).map(|i| candidate(i, None, false, false)),
            prefix,
            42,
        );
        World {
            now,
            session,
            client: Wire::new(64 << 10, 64 << 10),
            legs: (0..super::super::MAX_REPLICAS).map(|_| None).collect(),
            servers: (0..servers).map(|_| Server::new()).collect(),
            sending: VecDeque::new(),
            ends: false,
            sent: Vec::new(),
            had: Vec::new(),
            ideal: ideal(),
            received: Vec::new(),
            events: Vec::new(),
            answered: false,
            refused: false,
            ended: None,
            pool: ChunkPool::new(1 << 20),
            group: None,
            spill: SpillQueue::new(64),
            disk_hangs: false,
            files: BTreeMap::new(),
            counters: ReplicateCounters::default(),
            replica_rooms: (8 << 10, 8 << 10),
            rtts: alloc::vec![None; servers],
            down: alloc::vec![false; servers],
            draining: alloc::vec![false; servers],
            listed: servers,
        }
    }

    /// With all servers connected, and the client.
    pub fn opened(policy: Replicate, servers: usize) -> Self {
        let mut world = World::new(policy, servers);
        world.settle();
        assert!(world.answered);
        world
    }

    /// Drives the session and does what it says, until it says nothing any more.
    pub fn drive(&mut self) {
        loop {
            let mut actions = Vec::new();
            let mut group = self.group.as_ref().map(|group| group.borrow_mut());
            let mut resources = Resources {
                pool: &mut self.pool,
                spill: &mut self.spill,
                counters: &self.counters,
                group: group.as_deref_mut(),
            };
            let (client, legs) = (&mut self.client, &mut self.legs[..]);
            self.session
                .drive(self.now, client, legs, &mut resources, &mut actions);
            drop(group);
            let mut again = false;
            for action in actions {
                again |= self.obey(action);
            }
            if !again && !self.answer_spill() {
                return;
            }
        }
    }

    fn obey(&mut self, action: Action) -> bool {
        assert!(self.ended.is_none(), "{action:?} after the end");
        match action {
            Action::Connect(index) => {
                let index = usize::from(index);
                assert!(self.legs[index].is_none());
                let (inbox, outbox) = self.replica_rooms;
                let mut wire = Wire::new(inbox, outbox);
                if !self.servers[index].up {
                    wire.phase = Phase::Lost(Loss::Refused);
                }
                self.legs[index] = Some(wire);
                return true;
            }
            Action::Release(index) => {
                let wire = self.legs[usize::from(index)].take().expect("a leg");
                assert!(matches!(wire.phase, Phase::Lost(_) | Phase::Closed));
            }
            Action::Answer => {
                self.answered = true;
                self.client.phase = Phase::Open;
                return true;
            }
            Action::Refuse => self.refused = true,
            Action::Event(event) => self.events.push(event),
            Action::Ended(cause) => {
                self.ended = Some(cause);
                assert!(self.legs.iter().all(Option::is_none));
            }
        }
        false
    }

    /// The thread that owns the files, at once.
    fn answer_spill(&mut self) -> bool {
        let mut any = false;
        if self.disk_hangs {
            return false;
        }
        while let Some(request) = self.spill.pop() {
            let reply = match request {
                SpillRequest::Append {
                    session,
                    offset,
                    chunk,
                } => {
                    self.files.insert(offset, chunk.bytes().to_vec());
                    SpillReply::Appended {
                        session,
                        offset,
                        chunk,
                    }
                }
                SpillRequest::Read {
                    session,
                    offset,
                    mut chunk,
                } => {
                    fill(&mut chunk, &self.files[&offset]);
                    SpillReply::Filled {
                        session,
                        offset,
                        chunk,
                    }
                }
                SpillRequest::Remove { .. } => {
                    self.files.clear();
                    continue;
                }
            };
            any = true;
            let mut resources = Resources {
                pool: &mut self.pool,
                spill: &mut self.spill,
                counters: &self.counters,
                group: None,
            };
            self.session.spilled(reply, &mut resources);
        }
        any
    }

    /// One round of everybody, with these numbers of bytes at most.
    pub fn round(&mut self, take: usize, give: usize) {
        for index in 0..self.servers.len() {
            self.serve(index, take, give);
        }
        self.client_sends(take);
        self.client_reads(give);
    }

    pub fn serve(&mut self, index: usize, take: usize, give: usize) {
        let server = &mut self.servers[index];
        let Some(wire) = &mut self.legs[index] else {
            return;
        };
        if wire.phase == Phase::Opening && server.up && !server.frozen {
            wire.phase = Phase::Open;
            server.accept();
        }
        server.work(wire, take, give);
        wire.settle();
    }

    pub fn client_sends(&mut self, most: usize) {
        if self.client.phase != Phase::Open || self.client.peer_finished {
            return;
        }
        let first = self.client.inbox.len();
        self.client.receive(&mut self.sending, most);
        for byte in self.client.inbox.iter().skip(first) {
            self.sent.push(*byte);
            self.ideal.0.read(*byte, &mut self.ideal.1);
        }
        self.had.resize(self.sent.len(), self.received.len());
        if self.sending.is_empty() && self.ends {
            self.client.peer_finished = true;
        }
        self.client.settle();
    }

    pub fn client_reads(&mut self, most: usize) {
        let bytes = self.client.take(most);
        self.received.extend(bytes);
        self.client.settle();
    }

    /// Goes on without time passing until nothing changes.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let before = self.fingerprint();
            self.drive();
            self.round(usize::MAX, usize::MAX);
            if self.ended.is_some() || before == self.fingerprint() {
                return;
            }
        }
        panic!("it never settles");
    }

    pub fn fingerprint(&self) -> impl PartialEq + use<> {
        let legs: Vec<_> = self
            .legs
            .iter()
            .flatten()
            .map(|l| {
                (
                    l.inbox.len(),
                    l.outbox.len(),
                    l.phase,
                    l.finished,
                    l.peer_finished,
                )
            })
            .collect();
        let read: Vec<_> = self
            .servers
            .iter()
            .map(|s| (s.read.len(), s.said))
            .collect();
        let client = (
            self.client.inbox.len(),
            self.client.finished,
            self.client.phase,
            self.client.peer_finished,
        );
        (
            legs,
            read,
            client,
            self.received.len(),
            self.sent.len(),
            self.events.len(),
        )
    }

    /// Lets time pass, from deadline to deadline, settling at each.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while self.ended.is_none() {
            self.settle();
            match self.session.next_deadline() {
                Some(at) if at <= end => {
                    assert!(at > self.now, "a deadline that has passed");
                    self.now = at;
                }
                _ => break,
            }
            steps += 1;
            assert!(steps < 100_000, "it is woken for nothing");
        }
        self.now = end;
        if self.ended.is_none() {
            self.settle();
        }
    }

    /// The client sends this, and everything is done about it that can be done at once.
    pub fn say(&mut self, bytes: &[u8]) {
        self.sending.extend(bytes);
        self.settle();
    }

    /// The process is killed: RST, and nobody listens any more.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].up = false;
        self.reset(index);
    }

    pub fn reset(&mut self, index: usize) {
        if let Some(wire) = &mut self.legs[index] {
            wire.phase = match wire.phase {
                Phase::Opening => Phase::Lost(Loss::Refused),
                Phase::Open => Phase::Lost(Loss::Reset),
                other => other,
            };
        }
    }

    /// The process ends and its kernel says FIN, whatever was under way.
    pub fn hang_up(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.up = false;
        server.frozen = true;
        server.pending.clear();
        if let Some(wire) = &mut self.legs[index] {
            wire.peer_finished = true;
        }
    }

    pub fn update(&mut self) {
        let candidates: Vec<_> = (0..self.listed)
            .map(|i| candidate(i, self.rtts[i], self.down[i], self.draining[i]))
            .collect();
        self.session.update(self.now, candidates.into_iter());
    }

    /// A server that the service did not have before.
    pub fn add_server(&mut self) {
        self.servers.push(Server::new());
        self.rtts.push(None);
        self.down.push(false);
        self.draining.push(false);
        self.listed += 1;
        self.update();
    }

    /// What one server alone would have answered to what the client has sent.
    pub fn expected(&self) -> &VecDeque<u8> {
        &self.ideal.1
    }

    /// The client has that; the beginning of it where the servers have reset it.
    pub fn complete(&self) {
        if self.ended != Some(EndCause::ServersReset) {
            assert_eq!(self.received.len(), self.expected().len());
        }
        assert!(self.received.len() <= self.expected().len());
        let expected = self.expected().iter().take(self.received.len());
        assert!(expected.eq(&self.received));
    }

    pub fn state(&self, index: usize) -> ReplicaState {
        self.session.report().replicas[index].state
    }

    pub fn primary(&self) -> Option<ReplicaIndex> {
        self.session.report().primary
    }

    pub fn protection(&self) -> SessionState {
        self.session.state()
    }

    pub fn has(&self, event: EventKind) -> bool {
        self.events.contains(&event)
    }
}

fn ideal() -> (Program, VecDeque<u8>) {
    let (mut program, mut out) = (Program::new(), VecDeque::new());
    program.greet(&mut out);
    (program, out)
}

fn fill(chunk: &mut Chunk, bytes: &[u8]) {
    assert_eq!(bytes.len(), CHUNK);
    chunk.bytes_mut().copy_from_slice(bytes);
}

pub fn candidate(index: usize, rtt: Option<Duration>, down: bool, draining: bool) -> Candidate {
    Candidate {
        backend: BackendRef::new(index as u32 + 1, 0),
        rtt,
        down,
        draining,
    }
}
