//! The frames that nobody uses at the moment.

use std::fmt;

use xsk_rs::FrameDesc;

use crate::frame::Frame;
use crate::region::Handle;

/// A worker's free frames, a stack: the chunk that was used last, and may still be in the cache,
/// is used next.
pub struct FramePool {
    /// Every descriptor is contained in the region, and its chunk is only here. Its capacity is
    /// the number of chunks there are, so that a push never allocates.
    free: Vec<FrameDesc>,
    total: u32,
    reclaimed: u64,
    /// Whether dropped frames come here: not into a guest's pool.
    takes_strays: bool,
    handle: Handle,
}

impl FramePool {
    pub(crate) fn new(free: Vec<FrameDesc>, handle: Handle) -> Self {
        // A UMEM's frames are counted in a u32.
        let total = free.len() as u32;
        FramePool {
            free,
            total,
            reclaimed: 0,
            takes_strays: true,
            handle,
        }
    }

    /// An empty pool for frames that are lent to another worker.
    pub(crate) fn guest(total: u32, handle: Handle) -> Self {
        FramePool {
            free: Vec::with_capacity(total as usize),
            total,
            reclaimed: 0,
            takes_strays: false,
            handle,
        }
    }

    /// Takes an empty frame; `None` when the pool is empty.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.reclaim();
        let desc = self.free.pop()?;
        self.handle.lend(1);
        // SAFETY: the pool owned the chunk and counts it as lent.
        let mut frame = unsafe { Frame::own(desc, self.handle.home()) };
        // A chunk that was dropped as a packet still has that packet's length.
        let emptied = frame.set_len(0);
        debug_assert!(emptied.is_ok(), "no bytes always fit");
        Some(frame)
    }

    /// Puts a frame back.
    ///
    /// # Panics
    ///
    /// When the frame is of another UMEM: a chunk in the wrong pool would be sent with somebody
    /// else's bytes.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        assert!(
            frame.home() == self.handle.home(),
            "the frame is of another UMEM"
        );
        self.handle.take_back(1);
        self.free.push(frame.into_desc());
    }

    /// How many frames there are to take.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether there is no frame to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// How many frames the UMEM has.
    #[inline]
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// How many frames are elsewhere: in rings ([`Port::held`](crate::Port::held)), in bursts, in
    /// the caller's hands, or dropped and not yet back.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.total() - self.len()
    }

    /// How many frames were dropped, rather than sent or put back, and have come home since the
    /// start. See [`Frame`].
    #[inline]
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// Takes in the frames that were dropped.
    #[inline]
    pub(crate) fn reclaim(&mut self) {
        if !self.takes_strays {
            return;
        }
        self.reclaimed += u64::from(self.handle.region().collect_strays(&mut self.free));
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The newest `n` chunks, or all of them when there are fewer.
    #[inline]
    pub(crate) fn top(&self, n: usize) -> &[FrameDesc] {
        &self.free[self.free.len().saturating_sub(n)..]
    }

    /// Forgets the newest `n` chunks, which somebody else owns now.
    #[inline]
    pub(crate) fn forget_top(&mut self, n: usize) {
        self.free.truncate(self.free.len() - n);
    }

    /// Takes over a chunk from a ring.
    #[inline]
    pub(crate) fn restore(&mut self, desc: FrameDesc) {
        self.free.push(desc);
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool")
            .field("free", &self.len())
            .field("total", &self.total)
            .field("reclaimed", &self.reclaimed)
            .finish()
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
