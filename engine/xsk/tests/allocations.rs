//! A worker's loop allocates nothing. Needs root.

#![allow(clippy::unwrap_used)]
// The allocator that counts is the only unsafe code outside of the crate itself.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lockstep_xsk::Burst;
use support::{Worker, in_a_row, packet, until};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to `System` as it came. Counting does not allocate: the cell needs
// neither initialization nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller's call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller's call.
        unsafe { System.dealloc(start, layout) };
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_workers_loop_allocates_nothing() {
    in_a_row(|[sender, worker, sink]| {
        let packet = packet(64, 1);
        let mut forwarded = 0;
        let mut allocations = 0;
        until(|| {
            for _ in 0..32 {
                let mut frame = sender.pool.take().unwrap();
                frame.fill(&packet).unwrap();
                sender.ports[0].send(frame).unwrap();
            }
            sender.settle();
            let before = ALLOCATIONS.get();
            forwarded += one_round(worker);
            allocations += ALLOCATIONS.get() - before;
            sink.ports[0].receive(&mut sink.burst);
            sink.burst.drain().for_each(|frame| sink.pool.put(frame));
            sink.settle();
            forwarded > 10_000
        });
        assert_eq!(allocations, 0);
        // The counter counts.
        let before = ALLOCATIONS.get();
        drop(std::hint::black_box(Box::new(Burst::new(&worker.umem))));
        assert_eq!(ALLOCATIONS.get() - before, 1);
    });
}

/// Forwards a burst, answers with a frame of the worker's own, and drops one on the floor.
fn one_round(worker: &mut Worker) -> usize {
    let received = worker.ports[0].receive(&mut worker.burst);
    for (number, frame) in worker.burst.drain().enumerate() {
        if number != 0 {
            worker.ports[1].send(frame).unwrap();
        }
    }
    let mut answer = worker.pool.take().unwrap();
    answer.fill(&[0xff; 64]).unwrap();
    worker.ports[1].send(answer).unwrap();
    worker.settle();
    received
}
