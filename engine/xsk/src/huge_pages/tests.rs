//! The allocator against its contract. Runs under Miri as well.

use std::alloc::{GlobalAlloc, Layout};

use super::{HUGE_PAGE, HugePages};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn large_allocations_start_on_a_huge_page() {
    for size in [HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE - 8] {
        for align in [1, 64, HUGE_PAGE * 2] {
            let layout = layout(size, align);
            // SAFETY: the block is written within its size and goes back with its layout.
            unsafe {
                let start = HugePages.alloc(layout);
                assert!(!start.is_null());
                assert_eq!(start.addr() % HUGE_PAGE.max(align), 0);
                start.write(1);
                start.add(size - 1).write(2);
                HugePages.dealloc(start, layout);
            }
        }
    }
}

#[test]
fn zeroed_memory_is_zero_even_where_a_block_was_used_before() {
    for size in [100, HUGE_PAGE] {
        let layout = layout(size, 8);
        // SAFETY: the blocks are used within their size and go back with their layout.
        unsafe {
            let dirty = HugePages.alloc(layout);
            dirty.write_bytes(0xff, size);
            HugePages.dealloc(dirty, layout);
            let clean = HugePages.alloc_zeroed(layout);
            // Every 4,099th byte, as Miri would take minutes for all of them.
            let mut sample = (0..size).step_by(4099).chain([size - 1]);
            assert!(sample.all(|at| clean.add(at).read() == 0));
            HugePages.dealloc(clean, layout);
        }
    }
}

#[test]
fn a_block_keeps_its_bytes_across_the_threshold_both_ways() {
    let sizes = [
        64,
        HUGE_PAGE - 1,
        HUGE_PAGE,
        2 * HUGE_PAGE,
        HUGE_PAGE,
        HUGE_PAGE - 1,
        64,
    ];
    let mut size = sizes[0];
    // SAFETY: every call passes the layout the block has at that time.
    unsafe {
        let mut start = HugePages.alloc(layout(size, 16));
        for (at, byte) in (0..64).zip(1..) {
            start.add(at).write(byte);
        }
        for next in sizes {
            start = HugePages.realloc(start, layout(size, 16), next);
            size = next;
            assert_eq!(
                start.addr() % if size < HUGE_PAGE { 16 } else { HUGE_PAGE },
                0
            );
            for (at, byte) in (0..64).zip(1..) {
                assert_eq!(start.add(at).read(), byte);
            }
            if size > 64 {
                start.add(size - 1).write(0xee);
            }
        }
        HugePages.dealloc(start, layout(size, 16));
    }
}

/// What the kernel says about the mapping around an address (`/proc/self/smaps`).
#[cfg(not(miri))]
fn has_huge_pages(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let bound = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (bound(start), bound(end)))
        {
            inside = (start..end).contains(&address);
        } else if inside && line.starts_with("VmFlags:") {
            // "hg": MADV_HUGEPAGE was set.
            return line.split(' ').any(|flag| flag == "hg");
        }
    }
    false
}

#[cfg(not(miri))]
#[test]
fn the_kernel_is_asked_for_huge_pages() {
    let layout = layout(8 * HUGE_PAGE, 8);
    // SAFETY: the block is used within its size and goes back with its layout.
    unsafe {
        let start = HugePages.alloc_zeroed(layout);
        let asked = has_huge_pages(start.addr());
        HugePages.dealloc(start, layout);
        assert!(asked);
    }
}
