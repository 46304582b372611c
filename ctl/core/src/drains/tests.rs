use super::*;
use crate::testing::service;
use lockstep_plan::{Commit, Mode, Replicate, Snapshot};
use proptest::prelude::*;
use std::num::NonZeroU8;
use std::sync::Arc;

const WEB: &str = "web";

fn target(service: &str, backend: &str) -> Target {
    Target {
        service: ServiceName::new(service).unwrap(),
        backend: BackendId(backend.parse().unwrap()),
    }
}

fn file() -> Vec<Service> {
    vec![
        service(WEB, &["10.0.0.1", "10.0.0.2"]),
        service("dns", &["10.0.0.1"]),
    ]
}

/// The backends of a service and whether they drain.
fn states(services: &[Service], name: &str) -> Vec<(String, BackendState)> {
    let service = services.iter().find(|s| s.name.as_str() == name).unwrap();
    service
        .backends
        .iter()
        .map(|b| (b.name.clone(), b.state))
        .collect()
}

#[test]
fn a_backend_drains_until_its_deadline_and_is_then_left_out() {
    let mut drains = Drains::default();
    drains.drain(target(WEB, "10.0.0.1"), Some(Timestamp(1_000)));
    let active = ("10.0.0.2".to_owned(), BackendState::Active);
    let draining = ("10.0.0.1".to_owned(), BackendState::Draining);
    assert_eq!(
        states(&drains.over(&file()), WEB),
        [draining.clone(), active.clone()]
    );
    assert_eq!(drains.next_deadline(), Some(Timestamp(1_000)));

    assert_eq!(drains.advance(Timestamp(999)), []);
    assert_eq!(
        states(&drains.over(&file()), WEB),
        [draining, active.clone()]
    );

    assert_eq!(drains.advance(Timestamp(1_000)), [target(WEB, "10.0.0.1")]);
    assert_eq!(states(&drains.over(&file()), WEB), [active]);
    assert_eq!(drains.next_deadline(), None);
    assert_eq!(drains.advance(Timestamp(u64::MAX)), []);
}

#[test]
fn a_drain_concerns_one_service() {
    let mut drains = Drains::default();
    drains.drain(target(WEB, "10.0.0.1"), None);
    let dns = [("10.0.0.1".to_owned(), BackendState::Active)];
    assert_eq!(states(&drains.over(&file()), "dns"), dns);
}

#[test]
fn a_drain_without_a_deadline_stays() {
    let mut drains = Drains::default();
    drains.drain(target(WEB, "10.0.0.1"), None);
    assert_eq!(drains.next_deadline(), None);
    assert_eq!(drains.advance(Timestamp(u64::MAX)), []);
}

#[test]
fn undraining_brings_a_backend_back_also_after_its_deadline() {
    for now in [0, 10] {
        let mut drains = Drains::default();
        drains.drain(target(WEB, "10.0.0.1"), Some(Timestamp(10)));
        drains.advance(Timestamp(now));
        assert!(drains.undrain(&target(WEB, "10.0.0.1")));
        assert_eq!(drains.over(&file()), file());
        assert!(!drains.undrain(&target(WEB, "10.0.0.1")));
    }
}

#[test]
fn what_drains_have_marked_is_lifted_and_nothing_that_others_have() {
    let mut drains = Drains::default();
    drains.drain(target(WEB, "10.0.0.1"), None);
    let mut services = file();
    services[0].backends[1].state = BackendState::Draining;
    let marked = drains.over(&services);
    assert_ne!(marked, services);
    assert_eq!(drains.lift(&marked), services);
}

#[test]
fn a_drain_ends_with_its_backend_in_the_file() {
    let mut drains = Drains::default();
    drains.drain(target(WEB, "10.0.0.1"), None);
    drains.drain(target(WEB, "10.0.0.2"), None);
    assert_eq!(drains.retain_in(&file()), []);
    let smaller = [service(WEB, &["10.0.0.2"])];
    assert_eq!(drains.retain_in(&smaller), [target(WEB, "10.0.0.1")]);
    assert_eq!(
        states(&drains.over(&file()), WEB)[0].1,
        BackendState::Active
    );
}

#[test]
fn backends_are_found_by_name_or_address() {
    let mut services = file();
    services[0].backends[0].name = "one".to_owned();
    let web = target(WEB, "10.0.0.1");
    let dns = target("dns", "10.0.0.1");
    for (backend, service, expected) in [
        ("one", None, vec![web.clone()]),
        ("10.0.0.1", None, vec![web.clone(), dns.clone()]),
        ("10.0.0.1", Some("dns"), vec![dns]),
        ("::ffff:10.0.0.1", None, vec![]),
        ("one", Some("dns"), vec![]),
    ] {
        let found = find_targets(&services, backend, service).unwrap_or_default();
        assert_eq!(found, expected, "{backend} in {service:?}");
    }
    let error = |backend, service| find_targets(&services, backend, service).unwrap_err();
    assert_eq!(
        error("two", None).to_string(),
        "no backend two in any service; name one by its name or address as in `lockstep status`"
    );
    assert_eq!(
        error("one", Some("web2")).to_string(),
        "there is no service web2; there are: web, dns"
    );
}

#[test]
fn saved_drains_of_another_make_are_refused() {
    for text in ["", "{}", r#"{"version":1,"drains":[{"service":"a b"}]}"#] {
        assert!(
            matches!(Drains::from_json(text), Err(DrainsFileError::Form(_))),
            "{text}"
        );
    }
    let later = Drains::from_json(r#"{"version":2,"drains":[]}"#);
    assert_eq!(later, Err(DrainsFileError::Version(2)));
}

#[derive(Debug, Clone)]
enum Step {
    Drain(u8, Option<u64>),
    Undrain(u8),
    Advance(u64),
    File(Vec<u8>),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, proptest::option::of(0u64..100)).prop_map(|(b, d)| Step::Drain(b, d)),
        (0u8..4).prop_map(Step::Undrain),
        (0u64..100).prop_map(Step::Advance),
        proptest::collection::btree_set(0u8..4, 0..4)
            .prop_map(|b| Step::File(b.into_iter().collect())),
        Just(Step::Restart),
    ]
}

/// What is known of one backend, kept as plainly as can be: `None` where no drain is under way.
type Model = [Option<(Option<u64>, bool)>; 4];

fn address(backend: u8) -> String {
    format!("10.0.0.{backend}")
}

proptest! {
    #[test]
    fn drains_are_what_a_plain_list_of_backends_says(steps in proptest::collection::vec(any_step(), 0..40)) {
        let mut drains = Drains::default();
        let mut model: Model = [None; 4];
        let mut present: Vec<u8> = vec![0, 1, 2, 3];
        for step in steps {
            match step {
                Step::Drain(b, deadline) if present.contains(&b) => {
                    drains.drain(target(WEB, &address(b)), deadline.map(Timestamp));
                    let removed = model[usize::from(b)].is_some_and(|(_, removed)| removed);
                    model[usize::from(b)] = Some((deadline, removed));
                }
                Step::Drain(..) => {}
                Step::Undrain(b) => {
                    let was = model[usize::from(b)].take().is_some();
                    prop_assert_eq!(drains.undrain(&target(WEB, &address(b))), was);
                }
                Step::Advance(now) => {
                    drains.advance(Timestamp(now));
                    for (deadline, removed) in model.iter_mut().flatten() {
                        *removed |= deadline.is_some_and(|d| d <= now);
                    }
                }
                Step::File(backends) => {
                    present = backends;
                    let addresses: Vec<String> = present.iter().map(|&b| address(b)).collect();
                    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                    drains.retain_in(&[service(WEB, &addresses)]);
                    for b in (0u8..4).filter(|b| !present.contains(b)) {
                        model[usize::from(b)] = None;
                    }
                }
                Step::Restart => drains = Drains::from_json(&drains.to_json()).unwrap(),
            }
            let addresses: Vec<String> = present.iter().map(|&b| address(b)).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let seen = states(&drains.over(&[service(WEB, &addresses)]), WEB);
            let expected: Vec<_> = present.iter().filter_map(|&b| match model[usize::from(b)] {
                None => Some((address(b), BackendState::Active)),
                Some((_, false)) => Some((address(b), BackendState::Draining)),
                Some((_, true)) => None,
            }).collect();
            prop_assert_eq!(seen, expected);
            let deadlines = model.iter().flatten().filter(|(_, removed)| !removed);
            let next = deadlines.filter_map(|&(deadline, _)| deadline).min();
            prop_assert_eq!(drains.next_deadline(), next.map(Timestamp));
        }
    }
}

#[test]
fn a_service_that_replicates_keeps_as_many_backends_as_it_needs() {
    let two = NonZeroU8::new(2).unwrap();
    let policy = Replicate {
        commit: Commit::Quorum(two),
        min_sync: two,
        ..Replicate::DEFAULT
    };
    let services = vec![Service {
        mode: Mode::Replicate(Arc::new(policy)),
        ..service(WEB, &["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    }];
    let mut drains = Drains::default();
    for backend in ["10.0.0.2", "10.0.0.3"] {
        drains.drain(target(WEB, backend), Some(Timestamp(0)));
    }
    drains.advance(Timestamp(0));
    let over = drains.over(&services);
    let active = ("10.0.0.1".to_owned(), BackendState::Active);
    let kept = ("10.0.0.3".to_owned(), BackendState::Draining);
    assert_eq!(states(&over, WEB), [active.clone(), kept]);
    assert!(Snapshot::new(1, over).is_ok());

    // With one more backend in the file nothing has to be kept.
    let more = service(WEB, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    let services = vec![Service {
        backends: more.backends,
        ..services[0].clone()
    }];
    let fourth = ("10.0.0.4".to_owned(), BackendState::Active);
    assert_eq!(states(&drains.over(&services), WEB), [active, fourth]);
}
