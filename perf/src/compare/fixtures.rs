//! What tests of the comparison are made of: rounds with one figure that matters, and results of them.

use super::case::Case;
use super::requests;
use super::results::{LatencyRound, Measured, PacketLoad, PacketRound, Results, note};

/// Packets that a case carried at most; of more than 100, half came through calmly.
pub fn carried(rate: f64) -> PacketRound {
    PacketRound {
        packets_per_second: rate,
        frame_bytes: 64.0,
        payload_gbit: Some(rate / 1e3),
        calm: (rate > 100.0).then_some(rate / 2.0),
        loss: Some(0.1),
        bound_by_generator: false,
        cpu_s_per_million: None,
        balancer_cpu: 1.0,
    }
}

/// Requests that were all answered.
pub fn answered(rate: f64) -> requests::Trial {
    requests::Trial {
        requests_per_second: rate,
        packets_per_second: 3.0 * rate,
        frame_bytes: 500.0,
        p50_us: 1.0,
        p99_us: 2.0,
        cpu_s_per_million_requests: 1.0,
        cpu_s_per_million_packets: 1.0,
        balancer_cpu: 1.0,
        errors: 0,
    }
}

/// A trial of latency in which nothing was lost, and nothing stood still.
pub fn late(p99_us: f64) -> LatencyRound {
    LatencyRound {
        per_second: 1000.0,
        p50_us: p99_us / 2.0,
        p90_us: p99_us * 0.9,
        p99_us,
        p999_us: p99_us * 2.0,
        max_us: p99_us * 3.0,
        lost: 0.0,
        connections: None,
        cpu_s_per_million: None,
        stolen_ms: 0.0,
    }
}

/// Packets of each of these, by round.
pub fn packets<const ROUNDS: usize>(rows: &[(Case, PacketLoad, usize, [f64; ROUNDS])]) -> Measured {
    let mut measured = Measured::default();
    for &(case, load, bytes, rates) in rows {
        for rate in rates {
            note(&mut measured.packets, case, (load, bytes), carried(rate));
        }
    }
    measured
}

/// The rows of what was measured, in a run of three rounds without a failure.
pub fn results(measured: &Measured) -> Results {
    let (packets, requests, latencies) = measured.rows();
    Results {
        quick: false,
        machine: Default::default(),
        rounds: 3,
        flows: 1,
        connections: 64,
        cases: Vec::new(),
        packets,
        requests,
        slowest: Vec::new(),
        latencies,
        paced: measured.paced.clone(),
        stolen: None,
        no_latency: Vec::new(),
        failed: Vec::new(),
    }
}
