//! Derived numbers: in range, equally likely, the same for the same question only.

use super::*;
use crate::random::request::{Name, Which};
use proptest::prelude::*;

const SALT: [u8; 16] = [0; 16];

fn key(session: &str, call: u64, range: Range) -> Key {
    let session = Name::new(session).unwrap();
    Key::new(range, &Which::Call { session, call }).unwrap()
}

fn draw(secret: u8, call: u64, range: Range) -> Vec<i32> {
    Secret::new([secret; 32]).integers(&key("s", call, range), &SALT, range)
}

/// Pearson's statistic of counts that should be equal.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let term = |&n: &u32| (f64::from(n) - expected).powi(2) / expected;
    counts.iter().map(term).sum()
}

#[test]
fn numbers_are_equally_likely() {
    // The bound is the 99.99 % quantile of the distribution; the secret is fixed, and so is the
    // outcome.
    for (min, max, bound) in [(1, 6, 25.7), (-50, 49, 160.1), (0, 1, 15.1)] {
        let range = Range {
            num: 10_000,
            min,
            max,
        };
        let mut counts = vec![0; (max - min + 1) as usize];
        for call in 1..=20 {
            for number in draw(7, call, range) {
                counts[(number - min) as usize] += 1;
            }
        }
        let found = chi_square(&counts);
        assert!(found < bound, "{min}..={max}: {found} of {counts:?}");
    }
}

#[test]
fn numbers_of_the_widest_range_are_not_biased_by_what_words_are_left_over() {
    // 2^32 is 2.15 times as many as there are numbers: without rejection the first 15 % of them
    // would be half as likely again.
    let range = Range {
        num: 10_000,
        min: -1_000_000_000,
        max: 1_000_000_000,
    };
    let mut counts = [0; 20];
    for number in (1..=10).flat_map(|call| draw(9, call, range)) {
        counts[((i64::from(number) + 1_000_000_000) * 20 / 2_000_000_001) as usize] += 1;
    }
    assert!(chi_square(&counts) < 52.4, "{counts:?}");
}

#[test]
fn answers_are_told_apart_by_secret_call_salt_and_range() {
    let range = Range {
        num: 8,
        min: 0,
        max: 1_000_000,
    };
    let one = draw(1, 1, range);
    assert_eq!(one, draw(1, 1, range));
    assert_ne!(one, draw(2, 1, range));
    assert_ne!(one, draw(1, 2, range));
    let salted = Secret::new([1; 32]).integers(&key("s", 1, range), &[1; 16], range);
    assert_ne!(one, salted);
    let wider = Range {
        max: 1_000_001,
        ..range
    };
    assert_ne!(one, draw(1, 1, wider));
}

#[test]
fn numbers_stay_what_they_are_over_versions() {
    // What was handed out must come again from the next version of this program.
    let range = Range {
        num: 5,
        min: 1,
        max: 100,
    };
    assert_eq!(draw(42, 1, range), EXPECTED);
}

/// By HMAC and SHA-256 of Python's standard library.
const EXPECTED: [i32; 5] = [50, 41, 63, 15, 21];

#[test]
fn secrets_are_kept_as_text_and_never_shown() {
    let secret = Secret::new([0xa5; 32]);
    assert_eq!(Secret::from_hex(&secret.to_hex()), Some(secret.clone()));
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    for wrong in ["", "zz", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32)] {
        assert_eq!(Secret::from_hex(wrong), None);
    }
}

proptest! {
    #[test]
    fn numbers_are_in_their_range(
        secret: [u8; 32], num in 1u16..40, a in -1_000_000_000i32..=1_000_000_000,
        b in -1_000_000_000i32..=1_000_000_000, call in 1u64..,
    ) {
        prop_assume!(a != b);
        let range = Range { num, min: a.min(b), max: a.max(b) };
        let numbers = Secret::new(secret).integers(&key("s", call, range), &SALT, range);
        prop_assert_eq!(numbers.len(), usize::from(num));
        prop_assert!(numbers.iter().all(|n| (range.min..=range.max).contains(n)));
    }
}
