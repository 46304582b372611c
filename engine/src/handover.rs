//! Frames that arrived at one worker and belong to another: under RPS most, else answers from
//! replicas that RSS put on another queue than their session's, and clients of a group.
//!
//! ```text
//!   worker 0 ── frame, what it is ───▶ worker 1
//!            ◀─ frame, where it goes ─
//! ```
//!
//! A frame stays in its UMEM: worker 1 works on its bytes and gives it back to worker 0, which sends
//! it or receives into it again. Nothing is copied.
//!
//! A worker without sockets has no UMEM. What its sessions send, it writes into frames that one of
//! the others has lent it beforehand, and that one sends them.

use anyhow::Context;
use arrayvec::ArrayVec;
use lockstep_core::{BURST, PortId};
use lockstep_xsk::{Exchange, Frame, FramePool, Waker};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Frames that are lent to a worker without sockets: what sessions send in some hundred
/// microseconds.
const LOAN: usize = 256;
/// Frames that may be with one other worker, at most: some bursts, for as long as it takes it to
/// come by.
const WITH_ONE: usize = 1_024;
/// And at least, where frames are few.
const WITH_ONE_MIN: usize = 16;

/// What is given to another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// A packet as it came in, by this interface.
    Packet {
        /// The interface.
        port: PortId,
        /// Whether its way is timed.
        timed: bool,
    },
    /// The same, of one of the other's sessions: the dataplane has seen it already.
    Session(PortId),
    /// A frame without a packet, to send one with.
    Loan,
}

/// What shall become of a frame that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Send it.
    Forward {
        /// From this interface.
        port: PortId,
        /// Its length, in bytes.
        length: u16,
        /// Whether its way is timed.
        timed: bool,
    },
    /// Send it; it was lent.
    Loan {
        /// From this interface.
        port: PortId,
        /// Its length, in bytes.
        length: u16,
    },
    /// Nothing: it is free.
    Free {
        /// Whether its way was timed.
        timed: bool,
    },
}

/// Frames from another worker; [`Given::of`] says what they are.
pub type GivenBurst = ArrayVec<Frame, BURST>;
/// Frames back from another worker; [`Settled::of`] says what shall become of them.
pub type SettledBurst = ArrayVec<Frame, BURST>;

// A word about a frame: one of these in the lowest byte, an interface in the one above, and a length
// in the upper half. Moved as one: in pieces, reading it would wait for its writing.
const PACKET: u8 = 0;
const TIMED_PACKET: u8 = 1;
const SESSION: u8 = 2;
const LENT: u8 = 3;
const FORWARD: u8 = 4;
const TIMED_FORWARD: u8 = 5;
const FREE: u8 = 6;
const TIMED_FREE: u8 = 7;

/// A word's parts: what it is about, an interface, a length.
const fn word(about: u8, PortId(port): PortId, length: u16) -> u32 {
    about as u32 | (port as u32) << 8 | (length as u32) << 16
}

const fn parts(word: u32) -> (u8, PortId, u16) {
    (word as u8, PortId((word >> 8) as u8), (word >> 16) as u16)
}

impl Given {
    /// What was said of a frame that was given.
    #[inline]
    pub fn of(frame: &Frame) -> Self {
        let (about, port, _) = parts(frame.word());
        match about {
            PACKET | TIMED_PACKET => Given::Packet {
                port,
                timed: about == TIMED_PACKET,
            },
            SESSION => Given::Session(port),
            // Nothing else is said: a frame of which nobody knows anything is just a frame.
            _ => Given::Loan,
        }
    }

    #[inline]
    fn word(self) -> u32 {
        match self {
            Given::Packet { port, timed: false } => word(PACKET, port, 0),
            Given::Packet { port, timed: true } => word(TIMED_PACKET, port, 0),
            Given::Session(port) => word(SESSION, port, 0),
            Given::Loan => word(LENT, PortId(0), 0),
        }
    }
}

impl Settled {
    /// What was said of a frame that came back.
    #[inline]
    pub fn of(frame: &Frame) -> Self {
        let (about, port, length) = parts(frame.word());
        match about {
            FORWARD | TIMED_FORWARD => Settled::Forward {
                port,
                length,
                timed: about == TIMED_FORWARD,
            },
            LENT => Settled::Loan { port, length },
            _ => Settled::Free {
                timed: about == TIMED_FREE,
            },
        }
    }

    #[inline]
    fn word(self) -> u32 {
        match self {
            Settled::Forward {
                port,
                length,
                timed,
            } => word(if timed { TIMED_FORWARD } else { FORWARD }, port, length),
            Settled::Loan { port, length } => word(LENT, port, length),
            Settled::Free { timed: false } => word(FREE, PortId(0), 0),
            Settled::Free { timed: true } => word(TIMED_FREE, PortId(0), 0),
        }
    }
}

/// Another worker.
struct Peer {
    number: u8,
    exchange: Exchange,
    /// Whether it lives on loans of ours.
    borrows: bool,
    /// Frames that it has of us for that.
    lent: usize,
    /// When the packet was received whose way is timed at the moment.
    timed: Option<Instant>,
}

/// One worker's share of the hand-over.
pub struct Handover {
    me: u8,
    wakers: Arc<[Waker]>,
    peers: Box<[Peer]>,
    /// Packets that may be with one of them.
    with_one: usize,
}

impl Handover {
    /// One for each worker, of which every one has `frames` frames. `lenders` says for each whose
    /// frames it borrows, as it has none itself.
    ///
    /// # Errors
    /// When there are more workers than a byte counts, or no descriptor is left.
    pub fn between(lenders: &[Option<u8>], frames: usize) -> anyhow::Result<Vec<Self>> {
        let count = u8::try_from(lenders.len()).context("there can be 255 workers at most")?;
        let wakers: Result<Vec<Waker>, lockstep_xsk::XskError> =
            (0..count).map(|_| Waker::new()).collect();
        let wakers: Arc<[Waker]> = wakers?.into();
        // A quarter of all: as many are in the fill ring, on their way out, and free.
        let others = usize::from(count).saturating_sub(1).max(1);
        let with_one = (frames / 4 / others).clamp(WITH_ONE_MIN, WITH_ONE);
        let mut peers: Vec<Vec<Peer>> = lenders.iter().map(|_| Vec::new()).collect();
        for b in 0..count {
            for a in 0..b {
                let borrows = |from, to: u8| lenders[usize::from(to)] == Some(from);
                let (end_a, end_b) = Exchange::pair(with_one + LOAN);
                peers[usize::from(a)].push(Peer::new(b, end_a, borrows(a, b)));
                peers[usize::from(b)].push(Peer::new(a, end_b, borrows(b, a)));
            }
        }
        let of = |(me, mut peers): (u8, Vec<Peer>)| {
            peers.sort_by_key(|peer| peer.number);
            Handover {
                me,
                wakers: Arc::clone(&wakers),
                peers: peers.into(),
                with_one,
            }
        };
        Ok((0..count).zip(peers).map(of).collect())
    }

    /// How many other workers there are. What follows calls them by their places, from 0.
    #[inline]
    pub fn others(&self) -> usize {
        self.peers.len()
    }

    /// Gives a frame to another worker.
    ///
    /// # Errors
    /// Returns the frame when that worker has too many of ours already, or is gone.
    #[inline]
    pub fn give(&mut self, to: u8, frame: Frame, what: Given) -> Result<(), Frame> {
        let limit = self.with_one;
        match self.peer(to) {
            Some(peer) if peer.exchange.out() - peer.lent < limit => {
                peer.exchange.give(frame, what.word())
            }
            Some(_) | None => Err(frame),
        }
    }

    /// As [`Handover::give`], of a packet that was received at `received` and whose way is to be
    /// timed: one at a time is.
    ///
    /// # Errors
    /// As [`Handover::give`].
    pub fn give_timed(
        &mut self,
        to: u8,
        frame: Frame,
        port: PortId,
        received: Instant,
    ) -> Result<(), Frame> {
        let timed = self.peer(to).is_some_and(|peer| peer.timed.is_none());
        self.give(to, frame, Given::Packet { port, timed })?;
        if timed && let Some(peer) = self.peer(to) {
            peer.timed = Some(received);
        }
        Ok(())
    }

    /// Takes what another worker has given, a burst at most. Each frame goes back by
    /// [`Handover::settle`], but for loans.
    #[inline]
    pub fn take(&mut self, place: usize, into: &mut GivenBurst) {
        self.peers[place].exchange.take_given(into);
    }

    /// Gives a frame back to the worker it came from.
    #[inline]
    pub fn settle(&mut self, place: usize, frame: Frame, what: Settled) {
        self.peers[place].exchange.settle(frame, what.word());
    }

    /// Sends a frame that was lent by worker `lender`.
    pub fn send(&mut self, lender: u8, frame: Frame, port: PortId) {
        // No frame is longer than 4,096 bytes.
        let length = frame.len() as u16;
        if let Some(peer) = self.peer(lender) {
            let what = Settled::Loan { port, length };
            peer.exchange.settle(frame, what.word());
        }
    }

    /// Takes what another worker gave back, a burst at most. Returns when the packet was received
    /// whose way is timed and ends here.
    #[inline]
    pub fn take_back(&mut self, place: usize, into: &mut SettledBurst) -> Option<Instant> {
        let peer = &mut self.peers[place];
        peer.exchange.take_settled(into);
        let mut timed = None;
        for frame in into.iter() {
            match Settled::of(frame) {
                Settled::Loan { .. } => peer.lent -= 1,
                Settled::Forward { timed: true, .. } => timed = peer.timed.take(),
                Settled::Free { timed: true } => peer.timed = None,
                Settled::Forward { timed: false, .. } | Settled::Free { timed: false } => {}
            }
        }
        timed
    }

    /// Lends frames to those who live on it, with the next [`Handover::publish`]. Returns whether there
    /// were any to lend.
    pub fn lend(&mut self, pool: &mut FramePool) -> bool {
        let mut any = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.borrows) {
            while peer.lent < LOAN {
                let Some(frame) = pool.take() else {
                    return any;
                };
                if let Err(frame) = peer.exchange.give(frame, Given::Loan.word()) {
                    pool.put(frame);
                    break;
                }
                peer.lent += 1;
                any = true;
            }
        }
        any
    }

    /// Shows the others what they were given, and wakes those who sleep.
    #[inline]
    pub fn publish(&mut self) {
        for peer in &mut self.peers {
            if peer.exchange.publish() {
                self.wakers[usize::from(peer.number)].wake();
            }
        }
    }

    /// Whether something waits for this worker.
    pub fn has_mail(&self) -> bool {
        self.peers.iter().any(|peer| peer.exchange.has_mail())
    }

    /// What wakes this worker.
    pub fn waker(&self) -> &Waker {
        &self.wakers[usize::from(self.me)]
    }

    /// What wakes this worker, for who is no worker.
    pub fn alarm(&self) -> impl Fn() + Send + use<> {
        let (me, wakers) = (usize::from(self.me), Arc::clone(&self.wakers));
        move || wakers[me].wake()
    }

    #[inline]
    fn peer(&mut self, number: u8) -> Option<&mut Peer> {
        // They are in order, and this worker is not among them.
        let place = match number.cmp(&self.me) {
            std::cmp::Ordering::Less => usize::from(number),
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => usize::from(number) - 1,
        };
        self.peers.get_mut(place)
    }
}

impl Peer {
    fn new(number: u8, exchange: Exchange, borrows: bool) -> Self {
        Peer {
            number,
            exchange,
            borrows,
            lent: 0,
            timed: None,
        }
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = self.peers.iter().map(|peer| (peer.number, &peer.exchange));
        f.debug_map().entries(peers).finish()
    }
}

#[cfg(test)]
mod tests;
