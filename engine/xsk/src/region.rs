//! The memory behind the frames, and who keeps it alive.
//!
//! Frames are moved by the million, so they cannot each hold an `Arc`. Instead the region counts
//! in bulk, in one number:
//!
//! ```text
//! count = HOLDER × (Umem, FramePool, Port and Burst values) + frames out of their hands
//! ```
//!
//! A holder hands out and takes back frames without touching the number: it keeps its own balance
//! ([`Handle::lend`], [`Handle::take_back`]) and settles it when it is dropped. As long as a
//! holder lives, the number cannot reach zero (balances are at most the number of frames, far
//! below `HOLDER`). Once none does, the number is exactly the count of [`Frame`]s still alive.
//! Whoever brings it to zero frees the region.
//!
//! [`Frame`]: crate::Frame

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xsk_rs::FrameDesc;

/// The weight of a holder. Far more than a UMEM can have frames (u32), and 2^23 holders fit.
const HOLDER: i64 = 1 << 40;

/// What became of the first port, which libxdp binds on the UMEM's own socket.
const UNBOUND: u8 = 0;
const BOUND: u8 = 1;
const CLOSED: u8 = 2;

/// A UMEM: its memory, split into chunks of one size, and the chunks whose frames were dropped.
pub(crate) struct Region {
    backing: Backing,
    base: NonNull<u8>,
    len: usize,
    /// Bytes in a chunk, a power of two.
    chunk: usize,
    count: AtomicI64,
    fill_ring: usize,
    first_port: AtomicU8,
    /// Chunks whose frames were dropped, waiting for the pool. Never longer than its capacity:
    /// it has room for every chunk there is.
    strays: Mutex<Vec<FrameDesc>>,
    stray_count: AtomicU32,
}

enum Backing {
    Kernel(xsk_rs::Umem),
    /// Memory of one chunk, for tests that run where no kernel does (Miri).
    #[cfg(test)]
    Heap(std::alloc::Layout),
}

impl Region {
    /// A region over a fresh UMEM, held once.
    ///
    /// `first` is a descriptor of this UMEM, `frames` and `chunk` its dimensions.
    pub(crate) fn over(
        umem: xsk_rs::Umem,
        first: &FrameDesc,
        frames: u32,
        chunk: usize,
        fill_ring: usize,
    ) -> Handle {
        // SAFETY: `first` is one of the descriptors that came with `umem`, and no socket has it.
        let data = unsafe { umem.data(first) };
        let start = data.contents().as_ptr().addr() - first.addr();
        // The mapping's address went to the kernel when the UMEM was registered, so that its
        // provenance is exposed; a slice of one frame would only give us that frame's.
        let base = std::ptr::with_exposed_provenance_mut(start);
        let base = NonNull::new(base).expect("a mapping does not start at address zero");
        Self::hold(Backing::Kernel(umem), base, frames, chunk, fill_ring)
    }

    /// A region of a single chunk on the heap.
    #[cfg(test)]
    pub(crate) fn on_heap(chunk: usize) -> Handle {
        let layout = std::alloc::Layout::from_size_align(chunk, chunk).unwrap();
        // SAFETY: the layout's size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Self::hold(
            Backing::Heap(layout),
            NonNull::new(base).unwrap(),
            1,
            chunk,
            0,
        )
    }

    fn hold(
        backing: Backing,
        base: NonNull<u8>,
        frames: u32,
        chunk: usize,
        fill_ring: usize,
    ) -> Handle {
        let region = Box::new(Region {
            backing,
            base,
            len: frames as usize * chunk,
            chunk,
            count: AtomicI64::new(HOLDER),
            fill_ring,
            first_port: AtomicU8::new(UNBOUND),
            strays: Mutex::new(Vec::with_capacity(frames as usize)),
            stray_count: AtomicU32::new(0),
        });
        Handle {
            home: Home(NonNull::from(Box::leak(region))),
            lent: 0,
        }
    }

    /// The UMEM as xsk-rs has it.
    pub(crate) fn umem(&self) -> &xsk_rs::Umem {
        match &self.backing {
            Backing::Kernel(umem) => umem,
            #[cfg(test)]
            Backing::Heap(_) => panic!("a region on the heap has no socket"),
        }
    }

    /// Slots of each port's fill ring.
    pub(crate) fn fill_ring(&self) -> usize {
        self.fill_ring
    }

    /// Notes that a port was bound, and says whether it was the first.
    pub(crate) fn bound(&self) -> bool {
        let state = &self.first_port;
        state
            .compare_exchange(UNBOUND, BOUND, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether a port has been bound.
    pub(crate) fn has_ports(&self) -> bool {
        self.first_port.load(Ordering::Relaxed) != UNBOUND
    }

    /// Notes that the first port was closed.
    pub(crate) fn first_port_closed(&self) {
        self.first_port.store(CLOSED, Ordering::Relaxed);
    }

    /// Whether no port can be bound any more; see
    /// [`XskError::UmemSpent`](crate::XskError::UmemSpent).
    pub(crate) fn is_spent(&self) -> bool {
        self.first_port.load(Ordering::Relaxed) == CLOSED
    }

    /// Whether a descriptor lies inside one chunk of this region. What comes from the kernel is
    /// checked before anybody makes a slice of it.
    #[inline]
    pub(crate) fn contains(&self, desc: &FrameDesc) -> bool {
        desc.addr() < self.len && desc.lengths().data() <= self.room(desc)
    }

    /// Bytes from the descriptor's start to the end of its chunk.
    #[inline]
    pub(crate) fn room(&self, desc: &FrameDesc) -> usize {
        self.chunk - (desc.addr() & (self.chunk - 1))
    }

    /// Where a descriptor's bytes start.
    ///
    /// # Safety
    ///
    /// [`Region::contains`] holds for `desc`.
    #[inline]
    pub(crate) unsafe fn at(&self, desc: &FrameDesc) -> NonNull<u8> {
        debug_assert!(self.contains(desc));
        // SAFETY: `contains` says that the offset is inside the mapping that starts at `base`.
        unsafe { self.base.add(desc.addr()) }
    }

    /// Sets the length with which the kernel will send the descriptor.
    ///
    /// # Safety
    ///
    /// The caller owns the chunk of `desc`, and `desc` is of this region.
    #[inline]
    pub(crate) unsafe fn set_len(&self, desc: &mut FrameDesc, len: usize) {
        // SAFETY: passed on to the caller. The slice made inside ends with this statement.
        unsafe { self.umem().data_mut(desc) }.cursor().set_pos(len);
    }

    /// Takes in chunks whose frames were dropped.
    pub(crate) fn stray(&self, descs: &[FrameDesc]) {
        let mut strays = self.strays();
        strays.extend_from_slice(descs);
        // Under the lock, so that it never disagrees with the list for whoever holds the lock.
        // The number of chunks is a u32.
        self.stray_count
            .fetch_add(descs.len() as u32, Ordering::Relaxed);
    }

    /// Moves the dropped frames' chunks to `free`. Returns how many there were.
    #[inline]
    pub(crate) fn collect_strays(&self, free: &mut Vec<FrameDesc>) -> u32 {
        // The usual case costs one load. A stray that is missed now is found by the next call.
        if self.stray_count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.collect_strays_locked(free)
    }

    #[cold]
    fn collect_strays_locked(&self, free: &mut Vec<FrameDesc>) -> u32 {
        let mut strays = self.strays();
        free.append(&mut strays);
        self.stray_count.swap(0, Ordering::Relaxed)
    }

    fn strays(&self) -> MutexGuard<'_, Vec<FrameDesc>> {
        // Nothing that can panic runs under this lock.
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Drop for Region {
    fn drop(&mut self) {
        if let Backing::Heap(layout) = self.backing {
            // SAFETY: `on_heap` allocated `base` with this layout, and a region is dropped once.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) };
        }
    }
}

/// The way to a region for what the region counts: a holder or a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home(NonNull<Region>);

// SAFETY: a frame is handed from one worker's thread to another's, and with it its home; the pool,
// the ports and other frames of the same region stay where they are and are used at the same time.
// What threads reach at the same time through their homes is
// - `count`, an atomic: a frame that is dropped subtracts itself there and touches no balance, which
//   is its holder's own (`Handle::lent`) and was raised when the frame was lent. The number may then
//   lag behind by the balances, never by `HOLDER`: with a holder it cannot be zero, and each adds its
//   balance in the same step that takes its own weight away.
// - `strays` and `stray_count`, a mutex and an atomic: where the chunk of a dropped frame goes, and
//   from where its pool, on whatever thread, takes it.
// - `base`, `len`, `chunk`, `fill_ring`: never changed after `hold`.
// - `first_port`, an atomic.
// - `backing`: xsk-rs's UMEM is `Send` and `Sync` (asserted below). It is freed by the thread that
//   brings the count to zero, which `adjust` orders behind everything that the others did.
// A chunk's bytes are reached only through the one frame, burst, pool or ring that owns it; whatever
// hands that over (a ring between workers) orders what was written before with what is read behind.
unsafe impl Send for Home {}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    const fn is_sent<T: Send>() {}
    is_shared::<xsk_rs::Umem>();
    is_sent::<crate::Frame>();
    is_sent::<crate::FramePool>();
};

impl Home {
    /// The region.
    ///
    /// # Safety
    ///
    /// The caller is counted by the region (is a holder, or a frame) for as long as it uses the
    /// reference.
    #[inline]
    pub(crate) unsafe fn region<'a>(self) -> &'a Region {
        // SAFETY: the region is freed when its count is zero, and the caller is in the count.
        unsafe { self.0.as_ref() }
    }

    /// Adds to the count and frees the region when that makes it zero.
    ///
    /// # Safety
    ///
    /// The caller is counted, and what it subtracts is its own share. It uses no reference to
    /// the region afterwards.
    pub(crate) unsafe fn adjust(self, delta: i64) {
        // SAFETY: the caller is counted until the addition below. `Release` makes all that was
        // done to the region by this thread visible to the one that frees it.
        let before = unsafe { &(*self.0.as_ptr()).count }.fetch_add(delta, Ordering::Release);
        if before + delta == 0 {
            // Pairs with the `Release` of all the others (the protocol of `Arc`).
            fence(Ordering::Acquire);
            // SAFETY: the count is zero: no holder and no frame is left, and `hold` leaked the
            // box that is taken back here.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

/// A holder's claim on the region, with the balance of the frames it has given out.
pub(crate) struct Handle {
    home: Home,
    lent: i64,
}

impl Handle {
    /// The way back here, for a frame.
    #[inline]
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    /// The region.
    #[inline]
    pub(crate) fn region(&self) -> &Region {
        // SAFETY: a handle is a holder, and the reference lives no longer than it.
        unsafe { self.home.region() }
    }

    /// Notes that `frames` leave this holder's hands.
    #[inline]
    pub(crate) fn lend(&mut self, frames: usize) {
        self.lent += frames as i64;
    }

    /// Notes that `frames` come into this holder's hands.
    #[inline]
    pub(crate) fn take_back(&mut self, frames: usize) {
        self.lent -= frames as i64;
    }
}

impl Clone for Handle {
    /// Another holder, with a balance of its own.
    fn clone(&self) -> Self {
        // SAFETY: this handle is counted, and adding cannot reach zero.
        unsafe { self.home.adjust(HOLDER) };
        Handle {
            home: self.home,
            lent: 0,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: gives back this holder's weight once, and settles the frames it gave out, which
        // are counted by themselves from here on.
        unsafe { self.home.adjust(self.lent - HOLDER) };
    }
}

#[cfg(test)]
mod tests;
