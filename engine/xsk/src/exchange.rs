//! Frames between two workers, to and fro, without copies.
//!
//! ```text
//!            ─── given (frame, word) ──▶
//!   worker                               worker
//!            ◀── settled (frame, word) ─
//! ```
//!
//! A frame is of one worker's UMEM, and only that one can send it or receive into it again. So the
//! other does what is to be done with its bytes and gives the frame back, with word of what shall
//! become of it: a word of 32 bits, whose meaning is theirs ([`Frame::word`]). Either may give: an [`Exchange`] has a pair of rings for each direction.

use std::fmt;

use arrayvec::ArrayVec;
use rtrb::chunks::ChunkError;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::burst::BURST;
use crate::frame::Frame;

/// One worker's end of what it exchanges with one other. Frames are given and settled in bursts:
/// [`Exchange::publish`] shows them to the other one.
///
/// How many frames are with the other worker is limited, so that one that hangs does not keep all
/// there are; the way back has room for every frame that can come there. Nothing here blocks,
/// allocates, or makes a system call.
///
/// When one end is dropped, with a worker that has failed, the frames given to it come home as
/// dropped ones do ([`Frame`]), and what the other end would give or settle to it is refused or
/// dropped. The few that are in a ring at that moment keep their UMEM until both ends are gone.
pub struct Exchange {
    give: Producer<Frame>,
    given: Consumer<Frame>,
    settle: Producer<Frame>,
    settled: Consumer<Frame>,
    /// To be published.
    giving: ArrayVec<Frame, BURST>,
    settling: ArrayVec<Frame, BURST>,
    /// Frames of ours that the other has, or will have with the next `publish`.
    out: usize,
    limit: usize,
}

impl Exchange {
    /// Both ends. At most `limit` frames of either worker are with the other one.
    pub fn pair(limit: usize) -> (Self, Self) {
        let (give, other_given) = RingBuffer::new(limit);
        let (other_give, given) = RingBuffer::new(limit);
        let (settle, other_settled) = RingBuffer::new(limit);
        let (other_settle, settled) = RingBuffer::new(limit);
        let end = |give, given, settle, settled| Exchange {
            give,
            given,
            settle,
            settled,
            giving: ArrayVec::new(),
            settling: ArrayVec::new(),
            out: 0,
            limit,
        };
        (
            end(give, given, settle, settled),
            end(other_give, other_given, other_settle, other_settled),
        )
    }

    /// Gives a frame to the other worker, with the next [`Exchange::publish`].
    ///
    /// # Errors
    ///
    /// Returns the frame when as many as may be are with the other worker, or that is gone.
    #[inline]
    pub fn give(&mut self, mut frame: Frame, word: u32) -> Result<(), Frame> {
        if self.out >= self.limit || self.give.is_abandoned() {
            return Err(frame);
        }
        if self.giving.is_full() {
            publish(&mut self.give, &mut self.giving);
        }
        // There is room: the ring takes all that `out` counts.
        frame.say(word);
        self.giving.push(frame);
        self.out += 1;
        Ok(())
    }

    /// Gives a frame of the other worker back to it, with the next [`Exchange::publish`].
    #[inline]
    pub fn settle(&mut self, mut frame: Frame, word: u32) {
        if self.settling.is_full() {
            self.publish_settled();
        }
        frame.say(word);
        self.settling.push(frame);
    }

    /// Shows the other worker what was given and settled. Returns whether there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let any = !self.giving.is_empty() || !self.settling.is_empty();
        if any {
            publish(&mut self.give, &mut self.giving);
            self.publish_settled();
        }
        any
    }

    fn publish_settled(&mut self) {
        if self.settle.is_abandoned() {
            // Nobody will take them: they go home as strays, if there still is one.
            self.settling.clear();
        }
        publish(&mut self.settle, &mut self.settling);
    }

    /// Takes what the other worker has given, a burst at most.
    #[inline]
    pub fn take_given(&mut self, into: &mut ArrayVec<Frame, BURST>) {
        let before = into.len();
        take(&mut self.given, into);
        // Their bytes are in the other core's cache: fetched all at once, they are here when the
        // first has been looked at.
        into[before..].iter().for_each(Frame::prefetch);
    }

    /// Takes what the other worker has settled of ours, a burst at most.
    #[inline]
    pub fn take_settled(&mut self, into: &mut ArrayVec<Frame, BURST>) {
        let before = into.len();
        take(&mut self.settled, into);
        self.out -= into.len() - before;
    }

    /// How many frames of ours are with the other worker.
    #[inline]
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether there is anything to take.
    #[inline]
    pub fn has_mail(&self) -> bool {
        !self.given.is_empty() || !self.settled.is_empty()
    }
}

/// Moves all that is staged into the ring, in one step.
#[inline]
fn publish(ring: &mut Producer<Frame>, staged: &mut ArrayVec<Frame, BURST>) {
    if staged.is_empty() {
        return;
    }
    match ring.write_chunk_uninit(staged.len()) {
        Ok(chunk) => {
            chunk.fill_from_iter(staged.drain(..));
        }
        // The ring has a slot for every frame that can be out; what finds none goes home as a stray.
        Err(ChunkError::TooFewSlots(_)) => {
            debug_assert!(false, "a ring is too small");
            staged.clear();
        }
    }
}

/// Moves a burst out of the ring, as far as there is room in `into`.
#[inline]
fn take(ring: &mut Consumer<Frame>, into: &mut ArrayVec<Frame, BURST>) {
    let wanted = ring.slots().min(into.remaining_capacity());
    if wanted == 0 {
        return;
    }
    if let Ok(chunk) = ring.read_chunk(wanted) {
        into.extend(chunk);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // What the other gave goes home now rather than with the other end. Bounded: the ring's size
        // is, and the other one gives no more when it sees that this end is gone.
        for _ in 0..self.limit {
            if self.given.pop().is_err() {
                break;
            }
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("out", &self.out)
            .field("limit", &self.limit)
            .field("has_mail", &self.has_mail())
            .finish()
    }
}

#[cfg(test)]
mod tests;
