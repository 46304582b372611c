//! TIME-WAIT (RFC 9293 section 3.6.1) in 100 bytes instead of a connection with its buffers.

use super::device::{Transmit, Way};
use super::segment::{Bare, Segment, SynOptions};
use crate::Micros;
use alloc::boxed::Box;
use alloc::vec;
use core::net::SocketAddr;
use core::time::Duration;
use hashbrown::HashTable;
use lockstep_wire::{FlowKey, HashSeed, TcpFlags};

use super::connection::Remains;

/// Twice the time a segment may live in the network, as other stacks take it.
pub const TIME_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: FlowKey,
    remains: Remains,
    way: Way,
    until: Micros,
}

impl Entry {
    fn acknowledge(&self, out: &mut impl Transmit) {
        let key = &self.key;
        let acknowledgment = Bare {
            source: SocketAddr::new(key.destination_address(), key.destination_port()),
            destination: SocketAddr::new(key.source_address(), key.source_port()),
            sequence: self.remains.next,
            acknowledgment: self.remains.expected,
            flags: TcpFlags::ACK,
            window: 0,
            options: SynOptions::default(),
        };
        let length = acknowledgment.length();
        let Way { port, link } = &self.way;
        out.transmit(*port, link, length, |p| acknowledgment.write(p));
    }
}

/// What a packet of a connection in TIME-WAIT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Of no connection here.
    Unknown,
    /// Answered, or not worth an answer.
    Settled,
    /// A new connection between the same ports: the entry is gone.
    Opens,
}

/// Connections that ended with our FIN first. All wait equally long, so the oldest is the first to
/// go; when the table is full it goes early.
pub struct TimeWait {
    /// A ring: `[first, first + length)` modulo its size are in use or forgotten already.
    entries: Box<[Option<Entry>]>,
    first: usize,
    length: usize,
    index: HashTable<u32>,
    seed: HashSeed,
}

impl TimeWait {
    /// A table for so many connections.
    pub fn new(entries: usize, seed: u64) -> Self {
        let entries = entries.max(1);
        TimeWait {
            entries: vec![None; entries].into_boxed_slice(),
            first: 0,
            length: 0,
            // Twice the room: deleted places are cleaned up where they are, without allocating.
            index: HashTable::with_capacity(entries * 2),
            seed: HashSeed::new(seed),
        }
    }

    /// Connections that are remembered.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Remembers a connection; `key` is the flow of its peer's packets.
    pub fn insert(
        &mut self,
        now: Micros,
        key: FlowKey,
        remains: Remains,
        way: Way,
        out: &mut impl Transmit,
    ) {
        self.forget(&key);
        if self.length == self.entries.len() {
            self.forget_first();
        }
        let at = (self.first + self.length) % self.entries.len();
        let entry = Entry {
            key,
            remains,
            way,
            until: now + TIME_WAIT,
        };
        if remains.owed {
            entry.acknowledge(out);
        }
        self.entries[at] = Some(entry);
        self.length += 1;
        let Self {
            entries,
            index,
            seed,
            ..
        } = self;
        index.insert_unique(key.hash(seed), at as u32, |&at| {
            entries[at as usize].map_or(0, |e| e.key.hash(seed))
        });
    }

    /// Forgets what has waited long enough.
    pub fn expire(&mut self, now: Micros) {
        while self.length > 0 && self.entries[self.first].is_none_or(|e| e.until <= now) {
            self.forget_first();
        }
    }

    /// A segment that belongs to no open connection.
    pub fn receive(&mut self, segment: &Segment, out: &mut impl Transmit) -> Late {
        let Some(entry) = self.find(&segment.key) else {
            return Late::Unknown;
        };
        let expected = entry.remains.expected;
        if segment.is_opening() && (segment.sequence.wrapping_sub(expected) as i32) > 0 {
            // RFC 1122 section 4.2.2.13: nothing of the old connection can be taken for it.
            self.forget(&segment.key);
            return Late::Opens;
        }
        // RFC 1337: an RST may not end the wait.
        if segment.flags.contains(TcpFlags::RST) || segment.length() == 0 {
            return Late::Settled;
        }
        entry.acknowledge(out);
        Late::Settled
    }

    fn find(&self, key: &FlowKey) -> Option<Entry> {
        let at = self.index.find(key.hash(&self.seed), |&at| {
            self.entries[at as usize].is_some_and(|e| e.key == *key)
        })?;
        self.entries[*at as usize]
    }

    fn forget(&mut self, key: &FlowKey) {
        let Self {
            entries,
            index,
            seed,
            ..
        } = self;
        let found = index.find_entry(key.hash(seed), |&at| {
            entries[at as usize].is_some_and(|e| e.key == *key)
        });
        if let Ok(found) = found {
            let (at, _) = found.remove();
            // Its place stays taken until it is the first.
            entries[at as usize] = None;
        }
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.entries[self.first] {
            self.forget(&entry.key);
        }
        self.first = (self.first + 1) % self.entries.len();
        self.length -= 1;
    }
}

impl core::fmt::Debug for TimeWait {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TimeWait")
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
