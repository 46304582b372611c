//! Balance, disruption and independence of order.

use super::*;
use core::net::Ipv4Addr;
use proptest::prelude::*;

fn backends(count: u32) -> Vec<(BackendId, Weight)> {
    (0..count)
        .map(|i| {
            (
                BackendId(Ipv4Addr::from(0x0a00_0001 + i).into()),
                Weight::DEFAULT,
            )
        })
        .collect()
}

fn moved(before: &[IpAddr], after: &[IpAddr]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

/// The table as addresses, so that tables over different lists compare.
fn owners(backends: &[(BackendId, Weight)], size: TableSize) -> Vec<IpAddr> {
    let table = Maglev::new(backends, size).unwrap();
    table
        .entries()
        .iter()
        .map(|&b| backends[b as usize].0.0)
        .collect()
}

#[test]
fn no_backend_no_table() {
    assert_eq!(Maglev::new(&[], TableSize::DEFAULT), None);
}

#[test]
fn shares_are_even_within_one_percent_of_the_table() {
    for count in [1, 2, 3, 10, 100, 500] {
        let table = Maglev::new(&backends(count), TableSize::DEFAULT).unwrap();
        let shares = table.shares(count as usize);
        let (min, max) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        // Equal weights take turns: nobody is ahead by more than one entry.
        assert!(max - min <= 1, "{count} backends: {min}..{max}");
    }
}

#[test]
fn shares_follow_weights() {
    let mut list = backends(4);
    for (backend, weight) in list.iter_mut().zip([1, 2, 3, 10_000]) {
        backend.1 = Weight::new(weight).unwrap();
    }
    let table = Maglev::new(&list, TableSize::new(655_373).unwrap()).unwrap();
    let total = 10_006.0;
    for (share, (_, weight)) in table.shares(4).into_iter().zip(&list) {
        let ideal = 655_373.0 * f64::from(weight.get()) / total;
        assert!(
            (f64::from(share) - ideal).abs() <= 2.0,
            "{share} for {ideal}"
        );
    }
}

/// Beyond about 150 backends a table of 65,537 moves more: what Maglev shuffles besides is close
/// to a constant share of the table (0.5 to 1 %). Larger services want a larger table.
#[test]
fn removal_disrupts_at_most_twice_the_ideal() {
    for count in [3_u32, 10, 30, 100, 150] {
        let all = backends(count);
        let before = owners(&all, TableSize::DEFAULT);
        for gone in [0, count as usize / 2, count as usize - 1] {
            let mut rest = all.clone();
            rest.remove(gone);
            let ideal = 65_537 / count as usize + 1;
            let moved = moved(&before, &owners(&rest, TableSize::DEFAULT));
            assert!(
                moved >= ideal - 1,
                "the removed backend's entries must move"
            );
            assert!(
                moved <= 2 * ideal,
                "{count} backends: {moved} moved, ideal {ideal}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_list_changes_nothing(
        weights in prop::collection::vec(1_u16..=20, 1..40),
        swaps in prop::collection::vec((0_usize..40, 0_usize..40), 0..40),
    ) {
        let mut list: Vec<_> = backends(weights.len() as u32);
        for (backend, weight) in list.iter_mut().zip(&weights) {
            backend.1 = Weight::new(*weight).unwrap();
        }
        let size = TableSize::new(5_003).unwrap();
        let expected = owners(&list, size);
        for (a, b) in swaps {
            let len = list.len();
            list.swap(a % len, b % len);
        }
        prop_assert_eq!(owners(&list, size), expected);
    }

    #[test]
    fn every_hash_finds_a_backend(hash: u64, count in 1_u32..50) {
        let table = Maglev::new(&backends(count), TableSize::new(251).unwrap()).unwrap();
        prop_assert!(u32::from(table.lookup(hash)) < count);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Of single sets one removal in some 3,000 moves more with up to 64 backends, and one in 30
    /// with 150: permutations that meet early. So the bound is on the mean over several sets.
    #[test]
    fn removing_any_backend_of_any_set_disrupts_at_most_twice_the_ideal(
        sets in prop::collection::vec(
            (prop::collection::btree_set(any::<u32>(), 2..=150), any::<prop::sample::Index>()),
            16,
        ),
    ) {
        let mut times_ideal = 0.0;
        for (addresses, gone) in &sets {
            let all: Vec<_> = addresses
                .iter()
                .map(|&address| (BackendId(Ipv4Addr::from(address).into()), Weight::DEFAULT))
                .collect();
            let mut rest = all.clone();
            rest.remove(gone.index(all.len()));
            let before = owners(&all, TableSize::DEFAULT);
            let moved = moved(&before, &owners(&rest, TableSize::DEFAULT));
            let ideal = 65_537 / all.len();
            prop_assert!(moved >= ideal, "the removed backend's entries must move");
            times_ideal += moved as f64 / ideal as f64;
        }
        let mean = times_ideal / sets.len() as f64;
        prop_assert!(mean <= 2.0, "{mean} times the ideal");
    }
}
