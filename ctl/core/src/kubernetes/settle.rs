//! Services of many objects together: what they may not do to each other, settled so that whatever
//! they say makes a snapshot.
//!
//! - Of two that want one port of one address the older one has it, by the name where they are as old.
//! - An address of a service is no backend of any: packets would come back to the balancer.
//! - What an engine has no room for is left out, the younger ones first.
//!
//! Only what a change concerns is settled again. The outcome depends on what all say now, and not on
//! the order in which they said it: every balancer comes to the same one.

use super::translate::Problem;
use lockstep_kubernetes::facts::{Name, Protocol};
use lockstep_plan::{Limits, Service, Vip};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// A service that an object asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The port it is of, where it is of one.
    pub port: Option<(u16, Protocol)>,
    /// It would stand in a snapshot by itself.
    pub service: Arc<Service>,
}

/// What an object asks for, and what of it is impossible by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// When the object was made, in seconds since 1970.
    pub created: i64,
    /// Their names are of nobody else's.
    pub drafts: Vec<Draft>,
    /// See there.
    pub problems: Vec<Problem>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    entries: BTreeMap<Name, Entry>,
    /// Who wants each VIP, the oldest first.
    claims: HashMap<Vip, Vec<Rank>>,
    /// How many VIPs are at each address, whoever has them.
    addresses: HashMap<IpAddr, usize>,
    /// Addresses that a VIP came to, or that the last one left.
    moved: BTreeSet<IpAddr>,
    /// VIPs that several want, or wanted, and one has come or gone.
    contended: BTreeSet<Vip>,
    /// What has to be settled.
    stale: BTreeSet<Name>,
    /// What an engine has no room for, and why.
    left_out: BTreeMap<Name, Problem>,
    /// Somebody with services has gone.
    gone: bool,
}

#[derive(Debug, Default)]
struct Entry {
    wanted: Wanted,
    settled: Vec<Arc<Service>>,
    /// Those of the object itself, and those it has with others.
    problems: Vec<Problem>,
}

/// Who goes before whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    created: i64,
    name: Name,
}

impl Board {
    /// Takes what an object asks for, instead of what it asked for before.
    pub fn put(&mut self, name: &Name, wanted: Wanted) {
        let before = self.entries.get(name).map(|entry| &entry.wanted);
        if before == Some(&wanted) {
            return;
        }
        let same_claims = before.is_some_and(|before| {
            before.created == wanted.created && vips(&before.drafts).eq(vips(&wanted.drafts))
        });
        if !same_claims {
            self.withdraw(name);
            self.claim(name, &wanted);
        }
        self.stale.insert(name.clone());
        self.entries.entry(name.clone()).or_default().wanted = wanted;
    }

    /// Forgets an object.
    pub fn remove(&mut self, name: &Name) {
        self.withdraw(name);
        self.stale.remove(name);
        if let Some(entry) = self.entries.remove(name) {
            self.gone |= !entry.settled.is_empty() || !entry.problems.is_empty();
        }
    }

    /// Every object there is.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.keys()
    }

    /// Settles what has changed. Whether anything is another one afterwards.
    pub fn settle(&mut self) -> bool {
        let mut stale = std::mem::take(&mut self.stale);
        for vip in std::mem::take(&mut self.contended) {
            let claims = self.claims.get(&vip).into_iter().flatten();
            stale.extend(claims.map(|rank| rank.name.clone()));
        }
        let moved = std::mem::take(&mut self.moved);
        if !moved.is_empty() {
            let concerned = self.entries.iter().filter(|(_, e)| e.sends_to(&moved));
            stale.extend(concerned.map(|(name, _)| name.clone()));
        }
        let mut changed = std::mem::take(&mut self.gone);
        for name in stale {
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            let (settled, mut problems) = self.settled(&name, &entry.wanted);
            problems.extend(self.left_out.get(&name).cloned());
            if let Some(entry) = self.entries.get_mut(&name)
                && (entry.settled != settled || entry.problems != problems)
            {
                (entry.settled, entry.problems) = (settled, problems);
                changed = true;
            }
        }
        // The last one that an engine has room for may be another one now.
        changed | self.leave_out()
    }

    /// The services that stand together, in the order of the names of their objects.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let entries = self.entries.iter();
        entries
            .filter(|(name, _)| !self.left_out.contains_key(*name))
            .flat_map(|(_, entry)| &entry.settled)
    }

    /// What of an object is impossible.
    pub fn problems(&self, name: &Name) -> &[Problem] {
        self.entries.get(name).map_or(&[], |entry| &entry.problems)
    }

    fn claim(&mut self, name: &Name, wanted: &Wanted) {
        let rank = Rank {
            created: wanted.created,
            name: name.clone(),
        };
        for vip in vips(&wanted.drafts) {
            let claims = self.claims.entry(vip).or_default();
            let at = claims.partition_point(|other| *other < rank);
            claims.insert(at, rank.clone());
            if claims.len() > 1 {
                self.contended.insert(vip);
            }
            let count = self.addresses.entry(vip.address()).or_default();
            *count += 1;
            if *count == 1 {
                self.moved.insert(vip.address());
            }
        }
    }

    fn withdraw(&mut self, name: &Name) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        for vip in vips(&entry.wanted.drafts) {
            if let Some(claims) = self.claims.get_mut(&vip) {
                claims.retain(|rank| rank.name != *name);
                if claims.is_empty() {
                    self.claims.remove(&vip);
                } else {
                    self.contended.insert(vip);
                }
            }
            if let Some(count) = self.addresses.get_mut(&vip.address()) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&vip.address());
                    self.moved.insert(vip.address());
                }
            }
        }
    }

    fn settled(&self, name: &Name, wanted: &Wanted) -> (Vec<Arc<Service>>, Vec<Problem>) {
        let mut problems = wanted.problems.clone();
        let mut settled = Vec::with_capacity(wanted.drafts.len());
        for draft in &wanted.drafts {
            let service = &draft.service;
            let taken = service.vips.iter().filter_map(|vip| {
                let owner = &self.claims.get(vip)?.first()?.name;
                (owner != name).then_some((*vip, owner))
            });
            let taken: Vec<(Vip, &Name)> = taken.collect();
            let loops = (service.backends.iter()).any(|b| self.addresses.contains_key(&b.address));
            if taken.is_empty() && !loops {
                settled.push(Arc::clone(service));
                continue;
            }
            let mut rest = Service::clone(service);
            rest.vips.retain(|vip| taken.iter().all(|(t, _)| t != vip));
            let nothing = rest.vips.is_empty();
            problems.extend(taken.iter().map(|(vip, owner)| Problem {
                port: draft.port.filter(|_| nothing),
                reason: "PortTaken",
                message: format!(
                    "{vip} is a port of Service {owner} already, which is the older one; give one of \
                     the two another address or another port"
                ),
            }));
            let is_vip = |address: &IpAddr| self.addresses.contains_key(address);
            let looping = service.backends.iter().map(|b| b.address);
            let looping: Vec<IpAddr> = looping.filter(is_vip).collect();
            rest.backends.retain(|backend| !is_vip(&backend.address));
            problems.extend(loops_to(&looping));
            if !nothing {
                settled.push(Arc::new(rest));
            }
        }
        (settled, problems)
    }

    /// Finds out what an engine has no room for. Whether that has changed.
    fn leave_out(&mut self) -> bool {
        let all = || self.entries.values().map(Entry::size);
        let (vips, backends) = all().fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        let mut left_out = BTreeMap::new();
        if vips > Limits::VIPS || backends > Limits::BACKENDS {
            left_out = self.too_much();
        }
        if left_out == self.left_out {
            return false;
        }
        let before = std::mem::replace(&mut self.left_out, left_out);
        for (name, problem) in &before {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.problems.retain(|p| p != problem);
            }
        }
        for (name, problem) in &self.left_out {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.problems.push(problem.clone());
            }
        }
        true
    }

    fn too_much(&self) -> BTreeMap<Name, Problem> {
        let mut oldest: Vec<_> = self.entries.iter().collect();
        oldest.sort_by_key(|(name, entry)| (entry.wanted.created, *name));
        let (mut vips, mut backends) = (0, 0);
        let mut left_out = BTreeMap::new();
        for (name, entry) in oldest {
            let (own_vips, own_backends) = entry.size();
            let (with, and) = (vips + own_vips, backends + own_backends);
            let (what, most) = if with > Limits::VIPS {
                ("ports", Limits::VIPS)
            } else if and > Limits::BACKENDS {
                ("endpoints", Limits::BACKENDS)
            } else {
                (vips, backends) = (with, and);
                continue;
            };
            let problem = Problem {
                port: None,
                reason: "NoRoom",
                message: format!(
                    "an engine holds {most} {what}, older Services have so many that there is no \
                     room for this one; give it to another balancer by its loadBalancerClass, or \
                     delete what is not needed"
                ),
            };
            left_out.insert(name.clone(), problem);
        }
        left_out
    }
}

impl Entry {
    fn sends_to(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let backends = self.wanted.drafts.iter().flat_map(|d| &d.service.backends);
        backends.into_iter().any(|b| addresses.contains(&b.address))
    }

    /// Its VIPs and backends.
    fn size(&self) -> (usize, usize) {
        let sizes = self.settled.iter();
        sizes.fold((0, 0), |(vips, backends), service| {
            (vips + service.vips.len(), backends + service.backends.len())
        })
    }
}

fn vips(drafts: &[Draft]) -> impl Iterator<Item = Vip> {
    drafts.iter().flat_map(|d| d.service.vips.iter().copied())
}

/// Some endpoints are addresses of Services.
fn loops_to(addresses: &[IpAddr]) -> Option<Problem> {
    let first = addresses.first()?;
    let more = match addresses.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(Problem {
        port: None,
        reason: "EndpointIsAddress",
        message: format!(
            "endpoint {first}{more} is the address of a Service: packets for it would come back to the \
             balancer; name what is behind that Service instead"
        ),
    })
}

#[cfg(test)]
mod tests;
