//! Frames that the parser does not follow to a flow, and packets that do not fit their way: pings,
//! errors about flows, fragments, and the errors that the engine sends itself.
//!
//! All of it is the cold path: bounded in memory and, where something is sent that nobody asked
//! the backends for, in rate.

mod fragments;
mod icmp;
mod paths;

use super::{Dataplane, Flows, Now, Verdict, Work, reason, segment};
use crate::tables::{BackendRef, PortId, Tables, VipRef};
use crate::time::{Micros, Seconds};
use crate::tracking::Segment;
use fragments::FragmentTable;
use lockstep_plan::DropReason;
use lockstep_wire::reply::{self, Back};
use lockstep_wire::{Headers, ParseError};
use paths::PathMtus;

/// Echo replies a second and worker, and besides as many "too big", and as many other errors: a flood
/// of one kind leaves the others theirs. Linux sends 1,000 of all together.
const ANSWERS_PER_SECOND: u64 = 1_000;
/// Answers at once after a silence.
const ANSWERS_AT_ONCE: u64 = 100;

/// Connections a second and worker that are reset since their service has no backend: all those of a
/// service that fails come within moments, and a flood of SYNs is not to be doubled.
const RESETS_PER_SECOND: u64 = 10_000;
/// And at once.
const RESETS_AT_ONCE: u64 = 10_000;

/// Errors of others a second and worker that are brought to whom they concern. A path that gets
/// narrower makes one for each connection on it, all at about the same time.
const RELAYS_PER_SECOND: u64 = 10_000;
/// And at once.
const RELAYS_AT_ONCE: u64 = 10_000;

/// What the cold path remembers. All memory is taken at the start.
pub(super) struct Unusual {
    fragments: FragmentTable,
    /// What is known of the ways to backends beyond their first link.
    pub(super) paths: PathMtus,
    echoes: Allowance,
    /// "Too big": without them connections hang.
    errors: Allowance,
    unreachables: Allowance,
    resets: Allowance,
    relays: Allowance,
}

/// What becomes of a frame that the parser refused.
pub(super) enum Outcome {
    /// This.
    Verdict(Verdict),
    /// It has a flow all the same, and goes the way of any packet.
    Packet(Headers),
}

impl Unusual {
    pub(super) fn new() -> Self {
        Unusual {
            fragments: FragmentTable::new(),
            paths: PathMtus::new(),
            echoes: Allowance::new(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE),
            errors: Allowance::new(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE),
            unreachables: Allowance::new(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE),
            resets: Allowance::new(RESETS_PER_SECOND, RESETS_AT_ONCE),
            relays: Allowance::new(RELAYS_PER_SECOND, RELAYS_AT_ONCE),
        }
    }

    pub(super) fn tick(&mut self, now: Seconds) {
        self.paths.tick(now);
    }
}

impl Dataplane {
    /// As [`least_frame`](Dataplane::least_frame), for the errors about datagrams of services that
    /// have no backend and whose senders are to know: such a frame comes without room in front.
    pub fn least_unserved(&self) -> usize {
        match self.tables().tells_unserved() {
            true => reply::LEAST_FRAME,
            false => 0,
        }
    }
}

impl Flows {
    /// What becomes of a frame that the parser refused.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut [u8],
        error: ParseError,
    ) -> Outcome {
        match error {
            ParseError::Fragment => match self.fragment(now, frame) {
                Ok(headers) => Outcome::Packet(headers),
                Err(reason) => Outcome::Verdict(self.drop(VipRef::UNKNOWN, reason)),
            },
            ParseError::NotTransport => Outcome::Verdict(self.icmp(tables, now, port, frame)),
            other => Outcome::Verdict(self.drop(VipRef::UNKNOWN, reason(other))),
        }
    }

    /// A packet that does not fit the way to its backend: it is dropped and its sender told how
    /// long it may be.
    ///
    /// Over IPv4 also where "don't fragment" is not set. A router would fragment the packet then
    /// (RFC 1812 section 5.2.7.1); here one frame cannot become two, and a sender that hears of it
    /// makes its own fragments short enough (Linux does).
    #[cold]
    #[inline(never)]
    pub(super) fn too_big(
        &mut self,
        tables: &Tables,
        now: Now,
        (vip, backend): (VipRef, BackendRef),
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let dropped = self.drop(vip, DropReason::TooBig);
        let Some(mtu) = tables
            .hop(backend)
            .and_then(|hop| self.unusual.paths.mtu(hop))
        else {
            return dropped;
        };
        self.tell_sender(now, item, frame, mtu).unwrap_or(dropped)
    }

    /// An answer that does not fit the way to its client: its backend is told, by the same rules.
    /// `mtu` is that of the way.
    #[cold]
    #[inline(never)]
    pub(super) fn answer_too_big(
        &mut self,
        now: Now,
        vip: VipRef,
        mtu: Option<u16>,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let dropped = self.drop(vip, DropReason::TooBig);
        mtu.and_then(|mtu| self.tell_sender(now, item, frame, mtu))
            .unwrap_or(dropped)
    }

    /// A packet of a service that has no backend, and whose senders are to know: it is dropped, and
    /// its connection reset (RFC 9293 section 3.10.7.1), or its datagram answered as to a port
    /// that nobody listens on (RFC 1122 section 3.2.2.1, RFC 4443 section 3.1).
    #[cold]
    #[inline(never)]
    pub(super) fn unserved(
        &mut self,
        now: Now,
        vip: VipRef,
        item: &Work,
        frame: &mut [u8],
    ) -> Verdict {
        let dropped = self.drop(vip, DropReason::NoBackend);
        self.tell_unserved(now, item, frame).unwrap_or(dropped)
    }

    /// Tells a client that there is nobody for it, as far as the rate allows.
    pub(super) fn tell_unserved(
        &mut self,
        now: Now,
        item: &Work,
        frame: &mut [u8],
    ) -> Option<Verdict> {
        let headers = &item.headers;
        let back = Back::of(frame, headers)?;
        self.identification = self.identification.wrapping_add(1);
        let id = self.identification;
        let length = match segment(headers) {
            Segment::Datagram => {
                let start = usize::from(headers.network);
                let packet = start..start + usize::from(headers.length);
                self.unusual.unreachables.spend(now.micros, || {
                    reply::port_unreachable(frame, &back, packet, id)
                })?
            }
            _ => self
                .unusual
                .resets
                .spend(now.micros, || reply::reset(frame, headers, &back, id))?,
        };
        let length = u16::try_from(length).ok()?;
        Some(Verdict::Forward {
            port: item.port,
            length,
        })
    }

    fn tell_sender(
        &mut self,
        now: Now,
        item: &Work,
        frame: &mut [u8],
        mtu: u16,
    ) -> Option<Verdict> {
        let headers = &item.headers;
        if headers.length <= mtu {
            return None;
        }
        let start = usize::from(headers.network);
        let packet = start..start + usize::from(headers.length);
        let back = Back::of(frame, headers)?;
        self.tell(now, item.port, frame, &back, packet, mtu)
    }

    /// Sends the error that a packet in a frame is too big, as far as the rate allows.
    fn tell(
        &mut self,
        now: Now,
        port: PortId,
        frame: &mut [u8],
        back: &Back,
        packet: core::ops::Range<usize>,
        mtu: u16,
    ) -> Option<Verdict> {
        self.identification = self.identification.wrapping_add(1);
        let id = self.identification;
        let length = self.unusual.errors.spend(now.micros, || {
            reply::too_big(frame, back, packet, u32::from(mtu), id)
        })?;
        let length = u16::try_from(length).ok()?;
        Some(Verdict::Forward { port, length })
    }
}

/// A token bucket: so many a second, and some more at once.
#[derive(Debug)]
struct Allowance {
    /// Until when what was taken is accounted for, one interval each.
    taken: Micros,
    /// Microseconds.
    interval: u64,
    at_once: u64,
}

impl Allowance {
    const fn new(per_second: u64, at_once: u64) -> Self {
        Allowance {
            taken: Micros::ZERO,
            interval: 1_000_000 / per_second,
            at_once,
        }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Micros) -> bool {
        self.spend(now, || Some(())).is_some()
    }

    /// Takes one for what is made, if there is one: without, nothing is made, and what cannot be
    /// made costs none.
    fn spend<T>(&mut self, now: Micros, make: impl FnOnce() -> Option<T>) -> Option<T> {
        let earliest = now.get().saturating_sub(self.interval * self.at_once);
        let next = self.taken.get().max(earliest) + self.interval;
        if next > now.get() {
            return None;
        }
        let made = make()?;
        self.taken = Micros::new(next);
        Some(made)
    }
}

#[cfg(test)]
mod tests;
