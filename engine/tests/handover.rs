//! A worker without sockets, as it runs: it processes what another hands to it, and takes no memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../src/fixtures.rs"]
mod fixtures;

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use fixtures::{FRAMES, memory};
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{Dataplane, DataplaneConfig, EngineAddresses, Spread, SpreadBy, Tables};
use lockstep_engine::handover::{Given, Handover, Settled, SettledBurst};
use lockstep_engine::mailbox::{Mailbox, Vitals};
use lockstep_engine::worker::{Links, Sessions, Stopwatch, Way, Worker};
use lockstep_plan::{
    Backend, BackendState, Guard, Health, IdleTimeouts, Mode, Scheduler, Service, ServiceName,
    Snapshot, TableSize, Weight,
};
use lockstep_topology::Poll;
use lockstep_wire::LinkHeader;
use lockstep_xsk::{Burst, FramePool, Umem};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PACKETS: usize = 20_000;

#[test]
fn a_worker_without_sockets_processes_for_another_and_allocates_nothing() {
    let (umem, mut pool) = memory();
    let mut ends = Handover::between(&[None, Some(0)], FRAMES as usize).unwrap();
    let (far, mut near) = (ends.pop().unwrap(), ends.pop().unwrap());
    let (thread, vitals) = worker(&umem, far, |mut worker| {
        std::thread::spawn(move || allocation_counter::measure(|| worker.run().unwrap()))
    });

    let (mut given, mut forwarded, mut dropped) = (0, 0, 0);
    let mut exchange = |near: &mut Handover, pool: &mut FramePool| {
        while given < PACKETS {
            let mut frame = pool.take().unwrap();
            frame.fill(&packet(given as u32)).unwrap();
            let what = Given::Packet {
                port: PortId(0),
                timed: false,
            };
            if let Err(frame) = near.give(1, frame, what) {
                pool.put(frame);
                break;
            }
            given += 1;
        }
        near.lend(pool);
        near.publish();
        let mut settled = SettledBurst::new();
        near.take_back(0, &mut settled);
        for frame in settled.drain(..) {
            match Settled::of(&frame) {
                Settled::Forward { port, length, .. } => {
                    assert_eq!((port, usize::from(length)), (PortId(3), frame.len()));
                    forwarded += 1;
                }
                Settled::Free { .. } => dropped += 1,
                Settled::Loan { .. } => panic!("there are no sessions"),
            }
            pool.put(frame);
        }
        forwarded + dropped
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while exchange(&mut near, &mut pool) < PACKETS {
        assert!(Instant::now() < deadline, "packets do not come back");
        std::thread::yield_now();
    }
    vitals.stop.store(true, Ordering::Relaxed);
    let used = thread.join().unwrap();
    // Every eighth packet is for no VIP.
    assert_eq!((forwarded, dropped), (PACKETS - PACKETS / 8, PACKETS / 8));
    assert_eq!(vitals.taken_over.get(), PACKETS as u64);
    assert_eq!(vitals.dropped.get(), PACKETS as u64 / 8);
    assert_eq!((used.count_total, used.count_current), (0, 0), "{used:?}");

    let control = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1_u8))));
    assert_eq!(control.count_total, 1, "the counter counts");
}

/// Starts the second of two workers, which has no queue.
fn worker<T>(umem: &Umem, handover: Handover, start: impl FnOnce(Worker) -> T) -> (T, Arc<Vitals>) {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 10_000,
        flows_v6: 10,
        seed: 1,
        ..DataplaneConfig::default()
    })
    .with_spread(Spread {
        me: 1,
        processing: [1].into(),
        by: SpreadBy::Flow,
    });
    dataplane.adopt(Arc::new(tables()));
    let vitals = Vitals::new(Arc::clone(dataplane.counters()));
    let worker = Worker {
        links: Links::new(
            umem.guest_pool(),
            handover,
            vec![Some(Way::Lender(0)); 4],
            u32::MAX,
        ),
        burst: Burst::new(umem),
        dataplane,
        sessions: Sessions::new(Arc::new(ArrayQueue::new(1)), None),
        tap: None,
        stopwatch: Stopwatch::default(),
        poll: Poll::Adaptive,
        mailbox: Mailbox::new(),
        vitals: Arc::clone(&vitals),
        epoch: Instant::now(),
    };
    (start(worker), vitals)
}

fn tables() -> Tables {
    let backend = Backend {
        name: "s1".to_owned(),
        address: "10.0.0.1".parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    };
    let service = Service {
        name: ServiceName::new("dns").unwrap(),
        vips: vec!["203.0.113.10:53/udp".parse().unwrap()],
        mode: Mode::TUNNEL,
        backends: vec![backend],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).unwrap();
    let addresses = EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: None,
    };
    let link = LinkHeader {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        vlan: None,
    };
    let route = Route {
        port: PortId(3),
        link,
        mtu: 1600,
    };
    Tables::compile(&Tables::default(), &snapshot, addresses, |_| {
        NextHop::Via(route)
    })
    .unwrap()
}

/// A datagram of client `n` as the XDP program hands it over; every eighth is for no VIP.
fn packet(n: u32) -> ArrayVec<u8, 64> {
    let mut frame = ArrayVec::from([0; 64]);
    frame[12..16].copy_from_slice(&[0x88, 0xb5, 0, 20]);
    let last = if n.is_multiple_of(8) { 99 } else { 10 };
    let packet = &mut frame[34..];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[12..16].copy_from_slice(&(0x0b00_0000 + n).to_be_bytes());
    packet[16..20].copy_from_slice(&[203, 0, 113, last]);
    packet[20..26].copy_from_slice(&[0x10, 0, 0, 53, 0, 10]);
    let sum = lockstep_wire::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    frame
}
