//! A worker: one pinned thread that polls its queues, and the loop a packet passes through.

mod links;
mod sessions;
mod stopwatch;

pub use links::{Links, Way};
pub use sessions::Sessions;
pub use stopwatch::{SAMPLE, Stopwatch};

use crate::capture::Tap;
use crate::handover::{Given, GivenBurst, Settled, SettledBurst};
use crate::mailbox::{
    Command, Cursor, FlowPage, Mailbox, PAGE_BUCKETS, PAGE_FLOWS, Reply, STEP_BUCKETS, STEP_FLOWS,
    Vitals,
};
use arrayvec::ArrayVec;
use lockstep_core::flows::{Entry, FlowTable, Key};
use lockstep_core::{BURST, Dataplane, Micros, PortId, Seconds, Verdict};
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
/// Bursts taken in one turn from each socket at most: what its ring holds.
const BURSTS: usize = 32;
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
    /// What times packets.
    pub stopwatch: Stopwatch,
    /// How it waits.
    pub poll: Poll,
    /// From and to the agent.
    pub mailbox: Arc<Mailbox>,
    /// Signs of life.
    pub vitals: Arc<Vitals>,
    /// The start of its clock.
    pub epoch: Instant,
}

/// What came of frames.
#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    dropped: u64,
}

impl Outcome {
    /// Counts a frame that went nowhere.
    fn unless(&mut self, done: Result<(), DropReason>, dataplane: &Dataplane) {
        if let Err(reason) = done {
            dataplane.count_unsent(reason);
            self.dropped += 1;
        }
    }

    fn count(self, vitals: &Vitals) {
        vitals.sent.add(self.sent);
        vitals.dropped.add(self.dropped);
    }
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

/// How many bursts to take from each socket, after sessions have sent so many packets: a burst of a
/// client's goes to every replica, and as many acknowledgments may come back at once. Those that are
/// not taken before the ring is full are lost, and the last one of a replica's costs a
/// retransmission timeout, with everybody waiting for that replica.
fn bursts_for(sent: u64) -> usize {
    let sent = usize::try_from(sent).unwrap_or(usize::MAX);
    (1 + sent / BURST).min(BURSTS)
}

impl Worker {
    /// The loop. Returns when the worker is told to stop, or when an interface is gone.
    pub fn run(&mut self) -> Result<(), XskError> {
        let mut idle_since = None;
        let mut ticked = Instant::now();
        let mut checked = ticked;
        let mut bursts = 1;
        while !self.vitals.is_stopping() {
            let now = Now::since(self.epoch);

            let received = self.take_in(bursts, now)?;
            bursts = bursts_for(self.sessions(now));
            self.links.flush()?;
            self.stopwatch.stop(&self.vitals.latency);

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
                let nap = self.sessions.rest(now.micros, NAP);
                self.links.await_packets(nap, || self.sessions.has_mail())?;
            }
        }
        // What the last tick sent.
        self.links.flush()
    }

    /// So many bursts from each socket and each other worker, or what there is. What a burst leads to
    /// goes out before the next one: no socket and no worker waits for another's.
    fn take_in(&mut self, bursts: usize, now: Now) -> Result<usize, XskError> {
        let mut received = self.take_one_each(now);
        let mut last = received;
        for _ in 1..bursts {
            if last < BURST {
                break;
            }
            self.links.flush()?;
            last = self.take_one_each(now);
            received += last;
        }
        Ok(received)
    }

    /// One burst from each socket and from each other worker.
    fn take_one_each(&mut self, now: Now) -> usize {
        let mut received = 0;
        for at in 0..self.links.ports.len() {
            received += self.receive(at, now);
        }
        for place in 0..self.links.handover.others() {
            received += self.take_over(place, now);
            received += self.take_back(place);
        }
        received
    }

    /// One burst from one socket: under RPS hand over what is others', process the rest.
    fn receive(&mut self, at: usize, now: Now) -> usize {
        let from = self.links.receive(at, &mut self.burst);
        let received = self.burst.len();
        if received == 0 {
            return 0;
        }
        self.vitals.received.add(received as u64);
        self.vitals.bursts.add(1);
        let sampled = self.stopwatch.samples().then_some(now.instant);
        if self.dataplane.has_other_owners() {
            self.spread(from, sampled);
        }
        if !self.burst.is_empty() {
            self.stopwatch.note(sampled);
        }
        self.vitals.processed.add(self.burst.len() as u64);
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        self.burst.pad(least_frame(&self.dataplane, now));
        let mut frames: ArrayVec<&mut [u8], BURST> = self.burst.iter_mut().collect();
        if let Some(tap) = &mut self.tap {
            tap.before(now.micros, &[from; BURST], &frames, &self.dataplane);
        }
        self.dataplane
            .process(now.micros, &[from; BURST], &mut frames, &mut verdicts);
        drop(frames);

        let mut outcome = Outcome::default();
        for (mut frame, verdict) in self.burst.drain().zip(&mut verdicts) {
            let done = match *verdict {
                Verdict::Forward { port, length } => {
                    let done = self.links.forward(port, length, frame);
                    done.map(|()| outcome.sent += 1)
                }
                Verdict::Local => {
                    let tables = self.dataplane.tables();
                    match self.sessions.owner(tables, frame.bytes()) {
                        None => {
                            let (bytes, links) = (frame.bytes_mut(), &mut self.links);
                            let done = self
                                .sessions
                                .receive(now.micros, tables, from, bytes, links);
                            self.links.pool.put(frame);
                            done
                        }
                        Some(owner) => self.links.give(owner, frame, Given::Session(from)),
                    }
                }
                Verdict::Drop(_) => {
                    self.links.pool.put(frame);
                    outcome.dropped += 1;
                    continue;
                }
            };
            if let Err(reason) = done {
                *verdict = Verdict::Drop(reason);
            }
            outcome.unless(done, &self.dataplane);
        }
        if let Some(tap) = &mut self.tap {
            tap.after(&verdicts, &self.dataplane);
        }
        outcome.count(&self.vitals);
        received
    }

    /// Hands those frames of the burst over that belong to other workers.
    fn spread(&mut self, from: PortId, mut sampled: Option<Instant>) {
        let Worker {
            burst,
            dataplane,
            links,
            ..
        } = self;
        let mut outcome = Outcome::default();
        burst.extract(
            |frame| dataplane.owner(frame),
            |owner, frame| {
                let done = links.hand_over(owner, frame, from, sampled.take());
                outcome.unless(done, dataplane);
            },
        );
        outcome.count(&self.vitals);
    }

    /// A burst that another worker has received for this one: process it, and give the frames back
    /// with word of what shall become of them.
    fn take_over(&mut self, place: usize, now: Now) -> usize {
        let mut given = GivenBurst::new();
        self.links.handover.take(place, &mut given);
        if given.is_empty() {
            return 0;
        }
        let mut verdicts = [Verdict::Local; BURST];
        let mut ports = ArrayVec::<PortId, BURST>::new();
        let mut frames = ArrayVec::<&mut [u8], BURST>::new();
        let least = least_frame(&self.dataplane, now);
        for frame in &mut given {
            if let Given::Packet { port, .. } = Given::of(frame) {
                ports.push(port);
                frame.pad(least);
                frames.push(frame.bytes_mut());
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.before(now.micros, &ports, &frames, &self.dataplane);
        }
        self.dataplane
            .process(now.micros, &ports, &mut frames, &mut verdicts);
        drop(frames);
        if let Some(tap) = &mut self.tap {
            tap.after(&verdicts, &self.dataplane);
        }

        let (mut outcome, mut next) = (Outcome::default(), verdicts.into_iter());
        let mut taken = 0;
        for mut frame in given.drain(..) {
            let (port, timed, verdict) = match Given::of(&frame) {
                // There is a verdict for each packet.
                Given::Packet { port, timed } => (port, timed, next.next()),
                Given::Session(port) => (port, false, Some(Verdict::Local)),
                Given::Loan => {
                    self.links.pool.put(frame);
                    continue;
                }
            };
            taken += 1;
            let settled = match verdict {
                Some(Verdict::Forward { port, length }) => Settled::Forward {
                    port,
                    length,
                    timed,
                },
                Some(Verdict::Local) => {
                    // Whose it is was settled where it came in: asked again, two workers that
                    // disagree for a moment would pass it to and fro.
                    let (tables, bytes) = (self.dataplane.tables(), frame.bytes_mut());
                    let done =
                        self.sessions
                            .receive(now.micros, tables, port, bytes, &mut self.links);
                    outcome.unless(done, &self.dataplane);
                    Settled::Free { timed }
                }
                Some(Verdict::Drop(_)) | None => {
                    outcome.dropped += 1;
                    Settled::Free { timed }
                }
            };
            self.links.handover.settle(place, frame, settled);
        }
        outcome.count(&self.vitals);
        self.vitals.processed.add(taken);
        self.vitals.taken_over.add(taken);
        taken as usize
    }

    /// What another worker gave back: send it, or have it for what comes next.
    fn take_back(&mut self, place: usize) -> usize {
        let mut settled = SettledBurst::new();
        let timed = self.links.handover.take_back(place, &mut settled);
        if settled.is_empty() {
            return 0;
        }
        self.stopwatch.note(timed);
        let (mut outcome, count) = (Outcome::default(), settled.len());
        for frame in settled.drain(..) {
            match Settled::of(&frame) {
                Settled::Forward { port, length, .. } | Settled::Loan { port, length } => {
                    let done = self.links.forward(port, length, frame);
                    outcome.sent += u64::from(done.is_ok());
                    outcome.unless(done, &self.dataplane);
                }
                Settled::Free { .. } => self.links.pool.put(frame),
            }
        }
        outcome.count(&self.vitals);
        count
    }

    /// What the packets of this turn have made due for sessions: answers to one burst go out
    /// together. The packets sent.
    fn sessions(&mut self, now: Now) -> u64 {
        let tables = self.dataplane.tables();
        self.sessions.poll(now.micros, tables, &mut self.links);
        let sent = self.links.end_turn();
        self.vitals.sent.add(sent);
        sent
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
        self.vitals.rx_polls.set(self.links.rx_polls());
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
            Command::Restore(mut page) => {
                let restored = page
                    .flows
                    .iter()
                    .filter(|flow| self.dataplane.restore(now.seconds, flow))
                    .count();
                page.restored = restored;
                Reply::Restored(page)
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

/// How long frames have to be that a dataplane is given.
fn least_frame(dataplane: &Dataplane, now: Now) -> usize {
    let for_cookies = dataplane.least_frame(now.micros);
    for_cookies.max(dataplane.least_unserved())
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

#[cfg(test)]
mod tests;
