//! Requests: HTTP through every case.
//!
//! ```text
//!   client ──────── in0  balancer  out0 ──────── servers
//!     │ 198.18.0.2                    198.19.1.1 to .4 │
//!     └───────────────────────────────────────────────┘
//!              answers that need not pass the balancer
//! ```
//!
//! wrk asks an nginx with an address for each backend, over connections that stay open and over one
//! for each request. Links and CPUs are those of [`crate::replicate`]: packets of at most 1,500 bytes
//! that nobody puts together, the balancer on a CPU of its own, client and servers on the other one.
//! The loop is closed: a request follows an answer.

mod balancer;
mod network;
pub mod trial;

pub use balancer::start;
pub use network::{DIRECT, MTU, Network, Servers};
pub use trial::{CHECKSUM_SEQUENCE, Load, Trial};

use super::Cpus;
use super::case::Case;
use crate::host;
use anyhow::{Context, Result};

/// How requests are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of each trial.
    pub seconds: u64,
    /// At once.
    pub connections: u32,
    /// Prints every trial.
    pub verbose: bool,
}

/// A trial, not one that a host took the CPUs away from if that can be had; the errors are those of all.
pub fn calm_trial(network: &Network, load: Load, settings: &Settings, cpus: Cpus) -> Result<Trial> {
    let mut errors = 0;
    let mut trial = host::calmest(&cpus.both(), settings.seconds, || {
        let trial = trial::run(network, load, settings, cpus)?;
        errors += trial.errors;
        Ok(trial)
    })?;
    trial.errors = errors;
    Ok(trial)
}

/// A trial of each load, in a network of the case's own.
pub fn round(case: Case, cpus: Cpus, settings: &Settings) -> Result<Vec<(Load, Trial)>> {
    let network = Network::build(case.answers_directly(), cpus, MTU, Servers::Http)?;
    let _balancer = start(case, &network, cpus)?;
    network.answers().context("no request is answered")?;
    let mut trials = Vec::new();
    for load in Load::ALL {
        let trial = calm_trial(&network, load, settings, cpus)?;
        if settings.verbose {
            let text = serde_json::to_string(&trial)?;
            eprintln!("{case:<24} {:<24} {text}", load.name());
        }
        trials.push((load, trial));
    }
    Ok(trials)
}
