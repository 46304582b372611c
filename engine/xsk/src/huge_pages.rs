//! Large tables on huge pages.

use std::alloc::{GlobalAlloc, Layout, System};

/// A huge page of x86-64 (and of AArch64 with 4 KiB pages), in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// The system's allocator, with allocations of 2 MiB and more aligned to huge pages and marked
/// for them (`madvise(MADV_HUGEPAGE)`).
///
/// A flow table of 64 MiB has 16,384 small pages, ten times what a TLB reaches: looking up a
/// random flow then costs a page walk on top of the cache miss. Most distributions give huge
/// pages only to those who ask (`/sys/kernel/mm/transparent_hugepage/enabled` says `madvise`).
/// Where the kernel refuses, or gives none, the memory is what it would have been.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: lockstep_xsk::HugePages = lockstep_xsk::HugePages;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct HugePages;

/// The layout that is really allocated: always the same one for the same `layout`, so that
/// `dealloc` finds it again.
fn aligned(layout: Layout) -> Layout {
    if layout.size() < HUGE_PAGE {
        return layout;
    }
    // Fails only for sizes next to isize::MAX, which no allocator can serve: the system's then
    // refuses the layout as it is.
    layout.align_to(HUGE_PAGE).unwrap_or(layout)
}

/// Asks for huge pages behind `size` bytes at `start`, which nobody has touched yet: a small page
/// that is there already would stay until the kernel gets round to collapsing it.
fn advise(start: *mut u8, size: usize) {
    if start.is_null() || size < HUGE_PAGE || cfg!(miri) {
        return;
    }
    // Whole huge pages only. The tail shares its last page with other allocations.
    let len = size - size % HUGE_PAGE;
    // SAFETY: the range was just allocated, and the advice changes no contents. That it can be
    // refused is fine.
    unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
}

// SAFETY: every method passes on to `System` with a layout that is a function of the caller's
// (`aligned`): of the same size and of at least the alignment asked for. Blocks go back with the
// layout they came with. Nothing here allocates or unwinds.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is the caller's, who promises that it is not zero.
        let start = unsafe { System.alloc(aligned(layout)) };
        advise(start, layout.size());
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < HUGE_PAGE {
            // SAFETY: as in `alloc`.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // `System` would write the zeros, and so fault in small pages, before the advice.
        // SAFETY: as the caller's call.
        let start = unsafe { self.alloc(layout) };
        if !start.is_null() {
            // SAFETY: a fresh block of `size` bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the block was allocated with `aligned` of the same layout.
        unsafe { System.dealloc(start, aligned(layout)) };
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if layout.size() < HUGE_PAGE && new_size < HUGE_PAGE {
            // SAFETY: both layouts are what `aligned` makes of them.
            return unsafe { System.realloc(start, layout, new_size) };
        }
        // One of the two is aligned otherwise than the caller's layout says, which `realloc` of the
        // system cannot express.
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, fits in an
        // isize, which makes this a valid layout; and that it is not zero.
        let fresh = unsafe {
            let to = Layout::from_size_align_unchecked(new_size, layout.align());
            self.alloc(to)
        };
        if !fresh.is_null() {
            // SAFETY: both blocks are live and distinct, and have at least this many bytes. The old
            // one goes back once, with its layout.
            unsafe {
                fresh.copy_from_nonoverlapping(start, layout.size().min(new_size));
                self.dealloc(start, layout);
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests;
