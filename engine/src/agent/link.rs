//! The agent's end of a worker.

use crate::mailbox::{Command, Reply};
use crate::workers::WorkerHandle;
use lockstep_core::Tables;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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
    /// Its thread has ended.
    Stopped,
}

impl WorkerState {
    /// Its name in `lockstep status`.
    pub const fn name(self) -> &'static str {
        match self {
            WorkerState::Running => "running",
            WorkerState::Hung => "hung",
            WorkerState::Stopped => "stopped",
        }
    }
}

/// A worker, as the agent talks to it: one command at a time.
pub struct WorkerLink {
    handle: WorkerHandle,
    turn: Mutex<()>,
    state: AtomicU8,
}

impl WorkerLink {
    /// A link to a running worker.
    pub fn new(handle: WorkerHandle) -> Self {
        let state = AtomicU8::new(WorkerState::Running as u8);
        WorkerLink {
            handle,
            turn: Mutex::new(()),
            state,
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
            _ => WorkerState::Stopped,
        }
    }

    /// Records what the watchdog says.
    pub fn set_state(&self, state: WorkerState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Hands tables over; `false` when the worker does not take them in time. A hung worker gets
    /// the tables of that day when it comes back.
    pub async fn adopt(&self, tables: &Arc<Tables>) -> bool {
        self.ask(Command::Adopt(Arc::clone(tables))).await.is_some()
    }

    /// Gives the worker a command and waits for its reply; `None` when there is none in time.
    pub async fn ask(&self, command: Command) -> Option<Reply> {
        if self.state() != WorkerState::Running {
            return None;
        }
        self.ask_anyhow(command).await
    }

    /// The same, also of a worker that is not known to run.
    pub async fn ask_anyhow(&self, command: Command) -> Option<Reply> {
        let _turn = self.turn.lock().await;
        let mailbox = &self.handle.mailbox;
        // What a worker said too late is freed here, where freeing does no harm.
        while mailbox.replies.pop().is_some() {}
        mailbox.commands.push(command).ok()?;
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            if let Some(reply) = mailbox.replies.pop() {
                return Some(reply);
            }
            tokio::time::sleep(LOOK).await;
        }
        // Taken back, so that a worker which wakes up late does not act on old orders.
        while mailbox.commands.pop().is_some() {}
        None
    }
}
