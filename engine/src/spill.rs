//! Input logs that outgrow their memory, in files: a thread of its own does what
//! [`lockstep_core::replicate::spill`] asks for, so that no worker ever waits for a disk.
//!
//! ```text
//!   worker ── SpillEndpoint ── requests ──▶ ┐
//!          ◀── wake ────────── replies ──── ┤ thread ── session-WORKER-NUMBER.spill
//!   worker ── SpillEndpoint ── requests ──▶ ┘
//! ```

mod files;

pub use files::SpillError;

use crossbeam::queue::ArrayQueue;
use files::Files;
use lockstep_core::replicate::spill::{SpillQueue, SpillReply, SpillRequest};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

/// Chunks that a worker may have under way, and requests that it may have waiting.
pub const UNDER_WAY: usize = 256;

/// Called by the thread when it has replies for a worker, which may be asleep.
pub type Wake = Box<dyn Fn() + Send>;

/// What the thread does.
pub struct Spill;

impl Spill {
    /// Makes the directory (readable by its owner only), removes what an earlier run left in it, and
    /// starts the thread: for one worker for each `wake`, and for `limit` bytes in all.
    pub fn start(
        directory: &Path,
        limit: u64,
        wakes: impl IntoIterator<Item = Wake>,
    ) -> Result<SpillHandle, SpillError> {
        let counters = Arc::new(SpillCounters::default());
        let files = Files::open(directory, limit, Arc::clone(&counters))?;
        let stop = Arc::new(AtomicBool::new(false));
        let lines: Vec<Line> = wakes.into_iter().map(Line::new).collect();
        let queues: Vec<Queues> = lines.iter().map(|line| line.queues.clone()).collect();
        let thread = std::thread::Builder::new()
            .name("spill".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || run(files, &lines, &stop)
            })
            .map_err(SpillError::Thread)?;
        let endpoint = |queues| SpillEndpoint {
            queues,
            under_way: 0,
            thread: thread.thread().clone(),
        };
        Ok(SpillHandle {
            endpoints: queues.into_iter().map(|q| Some(endpoint(q))).collect(),
            counters,
            stop,
            thread: Some(thread),
        })
    }
}

/// The running thread. Dropped, it ends, and all files are removed.
#[derive(Debug)]
pub struct SpillHandle {
    endpoints: Vec<Option<SpillEndpoint>>,
    counters: Arc<SpillCounters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SpillHandle {
    /// A worker's end, once.
    pub fn endpoint(&mut self, worker: usize) -> Option<SpillEndpoint> {
        self.endpoints.get_mut(worker)?.take()
    }

    /// What it has done.
    pub fn counters(&self) -> &Arc<SpillCounters> {
        &self.counters
    }
}

impl Drop for SpillHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has said why, if it panicked.
            let _ = thread.join();
        }
    }
}

/// A worker's end. Nothing here blocks or allocates.
#[derive(Debug)]
pub struct SpillEndpoint {
    queues: Queues,
    /// Chunks that the thread has. There is a place for each reply.
    under_way: usize,
    thread: Thread,
}

impl SpillEndpoint {
    /// Gives the thread what it has room for.
    pub fn send(&mut self, queue: &mut SpillQueue) {
        let mut sent = false;
        while let Some(request) = queue.pop() {
            let answered = !matches!(request, SpillRequest::Remove { .. });
            if answered && self.under_way == UNDER_WAY {
                queue.unpop(request);
                break;
            }
            if let Err(request) = self.queues.requests.push(request) {
                queue.unpop(request);
                break;
            }
            self.under_way += usize::from(answered);
            sent = true;
        }
        if sent {
            self.thread.unpark();
        }
    }

    /// Whether a reply waits.
    pub fn has_mail(&self) -> bool {
        !self.queues.replies.is_empty()
    }

    /// The next reply, for the log of its session, or for the pool when that has ended.
    pub fn receive(&mut self) -> Option<SpillReply> {
        let reply = self.queues.replies.pop()?;
        self.under_way -= 1;
        Some(reply)
    }
}

/// What the thread has done, for metrics.
#[derive(Debug, Default)]
pub struct SpillCounters {
    /// Bytes written.
    pub written: AtomicU64,
    /// Bytes read.
    pub read: AtomicU64,
    /// Bytes in files now.
    pub stored: AtomicU64,
    /// Files now.
    pub files: AtomicU64,
    /// Chunks that were not written or not read: a full disk, the limit, an error.
    pub failures: AtomicU64,
}

/// Between a worker and the thread.
#[derive(Debug, Clone)]
struct Queues {
    requests: Arc<ArrayQueue<SpillRequest>>,
    replies: Arc<ArrayQueue<SpillReply>>,
}

/// A worker, as the thread sees it.
struct Line {
    queues: Queues,
    wake: Wake,
}

impl Line {
    fn new(wake: Wake) -> Self {
        Self {
            queues: Queues {
                requests: Arc::new(ArrayQueue::new(UNDER_WAY)),
                replies: Arc::new(ArrayQueue::new(UNDER_WAY)),
            },
            wake,
        }
    }

    /// Carries out some requests, so that every worker has its turn; says whether there were any.
    fn serve(&self, files: &mut Files) -> bool {
        const TURN: usize = 32;
        let mut served = 0;
        let mut replied = false;
        while served < TURN
            && let Some(request) = self.queues.requests.pop()
        {
            served += 1;
            if let Some(reply) = files.carry_out(request) {
                // The endpoint has kept a place for it.
                let full = self.queues.replies.push(reply).is_err();
                debug_assert!(!full, "more replies than requests");
                replied = true;
            }
        }
        if replied {
            (self.wake)();
        }
        served > 0
    }
}

fn run(mut files: Files, lines: &[Line], stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let mut served = false;
        for line in lines {
            served |= line.serve(&mut files);
        }
        if !served {
            // A request that came meanwhile has left a token: this returns at once.
            std::thread::park();
        }
    }
    files.remove_all();
}

#[cfg(test)]
mod tests;
