use super::*;
use proptest::prelude::*;

const PACE: Pace = Pace {
    interval: Duration::from_secs(2),
    fast_interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    rise: 2,
    fall: 3,
};

const DAMPING: Damping = Damping {
    half_life: Some(Duration::from_secs(60)),
};

fn passed() -> Outcome {
    Outcome::Passed(Duration::from_millis(1))
}

fn failed() -> Outcome {
    Outcome::Failed("refused".to_owned())
}

fn unasked() -> Outcome {
    Outcome::Unasked("not permitted".to_owned())
}

fn state(verdict: Verdict, against: u8) -> State {
    State {
        verdict,
        against,
        ..State::new(Timestamp(0))
    }
}

/// The table of the machine, written again: from where, what came, to where.
#[test]
fn every_verdict_under_every_outcome() {
    use Verdict::{Down, Unknown, Up};
    let rows = [
        (Unknown, 0, passed(), Up, 0),
        (Unknown, 0, failed(), Down, 0),
        (Unknown, 0, unasked(), Unknown, 0),
        (Up, 0, passed(), Up, 0),
        (Up, 2, passed(), Up, 0),
        (Up, 0, failed(), Up, 1),
        (Up, 1, failed(), Up, 2),
        (Up, 2, failed(), Down, 0),
        (Up, 2, unasked(), Up, 2),
        (Down, 0, passed(), Down, 1),
        (Down, 1, passed(), Up, 0),
        (Down, 0, failed(), Down, 0),
        (Down, 1, failed(), Down, 0),
        (Down, 1, unasked(), Down, 1),
    ];
    for (verdict, against, outcome, to, then) in rows {
        let mut state = state(verdict, against);
        let row = format!("{verdict:?} {against} {outcome:?}");
        state.note(Timestamp(5), &PACE, DAMPING, &outcome);
        assert_eq!((state.verdict, state.against), (to, then), "{row}");
        let changed = verdict != to;
        assert_eq!(state.since == Timestamp(5), changed, "{row}");
        assert_eq!(state.flaps, u64::from(verdict == Up && to == Down), "{row}");
    }
}

#[test]
fn signs_count_as_failures_but_never_as_the_last_one() {
    let mut up = state(Verdict::Up, 0);
    (0..10).for_each(|_| up.suspect(&PACE));
    assert_eq!((up.verdict, up.against), (Verdict::Up, 2));
    assert!(up.is_changing(&PACE));
    up.note(Timestamp(1), &PACE, DAMPING, &failed());
    assert_eq!(up.verdict, Verdict::Down);
    for verdict in [Verdict::Down, Verdict::Unknown] {
        let mut other = state(verdict, 0);
        other.suspect(&PACE);
        assert_eq!(other, state(verdict, 0));
    }
}

#[test]
fn a_backend_that_flaps_has_to_be_up_for_longer() {
    let mut flapping = state(Verdict::Up, 0);
    let mut now = 0;
    // Down and up again, each check a second after the other.
    for _ in 0..3 {
        for outcome in [failed(), failed(), failed(), passed(), passed()] {
            now += 1_000;
            flapping.note(Timestamp(now), &PACE, DAMPING, &outcome);
        }
    }
    assert_eq!(flapping.flaps, 3);
    assert_eq!(flapping.verdict, Verdict::Down, "it is held");
    assert!(!flapping.is_changing(&PACE), "and asked no faster for it");
    let until = flapping.held_until(Timestamp(now), DAMPING).unwrap();
    assert!(until.since(Timestamp(now)) > Duration::from_secs(60));
    while flapping.verdict == Verdict::Down {
        now += 1_000;
        flapping.note(Timestamp(now), &PACE, DAMPING, &passed());
    }
    assert!(Timestamp(now) >= until && now < until.0 + 1_000);
}

proptest! {
    /// Whatever comes: down only after `fall` failures in a row or as the first of all, up only
    /// after `rise` passes in a row or as the first of all.
    #[test]
    fn a_verdict_needs_as_many_outcomes_in_a_row(
        outcomes in proptest::collection::vec(0u8..4, 0..200),
        rise in 1u8..5,
        fall in 1u8..5,
    ) {
        let pace = Pace { rise, fall, ..PACE };
        let off = Damping { half_life: None };
        let mut state = State::new(Timestamp(0));
        let (mut passes, mut failures) = (0u8, 0u8);
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let before = state.verdict;
            let outcome = match outcome {
                0 => failed(),
                1 => unasked(),
                _ => passed(),
            };
            (passes, failures) = match &outcome {
                Outcome::Passed(_) => (passes.saturating_add(1), 0),
                Outcome::Failed(_) => (0, failures.saturating_add(1)),
                Outcome::Unasked(_) => (passes, failures),
            };
            state.note(Timestamp(at as u64), &pace, off, &outcome);
            prop_assert!(state.against < rise.max(fall));
            let wanted = match (before, &outcome) {
                (_, Outcome::Unasked(_)) => before,
                (Verdict::Unknown, Outcome::Passed(_)) => Verdict::Up,
                (Verdict::Unknown, Outcome::Failed(_)) => Verdict::Down,
                (Verdict::Up, _) if failures >= fall => Verdict::Down,
                (Verdict::Down, _) if passes >= rise => Verdict::Up,
                (Verdict::Up | Verdict::Down, _) => before,
            };
            prop_assert_eq!(state.verdict, wanted);
        }
    }
}
