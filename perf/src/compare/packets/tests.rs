//! From trials to what a round comes to.

#![allow(clippy::unwrap_used)]

use super::*;
use std::net::IpAddr;

/// A trial in which `arrived` of `sent` packets a second arrived.
fn trial(sent: f64, arrived: f64) -> Trial {
    Trial {
        offered_per_second: sent as u64,
        sent_per_second: sent,
        packets_per_second: arrived,
        loss: 1.0 - arrived / sent,
        balancer_cpu: 1.0,
        cpu_s_per_million_packets: Some(1e6 / arrived),
        engine: None,
    }
}

#[test]
fn loss_counts_against_the_calm_rate_but_not_against_the_maximum() {
    let ladder = [
        trial(500.0, 499.0),
        trial(1000.0, 800.0),
        trial(2000.0, 600.0),
    ];
    let round = best(&ladder, 64);
    assert_eq!(round.packets_per_second, 800.0);
    assert_eq!(round.calm, Some(499.0));
    assert_eq!(round.cpu_s_per_million, Some(1e6 / 800.0));
    assert_eq!(best(&ladder[1..], 64).calm, None);
}

#[test]
fn what_loses_next_to_nothing_of_all_that_could_be_sent_may_carry_more() {
    let bound = |trials: &[Trial]| best(trials, 64).bound_by_generator;
    assert!(bound(&[trial(500.0, 500.0), trial(1000.0, 998.0)]));
    // The generator had more, and less of it arrived.
    assert!(!bound(&[trial(1000.0, 998.0), trial(1500.0, 900.0)]));
    assert!(!bound(&[trial(500.0, 500.0), trial(1000.0, 900.0)]));
}

/// The rates that a ramp offers to a balancer that carries `capacity` packets a second, to which
/// the generator gives twice as many.
fn offered(capacity: f64, last: Option<f64>) -> Vec<f64> {
    let of = |offered: u64| {
        let sent = (offered as f64).min(2.0 * capacity);
        Ok(trial(sent, sent.min(capacity)))
    };
    let trials = ramp(of, last, 1.25).unwrap();
    trials.iter().map(|trial| trial.sent_per_second).collect()
}

#[test]
fn a_later_round_begins_near_the_maximum_of_the_one_before() {
    let (first, second) = (offered(1e6, None), offered(1e6, Some(1e6)));
    assert_eq!(second[..2], [200_000.0, 640_000.0]);
    assert_eq!(first.last(), second.last());
    assert!(second.len() + 3 < first.len(), "{second:?} {first:?}");
    // The machine was slower then.
    let third = offered(1e6, Some(1e5));
    assert_eq!(third, first);
}

#[test]
fn a_rate_without_loss_is_looked_for_below_the_first_one_too() {
    let rates = offered(60_000.0, None);
    assert!(rates.contains(&50_000.0), "{rates:?}");
}

/// One that begins to lose at a quarter of what it carries at most, as XDP on a veth does.
#[test]
fn a_rate_without_loss_is_looked_for_where_a_later_round_has_left_rates_out() {
    let calm = |last| {
        let of = |offered: u64| {
            let sent = (offered as f64).min(4.4e6);
            let loss = if sent > 1e6 { 0.05 } else { 0.0 };
            Ok(trial(sent, (sent * (1.0 - loss)).min(4e6)))
        };
        let trials = ramp(of, last, 1.25).unwrap();
        (best(&trials, 64).calm.unwrap(), trials.len())
    };
    let ((first, of_first), (second, of_second)) = (calm(None), calm(Some(4e6)));
    assert!((8e5..=1e6).contains(&first), "{first}");
    assert!((8e5..=1e6).contains(&second), "{second}");
    assert!(of_second < of_first, "{of_second} {of_first}");
}

#[test]
fn what_forwards_nothing_is_no_result() {
    let nothing = |offered: u64| Ok(trial(offered as f64, 0.0));
    assert!(ramp(nothing, None, 1.25).is_err());
}

#[test]
fn the_largest_frame_fills_the_largest_link_with_a_header_in_front() {
    const OUTER_IPV4: usize = 20;
    assert_eq!(packet_bytes(LARGE) + OUTER_IPV4, usize::from(LARGEST_MTU));
    assert_eq!([64, 1_400, LARGE].map(mtu), [MTU, MTU, LARGEST_MTU]);
}

#[test]
fn there_are_source_addresses_for_all_flows() {
    assert_eq!(
        network::sources(1),
        ["198.18.0.2".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(network::sources(50_000).len(), 1);
    let two = network::sources(50_001);
    assert_eq!(two[1], "198.18.0.3".parse::<IpAddr>().unwrap());
    assert_eq!(two.len(), 2);
}
