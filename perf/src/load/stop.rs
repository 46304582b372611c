//! Ctrl-C: what was measured so far is still told, and nothing stays on the interfaces.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGINT, SIGTERM and SIGHUP from now on; a second one ends the process at once. To be
    /// called before any thread is started.
    pub fn at_signals() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Threads inherit the mask; programs that are started do not.
        signals.thread_block().context("cannot hold signals back")?;
        let stop = Stop::default();
        let flag = Arc::clone(&stop.0);
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if flag.swap(true, Ordering::SeqCst) {
                    std::process::exit(128 + signal as i32);
                }
            }
        });
        Ok(stop)
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
