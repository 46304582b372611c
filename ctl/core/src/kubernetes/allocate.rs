//! Addresses for Services: those they have, those they ask for, those that are free.
//!
//! The status of each Service says what it has, and it keeps that: whoever comes later, whatever
//! becomes of the pools. It moves only where it asks for something else itself, and then only once
//! it can have that. Of two that have or want one address the older one gets it.
//!
//! An address is free when nobody has it by this and when no status names it: one that was let go
//! is given again after that was written. So leaders that follow each other, or overlap for a
//! moment, come to the same result.

use super::pools::{Pool, Pools, Range, family};
use super::translate::is_ours;
use super::{Settings, World};
use lockstep_kubernetes::annotations::{ADDRESS_POOL, ALLOCATED_FROM};
use lockstep_kubernetes::facts::{Family, Name, Service};
use lockstep_kubernetes::{annotations_manager, manager};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

mod sharing;
mod wish;

pub use wish::Wish;
use wish::names;

/// The condition that says whether a Service has the addresses it asks for.
pub const ALLOCATED: &str = "lockstep.dev/AddressAllocated";

/// Whether what is of a balancer in a Service's status was written by an installation of this class.
pub fn is_written(service: &Service, settings: &Settings) -> bool {
    service.written_by.contains(&manager(&settings.class))
}

/// Whether the name of its pool was.
pub fn is_annotated(service: &Service, settings: &Settings) -> bool {
    let manager = annotations_manager(&settings.class);
    service.annotated_by.contains(&manager)
}

/// What becomes of every Service of ours. One may be in both: it keeps what it has, and cannot have
/// what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocation {
    /// The addresses of each that has some.
    pub assigned: BTreeMap<Name, Assigned>,
    /// Why one does not have what it asks for.
    pub refused: BTreeMap<Name, Refusal>,
}

/// The addresses of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Of which Service of the name.
    pub uid: String,
    /// One of each family, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// The pool they are from; two where the families come from different ones (`a, b`); empty
    /// where they are from none that is known.
    pub pool: String,
    /// Why it would not get them if it asked now.
    pub kept: Option<Refusal>,
}

/// Why something cannot be had, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub reason: &'static str,
    /// In a sentence, that says what to do.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            reason,
            message: message.into(),
        }
    }
}

/// Decides about all Services of ours.
pub fn allocate(world: &World, settings: &Settings) -> Allocation {
    allocate_after(world, settings, &Allocation::default())
}

/// The same by a leader that has decided before: what it gave last stays with a Service whose status
/// names no address yet. That was written, and is on its way back.
pub fn allocate_after(world: &World, settings: &Settings, last: &Allocation) -> Allocation {
    let pools = Pools::of(world, &settings.class);
    let mut services: Vec<&Service> = world.services.values().map(AsRef::as_ref).collect();
    services.retain(|service| is_ours(service, settings));
    services.sort_by_key(|service| (service.created, &service.name));
    let wishes: Vec<(&Service, Wish, Option<Refusal>)> = services
        .into_iter()
        .map(|service| {
            let (wish, problem) = Wish::of(service);
            (service, wish, problem)
        })
        .collect();
    let mut allocator = Allocator::new(world, &pools);
    for (service, wish, _) in &wishes {
        allocator.adopt(service, wish, settings);
    }
    for (service, wish, _) in &wishes {
        let given = last.assigned.get(&service.name);
        let given = given.filter(|given| given.uid == service.uid && service.ingress.is_empty());
        allocator.keep(service, wish, given.map_or(&[], |given| &given.addresses));
    }
    // Who names an address comes before those to whom any is right.
    let (by_name, any): (Vec<_>, Vec<_>) =
        (wishes.iter()).partition(|(_, wish, _)| !wish.addresses.is_empty());
    for (service, wish, problem) in by_name.into_iter().chain(any) {
        let result = match problem {
            Some(problem) => Err(problem.clone()),
            None => allocator.fulfil(service, wish),
        };
        if let Err(refusal) = result {
            allocator.refused.insert(service.name.clone(), refusal);
        }
    }
    let assigned = wishes.iter().filter_map(|(service, wish, _)| {
        let assigned = allocator.assigned(service, wish)?;
        Some((service.name.clone(), assigned))
    });
    Allocation {
        assigned: assigned.collect(),
        refused: allocator.refused.clone(),
    }
}

/// Addresses by family.
type Addresses = BTreeMap<Family, IpAddr>;

struct Allocator<'a> {
    world: &'a World,
    pools: &'a Pools,
    /// What each Service has by this.
    held: BTreeMap<&'a Name, Addresses>,
    /// Who has each address by this.
    holders: BTreeMap<IpAddr, Vec<&'a Service>>,
    /// Whose status names each address.
    named: BTreeMap<IpAddr, Vec<&'a Service>>,
    /// The addresses that are shared, by their key.
    shared: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Where to look for the next free address: what is before is taken.
    next: BTreeMap<(&'a str, Family), u128>,
    refused: BTreeMap<Name, Refusal>,
}

impl<'a> Allocator<'a> {
    fn new(world: &'a World, pools: &'a Pools) -> Self {
        let mut named: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
        for service in world.services.values() {
            for ingress in &service.ingress {
                named.entry(ingress.address).or_default().push(service);
            }
        }
        Allocator {
            world,
            pools,
            held: BTreeMap::new(),
            holders: BTreeMap::new(),
            named,
            shared: BTreeMap::new(),
            next: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Takes over what a Service has: one address of each family it is to have.
    fn adopt(&mut self, service: &'a Service, wish: &Wish, settings: &Settings) {
        for ingress in &service.ingress {
            let address = ingress.address;
            let family = family(address);
            let has = (self.held.get(&service.name)).is_some_and(|held| held.contains_key(&family));
            // What another balancer has left behind is no address of ours.
            let ours = is_written(service, settings) || self.pools.with(address).next().is_some();
            let others = self.holders.get(&address).into_iter().flatten();
            let alone = sharing::problem(service, others.copied()).is_none();
            if wish.families.contains(&family) && !has && ours && alone {
                self.take(service, wish, address);
            }
        }
    }

    /// Leaves a Service what was given to it a moment ago, while nobody else has it and a pool does.
    fn keep(&mut self, service: &'a Service, wish: &Wish, given: &[IpAddr]) {
        for address in given {
            let family = family(*address);
            let has = (self.held.get(&service.name)).is_some_and(|held| held.contains_key(&family));
            let free = self.taken(service, *address).is_none();
            let pooled = self.pools.with(*address).next().is_some();
            if wish.families.contains(&family) && !has && free && pooled {
                self.take(service, wish, *address);
            }
        }
    }

    fn take(&mut self, service: &'a Service, wish: &Wish, address: IpAddr) {
        let held = self.held.entry(&service.name).or_default();
        if let Some(before) = held.insert(family(address), address)
            && before != address
            && let Some(holders) = self.holders.get_mut(&before)
        {
            holders.retain(|other| other.name != service.name);
        }
        let holders = self.holders.entry(address).or_default();
        if holders.iter().all(|other| other.name != service.name) {
            holders.push(service);
        }
        if let Some(key) = &wish.key {
            self.shared.entry(key.clone()).or_default().insert(address);
        }
    }

    /// Gives a Service what it lacks of what it asks for: everything that it has to have, or nothing.
    fn fulfil(&mut self, service: &'a Service, wish: &Wish) -> Result<(), Refusal> {
        let held = self.held.get(&service.name).cloned().unwrap_or_default();
        let mut found = Addresses::new();
        for (family, address) in &wish.addresses {
            if held.get(family) != Some(address) {
                self.may_have(service, wish, *address)?;
            }
            found.insert(*family, *address);
        }
        let named = wish
            .pool
            .as_ref()
            .map(|name| self.named_pool(service, name));
        let named = named.transpose()?;
        let mut lacking = Vec::new();
        for family in &wish.families {
            let kept = held.get(family);
            let from = |pool: &Pool, address| {
                pool.has(address)
                    || pools_of(self.pools, service, address).contains(&pool.name.as_str())
            };
            let right = |address: &&IpAddr| named.is_none_or(|pool| from(pool, **address));
            match kept.filter(right) {
                _ if found.contains_key(family) => {}
                Some(address) => {
                    found.insert(*family, *address);
                }
                None => lacking.push(*family),
            }
        }
        if !lacking.is_empty() {
            let pools = match named {
                Some(pool) => vec![pool],
                None => self.pools_for(service, found.values().copied()),
            };
            let given = self.choose(service, wish, &pools, &lacking);
            let complete = given.len() == lacking.len();
            found.extend(given);
            if found.is_empty() || wish.all && !complete {
                return Err(self.why_none(wish, &pools, &lacking));
            }
        }
        for address in found.into_values() {
            self.take(service, wish, address);
        }
        Ok(())
    }

    /// Whether a Service may have an address that it asks for by name.
    fn may_have(&self, service: &Service, wish: &Wish, address: IpAddr) -> Result<(), Refusal> {
        let mut pools = self.pools.with(address);
        let Some(pool) = pools.next() else {
            return Err(Refusal::new(
                "OutsideEveryPool",
                format!("no AddressPool has {address}; add it to one, or ask for another address"),
            ));
        };
        if let Some((other, range)) = pool.dispute(address) {
            return Err(Refusal::new(
                "PoolConflict",
                format!(
                    "{address} is in AddressPools {} and {other}; take {range} out of one of them",
                    pool.name
                ),
            ));
        }
        if let Some(name) = wish.pool.as_ref().filter(|name| **name != pool.name) {
            return Err(Refusal::new(
                "InvalidRequest",
                format!(
                    "{address} is in AddressPool {}, and the annotation asks for {name}; change \
                     one of the annotations",
                    pool.name
                ),
            ));
        }
        self.admits(service, pool)?;
        if pool.avoids(address) {
            return Err(Refusal::new(
                "AddressAvoided",
                format!(
                    "{address} is never given: AddressPool {} has avoidBuggyIPs; ask for an address \
                     that does not end in .0 or .255",
                    pool.name
                ),
            ));
        }
        match self.taken(service, address) {
            None => Ok(()),
            Some(problem) => Err(Refusal::new(
                "AddressTaken",
                format!("{address} {problem}; ask for another address, or wait for this one"),
            )),
        }
    }

    fn admits(&self, service: &Service, pool: &Pool) -> Result<(), Refusal> {
        if pool.admits(service, self.world) {
            return Ok(());
        }
        let name = &pool.name;
        let message = match &pool.selector_problem {
            Some(problem) => format!("AddressPool {name} gives nothing: {problem}"),
            None => format!(
                "AddressPool {name} has selectors that leave this Service out; change its \
                 serviceSelector, or ask for another pool"
            ),
        };
        Err(Refusal::new("PoolNotAllowed", message))
    }

    /// The pool of the annotation.
    fn named_pool(&self, service: &Service, name: &str) -> Result<&'a Pool, Refusal> {
        let Some(pool) = self.pools.get(name) else {
            let all: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
            let message = match all[..] {
                [] => format!("there is no AddressPool {name}, and no other one: create it"),
                [..] => format!(
                    "there is no AddressPool {name}; create it, or ask for one of: {}",
                    list(&all)
                ),
            };
            return Err(Refusal::new("PoolNotFound", message));
        };
        self.admits(service, pool)?;
        Ok(pool)
    }

    /// The pools that give to a Service by themselves: that of its other address first, then those
    /// that are meant for it, then by name.
    fn pools_for(
        &self,
        service: &Service,
        has: impl Iterator<Item = IpAddr> + Clone,
    ) -> Vec<&'a Pool> {
        let fits = |pool: &&Pool| pool.auto_assign && pool.admits(service, self.world);
        let mut pools: Vec<&Pool> = self.pools.iter().filter(fits).collect();
        pools.sort_by_key(|pool| {
            let same = has.clone().any(|address| pool.has(address));
            (!same, !pool.is_dedicated(), &pool.name)
        });
        pools
    }

    /// Addresses of the families that are lacking: all from one pool where that has them.
    fn choose(
        &mut self,
        service: &Service,
        wish: &Wish,
        pools: &[&'a Pool],
        lacking: &[Family],
    ) -> Addresses {
        let mut parts = Addresses::new();
        for pool in pools {
            let mut found = Addresses::new();
            for family in lacking {
                if let Some(address) = self.pick(service, wish, pool, *family) {
                    found.insert(*family, address);
                }
            }
            if found.len() == lacking.len() {
                return found;
            }
            for (family, address) in found {
                parts.entry(family).or_insert(address);
            }
        }
        parts
    }

    /// An address of a pool: one that is shared under the Service's key, else a free one.
    fn pick(
        &mut self,
        service: &Service,
        wish: &Wish,
        pool: &'a Pool,
        of: Family,
    ) -> Option<IpAddr> {
        let shared = wish.key.as_ref().and_then(|key| self.shared.get(key));
        let shared = shared.into_iter().flatten().copied().find(|address| {
            let gives = family(*address) == of
                && pool.has(*address)
                && pool.dispute(*address).is_none()
                && !pool.avoids(*address);
            // Not one that is shared with nobody any more: it is as good as any free one.
            let is_held = (self.holders.get(address)).is_some_and(|holders| !holders.is_empty());
            gives && is_held && self.taken(service, *address).is_none()
        });
        if shared.is_some() {
            return shared;
        }
        let next = (pool.name.as_str(), of);
        let at = self.next.get(&next).copied().unwrap_or_default();
        let ranges = pool.undisputed.iter().filter(|range| range.family() == of);
        let mut free = ranges.flat_map(|range: &Range| range.from(at));
        let found = free.find(|(_, address)| {
            !pool.avoids(*address)
                && !self.named.contains_key(address)
                && self.holders.get(address).is_none_or(Vec::is_empty)
        });
        // Nothing becomes free while this is decided, but what was let go, and a status names that.
        let (number, address) = found.unzip();
        self.next.insert(next, number.unwrap_or(u128::MAX));
        address
    }

    /// Who has an address, or had it until now, that a Service cannot share it with.
    fn taken(&self, service: &Service, address: IpAddr) -> Option<String> {
        let holders = self.holders.get(&address).into_iter().flatten();
        let named = self.named.get(&address).into_iter().flatten();
        sharing::problem(service, holders.chain(named).copied())
    }

    /// Why there is no address for a Service.
    fn why_none(&self, wish: &Wish, pools: &[&Pool], lacking: &[Family]) -> Refusal {
        let names_of = |pools: &[&Pool]| {
            let all: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
            list(&all)
        };
        let both = match wish.all && wish.families.len() > 1 {
            true => " (it has RequireDualStack: both families, or none)",
            false => "",
        };
        if self.pools.is_empty() {
            return Refusal::new(
                "NoPool",
                "there is no AddressPool; create one with addresses for Services",
            );
        }
        if pools.is_empty() {
            let broken = self.pools.iter().find_map(|pool| {
                let problem = pool.selector_problem.as_ref()?;
                Some(format!(
                    "; AddressPool {} gives nothing: {problem}",
                    pool.name
                ))
            });
            return Refusal::new(
                "NoPool",
                format!(
                    "no AddressPool gives addresses to this Service by itself; let a \
                     serviceSelector select it, set autoAssign, or name a pool with the annotation \
                     {}{}",
                    ADDRESS_POOL,
                    broken.unwrap_or_default()
                ),
            );
        }
        let of = |family: &Family| -> Vec<&Pool> {
            let with = pools.iter().filter(|pool| pool.has_family(*family));
            with.copied().collect()
        };
        if let Some(family) = lacking.iter().find(|family| of(family).is_empty()) {
            let (pools, family) = (names_of(pools), names(&[*family]));
            return Refusal::new(
                "NoAddressOfFamily",
                format!(
                    "AddressPool {pools} has no {family} addresses{both}; add some, or change the \
                     Service's ipFamilyPolicy"
                ),
            );
        }
        let disputed = match pools.iter().any(|pool| !pool.overlaps.is_empty()) {
            true => ", apart from those that another pool has too",
            false => "",
        };
        let (pools, families) = (names_of(pools), names(lacking));
        Refusal::new(
            "PoolExhausted",
            format!(
                "AddressPool {pools} has no free {families} address left{disputed}{both}; add \
                 addresses, or delete Services that have some"
            ),
        )
    }

    /// What a Service has now.
    fn assigned(&self, service: &Service, wish: &Wish) -> Option<Assigned> {
        let held = self.held.get(&service.name)?;
        let addresses = wish.families.iter().filter_map(|family| held.get(family));
        let addresses: Vec<IpAddr> = addresses.copied().collect();
        let mut pools: Vec<&str> = Vec::new();
        for address in &addresses {
            for name in pools_of(self.pools, service, *address) {
                if !pools.contains(&name) {
                    pools.push(name);
                }
            }
        }
        let kept = addresses
            .iter()
            .find_map(|address| self.kept(service, *address));
        (!addresses.is_empty()).then(|| Assigned {
            uid: service.uid.clone(),
            pool: pools.join(SEPARATOR),
            addresses,
            kept,
        })
    }

    /// Why a Service would not get an address that it has.
    fn kept(&self, service: &Service, address: IpAddr) -> Option<Refusal> {
        let pool = self.pools.with(address).next();
        let message = match pool {
            None => format!(
                "no AddressPool has {address} any more; it is kept. Add it to a pool again, or \
                 delete the Service to let it go"
            ),
            Some(pool) if !pool.admits(service, self.world) => format!(
                "AddressPool {} has selectors that leave this Service out now; {address} is kept. \
                 Select the Service again, or delete it to let the address go",
                pool.name
            ),
            Some(_) => return None,
        };
        Some(Refusal::new("Kept", message))
    }
}

/// Between the names of two pools.
const SEPARATOR: &str = ", ";

/// The pools that an address of a Service counts as being from: the one that has it, of several the
/// one that it was taken from; where none has it (any more) those it is said to be from. The one that
/// the Service asks for it stays from: it would move otherwise when the pools change.
pub fn pools_of<'a>(pools: &'a Pools, service: &'a Service, address: IpAddr) -> Vec<&'a str> {
    let text = |key| service.annotations.get(key).map(|text| text.trim());
    let said: Vec<&str> = (text(ALLOCATED_FROM).iter())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if let Some(asked) = text(ADDRESS_POOL).filter(|name| said.contains(name)) {
        return vec![asked];
    }
    let with: Vec<&str> = pools.with(address).map(|pool| pool.name.as_str()).collect();
    match (with.first(), with.iter().find(|name| said.contains(name))) {
        (_, Some(name)) | (Some(name), None) => vec![name],
        (None, None) => said,
    }
}

/// Names in a sentence that does not grow without end.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    match names.len() {
        0..=SHOWN => names.join(", "),
        more => format!("{} and {} more", names[..SHOWN].join(", "), more - SHOWN),
    }
}

#[cfg(test)]
mod tests;
