//! Packets of services that rewrite: to the backend, and its answers back to the client.
//!
//! A flow has two keys. *Outside* it is what the client sends: from the client to the VIP; that
//! is the key of its entry. *Inside* it is what the backend sees: from the client, or in full NAT
//! from an address and port of the engine, to the backend. It follows from the entry and the
//! tables. Packets are rewritten from the one to the other, answers from the reverse of the second
//! to the reverse of the first, and two flows may not have the same key inside.

mod admission;
mod cookies;

use super::forward::admit;
use super::paths::Paths;
use super::tracked::Tracked;
use super::{Flows, Now, Verdict, Work, segment};
use crate::flows::{Entry, PathId, Place, Slot};
use crate::tables::{Delivery, Hop, PortId, Tables, VipRef};
use crate::{BURST, tracking};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
pub(crate) use cookies::HALF_OPEN;
use cookies::SynCookies;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use lockstep_plan::{DropReason, Protocol};
use lockstep_wire::{FlowKey, HashSeed, Headers, LinkHeader, TcpFlags, ipv4, ipv6, nat, tcp};

/// What a dataplane rewrites with, fixed for its life.
#[derive(Debug, Clone, Default)]
pub struct NatConfig {
    /// IPv4 addresses of the engine that full NAT takes as sources; at most 256 are used.
    pub pool_v4: Vec<Ipv4Addr>,
    /// The same for IPv6.
    pub pool_v6: Vec<Ipv6Addr>,
    /// The ports it takes there: this worker's share, which no other has.
    pub ports: Option<RangeInclusive<u16>>,
    /// The longest IP packet that each interface takes, by [`PortId`]; any length for those that
    /// are not named.
    pub mtus: Vec<u16>,
    /// What SYN cookies are made with: random and secret.
    pub cookie_key: [u64; 2],
}

/// What is kept for rewriting besides the flows.
pub(super) struct Nat {
    /// The ways back to clients.
    pub(super) paths: Paths,
    pub(super) pool_v4: Vec<IpAddr>,
    pub(super) pool_v6: Vec<IpAddr>,
    pub(super) cookies: SynCookies,
    ports: Option<RangeInclusive<u16>>,
    mtus: Vec<u16>,
}

/// As many addresses as an entry's number of one tells apart.
const POOL: usize = 256;

/// One bit for each frame of a burst.
const _: () = assert!(BURST <= u64::BITS as usize);

impl Nat {
    pub(super) fn new(config: &NatConfig, seed: HashSeed) -> Self {
        Nat {
            paths: Paths::new(seed),
            pool_v4: config
                .pool_v4
                .iter()
                .take(POOL)
                .map(|&a| a.into())
                .collect(),
            pool_v6: config
                .pool_v6
                .iter()
                .take(POOL)
                .map(|&a| a.into())
                .collect(),
            cookies: SynCookies::new(config.cookie_key),
            ports: config.ports.clone(),
            mtus: config.mtus.clone(),
        }
    }

    /// Whether full NAT takes this address as a source.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.pool_v4.contains(&address),
            IpAddr::V6(_) => self.pool_v6.contains(&address),
        }
    }

    /// Whose share of all workers' ports a port is in, if this worker's is `own`: all shares are
    /// of one size and side by side.
    pub(super) fn share_of(&self, port: u16, own: usize, shares: usize) -> Option<usize> {
        let ports = self.ports.as_ref()?;
        let first = usize::from(*ports.start()).checked_sub(own * ports.len())?;
        let share = usize::from(port)
            .checked_sub(first)?
            .checked_div(ports.len())?;
        (share < shares).then_some(share)
    }

    /// The longest IP packet that an interface takes.
    #[inline]
    pub(super) fn mtu(&self, port: PortId) -> u16 {
        self.mtus
            .get(usize::from(port.0))
            .copied()
            .unwrap_or(u16::MAX)
    }
}

impl Flows {
    /// The second pass where anything is rewritten: clients' packets are looked for by their own
    /// keys, what may be an answer by the answers' keys. Returns a bit for each frame of which the
    /// flow was found by the latter.
    #[inline(never)]
    pub(super) fn locate_both(&self, tables: &Tables, work: &mut ArrayVec<Work, BURST>) -> u64 {
        let mut places: ArrayVec<(u8, Place), BURST> = ArrayVec::new();
        for (at, item) in work.iter_mut().enumerate() {
            let place = if tables.answers().may_be(&item.headers.key) {
                match &item.headers.key {
                    FlowKey::V4(_) => self.v4.locate_answer(item.probe),
                    FlowKey::V6(_) => self.v6.locate_answer(item.probe),
                }
            } else {
                None
            };
            match place {
                Some(place) => places.push((at as u8, place)),
                None => item.located = self.located(item),
            }
        }
        // Reads that depend on each other are in loops of their own, as many as can be under way.
        for &(at, place) in &places {
            match &work[usize::from(at)].headers.key {
                FlowKey::V4(_) => self.v4.touch_answer(place),
                FlowKey::V6(_) => self.v6.touch_answer(place),
            }
        }
        let mut answers = 0;
        for &(at, place) in &places {
            let item = &mut work[usize::from(at)];
            item.located = Some(match &item.headers.key {
                FlowKey::V4(_) => self.v4.answered_at(place),
                FlowKey::V6(_) => self.v6.answered_at(place),
            });
            answers |= 1 << item.frame;
        }
        self.touch(tables, work);
        answers
    }

    /// The verdict on a packet that may be an answer of the flow it was located for; `None` when
    /// it is none.
    #[inline]
    pub(super) fn answer_any(
        &mut self,
        tables: &Tables,
        now: Now,
        item: &Work,
        frame: &mut [u8],
    ) -> Option<Verdict> {
        match &item.headers.key {
            FlowKey::V4(key) => self.answer_located(tables, now, key, item, frame),
            FlowKey::V6(key) => self.answer_located(tables, now, key, item, frame),
        }
    }

    #[inline(always)]
    fn answer_located<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Option<Verdict> {
        let located = item
            .located
            .filter(|&slot| self.is_answer_of(tables, slot, key));
        let slot = located.or_else(|| self.answered(tables, key))?;
        Some(self.answer(tables, now, slot, key, item, frame))
    }

    /// An answer on its way to the client.
    #[inline(never)]
    pub(super) fn answer<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        slot: Slot,
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let entry = K::table(self).entry_mut(slot);
        let state = tracking::answered(entry.state, segment(&item.headers));
        let before = entry.state;
        if entry.seen != now.seconds {
            entry.seen = now.seconds;
        }
        let (vip, path, to, backend) = (entry.vip, entry.path, entry.key.turned(), entry.backend);
        if before != state {
            K::table(self).turn(slot, state);
        }
        let hop = tables.hop(backend);
        if hop.is_some() {
            let counters = &self.counters.backends[backend.slot()];
            counters.answered();
            if before != state {
                counters.turn(before, state);
                // What is half open is closed by a RST only.
                if before.is_half_open() && state.is_closed() {
                    counters.resets.add(1);
                }
            }
        }
        let spliced = K::table_ref(self).splice(slot);
        if let Some(splice) = spliced
            && (!splice.is_open || is_syn(&item.headers))
        {
            return self.answer_spliced::<K>((vip, slot), splice, item, frame);
        }
        let limit = hop.and_then(|hop| hop.route.ok()).map(|r| r.mtu);
        let sent = self.send_back(path, key, &to, limit, &item.headers, frame);
        let sent = match &spliced {
            None => sent,
            Some(splice) => sent.and_then(|verdict| {
                cookies::shift_sent(verdict, &item.headers, frame, &cookies::to_client(splice))
            }),
        };
        match sent {
            Ok(verdict) => {
                if is_syn(&item.headers) {
                    self.nat.cookies.learn(backend, verdict, item, frame);
                }
                let counters = &self.counters.vips[vip.slot()];
                counters.packets.add(1);
                counters.bytes.add(u64::from(item.headers.length));
                verdict
            }
            Err(DropReason::TooBig) => {
                let mtu = self.nat.paths.get(path).map(|path| self.nat.mtu(path.port));
                self.answer_too_big(now, vip, mtu, item, frame)
            }
            Err(reason) => self.drop(vip, reason),
        }
    }

    #[inline(always)]
    fn send_back<K: Tracked>(
        &self,
        path: PathId,
        from: &K,
        to: &K,
        backends_mtu: Option<u16>,
        headers: &Headers,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let path = self.nat.paths.get(path).ok_or(DropReason::PathsFull)?;
        let mtu = self.nat.mtu(path.port);
        if headers.length > mtu {
            return Err(DropReason::TooBig);
        }
        let length = rewrite(frame, headers, &path.link, from, to)?;
        if is_syn(headers) {
            let limit = mtu.min(backends_mtu.unwrap_or(u16::MAX));
            clamp(frame, headers, path.link.len(), limit);
        }
        Ok(Verdict::Forward {
            port: path.port,
            length,
        })
    }

    /// A packet of a known flow on its way to the backend.
    #[inline(never)]
    pub(super) fn translate<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, slot): (VipRef, Slot),
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let spliced = K::table_ref(self).splice(slot);
        if let Some(splice) = &spliced
            && !splice.is_open
            && !item.headers.tcp.contains(TcpFlags::RST)
        {
            return self.open_again::<K>(tables, now, (vip, slot), splice, item, frame);
        }
        let sent = self.try_translate(tables, now, (vip, slot), key, item, frame);
        let sent = match &spliced {
            None => sent,
            Some(splice) => sent.and_then(|verdict| {
                cookies::shift_sent(verdict, &item.headers, frame, &cookies::to_backend(splice))
            }),
        };
        match sent {
            Ok(verdict) => verdict,
            Err(DropReason::TooBig) => {
                let backend = K::table(self).entry(slot).backend;
                self.too_big(tables, now, (vip, backend), item, frame)
            }
            Err(reason) => self.drop(vip, reason),
        }
    }

    #[inline(always)]
    fn try_translate<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, slot): (VipRef, Slot),
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let headers = &item.headers;
        let entry = K::table(self).entry(slot);
        let (backend, path, pool, port) = (entry.backend, entry.path, entry.pool, entry.port);
        let hop = tables.hop(backend).ok_or(DropReason::NoBackend)?;
        let route = admit(hop, headers)?;
        let to = self.inside_of(hop, key, pool, port);
        let to = to.ok_or(DropReason::NoBackend)?;
        let back = nat::way_back(frame, headers).map_err(|_| DropReason::HeaderChain)?;
        if !self.nat.paths.is(path, item.port, &back) {
            self.follow::<K>(slot, path, item.port, &back)?;
        }
        let length = rewrite(frame, headers, &route.link, key, &to)?;
        if is_syn(headers) {
            let limit = route.mtu.min(self.nat.mtu(item.port));
            clamp(frame, headers, route.link.len(), limit);
            if path == PathId::NONE {
                self.asked::<K>(now, slot);
            }
        }
        self.count(vip, backend, headers);
        Ok(Verdict::Forward {
            port: route.port,
            length,
        })
    }

    /// The client's packets come another way than before, or the first one came: answers leave by
    /// that from now on.
    #[cold]
    #[inline(never)]
    fn follow<K: Tracked>(
        &mut self,
        slot: Slot,
        before: PathId,
        port: PortId,
        back: &LinkHeader,
    ) -> Result<(), DropReason> {
        let path = self
            .nat
            .paths
            .learn(port, back)
            .ok_or(DropReason::PathsFull)?;
        self.nat.paths.release(before);
        K::table(self).entry_mut(slot).path = path;
        Ok(())
    }

    /// The first packet of a flow has gone to its backend: of a connection, one that wants an
    /// answer. Not counted before: what the engine could not send says nothing of the backend.
    fn asked<K: Tracked>(&self, now: Now, slot: Slot) {
        let entry = K::table_ref(self).entry(slot);
        if entry.state.is_half_open() {
            self.counters.backends[entry.backend.slot()].asked(now.micros);
        }
    }

    /// The flow that packets with this key are answers of; only one whose VIP and backend are
    /// still there.
    pub(super) fn answered<K: Tracked>(&self, tables: &Tables, answer: &K) -> Option<Slot> {
        let table = K::table_ref(self);
        let probe = table.probe(answer.table_hash(&self.seed));
        table
            .answered(probe)
            .find(|&slot| self.is_answer_of(tables, slot, answer))
    }

    /// Whether a packet with this key is an answer of the flow at a slot.
    #[inline]
    fn is_answer_of<K: Tracked>(&self, tables: &Tables, slot: Slot, answer: &K) -> bool {
        let entry = K::table_ref(self).entry(slot);
        self.inside(tables, entry)
            .is_some_and(|inside| inside.turned() == *answer)
            && tables.vip_slot(entry.vip).is_some()
    }

    /// A flow as its backend sees it; `None` when it is not rewritten, or its backend is gone.
    #[inline]
    pub(super) fn inside<K: Tracked>(&self, tables: &Tables, entry: &Entry<K>) -> Option<K> {
        self.inside_of(
            tables.hop(entry.backend)?,
            &entry.key,
            entry.pool,
            entry.port,
        )
    }

    #[inline]
    fn inside_of<K: Tracked>(&self, hop: &Hop, key: &K, pool: u8, port: u16) -> Option<K> {
        match &hop.delivery {
            Delivery::Nat(to) => key.translated(to, None),
            Delivery::FullNat(to) => {
                let address = K::pool(&self.nat).get(usize::from(pool))?;
                key.translated(to, Some((*address, port)))
            }
            Delivery::Tunnel(_) | Delivery::Session => None,
        }
    }
}

/// Rewrites a packet and the link header in front of it; the frame's new length.
#[inline(always)]
fn rewrite<K: Tracked>(
    frame: &mut [u8],
    headers: &Headers,
    link: &LinkHeader,
    from: &K,
    to: &K,
) -> Result<u16, DropReason> {
    let length = nat::place(frame, headers, link).ok_or(DropReason::NoRoom)?;
    // Offset 0 is no transport header: a later fragment.
    let transport = headers
        .transport
        .checked_sub(headers.network)
        .map(usize::from);
    let packet = frame
        .get_mut(link.len()..length)
        .ok_or(DropReason::NoRoom)?;
    K::rewrite(packet, transport, from, to).ok_or(DropReason::Truncated)?;
    u16::try_from(length).map_err(|_| DropReason::TooBig)
}

#[inline]
fn is_syn(headers: &Headers) -> bool {
    headers.tcp.contains(TcpFlags::SYN) && headers.key.protocol() == Protocol::Tcp.number()
}

/// Lowers what a SYN says of the largest segment to what both ways take: neither end knows the
/// other's way, and fragments and "too big" are slower than saying it at once.
#[cold]
fn clamp(frame: &mut [u8], headers: &Headers, network: usize, mtu: u16) {
    let ip = match headers.key {
        FlowKey::V4(_) => ipv4::HEADER_LENGTH,
        FlowKey::V6(_) => ipv6::HEADER_LENGTH,
    };
    let limit = mtu.saturating_sub((ip + tcp::HEADER_LENGTH) as u16);
    let at = network + usize::from(headers.transport.saturating_sub(headers.network));
    let end = network + usize::from(headers.length);
    if let Some(segment) = frame.get_mut(at..end) {
        tcp::clamp_mss(segment, limit);
    }
}

#[cfg(test)]
mod tests;
