//! Turns of a worker without sockets, and what another one sees of them; in one thread.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::fixtures::{FRAMES, memory};
use crate::handover::Handover;
use crossbeam::queue::ArrayQueue;
use lockstep_core::DataplaneConfig;
use lockstep_core::replicate::stack::Transmit;
use lockstep_wire::LinkHeader;
use lockstep_xsk::FramePool;

const ALLOWANCE: u32 = 5;

/// A worker, and the one that hands it packets and lends it frames.
struct Pair {
    worker: Worker,
    near: Handover,
    pool: FramePool,
}

impl Pair {
    fn new() -> Self {
        let (umem, pool) = memory();
        let mut ends = Handover::between(&[None, Some(0)], FRAMES as usize).unwrap();
        let (far, near) = (ends.pop().unwrap(), ends.pop().unwrap());
        let dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 10,
            flows_v6: 10,
            seed: 1,
            ..DataplaneConfig::default()
        });
        let vitals = Vitals::new(Arc::clone(dataplane.counters()));
        let worker = Worker {
            links: Links::new(
                umem.guest_pool(),
                far,
                vec![Some(Way::Lender(0))],
                ALLOWANCE,
            ),
            burst: Burst::new(&umem),
            dataplane,
            sessions: Sessions::new(Arc::new(ArrayQueue::new(1)), None),
            tap: None,
            stopwatch: Stopwatch::default(),
            poll: Poll::Interrupt,
            mailbox: Mailbox::new(),
            vitals,
            epoch: Instant::now(),
        };
        Pair { worker, near, pool }
    }

    /// Hands it so many packets, none of which goes anywhere.
    fn hand_over(&mut self, packets: usize) {
        for _ in 0..packets {
            let mut frame = self.pool.take().unwrap();
            frame.fill(&[0; 60]).unwrap();
            let (port, timed) = (PortId(0), false);
            let given = self.near.give(1, frame, Given::Packet { port, timed });
            assert!(given.is_ok(), "there is room");
        }
        self.near.publish();
    }

    fn take_in(&mut self, bursts: usize) -> usize {
        let now = Now::since(self.worker.epoch);
        self.worker.take_in(bursts, now).unwrap()
    }

    /// How many frames have come back.
    fn back(&mut self) -> usize {
        let mut count = 0;
        loop {
            let mut settled = SettledBurst::new();
            self.near.take_back(0, &mut settled);
            if settled.is_empty() {
                return count;
            }
            count += settled.len();
            settled.drain(..).for_each(|frame| self.pool.put(frame));
        }
    }

    /// Has the worker send a packet, as its sessions do.
    fn send(&mut self) {
        self.near.lend(&mut self.pool);
        self.near.publish();
        assert_eq!(self.take_in(1), 0, "a loan is no packet");
        let mut frame = self.worker.links.pool.take().unwrap();
        frame.fill(&[0; 60]).unwrap();
        self.worker.links.send(PortId(0), frame).unwrap();
    }
}

#[test]
fn as_many_packets_are_taken_as_sessions_have_sent_up_to_a_ring() {
    let burst = BURST as u64;
    let found = [0, burst - 1, burst, 10 * burst, 1_000_000, u64::MAX].map(bursts_for);
    assert_eq!(found, [1, 1, 2, 11, BURSTS, BURSTS]);
}

#[test]
fn a_turn_takes_in_as_many_bursts_as_it_is_told_to_and_no_more_than_there_are() {
    for (packets, bursts, taken) in [
        (4 * BURST, 1, BURST),
        (4 * BURST, 3, 3 * BURST),
        (BURST - 1, BURSTS, BURST - 1),
        (2 * BURST + 10, BURSTS, 2 * BURST + 10),
        (2 * BURST, BURSTS, 2 * BURST),
        (0, BURSTS, 0),
    ] {
        let mut pair = Pair::new();
        pair.hand_over(packets);
        assert_eq!(pair.take_in(bursts), taken, "{packets} in {bursts} bursts");
    }
}

#[test]
fn what_a_burst_leads_to_is_out_before_the_next_one_is_taken() {
    let mut pair = Pair::new();
    pair.hand_over(3 * BURST);
    assert_eq!(pair.take_in(3), 3 * BURST);
    assert_eq!(pair.back(), 2 * BURST, "but for the last one's");
    pair.worker.links.flush().unwrap();
    assert_eq!(pair.back(), BURST);
}

#[test]
fn what_was_sent_is_out_before_a_worker_sleeps() {
    let mut pair = Pair::new();
    pair.send();
    assert_eq!(pair.back(), 0);
    pair.worker
        .links
        .await_packets(Duration::ZERO, || false)
        .unwrap();
    assert_eq!(pair.back(), 1);
}

#[test]
fn what_was_sent_is_out_when_a_worker_has_stopped() {
    let mut pair = Pair::new();
    pair.send();
    pair.worker.vitals.stop.store(true, Ordering::Relaxed);
    pair.worker.run().unwrap();
    assert_eq!(pair.back(), 1);
}

#[test]
fn what_is_lent_can_be_written_into_after_one_flush() {
    let Pair {
        mut worker,
        near,
        pool,
    } = Pair::new();
    let mut lender = Links::new(pool, near, Vec::new(), ALLOWANCE);
    lender.flush().unwrap();
    let now = Now::since(worker.epoch);
    worker.take_in(1, now).unwrap();
    assert!(!worker.links.pool.is_empty());
}

#[test]
fn sessions_have_room_for_their_allowance_in_each_turn() {
    let mut pair = Pair::new();
    pair.near.lend(&mut pair.pool);
    pair.near.publish();
    pair.take_in(1);
    let port = PortId(0);
    let link = LinkHeader {
        destination: [2; 6],
        source: [3; 6],
        vlan: None,
    };
    let links = &mut pair.worker.links;
    for _ in 0..2 {
        let mut sent = 0;
        while links.has_room(port) {
            assert!(links.transmit(port, &link, 40, |packet| packet.fill(0x45)));
            sent += 1;
        }
        assert_eq!(sent, ALLOWANCE);
        links.end_turn();
    }
}
