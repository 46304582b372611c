//! Frames that go to and fro. Made for Miri too: no kernel is needed.

use super::Exchange;
use crate::burst::BURST;
use crate::frame::Frame;
use crate::pool::FramePool;
use crate::region::{Handle, Region};
use arrayvec::ArrayVec;
use xsk_rs::FrameDesc;

const CHUNK: usize = 256;

type End = Exchange;

/// One frame each of a region of its own.
fn pools(count: usize) -> Vec<(Handle, FramePool)> {
    let pool = |_| {
        let handle = Region::on_heap(CHUNK);
        let pool = FramePool::new(vec![FrameDesc::default()], handle.clone());
        (handle, pool)
    };
    (0..count).map(pool).collect()
}

fn frame((_, pool): &mut (Handle, FramePool), byte: u8) -> Frame {
    let mut frame = pool.take().unwrap();
    frame.fill(&[byte; 10]).unwrap();
    frame
}

fn given(end: &mut End) -> ArrayVec<(Frame, u32), BURST> {
    let mut taken = ArrayVec::new();
    end.take_given(&mut taken);
    with_words(taken)
}

fn settled(end: &mut End) -> ArrayVec<(Frame, u32), BURST> {
    let mut taken = ArrayVec::new();
    end.take_settled(&mut taken);
    with_words(taken)
}

fn with_words(frames: ArrayVec<Frame, BURST>) -> ArrayVec<(Frame, u32), BURST> {
    let with_word = |frame: Frame| {
        let word = frame.word();
        (frame, word)
    };
    frames.into_iter().map(with_word).collect()
}

#[test]
fn frames_are_seen_when_they_are_published_and_come_back_to_their_pool() {
    let mut pools = pools(3);
    let (mut a, mut b) = End::pair(3);
    assert!(!a.publish());
    for (at, pool) in pools.iter_mut().enumerate() {
        a.give(frame(pool, at as u8), at as u32).unwrap();
    }
    assert!(!b.has_mail() && given(&mut b).is_empty());
    assert!(a.publish());
    assert!(b.has_mail());
    for (mut frame, what) in given(&mut b) {
        assert_eq!(frame.bytes(), [what as u8; 10]);
        frame.bytes_mut().fill(0xee);
        b.settle(frame, what + 10);
    }
    assert_eq!((a.out(), settled(&mut a).len()), (3, 0));
    assert!(b.publish());
    let back = settled(&mut a);
    assert_eq!((a.out(), back.len()), (0, 3));
    for ((frame, what), (_, pool)) in back.into_iter().zip(&mut pools) {
        assert!((10..13).contains(&what));
        assert_eq!(frame.bytes(), [0xee; 10]);
        pool.put(frame);
        assert_eq!(pool.outstanding(), 0);
    }
}

#[test]
fn no_more_than_the_limit_is_out_until_some_are_back() {
    let mut pools = pools(3);
    let (mut a, mut b) = End::pair(2);
    a.give(frame(&mut pools[0], 0), 0).unwrap();
    a.publish();
    a.give(frame(&mut pools[1], 1), 1).unwrap();
    let refused = a.give(frame(&mut pools[2], 2), 2).unwrap_err();
    assert_eq!(refused.bytes(), [2; 10]);
    a.publish();
    // Both are with the other worker, one of them settled and not yet taken: still too many.
    let mut taken = given(&mut b).into_iter();
    let (first, what) = taken.next().unwrap();
    b.settle(first, what);
    b.publish();
    let refused = a.give(refused, 2).unwrap_err();
    assert_eq!(settled(&mut a).len(), 1);
    a.give(refused, 2).unwrap();
    a.publish();
    assert_eq!(given(&mut b).len(), 1);
}

/// More than a burst at once: what is staged goes out by itself.
#[test]
fn staging_more_than_a_burst_loses_nothing() {
    const COUNT: usize = 2 * BURST + 5;
    let mut pools = pools(COUNT);
    let (mut a, mut b) = End::pair(COUNT);
    for (at, pool) in pools.iter_mut().enumerate() {
        a.give(frame(pool, 0), at as u32).unwrap();
    }
    a.publish();
    let mut expected = 0;
    while b.has_mail() {
        for (frame, what) in given(&mut b) {
            assert_eq!(what, expected);
            expected += 1;
            b.settle(frame, what);
        }
    }
    b.publish();
    let mut back = 0;
    while a.has_mail() {
        back += settled(&mut a).len();
    }
    assert_eq!((expected as usize, back, a.out()), (COUNT, COUNT, 0));
}

#[test]
fn what_was_given_to_a_worker_that_goes_comes_home() {
    let mut pools = pools(2);
    let (mut a, b) = End::pair(4);
    a.give(frame(&mut pools[0], 0), 0).unwrap();
    a.publish();
    drop(b);
    let kept = frame(&mut pools[1], 1);
    let kept = a.give(kept, 1).unwrap_err();
    pools[1].1.put(kept);
    let again = pools[0].1.take().unwrap();
    assert_eq!(pools[0].1.reclaimed(), 1);
    drop((a, again));
}

#[test]
fn what_is_settled_with_a_worker_that_is_gone_comes_home() {
    let mut pools = pools(2);
    let (mut a, mut b) = End::pair(4);
    for (at, pool) in pools.iter_mut().enumerate() {
        a.give(frame(pool, 0), at as u32).unwrap();
    }
    a.publish();
    let mut taken = given(&mut b).into_iter();
    let (first, _) = taken.next().unwrap();
    // One is on its way back, one is still here when the owner goes, with its pools.
    b.settle(first, 0);
    b.publish();
    drop((a, pools));
    let (second, _) = taken.next().unwrap();
    b.settle(second, 0);
    b.publish();
    assert!(!b.has_mail());
}

#[test]
fn two_threads_exchange_frames_both_ways() {
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };
    let (a, b) = End::pair(4);
    // Each sends its frame to and fro, and settles what the other sends.
    let worker = |mut end: End, name: u8| {
        move || {
            let mut pool = pools(1).remove(0);
            let (mut rounds, mut others) = (0, 0);
            while rounds < ROUNDS || others < ROUNDS {
                if rounds < ROUNDS && end.out() == 0 {
                    let mut frame = frame(&mut pool, name);
                    frame.bytes_mut()[0] = rounds as u8;
                    assert!(end.give(frame, rounds).is_ok(), "the limit is four");
                }
                for (mut frame, what) in given(&mut end) {
                    assert_eq!(frame.bytes()[..2], [what as u8, 1 - name]);
                    frame.bytes_mut()[1] = 0xff;
                    end.settle(frame, what);
                    others += 1;
                }
                for (frame, what) in settled(&mut end) {
                    assert_eq!(frame.bytes()[..2], [what as u8, 0xff]);
                    pool.1.put(frame);
                    rounds += 1;
                }
                end.publish();
                std::thread::yield_now();
            }
            (pool.1.outstanding(), end)
        }
    };
    let other = std::thread::spawn(worker(b, 1));
    let (outstanding, a) = worker(a, 0)();
    let (other_outstanding, b) = other.join().unwrap();
    assert_eq!((outstanding, other_outstanding), (0, 0));
    drop((a, b));
}
