//! What a change of tables would move.

use super::Ring;
use crate::maglev::Maglev;
use core::net::IpAddr;

/// The share of new flows, 0 to 1, that `after` gives to another backend than `before`.
///
/// Walks one Maglev table and looks the same hash up in the other, so that tables of different
/// sizes compare too. A service without backends gives every flow to nobody.
pub fn ring_share_moved(before: Option<&Ring>, after: Option<&Ring>) -> f64 {
    let size = before
        .map_or(0, Ring::table_entries)
        .max(after.map_or(0, Ring::table_entries));
    if size == 0 {
        return 0.0;
    }
    let moved = (0..u64::from(size))
        .map(|at| middle(at, size))
        .filter(|&hash| owner(before, hash) != owner(after, hash))
        .count();
    moved as f64 / f64::from(size)
}

/// A hash that [`Maglev::lookup`] takes to entry `at` of a table of `size`.
fn middle(at: u64, size: u32) -> u64 {
    (((2 * at + 1) << 31) / u64::from(size)) << 32
}

fn owner(ring: Option<&Ring>, hash: u64) -> Option<IpAddr> {
    let ring = ring?;
    let backend = ring.select(hash)?;
    ring.member(backend).map(|m| m.backend.address)
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
