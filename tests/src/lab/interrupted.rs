//! Cleaning up when the user presses Ctrl-C, which ends a process without running destructors.

use super::run::remove_runs_of_this_process;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// The taking down at a signal.
#[derive(Debug)]
pub struct TakeDown {
    begun: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What else is undone at a signal.
static UNDO: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// At a signal, `undo` is called as well, before the labs are taken down. It may be called though
/// there is nothing to undo any more.
pub fn undo_too(undo: fn()) {
    (UNDO.lock().unwrap_or_else(PoisonError::into_inner)).push(undo);
}

/// From now on, SIGINT, SIGTERM and SIGHUP take down the labs of this process and end it with the
/// code that shells give it. To be called before any thread is started.
pub fn take_down_labs() -> Result<TakeDown> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Threads inherit the mask; so would programs, but for what `Process` does.
    signals.thread_block().context("cannot hold signals back")?;
    let begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&begun);
    let thread = thread::spawn(move || {
        // Without a signal to be had there is nothing to clean up after.
        let Ok(signal) = signals.wait() else { return };
        begins.store(true, Ordering::SeqCst);
        let undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
        undo.iter().for_each(|undo| undo());
        remove_runs_of_this_process();
        std::process::exit(128 + signal as i32);
    });
    Ok(TakeDown { begun, thread })
}

impl TakeDown {
    /// Does not return when a signal has come. To be asked before an error is reported: the lab
    /// that is taken down is what everything else fails of then.
    pub fn end_if_begun(self) {
        if self.begun.load(Ordering::SeqCst) {
            // The thread ends the process.
            let _ = self.thread.join();
        }
    }
}
