//! A distributor of its own: a pod with Lockstep's engine and daemon, for one `Dire`.

/// The label of its pods.
pub const LABEL: &str = "lockstep.dev/distributor";

use super::hive::Hive;
use crate::kubernetes::{World, Write};
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::Dire;
use lockstep_plan::Replicate;

/// Makes it, or what it should be.
pub fn writes(
    _world: &World,
    _name: &Name,
    _dire: &Dire,
    _hive: &Hive<'_>,
    _policy: &Result<Replicate, String>,
) -> Vec<Write> {
    Vec::new()
}
