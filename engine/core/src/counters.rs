//! Counters: one set per worker, written by it alone, read by the agent at any time.

use crate::time::Micros;
use crate::tracking::FlowState;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use lockstep_plan::{DropReason, Limits};

/// A number with one writer and any number of readers.
///
/// The writer loads and stores instead of adding atomically: with a single writer that loses
/// nothing, and costs what a plain integer costs.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only ever called by the worker that owns the counters.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts, for gauges; only ever called by the worker that owns the counters.
    #[inline]
    pub fn subtract(&self, n: u64) {
        self.0
            .store(self.0.load(Relaxed).saturating_sub(n), Relaxed);
    }

    /// Sets; only ever called by the worker that owns the counters.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value as last written.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What happened to the packets of a VIP.
#[derive(Debug)]
pub struct VipCounters {
    /// Packets forwarded.
    pub packets: Count,
    /// Bytes of IP packets forwarded, without tunnel headers.
    pub bytes: Count,
    /// Flows whose backend changed during their life: the one they had was removed. Nothing else
    /// moves a flow that is in the table.
    pub moved: Count,
    /// Packets forwarded without an entry for their flow, the table being full.
    pub stateless: Count,
    /// Packets dropped, by [`DropReason`].
    pub drops: [Count; DropReason::ALL.len()],
}

impl Default for VipCounters {
    fn default() -> Self {
        VipCounters {
            packets: Count::default(),
            bytes: Count::default(),
            moved: Count::default(),
            stateless: Count::default(),
            drops: core::array::from_fn(|_| Count::default()),
        }
    }
}

impl VipCounters {
    /// Counts a dropped packet.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    fn reset(&self) {
        for count in [&self.packets, &self.bytes, &self.moved, &self.stateless] {
            count.set(0);
        }
        self.drops.iter().for_each(|d| d.set(0));
    }
}

/// What was sent to a backend, and what came of it.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Packets forwarded.
    pub packets: Count,
    /// Bytes of IP packets forwarded, without tunnel headers.
    pub bytes: Count,
    /// Flows given to it.
    pub new_flows: Count,
    /// Entries it has in the flow table now.
    pub flows: Count,
    /// Those of them that a FIN or RST has passed on: they only wait for what may be late.
    pub ending: Count,
    /// Those of them that are half open: nothing came from the client behind its SYN.
    pub half_open: Count,
    /// Its answers that were rewritten.
    pub answers: Count,
    /// TCP flows given to it since its last answer, where answers are rewritten.
    pub unanswered: Count,
    /// When the first of them was, by the worker's clock.
    pub unanswered_since: Count,
    /// Connections that it has reset before the client could use them.
    pub resets: Count,
    /// Packets in a tunnel to it that somebody refused, by ICMP.
    pub refused: Count,
    /// When the last of them was, by the worker's clock.
    pub refused_at: Count,
}

impl BackendCounters {
    /// A connection was opened whose answers have to come by here.
    pub(crate) fn asked(&self, now: Micros) {
        if self.unanswered.get() == 0 {
            self.unanswered_since.set(now.get());
        }
        self.unanswered.add(1);
    }

    /// An answer came by here.
    #[inline]
    pub(crate) fn answered(&self) {
        self.answers.add(1);
        if self.unanswered.get() != 0 {
            self.unanswered.set(0);
        }
    }

    /// A packet in a tunnel did not arrive, somebody says.
    pub(crate) fn refuse(&self, now: Micros) {
        self.refused.add(1);
        self.refused_at.set(now.get());
    }

    /// A flow in this state got an entry.
    #[inline]
    pub(crate) fn enter(&self, state: FlowState) {
        self.new_flows.add(1);
        self.flows.add(1);
        self.ending.add(u64::from(state.is_ending()));
        self.half_open.add(u64::from(state.is_half_open()));
    }

    /// A flow went from one state to another.
    #[inline]
    pub(crate) fn turn(&self, before: FlowState, after: FlowState) {
        match (before.is_ending(), after.is_ending()) {
            (false, true) => self.ending.add(1),
            (true, false) => self.ending.subtract(1),
            (false, false) | (true, true) => {}
        }
        // None goes back to it.
        if before.is_half_open() {
            self.half_open.subtract(1);
        }
    }

    /// A flow that was in this state has no entry any more.
    pub(crate) fn leave(&self, state: FlowState) {
        self.flows.subtract(1);
        if state.is_ending() {
            self.ending.subtract(1);
        }
        if state.is_half_open() {
            self.half_open.subtract(1);
        }
    }

    fn reset(&self) {
        let BackendCounters {
            packets,
            bytes,
            new_flows,
            flows,
            ending,
            half_open,
            answers,
            unanswered,
            unanswered_since,
            resets,
            refused,
            refused_at,
        } = self;
        let traffic = [packets, bytes, new_flows, flows, ending, half_open];
        let back = [answers, unanswered, unanswered_since, resets];
        let refusals = [refused, refused_at];
        for count in traffic.into_iter().chain(back).chain(refusals) {
            count.set(0);
        }
    }
}

/// All counters of a worker's dataplane; memory for the largest snapshot is taken at its start.
#[derive(Debug)]
pub struct Counters {
    /// By VIP slot. Slot 0 is for packets whose VIP is not known.
    pub vips: Box<[VipCounters]>,
    /// By backend slot.
    pub backends: Box<[BackendCounters]>,
    /// Packets forwarded without an entry for their flow, the table being full.
    pub stateless: Count,
    /// Entries forgotten for a new flow: expired, half open or closing ones.
    pub evicted: Count,
    /// Source prefixes that were forgotten for new ones before their buckets were full again.
    pub sources_forgotten: Count,
    /// Flows whose backend was gone and that were given another one.
    pub rehashed: Count,
    /// SYNs of full-NAT services answered with a cookie.
    pub cookies_sent: Count,
    /// Flows of full-NAT services opened by the answer to a cookie.
    pub cookies_accepted: Count,
    /// Flows opened by the answer to a cookie that are in the flow tables.
    pub spliced: Count,
    /// Flows in the IPv4 table.
    pub flows_v4: Count,
    /// Flows in the IPv6 table.
    pub flows_v6: Count,
    /// The epoch of the snapshot the worker forwards by.
    pub epoch: Count,
}

/// While a snapshot replaces another, what is new has its slots before what goes gives its own
/// back; and freed slots wait before they are used again (see `tables`). So there are up to twice
/// as many slots as owners, and some more.
const SLOTS_PER_OWNER: usize = 2;
const SPARE_SLOTS: usize = 128;

/// Counters for VIPs.
pub(crate) const VIP_SLOTS: usize = Limits::VIPS * SLOTS_PER_OWNER + SPARE_SLOTS;
/// Counters for backends.
pub(crate) const BACKEND_SLOTS: usize = Limits::BACKENDS * SLOTS_PER_OWNER + SPARE_SLOTS;

impl Counters {
    /// Counters for the most VIPs and backends a snapshot may have ([`Limits`]).
    pub fn new() -> Self {
        Counters {
            vips: (0..VIP_SLOTS).map(|_| VipCounters::default()).collect(),
            backends: (0..BACKEND_SLOTS)
                .map(|_| BackendCounters::default())
                .collect(),
            stateless: Count::default(),
            evicted: Count::default(),
            sources_forgotten: Count::default(),
            rehashed: Count::default(),
            cookies_sent: Count::default(),
            cookies_accepted: Count::default(),
            spliced: Count::default(),
            flows_v4: Count::default(),
            flows_v6: Count::default(),
            epoch: Count::default(),
        }
    }

    pub(crate) fn reset_vips(&self, slots: impl Iterator<Item = usize>) {
        slots
            .filter_map(|slot| self.vips.get(slot))
            .for_each(VipCounters::reset);
    }

    pub(crate) fn reset_backends(&self, slots: impl Iterator<Item = usize>) {
        slots
            .filter_map(|slot| self.backends.get(slot))
            .for_each(BackendCounters::reset);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
