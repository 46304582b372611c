//! Who counts, and for how long.

use super::*;

const GRACE: Duration = Duration::from_millis(10);

fn member(instance: &str) -> Member {
    Member {
        instance: instance.to_owned(),
        since: Timestamp(0),
        verdicts: Verdicts::new(),
    }
}

fn listed(names: &[&str]) -> BTreeMap<String, Member> {
    let entry = |name: &&str| ((*name).to_owned(), member(name));
    names.iter().map(entry).collect()
}

fn names(roster: &Roster) -> Vec<&str> {
    roster.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn whoever_leaves_while_the_store_is_there_is_gone_at_once() {
    let mut roster = Roster::default();
    roster.list(listed(&["a", "b"]), Timestamp(0), GRACE);
    assert!(roster.leave("a") && !roster.leave("a"));
    assert_eq!(names(&roster), ["b"]);
    assert_eq!(roster.others("b").len(), 0);
    assert_eq!(roster.others("x").len(), 1);
}

#[test]
fn whoever_a_store_has_forgotten_counts_for_a_while() {
    let mut roster = Roster::default();
    roster.list(listed(&["a", "b"]), Timestamp(0), GRACE);
    roster.list(listed(&["a"]), Timestamp(100), GRACE);
    assert_eq!(names(&roster), ["a", "b"]);
    // A second loss does not make it count for longer.
    roster.list(listed(&["a"]), Timestamp(105), GRACE);
    assert_eq!(roster.next_deadline(), Some(Timestamp(110)));
    assert!(!roster.advance(Timestamp(109)));
    assert!(roster.advance(Timestamp(110)));
    assert_eq!(names(&roster), ["a"]);
    assert_eq!(roster.next_deadline(), None);
}

#[test]
fn whoever_comes_back_stays() {
    let mut roster = Roster::default();
    roster.list(listed(&["a", "b"]), Timestamp(0), GRACE);
    roster.list(listed(&[]), Timestamp(100), GRACE);
    roster.join("b".to_owned(), member("b"), Timestamp(105));
    assert!(roster.advance(Timestamp(1_000)));
    assert_eq!(names(&roster), ["b"]);
}

#[test]
fn a_roster_is_bounded() {
    let mut roster = Roster::default();
    for at in 0..2 * MAX_MEMBERS {
        roster.join(format!("lb-{at}"), member("x"), Timestamp(0));
    }
    assert_eq!(roster.iter().count(), MAX_MEMBERS);
}

#[test]
fn whoever_loses_its_lease_just_after_the_store_is_back_counts_for_a_while() {
    let mut roster = Roster::default();
    roster.list(listed(&["a", "b"]), Timestamp(0), GRACE);
    roster.miss("a", Timestamp(50));
    roster.miss("c", Timestamp(50));
    assert_eq!(
        (names(&roster).len(), roster.next_deadline()),
        (2, Some(Timestamp(50)))
    );
    roster.join("a".to_owned(), member("a"), Timestamp(20));
    assert_eq!(roster.next_deadline(), None);
    roster.miss("a", Timestamp(50));
    assert!(roster.advance(Timestamp(50)));
    assert_eq!(names(&roster), ["b"]);
}
