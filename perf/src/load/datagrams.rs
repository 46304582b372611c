//! One thread's UDP load: it sends what is due and counts what arrives, in turns.

use super::clock::{idle, now};
use super::flows::Flows;
use super::ledger::{Counts, Ledger};
use super::live::{Live, PERIOD};
use super::mix::Mix;
use super::pace::Pace;
use super::packet::{CHECKSUM_SEQUENCE, Content, Link, read, write_checksum, write_stamped};
use super::prepared::Prepared;
use super::socket::Socket;
use super::spread::Spread;
use super::stamp::Stamp;
use anyhow::Result;
use lockstep_xsk::Port;

/// For a device to take what is on its ring, in nanoseconds.
const REST: u64 = 50_000_000;

/// What all threads send and take.
#[derive(Debug)]
pub struct Datagrams {
    /// From where to where.
    pub flows: Flows,
    /// How long their frames are.
    pub sizes: Mix,
    /// The link-layer addresses for each destination, in their order.
    pub links: Vec<Link>,
    /// Where GUE tunnels end.
    pub gue_port: u16,
    /// Tells this trial's packets from those of others.
    pub run: u16,
    /// Whether each has a checksum, and is looked at whether it is right where it arrives.
    pub verify: bool,
    /// Sent as they are; where there are none, each packet is written with its own stamp.
    pub prepared: Option<Prepared>,
}

/// A thread's sockets.
#[derive(Debug)]
pub enum Sockets<'a> {
    /// Packets come back to where they leave.
    Same(&'a mut Socket),
    /// They leave at one and arrive at another, or are counted by somebody else.
    Two(&'a mut Socket, Option<&'a mut Socket>),
}

/// Which of the threads this is, and of how many.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// From 0 on.
    pub thread: u32,
    /// How many there are.
    pub threads: u32,
}

/// What a thread sent and took.
#[derive(Debug)]
pub struct Part {
    /// Packets that the kernel took, or transactions that were begun.
    pub sent: u64,
    /// Those that were due and were not.
    pub unsent: u64,
    /// What arrived.
    pub counts: Counts,
    /// And when.
    pub spread: Spread,
    /// What arrived and was not of this trial.
    pub foreign: u64,
    /// What arrived with a wrong checksum, where they are looked at.
    pub corrupt: u64,
    /// Nanoseconds from the start until nothing more was to be sent.
    pub elapsed: u64,
    /// Only of TCP.
    pub transactions: super::transactions::Counts,
}

struct Thread<'a> {
    plan: &'a Datagrams,
    sockets: Sockets<'a>,
    share: Share,
    /// Flows that this thread sends: every `threads`-th.
    own: u64,
    pace: Pace,
    ledger: Ledger,
    spread: Spread,
    /// Since `live` was last told.
    recent: Spread,
    watched: bool,
    foreign: u64,
    corrupt: u64,
}

impl Datagrams {
    /// Writes the packet with this number, and returns its length.
    #[inline]
    fn write(
        &self,
        frame: &mut [u8],
        number: u64,
        flow: u32,
        sequence: u32,
        intended: u64,
    ) -> usize {
        let stamp = Stamp {
            intended,
            flow,
            sequence,
            run: self.run,
        };
        let length = self.sizes.of(number) - CHECKSUM_SEQUENCE;
        let link = &self.links[flow as usize % self.links.len()];
        let ends = self.flows.tuple(flow);
        write_stamped(&mut frame[..length], link, &ends, &stamp.bytes());
        if self.verify {
            write_checksum(&mut frame[..length], &ends);
        }
        length
    }
}

/// Sends at a pace until it is over, waits `patience` nanoseconds at most for what is on the way, and
/// returns what came of it.
pub fn run(
    plan: &Datagrams,
    sockets: Sockets<'_>,
    share: Share,
    pace: Pace,
    patience: u64,
    live: &Live,
) -> Result<Part> {
    let all = u64::from(plan.flows.count());
    let own = (all + u64::from(share.threads - 1 - share.thread)) / u64::from(share.threads);
    let mut thread = Thread {
        plan,
        sockets,
        share,
        own,
        pace,
        ledger: Ledger::new(plan.flows.count()),
        spread: Spread::new(),
        recent: Spread::new(),
        watched: live.is_watched(),
        foreign: 0,
        corrupt: 0,
    };
    let (start, end) = thread.send_all(live)?;
    let unsent = thread.pace.total() - thread.pace.sent();
    let unsent = if live.is_stopped() {
        thread.pace.backlog(end)
    } else {
        unsent
    };
    thread.wait_for_all(end, patience, live)?;
    Ok(Part {
        sent: thread.pace.sent(),
        unsent,
        counts: thread.ledger.counts(),
        spread: thread.spread,
        foreign: thread.foreign,
        corrupt: thread.corrupt,
        elapsed: end - start,
        transactions: super::transactions::Counts::default(),
    })
}

impl Thread<'_> {
    /// Returns when it began and when it was over.
    fn send_all(&mut self, live: &Live) -> Result<(u64, u64)> {
        let start = self.pace.time_of(0);
        live.begins_at(start)?;
        let mut tell = now() + PERIOD;
        let mut told = (0, 0);
        loop {
            let time = now();
            if self.pace.is_over(time) || live.is_stopped() {
                self.tell(live, &mut told);
                let end = self.send_rest(time)?;
                live.is_over();
                return Ok((start, end.max(start)));
            }
            let sent = self.send_due(time)?;
            let received = self.receive();
            if time >= tell {
                self.tell(live, &mut told);
                tell = time + PERIOD;
            }
            if sent == 0 && received == 0 {
                let next = self.pace.intended();
                idle(self.sockets.ports(), time, next)?;
            }
        }
    }

    /// Waits until the kernel has taken what it was given: a ring full of frames is more than a hundredth
    /// of what a short trial sends, and is not sent for nothing. Returns when it had.
    fn send_rest(&mut self, time: u64) -> Result<u64> {
        let mut at = time;
        while self.sockets.source().port.has_unsent() && at < time + REST {
            self.sockets.source().flush()?;
            self.receive();
            at = now();
        }
        Ok(at)
    }

    /// Takes what is still on the way.
    fn wait_for_all(&mut self, end: u64, patience: u64, live: &Live) -> Result<()> {
        let mut told = (self.pace.sent(), self.ledger.counts().received);
        let until = end.saturating_add(patience);
        loop {
            let time = now();
            // Frames that the device did not take at once.
            self.sockets.source().flush()?;
            let received = self.receive();
            self.tell(live, &mut told);
            let stays = self.sockets.source().port.has_unsent();
            let all = !self.sockets.receives() || live.has_all(self.share.threads as usize);
            // Frames of somebody else's may never end.
            if time >= until || live.is_urgent() || (received == 0 && all && !stays) {
                return Ok(());
            }
            if received == 0 {
                // Others may still send what comes to this thread.
                idle(self.sockets.ports(), time, until.min(time + 1_000_000))?;
            }
        }
    }

    #[inline]
    fn send_due(&mut self, time: u64) -> Result<u64> {
        let due = self.pace.due(time);
        let source = self.sockets.source();
        if due == 0 {
            if source.port.has_unsent() {
                source.flush()?;
            }
            return Ok(0);
        }
        let mut sent = 0;
        while sent < due {
            let number = self.pace.sent();
            // Flows take turns, so that a packet's number says its place in its flow.
            let flow = (number % self.own) as u32 * self.share.threads + self.share.thread;
            let taken = match &self.plan.prepared {
                Some(prepared) => source.sending().send(|frame| {
                    let ready = prepared.of(flow);
                    frame[..ready.len()].copy_from_slice(ready);
                    ready.len()
                }),
                None => {
                    let intended = self.pace.intended();
                    let sequence = (number / self.own) as u32;
                    let (plan, mut sending) = (self.plan, source.sending());
                    sending.send(|frame| plan.write(frame, number, flow, sequence, intended))
                }
            }?;
            if !taken {
                break;
            }
            self.pace.sent_one();
            sent += 1;
        }
        source.flush()?;
        Ok(sent)
    }

    #[inline]
    fn receive(&mut self) -> usize {
        let Thread {
            plan,
            sockets,
            ledger,
            spread,
            recent,
            watched,
            foreign,
            corrupt,
            ..
        } = self;
        let Some(sink) = sockets.sink() else { return 0 };
        // Once for a burst: nothing was there a moment ago.
        let mut time = 0;
        sink.receive(|frame| {
            if time == 0 {
                time = now();
            }
            let arrived = read(frame, plan.gue_port);
            if plan.verify && arrived.is_some_and(|arrived| !arrived.is_sound()) {
                *corrupt += 1;
                return;
            }
            let stamp = match arrived.map(|arrived| arrived.content) {
                Some(Content::Udp(payload)) => Stamp::read(payload, plan.run),
                Some(Content::Tcp(..)) | None => None,
            };
            let Some(stamp) = stamp else {
                *foreign += 1;
                return;
            };
            if ledger.arrived(stamp.flow, stamp.sequence) {
                let latency = time.saturating_sub(stamp.intended);
                spread.add(latency);
                if *watched {
                    recent.add(latency);
                }
            }
        })
    }

    fn tell(&mut self, live: &Live, told: &mut (u64, u64)) {
        let so_far = (self.pace.sent(), self.ledger.counts().received);
        live.add(so_far.0 - told.0, so_far.1 - told.1, &mut self.recent);
        *told = so_far;
    }
}

impl Sockets<'_> {
    fn source(&mut self) -> &mut Socket {
        match self {
            Sockets::Same(socket) | Sockets::Two(socket, _) => socket,
        }
    }

    fn sink(&mut self) -> Option<&mut Socket> {
        match self {
            Sockets::Same(socket) => Some(socket),
            Sockets::Two(_, sink) => sink.as_deref_mut(),
        }
    }

    fn receives(&self) -> bool {
        !matches!(self, Sockets::Two(_, None))
    }

    /// Those that can wake it up.
    fn ports(&self) -> impl Iterator<Item = &Port> {
        let (source, sink) = match self {
            Sockets::Same(socket) => (&**socket, None),
            Sockets::Two(socket, sink) => (&**socket, sink.as_deref()),
        };
        std::iter::once(&source.port).chain(sink.map(|sink| &sink.port))
    }
}
