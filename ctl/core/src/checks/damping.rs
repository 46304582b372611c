//! Flap damping (the idea of RFC 2439): a backend that goes up and down and up again has to be up
//! for longer each time until it is believed.
//!
//! Each time that a backend goes down adds to its penalty, which decays by half every half-life.
//! Over [`Damping::SUPPRESS`] it is held down until the penalty has decayed to
//! [`Damping::REUSE`]. The penalty has a ceiling, and so has the time that a backend is held.

use crate::drains::Timestamp;
use std::time::Duration;

/// How flapping is damped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damping {
    /// The time in which a penalty decays to its half; `None` where nothing is damped.
    pub half_life: Option<Duration>,
}

impl Damping {
    /// What going down once adds.
    pub const FLAP: f64 = 1_000.0;
    /// Over this a backend is held down: with the third time within little more than a half-life.
    pub const SUPPRESS: f64 = 2_500.0;
    /// Under this it is let go.
    pub const REUSE: f64 = 1_000.0;
    /// The most, so that nobody is held for longer than four half-lives.
    pub const CEILING: f64 = 16.0 * Self::REUSE;
    /// The half-life where nobody names one.
    pub const HALF_LIFE: Duration = Duration::from_secs(60);
}

impl Default for Damping {
    fn default() -> Self {
        Damping {
            half_life: Some(Self::HALF_LIFE),
        }
    }
}

/// The penalty of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Penalty {
    /// At `at`.
    value: f64,
    at: Option<Timestamp>,
    /// Whether it is held down.
    held: bool,
}

impl Penalty {
    fn decayed(&self, damping: Damping, now: Timestamp) -> f64 {
        match (damping.half_life, self.at) {
            (Some(half_life), Some(at)) if !half_life.is_zero() => {
                let halves = now.since(at).as_secs_f64() / half_life.as_secs_f64();
                self.value * (-halves).exp2()
            }
            _ => 0.0,
        }
    }

    /// The backend has gone down.
    pub(super) fn flap(&mut self, damping: Damping, now: Timestamp) {
        let value = self.decayed(damping, now) + Damping::FLAP;
        self.value = value.min(Damping::CEILING);
        self.at = Some(now);
        self.held |= damping.half_life.is_some() && self.value > Damping::SUPPRESS;
    }

    /// Until when the backend is held down; `None` where it is not.
    pub(super) fn held_until(&self, damping: Damping, now: Timestamp) -> Option<Timestamp> {
        let half_life = damping.half_life.filter(|_| self.held)?;
        let value = self.decayed(damping, now);
        (value > Damping::REUSE).then(|| {
            let halves = (value / Damping::REUSE).log2();
            // Not a moment before: rounded up to the millisecond.
            let rest = half_life.mul_f64(halves) + Duration::from_millis(1);
            now.after(rest)
        })
    }

    /// The backend is up again.
    pub(super) fn release(&mut self) {
        self.held = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ON: Damping = Damping {
        half_life: Some(Duration::from_secs(60)),
    };

    #[test]
    fn the_third_time_within_a_half_life_is_held_until_the_penalty_has_decayed() {
        let mut penalty = Penalty::default();
        for second in [0, 1] {
            let now = Timestamp(second * 1_000);
            penalty.flap(ON, now);
            assert_eq!(penalty.held_until(ON, now), None, "after {second} s");
        }
        let now = Timestamp(2_000);
        penalty.flap(ON, now);
        let until = penalty.held_until(ON, now).expect("it is held");
        // log2(3) half-lives.
        let held = until.since(now).as_secs();
        assert!((94..=95).contains(&held), "{held} s");
        assert_eq!(penalty.held_until(ON, until), None);
        // Let go, it is held again by its next fall only.
        penalty.release();
        assert_eq!(penalty.held_until(ON, now), None);
    }

    #[test]
    fn without_damping_nobody_is_held() {
        let off = Damping { half_life: None };
        let mut penalty = Penalty::default();
        (0..100).for_each(|second| penalty.flap(off, Timestamp(second)));
        assert_eq!(penalty.held_until(off, Timestamp(100)), None);
    }

    proptest! {
        #[test]
        fn nobody_is_held_for_longer_than_four_half_lives(
            gaps in proptest::collection::vec(0u64..100_000, 1..200)
        ) {
            let (mut penalty, mut now) = (Penalty::default(), 0);
            for gap in gaps {
                now += gap;
                penalty.flap(ON, Timestamp(now));
                if let Some(until) = penalty.held_until(ON, Timestamp(now)) {
                    let held = until.since(Timestamp(now));
                    prop_assert!(held <= Duration::from_millis(4 * 60_000 + 2), "{:?}", held);
                    prop_assert_eq!(penalty.held_until(ON, until), None);
                }
            }
        }
    }
}
