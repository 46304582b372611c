//! Verdicts that are agreed on, and how they are written.

use super::keys::{Keys, Member, SharedDrain, is_name};
use super::*;
use lockstep_plan::{BackendId, ServiceName};
use proptest::prelude::*;

const ALL: [Verdict; 3] = [Verdict::Unknown, Verdict::Up, Verdict::Down];

fn target(service: &str, host: u8) -> Target {
    Target {
        service: ServiceName::new(service).unwrap(),
        backend: BackendId([10, 0, 0, host].into()),
    }
}

fn one(verdict: Verdict) -> Verdicts {
    Verdicts::from([(target("web", 1), verdict)])
}

fn group(members: &[Verdict]) -> Group {
    let member = |(at, &verdict): (usize, &Verdict)| (format!("lb-{at}"), one(verdict));
    Group {
        connected: true,
        members: members.iter().enumerate().map(member).collect(),
        ..Group::default()
    }
}

fn in_force(own: Verdict, group: &Group) -> Verdict {
    agreed(&one(own), group)[&target("web", 1)]
}

#[test]
fn most_of_those_who_asked_decide_and_this_one_where_they_are_split() {
    // Every group of up to five, written again as a table of sums.
    for own in ALL {
        for size in 0..=4 {
            for code in 0..3_usize.pow(size) {
                let members: Vec<Verdict> = (0..size)
                    .map(|at| ALL[code / 3_usize.pow(at) % 3])
                    .collect();
                let weight = |v: &Verdict| match v {
                    Verdict::Unknown => 0,
                    Verdict::Up => 1,
                    Verdict::Down => -1_i32,
                };
                let sum: i32 = members.iter().chain([&own]).map(weight).sum();
                let expected = match sum {
                    1.. => Verdict::Up,
                    0 => own,
                    _ => Verdict::Down,
                };
                assert_eq!(
                    in_force(own, &group(&members)),
                    expected,
                    "{own:?} {members:?}"
                );
            }
        }
    }
}

#[test]
fn without_a_group_each_is_right() {
    for own in ALL {
        assert_eq!(in_force(own, &Group::default()), own);
    }
}

#[test]
fn what_only_others_have_asked_is_as_they_found_it() {
    assert_eq!(
        agreed(&Verdicts::new(), &group(&[Verdict::Down])),
        one(Verdict::Down)
    );
    assert_eq!(
        in_force(Verdict::Unknown, &group(&[Verdict::Down])),
        Verdict::Down
    );
}

#[test]
fn a_lost_store_freezes_all_but_what_is_found_from_then_on() {
    use Verdict::{Down, Unknown, Up};
    let rows = [
        // agreed at the loss, found at the loss, found now, in force
        (Up, Up, Up, Up),
        (Up, Up, Down, Down),
        (Up, Up, Unknown, Up),
        (Up, Down, Down, Up),
        (Up, Down, Up, Up),
        (Up, Down, Unknown, Up),
        (Up, Unknown, Unknown, Up),
        (Up, Unknown, Up, Up),
        (Up, Unknown, Down, Down),
        (Down, Down, Down, Down),
        (Down, Down, Up, Up),
        (Down, Down, Unknown, Down),
        (Down, Up, Up, Down),
        (Down, Up, Down, Down),
        (Down, Up, Unknown, Down),
        (Down, Unknown, Unknown, Down),
        (Down, Unknown, Up, Up),
        (Down, Unknown, Down, Down),
    ];
    for (frozen, before, now, expected) in rows {
        let lost = Group {
            connected: false,
            own_at_loss: Some(one(before)),
            ..group(&[frozen, frozen])
        };
        assert_eq!(
            in_force(now, &lost),
            expected,
            "{frozen:?} {before:?} {now:?}"
        );
    }
}

#[test]
fn changes_of_others_are_laid_over_what_is_drained_here() {
    let mut mine = Drains::default();
    mine.drain(target("web", 1), None);
    mine.drain(target("web", 2), None);
    let change = |host, drain| DrainChange {
        target: target("web", host),
        drain,
    };
    let deadline = Some(Timestamp(5));
    absorb(
        &mut mine,
        &[change(1, None), change(3, Some(deadline)), change(9, None)],
    );
    let left: Vec<_> = mine.iter().map(|(t, phase)| (t.clone(), phase)).collect();
    assert_eq!(
        left,
        [
            (target("web", 2), Phase::Draining { deadline: None }),
            (target("web", 3), Phase::Draining { deadline }),
        ]
    );
}

#[test]
fn keys_are_read_back() {
    let keys = Keys::new("lb");
    assert_eq!(keys.member("a"), "/lockstep/lb/members/a");
    assert_eq!(keys.member_of("/lockstep/lb/members/a"), Some("a"));
    for other in [
        "/lockstep/lb/members/",
        "/lockstep/lb/members/a/b",
        "/lockstep/x/members/a",
        "x",
    ] {
        assert_eq!(keys.member_of(other), None, "{other}");
    }
    let six = Target {
        service: ServiceName::new("a/b").unwrap(),
        backend: BackendId("2001:db8::1".parse().unwrap()),
    };
    for target in [target("web", 1), six] {
        assert_eq!(keys.drain_of(&keys.drain(&target)), Some(target));
    }
    for other in [
        "/lockstep/lb/drains/web/x",
        "/lockstep/lb/drains/10.0.0.1",
        "x",
    ] {
        assert_eq!(keys.drain_of(other), None, "{other}");
    }
    assert!(is_name("lb-1.example") && !is_name("") && !is_name("a/b"));
}

#[test]
fn a_member_of_a_later_version_is_understood_as_far_as_it_goes() {
    let text = br#"{"instance":"x","since_unix_ms":7,"new":1,
        "services":{"web":{"up":["10.0.0.1"],"down":[],"slow":[]},"not a name":{"up":[],"down":[]}}}"#;
    let member = Member {
        instance: "x".into(),
        since: Timestamp(7),
        verdicts: one(Verdict::Up),
    };
    assert_eq!(Member::from_json(text), Some(member));
}

proptest! {
    #[test]
    fn members_are_read_back_without_what_they_have_not_asked(
        found in proptest::collection::btree_map((0u8..3, 0u8..9), 0usize..3, 0..20),
    ) {
        let verdicts: Verdicts = found.iter()
            .map(|((s, host), v)| (target(["a", "b", "c/d"][usize::from(*s)], *host), ALL[*v]))
            .collect();
        let member = Member { instance: "i".into(), since: Timestamp(1), verdicts: verdicts.clone() };
        let known = verdicts.into_iter().filter(|(_, v)| *v != Verdict::Unknown).collect();
        let read = Member::from_json(member.to_json().as_bytes());
        prop_assert_eq!(read, Some(Member { verdicts: known, ..member }));
    }

    #[test]
    fn no_value_does_harm(text in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = (Member::from_json(&text), SharedDrain::from_json(&text));
    }
}
