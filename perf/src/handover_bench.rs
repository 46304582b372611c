//! What it costs that a packet changes workers: frames of a real UMEM through real rings, in bursts of
//! 64, beside the same processing without it.
//!
//! `handover` is one thread that plays both workers in turn: the instructions and the first-level
//! cache. `handover-2-cores` is two threads on two cores, each of which times its own work and not its
//! waiting: with the way of the rings' and the frames' cache lines between the cores, which depends on
//! the machine more than on the program. Both are what comes on top of the processing.

use crate::measure::median;
use anyhow::Context;
use arrayvec::ArrayVec;
use lockstep_core::{BURST, Dataplane, DataplaneConfig, Micros, PortId, Spread, SpreadBy, Verdict};
use lockstep_counts::packets::{packet_of, tunnels};
use lockstep_plan::DropReason;
use lockstep_xsk::{Exchange, Frame, FramePool, Umem, UmemConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Flows, as many as a busy service's worker has at a time.
pub const FLOWS: u32 = 10_000;
/// Packets of a round.
const PACKETS: usize = 1_000_000;
const FRAMES: u32 = 4_096;
/// Frames that may be with the other worker: sixteen bursts, as in the engine.
const LIMIT: usize = 1_024;

/// What is said of a frame that is given: the interface that it came in by.
const PORT: u32 = 0;

/// Bursts whose instructions are counted.
pub const COUNTED: usize = 1_000;

/// What callgrind is to count inside of: entering `process` ends it for that time.
pub const TOGGLES: [&str; 4] = ["give", "work", "take_back", "process"];

/// The hand-over on one thread, for callgrind.
pub fn count() -> anyhow::Result<()> {
    let mut bench = Bench::new()?;
    bench.one_core(COUNTED);
    Ok(())
}

/// The paths and their nanoseconds per packet: medians of so many rounds.
pub fn run(rounds: usize) -> anyhow::Result<[(&'static str, f64); 2]> {
    let mut bench = Bench::new()?;
    bench.alone();
    let alone: Vec<f64> = (0..rounds).map(|_| bench.alone()).collect();
    let one_core: Vec<f64> = (0..rounds)
        .map(|_| bench.one_core(PACKETS / BURST))
        .collect();
    let two_cores: Vec<f64> = (0..rounds).map(|_| bench.two_cores()).collect();
    let base = median(alone);
    Ok([
        ("handover", median(one_core) - base),
        ("handover-2-cores", median(two_cores) - base),
    ])
}

struct Bench {
    _umem: Umem,
    pool: FramePool,
    /// Of the worker that receives.
    receiver: Dataplane,
    /// Of the one that processes.
    processor: Dataplane,
    next: u32,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let (umem, pool) = Umem::new(&UmemConfig {
            frames: FRAMES,
            huge_pages: false,
            ..UmemConfig::default()
        })
        .context("frames need root")?;
        let tables = Arc::new(tunnels());
        let dataplane = |me, flows| {
            let mut dataplane = Dataplane::new(&DataplaneConfig {
                flows_v4: flows,
                flows_v6: 0,
                seed: 0x5eed,
                ..DataplaneConfig::default()
            })
            .with_spread(Spread {
                me,
                processing: [1].into(),
                by: SpreadBy::Flow,
            });
            dataplane.adopt(Arc::clone(&tables));
            dataplane
        };
        Ok(Bench {
            _umem: umem,
            pool,
            receiver: dataplane(0, 0),
            processor: dataplane(1, 1_000_000),
            next: 0,
        })
    }

    /// A burst of packets as they come from a socket.
    fn arrive(&mut self) -> ArrayVec<Frame, BURST> {
        (0..BURST)
            .map(|_| {
                let mut frame = self.pool.take().expect("there are more than are out");
                self.next = (self.next + 7) % FLOWS;
                frame
                    .fill(packet_of(self.next).as_ref())
                    .expect("a frame has room for a small packet");
                frame
            })
            .collect()
    }

    /// One worker does it all.
    fn alone(&mut self) -> f64 {
        let mut spent = Times::default();
        for _ in 0..PACKETS / BURST {
            let mut frames = self.arrive();
            let start = Instant::now();
            let verdicts = process(&mut self.processor, frames.iter_mut());
            for (mut frame, verdict) in frames.drain(..).zip(verdicts) {
                finish(&mut frame, length(verdict));
                self.pool.put(frame);
            }
            spent.add(start.elapsed(), BURST);
        }
        spent.median()
    }

    /// Two workers, in turn on one thread.
    fn one_core(&mut self, bursts: usize) -> f64 {
        let (mut near, mut far) = Exchange::pair(LIMIT);
        let mut spent = Times::default();
        for _ in 0..bursts {
            let mut frames = self.arrive();
            let start = Instant::now();
            give(&self.receiver, &mut near, &mut frames);
            work(&mut self.processor, &mut far);
            let back = take_back(&mut self.pool, &mut near);
            spent.add(start.elapsed(), back);
            assert_eq!(back, BURST);
        }
        spent.median()
    }

    /// Two workers on two cores.
    fn two_cores(&mut self) -> f64 {
        let (mut near, mut far) = Exchange::pair(LIMIT);
        let done = AtomicBool::new(false);
        let mut processor = std::mem::replace(
            &mut self.processor,
            Dataplane::new(&DataplaneConfig {
                flows_v4: 0,
                flows_v6: 0,
                seed: 0,
                ..DataplaneConfig::default()
            }),
        );
        let spent = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
                let mut spent = Times::default();
                while !done.load(Ordering::Relaxed) {
                    if far.has_mail() {
                        let start = Instant::now();
                        let packets = work(&mut processor, &mut far);
                        spent.add(start.elapsed(), packets);
                    } else {
                        std::hint::spin_loop();
                    }
                }
                spent
            });
            core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
            let (mut gave, mut took) = (Times::default(), Times::default());
            let (mut given, mut back) = (0, 0);
            let packets = PACKETS / BURST * BURST;
            while back < packets {
                if given < packets && near.out() + BURST <= LIMIT {
                    let mut frames = self.arrive();
                    let start = Instant::now();
                    give(&self.receiver, &mut near, &mut frames);
                    gave.add(start.elapsed(), BURST);
                    given += BURST;
                }
                if near.has_mail() {
                    let start = Instant::now();
                    let packets = take_back(&mut self.pool, &mut near);
                    took.add(start.elapsed(), packets);
                    back += packets;
                }
            }
            done.store(true, Ordering::Relaxed);
            let worked = other.join().expect("the other thread has not panicked");
            gave.median() + worked.median() + took.median()
        });
        self.processor = processor;
        spent
    }
}

/// What the worker does that receives: asks whose each packet is, and hands it over.
#[inline(never)]
fn give(receiver: &Dataplane, near: &mut Exchange, frames: &mut ArrayVec<Frame, BURST>) {
    for frame in frames.drain(..) {
        let owner = receiver.owner(frame.bytes());
        assert_eq!(owner, Some(1));
        let given = near.give(frame, PORT);
        assert!(given.is_ok(), "the limit was looked at");
    }
    near.publish();
}

/// What the worker does that processes.
#[inline(never)]
fn work(processor: &mut Dataplane, far: &mut Exchange) -> usize {
    let mut taken = ArrayVec::<Frame, BURST>::new();
    far.take_given(&mut taken);
    let count = taken.len();
    let verdicts = process(processor, taken.iter_mut());
    for (frame, verdict) in taken.drain(..).zip(verdicts) {
        let port = frame.word();
        far.settle(frame, port << 16 | u32::from(length(verdict)));
    }
    far.publish();
    count
}

/// What the first one does with what comes back.
#[inline(never)]
fn take_back(pool: &mut FramePool, near: &mut Exchange) -> usize {
    let mut settled = ArrayVec::<Frame, BURST>::new();
    near.take_settled(&mut settled);
    let count = settled.len();
    for mut frame in settled.drain(..) {
        let length = frame.word() as u16;
        finish(&mut frame, length);
        pool.put(frame);
    }
    count
}

#[inline(never)]
fn process<'a>(
    dataplane: &mut Dataplane,
    frames: impl Iterator<Item = &'a mut Frame>,
) -> [Verdict; BURST] {
    let mut verdicts = [Verdict::Drop(DropReason::TxFull); BURST];
    let mut frames: ArrayVec<&mut [u8], BURST> = frames.map(Frame::bytes_mut).collect();
    let now = Micros::new(1_000_000);
    dataplane.process(now, &[PortId(0); BURST], &mut frames, &mut verdicts);
    verdicts
}

fn length(verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Forward { length, .. } => length,
        other => panic!("a packet was not forwarded: {other:?}"),
    }
}

/// What comes before the TX ring, which is not measured.
fn finish(frame: &mut Frame, length: u16) {
    frame
        .set_len(usize::from(length))
        .expect("the dataplane wrote so many bytes");
}

/// How long each burst took, in nanoseconds per packet.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, spent: Duration, packets: usize) {
        self.0.push(spent.as_nanos() as f64 / packets as f64);
    }

    /// Of all bursts: one during which the thread had to wait for its core counts as any other.
    fn median(self) -> f64 {
        median(self.0)
    }
}
