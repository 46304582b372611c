//! When entries are forgotten.

use super::nat::Nat;
use crate::counters::Counters;
use crate::flows::{Entry, Fate, FlowTable, Key};
use crate::tables::Tables;
use crate::time::Seconds;

/// Seconds that a closed flow is kept which began with a cookie, where these get many: in a flood
/// every connection does, and there may be fewer of them than of others. Retransmissions of the
/// last segments come sooner.
const CLOSED: u32 = 2;
/// Places of the table of splices that are looked at with each bucket.
const PLACES: usize = 8;

/// Forgets what is over in some buckets of a table.
pub(super) fn sweep<K: Key>(
    flows: &mut FlowTable<K>,
    nat: &mut Nat,
    tables: &Tables,
    counters: &Counters,
    now: Seconds,
    buckets: usize,
) {
    let mut forgotten = |entry: &Entry<K>| {
        nat.paths.release(entry.path);
        if tables.hop(entry.backend).is_some() {
            counters.backends[entry.backend.slot()].leave(entry.state);
        }
    };
    flows.sweep(buckets, |entry| fate(tables, entry, now), &mut forgotten);
    let is_over = |entry: &Entry<K>| entry.state.is_closed() && now.since(entry.seen) >= CLOSED;
    flows.sweep_splices(buckets.saturating_mul(PLACES), is_over, forgotten);
}

/// What is to become of an entry when room is needed or time has passed.
pub(super) fn fate<K>(tables: &Tables, entry: &Entry<K>, now: Seconds) -> Fate {
    let (Some(ring), Some(_)) = (tables.ring(entry.vip), tables.hop(entry.backend)) else {
        return Fate::Expired;
    };
    if now.since(entry.seen) >= entry.state.idle_limit(&ring.idle) {
        Fate::Expired
    } else if entry.state.gives_way(ring.mode.translates()) {
        Fate::GivesWay
    } else {
        Fate::Keep
    }
}
