//! Frames of real UMEMs, between workers of one thread.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixtures::{FRAMES, memory};

fn packet(pool: &mut FramePool, bytes: &[u8]) -> Frame {
    let mut frame = pool.take().unwrap();
    frame.fill(bytes).unwrap();
    frame
}

/// What the worker at `place` has given, with the frames' bytes; all of it is settled as free.
fn delivered(worker: &mut Handover, place: usize) -> Vec<(Vec<u8>, Given)> {
    let mut all = Vec::new();
    loop {
        let mut given = GivenBurst::new();
        worker.take(place, &mut given);
        if given.is_empty() {
            break;
        }
        for frame in given {
            all.push((frame.bytes().to_vec(), Given::of(&frame)));
            worker.settle(place, frame, Settled::Free { timed: false });
        }
    }
    worker.publish();
    all
}

/// Takes back all there is; returns how many frames.
fn collect(worker: &mut Handover, place: usize, pool: &mut FramePool) -> usize {
    let mut count = 0;
    loop {
        let mut settled = SettledBurst::new();
        worker.take_back(place, &mut settled);
        if settled.is_empty() {
            return count;
        }
        for frame in settled {
            pool.put(frame);
            count += 1;
        }
    }
}

const fn arrived(port: u8) -> Given {
    Given::Packet {
        port: PortId(port),
        timed: false,
    }
}

#[test]
fn packets_come_in_order_with_their_interface_and_go_home() {
    let (_umem, mut pool) = memory();
    let mut workers = Handover::between(&[None; 3], FRAMES as usize).unwrap();
    let [_, b, c] = workers.as_mut_slice() else {
        panic!("three workers")
    };
    assert_eq!(c.others(), 2);
    c.give(1, packet(&mut pool, b"one"), arrived(3)).unwrap();
    c.give(1, packet(&mut pool, b"two"), Given::Session(PortId(4)))
        .unwrap();
    assert!(!b.has_mail(), "not before it is published");
    c.publish();
    assert!(b.has_mail() && !c.has_mail());
    // The places of the others are their numbers, without one's own.
    assert_eq!(delivered(b, 0), []);
    assert_eq!(
        delivered(b, 1),
        [
            (b"one".to_vec(), arrived(3)),
            (b"two".to_vec(), Given::Session(PortId(4)))
        ]
    );
    assert!(c.has_mail());
    assert_eq!(collect(c, 1, &mut pool), 2);
    assert_eq!(pool.outstanding(), 0);
}

#[test]
fn a_worker_that_takes_nothing_leaves_frames_for_the_others() {
    let (_umem, mut pool) = memory();
    let mut workers = Handover::between(&[None; 3], FRAMES as usize).unwrap();
    let limit = FRAMES as usize / 4 / 2;
    let given = (0..FRAMES).filter(|_| {
        let frame = packet(&mut pool, b"lost");
        let given = workers[0].give(1, frame, arrived(0));
        given.map_err(|frame| pool.put(frame)).is_ok()
    });
    assert_eq!(given.count(), limit);
    for round in 0..FRAMES {
        let frame = packet(&mut pool, b"kept");
        assert!(workers[0].give(2, frame, arrived(0)).is_ok(), "{round}");
        workers[0].publish();
        assert_eq!(delivered(&mut workers[2], 0).len(), 1);
        assert_eq!(collect(&mut workers[0], 1, &mut pool), 1);
    }
    assert_eq!(delivered(&mut workers[1], 0).len(), limit);
    assert_eq!(collect(&mut workers[0], 0, &mut pool), limit);
    let frame = packet(&mut pool, b"again");
    assert!(workers[0].give(1, frame, arrived(0)).is_ok());
}

#[test]
fn nothing_is_given_to_oneself_to_nobody_or_to_a_worker_that_ended() {
    let (_umem, mut pool) = memory();
    let mut workers = Handover::between(&[None; 2], FRAMES as usize).unwrap();
    drop(workers.remove(1));
    for to in [0, 1, 2, 255] {
        let frame = packet(&mut pool, b"x");
        let frame = workers[0].give(to, frame, arrived(0)).unwrap_err();
        pool.put(frame);
    }
    assert!(Handover::between(&[None; 256], FRAMES as usize).is_err());
}

#[test]
fn a_worker_without_memory_sends_in_frames_that_it_was_lent() {
    let (umem, mut pool) = memory();
    let mut guest = umem.guest_pool();
    let mut workers = Handover::between(&[None, Some(0)], FRAMES as usize).unwrap();
    let [a, b] = workers.as_mut_slice() else {
        panic!("two workers")
    };
    for _ in 0..2 {
        a.lend(&mut pool);
        a.publish();
        assert_eq!(pool.outstanding(), LOAN, "no more than that");
        let mut given = GivenBurst::new();
        b.take(0, &mut given);
        for frame in given {
            assert_eq!(Given::of(&frame), Given::Loan);
            guest.put(frame);
        }
    }
    let mut frame = guest.take().unwrap();
    frame.fill(b"segment").unwrap();
    b.send(0, frame, PortId(2));
    b.publish();
    let mut settled = SettledBurst::new();
    a.take_back(0, &mut settled);
    let [frame] = settled.as_slice() else {
        panic!("{settled:?}")
    };
    let (port, length) = (PortId(2), 7);
    assert_eq!(Settled::of(frame), Settled::Loan { port, length });
    assert_eq!(frame.bytes(), b"segment");
    settled.into_iter().for_each(|frame| pool.put(frame));
    // What was used is lent anew.
    a.lend(&mut pool);
    assert_eq!(pool.outstanding(), LOAN);
    // Loans take no room from packets.
    let given = (0..FRAMES as usize / 4).filter(|_| {
        let frame = packet(&mut pool, b"x");
        a.give(1, frame, arrived(0)).is_ok()
    });
    assert_eq!(given.count(), FRAMES as usize / 4);
}

#[test]
fn one_packet_at_a_time_is_timed_from_its_receipt_to_its_return() {
    let (_umem, mut pool) = memory();
    let mut workers = Handover::between(&[None; 2], FRAMES as usize).unwrap();
    let received = Instant::now();
    // The second finds the first under way; the third comes when that was dropped over there.
    for (packets, sent, expected) in [(1, false, None), (2, true, Some(received))] {
        for _ in 0..packets {
            let frame = packet(&mut pool, b"x");
            workers[0]
                .give_timed(1, frame, PortId(0), received)
                .unwrap();
        }
        workers[0].publish();
        let mut given = GivenBurst::new();
        workers[1].take(0, &mut given);
        let are_timed: Vec<bool> = given
            .iter()
            .map(|frame| matches!(Given::of(frame), Given::Packet { timed: true, .. }))
            .collect();
        assert_eq!(are_timed, [true, false][..packets]);
        for (frame, timed) in given.into_iter().zip(are_timed) {
            let (port, length) = (PortId(0), 1);
            let settled = match sent {
                true => Settled::Forward {
                    port,
                    length,
                    timed,
                },
                false => Settled::Free { timed },
            };
            workers[1].settle(0, frame, settled);
        }
        workers[1].publish();
        let mut settled = SettledBurst::new();
        assert_eq!(workers[0].take_back(0, &mut settled), expected);
        assert_eq!(settled.len(), packets);
    }
}

#[test]
fn what_is_said_of_a_frame_is_what_was_meant() {
    let (_umem, mut pool) = memory();
    let mut workers = Handover::between(&[None; 2], FRAMES as usize).unwrap();
    let (port, length) = (PortId(255), u16::MAX);
    for timed in [false, true] {
        let frame = packet(&mut pool, b"x");
        let what = Given::Packet { port, timed };
        workers[0].give(1, frame, what).unwrap();
        workers[0].publish();
        let mut given = GivenBurst::new();
        workers[1].take(0, &mut given);
        assert_eq!(Given::of(&given[0]), what);
        let what = Settled::Forward {
            port,
            length,
            timed,
        };
        workers[1].settle(0, given.remove(0), what);
        workers[1].publish();
        let mut settled = SettledBurst::new();
        workers[0].take_back(0, &mut settled);
        assert_eq!(Settled::of(&settled[0]), what);
        pool.put(settled.remove(0));
    }
}
