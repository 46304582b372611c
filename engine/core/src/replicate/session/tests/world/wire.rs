//! A connection without a network.

use crate::replicate::leg::{Leg, Loss, Phase};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// One connection: what is on its way to us, and from us.
#[derive(Debug)]
pub struct Wire {
    pub phase: Phase,
    /// Received and not consumed.
    pub inbox: VecDeque<u8>,
    pub inbox_room: usize,
    /// The longest front it shows.
    pub piece: usize,
    /// The peer's FIN stands behind the inbox.
    pub peer_finished: bool,
    /// Sent and not taken by the peer.
    pub outbox: VecDeque<u8>,
    pub outbox_room: usize,
    pub finished: bool,
    pub aborted: bool,
}

impl Wire {
    pub fn new(inbox_room: usize, outbox_room: usize) -> Self {
        Wire {
            phase: Phase::Opening,
            inbox: VecDeque::new(),
            inbox_room,
            piece: usize::MAX,
            peer_finished: false,
            outbox: VecDeque::new(),
            outbox_room,
            finished: false,
            aborted: false,
        }
    }

    /// The peer sends bytes, as many as the window lets it.
    pub fn receive(&mut self, bytes: &mut VecDeque<u8>, most: usize) -> usize {
        let room = self.inbox_room - self.inbox.len();
        let count = bytes.len().min(room).min(most);
        self.inbox.extend(bytes.drain(..count));
        count
    }

    /// The peer takes bytes.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let count = self.outbox.len().min(most);
        self.outbox.drain(..count).collect()
    }

    /// Once both sides have sent everything, it is closed.
    pub fn settle(&mut self) {
        let ours = self.finished && self.outbox.is_empty();
        if self.phase == Phase::Open && ours && self.peer_finished && self.inbox.is_empty() {
            self.phase = Phase::Closed;
        }
    }
}

impl Leg for Wire {
    fn phase(&self) -> Phase {
        self.phase
    }

    fn readable(&self) -> usize {
        self.inbox.len()
    }

    fn front(&mut self) -> &[u8] {
        let all: &[u8] = self.inbox.make_contiguous();
        &all[..all.len().min(self.piece)]
    }

    fn consume(&mut self, count: usize) {
        assert!(count <= self.inbox.len().min(self.piece));
        self.inbox.drain(..count);
    }

    fn is_finished(&self) -> bool {
        self.peer_finished && self.inbox.is_empty()
    }

    fn room(&self) -> usize {
        match self.phase {
            Phase::Open if !self.finished => self.outbox_room - self.outbox.len(),
            Phase::Open | Phase::Opening | Phase::Closed | Phase::Lost(_) => 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.outbox.extend(&bytes[..count]);
        count
    }

    fn unacknowledged(&self) -> usize {
        self.outbox.len()
    }

    fn finish(&mut self) {
        assert!(!self.finished, "once is enough");
        self.finished = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
        self.phase = Phase::Lost(Loss::Aborted);
        self.inbox.clear();
        self.outbox.clear();
    }
}
