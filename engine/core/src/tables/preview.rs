//! What a change of tables would move.

use super::Ring;
use crate::maglev::Maglev;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

/// The share of new flows, 0 to 1, that `after` gives to another backend than `before`.
///
/// Walks one Maglev table and looks the same hash up in the other, so that tables of different
/// sizes compare too. A service without backends gives every flow to nobody.
pub fn ring_share_moved(before: Option<&Ring>, after: Option<&Ring>) -> f64 {
    let size = before
        .map_or(0, Ring::table_entries)
        .max(after.map_or(0, Ring::table_entries));
    // A table is carried over where the same backends are in it: most changes touch few services.
    if size == 0 || same_table(before, after) {
        return 0.0;
    }
    let (before, after) = (Owners::of(before), Owners::of(after));
    let moved = (0..u64::from(size))
        .map(|at| middle(at, size))
        .filter(|&hash| before.owner(hash) != after.owner(hash))
        .count();
    moved as f64 / f64::from(size)
}

fn same_table(before: Option<&Ring>, after: Option<&Ring>) -> bool {
    let table = |ring: Option<&Ring>| ring.and_then(|r| r.maglev.clone());
    match (table(before), table(after)) {
        (Some(before), Some(after)) => Arc::ptr_eq(&before, &after),
        (None, _) | (_, None) => false,
    }
}

/// A hash that [`Maglev::lookup`] takes to entry `at` of a table of `size`.
fn middle(at: u64, size: u32) -> u64 {
    (((2 * at + 1) << 31) / u64::from(size)) << 32
}

/// A Maglev table with the addresses of its backends, as it numbers them.
struct Owners<'a> {
    table: Option<&'a Maglev>,
    addresses: Vec<Option<IpAddr>>,
}

impl<'a> Owners<'a> {
    fn of(ring: Option<&'a Ring>) -> Self {
        let members = ring.map_or(&[][..], |r| &r.members);
        let by_slot: BTreeMap<usize, IpAddr> = members
            .iter()
            .map(|m| (m.backend_ref.slot(), m.backend.address))
            .collect();
        let active = ring.map_or(&[][..], |r| &r.active);
        Owners {
            table: ring.and_then(|r| r.maglev.as_deref()),
            addresses: active
                .iter()
                .map(|b| by_slot.get(&b.slot()).copied())
                .collect(),
        }
    }

    fn owner(&self, hash: u64) -> Option<IpAddr> {
        let index = self.table?.lookup(hash);
        self.addresses.get(usize::from(index)).copied().flatten()
    }
}

/// The share of a Maglev table, 0 to 1, that a number of its entries is.
impl Ring {
    /// The share of new flows a member gets, 0 to 1.
    pub fn share(&self, member: &super::Member) -> f64 {
        match self.maglev.as_deref().map(Maglev::entries) {
            Some(entries) => f64::from(member.entries) / entries.len() as f64,
            None => 0.0,
        }
    }
}
