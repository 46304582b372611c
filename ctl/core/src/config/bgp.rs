//! `[bgp]` and `[[bgp.peer]]`: the routers that VIPs are announced to.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;

/// See the module. Without peers nothing is announced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bgp {}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBgp {}

impl RawBgp {
    pub(super) fn to_bgp(&self, _: Source<'_>, _: &mut Diagnostics) -> Bgp {
        Bgp {}
    }
}
