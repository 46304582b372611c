//! From trials to rows.

#![allow(clippy::unwrap_used)]

use super::*;

/// A trial in which `arrived` of `sent` packets a second arrived.
fn trial(sent: f64, arrived: f64) -> Trial {
    Trial {
        bytes: 64,
        offered_per_second: sent as u64,
        sent_per_second: sent,
        packets_per_second: arrived,
        loss: 1.0 - arrived / sent,
        balancer_cpu: 1.0,
        cpu_s_per_million_packets: Some(1e6 / arrived),
        engine: None,
    }
}

fn series(case: Case, bytes: usize, most: [f64; 3]) -> Series {
    let rounds = most.map(|arrived| vec![trial(arrived, arrived)]).to_vec();
    Series {
        case,
        bytes,
        rounds,
    }
}

#[test]
fn a_row_is_the_median_of_the_rounds_beside_the_faster_nftables_of_its_size() {
    let rows = rows(vec![
        series(Case::NftablesDnat, 1_400, [10.0, 10.0, 10.0]),
        series(Case::NftablesDnat, 64, [100.0, 300.0, 200.0]),
        series(Case::NftablesDnatNoRps, 64, [400.0, 900.0, 300.0]),
        series(Case::Engine, 64, [700.0, 100.0, 600.0]),
        series(Case::Engine, 1_400, [40.0, 20.0, 30.0]),
    ]);
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.bytes, row.packets_per_second, row.ratio_to_nftables))
        .collect();
    let expected = [
        (64, 200.0, Some(0.5)),
        (64, 400.0, Some(1.0)),
        (64, 600.0, Some(1.5)),
        (1_400, 10.0, Some(1.0)),
        (1_400, 30.0, Some(3.0)),
    ];
    assert_eq!(found, expected);
    assert_eq!(rows[2].rounds, [700.0, 100.0, 600.0]);
    assert_eq!(rows[2].cpu_s_per_million_packets, Some(1e6 / 600.0));
}

#[test]
fn loss_counts_against_the_calm_rate_but_not_against_the_maximum() {
    let ladder = vec![
        trial(500.0, 499.0),
        trial(1000.0, 800.0),
        trial(2000.0, 600.0),
    ];
    let rows = rows(vec![Series {
        case: Case::Engine,
        bytes: 64,
        rounds: vec![ladder],
    }]);
    assert_eq!(rows[0].packets_per_second, 800.0);
    assert_eq!(rows[0].packets_per_second_within_1_percent_loss, 499.0);
    assert_eq!(rows[0].ratio_to_nftables, None);
}

/// The rates that a ramp offers to a balancer that carries `capacity` packets a second, to which
/// the generator gives twice as many.
fn offered(capacity: f64, last: Option<f64>) -> Vec<f64> {
    let of = |offered: u64| {
        let sent = (offered as f64).min(2.0 * capacity);
        Ok(trial(sent, sent.min(capacity)))
    };
    let trials = ramp(of, last).unwrap();
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
    assert_eq!(rates.last(), Some(&50_000.0));
}

#[test]
fn what_forwards_nothing_is_no_result() {
    let nothing = |offered: u64| Ok(trial(offered as f64, 0.0));
    assert!(ramp(nothing, None).is_err());
}
