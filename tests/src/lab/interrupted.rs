//! Cleaning up when the user presses Ctrl-C, which ends a process without running destructors.

use super::run::remove_runs_of_this_process;
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::thread;

/// From now on, SIGINT, SIGTERM and SIGHUP take down the labs of this process and end it with the
/// code that shells give it. To be called before any thread is started.
pub fn take_down_labs() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Threads inherit the mask; programs that are started do not.
    signals.thread_block().context("cannot hold signals back")?;
    thread::spawn(move || {
        // Without a signal to be had there is nothing to clean up after.
        let Ok(signal) = signals.wait() else { return };
        remove_runs_of_this_process();
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
