//! `[layer2]`: VIPs announced by ARP and neighbor discovery, one owner each among some balancers.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer2 {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLayer2 {}

impl RawLayer2 {
    pub(super) fn to_layer2(&self, _: Source<'_>, _: &mut Diagnostics) -> Layer2 {
        Layer2 {}
    }
}
