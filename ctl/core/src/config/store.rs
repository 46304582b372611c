//! `[store]`: what the balancers of a group share their state by.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {}

impl RawStore {
    pub(super) fn to_store(&self, _: Source<'_>, _: &mut Diagnostics) -> Store {
        Store {}
    }
}
