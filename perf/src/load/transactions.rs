//! The TCP load: transactions begun when they are due, and what comes of each.

use super::Protocol;
use super::client::{Client, Event, Manner, Send, Step};
use super::clock::{idle, now};
use super::datagrams::{Part, Sockets};
use super::flows::Flows;
use super::ledger;
use super::live::{LEAD, Live, PERIOD};
use super::pace::Pace;
use super::packet::{Content, Link, read, write_tcp};
use super::socket::{Sending, Socket};
use super::spread::Spread;
use anyhow::{Result, ensure};
use lockstep_xsk::Port;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Connections that are set up a second, at most, before requests are timed.
const SET_UP: u64 = 20_000;
/// For all of them to be set up, in nanoseconds; each gives up before.
const SET_UP_PATIENCE: u64 = 20_000_000_000;

/// What transactions are.
#[derive(Debug)]
pub struct Transactions {
    /// From where to where.
    pub flows: Flows,
    /// The link-layer addresses for each destination, in their order.
    pub links: Vec<Link>,
    /// How clients behave.
    pub manner: Manner,
    /// What they ask.
    pub request: Vec<u8>,
    /// The largest segment that they take.
    pub mss: u16,
    /// Whether it is looked at the checksums of what arrives.
    pub verify: bool,
}

/// What is counted of TCP beside latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions that came to their end.
    pub completed: u64,
    /// Those of them that the server answered with an error.
    pub errors: u64,
    /// Transactions that were reset, or closed before their end.
    pub resets: u64,
    /// Transactions that were given up.
    pub given_up: u64,
    /// Segments sent again because nothing came.
    pub retransmitted: u64,
    /// Connections lost between transactions, or that could not be set up.
    pub dropped: u64,
    /// Of RR: connections that were there when the first request was due.
    pub connections: Option<u64>,
}

struct Thread<'a> {
    plan: &'a Transactions,
    clients: Clients,
    socket: &'a mut Socket,
    /// Where answers come that do not come back to the socket that asks.
    answers: Option<&'a mut Socket>,
}

/// All connections, apart from the socket.
struct Clients {
    all: Vec<Client>,
    /// Those that can begin a transaction.
    ready: VecDeque<u32>,
    /// When to look at which.
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    /// The earliest of each flow's timers, the one that counts; `u64::MAX`: none.
    timer_of: Vec<u64>,
    /// Connections of RR that may still be set up again: as many as transactions went well, so that
    /// a server that is gone is not asked in a loop.
    reconnects: u64,
    /// Transactions that were begun and have not come to an end.
    outstanding: u64,
    /// Of RR: connections on their way.
    connecting: u64,
    counts: Counts,
    spread: Spread,
    recent: Spread,
    watched: bool,
    foreign: u64,
    corrupt: u64,
}

/// Runs transactions at a pace that begins once all connections of RR are there: `pace` is told when.
pub fn run(
    plan: &Transactions,
    sockets: Sockets<'_>,
    pace: impl FnOnce(u64) -> Pace,
    patience: u64,
    live: &Live,
) -> Result<Part> {
    let count = plan.flows.count();
    let (socket, answers) = match sockets {
        Sockets::Same(socket) => (socket, None),
        Sockets::Two(socket, answers) => (socket, answers),
    };
    let mut thread = Thread {
        plan,
        clients: Clients::new(count, live.is_watched()),
        socket,
        answers,
    };
    if plan.manner.protocol == Protocol::Rr {
        thread.set_up(live)?;
    } else {
        thread.clients.ready.extend(0..count);
    }
    let mut pace = pace(now() + LEAD);
    let start = pace.time_of(0);
    live.begins_at(start)?;
    let end = thread.begin_all(&mut pace, live)?.max(start);
    thread.wait_for_all(end, patience, live)?;
    thread.close_all()?;
    let stopped = live.is_stopped();
    let unsent = if stopped {
        pace.backlog(end)
    } else {
        pace.total() - pace.sent()
    };
    let Clients {
        counts,
        spread,
        foreign,
        corrupt,
        ..
    } = thread.clients;
    Ok(Part {
        sent: pace.sent(),
        unsent,
        counts: ledger::Counts {
            received: counts.completed,
            ..ledger::Counts::default()
        },
        spread,
        foreign,
        corrupt,
        elapsed: end - start,
        transactions: counts,
    })
}

impl Thread<'_> {
    /// Connects every flow once.
    fn set_up(&mut self, live: &Live) -> Result<()> {
        let count = u64::from(self.plan.flows.count());
        let begin = now();
        let mut pace = Pace::new(begin, SET_UP, count * 1_000_000_000 / SET_UP + 1);
        let mut next = 0;
        while next < self.plan.flows.count() || self.clients.connecting > 0 {
            let time = now();
            if live.is_stopped() || time > begin + SET_UP_PATIENCE {
                break;
            }
            let mut due = pace.due(time);
            while due > 0 && next < self.plan.flows.count() {
                self.clients
                    .connect(self.plan, &mut self.socket.sending(), next, time)?;
                pace.sent_one();
                next += 1;
                due -= 1;
            }
            let worked = self.turn(time)?;
            if !worked {
                let until = if next < self.plan.flows.count() {
                    pace.intended()
                } else {
                    time + 1_000_000
                };
                idle(self.ports(), time, until)?;
            }
        }
        let open = self.clients.all.iter().filter(|client| client.is_open());
        let open = open.count() as u64;
        ensure!(
            open > 0 || live.is_stopped(),
            "none of {count} connections could be made ({} were refused or given up): does the server \
             listen, and do its answers come back to this interface?",
            self.clients.counts.dropped
        );
        // What was refused here is not of the transactions that follow.
        self.clients.counts = Counts {
            connections: Some(open),
            ..Counts::default()
        };
        Ok(())
    }

    /// Begins transactions as they are due; returns when that was over.
    fn begin_all(&mut self, pace: &mut Pace, live: &Live) -> Result<u64> {
        let mut tell = now() + PERIOD;
        let mut told = (0, 0);
        loop {
            let time = now();
            if pace.is_over(time) || live.is_stopped() {
                self.tell(live, pace.sent(), &mut told);
                live.is_over();
                return Ok(time);
            }
            let mut due = pace.due(time);
            let mut worked = false;
            while due > 0 {
                let intended = pace.intended();
                if !self
                    .clients
                    .begin(self.plan, &mut self.socket.sending(), time, intended)?
                {
                    break;
                }
                pace.sent_one();
                worked = true;
                due -= 1;
            }
            worked |= self.turn(time)?;
            if time >= tell {
                self.tell(live, pace.sent(), &mut told);
                tell = time + PERIOD;
            }
            if !worked {
                // Without a free flow, an answer or a timer is what there is to wait for.
                let next = if due > 0 {
                    time + 1_000_000
                } else {
                    pace.intended()
                };
                let next = next.min(self.clients.next_timer());
                idle(self.ports(), time, next)?;
            }
        }
    }

    fn wait_for_all(&mut self, end: u64, patience: u64, live: &Live) -> Result<()> {
        let until = end.saturating_add(patience);
        while self.clients.outstanding > 0 && !live.is_urgent() {
            let time = now();
            if time >= until {
                break;
            }
            if !self.turn(time)? {
                let next = self.clients.next_timer().min(until);
                idle(self.ports(), time, next)?;
            }
        }
        Ok(())
    }

    /// Sends resets for what is still connected, so that nothing of it stays at the servers.
    fn close_all(&mut self) -> Result<()> {
        for flow in 0..self.plan.flows.count() {
            let send = self.clients.all[flow as usize].abort();
            if let Some(send) = send {
                emit(self.plan, &mut self.socket.sending(), flow, &send)?;
            }
        }
        self.socket.flush()
    }

    /// Takes what has come and looks after timers; whether there was anything to do.
    fn turn(&mut self, time: u64) -> Result<bool> {
        let Thread {
            plan,
            clients,
            socket,
            answers,
        } = self;
        let mut result = Ok(());
        let mut arrival = 0;
        let mut received = socket.exchange(|frame, sending| {
            if arrival == 0 {
                arrival = now();
            }
            if result.is_ok() {
                result = clients.arrived(plan, sending, frame, arrival);
            }
        });
        if let Some(answers) = answers {
            received += answers.receive(|frame| {
                if arrival == 0 {
                    arrival = now();
                }
                if result.is_ok() {
                    result = clients.arrived(plan, &mut socket.sending(), frame, arrival);
                }
            });
        }
        result?;
        let expired = clients.look_after_timers(plan, &mut socket.sending(), time)?;
        socket.flush()?;
        Ok(received > 0 || expired)
    }

    /// Those that can wake it up.
    fn ports(&self) -> impl Iterator<Item = &Port> {
        let answers = self.answers.as_ref().map(|answers| &answers.port);
        std::iter::once(&self.socket.port).chain(answers)
    }

    fn tell(&mut self, live: &Live, sent: u64, told: &mut (u64, u64)) {
        let so_far = (sent, self.clients.counts.completed);
        live.add(
            so_far.0 - told.0,
            so_far.1 - told.1,
            &mut self.clients.recent,
        );
        *told = so_far;
    }
}

impl Clients {
    fn new(count: u32, watched: bool) -> Self {
        Clients {
            all: vec![Client::new(); count as usize],
            ready: VecDeque::with_capacity(count as usize),
            timers: BinaryHeap::with_capacity(count as usize),
            timer_of: vec![u64::MAX; count as usize],
            reconnects: 2 * u64::from(count),
            outstanding: 0,
            connecting: 0,
            counts: Counts::default(),
            spread: Spread::new(),
            recent: Spread::new(),
            watched,
            foreign: 0,
            corrupt: 0,
        }
    }

    /// Opens a connection of RR.
    fn connect(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        flow: u32,
        time: u64,
    ) -> Result<()> {
        let client = &mut self.all[flow as usize];
        let send = client.connect(&plan.manner, time, None, first_number(time));
        self.connecting += 1;
        self.set_timer(flow);
        emit(plan, sending, flow, &send)
    }

    /// Begins a transaction that was due at `intended`; whether there was a flow for it.
    fn begin(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        time: u64,
        intended: u64,
    ) -> Result<bool> {
        let rr = plan.manner.protocol == Protocol::Rr;
        while let Some(flow) = self.ready.pop_front() {
            let client = &mut self.all[flow as usize];
            let send = if !rr {
                client.connect(&plan.manner, time, Some(intended), first_number(time))
            } else if client.is_open() {
                client.ask(&plan.manner, time, intended)
            } else {
                // It was lost meanwhile and is on its way back, or is to be.
                continue;
            };
            self.outstanding += 1;
            self.set_timer(flow);
            emit(plan, sending, flow, &send)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn arrived(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        frame: &[u8],
        time: u64,
    ) -> Result<()> {
        let Some((arrived, flow)) =
            read(frame, 0).and_then(|arrived| Some((arrived, plan.flows.answered(&arrived.ends)?)))
        else {
            self.foreign += 1;
            return Ok(());
        };
        // As a kernel does: what is thrown away is sent again.
        if plan.verify && !arrived.is_sound() {
            self.corrupt += 1;
            return Ok(());
        }
        let Content::Tcp(segment, payload) = arrived.content else {
            self.foreign += 1;
            return Ok(());
        };
        self.change(plan, sending, flow, time, |client| {
            client.arrived(&plan.manner, &segment, payload, time)
        })
    }

    /// Whether any was due.
    fn look_after_timers(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        time: u64,
    ) -> Result<bool> {
        let mut any = false;
        while let Some(&Reverse((at, flow))) = self.timers.peek()
            && at <= time
        {
            self.timers.pop();
            if self.timer_of[flow as usize] != at {
                continue;
            }
            self.timer_of[flow as usize] = u64::MAX;
            any = true;
            if self.all[flow as usize].deadline() <= time {
                let before = self.counts.given_up + self.counts.dropped;
                let mut sent = false;
                self.change(plan, sending, flow, time, |client| {
                    let step = client.expired(&plan.manner, time);
                    sent = step.send.is_some();
                    step
                })?;
                let gave_up = self.counts.given_up + self.counts.dropped > before;
                self.counts.retransmitted += u64::from(sent && !gave_up);
            }
            self.set_timer(flow);
        }
        Ok(any)
    }

    /// Lets something happen to a client, sends what comes of it and counts it.
    fn change(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        flow: u32,
        time: u64,
        happen: impl FnOnce(&mut Client) -> Step,
    ) -> Result<()> {
        let rr = plan.manner.protocol == Protocol::Rr;
        let is_ready = |client: &Client| {
            if rr {
                client.is_open()
            } else {
                client.is_closed()
            }
        };
        let client = &mut self.all[flow as usize];
        let intended = client.intended();
        let (was_ready, was_closed) = (is_ready(client), client.is_closed());
        let step = happen(client);
        let (is_ready, is_closed) = (is_ready(client), client.is_closed());
        if let Some(send) = step.send {
            emit(plan, sending, flow, &send)?;
        }
        if let Some(event) = step.event {
            self.count(event, plan.manner.protocol, intended, time);
        }
        if is_ready && !was_ready {
            self.ready.push_back(flow);
        }
        if rr && is_closed && !was_closed {
            // For the transactions that follow.
            self.reconnect(plan, sending, flow, time)?;
        }
        self.set_timer(flow);
        Ok(())
    }

    fn reconnect(
        &mut self,
        plan: &Transactions,
        sending: &mut Sending<'_>,
        flow: u32,
        time: u64,
    ) -> Result<()> {
        match self.reconnects.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.reconnects = left;
                self.connect(plan, sending, flow, time)
            }
        }
    }

    fn count(&mut self, event: Event, protocol: Protocol, intended: Option<u64>, time: u64) {
        let mut measured = false;
        match event {
            Event::Completed { good } => {
                self.counts.completed += 1;
                self.reconnects += 1;
                self.counts.errors += u64::from(!good);
                self.outstanding = self.outstanding.saturating_sub(1);
                measured = true;
            }
            Event::Reset => {
                self.counts.resets += 1;
                self.outstanding = self.outstanding.saturating_sub(1);
                // It is an answer to a SYN.
                measured = protocol == Protocol::Syn;
            }
            Event::GaveUp => {
                self.counts.given_up += 1;
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            Event::Connected => self.connecting = self.connecting.saturating_sub(1),
            Event::Dropped => {
                self.counts.dropped += 1;
                self.connecting = self.connecting.saturating_sub(1);
            }
        }
        if let Some(intended) = intended.filter(|_| measured) {
            let latency = time.saturating_sub(intended);
            self.spread.add(latency);
            if self.watched {
                self.recent.add(latency);
            }
        }
    }

    /// A timer that is there and comes too early finds the later deadline when it is looked at.
    fn set_timer(&mut self, flow: u32) {
        let at = self.all[flow as usize].deadline();
        let earliest = &mut self.timer_of[flow as usize];
        if at < *earliest {
            *earliest = at;
            self.timers.push(Reverse((at, flow)));
        }
    }

    fn next_timer(&self) -> u64 {
        self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| *at)
    }
}

/// The first sequence number of a connection: those of later ones are higher (RFC 9293, section
/// 3.4.1), so that a server takes them for new ones though it remembers the one before.
fn first_number(time: u64) -> u32 {
    (time >> 6) as u32
}

/// Sends a segment of a flow. Where there is no room for it even now, it counts as lost on the way:
/// its timer sends it again.
fn emit(plan: &Transactions, sending: &mut Sending<'_>, flow: u32, send: &Send) -> Result<()> {
    let ends = plan.flows.tuple(flow);
    let link = &plan.links[flow as usize % plan.links.len()];
    let payload = if send.request { &plan.request[..] } else { &[] };
    sending
        .send(|frame| write_tcp(frame, link, &ends, &send.segment, plan.mss, payload))
        .map(drop)
}
