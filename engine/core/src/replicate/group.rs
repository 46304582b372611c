//! Groups: the connections of one client to one service, as one session (rule 9).
//!
//! A client that opens a data connection has read something on its control connection first. A
//! replica that is slower than the others has not said that yet, and must not be asked for what it
//! has not offered. So every event of a client (connect, bytes, FIN) stands behind what the client
//! had been sent on all its connections: a [`Stamp`], which is a place in the group's history. A
//! replica is given the event when its own output covers the history up to there.
//!
//! What happens to a replica on one connection happens to it on all of them: a server that missed
//! input on one is not to be believed on the others. It comes back by a replay of all of them,
//! while the group's history is whole: since its start, with no connection closed.
//!
//! Only a reset is not so clear. A process that dies resets its connections, all of them at about
//! the same time; one that lives resets a connection that it closes with input unread. So a replica
//! that has reset one connection, and has others that live, is doubted for a while. What it has
//! said on that connection is all that it will ever cover there.

use super::event::SessionId;
use crate::tables::BackendRef;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Connections of a group at most.
pub const MAX_MEMBERS: usize = 64;
/// Places of a history at most. A group that needs more is not rejoined any more.
const MAX_HISTORY: usize = 16 << 10;

/// A place in a group's history; what is before it is what the client may have seen.
pub type Stamp = u64;

/// A connection's place in its group.
pub type Member = usize;

/// See the module.
#[derive(Debug)]
pub struct Group {
    members: Vec<Option<Connection>>,
    replicas: Vec<Replica>,
    /// The place with stamp `forgotten + 1` and those behind it.
    history: VecDeque<Place>,
    /// Places that were dropped.
    forgotten: Stamp,
    /// Whether everything since the start is known, so that a replica can be fed all of it.
    whole: bool,
    changed: bool,
}

/// One connection of the client.
#[derive(Debug, Clone, Copy)]
struct Connection {
    session: SessionId,
    /// What the client was sent on it.
    committed: u64,
    /// How much of that is in the history.
    recorded: u64,
}

/// From here on the client may have seen this much of a connection.
#[derive(Debug, Clone, Copy)]
struct Place {
    member: Member,
    committed: u64,
}

/// A replica, over all connections.
#[derive(Debug)]
struct Replica {
    backend: BackendRef,
    /// How often it was evicted.
    generation: u32,
    /// The last place up to which its own output covers the history.
    cleared: Stamp,
    /// Its output, by member.
    covered: [u64; MAX_MEMBERS],
    /// Members, as bits, on which it is connected.
    connected: u64,
    /// Those of them on which its FIN has come, and the client's stream goes on.
    ending: u64,
    /// Members whose connection it has reset: whether it has died is not known yet.
    doubted: u64,
    /// Members whose connection it has reset as it ended for all.
    excused: u64,
    /// Whether it was evicted, and has not come back.
    out: bool,
}

impl Replica {
    fn new(backend: BackendRef) -> Self {
        Replica {
            backend,
            generation: 0,
            cleared: 0,
            covered: [0; MAX_MEMBERS],
            connected: 0,
            ending: 0,
            doubted: 0,
            excused: 0,
            out: false,
        }
    }

    /// Forgets a connection.
    fn drop(&mut self, member: Member) {
        let others = !(1 << member);
        for members in [
            &mut self.connected,
            &mut self.ending,
            &mut self.doubted,
            &mut self.excused,
        ] {
            *members &= others;
        }
    }

    /// Whether a reset was the end of the process: no other connection has shown that it lives.
    fn is_dead(&self) -> bool {
        self.doubted != 0 && self.connected & !self.ending == 0
    }
}

impl Group {
    /// Of no connections.
    pub fn new() -> Self {
        Group {
            members: Vec::new(),
            replicas: Vec::new(),
            history: VecDeque::new(),
            forgotten: 0,
            whole: true,
            changed: false,
        }
    }

    /// Whether it takes no more connections.
    pub fn is_full(&self) -> bool {
        self.members.iter().flatten().count() >= MAX_MEMBERS
    }

    /// Whether all its connections are closed.
    pub fn is_empty(&self) -> bool {
        self.members.iter().all(Option::is_none)
    }

    /// Its connections, by session.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.members.iter().flatten().map(|m| m.session)
    }

    /// Whether something has changed for the other connections, since this was asked last: they are
    /// to be driven.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Takes a connection, and says what its client may have seen when it opened it. None when it
    /// is full.
    pub(super) fn join(&mut self, session: SessionId) -> Option<(Member, Stamp)> {
        let connection = Connection {
            session,
            committed: 0,
            recorded: 0,
        };
        let member = match self.members.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.members.len() < MAX_MEMBERS => {
                self.members.push(None);
                self.members.len() - 1
            }
            None => return None,
        };
        let stamp = self.stamp(member, 0);
        self.members[member] = Some(connection);
        Some((member, stamp))
    }

    /// A connection is closed.
    pub(super) fn leave(&mut self, member: Member) {
        // What was said on it cannot be said again: nobody can be fed the whole group any more.
        self.whole = false;
        self.members[member] = None;
        for place in self.history.iter_mut().filter(|p| p.member == member) {
            place.committed = 0;
        }
        for replica in &mut self.replicas {
            replica.covered[member] = 0;
            replica.drop(member);
        }
        self.clear();
        self.forget();
        self.changed = true;
    }

    /// What the client was sent on a connection.
    pub(super) fn commit(&mut self, member: Member, committed: u64) {
        if let Some(connection) = &mut self.members[member] {
            connection.committed = committed;
        }
    }

    /// An event of the client on a connection of which it had acknowledged this much. Of the other
    /// ones it may have seen all it was sent: its acknowledgements may be on their way.
    pub(super) fn stamp(&mut self, member: Member, acknowledged: u64) -> Stamp {
        for (other, connection) in self.members.iter_mut().enumerate() {
            let Some(connection) = connection else {
                continue;
            };
            let seen = if other == member {
                acknowledged
            } else {
                connection.committed
            };
            if seen > connection.recorded {
                connection.recorded = seen;
                self.history.push_back(Place {
                    member: other,
                    committed: seen,
                });
            }
        }
        // Most replicas have said that already.
        self.clear();
        self.forget();
        self.forgotten + self.history.len() as u64
    }

    /// How much output a replica has on a connection, since it was evicted this often.
    pub(super) fn cover(
        &mut self,
        member: Member,
        backend: BackendRef,
        generation: u32,
        covered: u64,
    ) {
        let index = self.index(backend);
        let (forgotten, replica) = (self.forgotten, &mut self.replicas[index]);
        let known = replica.connected & (1 << member) != 0;
        if replica.generation != generation || (known && covered <= replica.covered[member]) {
            return;
        }
        replica.covered[member] = covered;
        replica.connected |= 1 << member;
        replica.out = false;
        self.changed |= !known;
        if replica.cleared < forgotten {
            // What it would have to say first is not known any more.
            self.evict(backend);
        } else {
            self.clear();
        }
    }

    /// A replica is evicted from a connection that ends, and from no other.
    pub(super) fn uncover(&mut self, member: Member, backend: BackendRef) {
        if self.whole {
            let index = self.index(backend);
            let replica = &mut self.replicas[index];
            replica.covered[member] = 0;
            replica.drop(member);
            replica.cleared = 0;
            self.clear();
        }
    }

    /// A replica has reset a connection; `ends` where that ends for all. When none of its others
    /// lives it is evicted, and this is its new generation.
    pub(super) fn reset(&mut self, member: Member, backend: BackendRef, ends: bool) -> Option<u32> {
        let index = self.index(backend);
        let replica = &mut self.replicas[index];
        replica.drop(member);
        self.changed = true;
        if ends {
            replica.excused |= 1 << member;
            return None;
        }
        replica.doubted |= 1 << member;
        let dead = replica.is_dead();
        dead.then(|| self.evict(backend))
    }

    /// Whether a replica's FIN has come where the client's stream goes on. True when that was its
    /// last sign of life, after a reset: it is evicted.
    pub(super) fn set_ending(
        &mut self,
        member: Member,
        backend: BackendRef,
        generation: u32,
        ending: bool,
    ) -> bool {
        let index = self.index(backend);
        let (bit, replica) = (1 << member, &mut self.replicas[index]);
        let known = replica.generation == generation && replica.connected & bit != 0;
        replica.ending &= !bit;
        if known && ending {
            replica.ending |= bit;
        }
        let dead = known && replica.is_dead();
        if dead {
            self.evict(backend);
        }
        dead
    }

    /// A connection ends for all: who has reset it has done nothing else.
    pub(super) fn excuse(&mut self, member: Member) {
        let bit = 1 << member;
        for replica in self.replicas.iter_mut().filter(|r| r.doubted & bit != 0) {
            replica.doubted &= !bit;
            replica.excused |= bit;
            self.changed = true;
        }
    }

    /// Whether a replica has reset a connection, and may have died.
    pub(super) fn is_doubted(&mut self, backend: BackendRef) -> bool {
        let index = self.index(backend);
        self.replicas[index].doubted != 0
    }

    /// Whether a replica has reset this connection, and was not evicted for it.
    pub(super) fn has_reset(&mut self, member: Member, backend: BackendRef) -> bool {
        let index = self.index(backend);
        let replica = &self.replicas[index];
        (replica.doubted | replica.excused) & (1 << member) != 0
    }

    /// The place up to which a replica's output covers the history.
    pub(super) fn cleared(&mut self, backend: BackendRef) -> Stamp {
        let index = self.index(backend);
        self.replicas[index].cleared
    }

    /// Whether a replica is connected on all connections, but for those that end.
    pub(super) fn is_everywhere(&mut self, backend: BackendRef) -> bool {
        let index = self.index(backend);
        let connected = self.replicas[index].connected | self.replicas[index].excused;
        let mut members = self.members.iter().enumerate();
        members.all(|(member, c)| c.is_none() || connected & (1 << member) != 0)
    }

    /// How often a replica was evicted.
    pub(super) fn generation(&mut self, backend: BackendRef) -> u32 {
        let index = self.index(backend);
        self.replicas[index].generation
    }

    /// A replica is evicted from a connection, so from all. Returns the new generation.
    pub(super) fn evict(&mut self, backend: BackendRef) -> u32 {
        let index = self.index(backend);
        let replica = &mut self.replicas[index];
        *replica = Replica {
            generation: replica.generation + 1,
            out: true,
            ..Replica::new(backend)
        };
        self.clear();
        self.changed = true;
        self.replicas[index].generation
    }

    /// A connection's log was cut.
    pub(super) fn cut(&mut self) {
        self.whole = false;
        self.forget();
    }

    /// Whether a replica can be fed everything from the start.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    fn index(&mut self, backend: BackendRef) -> usize {
        let known = self.replicas.iter().position(|r| r.backend == backend);
        known.unwrap_or_else(|| {
            self.replicas.push(Replica::new(backend));
            self.clear();
            self.replicas.len() - 1
        })
    }

    /// Sees how far replicas have come in the history.
    fn clear(&mut self) {
        for replica in &mut self.replicas {
            let before = replica.cleared;
            // One that begins anew cannot begin behind what is forgotten.
            let Some(first) = replica.cleared.checked_sub(self.forgotten) else {
                continue;
            };
            let rest = self.history.range(first as usize..);
            let covered = rest.take_while(|p| p.committed <= replica.covered[p.member]);
            replica.cleared += covered.count() as u64;
            self.changed |= replica.cleared > before;
        }
    }

    /// Drops what every replica has behind it, when nobody can be fed the whole group.
    fn forget(&mut self) {
        if self.history.len() >= MAX_HISTORY {
            self.whole = false;
        }
        if self.whole {
            return;
        }
        loop {
            let forgotten = self.forgotten;
            let follows = |r: &&Replica| !r.out && r.cleared >= forgotten;
            let slowest = self
                .replicas
                .iter()
                .filter(follows)
                .min_by_key(|r| r.cleared);
            let all = forgotten + self.history.len() as u64;
            let cleared = slowest.map_or(all, |r| r.cleared);
            let behind = slowest.map(|r| r.backend);
            self.history.drain(..(cleared - forgotten) as usize);
            self.forgotten = cleared;
            match behind {
                // It is too far behind for what is remembered.
                Some(backend) if self.history.len() >= MAX_HISTORY => {
                    self.evict(backend);
                }
                _ => return,
            }
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}
