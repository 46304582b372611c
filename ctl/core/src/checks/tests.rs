use super::*;
use crate::testing::service;
use lockstep_plan::{BackendId, Mode, Replicate};
use std::sync::Arc;

fn target(service: &str, backend: &str) -> Target {
    Target {
        service: ServiceName::new(service).unwrap(),
        backend: BackendId(backend.parse().unwrap()),
    }
}

fn check() -> Check {
    Check {
        probe: Probe::Icmp,
        via: Via::Address,
        port: None,
        interval: None,
        fast_interval: None,
        timeout: None,
        rise: None,
        fall: None,
    }
}

fn policies(all_down: AllDown) -> BTreeMap<ServiceName, Policy> {
    let policy = Policy {
        check: Some(check()),
        all_down,
    };
    BTreeMap::from([(ServiceName::new("a").unwrap(), policy)])
}

fn left(services: &[Service]) -> Vec<String> {
    let backends = services[0].backends.iter();
    backends.map(|b| b.address.to_string()).collect()
}

#[test]
fn backends_of_services_with_a_check_are_subjects() {
    let services = [
        service("a", &["10.0.0.1", "10.0.0.2"]),
        service("b", &["10.0.0.1"]),
    ];
    let defaults = Defaults {
        interval: Some(Duration::from_secs(5)),
        fall: Some(7),
        ..Defaults::default()
    };
    let subjects = subjects(&services, &policies(AllDown::Keep), &defaults);
    let targets: Vec<&Target> = subjects.keys().collect();
    assert_eq!(
        targets,
        [&target("a", "10.0.0.1"), &target("a", "10.0.0.2")]
    );
    let subject = &subjects[&target("a", "10.0.0.1")];
    assert_eq!(subject.pace.interval, Duration::from_secs(5));
    assert_eq!(subject.pace.timeout, Duration::from_millis(2_500));
    assert_eq!((subject.pace.rise, subject.pace.fall), (2, 7));
    assert_eq!(subject.asked_port(), subject.vip.port());
}

#[test]
fn a_checks_own_times_go_before_those_of_the_file() {
    let defaults = Defaults {
        interval: Some(Duration::from_secs(10)),
        timeout: Some(Duration::from_secs(5)),
        ..Defaults::default()
    };
    let own = Check {
        interval: Some(Duration::from_secs(2)),
        ..check()
    };
    let pace = Pace::of(&own, &defaults);
    assert_eq!(pace.interval, Duration::from_secs(2));
    assert_eq!(pace.timeout, pace.interval, "a check ends before the next");
    assert_eq!(pace.fast_interval, Duration::from_secs(1));
}

#[test]
fn backends_that_are_down_are_left_out() {
    let mut services = [service("a", &["10.0.0.1", "10.0.0.2"])];
    let verdicts = Verdicts::from([
        (target("a", "10.0.0.1"), Verdict::Down),
        (target("a", "10.0.0.2"), Verdict::Up),
        (target("b", "10.0.0.2"), Verdict::Down),
    ]);
    lay_over(&mut services, &policies(AllDown::Keep), &verdicts);
    assert_eq!(left(&services), ["10.0.0.2"]);
}

#[test]
fn a_service_that_is_not_checked_is_left_alone() {
    let mut services = [service("b", &["10.0.0.1"])];
    let before = services.clone();
    let verdicts = Verdicts::from([(target("b", "10.0.0.1"), Verdict::Down)]);
    lay_over(&mut services, &policies(AllDown::Drop), &verdicts);
    assert_eq!(services, before);
}

#[test]
fn what_becomes_of_a_service_without_backends_is_its_policy() {
    for (policy, expected) in [(AllDown::Keep, 2), (AllDown::Drop, 0), (AllDown::Reset, 0)] {
        let mut services = [service("a", &["10.0.0.1", "10.0.0.2"])];
        let down = |b: &str| (target("a", b), Verdict::Down);
        let verdicts = Verdicts::from([down("10.0.0.1"), down("10.0.0.2")]);
        lay_over(&mut services, &policies(policy), &verdicts);
        assert_eq!(left(&services).len(), expected, "{policy:?}");
    }
}

#[test]
fn draining_backends_do_not_make_a_service_of_failed_ones() {
    let mut services = [service("a", &["10.0.0.1", "10.0.0.2"])];
    services[0].backends[1].state = BackendState::Draining;
    let verdicts = Verdicts::from([(target("a", "10.0.0.1"), Verdict::Down)]);
    let mut kept = services.clone();
    lay_over(&mut kept, &policies(AllDown::Keep), &verdicts);
    assert_eq!(left(&kept).len(), 2, "new flows would go nowhere");
    lay_over(&mut services, &policies(AllDown::Drop), &verdicts);
    assert_eq!(left(&services), ["10.0.0.2"], "it keeps its flows");
}

#[test]
fn replicas_stay_and_are_marked() {
    let mut services = [service("a", &["10.0.0.1", "10.0.0.2"])];
    services[0].mode = Mode::Replicate(Arc::new(Replicate::DEFAULT));
    let verdicts = Verdicts::from([(target("a", "10.0.0.1"), Verdict::Down)]);
    lay_over(&mut services, &policies(AllDown::Keep), &verdicts);
    let marks: Vec<Verdict> = services[0]
        .backends
        .iter()
        .map(|b| b.health.verdict)
        .collect();
    assert_eq!(marks, [Verdict::Down, Verdict::Unknown]);
}
