//! Who is in the group.
//!
//! A store that comes back after a while has forgotten its members: their leases have ended, and
//! they register anew one after the other. Those known before count as they did for as long as a
//! lease lasts, so that verdicts do not swing to whoever is back first.

use super::keys::Member;
use crate::checks::Verdicts;
use crate::drains::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most balancers of a group.
pub const MAX_MEMBERS: usize = 256;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    members: BTreeMap<String, Entry>,
}

/// A balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub member: Member,
    /// When it said so.
    pub heard: Timestamp,
    /// Until when it counts although the store does not know it; `None` for one that is known.
    pub until: Option<Timestamp>,
}

impl Roster {
    /// Takes everybody that the store has. Others that were known count for `grace` from now.
    pub fn list(&mut self, listed: BTreeMap<String, Member>, now: Timestamp, grace: Duration) {
        for (name, entry) in &mut self.members {
            if !listed.contains_key(name) {
                entry.until.get_or_insert(now.after(grace));
            }
        }
        for (name, member) in listed {
            self.join(name, member, now);
        }
    }

    /// Hears of a balancer.
    pub fn join(&mut self, name: String, member: Member, now: Timestamp) {
        if self.members.len() < MAX_MEMBERS || self.members.contains_key(&name) {
            let entry = Entry {
                member,
                heard: now,
                until: None,
            };
            self.members.insert(name, entry);
        }
    }

    /// The store has ended a balancer's lease.
    pub fn leave(&mut self, name: &str) -> bool {
        self.members.remove(name).is_some()
    }

    /// The store has ended the lease of a balancer that may be cut off from it still: it counts
    /// until a time.
    pub fn miss(&mut self, name: &str, until: Timestamp) {
        if let Some(entry) = self.members.get_mut(name) {
            entry.until.get_or_insert(until);
        }
    }

    /// When [`Roster::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.members.values().filter_map(|e| e.until).min()
    }

    /// Drops those who have not come back. Returns whether there was one.
    pub fn advance(&mut self, now: Timestamp) -> bool {
        let before = self.members.len();
        self.members
            .retain(|_, entry| entry.until.is_none_or(|until| until > now));
        self.members.len() != before
    }

    /// Everybody, this balancer too where it is registered.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.members.iter()
    }

    /// The verdicts of everybody else than `instance`.
    pub fn others(&self, instance: &str) -> BTreeMap<String, Verdicts> {
        let others = self.members.iter();
        others
            .filter(|(_, entry)| entry.member.instance != instance)
            .map(|(name, entry)| (name.clone(), entry.member.verdicts.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
