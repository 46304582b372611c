//! Between the agent and one worker: lock-free, bounded, and nothing freed on the worker's side.
//!
//! The agent gives a worker one command at a time and gets everything back: tables that were
//! replaced, pages that were filled. So a worker neither allocates nor frees.

use crate::capture::Tap;
use crossbeam::queue::ArrayQueue;
use lockstep_core::counters::Count;
use lockstep_core::dataplane::{KnownFlow, Restored};
use lockstep_core::flows::Entry;
use lockstep_core::histogram::Histogram;
use lockstep_core::replicate::counters::ReplicateCounters;
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::replicator::{Replicator, SessionDetails, SwitchoverError};
use lockstep_core::{Counters, Micros, Seconds, Tables};
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the agent asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Put these tables in force. Comes back as [`Reply::Retired`] with the ones that were.
    Adopt(Arc<Tables>),
    /// Fill a page with flows.
    Page(Box<FlowPage>),
    /// Remember the flows of a page, which another engine had.
    Restore(Box<RestorePage>),
    /// Look a flow up.
    Known(FlowKey),
    /// Hold sessions from now on.
    Equip(Box<Replicator>),
    /// Fill a page with sessions.
    Sessions(Box<SessionPage>),
    /// Show the agent packets by this tap from now on; by none.
    Tap(Option<Box<Tap>>),
    /// Make the replica at an address the primary of a session.
    Switch {
        /// The session.
        session: SessionId,
        /// The replica's address.
        backend: IpAddr,
    },
}

/// What a worker answers, one for each command.
#[derive(Debug)]
pub enum Reply {
    /// Tables that are no longer in force here.
    Retired(Arc<Tables>),
    /// The page, filled.
    Page(Box<FlowPage>),
    /// The page, with how many of its flows are remembered.
    Restored(Box<RestorePage>),
    /// The flow's entry, if there is one.
    Known(Option<KnownFlow>),
    /// It holds sessions.
    Equipped {
        /// What it counts of them.
        counters: Arc<ReplicateCounters>,
        /// The replicator, where there was one already.
        spare: Option<Box<Replicator>>,
    },
    /// The page, filled.
    Sessions(Box<SessionPage>),
    /// The tap that was there.
    Tapped(Option<Box<Tap>>),
    /// Whether the session was switched over.
    Switched(Result<(), SwitchoverError>),
}

/// Buckets of the flow table that are looked at in one go.
pub const STEP_BUCKETS: usize = 16;
/// The most flows that a step finds: eight in each bucket.
pub const STEP_FLOWS: usize = STEP_BUCKETS * 8;
/// Flows that a page holds, and buckets that it covers where they are empty: few enough not to
/// delay packets by more than some microseconds, and enough that a table of 1,000,000 flows is
/// walked in some ten pages when there are few flows in it.
pub const PAGE_FLOWS: usize = 8 * STEP_FLOWS;
/// See [`PAGE_FLOWS`].
pub const PAGE_BUCKETS: usize = 8192;

/// Where a walk over a worker's flows goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// At this bucket of the IPv4 table.
    V4(usize),
    /// At this bucket of the IPv6 table.
    V6(usize),
    /// Everything was seen.
    End,
}

/// A part of a worker's flows. Its memory is the agent's; it is made once for a walk.
#[derive(Debug)]
pub struct FlowPage {
    /// Where the walk goes on after this page.
    pub cursor: Cursor,
    /// The worker's clock when it filled the page.
    pub now: Seconds,
    /// IPv4 flows.
    pub v4: Vec<Entry<FlowKey4>>,
    /// IPv6 flows.
    pub v6: Vec<Entry<FlowKey6>>,
}

impl FlowPage {
    /// An empty page at the start of a worker's flows, with memory for all a page can hold.
    pub fn first() -> Box<Self> {
        Box::new(FlowPage {
            cursor: Cursor::V4(0),
            now: Seconds::default(),
            v4: Vec::with_capacity(PAGE_FLOWS),
            v6: Vec::with_capacity(PAGE_FLOWS),
        })
    }
}

/// Flows that another engine had, at most [`PAGE_FLOWS`]. Its memory is the agent's.
#[derive(Debug)]
pub struct RestorePage {
    /// The flows.
    pub flows: Vec<Restored>,
    /// How many of them are remembered now.
    pub restored: usize,
}

/// Sessions that a page holds.
pub const PAGE_SESSIONS: usize = 64;

/// Which sessions are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those from this place on.
    From(u32),
    /// This one.
    One(SessionId),
    /// No more: everything was seen.
    Nothing,
}

/// A part of a worker's sessions. Its memory is the agent's.
#[derive(Debug)]
pub struct SessionPage {
    /// Which ones are wanted; when it comes back, which ones after them.
    pub wanted: Wanted,
    /// The worker's clock when it filled the page.
    pub now: Micros,
    /// The sessions.
    pub sessions: Vec<SessionDetails>,
}

impl SessionPage {
    /// An empty page, with memory for all it can hold.
    pub fn of(wanted: Wanted) -> Box<Self> {
        Box::new(SessionPage {
            wanted,
            now: Micros::ZERO,
            sessions: Vec::with_capacity(PAGE_SESSIONS),
        })
    }

    /// Fills the page; a worker without a replicator has no sessions.
    pub fn fill(&mut self, now: Micros, replicator: Option<&Replicator>) {
        self.now = now;
        self.sessions.clear();
        let next = match (self.wanted, replicator) {
            (Wanted::From(place), Some(replicator)) => {
                replicator.sessions(place, &mut self.sessions)
            }
            (Wanted::One(id), Some(replicator)) => {
                self.sessions.extend(replicator.session(id));
                None
            }
            (Wanted::Nothing, _) | (_, None) => None,
        };
        self.wanted = next.map_or(Wanted::Nothing, Wanted::From);
    }
}

/// A worker's signs of life, which the agent reads at any time.
#[derive(Debug)]
pub struct Vitals {
    /// Grows with every turn of the loop.
    pub turns: AtomicU64,
    /// Frames received.
    pub received: Count,
    /// Frames given to a TX ring.
    pub sent: Count,
    /// Frames dropped.
    pub dropped: Count,
    /// Bursts with at least one frame.
    pub bursts: Count,
    /// Packets decided on, whosever sockets they came to.
    pub processed: Count,
    /// Packets taken over from other workers, whose sockets they came to.
    pub taken_over: Count,
    /// Nanoseconds from receipt to sending of what came to its sockets, as samples.
    pub latency: Histogram,
    /// System calls made to send.
    pub tx_wakeups: Count,
    /// System calls made to take packets in.
    pub rx_polls: Count,
    /// What the dataplane counts.
    pub counters: Arc<Counters>,
    /// Whether the worker is to stop.
    pub stop: AtomicBool,
    /// Whether it has stopped.
    pub stopped: AtomicBool,
}

impl Vitals {
    /// The signs of a worker that has not begun.
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Vitals {
            turns: AtomicU64::new(0),
            received: Count::default(),
            sent: Count::default(),
            dropped: Count::default(),
            bursts: Count::default(),
            processed: Count::default(),
            taken_over: Count::default(),
            latency: Histogram::default(),
            tx_wakeups: Count::default(),
            rx_polls: Count::default(),
            counters,
            stop: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    /// Whether the worker was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The two queues. Two places each: a command, and one that replaces it when it is not taken.
#[derive(Debug)]
pub struct Mailbox {
    /// From the agent, numbered.
    pub commands: ArrayQueue<(u64, Command)>,
    /// To the agent, each with its command's number.
    pub replies: ArrayQueue<(u64, Reply)>,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Arc<Self> {
        Arc::new(Mailbox {
            commands: ArrayQueue::new(2),
            replies: ArrayQueue::new(4),
        })
    }
}
