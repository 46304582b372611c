//! A frame: one chunk of the UMEM, owned.

use std::fmt;
use std::mem::ManuallyDrop;

use xsk_rs::FrameDesc;

use crate::region::Home;

/// A packet, or room for one, in a chunk of the UMEM that nobody else can reach.
///
/// It can only be moved. [`Port::send`](crate::Port::send) and
/// [`FramePool::put`](crate::FramePool::put) consume it, which is how a frame normally ends, and
/// cost nothing beyond the move. Dropping it is allowed and slower: its chunk goes to a list of
/// strays behind a mutex, which the pool empties at its next `take` or `refill`. So an early
/// return or a panic leaks no chunk; a hot path that drops frames shows in
/// [`FramePool::reclaimed`](crate::FramePool::reclaimed).
///
/// Its bytes start where the kernel put the packet: 256 bytes into the chunk in copy mode, and
/// where the XDP program's `bpf_xdp_adjust_head` moved the start to in zero-copy.
#[must_use = "send it, or put it back into its pool"]
pub struct Frame {
    /// The region contains it, and no other frame, burst, pool or ring has its chunk.
    desc: FrameDesc,
    /// At most the room of `desc` in its chunk.
    len: u32,
    /// What an [`Exchange`](crate::Exchange) says of it. Here, since a frame has four bytes to
    /// spare: beside it, it would make what is moved to another worker longer, and cut in pieces.
    word: u32,
    home: Home,
}

impl Frame {
    /// A frame over a descriptor.
    ///
    /// # Safety
    ///
    /// The region at `home` contains `desc`, the caller owns its chunk and gives that up, and the
    /// frame is counted as lent by one of the region's holders.
    #[inline]
    pub(crate) unsafe fn own(desc: FrameDesc, home: Home) -> Self {
        // A length inside a chunk fits in a u32.
        Frame {
            desc,
            len: desc.lengths().data() as u32,
            word: 0,
            home,
        }
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the region contains `desc` and `len` is within the chunk, which is initialized
        // memory (a zeroed mapping). This frame owns the chunk: nobody writes while it is
        // borrowed. The frame is counted, so the region lives.
        unsafe {
            let start = self.home.region().at(&self.desc);
            std::slice::from_raw_parts(start.as_ptr(), self.len as usize)
        }
    }

    /// The packet, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the frame is borrowed exclusively.
        unsafe {
            let start = self.home.region().at(&self.desc);
            std::slice::from_raw_parts_mut(start.as_ptr(), self.len as usize)
        }
    }

    /// Brings the packet's headers into this core's cache, while something else is done.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the frame is counted, so the region lives and contains `desc`; reading ahead
            // behind a chunk's end has no effect.
            unsafe {
                let start = self.home.region().at(&self.desc).as_ptr().cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(start);
                // Tunnel room, Ethernet, IP and transport headers are within two lines.
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
            }
        }
    }

    /// The packet's length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the frame has no bytes. Such a frame cannot be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most bytes this frame can have: from its start to the end of its chunk.
    #[inline]
    pub fn capacity(&self) -> usize {
        // SAFETY: the frame is counted while the reference lives.
        unsafe { self.home.region() }.room(&self.desc)
    }

    /// Sets the packet's length. Bytes that are new to it hold what an earlier packet left there,
    /// so they have to be written before the frame is sent.
    ///
    /// # Errors
    ///
    /// When `len` exceeds [`Frame::capacity`]; the length stays as it was.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Result<(), TooLong> {
        let capacity = self.capacity();
        if len > capacity {
            return Err(TooLong { len, capacity });
        }
        // No longer than a chunk, so it fits in a u32.
        self.len = len as u32;
        Ok(())
    }

    /// Makes a shorter packet `least` bytes long, with zeros behind, as Ethernet pads it. One whose
    /// chunk has no room for that stays as it is.
    pub fn pad(&mut self, least: usize) {
        let before = self.len();
        if before < least && self.set_len(least).is_ok() {
            self.bytes_mut()[before..].fill(0);
        }
    }

    /// Makes the packet a copy of `packet`.
    ///
    /// # Errors
    ///
    /// When it is longer than [`Frame::capacity`]; the frame stays as it was.
    pub fn fill(&mut self, packet: &[u8]) -> Result<(), TooLong> {
        self.set_len(packet.len())?;
        self.bytes_mut().copy_from_slice(packet);
        Ok(())
    }

    /// What the worker said of it that gave or settled it last; see [`Exchange`](crate::Exchange).
    #[inline]
    pub fn word(&self) -> u32 {
        self.word
    }

    #[inline]
    pub(crate) fn say(&mut self, word: u32) {
        self.word = word;
    }

    #[inline]
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    /// Gives up the chunk to a holder, which takes the frame off its balance.
    #[inline]
    pub(crate) fn into_desc(self) -> FrameDesc {
        ManuallyDrop::new(self).desc
    }

    /// As [`Frame::into_desc`], with the length the kernel is to send.
    #[inline]
    pub(crate) fn into_tx_desc(self) -> FrameDesc {
        let mut frame = ManuallyDrop::new(self);
        let len = frame.len as usize;
        if frame.desc.lengths().data() != len {
            // SAFETY: the frame owns its chunk and is counted; `desc` is of its region.
            unsafe { frame.home.region().set_len(&mut frame.desc, len) };
        }
        frame.desc
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the frame is counted until `adjust`, which takes back its own share.
        unsafe {
            self.home.region().stray(&[self.desc]);
            self.home.adjust(-1);
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("addr", &self.desc.addr())
            .field("len", &self.len)
            .finish()
    }
}

/// A packet does not fit in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes do not fit in a frame with room for {capacity}")]
pub struct TooLong {
    /// The length that was asked for, in bytes.
    pub len: usize,
    /// The frame's room, in bytes.
    pub capacity: usize,
}
