//! A trial: one load for a while, and what came of it.

use super::super::Cpus;
use super::super::engine::Balancer;
use super::balancer::EngineCounts;
use super::network::Network;
use crate::cpu::{self, Busy};
use crate::measure::rounded;
use anyhow::{Result, ensure};
use lockstep_bpf::{Offer, OfferProgram, Offered};
use nix::sys::prctl;
use serde::Serialize;

/// The outcome of a trial.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// What the generator was to send.
    pub offered_per_second: u64,
    /// What it sent.
    pub sent_per_second: f64,
    /// What arrived at the sink.
    pub packets_per_second: f64,
    /// The share of what was sent that did not arrive, 0 to 1.
    pub loss: f64,
    /// The share of the time for which the balancer's CPU was not idle: 1 is all of it.
    pub balancer_cpu: f64,
    /// That time for a million packets that arrived, in seconds; none where nothing arrived.
    pub cpu_s_per_million_packets: Option<f64>,
    /// What the engine says of its part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineShare>,
}

/// The engine's part of a trial.
#[derive(Debug, Clone, Serialize)]
pub struct EngineShare {
    /// CPUs it kept busy, all its threads together: 1 is one whole CPU.
    pub cpu: f64,
    /// Packets per burst received.
    pub packets_per_burst: f64,
    /// Packets per system call made to send.
    pub packets_per_wakeup: f64,
    /// The share of turns of the worker's loop that found no packet, 0 to 1.
    pub empty_turns: f64,
    /// Packets it dropped, per second, whatever the reason.
    pub dropped_per_second: f64,
}

/// Sends the load from the generator's CPU; with it, for how long the balancer's CPU was not idle.
fn send(network: &Network, cpus: Cpus, offer: &Offer<'_>) -> Result<(Offered, f64)> {
    network.generator.within(|| {
        let id = cpus.generator;
        // For `top -H`, and for whoever waits for it.
        prctl::set_name(c"offer")?;
        let on_core = core_affinity::set_for_current(core_affinity::CoreId { id });
        ensure!(on_core, "cannot run on CPU {id}");
        let program = OfferProgram::load(offer.clone())?;
        let before = cpu::unused_now(cpus.balancer)?;
        let offered = program.send()?;
        let busy = Busy::between(before, cpu::unused_now(cpus.balancer)?)?;
        ensure!(offered.seconds > 0.0, "nothing was sent");
        // A worker that polls is busy for a moment longer than packets are sent.
        Ok((offered, busy.seconds.min(offered.seconds)))
    })
}

/// Runs one trial.
pub fn run(network: &Network, balancer: &Balancer, cpus: Cpus, offer: &Offer<'_>) -> Result<Trial> {
    let (arrived, engine) = (network.arrived()?, EngineCounts::read(balancer, network)?);
    let (sent, busy) = send(network, cpus, offer)?;
    let engine_after = EngineCounts::read(balancer, network)?;
    let arrived = network.arrived()? - arrived;
    let engine = engine.zip(engine_after).map(|(before, after)| {
        let of = |count: fn(&EngineCounts) -> f64| count(&after) - count(&before);
        let (bursts, turns) = (of(|c| c.bursts), of(|c| c.turns));
        EngineShare {
            cpu: rounded(of(|c| c.cpu_seconds) / sent.seconds, 2),
            packets_per_burst: rounded(of(|c| c.received) / bursts.max(1.0), 1),
            packets_per_wakeup: rounded(of(|c| c.sent) / of(|c| c.tx_wakeups).max(1.0), 1),
            empty_turns: rounded(1.0 - bursts / turns.max(1.0), 2),
            dropped_per_second: (of(|c| c.dropped) / sent.seconds).round(),
        }
    });
    let lost = sent.packets.saturating_sub(arrived);
    Ok(Trial {
        offered_per_second: offer.packets_per_second,
        sent_per_second: (sent.packets as f64 / sent.seconds).round(),
        packets_per_second: (arrived as f64 / sent.seconds).round(),
        loss: rounded(lost as f64 / sent.packets.max(1) as f64, 4),
        balancer_cpu: rounded(busy / sent.seconds, 2),
        cpu_s_per_million_packets: (arrived > 0).then(|| rounded(busy / arrived as f64 * 1e6, 2)),
        engine,
    })
}
