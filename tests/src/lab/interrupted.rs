//! Cleaning up when the user presses Ctrl-C, which ends a process without running destructors.

use super::run::remove_runs_of_this_process;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The signal that has come; 0: none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// What else is undone at a signal.
static UNDO: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Taking all labs down takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// At a signal, `undo` is called as well, before the labs are taken down. It may be called though
/// there is nothing to undo any more.
pub fn undo_too(undo: fn()) {
    (UNDO.lock().unwrap_or_else(PoisonError::into_inner)).push(undo);
}

/// From now on, SIGINT, SIGTERM and SIGHUP take down the labs of this process and end it with the
/// code that shells give it. To be called before any thread is started.
pub fn take_down_labs() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Threads inherit the mask; so would programs, but for what `Process` does.
    signals.thread_block().context("cannot hold signals back")?;
    thread::spawn(move || {
        // Without a signal to be had there is nothing to clean up after.
        let Ok(signal) = signals.wait() else { return };
        SIGNAL.store(signal as i32, Ordering::SeqCst);
        let undo = UNDO.lock().unwrap_or_else(PoisonError::into_inner);
        undo.iter().for_each(|undo| undo());
        remove_runs_of_this_process();
        std::process::exit(code(signal as i32));
    });
    Ok(())
}

/// Does not return when a signal has come. To be asked before an error is reported or passed over: the
/// lab that is taken down is what everything else fails of then.
pub fn end_if_begun() {
    let signal = SIGNAL.load(Ordering::SeqCst);
    if signal == 0 {
        return;
    }
    // The other thread ends the process.
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        thread::park_timeout(PATIENCE);
    }
    std::process::exit(code(signal));
}

/// An error once a signal has come: what is built then would not be taken down.
pub(super) fn must_not_have_begun() -> Result<()> {
    let signal = SIGNAL.load(Ordering::SeqCst);
    ensure!(
        signal == 0,
        "a signal has come: the labs are being taken down"
    );
    Ok(())
}

const fn code(signal: i32) -> i32 {
    128 + signal
}
