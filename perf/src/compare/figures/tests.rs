//! From rows to figures.

#![allow(clippy::unwrap_used)]

use super::super::failed::{Failed, Part};
use super::super::requests::{Load, Trial};
use super::super::results::{Measured, note};
use super::*;
use anyhow::anyhow;

/// Requests of two cases, three rounds each.
fn results() -> Results {
    let mut measured = Measured::default();
    for (case, rate) in [(Case::Haproxy, 100.0), (Case::LockstepNat, 200.0)] {
        for load in [Load::KeepAlive, Load::ConnectionPerRequest] {
            for round in 0..3 {
                let trial = Trial {
                    requests_per_second: rate + f64::from(round),
                    packets_per_second: rate,
                    frame_bytes: 500.0,
                    p50_us: 1.0,
                    p99_us: 2.0,
                    cpu_s_per_million_requests: 1.0,
                    cpu_s_per_million_packets: 1.0,
                    balancer_cpu: 1.0,
                    errors: 0,
                };
                note(&mut measured.requests, case, load, trial);
            }
        }
    }
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
        latencies,
        failed: Vec::new(),
    }
}

#[test]
fn a_figure_says_once_which_of_its_cases_lacks_a_round() {
    let mut results = results();
    assert_eq!(requests(&results).differs, Vec::<String>::new());
    let failed = |part| Failed::new(Case::Haproxy, part, 2, &anyhow!("no answer"));
    results.failed = vec![failed(Part::Requests), failed(Part::LatencyOfRequests)];
    assert_eq!(
        requests(&results).differs,
        ["haproxy, requests: 2 of 3 rounds; the others failed."]
    );
}
