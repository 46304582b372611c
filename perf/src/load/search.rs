//! The highest rate that is carried: as RFC 2544 looks for the throughput (section 26.1).

use super::Outcome;
use anyhow::Result;
use serde::Serialize;

/// What a rate has to keep to be carried.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// The share of what was sent that may be lost, 0 to 1.
    pub loss: f64,
    /// How close the rates that are carried and not are to come, as a share of them.
    pub resolution: f64,
}

/// The share of what is due that may stay unsent: more, and the rate was not what it was called.
const UNSENT: f64 = 0.001;
/// No search has more trials.
const TRIALS: usize = 40;

/// What a search found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The highest rate that was carried, in packets or transactions a second; none: not even the
    /// lowest.
    pub rate: Option<u64>,
    /// Whether the first rate that was not carried is one that the generator could not send: the
    /// result is its limit then, and not that of what is tested.
    pub limited_by_the_generator: bool,
    /// Whether the user ended it before it was over: the result is what was found until then.
    pub interrupted: bool,
    /// The trial of that rate.
    pub outcome: Option<Outcome>,
    /// Every trial, in order.
    pub trials: Vec<Outcome>,
}

impl Goal {
    fn could_send(&self, outcome: &Outcome) -> bool {
        outcome.unsent as f64 <= UNSENT * (outcome.sent + outcome.unsent) as f64
    }

    /// Whether too little was sent, and all of it was carried: a moment in which the generator did not
    /// get to run looks like that, as well as a rate that it cannot send.
    fn stalled(&self, outcome: &Outcome) -> bool {
        !self.could_send(outcome) && outcome.received > 0 && outcome.loss() <= self.loss
    }

    /// Whether the rate was carried.
    pub fn is_met(&self, outcome: &Outcome) -> bool {
        self.could_send(outcome) && outcome.received > 0 && outcome.loss() <= self.loss
    }
}

/// Tries `highest` first and then halves the range in which the highest rate lies that is carried.
/// `trial` runs a rate, or says that the user has ended it: none. A rate that the generator could not
/// send is tried once more.
///
/// As with every search of this kind, a rate counts for all below it: that losses grow with the rate
/// is taken for granted.
pub fn search(
    highest: u64,
    goal: Goal,
    mut trial: impl FnMut(u64) -> Result<Option<Outcome>>,
) -> Result<Found> {
    let mut found = Found {
        rate: None,
        limited_by_the_generator: false,
        interrupted: false,
        outcome: None,
        trials: Vec::new(),
    };
    let (mut carried, mut beyond) = (0, highest.max(1));
    let mut rate = beyond;
    let mut stalled_at = None;
    while found.trials.len() < TRIALS {
        let Some(outcome) = trial(rate)? else {
            found.interrupted = true;
            break;
        };
        found.trials.push(outcome.clone());
        if goal.stalled(&outcome) && stalled_at != Some(rate) {
            stalled_at = Some(rate);
            continue;
        }
        if goal.is_met(&outcome) {
            carried = rate;
            found.rate = Some(rate);
            found.outcome = Some(outcome);
            if rate == highest {
                break;
            }
        } else {
            found.limited_by_the_generator = !goal.could_send(&outcome);
            beyond = rate;
        }
        let apart = beyond - carried;
        if apart <= 1 || (apart as f64) <= goal.resolution * beyond as f64 {
            break;
        }
        rate = carried + apart / 2;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOAL: Goal = Goal {
        loss: 0.0,
        resolution: 0.01,
    };

    /// A path that carries `limit`, and a generator that sends `most`.
    fn outcome(rate: u64, limit: u64, most: u64) -> Outcome {
        let sent = rate.min(most);
        let received = sent.min(limit);
        Outcome {
            sent,
            received,
            lost: sent - received,
            unsent: rate - sent,
            ..Outcome::default()
        }
    }

    fn found(highest: u64, limit: u64, most: u64) -> Found {
        search(highest, GOAL, |rate| Ok(Some(outcome(rate, limit, most)))).unwrap()
    }

    #[test]
    fn what_the_path_carries_at_most_is_found() {
        let found = found(1_000_000, 123_456, u64::MAX);
        let rate = found.rate.unwrap();
        assert!(rate <= 123_456 && rate as f64 > 0.99 * 123_456.0, "{rate}");
        assert!(!found.limited_by_the_generator);
        assert_eq!(found.outcome.unwrap().sent, rate);
        assert_eq!(found.trials[0].sent, 1_000_000);
        assert!(found.trials.len() < 15);
    }

    #[test]
    fn the_highest_rate_needs_one_trial() {
        let found = found(1_000, 1_000, u64::MAX);
        assert_eq!((found.rate, found.trials.len()), (Some(1_000), 1));
    }

    #[test]
    fn a_generator_that_is_too_slow_is_told_from_a_path_that_is_full() {
        let found = found(1_000_000, 600_000, 300_000);
        assert!(found.rate.unwrap() <= 300_300 && found.limited_by_the_generator);
    }

    #[test]
    fn nothing_is_carried_where_nothing_arrives() {
        let found = search(1_000, GOAL, |rate| Ok(Some(outcome(rate, 0, u64::MAX)))).unwrap();
        assert!(found.rate.is_none() && found.trials.len() <= TRIALS);
    }

    #[test]
    fn it_ends_when_it_is_told_to_and_says_so() {
        let mut left = 3;
        let found = search(1_000_000, GOAL, |rate| {
            left -= 1;
            Ok((left > 0).then(|| outcome(rate, 10, u64::MAX)))
        });
        let found = found.unwrap();
        assert_eq!((found.trials.len(), found.interrupted), (2, true));
        assert!(!self::found(1_000, 10, u64::MAX).interrupted);
    }

    #[test]
    fn one_stall_of_the_generator_is_no_limit_and_two_are() {
        for (stalls, rate, limited, trials) in [(1, 1_000, false, 2), (2, 990, true, 2)] {
            let mut seen = 0;
            let found = search(1_000, GOAL, |rate| {
                seen += 1;
                let most = if rate == 1_000 && seen <= stalls {
                    900
                } else {
                    u64::MAX
                };
                Ok(Some(outcome(rate, u64::MAX, most)))
            });
            let found = found.unwrap();
            assert!(found.rate.unwrap() >= rate && found.trials.len() >= trials);
            assert_eq!(found.rate == Some(1_000), !limited, "{stalls}");
            assert_eq!(found.limited_by_the_generator, limited, "{stalls}");
        }
        // Where something is lost as well, it is not tried again.
        let found = found(1_000_000, 100, 300_000);
        assert_ne!(found.trials[0].unsent, found.trials[1].unsent);
    }

    proptest! {
            #[test]
            fn within_the_resolution_and_never_above(highest in 1_u64..10_000_000, limit in 1_u64..10_000_000) {
                let found = found(highest, limit, u64::MAX);
                let best = limit.min(highest);
                let rate = found.rate.unwrap_or(0);
                prop_assert!(rate <= best);
    prop_assert!((best - rate) as f64 <= 0.0102 * best as f64 + 1.0);
            }
        }
}
