//! Drains over several balancers and a store that comes and goes.

use super::super::absorb;
use super::*;
use crate::drains::Timestamp;
use lockstep_plan::{BackendId, ServiceName};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn target(host: u8) -> Target {
    Target {
        service: ServiceName::new("web").unwrap(),
        backend: BackendId([10, 0, 0, host].into()),
    }
}

/// A balancer, as its actor and its group's part behave together.
struct Balancer {
    instance: String,
    own: Own,
    ledger: Ledger,
    generation: u64,
}

type Stored = BTreeMap<Target, SharedDrain>;

impl Balancer {
    fn new(instance: &str) -> Self {
        let own = Own {
            backends: (0..8).map(target).collect(),
            ..Own::default()
        };
        Balancer {
            instance: instance.to_owned(),
            own,
            ledger: Ledger::default(),
            generation: 0,
        }
    }

    /// Hears all of the store, and writes what is its own.
    fn sync(&mut self, store: &mut Stored) {
        self.sync_with(store, None);
    }

    fn sync_with(&mut self, store: &mut Stored, origin: Option<Origin>) {
        let listing = Listing {
            drains: store.clone(),
            origin,
            ..Listing::default()
        };
        let changes = self.ledger.list(&self.instance, &listing);
        self.generation += 1;
        assert_eq!(
            self.ledger.writes(&self.own, self.generation),
            [],
            "not yet absorbed"
        );
        absorb(&mut self.own.drains, &changes);
        self.own.heard = self.generation;
        for write in self.ledger.writes(&self.own, self.generation) {
            self.apply(&write, store);
            self.ledger.wrote(&write, 1);
        }
    }

    fn apply(&self, write: &Write, store: &mut Stored) {
        match write {
            Write::Put(target, deadline) => {
                let drain = SharedDrain {
                    deadline_unix_ms: *deadline,
                    by: self.instance.clone(),
                };
                store.insert(target.clone(), drain);
            }
            Write::Delete(target) => {
                store.remove(target);
            }
        }
    }

    fn drained(&self) -> BTreeSet<Target> {
        self.own.drains.iter().map(|(t, _)| t.clone()).collect()
    }

    /// As a daemon that ended and is there again with what it saved.
    fn restart(&mut self) {
        self.ledger = Ledger::from_json("lb", &self.ledger.to_json("lb")).unwrap();
    }
}

fn set(hosts: &[u8]) -> BTreeSet<Target> {
    hosts.iter().map(|&host| target(host)).collect()
}

#[test]
fn what_one_drains_and_undrains_all_do() {
    let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
    a.own.drains.drain(target(1), Some(Timestamp(9)));
    a.sync(&mut store);
    b.sync(&mut store);
    assert_eq!(b.drained(), set(&[1]));
    b.own.drains.undrain(&target(1));
    b.sync(&mut store);
    a.sync(&mut store);
    assert_eq!((a.drained(), store.len()), (set(&[]), 0));
}

#[test]
fn what_was_done_while_the_store_was_away_is_written_when_it_is_back() {
    let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
    a.own.drains.drain(target(1), None);
    a.sync(&mut store);
    b.sync(&mut store);
    a.own.drains.drain(target(2), None);
    a.own.drains.undrain(&target(1));
    a.restart();
    a.sync(&mut store);
    b.sync(&mut store);
    assert_eq!((a.drained(), b.drained()), (set(&[2]), set(&[2])));
}

#[test]
fn what_others_wrote_in_between_comes_first() {
    let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
    a.own.drains.drain(target(1), None);
    a.sync(&mut store);
    b.sync(&mut store);
    // While a has no store: it gives the drain another deadline, b ends it.
    a.own.drains.drain(target(1), Some(Timestamp(7)));
    b.own.drains.undrain(&target(1));
    b.sync(&mut store);
    a.sync(&mut store);
    assert_eq!((a.drained(), store.len()), (set(&[]), 0));
}

#[test]
fn a_drain_that_ended_elsewhere_while_the_daemon_was_down_stays_ended() {
    let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
    a.own.drains.drain(target(1), None);
    a.sync(&mut store);
    b.sync(&mut store);
    b.own.drains.undrain(&target(1));
    b.sync(&mut store);
    a.restart();
    a.sync(&mut store);
    assert_eq!(a.drained(), set(&[]));
}

#[test]
fn a_balancer_whose_file_lacks_the_backend_does_not_end_its_drain() {
    let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
    a.own.drains.drain(target(1), None);
    a.sync(&mut store);
    b.sync(&mut store);
    b.own.backends.remove(&target(1));
    b.own.drains.undrain(&target(1));
    b.sync(&mut store);
    a.sync(&mut store);
    assert_eq!((a.drained(), store.len()), (set(&[1]), 1));
}

#[test]
fn a_write_whose_answer_was_lost_does_not_come_back_as_that_of_another() {
    let (mut a, mut store) = (Balancer::new("a"), Stored::new());
    a.own.drains.drain(target(1), None);
    let lost = a.ledger.writes(&a.own, 0);
    a.apply(&lost[0], &mut store);
    a.own.drains.undrain(&target(1));
    a.sync(&mut store);
    assert_eq!((a.drained(), store.len()), (set(&[]), 0));
}

#[test]
fn a_store_that_comes_back_empty_or_from_an_older_copy_ends_no_drain() {
    let origin = |cluster, revision| Some(Origin { cluster, revision });
    for (anew, ends) in [
        (origin(8, 20), false),
        (origin(7, 19), false),
        (origin(7, 20), true),
    ] {
        let (mut a, mut b, mut store) = (Balancer::new("a"), Balancer::new("b"), Stored::new());
        a.own.drains.drain(target(1), None);
        a.sync_with(&mut store, origin(7, 10));
        b.sync_with(&mut store, origin(7, 12));
        a.ledger.reach(20);
        b.ledger.reach(20);
        store.clear();
        b.restart();
        for _ in 0..2 {
            b.sync_with(&mut store, anew);
            a.sync_with(&mut store, anew);
        }
        let expected = if ends { set(&[]) } else { set(&[1]) };
        assert_eq!((a.drained(), b.drained()), (expected.clone(), expected));
        assert_eq!(store.is_empty(), ends);
    }
}

#[test]
fn a_drain_that_cannot_be_read_has_not_ended() {
    let (mut a, mut store) = (Balancer::new("a"), Stored::new());
    a.own.drains.drain(target(1), None);
    a.sync(&mut store);
    let listing = Listing {
        unreadable: set(&[1, 2]),
        ..Listing::default()
    };
    assert_eq!(a.ledger.list("a", &listing), []);
    assert_eq!(a.ledger.writes(&a.own, a.generation), []);
}

#[test]
fn one_change_is_heard_once_and_own_ones_never() {
    let mut ledger = Ledger::default();
    let drain = |by: &str| SharedDrain {
        deadline_unix_ms: None,
        by: by.to_owned(),
    };
    assert_eq!(ledger.hear("a", target(1), Some(&drain("a")), 1), None);
    let change = DrainChange {
        target: target(2),
        drain: Some(None),
    };
    assert_eq!(
        ledger.hear("a", target(2), Some(&drain("b")), 2),
        Some(change)
    );
    assert_eq!(ledger.hear("a", target(2), Some(&drain("b")), 3), None);
    ledger.wrote(&Write::Delete(target(2)), 5);
    assert_eq!(
        ledger.hear("a", target(2), Some(&drain("b")), 4),
        None,
        "overwritten"
    );
    assert_eq!(
        ledger.hear("a", target(2), None, 5),
        None,
        "its own deletion"
    );
    assert!(ledger.hear("a", target(2), Some(&drain("b")), 6).is_some());
    let ended = ledger.hear("a", target(1), None, 7).unwrap();
    assert_eq!(ended.drain, None);
}

#[test]
fn a_removed_backend_is_not_written_anew_at_its_deadline() {
    let (mut a, mut store) = (Balancer::new("a"), Stored::new());
    a.own.drains.drain(target(1), Some(Timestamp(5)));
    a.sync(&mut store);
    a.own.drains.advance(Timestamp(5));
    assert_eq!(a.ledger.writes(&a.own, a.generation), []);
}

#[test]
fn what_was_saved_for_another_group_is_not_taken() {
    let text = Ledger::default().to_json("east");
    assert_eq!(Ledger::from_json("east", &text), Some(Ledger::default()));
    assert_eq!(Ledger::from_json("west", &text), None);
    assert_eq!(Ledger::from_json("east", "{"), None);
}

proptest! {
    /// Whatever three balancers do in whatever order, when all have synced they agree.
    #[test]
    fn balancers_converge(steps in proptest::collection::vec((0usize..3, 0u8..5, 0u8..4), 0..60)) {
        let mut all = [Balancer::new("a"), Balancer::new("b"), Balancer::new("c")];
        let mut store = Stored::new();
        for (who, what, host) in steps {
            let balancer = &mut all[who];
            match what {
                0 => balancer.own.drains.drain(target(host), None),
                1 => balancer.own.drains.drain(target(host), Some(Timestamp(50))),
                2 => { balancer.own.drains.undrain(&target(host)); }
                3 => balancer.sync(&mut store),
                _ => balancer.restart(),
            }
        }
        for _ in 0..2 {
            all.iter_mut().for_each(|b| b.sync(&mut store));
        }
        let expected: BTreeSet<Target> = store.keys().cloned().collect();
        for balancer in &all {
            prop_assert_eq!(balancer.drained(), expected.clone());
        }
    }
}
