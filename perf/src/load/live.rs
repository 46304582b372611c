//! What threads say of a trial while it runs.

use super::clock::{idle, now};
use super::observer::{Look, Mark};
use super::spread::Spread;
use anyhow::Result;
use std::iter;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

/// How often a thread says where it is, in nanoseconds.
pub const PERIOD: u64 = 50_000_000;
/// How long before the first packet is due the observed CPU is looked at, in nanoseconds: that takes
/// less, so that no packet waits for it.
pub const LEAD: u64 = 500_000;

/// What all threads of a trial share. They write it now and then, never for a single packet.
#[derive(Debug, Default)]
pub struct Live {
    /// Set from outside to end the trial early.
    stop: AtomicBool,
    /// Nor is to be waited for what is on the way: one of the threads has failed, or the user does not
    /// want to.
    urgent: AtomicBool,
    /// Threads that have sent all they had to.
    over: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
    /// Latencies since they were last looked at; none if nobody looks.
    spread: Option<Mutex<Spread>>,
    /// The CPU that is observed, and who does; none: nobody.
    observed: Option<(usize, Sender<Mark>)>,
}

impl Live {
    /// For somebody who looks at the latencies meanwhile, or for nobody; and for an observer.
    pub fn new(watched: bool, observed: Option<(usize, Sender<Mark>)>) -> Self {
        Live {
            spread: watched.then(|| Mutex::new(Spread::new())),
            observed,
            ..Live::default()
        }
    }

    /// Whether the latencies are looked at.
    pub fn is_watched(&self) -> bool {
        self.spread.is_some()
    }

    /// Ends the sending; and the wait for what is on the way, if it is urgent.
    pub fn stop(&self, urgent: bool) {
        self.stop.store(true, Ordering::Relaxed);
        self.urgent.fetch_or(urgent, Ordering::Relaxed);
    }

    /// Whether to send no more.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether to wait for nothing, either.
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// So many more were sent and received, with these latencies, which are taken out.
    pub fn add(&self, sent: u64, received: u64, latencies: &mut Spread) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
        if let Some(spread) = &self.spread
            && !latencies.is_empty()
        {
            // A thread that has panicked with it left it whole.
            let mut spread = spread.lock().unwrap_or_else(|error| error.into_inner());
            spread.merge(latencies);
            latencies.clear();
        }
    }

    /// A thread sends from `start` on. Returns a little before that, or when the trial is to end.
    ///
    /// It looks at the observed CPU itself: one that sends as fast as it can leaves its CPU to no
    /// observer for up to a tenth of a second.
    pub fn begins_at(&self, start: u64) -> Result<()> {
        let Some((cpu, _)) = self.observed else {
            return Ok(());
        };
        loop {
            let time = now();
            if time.saturating_add(LEAD) >= start || self.is_stopped() {
                break;
            }
            idle(iter::empty(), time, start - LEAD)?;
        }
        self.mark(Mark::Begins(Look::at(cpu)?));
        Ok(())
    }

    /// A thread has sent all.
    pub fn is_over(&self) {
        self.over.fetch_add(1, Ordering::Release);
        self.mark(Mark::Over);
    }

    /// All threads have ended, well or not.
    pub fn ended(&self) {
        self.mark(Mark::Ended);
    }

    fn mark(&self, mark: Mark) {
        if let Some((_, marks)) = &self.observed {
            // An observer that has failed says so itself.
            let _ = marks.send(mark);
        }
    }

    /// Whether all of `threads` have sent all, and everything has come.
    pub fn has_all(&self, threads: usize) -> bool {
        self.over.load(Ordering::Acquire) == threads
            && self.received.load(Ordering::Relaxed) >= self.sent.load(Ordering::Relaxed)
    }

    /// What was sent and received so far, and the latencies since the last look.
    pub fn look(&self) -> (u64, u64, Spread) {
        let spread = match &self.spread {
            Some(spread) => {
                let mut spread = spread.lock().unwrap_or_else(|error| error.into_inner());
                std::mem::replace(&mut *spread, Spread::new())
            }
            None => Spread::new(),
        };
        (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
            spread,
        )
    }
}
