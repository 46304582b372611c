//! SYN cookies for full NAT: under pressure the engine answers SYNs itself and keeps nothing, and
//! opens the backend's connection when the client has shown that it is there (RFC 4987 section 3.6).
//!
//! ```text
//! client                      engine                          backend
//!   SYN ──────────────────────▶ (keeps nothing)
//!   ◀─────────── SYN-ACK, seq = cookie, window 0
//!   ACK of the cookie ────────▶ entry, port ───────────────────▶ SYN, seq = the client's
//!                               notes both numbers ◀─────────── SYN-ACK
//!   ◀───── ACK, window, a byte that the client has already
//!   ACK, data ────────────────▶ acknowledgments − difference ──▶
//!   ◀─────────────── sequence numbers + difference ◀──────────── data
//! ```
//!
//! Each packet becomes one packet: nothing is made that nobody sent, and there are no timers. The
//! window of 0 keeps the client from sending what nobody would take yet, as in Linux's SYNPROXY.
//! What opens it is at the same time what the client has to acknowledge (a segment of one byte from
//! before its window, the probe of RFC 9293 section 3.8.4), and that acknowledgment is the one that
//! the backend waits for, also where the backend is the first to speak. Where the client speaks
//! first, whatever of this is lost a retransmission of one of the two ends brings again: the
//! client's probe of the window stands for its ACK and sends the SYN again, the backend's SYN-ACK
//! opens the window again. A client that only listens probes nothing: without its ACK, or the SYN
//! that is made of it, it waits in vain.
//!
//! Windows: the cookie has no room for what was promised, so the promise is always the same scale,
//! and window fields move by what the backend's is different. Timestamps are not offered: the
//! numbers in them would have to be remembered as well.

use super::super::forward::admit;
use super::super::tracked::Tracked;
use super::super::{Dataplane, Flows, Now, Verdict, Work};
use super::is_syn;
use crate::counters::BACKEND_SLOTS;
use crate::flows::{PathId, Slot, Splice};
use crate::handshake::cookie::{Cookies, LIFETIME, Promise, options_of};
use crate::handshake::segment::{Bare, Segment, SynOptions};
use crate::tables::{BackendRef, Delivery, Tables, VipRef};
use crate::time::Micros;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use lockstep_plan::DropReason;
use lockstep_wire::splice::{Shift, rescaled, shift};
use lockstep_wire::tcp::HEADER_LENGTH;
use lockstep_wire::{FlowKey, Headers, LinkHeader, TcpFlags, ethernet, ipv4, ipv6, nat, protocol};

/// Half-open flows of a backend in one worker from which on its SYNs are answered with cookies.
/// Linux's own limit for a socket is 4,096 at most as it comes (`net.core.somaxconn`).
pub(crate) const HALF_OPEN: u64 = 1_024;
/// In a small table, one flow in so many.
const SHARE: u64 = 16;

/// The window scale that clients are promised: what Linux announces with its own limits, so that
/// most backends' windows stay as they are.
const SCALE: u8 = 7;

/// The longest frame that is made of a shorter one: a tagged SYN over IPv6 with its options.
const LONGEST: usize = 18 + ipv6::HEADER_LENGTH + HEADER_LENGTH + 12;

/// What a dataplane knows for cookies.
pub(in super::super) struct SynCookies {
    cookies: Cookies,
    /// When the last one was sent.
    last: Option<Micros>,
    /// By a backend's slot, the largest segment that was announced from there last, and by whom:
    /// of the slot's next owner nothing is known yet.
    sizes: Vec<(BackendRef, u16)>,
}

impl SynCookies {
    /// `key` is secret.
    pub(super) fn new(key: [u64; 2]) -> Self {
        SynCookies {
            cookies: Cookies::new(key),
            last: None,
            sizes: vec![(BackendRef::NONE, 0); BACKEND_SLOTS],
        }
    }

    /// Whether a cookie that was sent may still come back.
    fn are_out(&self, now: Micros) -> bool {
        self.last.is_some_and(|at| now.since(at) < LIFETIME)
    }

    /// What a client was promised, if a segment acknowledges a cookie: the ACK of the handshake,
    /// data, or where that ACK was lost the probe of the window of 0. Linux sends those from one
    /// before the number that would be next and without a byte (`tcp_xmit_probe_skb`).
    fn promise(&self, now: Now, segment: &Segment) -> Option<Promise> {
        let check = |segment: &Segment| self.cookies.check(now.micros, segment);
        check(segment).or_else(|| {
            let next = Segment {
                sequence: segment.sequence.wrapping_add(1),
                ..*segment
            };
            check(&next).filter(|_| segment.payload == 0)
        })
    }

    /// The segment size that a backend's clients can be promised.
    fn size(&self, backend: BackendRef) -> Option<u16> {
        let &(owner, size) = self.sizes.get(backend.slot())?;
        (owner == backend && size > 0).then_some(size)
    }

    /// A SYN-ACK on its way to a client says what its backend takes.
    #[cold]
    pub(super) fn learn(
        &mut self,
        backend: BackendRef,
        verdict: Verdict,
        item: &Work,
        frame: &[u8],
    ) {
        let said = sent_segment(verdict, &item.headers).and_then(|at| frame.get(at));
        let size = said.and_then(|segment| SynOptions::read(segment).mss);
        if let (Some(size), Some(place)) = (size, self.sizes.get_mut(backend.slot())) {
            *place = (backend, size);
        }
    }
}

impl Dataplane {
    /// How long frames have to be that are given to [`process`](Dataplane::process), with zeros
    /// behind shorter packets as Ethernet pads them: while cookies are out, or connections that
    /// began with one are there, an ACK without options becomes a SYN with some. Else 0.
    pub fn least_frame(&self, now: Micros) -> usize {
        let flows = &self.flows;
        let splices = flows.v4.splices() + flows.v6.splices();
        match flows.nat.cookies.are_out(now) || splices > 0 {
            true => LONGEST,
            false => 0,
        }
    }
}

impl Flows {
    /// Whether a packet of no flow is answered with a cookie, or may answer one.
    pub(in super::super) fn meets_cookie<K: Tracked>(
        &self,
        tables: &Tables,
        now: Now,
        backend: BackendRef,
        headers: &Headers,
    ) -> bool {
        let is_full_nat = tables
            .hop(backend)
            .is_some_and(|hop| matches!(hop.delivery, Delivery::FullNat(_)));
        if !is_full_nat || headers.key.protocol() != protocol::TCP {
            return false;
        }
        if is_opening(headers.tcp) {
            // Without a size nothing can be promised, and without room there nothing kept.
            return self.is_pressed::<K>(backend)
                && self.nat.cookies.size(backend).is_some()
                && K::table_ref(self).has_splices();
        }
        let others = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
        headers.tcp.contains(TcpFlags::ACK)
            && !headers.tcp.intersects(others)
            && self.nat.cookies.are_out(now.micros)
    }

    /// Whether a backend has more half-open flows than clients with good intentions have under way,
    /// or the table is so full that one more may cost another flow its entry.
    fn is_pressed<K: Tracked>(&self, backend: BackendRef) -> bool {
        let table = K::table_ref(self);
        let capacity = table.capacity() as u64;
        let half_open = self.counters.backends[backend.slot()].half_open.get();
        half_open >= HALF_OPEN.min(capacity / SHARE).max(1) || table.len() as u64 >= capacity
    }

    /// A SYN becomes a SYN-ACK with a cookie; the ACK of a cookie becomes a SYN to the backend.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn cookie<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, backend): (VipRef, BackendRef),
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let done = match read(&item.headers, frame) {
            None => Err(DropReason::BadTransportChecksum),
            Some(segment) if segment.is_opening() => {
                self.answer_syn(tables, now, backend, &segment, item, frame)
            }
            Some(segment) => {
                let done = self.accept(tables, now, vip, &segment, key, item, frame);
                // For the client it is connected, and its ACK is not sent again: it has to hear it.
                if let Err(
                    reason @ (DropReason::SplicesFull
                    | DropReason::PortsFull
                    | DropReason::FlowsFull
                    | DropReason::NoBackend),
                ) = done
                {
                    let dropped = self.drop(vip, reason);
                    return self.tell_unserved(now, item, frame).unwrap_or(dropped);
                }
                done
            }
        };
        done.unwrap_or_else(|reason| self.drop(vip, reason))
    }

    fn answer_syn(
        &mut self,
        tables: &Tables,
        now: Now,
        backend: BackendRef,
        segment: &Segment,
        item: &Work,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let headers = &item.headers;
        let hop = tables.hop(backend).ok_or(DropReason::NoBackend)?;
        let route = admit(hop, headers)?;
        let back = nat::way_back(frame, headers).map_err(|_| DropReason::HeaderChain)?;
        if !has_sender(&headers.key, &back) {
            return Err(DropReason::Malformed);
        }
        let said = SynOptions::read(frame.get(headers.transport.into()..).unwrap_or(&[]));
        let size = self.nat.cookies.size(backend).ok_or(DropReason::NoFlow)?;
        let limit = largest(route.mtu.min(self.nat.mtu(item.port)), &headers.key);
        let answer = Bare {
            source: segment.destination(),
            destination: segment.source(),
            sequence: self.nat.cookies.cookies.make(now.micros, segment, &said),
            acknowledgment: segment.sequence.wrapping_add(1),
            flags: TcpFlags::SYN | TcpFlags::ACK,
            window: 0,
            // No option that the SYN did not have: so the answer is no longer than the SYN.
            options: SynOptions {
                mss: said.mss.map(|_| size.min(limit)),
                scale: said.scale.map(|_| SCALE),
                sack: said.sack,
            },
        };
        let length = write(frame, &back, &answer, Payload::None)?;
        self.nat.cookies.last = Some(now.micros);
        self.counters.cookies_sent.add(1);
        Ok(Verdict::Forward {
            port: item.port,
            length,
        })
    }

    /// The ACK of a cookie: an entry, and the backend's connection.
    #[allow(clippy::too_many_arguments, reason = "a packet, and what it is of")]
    fn accept<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        vip: VipRef,
        segment: &Segment,
        key: &K,
        item: &Work,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let promise = self.nat.cookies.promise(now, segment);
        let promise = promise.ok_or(DropReason::NoFlow)?;
        if !K::table_ref(self).has_splices() {
            return Err(DropReason::SplicesFull);
        }
        let ring = tables.ring(vip).ok_or(DropReason::NoBackend)?;
        let hash = key.selection_hash(ring.scheduler);
        let backend = self.picker.pick(ring, vip, hash, true, &self.counters);
        let backend = backend.ok_or(DropReason::NoBackend)?;
        // It takes the place that the SYN did not: half open until the client speaks again.
        let opening = Work {
            headers: Headers {
                tcp: TcpFlags::SYN,
                ..item.headers
            },
            located: None,
            ..*item
        };
        let (_, slot) = self.admit_translated(tables, now, key, &opening, vip, backend)?;
        let splice = Splice {
            client: promise.client,
            cookie: promise.isn,
            backend: 0,
            backend_scale: None,
            is_open: false,
        };
        if K::table(self).set_splice(slot, splice).is_err() {
            self.forget::<K>(tables, slot);
            return Err(DropReason::SplicesFull);
        }
        self.counters.cookies_accepted.add(1);
        let window = segment.window;
        self.open_backend::<K>(tables, now, (vip, slot), &splice, window, item, frame)
    }

    /// A client's packet before its backend has answered: a reason to ask the backend again.
    #[cold]
    #[inline(never)]
    pub(super) fn open_again<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, slot): (VipRef, Slot),
        splice: &Splice,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let done = match read(&item.headers, frame) {
            None => Err(DropReason::BadTransportChecksum),
            // Another connection of the same port: what was promised to the one before is over.
            Some(segment) if segment.is_opening() && segment.sequence != splice.client => {
                self.forget::<K>(tables, slot);
                Err(DropReason::NoFlow)
            }
            Some(segment) => {
                let window = segment.window;
                self.open_backend::<K>(tables, now, (vip, slot), splice, window, item, frame)
            }
        };
        done.unwrap_or_else(|reason| self.drop(vip, reason))
    }

    /// A client's packet becomes the SYN that the backend gets.
    #[allow(clippy::too_many_arguments, reason = "a packet, and what it is of")]
    fn open_backend<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, slot): (VipRef, Slot),
        splice: &Splice,
        window: u16,
        item: &Work,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let headers = &item.headers;
        let entry = K::table_ref(self).entry(slot);
        let (backend, path) = (entry.backend, entry.path);
        let hop = tables.hop(backend).ok_or(DropReason::NoBackend)?;
        let route = admit(hop, headers)?;
        let inside = self.inside(tables, entry).ok_or(DropReason::NoBackend)?;
        let back = nat::way_back(frame, headers).map_err(|_| DropReason::HeaderChain)?;
        if !self.nat.paths.is(path, item.port, &back) {
            self.follow::<K>(slot, path, item.port, &back)?;
        }
        let limit = largest(route.mtu.min(self.nat.mtu(item.port)), &headers.key);
        let said = options_of(splice.cookie);
        let syn = Bare {
            source: end(inside.source()),
            destination: end(inside.destination()),
            sequence: splice.client,
            acknowledgment: 0,
            flags: TcpFlags::SYN,
            // A SYN's window is not scaled.
            window: rescaled(window, said.scale.unwrap_or(0) as i8),
            options: SynOptions {
                mss: said.mss.map(|size| size.min(limit)),
                ..said
            },
        };
        let length = write(frame, &route.link, &syn, Payload::None)?;
        if path == PathId::NONE {
            self.asked::<K>(now, slot);
        }
        self.count(vip, backend, headers);
        Ok(Verdict::Forward {
            port: route.port,
            length,
        })
    }

    /// A backend's packet that opens its connection, or does not.
    #[cold]
    #[inline(never)]
    pub(super) fn answer_spliced<K: Tracked>(
        &mut self,
        (vip, slot): (VipRef, Slot),
        splice: Splice,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        match self.try_answer_spliced::<K>(slot, splice, item, frame) {
            Ok(verdict) => {
                let counters = &self.counters.vips[vip.slot()];
                counters.packets.add(1);
                counters.bytes.add(u64::from(item.headers.length));
                verdict
            }
            Err(reason) => self.drop(vip, reason),
        }
    }

    fn try_answer_spliced<K: Tracked>(
        &mut self,
        slot: Slot,
        mut splice: Splice,
        item: &Work,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let headers = &item.headers;
        let segment = read(headers, frame).ok_or(DropReason::BadTransportChecksum)?;
        let (flags, next) = (segment.flags, splice.client.wrapping_add(1));
        let acknowledges = flags.contains(TcpFlags::ACK) && segment.acknowledgment == next;
        let known = !splice.is_open || segment.sequence == splice.backend;
        let reset = flags.contains(TcpFlags::RST);
        let (sequence, window, flags, payload) = if acknowledges && is_syn(headers) && !reset {
            if !known {
                return Err(DropReason::NoFlow);
            }
            let said = SynOptions::read(frame.get(headers.transport.into()..).unwrap_or(&[]));
            splice.backend = segment.sequence;
            let scale = options_of(splice.cookie).scale;
            splice.backend_scale = scale.and(said.scale);
            splice.is_open = true;
            K::table(self)
                .set_splice(slot, splice)
                .map_err(|_| DropReason::SplicesFull)?;
            let by = scale.map_or(0, |_| -(SCALE as i8));
            let window = rescaled(segment.window, by);
            (splice.cookie, window, TcpFlags::ACK, Payload::Known)
        } else if acknowledges && reset && !splice.is_open {
            // The client takes it only with the number that it waits for (RFC 5961 section 3.2).
            let expected = splice.cookie.wrapping_add(1);
            (expected, 0, TcpFlags::RST | TcpFlags::ACK, Payload::None)
        } else if reset || splice.is_open {
            return Err(DropReason::NoFlow);
        } else {
            return refuse(&segment, item, frame);
        };
        let entry = K::table_ref(self).entry(slot);
        let path = self.nat.paths.get(entry.path);
        let path = *path.ok_or(DropReason::PathsFull)?;
        let bare = Bare {
            source: end(entry.key.destination()),
            destination: end(entry.key.source()),
            sequence,
            acknowledgment: next,
            flags,
            window,
            options: SynOptions::default(),
        };
        let length = write(frame, &path.link, &bare, payload)?;
        Ok(Verdict::Forward {
            port: path.port,
            length,
        })
    }
}

/// A backend's segment that acknowledges what was not sent, of a connection that had this port
/// before: its end is reset, so that the next SYN opens a new one (RFC 9293 section 3.10.7.3).
fn refuse(segment: &Segment, item: &Work, frame: &mut [u8]) -> Result<Verdict, DropReason> {
    let reset = Bare::reset(segment).ok_or(DropReason::NoFlow)?;
    let back = nat::way_back(frame, &item.headers).map_err(|_| DropReason::HeaderChain)?;
    if !has_sender(&item.headers.key, &back) {
        return Err(DropReason::Malformed);
    }
    let length = write(frame, &back, &reset, Payload::None)?;
    Ok(Verdict::Forward {
        port: item.port,
        length,
    })
}

/// Whether a packet came from one host to one: nothing else is answered (RFC 9293 section 3.9.2.3,
/// RFC 1122 section 3.2.2).
fn has_sender(key: &FlowKey, back: &LinkHeader) -> bool {
    let is_group = |mac: &[u8; 6]| mac[0] & 1 != 0;
    let is_host = match key.source_address() {
        // Class E with the broadcast address is no host's either.
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback() && v4.octets()[0] < 224,
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    };
    is_host && !is_group(&back.destination) && !is_group(&back.source)
}

/// What a spliced flow's packets become on their way to the client.
pub(super) fn to_client(splice: &Splice) -> Shift {
    let scale = splice.backend_scale.unwrap_or(0) as i8 - SCALE as i8;
    let clients = options_of(splice.cookie).scale;
    Shift {
        sequence: splice.cookie.wrapping_sub(splice.backend),
        acknowledgment: 0,
        window: clients.map_or(0, |_| scale),
    }
}

/// And on their way to the backend.
pub(super) fn to_backend(splice: &Splice) -> Shift {
    let scale = match splice.backend_scale {
        Some(_) => 0,
        None => options_of(splice.cookie).scale.unwrap_or(0) as i8,
    };
    Shift {
        sequence: 0,
        acknowledgment: splice.backend.wrapping_sub(splice.cookie),
        window: scale,
    }
}

/// Makes a packet that is about to be sent one of the other connection.
#[inline(never)]
pub(super) fn shift_sent(
    verdict: Verdict,
    headers: &Headers,
    frame: &mut [u8],
    by: &Shift,
) -> Result<Verdict, DropReason> {
    // A later fragment has no numbers.
    let Some(at) = sent_segment(verdict, headers) else {
        return Ok(verdict);
    };
    let segment = frame.get_mut(at).ok_or(DropReason::Truncated)?;
    shift(segment, by).ok_or(DropReason::Truncated)?;
    Ok(verdict)
}

/// Where the TCP segment is in a frame that is about to be sent.
fn sent_segment(verdict: Verdict, headers: &Headers) -> Option<core::ops::Range<usize>> {
    let Verdict::Forward { length, .. } = verdict else {
        return None;
    };
    let transport = headers.transport.checked_sub(headers.network)?;
    let start = length.checked_sub(headers.length)? + transport;
    Some(usize::from(start)..usize::from(length))
}

/// The segment in a frame; `None` where there is none, or its checksum is wrong.
fn read(headers: &Headers, frame: &[u8]) -> Option<Segment> {
    let start = usize::from(headers.network);
    let packet = frame.get(start..start + usize::from(headers.length))?;
    (headers.transport > headers.network)
        .then(|| Segment::read(headers, packet))
        .flatten()
}

/// Whether flags are those of a connection's first segment. Others' bits, as those of explicit
/// congestion notification, do not matter.
fn is_opening(flags: TcpFlags) -> bool {
    let others = TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN;
    flags.contains(TcpFlags::SYN) && !flags.intersects(others)
}

/// The largest segment that a way takes.
fn largest(mtu: u16, key: &FlowKey) -> u16 {
    let ip = match key {
        FlowKey::V4(_) => ipv4::HEADER_LENGTH,
        FlowKey::V6(_) => ipv6::HEADER_LENGTH,
    };
    mtu.saturating_sub((ip + HEADER_LENGTH) as u16)
}

fn end((address, port, _): (IpAddr, u16, u8)) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// What is behind the header of a segment that is written.
enum Payload {
    None,
    /// A byte that the receiver has acknowledged already.
    Known,
}

/// Writes a segment in place of a packet; the frame's new length.
fn write(
    frame: &mut [u8],
    link: &LinkHeader,
    segment: &Bare,
    payload: Payload,
) -> Result<u16, DropReason> {
    let ethertype = match segment.source {
        SocketAddr::V4(_) => ethernet::IPV4,
        SocketAddr::V6(_) => ethernet::IPV6,
    };
    let bytes = match payload {
        Payload::None => 0,
        Payload::Known => 1,
    };
    let end = link.len() + segment.length() + bytes;
    let frame = frame.get_mut(..end).ok_or(DropReason::NoRoom)?;
    let (front, packet) = frame.split_at_mut(link.len());
    link.write(front, ethertype).ok_or(DropReason::NoRoom)?;
    match payload {
        Payload::None => segment.write(packet),
        Payload::Known => segment.write_with_byte(packet),
    }
    u16::try_from(end).map_err(|_| DropReason::TooBig)
}

#[cfg(test)]
mod tests;
