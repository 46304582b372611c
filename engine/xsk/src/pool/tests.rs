//! The pool and its frames against a model, on a real UMEM (so as root).

use proptest::prelude::*;

use crate::burst::Burst;
use crate::frame::Frame;
use crate::umem::{RingSize, Umem, UmemConfig};

#[derive(Debug, Clone)]
enum Action {
    Take,
    Put(prop::sample::Index),
    Drop(prop::sample::Index),
    SetLen(prop::sample::Index, usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Take),
        2 => any::<prop::sample::Index>().prop_map(Action::Put),
        1 => any::<prop::sample::Index>().prop_map(Action::Drop),
        1 => (any::<prop::sample::Index>(), 0usize..2100)
            .prop_map(|(index, len)| Action::SetLen(index, len)),
    ]
}

/// Writes all of a frame, so that a chunk which two frames had would show in one of them.
fn stamp(frame: &mut Frame, number: u8) {
    frame.set_len(frame.capacity()).expect("its own capacity");
    frame.bytes_mut().fill(number);
}

fn is_stamped(frame: &mut Frame, number: u8) -> bool {
    frame.set_len(frame.capacity()).expect("its own capacity");
    frame.bytes().iter().all(|byte| *byte == number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_frames_share_a_byte_and_none_is_lost(
        actions in prop::collection::vec(action(), 1..200),
    ) {
        const FRAMES: usize = 16;
        let ring = RingSize::new(64).unwrap();
        let (_umem, mut pool) = Umem::new(&UmemConfig {
            frames: FRAMES as u32,
            huge_pages: false,
            fill_ring: ring,
            completion_ring: ring,
            ..Default::default()
        })
        .expect("the tests run as root");
        let mut out: Vec<(Frame, u8)> = Vec::new();
        for (action, number) in actions.into_iter().zip((0..=255).cycle()) {
            match action {
                Action::Take => match pool.take() {
                    Some(mut frame) => {
                        prop_assert!(frame.is_empty());
                        prop_assert_eq!(frame.capacity(), 1792);
                        stamp(&mut frame, number);
                        out.push((frame, number));
                    }
                    None => prop_assert_eq!(out.len(), FRAMES),
                },
                Action::Put(_) | Action::Drop(_) | Action::SetLen(..) if out.is_empty() => {}
                Action::Put(index) => {
                    let (mut frame, number) = out.swap_remove(index.index(out.len()));
                    prop_assert!(is_stamped(&mut frame, number));
                    pool.put(frame);
                }
                Action::Drop(index) => {
                    let (mut frame, number) = out.swap_remove(index.index(out.len()));
                    prop_assert!(is_stamped(&mut frame, number));
                    drop(frame);
                }
                Action::SetLen(index, len) => {
                    let at = index.index(out.len());
                    let frame = &mut out[at].0;
                    let before = frame.len();
                    let done = frame.set_len(len);
                    prop_assert_eq!(done.is_ok(), len <= 1792);
                    prop_assert_eq!(frame.len(), if len <= 1792 { len } else { before });
                }
            }
            pool.reclaim();
            prop_assert_eq!(pool.outstanding(), out.len());
            prop_assert_eq!(pool.len() + out.len(), pool.total());
        }
        for (mut frame, number) in out {
            prop_assert!(is_stamped(&mut frame, number));
        }
        pool.reclaim();
        prop_assert_eq!(pool.len(), FRAMES);
    }
}

#[test]
fn short_packets_get_zeros_behind_them_and_others_stay() {
    for (length, least, expected) in [(3, 10, 10), (10, 3, 10), (3, 0, 3), (3, usize::MAX, 3)] {
        let ring = RingSize::new(64).unwrap();
        let (umem, mut pool) = Umem::new(&UmemConfig {
            frames: 16,
            huge_pages: false,
            fill_ring: ring,
            completion_ring: ring,
            ..Default::default()
        })
        .expect("the tests run as root");
        let mut frame = pool.take().unwrap();
        // What an earlier packet left behind.
        frame.set_len(frame.capacity()).unwrap();
        frame.bytes_mut().fill(0xab);
        frame.set_len(length).unwrap();
        let mut burst = Burst::new(&umem);
        burst.spare()[0] = frame.into_tx_desc();
        // SAFETY: the frame's chunk, which the pool counts as lent, goes over into the burst.
        assert_eq!(unsafe { burst.accept(1) }, 1);
        burst.pad(least);
        let padded = [vec![0xab; length], vec![0; expected - length]].concat();
        assert_eq!(burst.iter_mut().next().unwrap(), padded);
        let mut frame = burst.drain().next().unwrap();
        assert_eq!(frame.bytes(), padded, "the frame is as long");

        frame.set_len(frame.capacity()).unwrap();
        frame.bytes_mut().fill(0xab);
        frame.set_len(length).unwrap();
        frame.pad(least);
        assert_eq!(frame.bytes(), padded);
    }
}
