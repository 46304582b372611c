//! Backends that left their service, for sessions and events that still name them.

use lockstep_core::Tables;
use lockstep_core::tables::{BackendRef, Member, VipRef};
use lockstep_plan::Backend;
use std::collections::VecDeque;
use std::sync::Arc;

/// Backends that are remembered.
const KEPT: usize = 1_024;

/// The backends that left last, the latest at the back.
#[derive(Debug, Clone, Default)]
pub struct Former(VecDeque<(BackendRef, Backend)>);

impl Former {
    /// With those that are gone when other tables come into force.
    pub fn after(&self, before: &Tables, after: &Tables) -> Self {
        let mut kept = self.0.clone();
        for member in members(before).filter(|m| after.hop(m.backend_ref).is_none()) {
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back((member.backend_ref, member.backend.clone()));
        }
        Former(kept)
    }

    /// The one that had this reference last.
    fn get(&self, backend: BackendRef) -> Option<&Backend> {
        let mut latest = self.0.iter().rev();
        latest.find(|(r, _)| *r == backend).map(|(_, b)| b)
    }
}

/// What the references in sessions and events stand for.
#[derive(Debug, Clone)]
pub struct Names {
    /// The tables in force.
    pub tables: Arc<Tables>,
    /// What was in force before them.
    pub former: Arc<Former>,
}

impl Names {
    /// A backend of a VIP's service, also one that left it meanwhile.
    pub fn backend(&self, vip: VipRef, backend: BackendRef) -> Option<&Backend> {
        let ring = self.tables.ring(vip);
        let member = ring.and_then(|r| r.member(backend)).map(|m| &m.backend);
        // The VIP may be gone from a service that stays.
        let elsewhere = || members(&self.tables).find(|m| m.backend_ref == backend);
        member
            .or_else(|| self.former.get(backend))
            .or_else(|| elsewhere().map(|m| &m.backend))
    }
}

fn members(tables: &Tables) -> impl Iterator<Item = &Member> {
    tables.rings().iter().flat_map(|ring| &ring.members)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::agent::fixtures::compile;

    fn names(tables: Tables, former: Former) -> Names {
        Names {
            tables: Arc::new(tables),
            former: Arc::new(former),
        }
    }

    fn refs(tables: &Tables) -> Vec<BackendRef> {
        members(tables).map(|m| m.backend_ref).collect()
    }

    fn vip(names: &Names) -> VipRef {
        let address = "203.0.113.10".parse().unwrap();
        names.tables.vip(address, 80, 6).unwrap()
    }

    fn addresses(third: u8, count: u8) -> Vec<String> {
        (1..=count).map(|n| format!("10.0.{third}.{n}")).collect()
    }

    #[test]
    fn a_backend_has_its_name_also_after_it_left() {
        let two = addresses(0, 2);
        let before = compile(&Tables::default(), 1, &two);
        let refs = refs(&before);
        let after = compile(&before, 2, &two[1..]);
        let former = Former::default().after(&before, &after);
        assert_eq!(former.0.len(), 1, "the one that stays is no former one");
        let back = compile(&after, 3, &two);
        let former = former.after(&after, &back);
        let names = names(back, former);
        for (backend, address) in refs.iter().zip(&two) {
            let found = names.backend(vip(&names), *backend).unwrap();
            assert_eq!(found.name, format!("web-{}", &address[7..]));
            assert_eq!(found.address.to_string(), *address);
        }
    }

    #[test]
    fn the_last_are_remembered_and_no_more() {
        let mut tables = compile(&Tables::default(), 1, &addresses(0, 200));
        let first = refs(&tables)[0];
        let mut former = Former::default();
        for epoch in 2..9 {
            let next = compile(&tables, epoch, &addresses(epoch as u8, 200));
            former = former.after(&tables, &next);
            tables = next;
        }
        assert_eq!(former.0.len(), KEPT);
        let last = former.0.back().unwrap().0;
        let names = names(tables, former);
        assert_eq!(names.backend(vip(&names), first), None);
        let last = names.backend(vip(&names), last).unwrap();
        assert_eq!(last.address.to_string(), "10.0.7.200");
    }
}
