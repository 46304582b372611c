//! The connection as the machine sees it.

use super::{Connection, End};
use crate::replicate::leg::{Leg, Loss, Phase};
use smoltcp::socket::tcp::State;

impl Leg for Connection {
    fn phase(&self) -> Phase {
        match (self.end, self.state()) {
            (Some(End::Closed), _) => Phase::Closed,
            (Some(End::Lost(loss)), _) => Phase::Lost(loss),
            (None, State::Listen | State::SynSent | State::SynReceived) => Phase::Opening,
            (None, _) => Phase::Open,
        }
    }

    fn readable(&self) -> usize {
        self.socket().recv_queue()
    }

    fn front(&mut self) -> &[u8] {
        self.socket_mut().peek(usize::MAX).unwrap_or(&[])
    }

    fn consume(&mut self, count: usize) {
        let taken = self
            .socket_mut()
            .recv(|bytes| (count.min(bytes.len()), count.min(bytes.len())));
        debug_assert!(
            count == 0 || taken == Ok(count),
            "consumed what is not there"
        );
        self.dirty = true;
    }

    fn is_finished(&self) -> bool {
        self.finished && self.readable() == 0
    }

    fn room(&self) -> usize {
        let socket = self.socket();
        if self.end.is_none() && socket.may_send() {
            socket.send_capacity() - socket.send_queue()
        } else {
            0
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        if self.end.is_some() || bytes.is_empty() {
            return 0;
        }
        self.dirty = true;
        let written = self.socket_mut().send_slice(bytes).unwrap_or(0);
        self.upkeep.written = self.upkeep.written.wrapping_add(written as u32);
        written
    }

    fn unacknowledged(&self) -> usize {
        self.socket().send_queue()
    }

    fn finish(&mut self) {
        if self.end.is_none() {
            self.dirty = true;
            self.socket_mut().close();
        }
    }

    fn abort(&mut self) {
        if self.end.is_none() {
            self.finish_with(End::Lost(Loss::Aborted));
        }
    }
}
