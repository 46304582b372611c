//! A leg: one TCP connection of a session, as the machine sees it.

use alloc::boxed::Box;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is under way.
    Opening,
    /// Established, until both directions are closed.
    Open,
    /// Both FINs were exchanged.
    Closed,
    /// It ended otherwise.
    Lost(Loss),
}

/// How a connection ended that did not end by FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// RST in answer to the SYN.
    Refused,
    /// RST.
    Reset,
    /// Nothing was heard for too long, handshake included.
    TimedOut,
    /// We ended it ([`Leg::abort`]).
    Aborted,
}

/// One TCP connection: bytes in, bytes out, with TCP's flow control behind both. What is not
/// consumed closes the peer's window.
pub trait Leg {
    /// How far it has come. Received bytes may still be there after its end.
    fn phase(&self) -> Phase;
    /// Received bytes that were not consumed.
    fn readable(&self) -> usize;
    /// The first of them that lie in one piece: empty only when there are none.
    fn front(&mut self) -> &[u8];
    /// Consumes received bytes, at most as many as [`Leg::front`] had.
    fn consume(&mut self, count: usize);
    /// Whether the peer has sent its FIN and every byte before it was consumed.
    fn is_finished(&self) -> bool;
    /// Bytes that [`Leg::write`] would take.
    fn room(&self) -> usize;
    /// Sends bytes, as many as there is room for; returns how many.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Bytes written that the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;
    /// Sends a FIN behind what was written. Once is enough.
    fn finish(&mut self);
    /// Sends RST and forgets everything.
    fn abort(&mut self);
}

impl<L: Leg + ?Sized> Leg for Box<L> {
    fn phase(&self) -> Phase {
        (**self).phase()
    }

    fn readable(&self) -> usize {
        (**self).readable()
    }

    fn front(&mut self) -> &[u8] {
        (**self).front()
    }

    fn consume(&mut self, count: usize) {
        (**self).consume(count);
    }

    fn is_finished(&self) -> bool {
        (**self).is_finished()
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        (**self).write(bytes)
    }

    fn unacknowledged(&self) -> usize {
        (**self).unacknowledged()
    }

    fn finish(&mut self) {
        (**self).finish();
    }

    fn abort(&mut self) {
        (**self).abort();
    }
}
