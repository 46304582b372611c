//! `[health]`: what checks are like where a service of `services.toml` says less.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHealth {}

impl RawHealth {
    pub(super) fn to_defaults(&self, _: Source<'_>, _: &mut Diagnostics) -> Defaults {
        Defaults {}
    }
}
