//! What AF_XDP alone costs: a worker that receives on one veth and sends on another, without
//! looking at the packets.
//!
//! `cargo bench -p lockstep-xsk`, as root, on a machine with at least two free cores. A generator
//! thread sends 64-byte frames (UDP-sized; nothing on the way parses them) and keeps at most a
//! burst of 128 unanswered, so that no queue of a veth overflows; a sink beside it counts what
//! arrives and lets the generator go on. On veth, a packet is received by the CPU that sent it.

#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockstep_xsk::{PortOptions, RingSize, UmemConfig};
use support::{Namespace, Worker, in_a_row_with, packet};

const WARM_UP: u64 = 50_000;
const PACKETS: u64 = 1_000_000;
const WINDOW: u64 = 128;

/// What each operation took, in nanoseconds a packet, one sample a burst. Their medians say what
/// the operation costs even where other processes interrupt it.
#[derive(Default)]
struct Spent {
    receive: Vec<f64>,
    send: Vec<f64>,
    flush: Vec<f64>,
    reap: Vec<f64>,
    refill: Vec<f64>,
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let (config, options) = (UmemConfig::default(), PortOptions::default());
    in_a_row_with(&config, &options, |[generator, worker, sink]| {
        forward(worker, generator, sink);
    });
    rings_alone();
}

fn forward(worker: &mut Worker, generator: &mut Worker, sink: &mut Worker) {
    let stop = AtomicBool::new(false);
    let arrived = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let loads = scope.spawn(|| generate(generator, sink, &stop, &arrived));
        let mut spent = Spent::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        run(worker, WARM_UP, deadline, &mut Spent::default());
        let start = Instant::now();
        let forwarded = run(worker, PACKETS, deadline, &mut spent);
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let sent = loads.join().unwrap();
        let counters = worker.ports[1].counters();
        println!(
            "forwarded {forwarded} packets in {elapsed:.2?}: {:.0} packets/s ({} sent, {} arrived)",
            forwarded as f64 / elapsed.as_secs_f64(),
            sent,
            arrived.load(Ordering::Relaxed),
        );
        println!(
            "ns a packet, median burst: receive {:.1}, send {:.1}, flush (with the kernel's copy and \
             the veth) {:.1}, reap {:.1}, refill {:.1}",
            median(&mut spent.receive),
            median(&mut spent.send),
            median(&mut spent.flush),
            median(&mut spent.reap),
            median(&mut spent.refill),
        );
        println!(
            "{:.1} packets a wake-up, {} retries, {} refused, mode {}",
            counters.sent as f64 / counters.tx_wakeups as f64,
            counters.tx_retries,
            counters.send_refused,
            worker.ports[1].mode(),
        );
    });
}

/// Forwards `packets`, or what comes until the deadline. Returns how many.
fn run(worker: &mut Worker, packets: u64, deadline: Instant, spent: &mut Spent) -> u64 {
    let Worker {
        ports, burst, pool, ..
    } = worker;
    let [input, output] = &mut ports[..] else {
        panic!("two ports")
    };
    let mut forwarded = 0;
    while forwarded < packets && Instant::now() < deadline {
        let start = Instant::now();
        let received = input.receive(burst);
        if received == 0 {
            // On two cores the kernel's part may need this one.
            std::thread::yield_now();
            continue;
        }
        let got = Instant::now();
        for frame in burst.drain() {
            if let Err(frame) = output.send(frame) {
                pool.put(frame);
            }
        }
        let staged = Instant::now();
        output.flush().unwrap();
        let flushed = Instant::now();
        output.reap(pool);
        let reaped = Instant::now();
        input.refill(pool);
        let each = |time: Duration| time.as_nanos() as f64 / received as f64;
        let refilled = Instant::now();
        spent.receive.push(each(got - start));
        spent.send.push(each(staged - got));
        spent.flush.push(each(flushed - staged));
        spent.reap.push(each(reaped - flushed));
        spent.refill.push(each(refilled - reaped));
        forwarded += received as u64;
    }
    forwarded
}

fn generate(
    generator: &mut Worker,
    sink: &mut Worker,
    stop: &AtomicBool,
    arrived: &AtomicU64,
) -> u64 {
    let packet = packet(64, 1);
    let (mut sent, mut done) = (0, 0);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while sent - done < WINDOW {
            let mut frame = generator.pool.take().unwrap();
            frame.fill(&packet).unwrap();
            generator.ports[0].send(frame).unwrap();
            sent += 1;
        }
        generator.settle();
        let received = sink.ports[0].receive(&mut sink.burst) as u64;
        sink.burst.drain().for_each(|frame| sink.pool.put(frame));
        sink.settle();
        done += received;
        arrived.store(done, Ordering::Relaxed);
        if received > 0 {
            last = Instant::now();
        } else if last.elapsed() > Duration::from_millis(100) {
            // Lost on the way (a veth's queue was full after all): not waited for any more.
            done = sent;
        }
    }
    sent
}

/// The rings and the pool without a kernel behind them: frames are staged and put on the TX ring
/// of an interface that is down, taken from the pool and put back.
fn rings_alone() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut worker = Worker::new(&UmemConfig::default());
        let tx_ring = RingSize::new(8192).unwrap();
        worker.bind(
            "a0",
            0,
            &PortOptions {
                tx_ring,
                ..Default::default()
            },
        );
        let start = Instant::now();
        const ROUNDS: u32 = 10_000_000;
        for _ in 0..ROUNDS {
            let frame = std::hint::black_box(worker.pool.take().unwrap());
            worker.pool.put(frame);
        }
        println!(
            "take and put: {:.1} ns",
            start.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
        );
        let mut frames: Vec<_> = (0..8192).map(|_| worker.pool.take().unwrap()).collect();
        for frame in &mut frames {
            frame.set_len(64).unwrap();
        }
        let start = Instant::now();
        for frame in frames {
            worker.ports[0].send(frame).unwrap();
        }
        println!(
            "send onto the ring: {:.1} ns",
            start.elapsed().as_nanos() as f64 / 8192.0
        );
    });
}
