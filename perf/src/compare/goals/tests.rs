//! What counts as reached.

#![allow(clippy::unwrap_used)]

use super::super::requests::Trial;
use super::super::results::{LatencyRound, Measured, PacketRound, Share, note};
use super::*;

fn carried(rate: f64) -> PacketRound {
    PacketRound {
        packets_per_second: rate,
        frame_bytes: 64.0,
        payload_gbit: Some(rate / 1e3),
        calm: None,
        loss: Some(0.1),
        bound_by_generator: false,
        cpu_s_per_million: None,
        balancer_cpu: 1.0,
    }
}

fn packets(rows: &[(Case, PacketLoad, usize, f64)]) -> Measured {
    let mut measured = Measured::default();
    for &(case, load, bytes, rate) in rows {
        note(&mut measured.packets, case, (load, bytes), carried(rate));
    }
    measured
}

fn of(measured: &Measured) -> Vec<Goal> {
    let (packets, requests, latencies) = measured.rows();
    goals(&packets, &requests, &latencies)
}

#[test]
fn goals_are_of_what_was_measured_only() {
    use PacketLoad::{TcpStream, Udp};
    let measured = packets(&[
        (Case::LockstepTunnel, Udp, 64, 140.0),
        (Case::LockstepFallback, Udp, 64, 200.0),
        (Case::NftablesDnat, Udp, 64, 100.0),
        // The fallback's packets are taken in on the same CPU as these.
        (Case::NftablesDnatOneCpu, Udp, 64, 80.0),
        (Case::LockstepReplicate, TcpStream, 1_400, 3e8),
        (Case::Haproxy, TcpStream, 1_400, 6e8),
    ]);
    let found: Vec<_> = (of(&measured).iter())
        .map(|goal| (goal.measured, goal.wanted, goal.met))
        .collect();
    let expected = [(1.4, 1.5, false), (2.5, 2.0, true), (0.5, 0.9, false)];
    assert_eq!(found, expected);
}

/// Whether a goal is reached by a figure of 2, and what is said of it.
fn reached(bound: Bound, wanted: f64, at_least: bool) -> (bool, bool) {
    let figure = Figure {
        value: 2.0,
        bound,
        faults: Vec::new(),
    };
    let goal = judged("a goal", figure, wanted, at_least);
    (goal.met, goal.notes.is_empty())
}

#[test]
fn a_bound_reaches_only_what_lies_on_its_own_side() {
    for (bound, wanted, at_least, expected) in [
        (Bound::Exact, 1.0, true, (true, true)),
        (Bound::Exact, 3.0, true, (false, true)),
        (Bound::Exact, 3.0, false, (true, true)),
        (Bound::AtLeast, 1.0, true, (true, true)),
        // It may be.
        (Bound::AtLeast, 3.0, true, (false, false)),
        (Bound::AtLeast, 3.0, false, (false, false)),
        (Bound::AtLeast, 1.0, false, (false, true)),
        (Bound::AtMost, 1.0, true, (false, false)),
        (Bound::AtMost, 3.0, true, (false, true)),
        (Bound::AtMost, 3.0, false, (true, true)),
        (Bound::Neither, 1.0, true, (false, false)),
    ] {
        let found = reached(bound, wanted, at_least);
        assert_eq!(found, expected, "{bound:?}, {wanted}, {at_least}");
    }
}

fn answered(rate: f64, errors: u64) -> Trial {
    Trial {
        requests_per_second: rate,
        packets_per_second: 3.0 * rate,
        frame_bytes: 500.0,
        p50_us: 1.0,
        p99_us: 2.0,
        cpu_s_per_million_requests: 1.0,
        cpu_s_per_million_packets: 1.0,
        balancer_cpu: 1.0,
        errors,
    }
}

#[test]
fn requests_with_errors_reach_nothing_however_many_they_are() {
    for (ours, theirs, met, notes) in [
        (0, 0, true, vec![]),
        (1, 0, false, vec!["1 of lockstep-replicate failed"]),
        (0, 2, false, vec!["2 of haproxy failed"]),
    ] {
        let mut measured = Measured::default();
        for (case, rate, errors) in [
            (Case::LockstepReplicate, 200.0, ours),
            (Case::Haproxy, 100.0, theirs),
        ] {
            let all = &mut measured.requests;
            note(all, case, Load::KeepAlive, answered(rate, errors));
            note(all, case, Load::KeepAlive, answered(rate, 0));
        }
        let goals = of(&measured);
        assert_eq!((goals[0].measured, goals[0].met), (2.0, met));
        assert_eq!(goals[0].notes, notes);
    }
}

#[test]
fn a_latency_with_losses_reaches_nothing_however_short_it_is() {
    let with = |lost: f64| {
        let mut measured = Measured::default();
        for (case, p99_us, lost) in [
            (Case::LockstepTunnel, 50.0, lost),
            (Case::LinuxForwarding, 90.0, 0.0),
        ] {
            for lost in [0.0, lost, 0.0] {
                let key = (LatencyLoad::Udp, Share(50));
                note(&mut measured.latencies, case, key, late(p99_us, lost));
            }
        }
        of(&measured).remove(0)
    };
    let goal = with(0.0);
    assert_eq!((goal.measured, goal.met), (-40.0, true));
    let goal = with(0.000_003);
    assert!(!goal.met);
    assert_eq!(goal.notes, ["lockstep-tunnel lost < 0.01 %"]);
}

fn late(p99_us: f64, lost: f64) -> LatencyRound {
    LatencyRound {
        per_second: 1000.0,
        p50_us: p99_us / 2.0,
        p90_us: p99_us * 0.9,
        p99_us,
        p999_us: p99_us * 2.0,
        max_us: p99_us * 3.0,
        lost,
        connections: None,
        cpu_s_per_million: None,
    }
}

#[test]
fn a_share_that_is_anything_is_not_told_as_nothing() {
    let told = [0.0, 0.000_001, 0.0123, 1.0].map(in_percent);
    assert_eq!(told, ["0 %", "< 0.01 %", "1.23 %", "100.00 %"]);
}
