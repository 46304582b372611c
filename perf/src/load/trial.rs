//! A trial: one rate for a while, by one thread a queue, and what came of all of them.

use super::Outcome;
use super::attached::pin;
use super::clock::now;
use super::datagrams::{self, Datagrams, Part, Share, Sockets};
use super::live::Live;
use super::observer::{Observed, observe};
use super::pace::Pace;
use super::place::Carrier;
use super::prepared::Prepared;
use super::show::Progress;
use super::socket::Line;
use super::spread::Spread;
use super::stop::Stop;
use super::transactions::{self, Transactions};
use anyhow::{Context, Result, ensure};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// For all threads to be at the beginning, in nanoseconds.
const RUN_UP: u64 = 5_000_000;
/// How often signals are looked for.
const GLANCE: Duration = Duration::from_millis(50);

/// What is sent.
#[derive(Debug)]
pub enum Plan {
    /// Datagrams.
    Udp(Box<Datagrams>),
    /// Transactions of TCP.
    Tcp(Box<Transactions>),
}

impl Plan {
    fn verifies(&self) -> bool {
        match self {
            Plan::Udp(datagrams) => datagrams.verify,
            Plan::Tcp(transactions) => transactions.verify,
        }
    }
}

/// Where a load is sent and taken: a line of sockets each, with as many queues.
#[derive(Debug)]
pub struct Bench {
    /// Where it arrives. It goes before the source, which keeps the interface from other processes where
    /// both are on the same one.
    pub sink: Arrival,
    /// Where it leaves.
    pub source: Line,
    /// The CPU of each thread; none: wherever the kernel puts it.
    pub cpus: Vec<usize>,
    /// A CPU that is looked at while it is sent.
    pub observed_cpu: Option<usize>,
    /// Nanoseconds to wait for what is on the way.
    pub patience: u64,
}

/// Where packets arrive.
#[derive(Debug)]
pub enum Arrival {
    /// At the source's sockets.
    Source,
    /// At others.
    Line(Box<Line>),
    /// Somebody else counts them.
    Elsewhere,
}

impl Bench {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        let sink = match &self.sink {
            Arrival::Line(line) => Some(&**line),
            Arrival::Source | Arrival::Elsewhere => None,
        };
        std::iter::once(&self.source).chain(sink)
    }

    fn carriers(&self) -> Result<Vec<Carrier>> {
        self.lines().map(Line::carrier).collect()
    }

    /// The interfaces whose link is down, or was since `before`.
    fn went_down(&self, before: &[Carrier]) -> Result<Vec<String>> {
        let mut down = Vec::new();
        for (line, before) in self.lines().zip(before) {
            if !line.carrier()?.stayed(*before) {
                down.push(line.interface().to_owned());
            }
        }
        Ok(down)
    }
}

impl Arrival {
    fn counts(&self) -> bool {
        !matches!(self, Arrival::Elsewhere)
    }
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Packets or transactions a second, of all threads together.
    rate: u64,
    /// When the first is due, in nanoseconds of the clock.
    start: u64,
    /// For how long, in nanoseconds.
    duration: u64,
    /// How long to wait for what is on the way then, in nanoseconds.
    patience: u64,
}

/// What came of a trial.
#[derive(Debug)]
pub struct Trial {
    /// In figures.
    pub outcome: Outcome,
    /// All latencies.
    pub spread: Spread,
}

/// Runs one trial of `rate` packets or transactions a second for so many seconds.
pub fn run(
    bench: &mut Bench,
    plan: &mut Plan,
    rate: u64,
    seconds: f64,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<Trial> {
    if let Plan::Udp(datagrams) = plan {
        // Of the clock, so that a run after this one has other numbers, too.
        datagrams.run = (now() >> 20) as u16;
        // Nobody here reads a stamp otherwise.
        datagrams.prepared = match bench.sink.counts() {
            true => None,
            false => Prepared::new(datagrams),
        };
    }
    let before = bench.carriers()?;
    let offered = Rate {
        rate,
        start: now() + RUN_UP,
        duration: (seconds * 1e9) as u64,
        patience: bench.patience,
    };
    let (parts, observed) = observed(bench, plan, offered, progress, stop)?;
    let down = bench.went_down(&before)?;
    let mut spread = Spread::new();
    parts.iter().for_each(|part| spread.merge(&part.spread));
    let mut outcome = sum(&parts, rate as f64, matches!(plan, Plan::Tcp(_)));
    if !bench.sink.counts() {
        // Nobody here knows.
        outcome.lost = 0;
    }
    outcome.observed_cpu_seconds = observed.and_then(|observed| observed.of(outcome.seconds));
    outcome.latency = spread.latency()?;
    outcome.down = down;
    let corrupt = parts.iter().map(|part| part.corrupt).sum();
    outcome.corrupt = plan.verifies().then_some(corrupt);
    Ok(Trial { outcome, spread })
}

/// All threads, and beside them the one that looks at a CPU.
fn observed(
    bench: &mut Bench,
    plan: &Plan,
    rate: Rate,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<(Vec<Part>, Option<Observed>)> {
    let threads = bench.source.sockets.len();
    let (marks, seen) = channel();
    let cpu = bench.observed_cpu;
    let live = Live::new(progress.is_shown(), cpu.map(|cpu| (cpu, marks)));
    thread::scope(|scope| {
        let observer = cpu.map(|cpu| scope.spawn(move || observe(cpu, threads, &seen)));
        let parts = parts(bench, plan, rate, &live, progress, stop);
        live.ended();
        let observed = observer.map(|observer| match observer.join() {
            Ok(observed) => observed,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok((parts?, observed.transpose()?.flatten()))
    })
}

/// One thread a queue; this one looks after them.
fn parts(
    bench: &mut Bench,
    plan: &Plan,
    rate: Rate,
    live: &Live,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<Vec<Part>> {
    let Bench {
        source, sink, cpus, ..
    } = bench;
    let threads = source.sockets.len() as u32;
    let mut sinks: Vec<Sockets<'_>> = match sink {
        Arrival::Source => source.sockets.iter_mut().map(Sockets::Same).collect(),
        Arrival::Elsewhere => (source.sockets.iter_mut())
            .map(|socket| Sockets::Two(socket, None))
            .collect(),
        Arrival::Line(line) => (source.sockets.iter_mut())
            .zip(&mut line.sockets)
            .map(|(socket, sink)| Sockets::Two(socket, Some(sink)))
            .collect(),
    };
    let (done, results) = channel();
    thread::scope(|scope| {
        for (thread, sockets) in (0..threads).zip(sinks.drain(..)) {
            let share = Share { thread, threads };
            let cpu = cpus.get(thread as usize).copied();
            let done = done.clone();
            scope.spawn(move || {
                let part = part(plan, sockets, share, cpu, rate, live);
                if part.is_err() {
                    live.stop(true);
                }
                // The receiver stays until all have answered.
                let _ = done.send(part);
            });
        }
        drop(done);
        let mut parts = Vec::new();
        loop {
            match results.recv_timeout(GLANCE) {
                Ok(part) => parts.push(part?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if stop.is_set() {
                live.stop(stop.is_urgent());
            }
            progress.glance(live);
        }
        progress.end();
        ensure!(
            parts.len() == threads as usize,
            "a thread of the generator panicked"
        );
        Ok(parts)
    })
}

/// A thread's share of the load.
fn part(
    plan: &Plan,
    sockets: Sockets<'_>,
    share: Share,
    cpu: Option<usize>,
    rate: Rate,
    live: &Live,
) -> Result<Part> {
    pin(cpu)?;
    let (threads, thread) = (u64::from(share.threads), u64::from(share.thread));
    match plan {
        Plan::Udp(datagrams) => {
            let Rate {
                rate,
                start,
                duration,
                patience,
            } = rate;
            let own = rate / threads + u64::from(thread < rate % threads);
            // Threads take turns too.
            let offset = thread * 1_000_000_000 / rate.max(1);
            let pace = Pace::new(start + offset, own, duration);
            datagrams::run(datagrams, sockets, share, pace, patience, live)
        }
        Plan::Tcp(transactions) => {
            let pace = |now: u64| Pace::new(now.max(rate.start), rate.rate, rate.duration);
            transactions::run(transactions, sockets, pace, rate.patience, live)
                .context("the TCP load failed")
        }
    }
}

fn sum(parts: &[Part], rate: f64, tcp: bool) -> Outcome {
    let of = |count: fn(&Part) -> u64| parts.iter().map(count).sum::<u64>();
    let sent = of(|part| part.sent);
    let received = of(|part| part.counts.received);
    let resets = of(|part| part.transactions.resets);
    let seconds = parts.iter().map(|part| part.elapsed).max().unwrap_or(0) as f64 / 1e9;
    Outcome {
        offered_per_second: rate,
        sent,
        received,
        lost: sent.saturating_sub(received + resets),
        unsent: of(|part| part.unsent),
        reordered: of(|part| part.counts.reordered),
        duplicated: of(|part| part.counts.duplicated),
        seconds,
        transactions: if tcp { received } else { 0 },
        retransmitted: of(|part| part.transactions.retransmitted),
        resets,
        connections: parts.iter().find_map(|part| part.transactions.connections),
        disconnected: of(|part| part.transactions.dropped),
        errors: of(|part| part.transactions.errors),
        foreign: of(|part| part.foreign),
        corrupt: None,
        down: Vec::new(),
        observed_cpu_seconds: None,
        latency: None,
    }
}
