//! A topology as a table: worker, core, NUMA node, queues, memory.

use crate::host::Host;
use crate::memory::{WorkerMemory, human, total};
use crate::model::Topology;

/// One worker, as `lockstep topology show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// Its index.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: u32,
    /// The NUMA node of that core, where the host says.
    pub node: Option<u32>,
    /// Its queues in the notation of the file: `eth0:0 eth1:0-1`; empty without any.
    pub queues: String,
    /// Whether it processes packets.
    pub process: bool,
    /// Its memory.
    pub memory: WorkerMemory,
}

/// Every worker, in order.
pub fn rows(topology: &Topology, host: &Host) -> Vec<WorkerRow> {
    let workers = topology.workers().iter().enumerate();
    workers
        .map(|(worker, row)| {
            let core = u32::from(row.core.get());
            WorkerRow {
                worker,
                core,
                node: host.node_of(core),
                queues: row.queues_text(),
                process: row.process,
                memory: WorkerMemory::of(topology.engine(), row),
            }
        })
        .collect()
}

/// The workers as a table, and under it what they take together.
pub fn show(topology: &Topology, host: &Host) -> String {
    let head = [
        "WORKER",
        "CORE",
        "NUMA",
        "QUEUES",
        "PROCESSES",
        "UMEM",
        "FLOW TABLES",
    ];
    let mut table = vec![head.map(str::to_owned)];
    for row in rows(topology, host) {
        table.push([
            row.worker.to_string(),
            row.core.to_string(),
            row.node.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            if row.queues.is_empty() {
                "-".to_owned()
            } else {
                row.queues
            },
            if row.process { "yes" } else { "no" }.to_owned(),
            human(row.memory.umem),
            human(row.memory.flows),
        ]);
    }
    let widths: [usize; 7] = std::array::from_fn(|column| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &table {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    let engine = topology.engine();
    text.push_str(&format!(
        "\nspread {}, poll {}, received by the {}, {} frames of {} bytes a worker, {} together, {} available\n",
        engine.spread.name(),
        engine.poll.name(),
        engine.receive.name(),
        engine.umem_frames.get(),
        engine.frame_size.bytes(),
        human(total(topology)),
        human(host.memory_available),
    ));
    let sessions = topology.sessions();
    text.push_str(&format!(
        "replicated sessions: {} a worker, {} at most for it once a service asks for them\n",
        sessions.max.get(),
        human(crate::memory::sessions(topology)),
    ));
    text
}
