//! Programs in the lab: started with a log, killed with their children on drop.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::wait_until;

const LOG_TAIL_LINES: usize = 40;

/// A program that runs until it is dropped or killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` in a process group of its own; both its outputs go to `log`.
    pub(super) fn spawn(name: &str, log: PathBuf, mut command: Command) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        (command.stdin(Stdio::null()))
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        let child = hearing_signals(|| command.spawn())?;
        Ok(Process {
            name: name.to_owned(),
            log,
            child: child.with_context(|| format!("cannot start {name}"))?,
        })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Its outputs so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to the program, not to its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// A signal to the program and to all that it has started, which may have left its process
    /// group.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        // Children first: one that sees its parent die may have something to say about it.
        for pid in self.family().into_iter().rev() {
            // Gone already is as good, for a child.
            let sent = kill(pid, signal);
            if pid == self.pid() {
                sent.with_context(|| format!("cannot signal {}", self.name))?;
            }
        }
        Ok(())
    }

    /// `kill -9` of the program and of all that it has started. It is stopped first, so that it
    /// starts nothing more; waits until it is gone.
    pub fn kill_all(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.signal_all(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// The program and its descendants.
    fn family(&self) -> Vec<Pid> {
        let mut family = vec![self.pid()];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            let file = format!("/proc/{parent}/task/{parent}/children");
            let text = fs::read_to_string(file).unwrap_or_default();
            let children = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            family.extend(children.map(Pid::from_raw));
            next += 1;
        }
        family
    }

    /// Waits for the program's own end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} has ended", self.name);
        wait_until(&what, timeout, || Ok(self.child.try_wait()?))
    }

    /// An error with the end of the log when the program has ended, which it should not have.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, tail(&self.log)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Starts a program while this thread holds no signal back: programs inherit what it does, and one
/// that [`super::interrupted`] has made hold SIGTERM back could not be ended by it.
fn hearing_signals<T>(start: impl FnOnce() -> T) -> Result<T> {
    let held = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let held = held.context("cannot let signals through")?;
    let started = start();
    held.thread_set_mask().context("cannot hold signals back")?;
    Ok(started)
}

/// Runs a command to its end.
///
/// # Errors
/// With the command and what it wrote to standard error, when it cannot run or fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let result = command.stdin(Stdio::null()).output();
    let result = result.with_context(|| format!("cannot run {}", line(command)))?;
    let stdout = String::from_utf8_lossy(&result.stdout).into_owned();
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        let says = if stderr.trim().is_empty() {
            stdout.trim()
        } else {
            stderr.trim()
        };
        bail!("`{}` failed ({}): {says}", line(command), result.status);
    }
    Ok(stdout)
}

/// The last lines of a log file, with its name above.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    format!("--- {name}\n{}", lines[from..].join("\n"))
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
