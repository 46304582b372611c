//! The agent's end of a worker.

use crate::mailbox::{Command, Reply};
use crate::workers::WorkerHandle;
use lockstep_core::Tables;
use lockstep_core::replicate::counters::ReplicateCounters;
use lockstep_core::replicate::replicator::Replicator;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a worker may take to answer: far longer than a turn of its loop, and short enough to
/// wait for. One that does not is about to be found hung.
const ANSWER: Duration = Duration::from_secs(1);
/// How often an answer is looked for. Workers cannot wake anybody: that would be a system call.
const LOOK: Duration = Duration::from_micros(300);

/// What the watchdog says of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerState {
    /// It turns.
    Running,
    /// It shows no life: its sockets are out of the XDP program's map.
    Hung,
    /// It turns again, and is to be brought up to date before it gets packets.
    Returning,
    /// Its thread has ended.
    Stopped,
}

impl WorkerState {
    /// Its name in `lockstep status`.
    pub const fn name(self) -> &'static str {
        match self {
            WorkerState::Running => "running",
            WorkerState::Hung | WorkerState::Returning => "hung",
            WorkerState::Stopped => "stopped",
        }
    }
}

/// A worker, as the agent talks to it: one command at a time.
pub struct WorkerLink {
    handle: WorkerHandle,
    /// The number of the last command. Who holds it has the worker's ear.
    turn: Mutex<u64>,
    state: AtomicU8,
    /// The tables the worker is known to forward by.
    taken: std::sync::Mutex<Arc<Tables>>,
    /// What it counts of its sessions, once it can hold any.
    sessions: OnceLock<Arc<ReplicateCounters>>,
}

impl WorkerLink {
    /// A link to a running worker.
    pub fn new(handle: WorkerHandle) -> Self {
        WorkerLink {
            handle,
            turn: Mutex::new(0),
            state: AtomicU8::new(WorkerState::Running as u8),
            taken: std::sync::Mutex::default(),
            sessions: OnceLock::new(),
        }
    }

    /// The worker itself.
    pub fn handle(&self) -> &WorkerHandle {
        &self.handle
    }

    /// What the watchdog last said.
    pub fn state(&self) -> WorkerState {
        match self.state.load(Ordering::Relaxed) {
            0 => WorkerState::Running,
            1 => WorkerState::Hung,
            2 => WorkerState::Returning,
            _ => WorkerState::Stopped,
        }
    }

    /// Records what the watchdog says.
    pub fn set_state(&self, state: WorkerState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Whether the worker forwards by these tables.
    pub fn has(&self, tables: &Arc<Tables>) -> bool {
        Arc::ptr_eq(&self.taken(), tables)
    }

    /// Hands tables over; `false` when the worker does not take them in time. The watchdog offers
    /// them again then.
    pub async fn adopt(&self, tables: &Arc<Tables>) -> bool {
        match self.state() {
            WorkerState::Running | WorkerState::Returning => {}
            WorkerState::Hung | WorkerState::Stopped => return false,
        }
        let reply = self.put(Command::Adopt(Arc::clone(tables))).await;
        let taken = matches!(reply, Some(Reply::Retired(_)));
        if taken {
            *self.taken() = Arc::clone(tables);
        }
        taken
    }

    /// What the worker counts of its sessions; `None` while it cannot hold any.
    pub fn sessions(&self) -> Option<&Arc<ReplicateCounters>> {
        self.sessions.get()
    }

    /// Gives the worker what it needs to hold sessions; `false` when it does not take it in time.
    /// The watchdog sees to it then.
    pub async fn equip(&self, replicator: Box<Replicator>) -> bool {
        match self.state() {
            WorkerState::Running | WorkerState::Returning => {}
            WorkerState::Hung | WorkerState::Stopped => return false,
        }
        let reply = self.put(Command::Equip(replicator)).await;
        let Some(Reply::Equipped { counters, .. }) = reply else {
            return false;
        };
        // Who was first has set the same ones.
        let _ = self.sessions.set(counters);
        true
    }

    /// Gives a running worker a command and waits for its reply; `None` when there is none in
    /// time.
    pub async fn ask(&self, command: Command) -> Option<Reply> {
        match self.state() {
            WorkerState::Running => self.put(command).await,
            WorkerState::Hung | WorkerState::Returning | WorkerState::Stopped => None,
        }
    }

    /// One exchange. It may be abandoned at any point (a client that goes away): the next one
    /// takes back a command that nobody waits for any more, and knows its own reply by number.
    async fn put(&self, command: Command) -> Option<Reply> {
        let mut number = self.turn.lock().await;
        *number += 1;
        let mailbox = &self.handle.mailbox;
        while mailbox.commands.pop().is_some() {}
        mailbox.commands.push((*number, command)).ok()?;
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            // What a worker said too late is freed here, where freeing does no harm.
            while let Some((answers, reply)) = mailbox.replies.pop() {
                if answers == *number {
                    return Some(reply);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        // Taken back, so that a worker which wakes up late does not act on old orders.
        while mailbox.commands.pop().is_some() {}
        None
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Arc<Tables>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
