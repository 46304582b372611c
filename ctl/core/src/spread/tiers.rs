//! How much of a service's new flows each of its tiers gets: Envoy's priority levels.

/// How many backends a tier has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tier {
    /// All of them.
    pub total: u32,
    /// Those that take new flows and are not known to be down.
    pub healthy: u32,
}

/// Percent by which tiers are taken to be larger than they have to be: with 72 of 100 backends a
/// tier still carries everything.
const OVER_PROVISIONING: u64 = 140;

impl Tier {
    /// Percent of all flows that it can carry.
    fn capacity(self) -> u64 {
        let able = OVER_PROVISIONING * u64::from(self.healthy);
        let total = u64::from(self.total.max(self.healthy));
        able.checked_div(total).unwrap_or(0).min(100)
    }
}

/// The load of each tier in percent. Together they are 100, or nothing where no tier has a healthy
/// backend. Each tier takes what those before it cannot carry, up to its capacity; where all
/// capacities together are less than 100, each tier has its part of their sum.
pub fn loads<const N: usize>(tiers: &[Tier; N]) -> [u8; N] {
    let capacities = tiers.map(Tier::capacity);
    let together = capacities.iter().sum::<u64>().min(100);
    let mut loads = [0; N];
    if together == 0 {
        // So few of so many are healthy that it rounds to nothing: still better than nobody.
        if let Some(tier) = tiers.iter().position(|t| t.healthy > 0) {
            loads[tier] = 100;
        }
        return loads;
    }
    let mut left = 100;
    for (load, capacity) in loads.iter_mut().zip(capacities) {
        let part = ((capacity * 100 + together / 2) / together).min(left);
        left -= part;
        *load = part as u8;
    }
    // What rounding left over.
    if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
        *first += left as u8;
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tiers of a hundred backends, so many of them healthy.
    fn of<const N: usize>(healthy: [u32; N]) -> [u8; N] {
        loads(&healthy.map(|healthy| Tier {
            total: 100,
            healthy,
        }))
    }

    /// The tables of Envoy's documentation, "Priority levels".
    #[test]
    fn loads_are_those_of_envoys_tables() {
        for (healthy, traffic) in [
            ([100, 100], [100, 0]),
            ([72, 100], [100, 0]),
            ([71, 100], [99, 1]),
            ([50, 100], [70, 30]),
            ([25, 100], [35, 65]),
            ([0, 100], [0, 100]),
            ([72, 72], [100, 0]),
            ([71, 71], [99, 1]),
            ([50, 50], [70, 30]),
            ([25, 25], [50, 50]),
        ] {
            assert_eq!(of(healthy), traffic, "{healthy:?}");
        }
        for (healthy, traffic) in [
            ([100, 100, 100], [100, 0, 0]),
            ([72, 72, 100], [100, 0, 0]),
            ([71, 71, 100], [99, 1, 0]),
            ([50, 50, 100], [70, 30, 0]),
            ([25, 100, 100], [35, 65, 0]),
            ([25, 25, 100], [35, 35, 30]),
            ([25, 25, 20], [36, 36, 28]),
        ] {
            assert_eq!(of(healthy), traffic, "{healthy:?}");
        }
    }

    /// Its text: levels of health 20 and 30 are normalized to 40 and 60 percent.
    #[test]
    fn too_little_health_is_normalized() {
        let tier = |total, healthy| Tier { total, healthy };
        assert_eq!(loads(&[tier(7, 1), tier(14, 3)]), [40, 60]);
    }

    #[test]
    fn a_service_without_a_healthy_backend_has_no_load_and_one_with_one_always_has() {
        assert_eq!(of([0, 0, 0]), [0, 0, 0]);
        let rare = Tier {
            total: 4_096,
            healthy: 1,
        };
        assert_eq!(loads(&[Tier::default(), rare]), [0, 100]);
    }

    proptest! {
        #[test]
        fn loads_are_everything_and_go_only_where_somebody_is_healthy(
            tiers in prop::array::uniform5((0_u32..200, 0_u32..200)),
        ) {
            let tiers = tiers.map(|(total, healthy)| Tier { total, healthy: healthy.min(total) });
            let loads = loads(&tiers);
            let sum: u32 = loads.iter().map(|&l| u32::from(l)).sum();
            let somebody = tiers.iter().any(|t| t.healthy > 0);
            prop_assert_eq!(sum, if somebody { 100 } else { 0 });
            for (tier, load) in tiers.iter().zip(loads) {
                prop_assert!(load == 0 || tier.healthy > 0, "{tier:?}: {load}");
            }
        }
    }
}
