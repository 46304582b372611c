//! Frames of several sizes: one that cannot be measured keeps no other from being measured.

use super::results::PacketRound;
use anyhow::Result;
use lockstep_tests::lab::interrupted;

/// What each size came to.
pub type Outcomes<T = PacketRound> = Vec<(usize, Result<T>)>;

/// Measures each size, all in one place as long as that goes well: what could not be measured takes the place
/// that it was to be measured in with it, and the next size has a new one.
pub fn each<P, T>(
    sizes: impl IntoIterator<Item = usize>,
    mut place: impl FnMut() -> Result<P>,
    mut measure: impl FnMut(&P, usize) -> Result<T>,
) -> Outcomes<T> {
    let mut there = None;
    let mut one = |bytes| {
        let place = match there.take() {
            Some(place) => place,
            None => place()?,
        };
        let measured = measure(&place, bytes)?;
        there = Some(place);
        Ok(measured)
    };
    let outcome = |bytes| {
        let outcome = one(bytes);
        if outcome.is_err() {
            interrupted::end_if_begun();
        }
        (bytes, outcome)
    };
    sizes.into_iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{anyhow, ensure};

    /// What comes of three sizes, of which some cannot be measured, and the number of the place of each.
    fn of(places: &[bool], broken: &[usize]) -> Vec<(usize, Result<usize, String>)> {
        let mut built = 0;
        let place = || {
            built += 1;
            match places.get(built - 1) {
                Some(false) => Err(anyhow!("no place {built}")),
                _ => Ok(built),
            }
        };
        let outcomes = each([64, 1_400, 3_396], place, |place, bytes| {
            ensure!(!broken.contains(&bytes), "nothing of it arrived");
            Ok(*place)
        });
        let in_words = |error: anyhow::Error| error.to_string();
        (outcomes.into_iter())
            .map(|(bytes, outcome)| (bytes, outcome.map_err(in_words)))
            .collect()
    }

    #[test]
    fn all_sizes_are_measured_in_one_place() {
        assert_eq!(of(&[], &[]), [64, 1_400, 3_396].map(|bytes| (bytes, Ok(1))));
    }

    #[test]
    fn what_fails_keeps_no_other_size_from_being_measured_in_a_place_that_is_well() {
        let failed = Err("nothing of it arrived".to_owned());
        assert_eq!(
            of(&[], &[1_400]),
            [(64, Ok(1)), (1_400, failed.clone()), (3_396, Ok(2))]
        );
        assert_eq!(
            of(&[], &[64, 3_396]),
            [(64, failed.clone()), (1_400, Ok(2)), (3_396, failed)]
        );
    }

    #[test]
    fn a_place_that_cannot_be_had_fails_the_size_that_it_was_for() {
        assert_eq!(
            of(&[false], &[]),
            [
                (64, Err("no place 1".to_owned())),
                (1_400, Ok(2)),
                (3_396, Ok(2))
            ]
        );
    }
}
