//! Slow start: backends that become active get their share step by step.
//!
//! No clock in here: the caller passes the time and waits for [`Ramps::next_deadline`].

use super::Spreads;
use crate::drains::{Shift, Target, Timestamp};
use lockstep_plan::{BackendId, BackendState, Service, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Tenths of its weight that a backend has in the end.
const WHOLE: u8 = 10;

/// Backends that begin slowly, and those that were active before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ramps {
    /// When each backend became active that was not when its service began.
    began: BTreeMap<Target, Timestamp>,
    /// By service, the backends that were active when this was last told.
    active: BTreeMap<ServiceName, BTreeSet<BackendId>>,
}

impl Ramps {
    /// Takes note of the services as they are to be in force, drains laid over them. Backends that
    /// became active since the last time begin to get their share; those of a service that is new
    /// have it.
    pub fn follow(&mut self, services: &[Service], now: Timestamp) {
        let active: BTreeMap<ServiceName, BTreeSet<BackendId>> = services
            .iter()
            .map(|service| (service.name.clone(), active(service)))
            .collect();
        self.began.retain(|target, _| {
            let of_service = active.get(&target.service);
            of_service.is_some_and(|backends| backends.contains(&target.backend))
        });
        for (name, backends) in &active {
            let Some(before) = self.active.get(name) else {
                continue;
            };
            for &backend in backends.difference(before) {
                let service = name.clone();
                self.began.insert(Target { service, backend }, now);
            }
        }
        self.active = active;
    }

    /// The clock has been set: nobody has more or less by that.
    pub fn shift(&mut self, shift: Shift) {
        for began in self.began.values_mut() {
            *began = shift.of(*began);
        }
    }

    /// How many tenths of its weight a backend has.
    pub fn tenths(
        &self,
        service: &ServiceName,
        backend: BackendId,
        slow_start: Option<Duration>,
        now: Timestamp,
    ) -> u8 {
        let service = service.clone();
        let began = self.began.get(&Target { service, backend });
        match (began, slow_start) {
            (Some(&began), Some(time)) => tenths(now.since(began), time),
            (None, _) | (_, None) => WHOLE,
        }
    }

    /// When a backend next gets more.
    pub fn next_deadline(&self, spreads: &Spreads, now: Timestamp) -> Option<Timestamp> {
        let next = |(target, &began): (&Target, &Timestamp)| {
            let time = spreads.get(&target.service)?.slow_start?;
            let has = tenths(now.since(began), time);
            (has < WHOLE).then(|| began.after(reached(has + 1, time)))
        };
        self.began.iter().filter_map(next).min()
    }
}

fn active(service: &Service) -> BTreeSet<BackendId> {
    let backends = service.backends.iter();
    let active = backends.filter(|b| b.state == BackendState::Active);
    active.map(lockstep_plan::Backend::id).collect()
}

/// How long it takes to have so many tenths: one at once, all at the end.
fn reached(tenths: u8, time: Duration) -> Duration {
    // In whole milliseconds, as time stamps are; rounded up, so that the time has come then.
    let steps = time.as_millis() * u128::from(tenths - 1);
    Duration::from_millis(steps.div_ceil(u128::from(WHOLE - 1)) as u64)
}

fn tenths(elapsed: Duration, time: Duration) -> u8 {
    let has = |tenths: &u8| elapsed >= reached(*tenths, time);
    (1..=WHOLE).rev().find(has).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spread::Spread;
    use crate::testing::service;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp(1_000_000);
    const TIME: Duration = Duration::from_secs(90);

    fn spreads() -> Spreads {
        let name = ServiceName::new("a").unwrap();
        let spread = Spread {
            slow_start: Some(TIME),
            ..Spread::default()
        };
        Spreads::from([(name, spread)])
    }

    fn share(ramps: &Ramps, backend: &str, now: Timestamp) -> u8 {
        let name = ServiceName::new("a").unwrap();
        ramps.tenths(&name, BackendId(backend.parse().unwrap()), Some(TIME), now)
    }

    #[test]
    fn a_clock_that_is_set_changes_no_share() {
        let mut ramps = Ramps::default();
        ramps.follow(&[service("a", &["10.0.0.1"])], T0);
        ramps.follow(&[service("a", &["10.0.0.1", "10.0.0.2"])], at(10));
        let before = share(&ramps, "10.0.0.2", at(50));
        assert!(before > 1 && before < WHOLE);
        for set in [T0.after(TIME * 1_000), Timestamp(500_000)] {
            let mut shifted = ramps.clone();
            shifted.shift(Shift::between(at(50), set));
            assert_eq!(share(&shifted, "10.0.0.2", set), before);
        }
    }

    fn at(seconds: u64) -> Timestamp {
        T0.after(Duration::from_secs(seconds))
    }

    #[test]
    fn backends_of_a_new_service_have_their_share_and_later_ones_begin_with_a_tenth() {
        let mut ramps = Ramps::default();
        ramps.follow(&[service("a", &["10.0.0.1"])], T0);
        assert_eq!(share(&ramps, "10.0.0.1", T0), 10);
        assert_eq!(ramps.next_deadline(&spreads(), T0), None);

        ramps.follow(&[service("a", &["10.0.0.1", "10.0.0.2"])], at(5));
        assert_eq!(share(&ramps, "10.0.0.1", at(5)), 10);
        for (seconds, tenths) in [
            (0, 1),
            (9, 1),
            (10, 2),
            (45, 5),
            (89, 9),
            (90, 10),
            (900, 10),
        ] {
            assert_eq!(
                share(&ramps, "10.0.0.2", at(5 + seconds)),
                tenths,
                "{seconds}"
            );
        }
        // Told of the same again, it goes on.
        ramps.follow(&[service("a", &["10.0.0.1", "10.0.0.2"])], at(50));
        assert_eq!(share(&ramps, "10.0.0.2", at(50)), 5);
    }

    #[test]
    fn the_end_of_a_drain_is_a_beginning_and_a_backend_that_goes_is_forgotten() {
        let mut ramps = Ramps::default();
        let both = service("a", &["10.0.0.1", "10.0.0.2"]);
        let mut drained = both.clone();
        drained.backends[1].state = BackendState::Draining;
        ramps.follow(std::slice::from_ref(&both), T0);
        ramps.follow(std::slice::from_ref(&drained), at(1));
        ramps.follow(std::slice::from_ref(&both), at(2));
        assert_eq!(share(&ramps, "10.0.0.2", at(2)), 1);
        // Drained and back again: from the beginning.
        ramps.follow(&[drained], at(50));
        assert_eq!(ramps.next_deadline(&spreads(), at(50)), None);
        ramps.follow(&[both], at(80));
        assert_eq!(share(&ramps, "10.0.0.2", at(85)), 1);
        ramps.follow(&[], at(86));
        assert_eq!(ramps.next_deadline(&spreads(), at(86)), None);
        // A service that comes back is a new one.
        ramps.follow(&[service("a", &["10.0.0.1", "10.0.0.2"])], at(87));
        assert_eq!(share(&ramps, "10.0.0.2", at(87)), 10);
    }

    #[test]
    fn without_a_slow_start_there_is_nothing_to_wait_for() {
        let mut ramps = Ramps::default();
        ramps.follow(&[service("a", &[])], T0);
        ramps.follow(&[service("a", &["10.0.0.1"])], T0);
        assert_eq!(ramps.next_deadline(&Spreads::new(), T0), None);
        let name = ServiceName::new("a").unwrap();
        let backend = BackendId("10.0.0.1".parse().unwrap());
        assert_eq!(ramps.tenths(&name, backend, None, T0), 10);
    }

    proptest! {
        /// From deadline to deadline, each gives more, in nine steps, and the last one everything.
        #[test]
        fn each_deadline_gives_more(milliseconds in 1_000_u64..43_200_000, late in 0_u64..100) {
            let mut spreads = spreads();
            spreads.values_mut().for_each(|s| s.slow_start = Some(Duration::from_millis(milliseconds)));
            let mut ramps = Ramps::default();
            ramps.follow(&[service("a", &[])], T0);
            ramps.follow(&[service("a", &["10.0.0.1"])], T0);
            let backend = BackendId("10.0.0.1".parse().unwrap());
            let name = ServiceName::new("a").unwrap();
            let mut now = T0;
            let mut has = 1;
            let mut steps = 0;
            while let Some(next) = ramps.next_deadline(&spreads, now) {
                prop_assert!(next > now);
                now = Timestamp(next.0 + late);
                let more = ramps.tenths(&name, backend, spreads[&name].slow_start, now);
                prop_assert!(more > has, "{has} at {now:?}");
                has = more;
                steps += 1;
            }
            prop_assert_eq!(has, 10);
            prop_assert!(steps <= 9);
            prop_assert!(now.0 - T0.0 <= milliseconds + 10 * late + 1);
        }
    }
}
