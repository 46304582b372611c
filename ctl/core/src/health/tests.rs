//! Outcomes in, verdicts and the moments of telling out.

use super::*;
use crate::testing::{backend, service};
use lockstep_plan::{Mode, Replicate};
use proptest::prelude::*;
use std::sync::Arc;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn watching(addresses: &[IpAddr]) -> Monitor {
    let mut monitor = Monitor::default();
    monitor.watch(&addresses.iter().map(|&a| (a, Health::UNKNOWN)).collect());
    monitor
}

fn up(microseconds: u64) -> Health {
    Health {
        verdict: Verdict::Up,
        rtt: Some(Duration::from_micros(microseconds)),
    }
}

fn answer(microseconds: u64) -> Outcome {
    Outcome::Answered(Duration::from_micros(microseconds))
}

const DOWN: Health = Health {
    verdict: Verdict::Down,
    rtt: None,
};

/// The table of transitions, written again: `a` is an answer, `m` a missing one, `x` a ping that
/// was not sent; the verdict after each.
#[test]
fn verdicts_follow_outcomes_in_a_row() {
    let rows = [
        ("mmmmm", "?????"),
        ("aa", "?U"),
        ("amama", "?????"),
        ("aamma", "?UUUU"),
        ("aammammm", "?UUUUUUD"),
        ("aammmamaa", "?UUUDDDDU"),
        ("aaxa", "?U??"),
        ("aammmxmmm", "?UUUD????"),
    ];
    for (outcomes, expected) in rows {
        let mut monitor = watching(&[A]);
        let mut before = Verdict::Unknown;
        let verdicts: String = outcomes
            .chars()
            .map(|outcome| {
                let outcome = match outcome {
                    'a' => answer(500),
                    'm' => Outcome::Missed,
                    _ => Outcome::Unasked,
                };
                let news = monitor.note(Timestamp(0), A, outcome);
                let verdict = monitor.backends[&A].verdict;
                assert_eq!(news, (verdict != before).then_some(verdict));
                before = verdict;
                match verdict {
                    Verdict::Unknown => '?',
                    Verdict::Up => 'U',
                    Verdict::Down => 'D',
                }
            })
            .collect();
        assert_eq!(verdicts, expected, "{outcomes}");
    }
}

#[test]
fn a_change_of_verdict_is_told_at_once_and_then_after_a_pause() {
    let mut monitor = watching(&[A, B]);
    assert_eq!(monitor.due(), None);
    for at in [0, 1_000] {
        monitor.note(Timestamp(at), A, answer(250));
    }
    assert_eq!(monitor.due(), Some(Timestamp(1_000)));
    let told = monitor.publish(Timestamp(1_000));
    assert_eq!(told, BTreeMap::from([(A, up(250)), (B, Health::UNKNOWN)]));
    assert_eq!(monitor.due(), None);

    for at in [500, 1_500] {
        monitor.note(Timestamp(at), B, answer(400));
    }
    assert_eq!(
        monitor.due(),
        Some(Timestamp(2_000)),
        "not a snapshot a backend"
    );
    assert_eq!(monitor.publish(Timestamp(2_000))[&B], up(400));

    for at in [10_000, 11_000, 12_000] {
        monitor.note(Timestamp(at), A, Outcome::Missed);
    }
    assert_eq!(monitor.due(), Some(Timestamp(12_000)));
    assert_eq!(monitor.publish(Timestamp(12_000))[&A], DOWN);
}

#[test]
fn a_round_trip_time_is_smoothed_and_told_when_it_is_another_one() {
    let mut monitor = watching(&[A]);
    for _ in 0..2 {
        monitor.note(Timestamp(0), A, answer(800));
    }
    assert_eq!(monitor.publish(Timestamp(0))[&A], up(800));
    // An eighth of the difference: 800 + 100.
    monitor.note(Timestamp(1_000), A, answer(1_600));
    assert_eq!(monitor.backends[&A].rtt, Some(Duration::from_micros(900)));
    assert_eq!(monitor.due(), None);
    let mut at = 2_000;
    while monitor.due().is_none() {
        monitor.note(Timestamp(at), A, answer(4_000));
        at += 1_000;
        assert!(at < 20_000, "{monitor:?}");
    }
    let told = monitor.publish(Timestamp(at))[&A].rtt.unwrap();
    assert!(told > Duration::from_micros(1_600), "{told:?}");
    // One far outlier of an answer does not halve it.
    monitor.note(Timestamp(at), A, answer(1));
    assert_eq!(monitor.due(), None);
}

#[test]
fn what_is_within_noise_is_not_told() {
    let mut monitor = watching(&[A]);
    for _ in 0..2 {
        monitor.note(Timestamp(0), A, answer(20));
    }
    monitor.publish(Timestamp(0));
    for at in 0..100 {
        monitor.note(Timestamp(at), A, answer(119));
    }
    assert_eq!(monitor.due(), None);
}

#[test]
fn what_an_engine_holds_is_where_a_new_daemon_begins() {
    let mut monitor = watching(&[A, B]);
    monitor.watch(&BTreeMap::from([(A, DOWN), (B, up(300))]));
    assert_eq!(monitor.due(), None);
    for at in [0, 1_000, 2_000] {
        monitor.note(Timestamp(at), A, Outcome::Missed);
        monitor.note(Timestamp(at), B, answer(310));
    }
    assert_eq!(monitor.due(), None, "the engine knows already");
    // Pings that cannot be sent leave nothing standing of it.
    monitor.note(Timestamp(3_000), A, Outcome::Unasked);
    assert_eq!(monitor.due(), Some(Timestamp(3_000)));
    assert_eq!(monitor.publish(Timestamp(3_000))[&A], Health::UNKNOWN);
}

#[test]
fn who_is_not_followed_any_more_is_forgotten() {
    let mut monitor = watching(&[A, B]);
    for _ in 0..2 {
        monitor.note(Timestamp(0), A, answer(250));
        monitor.note(Timestamp(0), B, answer(250));
    }
    monitor.watch(&BTreeMap::from([(B, Health::UNKNOWN)]));
    assert_eq!(monitor.note(Timestamp(0), A, answer(250)), None);
    assert_eq!(monitor.len(), 1);
    assert_eq!(monitor.next_after(Some(A)), Some(B));
    assert_eq!(
        monitor.publish(Timestamp(0)),
        BTreeMap::from([(B, up(250))])
    );
}

#[test]
fn each_backend_has_its_turn() {
    let monitor = watching(&[A, B]);
    let mut last = None;
    let turns = std::iter::from_fn(|| {
        last = monitor.next_after(last);
        last
    });
    assert_eq!(turns.take(4).collect::<Vec<_>>(), [A, B, A, B]);
    assert_eq!(Monitor::default().next_after(last), None);
    assert!(Monitor::default().is_empty());
}

#[test]
fn health_is_laid_over_services_that_replicate_only() {
    let tunnel = service("a", &["10.0.0.1"]);
    let replicated = Service {
        mode: Mode::Replicate(Arc::new(Replicate::DEFAULT)),
        backends: vec![backend("10.0.0.1"), backend("10.0.0.2")],
        ..service("b", &[])
    };
    let mut services = vec![tunnel.clone(), replicated];
    let found: Vec<IpAddr> = replicas(&services).map(|b| b.address).collect();
    assert_eq!(found, [A, B]);
    lay_over(&mut services, &BTreeMap::from([(A, DOWN)]));
    assert_eq!(services[0], tunnel);
    assert_eq!(services[1].backends[0].health, DOWN);
    assert_eq!(services[1].backends[1].health, Health::UNKNOWN);
}

proptest! {
    /// However answers come, snapshots have a pause between them, what was told is what is known
    /// by its verdict, and a round-trip time that does not change is told once.
    #[test]
    fn telling_is_bounded(outcomes in prop::collection::vec((0..3_u8, 1..5_000_u64, 0..400_u64), 1..200)) {
        let mut monitor = watching(&[A]);
        let (mut now, mut last) = (Timestamp(0), None::<Timestamp>);
        for (kind, rtt, step) in outcomes {
            now = now.after(Duration::from_millis(step));
            let outcome = match kind {
                0 => Outcome::Missed,
                1 => Outcome::Unasked,
                _ => answer(rtt),
            };
            monitor.note(now, A, outcome);
            if monitor.due().is_some_and(|due| due <= now) {
                prop_assert!(last.is_none_or(|last| now.since(last) >= PAUSE));
                last = Some(now);
                let told = monitor.publish(now)[&A];
                prop_assert_eq!(told.verdict, monitor.backends[&A].verdict);
                prop_assert_eq!(told.rtt.is_some(), told.verdict == Verdict::Up);
                prop_assert_eq!(monitor.due(), None);
            }
        }
    }
}
