//! A server, whose output is a function of its input.

use super::wire::Wire;
use crate::replicate::leg::Phase;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a server says: a function of what it has read.
#[derive(Debug, Clone)]
pub struct Program {
    state: u64,
    /// Ends by itself once it has said this much.
    pub ends_at: Option<usize>,
    /// Ends when the client has.
    pub follows: bool,
    said: usize,
}

impl Program {
    pub fn new() -> Self {
        Program {
            state: 0x9e37_79b9_7f4a_7c15,
            ends_at: None,
            follows: true,
            said: 0,
        }
    }

    /// The first words, before any input.
    pub fn greet(&mut self, out: &mut VecDeque<u8>) {
        self.say(out, 5);
    }

    /// `Z` asks for 3,000 bytes, another letter for as many as its place in the alphabet; a dot
    /// for none.
    pub fn read(&mut self, byte: u8, out: &mut VecDeque<u8>) {
        self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let count = match byte {
            b'Z' => 3_000,
            b'.' => 0,
            other => usize::from(other % 32),
        };
        self.say(out, count);
    }

    fn say(&mut self, out: &mut VecDeque<u8>, count: usize) {
        for _ in 0..count {
            if self.ends_at.is_some_and(|end| self.said >= end) {
                return;
            }
            self.state = self.state.rotate_left(7).wrapping_add(0x632b_e5ab);
            out.push_back((self.state >> 13) as u8);
            self.said += 1;
        }
    }

    fn has_ended(&self, client_finished: bool) -> bool {
        self.ends_at.is_some_and(|end| self.said >= end) || (self.follows && client_finished)
    }
}

/// A server, and its side of the connection.
#[derive(Debug)]
pub struct Server {
    pub up: bool,
    /// Stopped: it takes and says nothing, its kernel still does.
    pub frozen: bool,
    pub program: Program,
    pub running: Program,
    pub pending: VecDeque<u8>,
    /// What it has read on this connection.
    pub read: Vec<u8>,
    /// What it has said on this connection, corrupt or not.
    pub said: u64,
    /// The byte of its output that it gets wrong, on every connection.
    pub corrupt_at: Option<u64>,
    pub saw_end: bool,
}

impl Server {
    pub fn new() -> Self {
        Server {
            up: true,
            frozen: false,
            program: Program::new(),
            running: Program::new(),
            pending: VecDeque::new(),
            read: Vec::new(),
            said: 0,
            corrupt_at: None,
            saw_end: false,
        }
    }

    pub fn accept(&mut self) {
        self.running = self.program.clone();
        self.pending.clear();
        self.read.clear();
        self.said = 0;
        self.saw_end = false;
        self.running.greet(&mut self.pending);
        self.spoil(0);
    }

    fn spoil(&mut self, from: usize) {
        let Some(at) = self.corrupt_at else { return };
        let first = self.said;
        if let Some(index) = at.checked_sub(first).map(|i| i as usize)
            && index >= from
            && let Some(byte) = self.pending.get_mut(index)
        {
            *byte ^= 0xff;
        }
    }

    /// Reads and answers.
    pub fn work(&mut self, wire: &mut Wire, take: usize, give: usize) {
        if self.frozen || wire.phase != Phase::Open {
            return;
        }
        for byte in wire.take(take) {
            self.read.push(byte);
            let from = self.pending.len();
            self.running.read(byte, &mut self.pending);
            self.spoil(from);
        }
        self.said += wire.receive(&mut self.pending, give) as u64;
        self.saw_end |= wire.finished && wire.outbox.is_empty();
        if self.running.has_ended(self.saw_end) && self.pending.is_empty() {
            wire.peer_finished = true;
        }
    }
}
