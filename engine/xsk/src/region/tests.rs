//! Who keeps the memory alive, in every order of going. Made for Miri, which sees a use after free
//! and a leak; the region is one chunk on the heap, as Miri has no kernel.

use crate::burst::Burst;
use crate::frame::Frame;
use crate::pool::FramePool;
use crate::region::{Handle, Region};
use xsk_rs::FrameDesc;

const CHUNK: usize = 2048;

fn pool() -> (Handle, FramePool) {
    let handle = Region::on_heap(CHUNK);
    // The descriptor of address zero, the only one there is.
    let pool = FramePool::new(vec![FrameDesc::default()], handle.clone());
    (handle, pool)
}

fn write(frame: &mut Frame) {
    frame.set_len(CHUNK).unwrap();
    frame.bytes_mut().fill(0xab);
    assert_eq!(frame.bytes(), [0xab; CHUNK]);
}

#[test]
fn a_frame_that_is_put_back_is_taken_again() {
    let (_handle, mut pool) = pool();
    for _ in 0..3 {
        let mut frame = pool.take().unwrap();
        assert!(frame.is_empty());
        assert!(pool.take().is_none());
        assert_eq!(pool.outstanding(), 1);
        write(&mut frame);
        pool.put(frame);
    }
    assert_eq!((pool.outstanding(), pool.reclaimed()), (0, 0));
}

#[test]
fn a_length_beyond_the_chunk_is_refused() {
    let (_handle, mut pool) = pool();
    let mut frame = pool.take().unwrap();
    assert_eq!(frame.capacity(), CHUNK);
    frame.fill(&[1; 100]).unwrap();
    let error = frame.set_len(CHUNK + 1).unwrap_err();
    assert_eq!((error.len, error.capacity), (CHUNK + 1, CHUNK));
    frame.fill(&[2; CHUNK + 1]).unwrap_err();
    assert_eq!(frame.bytes(), [1; 100]);
    pool.put(frame);
}

#[test]
fn a_frame_outlives_everything_it_came_from() {
    let (handle, mut pool) = pool();
    let mut frame = pool.take().unwrap();
    drop(pool);
    write(&mut frame);
    drop(handle);
    write(&mut frame);
    drop(frame);
}

#[test]
fn a_dropped_frame_comes_home() {
    let (_handle, mut pool) = pool();
    for round in 1..4 {
        write(&mut pool.take().unwrap());
        assert_eq!((pool.outstanding(), pool.reclaimed()), (1, round - 1));
        let mut frame = pool.take().unwrap();
        assert_eq!(pool.reclaimed(), round);
        write(&mut frame);
        pool.put(frame);
        assert_eq!(pool.outstanding(), 0);
    }
}

#[test]
fn a_frame_is_dropped_on_another_thread_while_its_pool_goes() {
    let (handle, mut pool) = pool();
    let frame = pool.take().unwrap();
    let thread = std::thread::spawn(move || {
        let mut frame = frame;
        write(&mut frame);
    });
    drop((pool, handle));
    thread.join().unwrap();
}

/// As workers do: frames go to and fro, some are dropped on the way, and the memory's first owner
/// goes before the last frame.
#[test]
fn frames_go_to_another_thread_and_come_back() {
    let (handle, mut pool) = pool();
    let (give, given) = std::sync::mpsc::sync_channel::<Frame>(1);
    let (settle, settled) = std::sync::mpsc::sync_channel::<Frame>(1);
    let other = std::thread::spawn(move || {
        for (round, mut frame) in given.into_iter().enumerate() {
            assert_eq!(frame.bytes(), [round as u8; 100]);
            frame.bytes_mut().fill(0xff);
            if round % 2 == 0 {
                settle.send(frame).unwrap();
            }
        }
    });
    for round in 0..6 {
        // One that is dropped over there comes home some time.
        let mut frame = loop {
            match pool.take() {
                Some(frame) => break frame,
                None => std::thread::yield_now(),
            }
        };
        frame.fill(&[round; 100]).unwrap();
        give.send(frame).unwrap();
        if round % 2 == 0 {
            let frame = settled.recv().unwrap();
            assert_eq!(frame.bytes(), [0xff; 100]);
            pool.put(frame);
        }
    }
    assert_eq!(pool.reclaimed(), 2);
    drop((pool, handle, give));
    other.join().unwrap();
}

#[test]
fn a_guest_has_what_is_lent_to_it_and_no_strays() {
    let (handle, mut pool) = pool();
    let mut guest = FramePool::guest(1, handle.clone());
    assert!(guest.take().is_none());
    let mut frame = pool.take().unwrap();
    write(&mut frame);
    guest.put(frame);
    assert!(pool.take().is_none());
    drop(guest.take().unwrap());
    assert!(guest.take().is_none());
    guest.put(pool.take().unwrap());
    drop((handle, pool));
    let mut frame = guest.take().unwrap();
    drop(guest);
    write(&mut frame);
}

#[test]
fn frames_that_are_somebody_elses_are_taken_out_of_a_burst() {
    for taken in [true, false] {
        let (handle, mut pool) = pool();
        let mut burst = Burst::of(handle.clone());
        let mut frame = pool.take().unwrap();
        write(&mut frame);
        burst.spare()[0] = frame.into_desc();
        // SAFETY: the frame's chunk, which the pool counts as lent, goes over into the burst.
        assert_eq!(unsafe { burst.accept(1) }, 1);
        let mut out = Vec::new();
        burst.extract(
            |bytes| taken.then_some(bytes.len()),
            |length, frame| out.push((length, frame)),
        );
        assert_eq!(
            (burst.len(), out.len()),
            (usize::from(!taken), usize::from(taken))
        );
        drop((handle, pool, burst));
        for (length, frame) in out {
            assert_eq!(frame.bytes(), vec![0xab; length]);
        }
    }
}

#[test]
fn a_burst_keeps_its_frames_alive() {
    let (handle, mut pool) = pool();
    let mut burst = Burst::of(handle.clone());
    let mut frame = pool.take().unwrap();
    write(&mut frame);
    burst.spare()[0] = frame.into_desc();
    // SAFETY: the frame's chunk, which the pool counts as lent, goes over into the burst.
    assert_eq!(unsafe { burst.accept(1) }, 1);
    drop((handle, pool));
    for bytes in burst.iter_mut() {
        bytes.fill(1);
    }
    assert_eq!(burst.len(), 1);
    let frame = burst.drain().next().unwrap();
    assert!(burst.is_empty());
    drop(burst);
    drop(frame);
}
