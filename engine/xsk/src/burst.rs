//! The frames of one pass through the worker's loop.

use std::fmt;

use xsk_rs::FrameDesc;

use crate::frame::Frame;
use crate::region::Handle;
use crate::umem::Umem;

/// The most frames of a burst.
pub const BURST: usize = 64;

/// Up to [`BURST`] received frames, in the order they came. Made once and used again: it never
/// allocates.
pub struct Burst {
    /// The first `len` are contained in the region, and their chunks are only here. A fixed
    /// array, because the RX ring writes into it without a copy.
    descs: [FrameDesc; BURST],
    len: usize,
    handle: Handle,
}

impl Burst {
    /// An empty burst for the ports of `umem`.
    pub fn new(umem: &Umem) -> Self {
        Self::of(umem.handle().clone())
    }

    pub(crate) fn of(handle: Handle) -> Self {
        Burst {
            descs: [FrameDesc::default(); BURST],
            len: 0,
            handle,
        }
    }

    /// How many frames are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no frame is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packets, all of them to be changed in place at the same time.
    #[inline]
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> + DoubleEndedIterator {
        let region = self.handle.region();
        self.descs[..self.len].iter().map(move |desc| {
            // SAFETY: the region contains the descriptor. Each one is of another chunk, which
            // only this burst has, and the burst is borrowed exclusively while the slices live.
            unsafe {
                let start = region.at(desc);
                std::slice::from_raw_parts_mut(start.as_ptr(), desc.lengths().data())
            }
        })
    }

    /// Makes shorter packets `least` bytes long, with zeros behind, as Ethernet pads them.
    pub fn pad(&mut self, least: usize) {
        let region = self.handle.region();
        for desc in &mut self.descs[..self.len] {
            let length = desc.lengths().data();
            if length < least && least <= region.room(desc) {
                // SAFETY: the region contains the descriptor, whose chunk only this burst has, and
                // which has room for `least` bytes from the packet's start.
                unsafe {
                    let behind = region.at(desc).as_ptr().add(length);
                    std::slice::from_raw_parts_mut(behind, least - length).fill(0);
                    region.set_len(desc, least);
                }
            }
        }
    }

    /// Takes out every frame that `whose` has an answer for, and gives it to `take` with that answer;
    /// the others stay, in their order. Costs nothing where it answers `None`, as most do.
    ///
    /// Should one of the two panic, the frames behind are lost to their pool until the UMEM goes.
    #[inline]
    pub fn extract<T>(
        &mut self,
        mut whose: impl FnMut(&[u8]) -> Option<T>,
        mut take: impl FnMut(T, Frame),
    ) {
        // Nothing is in the burst before it is known to stay: no frame can be there twice.
        for at in 0..std::mem::take(&mut self.len) {
            let desc = self.descs[at];
            let region = self.handle.region();
            // SAFETY: the region contains the descriptor, whose chunk only this burst has, and the
            // slice ends with this statement.
            let answer = whose(unsafe {
                std::slice::from_raw_parts(region.at(&desc).as_ptr(), desc.lengths().data())
            });
            match answer {
                None => {
                    self.descs[self.len] = desc;
                    self.len += 1;
                }
                // SAFETY: the burst owned the chunk, which its port counted as lent, and no longer
                // has it.
                Some(answer) => take(answer, unsafe { Frame::own(desc, self.handle.home()) }),
            }
        }
    }

    /// Takes the frames out, in order. Those the iterator does not get to are dropped, as with
    /// `Vec::drain`.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let len = std::mem::take(&mut self.len);
        Drain {
            burst: self,
            next: 0,
            len,
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The part of the array that holds no frames.
    #[inline]
    pub(crate) fn spare(&mut self) -> &mut [FrameDesc] {
        &mut self.descs[self.len..]
    }

    /// Takes over the first `received` descriptors of [`Burst::spare`], but for those that are
    /// not inside a chunk of the region. Returns how many were taken.
    ///
    /// # Safety
    ///
    /// The chunks of those descriptors belong to the caller, who gives them up and counts as many
    /// as are taken as lent.
    #[inline]
    pub(crate) unsafe fn accept(&mut self, received: usize) -> usize {
        let first = self.len;
        for at in first..first + received {
            if self.handle.region().contains(&self.descs[at]) {
                if at != self.len {
                    self.descs[self.len] = self.descs[at];
                }
                self.len += 1;
            }
        }
        self.len - first
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.drain().for_each(drop);
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst").field("len", &self.len).finish()
    }
}

/// The frames of a burst, being taken out.
#[derive(Debug)]
pub struct Drain<'a> {
    burst: &'a mut Burst,
    next: usize,
    len: usize,
}

impl Iterator for Drain<'_> {
    type Item = Frame;

    #[inline]
    fn next(&mut self) -> Option<Frame> {
        if self.next == self.len {
            return None;
        }
        let desc = self.burst.descs[self.next];
        self.next += 1;
        // SAFETY: the burst owned the chunk, which its port counted as lent, and no longer
        // counts it among its own; `next` makes sure that each is given out once.
        Some(unsafe { Frame::own(desc, self.burst.handle.home()) })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len - self.next, Some(self.len - self.next))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
