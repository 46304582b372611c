//! Segments of no session: a SYN that opens one, the answer to a cookie, and everything else.

use super::serve::candidates;
use super::{HALF_OPEN, Replicator, Served, proxy};
use crate::Micros;
use crate::replicate::event::SessionId;
use crate::replicate::group::MAX_MEMBERS;
use crate::replicate::session::{Session, SessionState};
use crate::replicate::stack::cookie::Promise;
use crate::replicate::stack::segment::{Bare, LONGEST_BARE, Segment, SynOptions};
use crate::replicate::stack::{Options, Transmit, Way};
use crate::tables::{Ring, Tables, VipRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use lockstep_plan::{DropReason, Grouping, Replicate};
use lockstep_wire::{TcpFlags, ipv4, ipv6, protocol};

/// The MTU of an interface that the configuration does not tell.
const ETHERNET_MTU: u16 = 1_500;

/// Half-open sessions of one group at most: whoever sends SYNs in somebody's name takes no more of
/// that one's connections.
const HALF_OPEN_GROUP: usize = MAX_MEMBERS / 4;

/// The service a segment is for.
struct Destination<'a> {
    vip: VipRef,
    ring: &'a Ring,
    policy: &'a Arc<Replicate>,
}

impl Replicator {
    /// A segment of no session.
    pub(super) fn admit(
        &mut self,
        now: Micros,
        tables: &Tables,
        segment: &Segment,
        packet: &mut [u8],
        way: Way,
        out: &mut impl Transmit,
    ) -> Result<(), DropReason> {
        let to = segment.destination();
        let destination = tables
            .vip(to.ip(), to.port(), protocol::TCP)
            .and_then(|vip| {
                let ring = tables.ring(vip)?;
                let policy = ring.replicate.as_ref()?;
                Some(Destination { vip, ring, policy })
            });
        let Some(destination) = destination else {
            // Of a connection to a replica that is over: its RST ends it there as well.
            if tables.is_session(to.ip(), to.port(), protocol::TCP) {
                self.reset(segment, way, out);
            }
            return Err(DropReason::NoSession);
        };
        if segment.is_opening() {
            let grouped = destination.policy.group == Grouping::Client;
            let crowded = grouped && {
                let client = segment.key.source_address();
                self.groups.half_open(client, &destination.ring.name) >= HALF_OPEN_GROUP
            };
            if crowded || self.half_open >= self.gate() {
                self.answer_with_cookie(now, segment, packet, way, out);
                return Ok(());
            }
            return self.open(now, &destination, segment, packet, way, None);
        }
        let acknowledges = segment.flags.contains(TcpFlags::ACK)
            && !segment.flags.intersects(TcpFlags::SYN | TcpFlags::RST);
        if acknowledges
            && self.cookies_are_out(now)
            && let Some(promise) = self.cookies.check(now, segment)
        {
            self.shared.counters.cookies_accepted.add(1);
            return self.open(now, &destination, segment, packet, way, Some(promise));
        }
        self.reset(segment, way, out);
        Err(DropReason::NoSession)
    }

    /// How many sessions may be half-open: never all, or a flood would leave none to those who
    /// answer cookies.
    fn gate(&self) -> usize {
        HALF_OPEN.min(self.config.sessions / 2)
    }

    /// RFC 9293 section 3.10.7.1, no more than a few in a millisecond.
    fn reset(&mut self, segment: &Segment, way: Way, out: &mut impl Transmit) {
        let Some(reset) = Bare::reset(segment) else {
            return;
        };
        if self.resets > 0 {
            self.resets -= 1;
            self.shared.counters.resets.add(1);
            out.transmit(way.port, &way.link, reset.length(), |p| reset.write(p));
        }
    }

    /// Whether a cookie that was sent may still come back.
    fn cookies_are_out(&self, now: Micros) -> bool {
        self.last_cookie
            .is_some_and(|at| now.since(at) < crate::replicate::stack::cookie::LIFETIME)
    }

    fn answer_with_cookie(
        &mut self,
        now: Micros,
        segment: &Segment,
        packet: &[u8],
        way: Way,
        out: &mut impl Transmit,
    ) {
        let said = SynOptions::read(packet.get(segment.transport..).unwrap_or(&[]));
        let network = match segment.source() {
            core::net::SocketAddr::V4(_) => ipv4::HEADER_LENGTH,
            core::net::SocketAddr::V6(_) => ipv6::HEADER_LENGTH,
        };
        let headers = (network + lockstep_wire::tcp::HEADER_LENGTH) as u16;
        let scale = super::super::stack::connection::scale_of(self.config.client_buffer);
        let answer = Bare {
            source: segment.destination(),
            destination: segment.source(),
            sequence: self.cookies.make(now, segment, &said),
            acknowledgment: segment.sequence.wrapping_add(1),
            flags: TcpFlags::SYN | TcpFlags::ACK,
            window: u16::try_from(self.config.client_buffer).unwrap_or(u16::MAX),
            options: SynOptions {
                mss: Some(self.mtu(way).saturating_sub(headers)),
                // Ours only where the client has one too (RFC 7323 section 1.3).
                scale: said.scale.map(|_| scale),
                sack: said.sack,
            },
        };
        self.last_cookie = Some(now);
        self.shared.counters.cookies_sent.add(1);
        out.transmit(way.port, &way.link, answer.length(), |p| answer.write(p));
    }

    fn mtu(&self, way: Way) -> u16 {
        let mtu = self.config.mtus.get(usize::from(way.port.0));
        mtu.copied().unwrap_or(ETHERNET_MTU)
    }

    /// Makes a session of a SYN, or of what a cookie has promised.
    fn open(
        &mut self,
        now: Micros,
        destination: &Destination<'_>,
        segment: &Segment,
        packet: &mut [u8],
        way: Way,
        promise: Option<Promise>,
    ) -> Result<(), DropReason> {
        let &Destination { vip, ring, policy } = destination;
        let needed = usize::from(policy.min_sync.get());
        if self.places.is_empty() || self.clients.free() == 0 {
            return Err(DropReason::SessionsFull);
        }
        if self.replicas.free() < needed || self.ports.available() < needed {
            return Err(DropReason::ConnectionsFull);
        }
        if ring.members.is_empty() {
            return Err(DropReason::NoBackend);
        }
        let options = Options {
            mtu: self.mtu(way),
            keepalive: policy.keepalive,
            patience: policy.client_timeout,
            seed: self.random.next(),
        };
        let mut client = self.clients.take().ok_or(DropReason::SessionsFull)?;
        if !client.listen(now, segment.destination(), &options) {
            self.clients.put(client);
            return Err(DropReason::Malformed);
        }
        client.set_way(way);
        let scratch = &mut self.shared.scratch;
        let mut sink = super::super::stack::connection::Sink;
        if let Some(promise) = promise {
            let (syn, mut bytes, length) = written_anew(segment, &promise);
            client.restore(now, &syn, &mut bytes[..length], promise.isn, scratch);
        }
        // A SYN has no answer yet, and neither has the first ACK.
        client.receive(now, segment, packet, &mut sink, scratch);
        let place = self.places.pop().ok_or(DropReason::SessionsFull)?;
        self.shared.counters.by_vip.of(vip).add(1);
        self.shared.counters.by_state[SessionState::Opening as usize].add(1);
        let id = SessionId {
            worker: self.config.spread.me,
            number: self.next_number,
        };
        self.next_number += 1;
        let header = policy
            .proxy_protocol
            .then(|| proxy::header(segment.source(), segment.destination()));
        let session = Session::new(
            now,
            id,
            Arc::clone(policy),
            Arc::clone(&ring.masks),
            candidates(ring),
            header.as_deref().unwrap_or(&[]),
            self.random.next(),
        );
        let half_open = client.is_half_open();
        self.half_open += usize::from(half_open);
        self.flows.insert(segment.key, id.number, place);
        let group = (policy.group == Grouping::Client)
            .then(|| self.groups.of(segment.key.source_address(), &ring.name));
        if let (Some(group), true) = (group, half_open) {
            self.groups.begin(group);
        }
        self.sessions[place as usize] = Some(Box::new(Served {
            session,
            key: segment.key,
            client,
            way,
            vip,
            legs: Vec::new(),
            ends: Vec::new(),
            group,
            half_open,
            state: SessionState::Opening,
            dirty: false,
        }));
        self.mark(place);
        Ok(())
    }
}

/// The SYN of which a cookie was made.
fn written_anew(segment: &Segment, promise: &Promise) -> (Segment, [u8; LONGEST_BARE], usize) {
    let bare = Bare {
        source: segment.source(),
        destination: segment.destination(),
        sequence: promise.client,
        acknowledgment: 0,
        flags: TcpFlags::SYN,
        window: segment.window,
        options: promise.options,
    };
    let mut bytes = [0; LONGEST_BARE];
    let length = bare.length();
    bare.write(&mut bytes[..length]);
    let network = match segment.source() {
        core::net::SocketAddr::V4(_) => ipv4::HEADER_LENGTH,
        core::net::SocketAddr::V6(_) => ipv6::HEADER_LENGTH,
    };
    let syn = Segment {
        key: segment.key,
        sequence: promise.client,
        acknowledgment: 0,
        flags: TcpFlags::SYN,
        window: segment.window,
        transport: network,
        payload: 0,
    };
    (syn, bytes, length)
}
