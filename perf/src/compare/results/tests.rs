//! From rounds to rows.

#![allow(clippy::unwrap_used)]

use super::super::fixtures::{answered, late, packets, results};
use super::*;

#[test]
fn packets_are_medians_beside_what_has_the_same_size_and_load() {
    use PacketLoad::{TcpStream, Udp};
    let measured = packets(&[
        (Case::LockstepTunnel, Udp, 1_400, [40.0, 20.0, 30.0]),
        (Case::LockstepTunnel, Udp, 64, [700.0, 100.0, 600.0]),
        (Case::NftablesDnat, Udp, 64, [400.0, 900.0, 300.0]),
        (Case::LinuxForwarding, Udp, 64, [1200.0, 1200.0, 1200.0]),
        (
            Case::LinuxForwarding,
            TcpStream,
            1_400,
            [100.0, 100.0, 100.0],
        ),
        (Case::Haproxy, TcpStream, 1_400, [50.0, 50.0, 50.0]),
    ]);
    let (rows, ..) = measured.rows();
    let found: Vec<_> = (rows.iter())
        .map(|row| {
            let ratios = (row.to_nftables.as_ref(), row.to_forwarding.as_ref());
            let ratios = (ratios.0.map(|r| r.ratio), ratios.1.map(|r| r.ratio));
            (row.case.as_str(), row.bytes, row.packets_per_second, ratios)
        })
        .collect();
    let expected = [
        ("linux-forwarding", 64, 1200.0, (Some(3.0), None)),
        ("nftables-dnat", 64, 400.0, (None, Some(0.33))),
        ("lockstep-tunnel", 64, 600.0, (Some(1.75), Some(0.5))),
        // No datagrams of that size went through either of them.
        ("lockstep-tunnel", 1_400, 30.0, (None, None)),
        ("linux-forwarding", 1_400, 100.0, (None, None)),
        ("haproxy", 1_400, 50.0, (None, Some(0.5))),
    ];
    assert_eq!(found, expected);
    let spread = Spread::of(vec![700.0, 100.0, 600.0]);
    assert_eq!(rows[2].spread, spread);
    assert_eq!((spread.low, spread.high), (100.0, 700.0));
    // One round has no such rate, which is less than any.
    assert_eq!(rows[2].calm_packets_per_second, Some(300.0));
    assert_eq!(rows[3].calm_packets_per_second, None);
}

#[test]
fn requests_are_medians_beside_haproxys_with_their_load() {
    let mut measured = Measured::default();
    for (case, load, rates) in [
        (
            Case::LockstepNat,
            requests::Load::KeepAlive,
            [100.0, 300.0, 200.0],
        ),
        (
            Case::Haproxy,
            requests::Load::ConnectionPerRequest,
            [20.0, 25.0, 30.0],
        ),
        (
            Case::Haproxy,
            requests::Load::KeepAlive,
            [400.0, 100.0, 100.0],
        ),
    ] {
        for rate in rates {
            let mut trial = answered(rate);
            trial.errors = 1;
            note(&mut measured.requests, case, load, trial);
        }
    }
    let (_, rows, _) = measured.rows();
    let found: Vec<_> = (rows.iter())
        .map(|row| {
            let rate = row.requests_per_second;
            (
                row.case.as_str(),
                row.load.as_str(),
                rate,
                row.to_haproxy.as_ref().map(|ratio| ratio.ratio),
            )
        })
        .collect();
    let expected = [
        ("haproxy", "keep-alive", 100.0, None),
        ("lockstep-nat", "keep-alive", 200.0, Some(2.0)),
        ("haproxy", "connection-per-request", 25.0, None),
    ];
    assert_eq!(found, expected);
    assert_eq!(rows[1].errors, 3);
    assert_eq!(rows[1].to_forwarding, None);
}

#[test]
fn latency_is_what_is_added_to_forwarding_at_the_same_share() {
    let mut measured = Measured::default();
    for (case, share, p99) in [
        (Case::LinuxForwarding, Share(50), [10.0, 30.0, 20.0]),
        (Case::LockstepNat, Share(50), [50.0, 90.0, 10.0]),
        (Case::LockstepNat, Share(80), [60.0, 60.0, 60.0]),
    ] {
        for p99 in p99 {
            note(
                &mut measured.latencies,
                case,
                (LatencyLoad::Udp, share),
                late(p99),
            );
        }
    }
    let (.., rows) = measured.rows();
    let found: Vec<_> = (rows.iter())
        .map(|row| (row.case.as_str(), row.share, row.p99_us, row.added_p99_us))
        .collect();
    let expected = [
        ("linux-forwarding", 0.5, 20.0, None),
        ("lockstep-nat", 0.5, 50.0, Some(30.0)),
        ("lockstep-nat", 0.8, 60.0, None),
    ];
    assert_eq!(found, expected);
    assert_eq!((rows[1].p99_low_us, rows[1].p99_high_us), (10.0, 90.0));
    assert_eq!(rows[1].added_to.as_deref(), Some("linux-forwarding"));
}

#[test]
fn latency_is_measured_at_shares_of_the_slowest_of_the_smallest_frames() {
    let measured = packets(&[
        (
            Case::NginxStream,
            PacketLoad::Udp,
            64,
            [1000.0, 1000.0, 1000.0],
        ),
        (
            Case::NginxStream,
            PacketLoad::Udp,
            1_400,
            [10.0, 10.0, 10.0],
        ),
        (
            Case::LockstepNat,
            PacketLoad::Udp,
            64,
            [5000.0, 5000.0, 5000.0],
        ),
        (Case::Haproxy, PacketLoad::TcpRequests, 64, [5.0, 5.0, 5.0]),
    ]);
    // Half of it without more than a little loss.
    let slowest = measured.slowest(LatencyLoad::Udp).unwrap();
    assert_eq!(
        (slowest.case.as_str(), slowest.per_second),
        ("nginx-stream", 500.0)
    );
    let rates = Share::ALL.map(|share| share.of(slowest.per_second));
    assert_eq!(rates, [50, 250, 400]);
    assert_eq!(measured.slowest(LatencyLoad::Rr), None);
}

#[test]
fn a_case_that_loses_much_at_every_rate_does_not_set_those_of_latency() {
    // What carries 100 or less has no rate without losses.
    let [slow, fast] = [[100.0; 3], [5000.0; 3]];
    let measured = packets(&[
        (Case::NginxStream, PacketLoad::Udp, 64, slow),
        (Case::LockstepNat, PacketLoad::Udp, 64, fast),
    ]);
    let slowest = measured.slowest(LatencyLoad::Udp).unwrap();
    assert_eq!(
        (slowest.case.as_str(), slowest.per_second),
        ("lockstep-nat", 2500.0)
    );
    let measured = packets(&[(Case::NginxStream, PacketLoad::Udp, 64, slow)]);
    assert_eq!(measured.slowest(LatencyLoad::Udp), None);
}

#[test]
fn what_rates_are_shares_of_is_told_and_whose_latency_is_that_of_a_part() {
    let [slow, fast] = [[100.0; 3], [5000.0; 3]];
    let mut measured = packets(&[
        (Case::NginxStream, PacketLoad::Udp, 64, slow),
        (Case::LockstepNat, PacketLoad::Udp, 64, fast),
    ]);
    for case in [Case::NginxStream, Case::LockstepNat] {
        let mut round = late(90.0);
        if case == Case::NginxStream {
            (round.lost, round.max_us) = (0.275, 30_000.0);
        }
        note(
            &mut measured.latencies,
            case,
            (LatencyLoad::Udp, Share(80)),
            round,
        );
    }
    let mut results = results(&measured);
    results.slowest.extend(measured.slowest(LatencyLoad::Udp));
    let told = results.rates_in_words(LatencyLoad::Udp);
    assert!(told[0].starts_with("Shares of 2,500 datagrams a second, the most that lockstep-nat"));
    assert!(told[1].starts_with("nginx-stream: at no rate"), "{told:?}");
    assert_eq!(results.rates_in_words(LatencyLoad::Rr), [""; 0]);
    // Each has its own rate, of what latency is measured with.
    let rate = |case: Case, per_second| Paced {
        case: case.name().to_owned(),
        per_second,
    };
    measured.paced = vec![
        rate(Case::LockstepNat, 1_280_000.0),
        rate(Case::NginxStream, 80.0),
    ];
    let slowest = measured.slowest(LatencyLoad::Udp);
    let told = super::super::fixtures::results(&measured);
    let told = Results {
        slowest: slowest.into_iter().collect(),
        ..told
    };
    assert_eq!(
        told.rates_in_words(LatencyLoad::Udp),
        [
            "Shares of 80 datagrams a second, the most that nginx-stream carried with a loss of 1 % at most: the slowest that has \
             such a rate.",
            "Of these, which a socket sends, cases carried with such a loss: lockstep-nat ≥ 1,280,000, nginx-stream 80. ≥: no higher \
             rate was tried.",
        ]
    );
    let rows: Vec<&Latency> = results.latencies.iter().collect();
    let lost = results.losses_in_words(&rows).join(" ");
    assert!(lost.contains("most: nginx-stream 27.50 %."), "{lost}");
    assert!(lost.contains("longer: nginx-stream in 1 of 1."), "{lost}");
    // Of a run that does not say it.
    results.slowest.clear();
    let told = results.rates_in_words(LatencyLoad::Udp);
    assert_eq!(
        told,
        [
            "Shares of 100 datagrams a second, what came through nginx-stream of a load of which it lost 10.00 %: no rate \
          that it carries."
        ]
    );
}

#[test]
fn what_half_of_the_rounds_at_least_could_not_bring_to_its_limit_has_bounds_for_ratios() {
    let mut measured = packets(&[
        (Case::XdpForwarding, PacketLoad::Udp, 64, [900.0; 3]),
        (Case::NftablesDnatOneCpu, PacketLoad::Udp, 64, [300.0; 3]),
    ]);
    measured.packets[0].rounds[1].bound_by_generator = true;
    let ratio = |measured: &Measured| {
        let (rows, ..) = measured.rows();
        let row = rows.into_iter().find(|row| row.case == "xdp-forwarding");
        let row = row.unwrap();
        (row.bound_by_generator, row.to_nftables.unwrap().to_string())
    };
    assert_eq!(ratio(&measured), (false, "3.00".to_owned()));
    measured.packets[0].rounds[2].bound_by_generator = true;
    assert_eq!(ratio(&measured), (true, "≥ 3.00".to_owned()));
    let (rows, ..) = measured.rows();
    let json = serde_json::to_value(&rows[0]).unwrap();
    assert_eq!(json["low"], 900.0, "{json}");
    assert_eq!(json["to_nftables"]["to"], "nftables-dnat-one-cpu");
    assert_eq!(json["to_nftables"]["bound"], "at-least");
}

#[test]
fn a_stall_in_one_trial_of_many_is_in_the_row() {
    let mut measured = Measured::default();
    for max_us in [300.0, 45_000.0, 200.0, 250.0] {
        let key = (LatencyLoad::Rr, Share(80));
        let mut round = late(90.0);
        round.max_us = max_us;
        round.lost = if max_us > 1e3 { 0.002 } else { 0.0 };
        note(&mut measured.latencies, Case::Haproxy, key, round);
    }
    let (.., rows) = measured.rows();
    let row = &rows[0];
    assert_eq!((row.trials, row.stalled), (4, 1));
    assert_eq!((row.max_us, row.lost, row.p99_us), (45_000.0, 0.002, 90.0));
}

#[test]
fn fewer_connections_than_were_asked_for_are_told() {
    let mut measured = Measured::default();
    for (case, connections) in [(Case::Haproxy, [64, 64]), (Case::NginxStream, [64, 37])] {
        for connections in connections {
            let mut round = late(90.0);
            round.connections = Some(connections);
            let key = (LatencyLoad::Rr, Share(50));
            note(&mut measured.latencies, case, key, round);
        }
    }
    let told = results(&measured).fewer_connections();
    assert_eq!(told, ["nginx-stream at 50 %: 37 of 64 connections"]);
}

#[test]
fn bits_are_those_of_frames_with_their_checksum_sequence() {
    let measured = packets(&[(Case::Haproxy, PacketLoad::Udp, 64, [1e9; 3])]);
    let (rows, ..) = measured.rows();
    assert_eq!(rows[0].gbit_per_second, 512.0);
}
