//! The generator as a child process.

use super::{Outcome, Place, Protocol, Scenario};
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};

/// Runs `lockstep-perf generate` to its end and returns what it measured.
///
/// # Errors
///
/// When it cannot be run or fails; in its own words.
pub fn run_child(scenario: &Scenario) -> Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments(scenario)).stdin(Stdio::null());
    let output = command.output().context("cannot run the generator")?;
    ensure!(
        output.status.success(),
        "the generator failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("the generator did not say what it measured")
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
