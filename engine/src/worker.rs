//! A worker: one pinned thread that polls its queues, and the loop a packet passes through.

use crate::mailbox::{
    Command, Cursor, FlowPage, Mailbox, PAGE_BUCKETS, PAGE_FLOWS, Reply, STEP_BUCKETS, STEP_FLOWS,
    Vitals,
};
use arrayvec::ArrayVec;
use lockstep_core::flows::{Entry, FlowTable, Key};
use lockstep_core::{BURST, Dataplane, PortId, Seconds, Verdict};
use lockstep_plan::DropReason;
use lockstep_topology::Poll;
use lockstep_xsk::{Burst, FramePool, Port, XskError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a worker without traffic sleeps at most: it looks into its mailbox and shows life
/// that often.
const NAP: Duration = Duration::from_millis(5);
/// How long an adaptive worker polls an empty queue before it sleeps: longer than the gap between
/// two packets of a loaded link, shorter than anybody would notice on a CPU graph.
const PATIENCE: Duration = Duration::from_micros(50);
/// How often flows are swept and gauges published.
const TICK: Duration = Duration::from_millis(1);
/// How often a worker asks whether its interfaces are still there: one that never sleeps would
/// not hear of it otherwise.
const CHECK: Duration = Duration::from_secs(1);
/// Buckets swept at each tick: a table of 1,000,000 flows is passed in about 6 seconds.
const SWEEP: usize = 32;

/// Everything a worker's thread owns.
pub struct Worker {
    /// Packet memory that is in no ring.
    pub pool: FramePool,
    /// Its sockets.
    pub ports: Vec<Port>,
    /// For each interface, the socket to send by.
    pub ways_out: Vec<Option<usize>>,
    /// A burst under way.
    pub burst: Burst,
    /// What happens to packets.
    pub dataplane: Dataplane,
    /// How it waits.
    pub poll: Poll,
    /// From and to the agent.
    pub mailbox: Arc<Mailbox>,
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// The start of its clock.
    pub epoch: Instant,
}

impl Worker {
    /// The loop. Returns when the worker is told to stop, or when an interface is gone.
    pub fn run(&mut self) -> Result<(), XskError> {
        let mut idle_since = None;
        let mut ticked = Instant::now();
        let mut checked = ticked;
        while !self.vitals.is_stopping() {
            let now = Instant::now();
            let seconds = Seconds::new(now.duration_since(self.epoch).as_secs());

            let mut received = 0;
            for at in 0..self.ports.len() {
                received += self.pass(at, seconds);
            }
            for port in &mut self.ports {
                port.flush()?;
                port.reap(&mut self.pool);
                port.refill(&mut self.pool);
            }

            self.vitals.turns.fetch_add(1, Ordering::Relaxed);
            if now.duration_since(ticked) >= TICK {
                self.tick(seconds);
                ticked = now;
            }
            if now.duration_since(checked) >= CHECK {
                self.ports.iter().try_for_each(Port::check)?;
                checked = now;
            }
            if received > 0 {
                idle_since = None;
                continue;
            }
            // Not since the last burst began: forwarding one can take longer than the patience.
            let since = *idle_since.get_or_insert(now);
            if self.sleeps(now.duration_since(since)) {
                lockstep_xsk::wait(&self.ports, NAP)?;
            }
        }
        Ok(())
    }

    /// One burst from one socket: receive, decide, and give each frame to its way out.
    fn pass(&mut self, at: usize, now: Seconds) -> usize {
        let received = self.ports[at].receive(&mut self.burst);
        if received == 0 {
            return 0;
        }
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let mut frames: ArrayVec<&mut [u8], BURST> = self.burst.iter_mut().collect();
        self.dataplane.process(now, &mut frames, &mut verdicts);
        drop(frames);

        let (mut sent, mut dropped) = (0, 0);
        for (mut frame, verdict) in self.burst.drain().zip(verdicts) {
            let way = match verdict {
                Verdict::Forward { port, length } => match out(&self.ways_out, port) {
                    Some(way) if frame.set_len(usize::from(length)).is_ok() => Ok(way),
                    Some(_) | None => Err(DropReason::NoPort),
                },
                Verdict::Drop(_) => {
                    self.pool.put(frame);
                    dropped += 1;
                    continue;
                }
                Verdict::Local => Err(DropReason::NoSession),
            };
            let refused = match way {
                Ok(way) => self.ports[way]
                    .send(frame)
                    .map_err(|f| (f, DropReason::TxFull)),
                Err(reason) => Err((frame, reason)),
            };
            match refused {
                Ok(()) => sent += 1,
                Err((frame, reason)) => {
                    self.dataplane.count_unsent(reason);
                    self.pool.put(frame);
                    dropped += 1;
                }
            }
        }
        self.vitals.received.add(received as u64);
        self.vitals.sent.add(sent);
        self.vitals.dropped.add(dropped);
        self.vitals.bursts.add(1);
        received
    }

    fn sleeps(&self, idle: Duration) -> bool {
        match self.poll {
            Poll::Busy => false,
            Poll::Adaptive => idle >= PATIENCE,
            Poll::Interrupt => true,
        }
    }

    /// What is done between bursts.
    fn tick(&mut self, now: Seconds) {
        if let Some((number, command)) = self.mailbox.commands.pop() {
            let reply = self.obey(command, now);
            // The agent has one command under way at a time and takes every reply; were there
            // no place, forgetting is still better than freeing tables here.
            if let Err(reply) = self.mailbox.replies.push((number, reply)) {
                std::mem::forget(reply);
            }
        }
        self.dataplane.tick(now, SWEEP);
        let wakeups = self.ports.iter().map(|p| p.counters().tx_wakeups).sum();
        self.vitals.tx_wakeups.set(wakeups);
    }

    fn obey(&mut self, command: Command, now: Seconds) -> Reply {
        match command {
            Command::Adopt(tables) => Reply::Retired(self.dataplane.adopt(tables)),
            Command::Page(mut page) => {
                self.fill(&mut page, now);
                Reply::Page(page)
            }
            Command::Known(key) => Reply::Known(self.dataplane.known(now, &key)),
        }
    }

    /// Fills a page within the memory it has.
    fn fill(&self, page: &mut FlowPage, now: Seconds) {
        page.now = now;
        page.v4.clear();
        page.v6.clear();
        page.cursor = match page.cursor {
            Cursor::V4(at) => fill_from(self.dataplane.flows_v4(), at, &mut page.v4)
                .map_or(Cursor::V6(0), Cursor::V4),
            Cursor::V6(at) => fill_from(self.dataplane.flows_v6(), at, &mut page.v6)
                .map_or(Cursor::End, Cursor::V6),
            Cursor::End => Cursor::End,
        };
    }
}

/// Copies flows from bucket `at` on, until the page might not hold another step's or has covered
/// its buckets. Returns where to go on.
fn fill_from<K: Key>(flows: &FlowTable<K>, at: usize, to: &mut Vec<Entry<K>>) -> Option<usize> {
    let mut next = at;
    while next < at + PAGE_BUCKETS && to.len() + STEP_FLOWS <= PAGE_FLOWS {
        next = flows.scan(next, STEP_BUCKETS, |entry| to.push(*entry))?;
    }
    Some(next)
}

fn out(ways_out: &[Option<usize>], PortId(port): PortId) -> Option<usize> {
    ways_out.get(usize::from(port)).copied().flatten()
}
