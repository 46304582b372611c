//! `[random]`: the random numbers that replicas ask for.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRandom {}

impl RawRandom {
    pub(super) fn to_random(&self, _: Source<'_>, _: &mut Diagnostics) -> Random {
        Random {}
    }
}
