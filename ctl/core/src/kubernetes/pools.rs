//! Pools: the addresses they have, and which of them contradict each other.
//!
//! What is wrong in a pool takes nothing from the rest of it: an entry can only add addresses, so one
//! that cannot be read adds none, and the others mean the same without it. An address that two pools
//! have is given by neither: which of the two the operator meant nobody knows.

use super::World;
use super::selector;
use lockstep_kubernetes::facts::{Family, Service};
use lockstep_kubernetes::resources::{AddressPool, Selector};
use std::collections::BTreeMap;
use std::net::IpAddr;

mod range;

pub use range::{Range, family};

/// Entries of a pool that count. Its schema allows no more.
pub const MAX_ENTRIES: usize = 256;

/// All pools.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pools: BTreeMap<String, Pool>,
}

/// A pool.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses, ascending and apart from each other.
    pub ranges: Vec<Range>,
    /// Those that no other pool has.
    pub undisputed: Vec<Range>,
    /// What other pools have too.
    pub overlaps: Vec<(String, Range)>,
    /// Whether Services that name no pool get its addresses.
    pub auto_assign: bool,
    /// Whether addresses that end in .0 or .255 are left out.
    pub avoid_buggy_ips: bool,
    /// What is wrong with its entries.
    pub problems: Vec<String>,
    /// What is wrong with its selectors: it gives nothing then.
    pub selector_problem: Option<String>,
    selector: Option<Selector>,
}

impl Pools {
    /// Those of the cluster that are for Services of this class.
    pub fn of(world: &World, class: &str) -> Self {
        let all = world.pools.iter();
        let ours = all.filter(|(_, pool)| {
            let named = pool.spec.load_balancer_class.as_deref();
            named.is_none_or(|named| named == class)
        });
        let mut pools = Pools {
            pools: ours
                .map(|(name, object)| (name.clone(), Pool::new(name, object)))
                .collect(),
        };
        pools.compare();
        pools
    }

    /// Finds what several pools have.
    fn compare(&mut self) {
        let ranges = |(name, pool): (&String, &Pool)| -> Vec<(Range, String)> {
            pool.ranges.iter().map(|r| (*r, name.clone())).collect()
        };
        let mut all: Vec<(Range, String)> = self.pools.iter().flat_map(ranges).collect();
        all.sort_unstable();
        let mut open: Vec<&(Range, String)> = Vec::new();
        for entry in &all {
            open.retain(|(before, _)| before.meets(&entry.0));
            for (range, name) in &open {
                let Some(both) = range.both(&entry.0) else {
                    continue;
                };
                for (pool, other) in [(name, &entry.1), (&entry.1, name)] {
                    if let Some(pool) = self.pools.get_mut(pool) {
                        pool.overlaps.push((other.clone(), both));
                    }
                }
            }
            open.push(entry);
        }
        for pool in self.pools.values_mut() {
            pool.overlaps.sort_unstable();
            let disputed: Vec<Range> = pool.overlaps.iter().map(|(_, range)| *range).collect();
            pool.undisputed = range::without(&pool.ranges, &range::joined(disputed));
        }
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The pools that have an address: one, unless they are in conflict.
    pub fn with(&self, address: IpAddr) -> impl Iterator<Item = &Pool> {
        self.iter().filter(move |pool| pool.has(address))
    }
}

impl Pool {
    fn new(name: &str, object: &AddressPool) -> Self {
        let spec = &object.spec;
        let (mut ranges, mut problems) = (Vec::new(), Vec::new());
        for text in spec.addresses.iter().take(MAX_ENTRIES) {
            match text.parse() {
                Ok(range) => ranges.push(range),
                Err(problem) => problems.push(problem),
            }
        }
        if spec.addresses.len() > MAX_ENTRIES {
            problems.push(format!(
                "only the first {MAX_ENTRIES} entries count; make a second pool of the others"
            ));
        }
        Pool {
            name: name.to_owned(),
            ranges: range::joined(ranges),
            undisputed: Vec::new(),
            overlaps: Vec::new(),
            auto_assign: spec.auto_assign,
            avoid_buggy_ips: spec.avoid_buggy_ips,
            problems,
            selector_problem: spec.service_selector.as_ref().and_then(selector_problem),
            selector: spec.service_selector.clone(),
        }
    }

    /// Whether it has an address.
    pub fn has(&self, address: IpAddr) -> bool {
        range::contain(&self.ranges, address)
    }

    /// Whether it has addresses of a family.
    pub fn has_family(&self, family: Family) -> bool {
        self.ranges.iter().any(|range| range.family() == family)
    }

    /// The pool that has an address too, and what else they both have.
    pub fn dispute(&self, address: IpAddr) -> Option<&(String, Range)> {
        let mut disputes = self.overlaps.iter();
        disputes.find(|(_, range)| range.contains(address))
    }

    /// Whether an address is never given because some networks drop it.
    pub fn avoids(&self, address: IpAddr) -> bool {
        self.avoid_buggy_ips && range::is_buggy(address)
    }

    /// Whether it is meant for some Services only: those get its addresses rather than others'.
    pub fn is_dedicated(&self) -> bool {
        self.selector.is_some()
    }

    /// Whether a Service may have its addresses. A namespace is selected by its name or by its
    /// labels, and the Service by its own labels as well.
    pub fn admits(&self, service: &Service, world: &World) -> bool {
        let Some(wanted) = &self.selector else {
            return true;
        };
        if self.selector_problem.is_some() {
            return false;
        }
        let namespace = service.name.namespace.as_ref();
        let by_name = wanted.namespaces.iter().any(|name| name == namespace);
        let by_labels = || {
            let selector = wanted.namespace_selector.as_ref();
            selector.is_some_and(|selector| {
                (world.namespaces.get(namespace))
                    .is_some_and(|found| selector::matches(selector, &found.labels))
            })
        };
        let any = wanted.namespaces.is_empty() && wanted.namespace_selector.is_none();
        let labels = wanted.service_selector.as_ref();
        (any || by_name || by_labels())
            && labels.is_none_or(|selector| selector::matches(selector, &service.labels))
    }

    /// How many addresses it can give in all, those that Services have among them.
    pub fn size(&self) -> u128 {
        let sizes = self.undisputed.iter().map(|range| {
            let buggy = match self.avoid_buggy_ips {
                true => range.buggy(),
                false => 0,
            };
            range.size() - buggy
        });
        sizes.fold(0, u128::saturating_add)
    }
}

fn selector_problem(wanted: &Selector) -> Option<String> {
    let namespaces = wanted.namespace_selector.as_ref();
    let services = wanted.service_selector.as_ref();
    let named = [
        ("namespaceSelector", namespaces),
        ("serviceSelector", services),
    ];
    named.into_iter().find_map(|(name, selector)| {
        let problem = selector::problem(selector?)?;
        Some(format!("serviceSelector.{name}: {problem}"))
    })
}

#[cfg(test)]
mod tests;
