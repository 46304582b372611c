//! Weights and states of a snapshot, from tiers, drains and slow starts.

use super::*;
use crate::testing::service;
use lockstep_plan::Health;

const T0: Timestamp = Timestamp(1_000_000);

fn spread(priorities: &[(&str, u8)]) -> Spreads {
    let priorities = priorities.iter().map(|&(address, priority)| {
        let backend = BackendId(address.parse().unwrap());
        (backend, Priority::new(priority).unwrap())
    });
    let spread = Spread {
        slow_start: Some(Duration::from_secs(9)),
        priorities: priorities.collect(),
    };
    Spreads::from([(ServiceName::new("a").unwrap(), spread)])
}

/// Weights of active backends, 0 for those that get nothing.
fn laid_over(service: &Service, file: &Service, spreads: &Spreads, ramps: &Ramps) -> Vec<u16> {
    let mut services = [service.clone()];
    lay_over(
        &mut services,
        std::slice::from_ref(file),
        spreads,
        ramps,
        T0,
    );
    let weight = |b: &Backend| match b.state {
        BackendState::Active => b.weight.get(),
        BackendState::Draining => 0,
    };
    services[0].backends.iter().map(weight).collect()
}

fn drain(service: &Service, at: &[usize]) -> Service {
    let mut service = service.clone();
    at.iter()
        .for_each(|&at| service.backends[at].state = BackendState::Draining);
    service
}

#[test]
fn the_second_tier_waits_and_takes_over_as_the_first_one_fails() {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.1.2"];
    let file = service("a", &addresses);
    let spreads = spread(&[("10.0.1.1", 1), ("10.0.1.2", 1)]);
    let ramps = Ramps::default();
    let weights = |drained: &[usize]| laid_over(&drain(&file, drained), &file, &spreads, &ramps);
    assert_eq!(
        weights(&[]),
        [100, 100, 100, 0, 0],
        "weights are the file's"
    );
    // Two of three: 1.4 × 66 % = 93 %; 93 / 2 to 7 / 2.
    assert_eq!(weights(&[0]), [0, 93, 93, 7, 7]);
    // One of three: 46 % to 54 %, which is 27 each.
    assert_eq!(weights(&[0, 1]), [0, 0, 46, 27, 27]);
    assert_eq!(weights(&[0, 1, 2]), [0, 0, 0, 100, 100]);
    assert_eq!(weights(&[0, 1, 2, 3, 4]), [0; 5], "nobody is left");
    assert_eq!(weights(&[3]), [100, 100, 100, 0, 0]);

    // One that is drained and removed is missing, not forgotten.
    let mut removed = file.clone();
    removed.backends.remove(0);
    assert_eq!(laid_over(&removed, &file, &spreads, &ramps), [93, 93, 7, 7]);
    assert_eq!(
        laid_over(&removed, &removed, &spreads, &ramps),
        [100, 100, 0, 0]
    );
}

#[test]
fn a_backend_that_is_down_counts_as_unhealthy_and_gets_nothing() {
    let file = service("a", &["10.0.0.1", "10.0.0.2", "10.0.1.1"]);
    let spreads = spread(&[("10.0.1.1", 1)]);
    let mut down = file.clone();
    down.backends[0].health = Health {
        verdict: Verdict::Down,
        rtt: None,
    };
    let weights = laid_over(&down, &file, &spreads, &Ramps::default());
    assert_eq!(weights, [0, 7, 3], "70 to 30 percent");
}

#[test]
fn weights_count_within_a_tier() {
    let mut file = service(
        "a",
        &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "10.0.1.2"],
    );
    file.backends[1].weight = Weight::new(300).unwrap();
    file.backends[3].weight = Weight::new(1).unwrap();
    file.backends[4].weight = Weight::new(3).unwrap();
    let spreads = spread(&[("10.0.1.1", 1), ("10.0.1.2", 1)]);
    let weights = laid_over(&drain(&file, &[2]), &file, &spreads, &Ramps::default());
    // 93 as 1 to 3, and 7 as 1 to 3.
    assert_eq!(weights, [93, 279, 0, 7, 21]);
}

#[test]
fn a_slow_start_lowers_a_weight_and_not_those_of_others() {
    let before = service("a", &["10.0.0.1"]);
    let file = service("a", &["10.0.0.1", "10.0.0.2"]);
    let spreads = spread(&[]);
    let mut ramps = Ramps::default();
    ramps.follow(std::slice::from_ref(&before), T0);
    ramps.follow(std::slice::from_ref(&file), Timestamp(T0.0 - 2_000));
    assert_eq!(laid_over(&file, &file, &spreads, &ramps), [10, 3]);
    let shares = shares(
        std::slice::from_ref(&file),
        std::slice::from_ref(&file),
        &spreads,
        &ramps,
        T0,
    );
    let shown: Vec<_> = shares.iter().map(|s| (s.tier_load, s.ramp)).collect();
    assert_eq!(shown, [(100, 100), (100, 30)]);
    let without = Spreads::new();
    assert_eq!(laid_over(&file, &file, &without, &ramps), [100, 100]);
}

#[test]
fn services_without_tiers_and_slow_starts_stay_as_they_are() {
    let mut file = service("a", &["10.0.0.1", "10.0.0.2"]);
    file.backends[0].weight = Weight::new(10).unwrap();
    let spreads = spread(&[]);
    let ramps = Ramps::default();
    assert_eq!(laid_over(&file, &file, &spreads, &ramps), [10, 100]);
    let of = |spreads: &Spreads| {
        let services = std::slice::from_ref(&file);
        shares(services, services, spreads, &ramps, T0)
    };
    assert!(of(&spreads).is_empty() && of(&Spreads::new()).is_empty());
    assert_eq!(of(&spread(&[("10.0.0.2", 3)])).len(), 2);
}

#[test]
fn a_step_that_is_on_its_way_makes_no_difference() {
    let file = service("a", &["10.0.0.1", "10.0.0.2"]);
    let with = |weights: [u16; 2]| {
        let mut service = file.clone();
        for (backend, weight) in service.backends.iter_mut().zip(weights) {
            backend.weight = Weight::new(weight).unwrap();
        }
        [service]
    };
    let (first, second) = (with([10, 1]), with([10, 2]));
    let slow = spread(&[]);
    assert!(same_but_for_ramps(&second, &first, &slow));
    assert!(
        !same_but_for_ramps(&second, &first, &Spreads::new()),
        "weights of a file"
    );
    assert!(!same_but_for_ramps(
        &[drain(&second[0], &[1])],
        &first,
        &slow
    ));
    let fewer = [service("a", &["10.0.0.1"])];
    assert!(!same_but_for_ramps(&second, &fewer, &slow));
}
