//! Fractions as weights.

use lockstep_plan::Weight;

/// Weights with the ratios of fractions: in lowest terms where those are weights, else nearly, the
/// largest one [`Weight::MAX`]. A fraction of zero has no weight, and 1 stands for it.
pub fn integers(fractions: &[(u128, u128)]) -> Vec<Weight> {
    let numbers = common(fractions).unwrap_or_else(|| approximate(fractions));
    let divisor = numbers
        .iter()
        .fold(0, |a, &b| greatest_divisor(a, b))
        .max(1);
    let largest = numbers.iter().max().copied().unwrap_or(0) / divisor;
    let most = u128::from(Weight::MAX);
    numbers
        .iter()
        .map(|number| {
            let number = number / divisor;
            let weight = if largest <= most {
                number
            } else {
                // Both are at most 2^64 here, and the sum is far from the end of a u128.
                (number * most + largest / 2) / largest
            };
            let weight = u16::try_from(weight).unwrap_or(Weight::MAX);
            Weight::new(weight.max(1)).unwrap_or(Weight::DEFAULT)
        })
        .collect()
}

/// The fractions over their common denominator, as far as these numbers are below 2^64.
fn common(fractions: &[(u128, u128)]) -> Option<Vec<u128>> {
    let denominator = fractions.iter().try_fold(1_u128, |common, &(_, of)| {
        let more = of / greatest_divisor(common, of).max(1);
        common.checked_mul(more).filter(|&c| c < 1 << 64)
    })?;
    fractions
        .iter()
        .map(|&(part, of)| {
            let number = part.checked_mul(denominator.checked_div(of)?);
            number.filter(|&n| n < 1 << 64)
        })
        .collect()
}

/// The fractions over 2^32.
fn approximate(fractions: &[(u128, u128)]) -> Vec<u128> {
    let of_2_32 = |&(part, of): &(u128, u128)| (part << 32).checked_div(of).unwrap_or(0);
    fractions.iter().map(of_2_32).collect()
}

fn greatest_divisor(a: u128, b: u128) -> u128 {
    if b == 0 {
        a
    } else {
        greatest_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(fractions: &[(u128, u128)]) -> Vec<u16> {
        integers(fractions).into_iter().map(Weight::get).collect()
    }

    #[test]
    fn fractions_become_weights_in_lowest_terms() {
        assert_eq!(weights(&[(70, 200), (70, 200), (30, 300)]), [7, 7, 2]);
        assert_eq!(weights(&[(1_000, 1), (300, 1)]), [10, 3]);
        assert_eq!(weights(&[(0, 1), (5, 1)]), [1, 1], "1 stands for none");
        assert_eq!(
            weights(&[(10_001, 1), (20_002, 1), (1, 1)]),
            [5_000, 10_000, 1]
        );
        assert!(weights(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn ratios_are_kept_as_well_as_integers_allow(
            fractions in prop::collection::vec((1_u128..1_000_000, 1_u128..1 << 29), 1..20),
        ) {
            let weights = weights(&fractions);
            let value = |&(part, of): &(u128, u128)| part as f64 / of as f64;
            let largest = fractions.iter().map(value).fold(0.0, f64::max);
            let scale = f64::from(*weights.iter().max().unwrap()) / largest;
            for (weight, fraction) in weights.iter().zip(&fractions) {
                let exact = value(fraction) * scale;
                let off = (f64::from(*weight) - exact).abs();
                // Rounded to the next integer, and never less than 1.
                prop_assert!(off <= 0.6 || (*weight == 1 && exact < 1.0), "{weight} for {exact}");
            }
        }
    }
}
