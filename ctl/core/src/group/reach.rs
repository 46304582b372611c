//! Whether this balancer is the one that is cut off from the backends of a service.
//!
//! What most find is in force on all, so a balancer that alone reaches no backend keeps them, and
//! loses what it forwards. It can leave its VIPs to those that reach some: they are withdrawn here
//! while its own checks find every backend down, and those of another one that is alive find one
//! up. Where everybody finds all of them down nobody is cut off, and the service's `all_down`
//! decides: a check that fails everywhere takes no VIP away.
//!
//! Backends that die are found down by one balancer before the other: nobody counts as cut off
//! before the others have had the time to find the same.

use super::{Group, Own};
use crate::checks::{Pace, Subject, Subjects, Verdicts};
use crate::drains::{Phase, Shift, Target, Timestamp};
use lockstep_plan::ServiceName;
use lockstep_plan::health::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long what others have found is under way, at most: through their store, and to us.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The services without a backend that this balancer reaches, where others reach one, and when
    /// that counts.
    lost: BTreeMap<ServiceName, Timestamp>,
}

impl Reach {
    /// Takes what everybody finds now.
    pub fn follow(&mut self, now: Timestamp, subjects: &Subjects, own: &Own, group: &Group) {
        let mut lost = BTreeMap::<ServiceName, Timestamp>::new();
        let removed = own.drains.iter();
        let removed: BTreeSet<&Target> = removed
            .filter(|(_, phase)| matches!(phase, Phase::Removed))
            .map(|(target, _)| target)
            .collect();
        // Targets are in the order of their services.
        let all: Vec<(&Target, &Subject)> = subjects
            .iter()
            .filter(|(target, _)| !removed.contains(target))
            .collect();
        for of_one in all.chunk_by(|(a, _), (b, _)| a.service == b.service) {
            let mut targets = of_one.iter().map(|(target, _)| *target);
            let alone = is_down(targets.clone(), &own.verdicts)
                // Of what the others find since the store was lost nothing is known.
                && (group.own_at_loss.as_ref()).is_none_or(|then| is_down(targets.clone(), then))
                && targets.any(|target| is_up_elsewhere(target, group));
            if !alone {
                continue;
            }
            for (target, subject) in of_one {
                let known = self.lost.get(&target.service).copied();
                let at = known.unwrap_or_else(|| now.after(patience(&subject.pace)));
                let counts = lost.entry(target.service.clone()).or_insert(at);
                *counts = at.max(*counts);
            }
        }
        self.lost = lost;
    }

    /// The clock has been set: the others have as much time as before.
    pub fn shift(&mut self, shift: Shift) {
        for at in self.lost.values_mut() {
            *at = shift.of(*at);
        }
    }

    /// The services whose backends this balancer alone does not reach.
    pub fn cut_off(&self, now: Timestamp) -> BTreeSet<ServiceName> {
        let counts = self.lost.iter().filter(|(_, at)| **at <= now);
        counts.map(|(service, _)| service.clone()).collect()
    }

    /// When [`Reach::cut_off`] says something else though nothing happens.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.lost.values().copied().filter(|at| *at > now).min()
    }
}

fn is_down<'a>(mut targets: impl Iterator<Item = &'a Target>, found: &Verdicts) -> bool {
    targets.all(|target| found.get(target) == Some(&Verdict::Down))
}

fn is_up_elsewhere(target: &Target, group: &Group) -> bool {
    let mut members = group.members.values();
    members.any(|found| found.get(target) == Some(&Verdict::Up))
}

/// How long the others may take to find what this balancer has found.
fn patience(pace: &Pace) -> Duration {
    pace.interval * u32::from(pace.fall) + pace.timeout + UNDER_WAY
}

#[cfg(test)]
mod tests;
