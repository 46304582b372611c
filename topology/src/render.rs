//! A topology as the text of a `topology.toml`, with a comment for each key.

use crate::duration;
use crate::model::{Core, Engine, FlowCapacity, Topology, UmemFrames, Watchdog};
use crate::nat::Nat;
use crate::queues::QueueRange;
use crate::sessions::Sessions;
use std::fmt::Write;

/// The text of a `topology.toml` that [`Topology::parse`] reads back as the same topology.
pub fn render(topology: &Topology) -> String {
    let mut text = String::from(
        "# Which queue of which interface is polled on which core.\n\
         # `lockstep topology check` compares this with the host, `show` prints it as a table.\n\n",
    );
    engine(&mut text, topology.engine());
    sessions(&mut text, topology.sessions());
    nat(&mut text, topology.nat());
    interfaces(&mut text, topology);
    workers(&mut text, topology);
    text
}

fn line(text: &mut String, comment: &str, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# {comment}\n{key} = {value}\n");
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item)).collect();
    format!("[{}]", items.join(", "))
}

fn engine(text: &mut String, engine: &Engine) {
    text.push_str("[engine]\n");
    let socket = engine.socket.to_string_lossy();
    let pin_dir = engine.pin_dir.to_string_lossy();
    let addresses = engine.addresses.all().iter().map(ToString::to_string);
    let entries = format!("{} entries.", FlowCapacity::ALLOWED);
    let rows: [(&str, &str, String); 11] = [
        (
            "The Unix socket of the engine's API.",
            "socket",
            quoted(&socket),
        ),
        (
            "Where XDP programs and maps are pinned, on a bpf file system.",
            "pin_dir",
            quoted(&pin_dir),
        ),
        (
            "The engine's addresses, extra ones that the network routes to this host: TCP and UDP to\n\
             # them go to the engine. The first IPv4 and the first IPv6 one are the outer source of\n\
             # tunnels.",
            "addresses",
            list(addresses),
        ),
        (
            "How workers wait for packets: busy (never sleep), adaptive (poll, then sleep), interrupt\n\
             # (sleep at once).",
            "poll",
            quoted(engine.poll.name()),
        ),
        (
            "Who takes packets in from the devices: kernel (its software interrupt), worker (preferred busy\n\
             # polling, for which `lockstep topology apply` prepares the interfaces).",
            "receive",
            quoted(engine.receive.name()),
        ),
        (
            "How packets are spread over workers: rss (each processes what comes to its queues), rps\n\
             # (those with queues hand each packet to the worker that has its flow).",
            "spread",
            quoted(engine.spread.name()),
        ),
        (
            &format!("IPv4 flows that each worker remembers, {entries}"),
            "flows_ipv4",
            engine.flows_ipv4.get().to_string(),
        ),
        (
            &format!("IPv6 flows that each worker remembers, {entries}"),
            "flows_ipv6",
            engine.flows_ipv6.get().to_string(),
        ),
        (
            &format!(
                "Packet buffers of each worker, over all its queues: {}.",
                UmemFrames::ALLOWED
            ),
            "umem_frames",
            engine.umem_frames.get().to_string(),
        ),
        (
            "Bytes of a packet buffer: 2048 (MTU up to 1734) or 4096 (MTU up to 3782).",
            "frame_size",
            engine.frame_size.bytes().to_string(),
        ),
        (
            &format!(
                "A worker that shows no life for this long loses its sockets: the XDP program carries\n\
                 # the packets of tunnels then, and the kernel gets the others. {}.",
                Watchdog::ALLOWED
            ),
            "watchdog",
            quoted(&duration::format(engine.watchdog.get())),
        ),
    ];
    for (comment, key, value) in &rows {
        line(text, comment, key, value);
    }
}

fn sessions(text: &mut String, sessions: &Sessions) {
    text.push_str(
        "\n# What each worker takes for replicated sessions, when the first service asks for them.\n\
         [sessions]\n",
    );
    let rows: [(&str, &str, String); 7] = [
        (
            "Sessions of each worker.",
            "max",
            sessions.max.get().to_string(),
        ),
        (
            "Connections of each worker to replicas.",
            "connections",
            sessions.connections.get().to_string(),
        ),
        (
            "Bytes of the buffers of a client's connection, each way: its window.",
            "client_buffer",
            sessions.client_buffer.get().to_string(),
        ),
        (
            "Bytes of the buffers of a replica's connection, each way: how far it may be ahead.",
            "replica_buffer",
            sessions.replica_buffer.get().to_string(),
        ),
        (
            "Bytes of each worker's memory for input that is kept.",
            "log_memory",
            sessions.log_memory.get().to_string(),
        ),
        (
            "Local ports of connections to replicas, split evenly over the workers.",
            "ports",
            quoted(&sessions.ports.to_string()),
        ),
        (
            "Bytes of all files under `spill`.",
            "spill_limit",
            sessions.spill_limit.get().to_string(),
        ),
    ];
    for (comment, key, value) in &rows {
        line(text, comment, key, value);
    }
    let comment = "A directory for input that has no room in memory; nowhere without it.";
    match &sessions.spill {
        Some(spill) => line(text, comment, "spill", &quoted(&spill.to_string_lossy())),
        None => {
            let example = quoted("/var/lib/lockstep/spill");
            line(text, comment, "# spill", &example);
        }
    }
}

fn nat(text: &mut String, nat: &Nat) {
    text.push_str(
        "\n# What packets of services with mode = \"full-nat\" are rewritten with.\n[nat]\n",
    );
    line(
        text,
        "Ports of the engine's addresses that are taken as sources, split evenly over the workers.",
        "ports",
        &quoted(&nat.ports.to_string()),
    );
}

fn interfaces(text: &mut String, topology: &Topology) {
    text.push_str("\n# One for each interface that packets are taken from and sent on.\n");
    for (index, interface) in topology.interfaces().iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str("[[interface]]\n");
        let name = quoted(interface.name.as_str());
        line(text, "The kernel's name for it.", "name", &name);
        line(
            text,
            "How sockets are bound: auto (the first that works), zero-copy, copy, generic.",
            "mode",
            &quoted(interface.mode.name()),
        );
    }
}

fn workers(text: &mut String, topology: &Topology) {
    text.push_str(
        "\n# One for each pinned thread. Each polls a queue of every interface at least, and every\n\
         # queue is polled by one; under rps a worker may be without queues.\n",
    );
    for (index, worker) in topology.workers().iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str("[[worker]]\n");
        let core = worker.core.to_string();
        let comment = format!("The core it is pinned to: {}.", Core::ALLOWED);
        line(text, &comment, "core", &core);
        let ranges = QueueRange::cover(&worker.queues);
        let ranges = list(ranges.iter().map(ToString::to_string));
        let comment = "The RX queues it polls: INTERFACE:QUEUE or INTERFACE:FIRST-LAST.";
        line(text, comment, "queues", &ranges);
        let comment = "Whether it processes packets, or only receives and sends (rps).";
        line(text, comment, "process", &worker.process.to_string());
    }
}
