//! Cleaning up when the user presses Ctrl-C, which ends a process without running destructors.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::thread;

/// The signals that end a program by request, held back.
#[derive(Debug)]
pub struct Interrupts(SigSet);

/// Holds the signals back for this thread and those it starts; to be called before any is started.
pub fn block() -> Result<Interrupts> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot hold signals back")?;
    Ok(Interrupts(signals))
}

impl Interrupts {
    /// At such a signal, runs `clean_up` and ends the process with the code shells give it.
    pub fn then_exit(self, clean_up: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            // Without a signal to be had there is nothing to clean up after.
            let Ok(signal) = self.0.wait() else { return };
            clean_up();
            std::process::exit(128 + signal as i32);
        });
    }
}
