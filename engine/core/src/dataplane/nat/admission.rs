//! New flows of services that rewrite: each has its entry, and a key inside that no other has.

use super::super::tracked::Tracked;
use super::super::{Flows, Now, Work, fate, segment};
use crate::flows::{Entry, Fate, PathId, Slot};
use crate::tables::{BackendRef, Delivery, Ring, Tables, Translation, VipRef};
use crate::tracking::{self, Segment};
use lockstep_plan::DropReason;
use lockstep_wire::TcpFlags;

/// Backends that are tried for a flow which the chosen one could not tell from another.
const BACKENDS: usize = 4;
/// Ports that are tried for a flow. With nine tenths of them in use, one flow in a thousand finds
/// none among so many.
const PORTS: usize = 64;

/// A place for a flow at a backend.
pub(in super::super) struct Place<K> {
    /// Its key inside.
    pub(in super::super) inside: K,
    pool: u8,
    port: u16,
    /// A closed flow that has the place now.
    closed: Option<Slot>,
}

impl Flows {
    /// Remembers a new flow that is to be rewritten, at `chosen` or, when that has no place for
    /// it, at another backend.
    pub(in super::super) fn admit_translated<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
        vip: VipRef,
        chosen: BackendRef,
    ) -> Result<(BackendRef, Slot), DropReason> {
        // The second segment of a connection begins none. Were it to be remembered, it would take
        // a port without ever meeting a cookie.
        let is_opening = segment(&item.headers) == Segment::Open;
        if is_opening && item.headers.tcp.contains(TcpFlags::ACK) {
            return Err(DropReason::NoFlow);
        }
        let ring = tables.ring(vip).ok_or(DropReason::NoBackend)?;
        let (backend, place) = self.place(tables, now, key, item, ring, chosen)?;
        if let Some(slot) = place.closed {
            self.forget::<K>(tables, slot);
        }
        let entry = Entry {
            key: *key,
            backend,
            vip,
            seen: now.seconds,
            state: tracking::first(segment(&item.headers)),
            pool: place.pool,
            // Learned when its first packet goes on.
            path: PathId::NONE,
            port: place.port,
        };
        let answers = place.inside.turned().table_hash(&self.seed);
        let answers = K::table(self).probe(answers);
        let slot = self
            .remember(tables, item.probe, entry)
            .ok_or(DropReason::FlowsFull)?;
        if K::table(self).link(answers, slot).is_ok() {
            return Ok((backend, slot));
        }
        // As in the flow table, what is half open or over makes way: in a flood nearly all is.
        let table = K::table_ref(self);
        let gives_way = |&other: &Slot| {
            other != slot && fate(tables, table.entry(other), now.seconds) != Fate::Keep
        };
        let other = table.crowd(answers).find(gives_way);
        if let Some(other) = other {
            self.evict::<K>(tables, other);
            if K::table(self).link(answers, slot).is_ok() {
                return Ok((backend, slot));
            }
        }
        self.forget::<K>(tables, slot);
        Err(DropReason::FlowsFull)
    }

    /// Takes a flow out for a new one.
    fn evict<K: Tracked>(&mut self, tables: &Tables, slot: Slot) {
        let Entry {
            backend,
            path,
            state,
            ..
        } = *K::table(self).entry(slot);
        K::table(self).remove(slot);
        self.nat.paths.release(path);
        self.counters.evicted.add(1);
        if tables.hop(backend).is_some() {
            self.counters.backends[backend.slot()].leave(state);
        }
    }

    /// A backend that can tell the flow from its others.
    fn place<K: Tracked>(
        &self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
        ring: &Ring,
        chosen: BackendRef,
    ) -> Result<(BackendRef, Place<K>), DropReason> {
        let opens = matches!(segment(&item.headers), Segment::Open | Segment::Datagram);
        let mut reason = DropReason::NoBackend;
        for backend in core::iter::once(chosen)
            .chain(ring.others(chosen))
            .take(BACKENDS)
        {
            let Some(hop) = tables.hop(backend) else {
                continue;
            };
            let place = match &hop.delivery {
                Delivery::Nat(to) => {
                    reason = DropReason::NatClash;
                    self.own_place(tables, now, key, to)
                }
                // The port it had is not known any more: only its first packet may choose one.
                Delivery::FullNat(_) if !opens => return Err(DropReason::NoFlow),
                Delivery::FullNat(to) => {
                    reason = DropReason::PortsFull;
                    self.free_port(tables, now, key, to)
                }
                Delivery::Tunnel(_) | Delivery::Session => None,
            };
            if let Some(place) = place {
                return Ok((backend, place));
            }
        }
        Err(reason)
    }

    /// The client's own address and port, unless it has a flow from there to the backend already
    /// by another VIP.
    fn own_place<K: Tracked>(
        &self,
        tables: &Tables,
        now: Now,
        key: &K,
        to: &Translation,
    ) -> Option<Place<K>> {
        let inside = key.translated(to, None)?;
        let closed = self.holder(tables, now, &inside).ok()?;
        Some(Place {
            inside,
            pool: 0,
            port: 0,
            closed,
        })
    }

    /// An address and a port of the engine that no flow has to the backend. Where none is free
    /// among those that are looked at, one whose flow is closed.
    fn free_port<K: Tracked>(
        &self,
        tables: &Tables,
        now: Now,
        key: &K,
        to: &Translation,
    ) -> Option<Place<K>> {
        let mut closed = None;
        for place in self.sources(key, to)? {
            match self.holder(tables, now, &place.inside) {
                Ok(None) => return Some(place),
                Ok(slot) if closed.is_none() => {
                    closed = Some(Place {
                        closed: slot,
                        ..place
                    });
                }
                Ok(Some(_)) | Err(Lives) => {}
            }
        }
        closed
    }

    /// The addresses and ports of the engine that are tried for a flow, in this order.
    pub(in super::super) fn sources<K: Tracked>(
        &self,
        key: &K,
        to: &Translation,
    ) -> Option<impl Iterator<Item = Place<K>>> {
        let ports = self.nat.ports.as_ref()?;
        let pool = K::pool(&self.nat);
        let (first, count) = (*ports.start(), ports.len());
        let places = count * pool.len();
        let hash = key.table_hash(&self.seed);
        let mut next = (hash >> 32) as usize % places.max(1);
        // Far apart, so that full stretches are left at once; of a few ports, every one.
        let step = if places > PORTS {
            1 + hash as u32 as usize % (places - 1)
        } else {
            1
        };
        let place = move |_| {
            let at = next;
            next = (at + step) % places;
            let (pool_at, port) = (at / count, first + (at % count) as u16);
            Some(Place {
                inside: key.translated(to, Some((pool[pool_at], port)))?,
                pool: pool_at as u8,
                port,
                closed: None,
            })
        };
        Some((0..places.min(PORTS)).map_while(place))
    }

    /// The flow that has a key inside: none, or a closed one that makes way.
    fn holder<K: Tracked>(
        &self,
        tables: &Tables,
        now: Now,
        inside: &K,
    ) -> Result<Option<Slot>, Lives> {
        let Some(slot) = self.answered(tables, &inside.turned()) else {
            return Ok(None);
        };
        let entry = K::table_ref(self).entry(slot);
        let over = entry.state.is_closed() || fate(tables, entry, now.seconds) == Fate::Expired;
        if over { Ok(Some(slot)) } else { Err(Lives) }
    }
}

/// A live flow has the key.
struct Lives;
