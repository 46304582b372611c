//! From what should be in force and what is, to what to do.

use lockstep_plan::{PlanError, Service, Snapshot, Vip};

/// What the daemon does about an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The engine forwards by the right services already; its epoch stays.
    Nothing,
    /// The engine is to apply this.
    Apply(Snapshot),
}

/// Compares the services that should be in force with an engine's current snapshot.
///
/// A new snapshot's epoch is larger than the engine's and than `last_epoch`, the last one this
/// daemon saw, so that epochs grow over restarts of either. The order of services, VIPs and
/// backends means nothing to forwarding and does not make a difference.
///
/// # Errors
/// When `desired` cannot stand together in a snapshot.
pub fn reconcile(
    desired: &[Service],
    current: &Snapshot,
    last_epoch: u64,
) -> Result<Action, Vec<PlanError>> {
    if are_same(desired, current.services()) {
        return Ok(Action::Nothing);
    }
    let epoch = current.epoch().max(last_epoch).saturating_add(1);
    Snapshot::new(epoch, desired.to_vec()).map(Action::Apply)
}

/// Whether services are the same to forwarding, in whatever order they stand.
pub fn are_same(some: &[Service], others: &[Service]) -> bool {
    sorted(some) == sorted(others)
}

fn sorted(services: &[Service]) -> Vec<Service> {
    let mut services = services.to_vec();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    for service in &mut services {
        service.vips.sort_by_key(|v: &Vip| *v);
        service.backends.sort_by_key(lockstep_plan::Backend::id);
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    #[test]
    fn an_engine_that_has_the_services_is_left_alone() {
        let services = vec![service("a", &["10.0.0.1", "10.0.0.2"]), service("b", &[])];
        let current = Snapshot::new(17, services.clone()).unwrap();
        assert_eq!(reconcile(&services, &current, 3), Ok(Action::Nothing));
    }

    #[test]
    fn order_makes_no_difference() {
        let current = vec![service("a", &["10.0.0.1", "10.0.0.2"]), service("b", &[])];
        let desired = vec![service("b", &[]), service("a", &["10.0.0.2", "10.0.0.1"])];
        let current = Snapshot::new(17, current).unwrap();
        assert_eq!(reconcile(&desired, &current, 3), Ok(Action::Nothing));
    }

    #[test]
    fn a_difference_is_applied_under_a_larger_epoch_than_any_seen() {
        let desired = vec![service("a", &["10.0.0.1"])];
        for (engine, last, expected) in [(0, 0, 1), (17, 3, 18), (0, 17, 18)] {
            let current = Snapshot::new(engine, vec![]).unwrap();
            let snapshot = Snapshot::new(expected, desired.clone()).unwrap();
            assert_eq!(
                reconcile(&desired, &current, last),
                Ok(Action::Apply(snapshot))
            );
        }
    }

    #[test]
    fn services_that_cannot_stand_together_are_an_error() {
        let desired = vec![service("a", &[]), service("a", &[])];
        assert!(reconcile(&desired, &Snapshot::empty(), 0).is_err());
    }
}
