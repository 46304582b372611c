//! `lockstep capture`, the worker's side: heads of packets and what became of them, for the agent.
//!
//! While nobody captures, a worker has no tap, and a burst costs one branch. With one it looks
//! at each packet twice: before the dataplane rewrites it, and when its verdict is known. All
//! memory is the agent's: records go round between two bounded queues, and what finds no free one
//! is counted.

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use lockstep_core::dataplane::KnownFlow;
use lockstep_core::explain::{self, Seen};
use lockstep_core::{BURST, Dataplane, Micros, PortId, Seconds, Verdict};
use lockstep_plan::{DropReason, Prefix, Protocol};
use lockstep_wire::FlowKey;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Room that a frame may have in front of its packet (ADR 1): kept beside the wanted bytes.
const ROOM: usize = 128;

/// Which packets are wanted: those that fit everything that is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// To or from this VIP.
    pub vip: Option<VipFilter>,
    /// From or to clients in this prefix.
    pub client: Option<Prefix>,
    /// Dropped for this reason, or for any.
    pub drops: Option<Drops>,
}

/// A VIP, or all of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipFilter {
    /// The address.
    pub address: IpAddr,
    /// The port; every one where it is missing.
    pub port: Option<u16>,
    /// The protocol; every one where it is missing.
    pub protocol: Option<Protocol>,
}

/// Which dropped packets are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drops {
    /// All of them.
    Any,
    /// Those dropped for this reason.
    For(DropReason),
}

/// A packet's ends, as far as they can be told.
struct Ends {
    from: Option<(IpAddr, u16)>,
    to: (IpAddr, Option<u16>),
    protocol: Option<u8>,
}

impl Ends {
    /// Of a packet that the dataplane parses; of others the destination's address at best.
    fn of(frame: &[u8], key: Option<&FlowKey>) -> Option<Self> {
        let (from, to, protocol) = match key {
            Some(FlowKey::V4(key)) => (
                (key.source_address(), key.source_port()),
                (key.destination_address(), key.destination_port()),
                key.protocol,
            ),
            Some(FlowKey::V6(key)) => (
                (key.source_address(), key.source_port()),
                (key.destination_address(), key.destination_port()),
                key.protocol,
            ),
            None => {
                return lockstep_wire::destination(frame).map(|address| Ends {
                    from: None,
                    to: (address, None),
                    protocol: None,
                });
            }
        };
        Some(Ends {
            from: Some(from),
            to: (to.0, Some(to.1)),
            protocol: Some(protocol),
        })
    }
}

impl Ends {
    /// Of a backend's answer: from the VIP to the client.
    fn of_answer(flow: &KnownFlow, key: Option<&FlowKey>) -> Self {
        Ends {
            from: Some((flow.vip.ip(), flow.vip.port())),
            to: (flow.client.ip(), Some(flow.client.port())),
            protocol: key.map(FlowKey::protocol),
        }
    }
}

impl VipFilter {
    /// Of what has no ports, all that the address gets is wanted.
    fn fits(&self, address: IpAddr, port: Option<u16>, protocol: Option<u8>) -> bool {
        let wanted = self.protocol.map(Protocol::number);
        self.address == address
            && (self.port.is_none() || port.is_none() || self.port == port)
            && (wanted.is_none() || protocol.is_none() || wanted == protocol)
    }
}

impl Filter {
    /// Whether a packet's ends say that it may be wanted.
    fn fits_ends(&self, ends: Option<&Ends>) -> bool {
        if self.vip.is_none() && self.client.is_none() {
            return true;
        }
        let Some(ends) = ends else {
            return false;
        };
        let (to, port) = ends.to;
        let vip = self.vip.is_none_or(|vip| {
            let from = ends
                .from
                .is_some_and(|(address, port)| vip.fits(address, Some(port), ends.protocol));
            from || vip.fits(to, port, ends.protocol)
        });
        let client = self.client.is_none_or(|prefix| {
            let from = ends
                .from
                .is_some_and(|(address, _)| prefix.contains(address));
            from || prefix.contains(to)
        });
        vip && client
    }

    /// Whether a packet of this length with this verdict may be wanted. One that was too big is
    /// dropped, and an error sent in its frame, which is shorter: the agent tells.
    fn fits_verdict(&self, verdict: Verdict, frame: usize) -> bool {
        match (self.drops, verdict) {
            (
                Some(Drops::Any | Drops::For(DropReason::TooBig)),
                Verdict::Forward { length, .. },
            ) => usize::from(length) < frame,
            (None, _) | (Some(Drops::Any), Verdict::Drop(_)) => true,
            (Some(Drops::For(wanted)), Verdict::Drop(reason)) => wanted == reason,
            (Some(_), Verdict::Local) | (Some(Drops::For(_)), Verdict::Forward { .. }) => false,
        }
    }
}

/// A packet, as a worker saw it.
#[derive(Debug)]
pub struct Record {
    /// When, by the worker's clock.
    pub at: Micros,
    /// Where it came in.
    pub port: PortId,
    /// Bytes of the frame, with the room in front.
    pub length: usize,
    /// What is kept of it, as the worker got it.
    pub head: Vec<u8>,
    /// Its flow, which a head may be too short to tell.
    pub key: Option<FlowKey>,
    /// What became of it.
    pub seen: Seen,
}

impl Record {
    fn with_room(bytes: usize) -> Box<Self> {
        Box::new(Record {
            at: Micros::ZERO,
            port: PortId(0),
            length: 0,
            head: Vec::with_capacity(bytes),
            key: None,
            seen: Seen {
                verdict: Verdict::Local,
                before: None,
                after: None,
            },
        })
    }
}

/// What worker and agent share of a capture.
#[derive(Debug)]
pub struct Exchange {
    /// Records for the worker to fill.
    pub free: ArrayQueue<Box<Record>>,
    /// Filled ones, for the agent.
    pub full: ArrayQueue<Box<Record>>,
    /// Packets that found no free record.
    pub missed: AtomicU64,
    /// Whether the capture has ended, though the worker has its tap still.
    pub ended: AtomicBool,
}

impl Exchange {
    /// With this many records of this many bytes of packet.
    pub fn new(records: usize, bytes: usize) -> Arc<Self> {
        let exchange = Exchange {
            free: ArrayQueue::new(records),
            full: ArrayQueue::new(records),
            missed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        };
        for _ in 0..records {
            // There is a place for each.
            let _ = exchange.free.push(Record::with_room(bytes + ROOM));
        }
        Arc::new(exchange)
    }
}

/// A worker's end of a capture.
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    exchange: Arc<Exchange>,
    /// Packets of the burst under way, by their places in it.
    pending: ArrayVec<(u8, Box<Record>), BURST>,
}

impl Tap {
    /// A tap for packets that fit.
    pub fn new(filter: Filter, exchange: Arc<Exchange>) -> Box<Self> {
        Box::new(Tap {
            filter,
            exchange,
            pending: ArrayVec::new(),
        })
    }

    /// Keeps the heads of a burst's packets that fit, before the dataplane rewrites them.
    #[cold]
    pub fn before<F: AsRef<[u8]>>(
        &mut self,
        now: Micros,
        ports: &[PortId],
        frames: &[F],
        dataplane: &Dataplane,
    ) {
        if self.exchange.ended.load(Ordering::Relaxed) {
            return;
        }
        for (at, (frame, &port)) in frames.iter().zip(ports).take(BURST).enumerate() {
            let frame = frame.as_ref();
            let key = explain::flow_of(frame);
            let flow = key
                .as_ref()
                .and_then(|key| dataplane.known(Seconds::at(now), key));
            // An answer is of its client and VIP, whatever its own addresses are.
            let ends = match flow.filter(|flow| flow.is_answer) {
                Some(flow) => Some(Ends::of_answer(&flow, key.as_ref())),
                None => Ends::of(frame, key.as_ref()),
            };
            if !self.filter.fits_ends(ends.as_ref()) {
                continue;
            }
            let Some(mut record) = self.exchange.free.pop() else {
                self.exchange.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            record.at = now;
            record.port = port;
            record.length = frame.len();
            record.head.clear();
            // No more than it has memory for: a worker does not allocate.
            let kept = frame.len().min(record.head.capacity());
            record.head.extend_from_slice(&frame[..kept]);
            record.key = key;
            record.seen.before = flow;
            self.pending.push((at as u8, record));
        }
    }

    /// Hands over what became of them.
    #[cold]
    pub fn after(&mut self, verdicts: &[Verdict], dataplane: &Dataplane) {
        for (at, mut record) in self.pending.drain(..) {
            let verdict = verdicts[usize::from(at)];
            // There is a place for each record in either queue.
            let _ = if self.filter.fits_verdict(verdict, record.length) {
                record.seen.verdict = verdict;
                record.seen.after = known(dataplane, &record);
                self.exchange.full.push(record)
            } else {
                self.exchange.free.push(record)
            };
        }
    }
}

fn known(dataplane: &Dataplane, record: &Record) -> Option<KnownFlow> {
    dataplane.known(Seconds::at(record.at), record.key.as_ref()?)
}

#[cfg(test)]
mod tests;
