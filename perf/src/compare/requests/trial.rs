//! A trial: wrk for a while, and what the balancer's CPU did meanwhile.

use super::super::Cpus;
use super::Settings;
use super::network::Network;
use crate::cpu::{self, Busy};
use crate::measure::rounded;
use anyhow::Result;
use lockstep_tests::lab::Wrk;
use serde::Serialize;
use std::time::Duration;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Many over each connection.
    KeepAlive,
    /// One over each connection: every request is a new flow.
    ConnectionPerRequest,
    /// Many over each connection, with the shortest answers: for the number of their packets.
    Least,
}

impl Load {
    /// Those of which requests are counted.
    pub const ALL: [Load; 2] = [Load::KeepAlive, Load::ConnectionPerRequest];

    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Load::KeepAlive => "keep-alive",
            Load::ConnectionPerRequest => "connection-per-request",
            Load::Least => "least",
        }
    }
}

/// The outcome of a trial.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Answered requests a second.
    pub requests_per_second: f64,
    /// Packets a second that the balancer received, from either side.
    pub packets_per_second: f64,
    /// The mean length of their frames, with the checksum sequence.
    pub frame_bytes: f64,
    /// The median latency.
    pub p50_us: f64,
    /// The latency of all but one in a hundred.
    pub p99_us: f64,
    /// The balancer's CPU time for a million requests, in seconds.
    pub cpu_s_per_million_requests: f64,
    /// And for a million packets.
    pub cpu_s_per_million_packets: f64,
    /// The share of the time for which the balancer's CPU was not idle: 1 is all of it.
    pub balancer_cpu: f64,
    /// Requests without a good answer.
    pub errors: u64,
}

/// The checksum sequence behind a frame.
pub const CHECKSUM_SEQUENCE: f64 = 4.0;

/// Runs one trial.
pub fn run(network: &Network, load: Load, settings: &Settings, cpus: Cpus) -> Result<Trial> {
    let path = if load == Load::Least { "/least" } else { "/" };
    let mut wrk = Wrk::new(network.url(path))
        .connections(settings.connections)
        .seconds(settings.seconds);
    if load == Load::ConnectionPerRequest {
        wrk = wrk.connection_per_request();
    }
    let received = network.received()?;
    let before = cpu::unused_now(cpus.balancer)?;
    let report = wrk.run(network.client())?;
    let busy = Busy::between(before, cpu::unused_now(cpus.balancer)?)?;
    let now = network.received()?;
    let packets = (now.packets - received.packets).max(1) as f64;
    let bytes = (now.bytes - received.bytes) as f64;
    let us = |latency: Duration| (latency.as_secs_f64() * 1e6).round();
    // By wrk's own clock, which begins when its connections are made.
    let of_requests = report.rate / report.requests as f64;
    Ok(Trial {
        requests_per_second: report.rate.round(),
        packets_per_second: (packets * of_requests).round(),
        frame_bytes: (bytes / packets + CHECKSUM_SEQUENCE).round(),
        p50_us: us(report.latency[0]),
        p99_us: us(report.latency[3]),
        cpu_s_per_million_requests: rounded(busy.seconds / report.requests as f64 * 1e6, 1),
        cpu_s_per_million_packets: rounded(busy.seconds / packets * 1e6, 2),
        balancer_cpu: rounded(busy.share(), 2),
        errors: report.errors(),
    })
}
