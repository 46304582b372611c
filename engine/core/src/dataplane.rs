//! The one visible loop: what happens to a burst of packets.

mod age;
mod approach;
mod forward;
mod guard;
mod known;
mod nat;
mod owner;
mod paths;
mod reason;
mod restore;
mod tracked;
mod unusual;

pub(crate) use forward::admit;
pub use known::KnownFlow;
pub(crate) use nat::HALF_OPEN;
pub use nat::NatConfig;
use owner::Spreading;
pub(crate) use owner::session_share;
pub use owner::{Spread, SpreadBy};
pub(crate) use reason::reason;
pub use restore::Restored;
use unusual::{Outcome, Unusual};

use crate::BURST;
use crate::counters::{Counters, VIP_SLOTS};
use crate::flows::{Entry, FlowTable, PathId, Probe, Slot};
use crate::schedule::Picker;
use crate::tables::{BackendRef, PortId, Tables, VipRef};
use crate::time::{Micros, Seconds};
use crate::tracking::{self, Segment, Transition};
use age::{fate, sweep};
use alloc::boxed::Box;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use guard::Guards;
use lockstep_plan::{DropReason, Protocol, Unserved};
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6, HashSeed, Headers};
use nat::Nat;
use tracked::Tracked;

/// What is to happen to a packet.
///
/// Four bytes, so that it is moved in one register: in pieces its loads would wait for its stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the frame, as it is now, from this interface.
    Forward {
        /// The interface.
        port: PortId,
        /// The frame's length, in bytes.
        length: u16,
    },
    /// Let go of it; the reason is counted already.
    Drop(DropReason),
    /// It belongs to a session, the frame is as it came: give it to the replicator.
    Local,
}

const _: () = assert!(size_of::<Verdict>() == 4);

/// The sizes of a dataplane, fixed for its life.
#[derive(Debug, Clone, Default)]
pub struct DataplaneConfig {
    /// IPv4 flows it remembers.
    pub flows_v4: usize,
    /// IPv6 flows it remembers.
    pub flows_v6: usize,
    /// Seed of the flow tables' hash: random and secret, so that nobody outside can choose
    /// addresses that fall into one bucket.
    pub seed: u64,
    /// What packets of services that rewrite are rewritten with.
    pub nat: NatConfig,
}

/// A worker's share of the dataplane: its flows, its counters and the tables in force.
pub struct Dataplane {
    tables: Arc<Tables>,
    flows: Flows,
    spread: Spreading,
    /// The burst under way, kept between the passes over it.
    work: Box<ArrayVec<Work, BURST>>,
}

/// What changes with every packet.
struct Flows {
    v4: FlowTable<FlowKey4>,
    v6: FlowTable<FlowKey6>,
    counters: Arc<Counters>,
    nat: Nat,
    picker: Picker,
    seed: HashSeed,
    guards: Box<Guards>,
    /// Identification of outer IPv4 headers whose packet may be fragmented.
    identification: u16,
    unusual: Unusual,
}

/// The moment of a burst, in the units that need it.
#[derive(Debug, Clone, Copy)]
struct Now {
    micros: Micros,
    seconds: Seconds,
}

/// Why no backend is chosen for a packet.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// It goes to a session.
    Session,
    /// It is an answer of a flow in the table.
    Answer(Slot),
    /// It is answered with a SYN cookie, or may acknowledge one; the backend for a flow of it.
    Cookie(BackendRef),
    /// Its service has no backend, and its sender is told.
    Unserved,
    Drop(DropReason),
}

/// A packet between two passes.
struct Work {
    /// Its place in the burst.
    frame: u8,
    /// The interface it came in by.
    port: PortId,
    headers: Headers,
    probe: Probe,
    located: Option<Slot>,
}

impl Dataplane {
    /// A dataplane that forwards nothing yet. All its memory is taken here.
    pub fn new(config: &DataplaneConfig) -> Self {
        Dataplane {
            tables: Arc::new(Tables::default()),
            flows: Flows {
                v4: FlowTable::new(config.flows_v4),
                v6: FlowTable::new(config.flows_v6),
                counters: Arc::new(Counters::new()),
                nat: Nat::new(&config.nat, HashSeed::new(config.seed)),
                picker: Picker::new(VIP_SLOTS, config.seed),
                seed: HashSeed::new(config.seed),
                guards: Box::default(),
                identification: 0,
                unusual: Unusual::new(),
            },
            spread: Spreading::default(),
            work: Box::new(ArrayVec::new()),
        }
    }

    /// The counters, for whoever reads them.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.flows.counters
    }

    /// The tables in force.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The IPv4 flows.
    pub fn flows_v4(&self) -> &FlowTable<FlowKey4> {
        &self.flows.v4
    }

    /// The IPv6 flows.
    pub fn flows_v6(&self) -> &FlowTable<FlowKey6> {
        &self.flows.v6
    }

    /// Puts tables in force and returns the ones that were, for somebody else to free.
    pub fn adopt(&mut self, tables: Arc<Tables>) -> Arc<Tables> {
        let (vips, backends) = tables.changed_since(&self.tables);
        let counters = &self.flows.counters;
        counters.reset_vips(vips);
        counters.reset_backends(backends);
        counters.epoch.set(tables.epoch());
        self.spread.adopt(&tables);
        core::mem::replace(&mut self.tables, tables)
    }

    /// Decides on a burst of at most [`BURST`] frames and rewrites those that go on, in place.
    /// `frames[i]` came in by `ports[i]`, and `verdicts[i]` becomes the verdict on it.
    pub fn process<F: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        now: Micros,
        ports: &[PortId],
        frames: &mut [F],
        verdicts: &mut [Verdict],
    ) {
        let now = Now {
            micros: now,
            seconds: Seconds::at(now),
        };
        let Dataplane {
            tables,
            flows,
            work,
            ..
        } = self;
        let tables: &Tables = tables;
        flows.classify(tables, now, ports, frames, verdicts, work);
        let answers = if tables.answers().is_empty() {
            flows.locate(tables, work);
            0
        } else {
            flows.locate_both(tables, work)
        };
        for item in work.iter() {
            let at = usize::from(item.frame);
            let frame = frames[at].as_mut();
            if answers >> at & 1 != 0
                && let Some(verdict) = flows.answer_any(tables, now, item, frame)
            {
                verdicts[at] = verdict;
                continue;
            }
            verdicts[at] = flows.settle_any(tables, now, item, frame);
        }
    }

    /// Counts a frame that was to be forwarded and could not be given to its interface.
    pub fn count_unsent(&self, reason: DropReason) {
        self.flows.drop(VipRef::UNKNOWN, reason);
    }

    /// Work between bursts: moves the clock's hand over `buckets` buckets of each flow table and
    /// publishes how full they are.
    pub fn tick(&mut self, now: Seconds, buckets: usize) {
        let Dataplane { tables, flows, .. } = self;
        let Flows {
            v4,
            v6,
            counters,
            nat,
            unusual,
            ..
        } = flows;
        unusual.tick(now);
        sweep(v4, nat, tables, counters, now, buckets);
        sweep(v6, nat, tables, counters, now, buckets);
        counters.flows_v4.set(v4.len() as u64);
        counters.flows_v6.set(v6.len() as u64);
        counters.spliced.set((v4.splices() + v6.splices()) as u64);
    }
}

impl Flows {
    /// First pass: parse every frame and hash its flow. What the parser refuses is decided on here.
    fn classify<F: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        tables: &Tables,
        now: Now,
        ports: &[PortId],
        frames: &mut [F],
        verdicts: &mut [Verdict],
        work: &mut ArrayVec<Work, BURST>,
    ) {
        work.clear();
        for (at, (frame, &port)) in frames.iter_mut().zip(ports).take(BURST).enumerate() {
            // By reference: moving the headers out right behind their writing stalls the reads.
            match &lockstep_wire::parse(frame.as_ref()) {
                Ok(headers) => work.push(self.work(at as u8, port, headers)),
                Err(error) => match self.unusual(tables, now, port, frame.as_mut(), *error) {
                    Outcome::Verdict(verdict) => verdicts[at] = verdict,
                    Outcome::Packet(headers) => work.push(self.work(at as u8, port, &headers)),
                },
            }
        }
    }

    #[inline(always)]
    fn work(&self, frame: u8, port: PortId, headers: &Headers) -> Work {
        let probe = match &headers.key {
            FlowKey::V4(key) => self.v4.probe(key.hash(&self.seed)),
            FlowKey::V6(key) => self.v6.probe(key.hash(&self.seed)),
        };
        Work {
            frame,
            port,
            headers: *headers,
            probe,
            located: None,
        }
    }

    /// Second pass: find the entries of all flows by their tags, then bring all of them into the
    /// cache at once.
    fn locate(&self, tables: &Tables, work: &mut ArrayVec<Work, BURST>) {
        for item in work.iter_mut() {
            item.located = self.located(item);
        }
        self.touch(tables, work);
    }

    #[inline(always)]
    fn located(&self, item: &Work) -> Option<Slot> {
        match &item.headers.key {
            FlowKey::V4(_) => self.v4.locate(item.probe),
            FlowKey::V6(_) => self.v6.locate(item.probe),
        }
    }

    #[inline(always)]
    fn touch(&self, tables: &Tables, work: &ArrayVec<Work, BURST>) {
        let mut any_new = false;
        for item in work {
            match (&item.headers.key, item.located) {
                (FlowKey::V4(_), Some(slot)) => self.v4.touch(slot),
                (FlowKey::V6(_), Some(slot)) => self.v6.touch(slot),
                (FlowKey::V4(_) | FlowKey::V6(_), None) => any_new = true,
            }
        }
        if any_new {
            self.approach(tables, work);
        }
    }

    /// Third pass: one packet of either IP version.
    #[inline(always)]
    fn settle_any(&mut self, tables: &Tables, now: Now, item: &Work, frame: &mut [u8]) -> Verdict {
        match &item.headers.key {
            FlowKey::V4(key) => self.settle(tables, now, key, item, frame),
            FlowKey::V6(key) => self.settle(tables, now, key, item, frame),
        }
    }

    /// One packet, from its flow to its verdict.
    #[inline]
    fn settle<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let (vip, backend, slot) = match self.known(tables, now, key, item) {
            Some((vip, backend, slot, is_guarded)) => {
                if is_guarded {
                    let (client, segment) = (key.source().0, segment(&item.headers));
                    if let Err(reason) = self.guard_packet(tables, now, vip, client, segment) {
                        return self.drop(vip, reason);
                    }
                }
                (vip, backend, Some(slot))
            }
            None => match self.admit_new(tables, now, key, item) {
                (vip, Ok((backend, slot))) => (vip, backend, slot),
                (_, Err(Refusal::Answer(slot))) => {
                    return self.answer(tables, now, slot, key, item, frame);
                }
                (vip, Err(Refusal::Cookie(backend))) => {
                    return self.cookie(tables, now, (vip, backend), key, item, frame);
                }
                (vip, Err(Refusal::Unserved)) => return self.unserved(now, vip, item, frame),
                (vip, Err(refusal)) => return self.refuse(vip, refusal, &item.headers),
            },
        };
        let Some(hop) = tables.hop(backend) else {
            return self.drop(vip, DropReason::NoBackend);
        };
        if let Some(slot) = slot
            && hop.delivery.translates()
        {
            return self.translate(tables, now, (vip, slot), key, item, frame);
        }
        match self.forward(hop, vip, backend, &item.headers, frame) {
            Ok(verdict) => verdict,
            Err(DropReason::TooBig) => self.too_big(tables, now, (vip, backend), item, frame),
            Err(reason) => self.drop(vip, reason),
        }
    }

    /// The VIP and the backend of a packet whose flow is in the table, and whether the VIP's guard
    /// has a say on it.
    #[inline]
    fn known<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
    ) -> Option<(VipRef, BackendRef, Slot, bool)> {
        let slot = K::table(self).find(key, item.probe, item.located)?;
        let entry = K::table(self).entry_mut(slot);
        let (vip, backend) = (entry.vip, entry.backend);
        let vip_slot = tables.vip_slot(vip);
        let lives = vip_slot.is_some() && tables.hop(backend).is_some();
        match tracking::next(entry.state, segment(&item.headers)) {
            Transition::To(state) if lives => {
                // Written only when it differs: an untouched line needs no way back to memory.
                if entry.seen != now.seconds {
                    entry.seen = now.seconds;
                }
                if entry.state != state {
                    let before = K::table(self).turn(slot, state);
                    self.counters.backends[backend.slot()].turn(before, state);
                }
                let is_guarded = vip_slot.is_some_and(|vip| vip.guarded);
                Some((vip, backend, slot, is_guarded))
            }
            Transition::To(_) | Transition::Restart => {
                self.forget::<K>(tables, slot);
                None
            }
        }
    }

    /// Takes an entry out whose backend or VIP is gone, or whose connection is opened anew.
    #[cold]
    fn forget<K: Tracked>(&mut self, tables: &Tables, slot: Slot) {
        let Entry {
            backend,
            vip,
            path,
            state,
            ..
        } = *K::table(self).entry(slot);
        K::table(self).remove(slot);
        self.nat.paths.release(path);
        if tables.hop(backend).is_some() {
            self.counters.backends[backend.slot()].leave(state);
        } else {
            self.counters.rehashed.add(1);
            if tables.vip_slot(vip).is_some() {
                self.counters.vips[vip.slot()].moved.add(1);
            }
        }
    }

    /// A packet of no flow in the table: chooses a backend and remembers it, or says what becomes
    /// of the packet otherwise. Sessions have no entry there, so that all of theirs come by here.
    #[inline(never)]
    fn admit_new<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
    ) -> (VipRef, Result<(BackendRef, Option<Slot>), Refusal>) {
        let (address, port, protocol) = key.destination();
        let Some(vip) = tables.vip(address, port, protocol) else {
            return (VipRef::UNKNOWN, Err(self.of_no_vip(tables, key)));
        };
        let ring = tables.ring(vip);
        let segment = segment(&item.headers);
        if let Some(ring) = ring
            && let Err(reason) = self.guard_new(ring, now, key.source().0, segment)
        {
            return (vip, Err(Refusal::Drop(reason)));
        }
        if ring.is_some_and(|r| r.replicate.is_some()) {
            return (vip, Err(Refusal::Session));
        }
        let opens = matches!(segment, Segment::Open | Segment::Datagram);
        let chosen = ring.and_then(|ring| {
            let hash = key.selection_hash(ring.scheduler);
            let picked = match tables.backend_before(ring, hash, segment) {
                Some(before) => before,
                None => self.picker.pick(ring, vip, hash, opens, &self.counters)?,
            };
            Some((ring, hash, picked))
        });
        let Some((ring, hash, mut backend)) = chosen else {
            let refusal = match ring.map(|ring| ring.unserved) {
                Some(Unserved::Reset) => Refusal::Unserved,
                Some(Unserved::Drop) | None => Refusal::Drop(DropReason::NoBackend),
            };
            return (vip, Err(refusal));
        };
        if tables
            .hop(backend)
            .is_some_and(|hop| hop.delivery.translates())
        {
            if self.meets_cookie::<K>(tables, now, backend, &item.headers) {
                return (vip, Err(Refusal::Cookie(backend)));
            }
            let admitted = self.admit_translated(tables, now, key, item, vip, backend);
            let admitted = admitted.map(|(backend, slot)| (backend, Some(slot)));
            return (vip, admitted.map_err(Refusal::Drop));
        }
        // A FIN or RST out of nowhere ends nothing that is worth remembering.
        if matches!(segment, Segment::Fin | Segment::Reset | Segment::Stray) {
            return (vip, Ok((backend, None)));
        }
        let entry = Entry {
            key: *key,
            backend,
            vip,
            seen: now.seconds,
            state: tracking::first(segment),
            pool: 0,
            path: PathId::NONE,
            port: 0,
        };
        let slot = self.remember(tables, item.probe, entry);
        if slot.is_none() {
            self.counters.stateless.add(1);
            self.counters.vips[vip.slot()].stateless.add(1);
            // The same one for its next packets, which find no entry. What the ring before has
            // chosen stays.
            if opens {
                backend = ring.select(hash).unwrap_or(backend);
            }
        }
        (vip, Ok((backend, slot)))
    }

    /// What becomes of a packet for no VIP.
    fn of_no_vip<K: Tracked>(&self, tables: &Tables, key: &K) -> Refusal {
        let (address, port, protocol) = key.destination();
        if tables.is_session(address, port, protocol) {
            return Refusal::Session;
        }
        let (source, source_port, _) = key.source();
        if tables.is_answer(source, source_port, protocol) {
            let of = self.answered(tables, key);
            return of.map_or(Refusal::Drop(DropReason::NoFlow), Refusal::Answer);
        }
        Refusal::Drop(if tables.is_engine_address(address) {
            DropReason::NoSession
        } else {
            DropReason::NoVip
        })
    }

    /// The verdict on a packet that no backend is chosen for.
    #[cold]
    #[inline(never)]
    fn refuse(&self, vip: VipRef, refusal: Refusal, headers: &Headers) -> Verdict {
        match refusal {
            Refusal::Drop(reason) => self.drop(vip, reason),
            // These are seen to instead of being refused, see `settle`.
            Refusal::Answer(_) | Refusal::Cookie(_) => self.drop(vip, DropReason::NoFlow),
            Refusal::Unserved => self.drop(vip, DropReason::NoBackend),
            Refusal::Session => {
                if vip != VipRef::UNKNOWN {
                    let counters = &self.counters.vips[vip.slot()];
                    counters.packets.add(1);
                    counters.bytes.add(u64::from(headers.length));
                }
                Verdict::Local
            }
        }
    }

    /// Puts a new flow into its table; `None` when it is full of flows that may not be evicted.
    fn remember<K: Tracked>(
        &mut self,
        tables: &Tables,
        probe: Probe,
        entry: Entry<K>,
    ) -> Option<Slot> {
        let inserted = K::table(self).insert(probe, entry, |e| fate(tables, e, entry.seen));
        let (slot, forgotten) = inserted.ok()?;
        let counters = &self.counters;
        if let Some(old) = forgotten {
            counters.evicted.add(1);
            if tables.hop(old.backend).is_some() {
                counters.backends[old.backend.slot()].leave(old.state);
            }
            self.nat.paths.release(old.path);
        }
        counters.backends[entry.backend.slot()].enter(entry.state);
        Some(slot)
    }

    #[inline]
    fn drop(&self, vip: VipRef, reason: DropReason) -> Verdict {
        self.counters.vips[vip.slot()].drop(reason);
        Verdict::Drop(reason)
    }
}

#[inline]
fn segment(headers: &Headers) -> Segment {
    let protocol = match headers.key {
        FlowKey::V4(key) => key.protocol,
        FlowKey::V6(key) => key.protocol,
    };
    if protocol == Protocol::Tcp.number() {
        Segment::of_tcp(headers.tcp)
    } else {
        Segment::Datagram
    }
}

#[cfg(test)]
mod tests;
