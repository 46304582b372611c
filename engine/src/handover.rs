//! Packets that arrived at one worker and belong to another: answers from replicas that RSS put on
//! another queue than their session's, and clients of a group.
//!
//! ```text
//!   worker 0 ── parcel ──▶ inbox of worker 1
//!            ◀── empty ─── home of worker 0
//! ```
//!
//! A frame belongs to one worker's UMEM, so its bytes are copied into a parcel, of which every
//! worker has a fixed number. A parcel always finds room: each queue is for all parcels that can
//! come there. Without one the packet is dropped; TCP sends it again.

use anyhow::Context;
use crossbeam::queue::ArrayQueue;
use lockstep_core::PortId;
use lockstep_xsk::Waker;
use std::fmt;
use std::sync::Arc;

/// Parcels of each worker: some bursts, for as long as it takes the others to come by.
const PARCELS: usize = 256;
/// Parcels that may be with one other worker where there are several: one that hangs must not
/// keep all of them.
const WITH_ONE: usize = PARCELS / 2;

/// A packet on its way to another worker.
pub struct Parcel {
    from: u8,
    to: u8,
    port: PortId,
    length: usize,
    bytes: Box<[u8]>,
}

impl Parcel {
    /// The interface the packet came in by.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The frame.
    pub fn frame(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parcel {
            from, to, length, ..
        } = self;
        write!(f, "Parcel({from} to {to}, {length} bytes)")
    }
}

/// Where a worker gets its parcels.
#[derive(Debug)]
struct Desk {
    /// From other workers.
    inbox: ArrayQueue<Parcel>,
    /// Its own ones, empty again.
    home: ArrayQueue<Parcel>,
    waker: Waker,
}

/// One worker's share of the hand-over.
#[derive(Debug)]
pub struct Handover {
    me: u8,
    desks: Arc<[Desk]>,
    spare: Vec<Parcel>,
    /// For each worker, how many parcels of ours are with it.
    with: Vec<usize>,
    with_one: usize,
}

impl Handover {
    /// One for each worker. `frame` is the length of the longest frame.
    ///
    /// # Errors
    /// When there are more workers than a byte counts, or no descriptor is left.
    pub fn between(workers: usize, frame: usize) -> anyhow::Result<Vec<Self>> {
        let count = u8::try_from(workers).context("there can be 255 workers at most")?;
        let others = workers.saturating_sub(1);
        let desks: Result<Vec<Desk>, lockstep_xsk::XskError> = (0..count)
            .map(|_| {
                Ok(Desk {
                    // A queue needs a place even where nobody can put anything there.
                    inbox: ArrayQueue::new((others * PARCELS).max(1)),
                    home: ArrayQueue::new(PARCELS),
                    waker: Waker::new()?,
                })
            })
            .collect();
        let desks: Arc<[Desk]> = desks?.into();
        let parcels = if others == 0 { 0 } else { PARCELS };
        let of = |me: u8| Handover {
            me,
            desks: Arc::clone(&desks),
            spare: (0..parcels).map(|_| empty(me, frame)).collect(),
            with: vec![0; workers],
            with_one: if others > 1 { WITH_ONE } else { PARCELS },
        };
        Ok((0..count).map(of).collect())
    }

    /// Gives a copy of a frame to another worker; false when that has too many of ours already,
    /// or the frame is longer than any that can come.
    pub fn give(&mut self, to: u8, port: PortId, frame: &[u8]) -> bool {
        self.collect();
        let Some(desk) = self.desks.get(usize::from(to)) else {
            return false;
        };
        if self.with[usize::from(to)] >= self.with_one {
            return false;
        }
        let Some(mut parcel) = self.spare.pop() else {
            return false;
        };
        let Some(room) = parcel.bytes.get_mut(..frame.len()) else {
            self.spare.push(parcel);
            return false;
        };
        room.copy_from_slice(frame);
        parcel.length = frame.len();
        (parcel.to, parcel.port) = (to, port);
        if let Err(parcel) = desk.inbox.push(parcel) {
            // Cannot happen: it has room for every parcel of the others.
            self.spare.push(parcel);
            return false;
        }
        self.with[usize::from(to)] += 1;
        desk.waker.wake();
        true
    }

    /// The next packet for this worker. It goes back by [`Handover::give_back`].
    pub fn take(&self) -> Option<Parcel> {
        self.desk().inbox.pop()
    }

    /// Gives a parcel back to the worker it came from.
    pub fn give_back(&self, parcel: Parcel) {
        let home = &self.desks[usize::from(parcel.from)].home;
        if let Err(parcel) = home.push(parcel) {
            // Cannot happen: it has room for each. Freeing would be a worker's sin.
            std::mem::forget(parcel);
        }
    }

    /// Whether a packet waits for this worker.
    pub fn has_mail(&self) -> bool {
        !self.desk().inbox.is_empty()
    }

    /// What wakes this worker.
    pub fn waker(&self) -> &Waker {
        &self.desk().waker
    }

    /// What wakes this worker, for who is no worker.
    pub fn alarm(&self) -> impl Fn() + Send + use<> {
        let (me, desks) = (usize::from(self.me), Arc::clone(&self.desks));
        move || desks[me].waker.wake()
    }

    fn desk(&self) -> &Desk {
        &self.desks[usize::from(self.me)]
    }

    fn collect(&mut self) {
        while let Some(parcel) = self.desks[usize::from(self.me)].home.pop() {
            self.with[usize::from(parcel.to)] -= 1;
            self.spare.push(parcel);
        }
    }
}

fn empty(from: u8, frame: usize) -> Parcel {
    Parcel {
        from,
        to: from,
        port: PortId(0),
        length: 0,
        bytes: vec![0; frame].into_boxed_slice(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn deliver(to: &Handover) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while let Some(mut parcel) = to.take() {
            got.push(parcel.frame().to_vec());
            to.give_back(parcel);
        }
        got
    }

    #[test]
    fn packets_come_in_order_with_their_interface() {
        let mut workers = Handover::between(2, 100).unwrap();
        let [a, b] = workers.as_mut_slice() else {
            panic!("two workers")
        };
        assert!(!b.has_mail());
        assert!(a.give(1, PortId(3), b"one"));
        assert!(a.give(1, PortId(4), b"three"));
        assert!(b.has_mail() && !a.has_mail());
        let mut first = b.take().unwrap();
        assert_eq!(first.port(), PortId(3));
        assert_eq!(first.frame(), b"one");
        b.give_back(first);
        assert_eq!(deliver(b), [b"three"]);
        assert!(b.give(0, PortId(0), b"back"));
        assert_eq!(deliver(a), [b"back"]);
    }

    #[test]
    fn a_worker_that_takes_nothing_leaves_parcels_for_the_others() {
        let mut workers = Handover::between(3, 100).unwrap();
        let given = (0..PARCELS).filter(|_| workers[0].give(1, PortId(0), b"lost"));
        assert_eq!(given.count(), WITH_ONE);
        for round in 0..10 * PARCELS {
            assert!(workers[0].give(2, PortId(0), b"kept"), "{round}");
            assert_eq!(deliver(&workers[2]), [b"kept"]);
        }
        assert_eq!(deliver(&workers[1]).len(), WITH_ONE);
        assert!(workers[0].give(1, PortId(0), b"again"));
    }

    #[test]
    fn without_a_parcel_nothing_is_given_until_one_is_back() {
        let mut workers = Handover::between(2, 100).unwrap();
        let given = (0..2 * PARCELS).filter(|_| workers[0].give(1, PortId(0), b"x"));
        assert_eq!(given.count(), PARCELS);
        workers[1].give_back(workers[1].take().unwrap());
        assert!(workers[0].give(1, PortId(0), b"x"));
        assert!(!workers[0].give(1, PortId(0), b"x"));
    }

    #[test]
    fn what_cannot_be_handed_over_is_refused() {
        let mut workers = Handover::between(2, 100).unwrap();
        assert!(
            !workers[0].give(1, PortId(0), &[0; 101]),
            "longer than a frame"
        );
        assert!(!workers[0].give(2, PortId(0), b"x"), "nobody");
        assert!(workers[0].give(1, PortId(0), &[0; 100]));
        let mut alone = Handover::between(1, 100).unwrap();
        assert!(!alone[0].give(0, PortId(0), b"x"), "to itself");
        assert!(Handover::between(256, 100).is_err());
    }
}
