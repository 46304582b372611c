//! Who is cut off, of whom.

use super::*;
use crate::checks::subjects;
use crate::config::health::Defaults;
use crate::services::parse;
use Verdict::{Down, Unknown, Up};

const FILE: &str = r#"
[[service]]
name = "dns"
vips = ["203.0.113.11:53/udp"]
backends = [{ address = "10.0.1.13" }]
health = { type = "tcp" }

[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp"]
backends = [{ address = "10.0.1.11" }, { address = "10.0.1.12" }]
health = { type = "tcp", interval = "1s", timeout = "500ms", fall = 3 }
"#;

/// Interval times fall, the timeout, and the way.
const PATIENCE: Duration = Duration::from_millis(3_000 + 500 + 1_000);

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn all() -> Subjects {
    let file = parse("services.toml", FILE).unwrap();
    subjects(&file.services, &file.health, &Defaults::default())
}

/// What is found of the two backends of `web`; that of `dns` is up.
fn found(of: [Verdict; 2]) -> Verdicts {
    let targets: Vec<Target> = all().into_keys().collect();
    targets.into_iter().zip([Up, of[0], of[1]]).collect()
}

fn own(of: [Verdict; 2]) -> Own {
    Own {
        verdicts: found(of),
        ..Own::default()
    }
}

fn group(members: &[[Verdict; 2]]) -> Group {
    let member = |(at, of): (usize, &[Verdict; 2])| (format!("lb-{at}"), found(*of));
    Group {
        connected: true,
        members: members.iter().enumerate().map(member).collect(),
        ..Group::default()
    }
}

/// Whether a balancer that finds this is cut off after it has been patient.
fn becomes_cut_off(own: &Own, group: &Group) -> bool {
    let mut reach = Reach::default();
    reach.follow(Timestamp(0), &all(), own, group);
    let at = reach.next_deadline(Timestamp(0));
    assert!(reach.cut_off(Timestamp(0)).is_empty());
    let Some(at) = at else {
        return false;
    };
    assert_eq!(at, Timestamp(0).after(PATIENCE));
    reach.follow(at, &all(), own, group);
    assert_eq!(reach.next_deadline(at), None);
    reach.cut_off(at) == BTreeSet::from([web()])
}

#[test]
fn one_that_reaches_nothing_is_cut_off_where_another_one_reaches_something() {
    let alone = own([Down, Down]);
    for (members, expected) in [
        (&[][..], false),
        (&[[Down, Down]], false),
        (&[[Down, Unknown]], false),
        (&[[Down, Up]], true),
        (&[[Up, Up], [Up, Up]], true),
        (&[[Down, Down], [Up, Down]], true),
        (&[[Down, Down], [Down, Down]], false),
    ] {
        let is = becomes_cut_off(&alone, &group(members));
        assert_eq!(is, expected, "{members:?}");
    }
}

#[test]
fn one_that_reaches_something_or_does_not_know_is_not() {
    for of in [[Up, Down], [Down, Unknown], [Unknown, Unknown], [Up, Up]] {
        assert!(!becomes_cut_off(&own(of), &group(&[[Up, Up]])), "{of:?}");
    }
    let mut not_asked = own([Down, Down]);
    not_asked.verdicts.pop_last();
    assert!(!becomes_cut_off(&not_asked, &group(&[[Up, Up]])));
}

#[test]
fn whatever_everybody_finds_somebody_who_knows_of_the_others_stays() {
    // Every group of three, and what its balancers find of two backends.
    let verdicts = [Unknown, Up, Down];
    let pairs = verdicts.map(|a| verdicts.map(|b| [a, b]));
    let pairs: Vec<[Verdict; 2]> = pairs.into_iter().flatten().collect();
    for a in &pairs {
        for b in &pairs {
            for c in &pairs {
                let balancers = [(a, [*b, *c]), (b, [*a, *c]), (c, [*a, *b])];
                let withdraw =
                    balancers.map(|(of, others)| becomes_cut_off(&own(*of), &group(&others)));
                assert_ne!(withdraw, [true; 3], "{a:?} {b:?} {c:?}");
            }
        }
    }
}

#[test]
fn what_others_find_in_time_too_cuts_nobody_off() {
    let mut reach = Reach::default();
    let alone = own([Down, Down]);
    let at = |ms: u64| Timestamp(ms);
    reach.follow(at(0), &all(), &alone, &group(&[[Up, Up]]));
    reach.follow(at(3_000), &all(), &alone, &group(&[[Down, Up]]));
    assert_eq!(reach.next_deadline(at(3_000)), Some(at(4_500)));
    reach.follow(at(4_000), &all(), &alone, &group(&[[Down, Down]]));
    assert_eq!(reach.next_deadline(at(4_000)), None);
    // It begins anew.
    reach.follow(at(5_000), &all(), &alone, &group(&[[Up, Down]]));
    assert_eq!(reach.next_deadline(at(5_000)), Some(at(9_500)));
    reach.follow(at(9_500), &all(), &own([Up, Down]), &group(&[[Up, Down]]));
    assert!(reach.cut_off(at(9_500)).is_empty());
}

#[test]
fn backends_that_an_operator_removed_do_not_count() {
    let mut own = own([Up, Down]);
    assert!(!becomes_cut_off(&own, &group(&[[Up, Up]])));
    let first = all().into_keys().nth(1).unwrap();
    own.drains.drain(first.clone(), Some(Timestamp(0)));
    assert!(!becomes_cut_off(&own, &group(&[[Up, Up]])), "it drains yet");
    own.drains.advance(Timestamp(1));
    assert!(becomes_cut_off(&own, &group(&[[Up, Up]])));
    assert!(!becomes_cut_off(&own, &group(&[[Up, Down]])));
}

#[test]
fn without_the_store_one_that_was_cut_off_stays_so_and_nobody_becomes_it() {
    let lost = |then: [Verdict; 2]| Group {
        connected: false,
        own_at_loss: Some(found(then)),
        ..group(&[[Up, Up]])
    };
    let alone = own([Down, Down]);
    assert!(becomes_cut_off(&alone, &lost([Down, Down])));
    assert!(!becomes_cut_off(&alone, &lost([Up, Down])));
    assert!(!becomes_cut_off(&own([Up, Down]), &lost([Down, Down])));
}
