//! The drains of the group: what the store has said, what others did, what is to be written.
//!
//! Whoever writes last is right, as the store orders it. While the store is away each balancer
//! goes on with its own drains; when it is back, what others wrote in between comes first, and what
//! this balancer began or ended is then written where nobody else has.

use super::keys::SharedDrain;
use super::{Deadline, DrainChange, Own, deadline_of};
use crate::drains::{Drains, Phase, Target};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The most drains that are read from a store.
pub const MAX_DRAINS: usize = 65_536;

/// What the store has said of drains, last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    seen: BTreeMap<Target, Deadline>,
    /// The revisions of this balancer's own writes: what it hears of earlier ones is overwritten.
    written: BTreeMap<Target, i64>,
    /// Which store that was; `None` before any.
    origin: Option<Origin>,
}

/// A store, and how far it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its cluster.
    pub cluster: u64,
    /// What it has changed by then: it never goes back, but in one that was begun anew.
    pub revision: i64,
}

/// Everything that a store has of drains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The drains.
    pub drains: BTreeMap<Target, SharedDrain>,
    /// Backends of which it has something that this version cannot read: what was known stays.
    pub unreadable: BTreeSet<Target>,
    /// Which store, and when; `None` where it does not say.
    pub origin: Option<Origin>,
}

/// Something to be written to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A drain.
    Put(Target, Deadline),
    /// Its end.
    Delete(Target),
}

impl Ledger {
    /// Takes everything that the store has. Returns what others have changed since it last said
    /// something: all but what `instance` wrote itself, whose answer was lost on the way. A store
    /// that came back empty, or from an older copy, has ended nothing: nobody did.
    pub fn list(&mut self, instance: &str, listing: &Listing) -> Vec<DrainChange> {
        let listed = &listing.drains;
        let same = self.is_of(listing.origin);
        self.origin = listing.origin.or(self.origin);
        self.written.clear();
        let mut now: BTreeMap<Target, Deadline> = listed
            .iter()
            .map(|(target, drain)| (target.clone(), drain.deadline_unix_ms))
            .collect();
        let known = self.seen.iter();
        let known = known.filter(|(target, _)| listing.unreadable.contains(*target));
        now.extend(known.map(|(target, deadline)| (target.clone(), *deadline)));
        let before = std::mem::replace(&mut self.seen, now);
        let ended = before
            .keys()
            .filter(|t| same && !self.seen.contains_key(*t));
        let ended = ended.map(|target| DrainChange {
            target: target.clone(),
            drain: None,
        });
        let begun = listed.iter().filter(|(target, drain)| {
            drain.by != instance && before.get(*target) != Some(&drain.deadline_unix_ms)
        });
        let begun = begun.map(|(target, drain)| DrainChange {
            target: target.clone(),
            drain: Some(drain.deadline_unix_ms),
        });
        ended.chain(begun).collect()
    }

    /// Whether this is the store that was there before, and not behind it.
    pub fn is_of(&self, origin: Option<Origin>) -> bool {
        match (self.origin, origin) {
            (Some(known), Some(now)) => {
                known.cluster == now.cluster && known.revision <= now.revision
            }
            (None, _) | (_, None) => true,
        }
    }

    /// The store has come to a revision.
    pub fn reach(&mut self, revision: i64) {
        if let Some(origin) = &mut self.origin {
            origin.revision = origin.revision.max(revision);
        }
    }

    /// Hears of one change at a revision. Returns it where another balancer made it.
    pub fn hear(
        &mut self,
        instance: &str,
        target: Target,
        drain: Option<&SharedDrain>,
        revision: i64,
    ) -> Option<DrainChange> {
        if self
            .written
            .get(&target)
            .is_some_and(|own| revision <= *own)
        {
            return None;
        }
        let deadline = drain.map(|d| d.deadline_unix_ms);
        let before = match deadline {
            Some(deadline) if self.seen.len() < MAX_DRAINS || self.seen.contains_key(&target) => {
                self.seen.insert(target.clone(), deadline)
            }
            Some(_) => return None,
            None => self.seen.remove(&target),
        };
        let mine = drain.is_some_and(|d| d.by == instance);
        (!mine && before != deadline).then_some(DrainChange {
            target,
            drain: deadline,
        })
    }

    /// Notes that a write was taken by the store, at a revision.
    pub fn wrote(&mut self, write: &Write, revision: i64) {
        self.reach(revision);
        let target = match write {
            Write::Put(target, deadline) => {
                self.seen.insert(target.clone(), *deadline);
                target
            }
            Write::Delete(target) => {
                self.seen.remove(target);
                target
            }
        };
        if self.written.len() >= MAX_DRAINS {
            self.written.clear();
        }
        self.written.insert(target.clone(), revision);
    }

    /// What is to be written so that the store has this balancer's drains. Nothing where it has
    /// not absorbed the `generation` yet: what others ended must not begin anew.
    pub fn writes(&self, own: &Own, generation: u64) -> Vec<Write> {
        if own.heard != generation {
            return Vec::new();
        }
        let puts = own.drains.iter().filter_map(|(target, phase)| {
            let wanted = match (phase, self.seen.get(target)) {
                // Each balancer removes the backend by itself at the deadline.
                (Phase::Removed, Some(_)) => false,
                (Phase::Draining { deadline }, Some(seen)) => deadline != *seen,
                (_, None) => true,
            };
            wanted.then(|| Write::Put(target.clone(), deadline_of(phase)))
        });
        let mine: BTreeMap<&Target, Phase> = own.drains.iter().collect();
        let ended = self.seen.keys();
        let ended = ended.filter(|t| !mine.contains_key(t) && own.backends.contains(*t));
        puts.chain(ended.map(|t| Write::Delete(t.clone())))
            .collect()
    }

    /// The drains, to be shown.
    pub fn drains(&self) -> Drains {
        let mut drains = Drains::default();
        for (target, deadline) in &self.seen {
            drains.drain(target.clone(), *deadline);
        }
        drains
    }

    /// What outlives the daemon, as JSON: without it a drain that was ended elsewhere while the
    /// daemon was not there looks like one that was begun here.
    pub fn to_json(&self, group: &str) -> String {
        let drains = self.seen.iter().map(|(target, deadline)| SavedDrain {
            service: target.service.as_str().to_owned(),
            backend: target.backend.0,
            deadline_unix_ms: *deadline,
        });
        let saved = Saved {
            group: group.to_owned(),
            origin: self.origin,
            drains: drains.collect(),
        };
        serde_json::to_string_pretty(&saved).expect("strings and numbers always serialize")
    }

    /// What [`Ledger::to_json`] wrote for this group; an empty one where it is of another.
    pub fn from_json(group: &str, text: &str) -> Option<Self> {
        let saved: Saved = serde_json::from_str(text).ok()?;
        if saved.group != group {
            return None;
        }
        let mut seen = BTreeMap::new();
        for drain in saved.drains {
            let target = Target {
                service: lockstep_plan::ServiceName::new(&drain.service)?,
                backend: lockstep_plan::BackendId(drain.backend),
            };
            seen.insert(target, drain.deadline_unix_ms);
        }
        Some(Ledger {
            seen,
            written: BTreeMap::new(),
            origin: saved.origin,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    group: String,
    #[serde(default)]
    origin: Option<Origin>,
    drains: Vec<SavedDrain>,
}

#[derive(Serialize, Deserialize)]
struct SavedDrain {
    service: String,
    backend: IpAddr,
    deadline_unix_ms: Deadline,
}

#[cfg(test)]
mod tests;
