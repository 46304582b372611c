//! Several balancers that share what they know of backends.
//!
//! Each publishes what its checks have found; the verdict of most of them is in force on all.
//! Drains are the group's: whoever drains or undrains says it to all. A store that is lost changes
//! nothing: what was agreed last stays, and only what this balancer itself finds out from then on
//! is added to it ([`agreed`] has the table).

use crate::checks::Verdicts;
use crate::drains::{Drains, Phase, Target, Timestamp};
use lockstep_plan::health::Verdict;
use std::collections::{BTreeMap, BTreeSet};

pub mod keys;
pub mod ledger;
pub mod reach;
pub mod roster;

/// What this balancer tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// What its checks have found.
    pub verdicts: Verdicts,
    /// The drains of the group as this balancer knows them.
    pub drains: Drains,
    /// Every backend of the services in force: a drain of another one is not this balancer's to
    /// end.
    pub backends: BTreeSet<Target>,
    /// The [`Group::generation`] that the drains are as of.
    pub heard: u64,
}

/// What is known of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Whether the store answers. What else stands here is the last that it said.
    pub connected: bool,
    /// What the checks of each other balancer that is alive have found, by its name.
    pub members: BTreeMap<String, Verdicts>,
    /// The drains of the group, to be shown; `None` until the store has said so once.
    pub drains: Option<Drains>,
    /// What others have drained and undrained since the last of these: each is absorbed once.
    pub changes: Vec<DrainChange>,
    /// Counts these.
    pub generation: u64,
    /// What this balancer had found when the store was lost; `None` while it is there.
    pub own_at_loss: Option<Verdicts>,
}

/// What another balancer has done to a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainChange {
    /// The backend.
    pub target: Target,
    /// The drain, with its deadline where it has one; `None` where it was ended.
    pub drain: Option<Deadline>,
}

/// When a drained backend is removed; `None` waits for its last flow.
pub type Deadline = Option<Timestamp>;

/// Lays what others have done over the drains of this balancer.
pub fn absorb(mine: &mut Drains, changes: &[DrainChange]) {
    for change in changes {
        match change.drain {
            Some(deadline) => mine.drain(change.target.clone(), deadline),
            None => {
                mine.undrain(&change.target);
            }
        }
    }
}

/// The deadline that says a drain to others. One that is over says "removed" everywhere.
pub fn deadline_of(phase: Phase) -> Deadline {
    match phase {
        Phase::Draining { deadline } => deadline,
        Phase::Removed => Some(Timestamp(0)),
    }
}

/// What the group makes of backends: the verdict of most of its living balancers that have asked,
/// where they are split that of this one.
///
/// While the store is lost, what was agreed last stays, except for what this balancer has found
/// out since:
///
/// | found at the loss | found now | in force |
/// |---|---|---|
/// | any | the same | what was agreed at the loss |
/// | another | up or down | what is found now |
/// | any | unknown | what was agreed at the loss |
pub fn agreed(own: &Verdicts, group: &Group) -> Verdicts {
    let Some(before) = &group.own_at_loss else {
        return majority(own, &group.members);
    };
    let frozen = majority(before, &group.members);
    let targets: BTreeSet<&Target> = frozen.keys().chain(own.keys()).collect();
    let verdict = |target: &Target| {
        let of = |verdicts: &Verdicts| verdicts.get(target).copied().unwrap_or_default();
        match (of(before), of(own)) {
            (_, Verdict::Unknown) => of(&frozen),
            (then, now) if then == now => of(&frozen),
            (_, now) => now,
        }
    };
    targets
        .into_iter()
        .map(|t| (t.clone(), verdict(t)))
        .collect()
}

fn majority(own: &Verdicts, members: &BTreeMap<String, Verdicts>) -> Verdicts {
    let others = members.values().flat_map(BTreeMap::keys);
    let targets: BTreeSet<&Target> = own.keys().chain(others).collect();
    let agreed = targets.into_iter().map(|target| {
        let mine = own.get(target).copied().unwrap_or_default();
        let theirs = members.values().filter_map(|m| m.get(target).copied());
        (target.clone(), most(mine, theirs))
    });
    agreed.collect()
}

fn most(own: Verdict, others: impl Iterator<Item = Verdict>) -> Verdict {
    let (mut up, mut down) = (0_usize, 0_usize);
    for verdict in others.chain([own]) {
        match verdict {
            Verdict::Unknown => {}
            Verdict::Up => up += 1,
            Verdict::Down => down += 1,
        }
    }
    match up.cmp(&down) {
        std::cmp::Ordering::Greater => Verdict::Up,
        std::cmp::Ordering::Less => Verdict::Down,
        std::cmp::Ordering::Equal => own,
    }
}

#[cfg(test)]
mod tests;
