//! Ctrl-C: what was measured so far is still told, and nothing stays on the interfaces.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Whether to stop: how many signals have come.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Set by SIGINT, SIGTERM and SIGHUP from now on; at a second one nothing is waited for, and a third
    /// one ends the process at once. To be called before any thread is started.
    pub fn at_signals() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Threads inherit the mask; programs that are started do not.
        signals.thread_block().context("cannot hold signals back")?;
        let stop = Stop::default();
        let count = Arc::clone(&stop.0);
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if count.fetch_add(1, Ordering::SeqCst) >= 2 {
                    std::process::exit(128 + signal as i32);
                }
            }
        });
        Ok(stop)
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// Whether a second one has.
    pub fn is_urgent(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 1
    }
}
