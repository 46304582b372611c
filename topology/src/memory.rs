//! How much memory a topology takes, by the sizes of its parts.

use crate::model::{Engine, Topology, Worker};

/// Bytes of an IPv4 flow table for each bucket: for each of 8 entries 32 for the flow, 1 of control,
/// and 9 by which the answers to a rewritten flow find it; and 1 that says which of them give way.
const BUCKET_IPV4: u64 = 8 * 42 + 1;
/// Bytes of an IPv6 flow table for each bucket: 64 for each flow, and the same beside it.
const BUCKET_IPV6: u64 = 8 * 74 + 1;
/// One flow in so many may be two connections that the engine joins, and so many at most.
const SPLICE_SHARE: u64 = 4;
const SPLICES: u64 = 16_384;
/// Bytes for each of them: the table is twice as large as they are many, and a place takes 4 for
/// its key and 16.
const SPLICE: u64 = 2 * (4 + 16);

/// The memory of one worker, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerMemory {
    /// The frames that packets are received into; none without queues.
    pub umem: u64,
    /// Both flow tables; none where it does not process.
    pub flows: u64,
}

impl WorkerMemory {
    /// What a worker of an engine takes.
    pub fn of(engine: &Engine, worker: &Worker) -> Self {
        let frames = u64::from(engine.umem_frames.get());
        // A table is five eighths full at most, so that every flow finds room in its two buckets.
        let table = |entries: u32, bucket: u64| {
            let entries = u64::from(entries);
            let splices = (entries / SPLICE_SHARE).clamp(1, SPLICES);
            entries * bucket / 5 + splices.next_power_of_two() * SPLICE
        };
        let umem = frames * u64::from(engine.frame_size.bytes());
        let flows = table(engine.flows_ipv4.get(), BUCKET_IPV4)
            + table(engine.flows_ipv6.get(), BUCKET_IPV6);
        WorkerMemory {
            umem: if worker.queues.is_empty() { 0 } else { umem },
            flows: if worker.process { flows } else { 0 },
        }
    }

    /// Both together.
    pub const fn total(self) -> u64 {
        self.umem + self.flows
    }
}

/// What all workers take together, in bytes.
pub fn total(topology: &Topology) -> u64 {
    let workers = topology.workers().iter();
    workers
        .map(|worker| WorkerMemory::of(topology.engine(), worker).total())
        .sum()
}

/// The most that a worker takes for replicated sessions: its log, and the buffers of every
/// connection there may be, both ways.
pub fn sessions(topology: &Topology) -> u64 {
    let sessions = topology.sessions();
    let both_ways = |count: u32, bytes: u32| 2 * u64::from(count) * u64::from(bytes);
    sessions.log_memory.get()
        + both_ways(sessions.max.get(), sessions.client_buffer.get())
        + both_ways(sessions.connections.get(), sessions.replica_buffer.get())
}

/// Bytes for a reader: `512 B`, `16.0 MiB`, `1.2 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
