//! The generator as a child process.

use super::{Outcome, Place, Protocol, Scenario};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::interrupted;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

/// Runs `lockstep-perf generate` to its end and returns what it measured.
///
/// # Errors
///
/// When it cannot be run or fails; in its own words.
pub fn run_child(scenario: &Scenario) -> Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    (command.args(arguments(scenario)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (child, running) = start(command)?;
    let output = (child.wait_with_output()).context("cannot hear the generator")?;
    drop(running);
    ensure!(
        output.status.success(),
        "the generator failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("the generator did not say what it measured")
}

/// Generators that run.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A generator that runs, until this is dropped.
struct Running(Pid);

fn start(mut command: Command) -> Result<(Child, Running)> {
    static AT_SIGNALS: Once = Once::new();
    AT_SIGNALS.call_once(|| interrupted::undo_too(end_all));
    // Held meanwhile, so that a signal finds every one that there is.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().context("cannot run the generator")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    running.push(pid);
    Ok((child, Running(pid)))
}

/// It is in none of the lab's namespaces, but its sockets are: it would keep them for as long as it
/// runs.
fn end_all() {
    for &pid in RUNNING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
    {
        // Gone already is as good.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|pid| *pid != self.0);
    }
}

pub(super) fn arguments(scenario: &Scenario) -> Vec<String> {
    let load = &scenario.load;
    let mut words: Vec<String> = vec!["generate".into()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    let protocol = match load.protocol {
        Protocol::Udp => "udp",
        Protocol::Syn => "syn",
        Protocol::Rr => "rr",
        Protocol::Crr => "crr",
    };
    option("protocol", protocol.into());
    place(&mut option, "", &scenario.source);
    if let Some(sink) = &scenario.sink {
        place(&mut option, "sink-", sink);
    }
    option("core", scenario.cpu.to_string());
    if let Some(cpu) = scenario.observed_cpu {
        option("observe-core", cpu.to_string());
    }
    for destination in &load.destinations {
        option("to", destination.to_string());
    }
    for source in &load.sources {
        option("from", source.to_string());
    }
    option("flows", load.flows.to_string());
    option("size", load.sizes.to_string());
    option("packets-per-second", load.packets_per_second.to_string());
    option("seconds", load.seconds.to_string());
    option("path", load.path.clone());
    if let Some(mac) = load.next_hop {
        option("next-hop", mac.to_string());
    }
    for port in &load.sink_ports {
        option("sink-port", port.to_string());
    }
    option("output", "json".into());
    words
}

fn place(option: &mut impl FnMut(&str, String), prefix: &str, place: &Place) {
    if let Some(netns) = &place.netns {
        option(&format!("{prefix}netns"), netns.clone());
    }
    option(&format!("{prefix}interface"), place.interface.clone());
    option(&format!("{prefix}queue"), place.queue.to_string());
}
