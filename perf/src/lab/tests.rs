//! From trials to rows.

use super::*;

/// A trial in which `arrived` of `sent` packets a second arrived.
fn trial(sent: f64, arrived: f64) -> Trial {
    Trial {
        offered_per_second: sent as u64,
        sent_per_second: sent,
        packets_per_second: arrived,
        loss: 1.0 - arrived / sent,
        engine: None,
    }
}

#[test]
fn a_row_is_the_median_of_the_rounds_beside_the_faster_nftables() {
    let rounds = |most: [f64; 3]| most.map(|arrived| vec![trial(arrived, arrived)]).to_vec();
    let rows = rows(vec![
        (Case::NftablesDnat, rounds([100.0, 300.0, 200.0])),
        (Case::NftablesDnatNoRps, rounds([400.0, 900.0, 300.0])),
        (Case::Engine, rounds([700.0, 100.0, 600.0])),
    ]);
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.packets_per_second, row.ratio_to_nftables))
        .collect();
    assert_eq!(
        found,
        [(200.0, Some(0.5)), (400.0, Some(1.0)), (600.0, Some(1.5))]
    );
    assert_eq!(rows[2].rounds, [700.0, 100.0, 600.0]);
}

#[test]
fn loss_counts_against_the_calm_rate_but_not_against_the_maximum() {
    let ladder = vec![
        trial(500.0, 499.0),
        trial(1000.0, 800.0),
        trial(2000.0, 600.0),
    ];
    let rows = rows(vec![(Case::Engine, vec![ladder])]);
    assert_eq!(rows[0].packets_per_second, 800.0);
    assert_eq!(rows[0].packets_per_second_within_1_percent_loss, 499.0);
    assert_eq!(rows[0].ratio_to_nftables, None);
}
