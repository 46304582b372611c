//! A worker: one pinned thread that polls its queues, and the loop a packet passes through.

mod links;
mod sessions;

pub use links::Links;
pub use sessions::Sessions;

use crate::capture::Tap;
use crate::mailbox::{
    Command, Cursor, FlowPage, Mailbox, PAGE_BUCKETS, PAGE_FLOWS, Reply, STEP_BUCKETS, STEP_FLOWS,
    Vitals,
};
use arrayvec::ArrayVec;
use lockstep_core::flows::{Entry, FlowTable, Key};
use lockstep_core::{BURST, Dataplane, Micros, Seconds, Verdict};
use lockstep_plan::DropReason;
use lockstep_topology::Poll;
use lockstep_xsk::{Burst, XskError};
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
    /// Its sockets and packet memory.
    pub links: Links,
    /// A burst under way.
    pub burst: Burst,
    /// What happens to packets.
    pub dataplane: Dataplane,
    /// The sessions that end in it.
    pub sessions: Sessions,
    /// Shows the agent packets, while somebody captures.
    pub tap: Option<Box<Tap>>,
    /// How it waits.
    pub poll: Poll,
    /// From and to the agent.
    pub mailbox: Arc<Mailbox>,
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// The start of its clock.
    pub epoch: Instant,
}

/// A moment, in the units that need it.
#[derive(Debug, Clone, Copy)]
struct Now {
    instant: Instant,
    seconds: Seconds,
    micros: Micros,
}

impl Now {
    fn since(epoch: Instant) -> Self {
        let instant = Instant::now();
        let age = instant.duration_since(epoch);
        Now {
            instant,
            seconds: Seconds::new(age.as_secs()),
            micros: Micros::ZERO + age,
        }
    }
}

impl Worker {
    /// The loop. Returns when the worker is told to stop, or when an interface is gone.
    pub fn run(&mut self) -> Result<(), XskError> {
        let mut idle_since = None;
        let mut ticked = Instant::now();
        let mut checked = ticked;
        while !self.vitals.is_stopping() {
            let now = Now::since(self.epoch);

            let mut received = 0;
            for at in 0..self.links.ports.len() {
                received += self.pass(at, now);
            }
            received += self.sessions(now);
            self.links.flush()?;

            self.vitals.turns.fetch_add(1, Ordering::Relaxed);
            if now.instant.duration_since(ticked) >= TICK {
                self.tick(now);
                ticked = now.instant;
            }
            if now.instant.duration_since(checked) >= CHECK {
                self.links.check()?;
                checked = now.instant;
            }
            if received > 0 {
                idle_since = None;
                continue;
            }
            // Not since the last burst began: forwarding one can take longer than the patience.
            let since = *idle_since.get_or_insert(now.instant);
            if self.sleeps(now.instant.duration_since(since)) {
                self.sessions.sleep(now.micros, &self.links, NAP)?;
            }
        }
        Ok(())
    }

    /// One burst from one socket: receive, decide, and give each frame to its way out or to its
    /// session.
    fn pass(&mut self, at: usize, now: Now) -> usize {
        let from = self.links.receive(at, &mut self.burst);
        let received = self.burst.len();
        if received == 0 {
            return 0;
        }
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let mut frames: ArrayVec<&mut [u8], BURST> = self.burst.iter_mut().collect();
        if let Some(tap) = &mut self.tap {
            tap.before(now.micros, &[from; BURST], &frames, &self.dataplane);
        }
        self.dataplane
            .process(now.micros, &[from; BURST], &mut frames, &mut verdicts);
        drop(frames);

        let (mut sent, mut dropped) = (0, 0);
        for (mut frame, verdict) in self.burst.drain().zip(&mut verdicts) {
            let done = match *verdict {
                Verdict::Forward { port, length } => {
                    let done = self.links.forward(port, length, frame);
                    done.map(|()| sent += 1)
                }
                Verdict::Local => {
                    let (tables, links) = (self.dataplane.tables(), &mut self.links);
                    let bytes = frame.bytes_mut();
                    let done = self
                        .sessions
                        .receive(now.micros, tables, from, bytes, links);
                    self.links.pool.put(frame);
                    done
                }
                Verdict::Drop(_) => {
                    self.links.pool.put(frame);
                    dropped += 1;
                    continue;
                }
            };
            if let Err(reason) = done {
                self.dataplane.count_unsent(reason);
                *verdict = Verdict::Drop(reason);
                dropped += 1;
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.after(&verdicts, &self.dataplane);
        }
        self.vitals.received.add(received as u64);
        self.vitals.sent.add(sent);
        self.vitals.dropped.add(dropped);
        self.vitals.bursts.add(1);
        received
    }

    /// What other workers have for this one's sessions, and then everything that is due: answers to
    /// one burst go out together. Returns how many packets were received.
    fn sessions(&mut self, now: Now) -> usize {
        let tables = self.dataplane.tables();
        let taken = self.sessions.take(now.micros, tables, &mut self.links);
        for reason in taken.dropped {
            self.dataplane.count_unsent(reason);
            self.vitals.dropped.add(1);
        }
        self.vitals.taken_over.add(taken.received as u64);
        self.sessions.poll(now.micros, tables, &mut self.links);
        self.vitals
            .sent
            .add(std::mem::take(&mut self.links.transmitted));
        taken.received
    }

    fn sleeps(&self, idle: Duration) -> bool {
        match self.poll {
            Poll::Busy => false,
            Poll::Adaptive => idle >= PATIENCE,
            Poll::Interrupt => true,
        }
    }

    /// What is done between bursts.
    fn tick(&mut self, now: Now) {
        if let Some((number, command)) = self.mailbox.commands.pop() {
            let reply = self.obey(command, now);
            // The agent has one command under way at a time and takes every reply; were there
            // no place, forgetting is still better than freeing tables here.
            if let Err(reply) = self.mailbox.replies.push((number, reply)) {
                std::mem::forget(reply);
            }
        }
        self.dataplane.tick(now.seconds, SWEEP);
        let tables = self.dataplane.tables();
        self.sessions.tick(now.micros, tables, &mut self.links);
        self.vitals.tx_wakeups.set(self.links.tx_wakeups());
    }

    fn obey(&mut self, command: Command, now: Now) -> Reply {
        match command {
            Command::Adopt(tables) => {
                let retired = self.dataplane.adopt(tables);
                self.sessions.adopt();
                Reply::Retired(retired)
            }
            Command::Page(mut page) => {
                self.fill(&mut page, now.seconds);
                Reply::Page(page)
            }
            Command::Known(key) => Reply::Known(self.dataplane.known(now.seconds, &key)),
            Command::Equip(replicator) => self.sessions.equip(replicator),
            Command::Sessions(mut page) => {
                self.sessions.fill(&mut page, now.micros);
                Reply::Sessions(page)
            }
            Command::Tap(tap) => Reply::Tapped(std::mem::replace(&mut self.tap, tap)),
            Command::Switch { session, backend } => {
                let tables = self.dataplane.tables();
                let done = self
                    .sessions
                    .switch_to(now.micros, tables, session, backend);
                Reply::Switched(done)
            }
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
