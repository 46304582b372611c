//! How new flows are spread over backends, as far as the engine is not to know it: tiers of
//! backends, and backends that begin slowly. Both become weights and states of a snapshot here.

use lockstep_plan::{BackendId, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// The tier of a backend: those of 0 serve first, those of a higher number as the lower ones fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(u8);

impl Priority {
    /// The last tier.
    pub const MAX: u8 = 15;

    /// A priority up to [`Priority::MAX`].
    pub const fn new(number: u8) -> Option<Self> {
        if number <= Self::MAX {
            Some(Priority(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How a service spreads new flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// How long a backend that becomes active takes to its full share.
    pub slow_start: Option<Duration>,
    /// The tiers of backends that are not in the first one by their silence.
    pub priorities: BTreeMap<BackendId, Priority>,
}

impl Spread {
    /// The tier of a backend.
    pub fn priority(&self, backend: BackendId) -> Priority {
        self.priorities.get(&backend).copied().unwrap_or_default()
    }
}

/// How each service spreads them.
pub type Spreads = BTreeMap<ServiceName, Spread>;
