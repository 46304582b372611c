use super::*;
use crate::checks::{Check, Exchange, Pace, Probe, Via};
use lockstep_plan::{BackendId, ServiceName};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const OFF: Damping = Damping { half_life: None };

fn target(n: u32) -> Target {
    Target {
        service: ServiceName::new("web").unwrap(),
        backend: BackendId(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n))),
    }
}

fn subject(interval: u64) -> Subject {
    Subject {
        check: Check {
            probe: Probe::Tcp(Exchange::default()),
            via: Via::Address,
            port: None,
            interval: None,
            fast_interval: None,
            timeout: None,
            rise: None,
            fall: None,
        },
        pace: Pace {
            interval: Duration::from_millis(interval),
            fast_interval: Duration::from_millis(interval / 2),
            timeout: Duration::from_millis(interval / 2),
            rise: 2,
            fall: 3,
        },
        name: "a".to_owned(),
        encapsulation: lockstep_plan::Encapsulation::Ipip,
        vip: "203.0.113.10:80/tcp".parse().unwrap(),
        port: None,
    }
}

fn following(backends: u32, interval: u64) -> Checks {
    let mut checks = Checks::new(7);
    let subjects = (0..backends).map(|n| (target(n), subject(interval)));
    checks.follow(Timestamp(1_000_000), &subjects.collect(), OFF);
    checks
}

/// Runs until `end` with checks that take no time; tells who was asked when.
fn run(
    checks: &mut Checks,
    end: u64,
    mut outcome: impl FnMut(&Order, u64) -> Outcome,
) -> Vec<(Target, u64)> {
    let mut asked = Vec::new();
    while let Some(at) = checks.next_deadline().filter(|at| at.0 < end) {
        while let Some(order) = checks.next(at) {
            let outcome = outcome(&order, at.0);
            asked.push((order.target.clone(), at.0));
            checks.note(at, order.ticket, &outcome);
        }
    }
    asked
}

fn passed() -> Outcome {
    Outcome::Passed(Duration::from_millis(1))
}

fn failed() -> Outcome {
    Outcome::Failed("refused".to_owned())
}

#[test]
fn a_thousand_checks_are_spread_over_the_interval() {
    let mut checks = following(1_000, 1_000);
    let asked = run(&mut checks, 1_010_000, |_, _| passed());
    let mut tenths = [0u32; 100];
    for (_, at) in &asked {
        tenths[((at - 1_000_000) / 100) as usize] += 1;
    }
    // Every tenth of a second about a tenth of them: 105, since checks come a little early; the first ones do not.
    for (at, &count) in tenths.iter().enumerate() {
        assert!((60..=160).contains(&count), "{count} in tenth {at}");
    }
}

#[test]
fn no_two_checks_are_further_apart_than_the_interval() {
    let mut checks = following(50, 1_000);
    let asked = run(&mut checks, 1_060_000, |_, _| passed());
    for n in 0..50 {
        let own: Vec<u64> = asked
            .iter()
            .filter(|(t, _)| *t == target(n))
            .map(|&(_, at)| at)
            .collect();
        assert!(own[0] < 1_001_000, "the first comes within an interval");
        for pair in own[1..].windows(2) {
            let apart = pair[1] - pair[0];
            assert!((890..=1_001).contains(&apart), "{apart} ms");
        }
    }
}

#[test]
fn a_failure_is_followed_fast_until_the_verdict_is_there() {
    let mut checks = following(1, 1_000);
    let mut down = None;
    let fails_from = 1_005_123;
    let asked = run(&mut checks, 1_020_000, |_, at| match at >= fails_from {
        true => failed(),
        false => passed(),
    });
    let failures: Vec<u64> = asked
        .iter()
        .map(|&(_, at)| at)
        .filter(|&at| at >= fails_from)
        .collect();
    assert_eq!(failures[1] - failures[0], 500);
    assert_eq!(failures[2] - failures[1], 500);
    assert!(failures[2] - fails_from <= 3_000, "interval times fall");
    assert!(failures[3] - failures[2] > 500, "no hurry any more");
    for seen in checks.seen(Timestamp(1_020_000)) {
        down = Some(seen.verdict);
        assert_eq!(seen.error, "refused");
        assert_eq!(seen.flaps, 1);
        assert_eq!(seen.since.0, failures[2]);
    }
    assert_eq!(down, Some(Verdict::Down));
    assert_eq!(
        checks.verdicts(),
        Verdicts::from([(target(0), Verdict::Down)])
    );
}

#[test]
fn a_sign_brings_the_next_check_forward_but_no_faster_than_in_a_hurry() {
    let mut checks = following(1, 10_000);
    run(&mut checks, 1_030_000, |_, _| passed());
    let asked = checks.entries[0].as_ref().unwrap().asked_at;
    let at = asked.after(Duration::from_millis(100));
    checks.suspect(at, &target(0), Sign::Resets);
    let next = asked.after(Duration::from_millis(5_000));
    assert_eq!(checks.next_deadline(), Some(next));
    checks.suspect(at, &target(0), Sign::Silence);
    assert_eq!(checks.next_deadline(), Some(next));
    let order = checks.next(next).unwrap();
    let change = checks.note(next, order.ticket, &failed());
    assert_eq!(
        change.unwrap().after,
        Verdict::Down,
        "two signs and a failure"
    );
}

#[test]
fn so_many_at_once_and_no_more() {
    let mut checks = following(2_000, 1_000);
    let late = Timestamp(1_002_000);
    let orders: Vec<Order> = std::iter::from_fn(|| checks.next(late)).collect();
    assert_eq!(orders.len(), LIMIT);
    assert_eq!(checks.next_deadline(), None);
    checks.note(late, orders[0].ticket, &passed());
    assert!(checks.next_deadline().is_some_and(|at| at <= late));
}

#[test]
fn what_is_followed_no_more_or_asked_otherwise_is_not_judged_by_old_answers() {
    let mut checks = following(2, 1_000);
    let now = Timestamp(1_001_000);
    let (one, two) = (checks.next(now).unwrap(), checks.next(now).unwrap());
    let left = if one.target == target(0) {
        (&one, &two)
    } else {
        (&two, &one)
    };
    let altered = Subjects::from([(target(0), subject(500))]);
    checks.follow(now, &altered, OFF);
    assert_eq!(checks.note(now, left.0.ticket, &failed()), None);
    assert_eq!(checks.note(now, left.1.ticket, &failed()), None);
    assert_eq!((checks.len(), checks.under_way), (1, 0));
    assert!(checks.verdicts().is_empty());
    assert!(checks.next_deadline().is_some(), "it is asked the new way");
    checks.follow(now, &Subjects::new(), OFF);
    assert!(checks.is_empty());
    assert_eq!(checks.next_deadline(), None);
}

proptest! {
    /// Every backend that is followed either waits in the queue or is being asked, whatever
    /// happens, and the number of checks under way is right.
    #[test]
    fn nobody_is_forgotten(steps in proptest::collection::vec((0u8..5, 0u32..6), 1..300)) {
        let mut checks = following(4, 100);
        let mut now = 1_000_000;
        let mut wanted: Subjects = (0..4).map(|n| (target(n), subject(100))).collect();
        let mut under_way = Vec::new();
        for (step, n) in steps {
            now += 7;
            let at = Timestamp(now);
            match step {
                0 => under_way.extend(checks.next(at)),
                1 if !under_way.is_empty() => {
                    let order: Order = under_way.swap_remove(n as usize % under_way.len());
                    let outcome = if n % 2 == 0 { passed() } else { failed() };
                    checks.note(at, order.ticket, &outcome);
                }
                2 => {
                    let known = wanted.remove(&target(n)).is_some();
                    if !known {
                        wanted.insert(target(n), subject(100));
                    }
                    checks.follow(at, &wanted, OFF);
                }
                3 => {
                    wanted.entry(target(n)).and_modify(|s| *s = subject(100 + now % 50));
                    checks.follow(at, &wanted, OFF);
                }
                _ => checks.suspect(at, &target(n), Sign::Silence),
            }
            prop_assert_eq!(checks.len(), wanted.len());
            prop_assert_eq!(checks.under_way, under_way.len());
            let asked: Vec<&Ticket> = under_way.iter().map(|o| &o.ticket).collect();
            for (slot, entry) in checks.entries.iter().enumerate() {
                let Some(entry) = entry else { continue };
                let waits = checks.queue.iter().any(|Reverse((at, s, number))| {
                    *s == slot && *number == entry.number && Some(*at) == entry.next
                });
                let is_asked = asked.iter().any(|t| t.slot == slot && t.number == entry.number);
                prop_assert!(waits != is_asked, "slot {}", slot);
            }
        }
    }
}

#[test]
fn scripts_that_wait_for_one_another_hold_up_no_other_check() {
    let scripts = 2 * LIMIT as u32;
    let mut script = subject(1_000);
    script.check.probe = Probe::Script {
        command: vec!["is-up".to_owned()],
    };
    let all = (0..scripts).map(|n| (target(n), script.clone()));
    let all = all.chain([(target(scripts), subject(1_000))]).collect();
    let mut checks = Checks::new(7);
    checks.follow(Timestamp(1_000_000), &all, OFF);
    let now = Timestamp(1_002_000);
    let asked =
        |checks: &mut Checks| -> Vec<Order> { std::iter::from_fn(|| checks.next(now)).collect() };
    let (ours, other): (Vec<Order>, Vec<Order>) =
        (asked(&mut checks).into_iter()).partition(|order| order.subject.check == script.check);
    assert_eq!(ours.len(), SCRIPTS);
    assert_eq!(other.len(), 1);
    assert_eq!(checks.next_deadline(), None);
    checks.note(now, other[0].ticket, &passed());
    assert!(checks.next_deadline().is_some_and(|at| at > now));
    // Each that ends makes room for the one that has waited longest, whatever became of that.
    checks.note(now, ours[0].ticket, &passed());
    assert!(checks.next_deadline().is_some_and(|at| at <= now));
    let next = asked(&mut checks);
    assert_eq!(next.len(), 1);
    assert!(ours.iter().all(|order| order.target != next[0].target));
    // All of them have their turn, and those that are gone meanwhile none.
    let kept = all.range(target(0)..target(scripts / 2));
    let kept = kept.map(|(t, s)| (t.clone(), s.clone())).collect();
    checks.follow(now, &kept, OFF);
    let mut seen = BTreeSet::from([ours[0].target.clone()]);
    let mut under_way: Vec<Order> = ours.into_iter().skip(1).chain(next).collect();
    while let Some(order) = under_way.pop() {
        seen.insert(order.target);
        checks.note(now, order.ticket, &passed());
        under_way.extend(asked(&mut checks));
        assert!(under_way.len() <= SCRIPTS);
    }
    assert!(kept.keys().all(|target| seen.contains(target)));
}
