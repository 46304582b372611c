//! `topology.toml`: which queue is polled on which core of this host, and with what memory.
//!
//! [`Topology::parse`] reads the file, [`check`] compares it with a [`Host`], [`detect`] proposes
//! one, [`render`] writes it, [`show`] prints it, [`apply::apply`] says how the NICs become as it
//! needs them. Only [`Host::discover`] touches the machine, and it only reads files.
//!
//! # The file
//!
//! ```toml
//! [engine]
//! addresses = ["192.0.2.10", "2001:db8::10"]
//!
//! [[interface]]
//! name = "eth0"
//!
//! [[interface]]
//! name = "eth1"
//!
//! [[worker]]
//! core = 1
//! queues = ["eth0:0", "eth1:0-1"]
//! ```
//!
//! Unknown keys are errors. `[engine]`, once:
//!
//! | key | what | allowed | default |
//! |---|---|---|---|
//! | `socket` | the Unix socket of the engine's API | an absolute path of at most 107 bytes | `/run/lockstep/engine.sock` |
//! | `pin_dir` | where XDP programs and maps are pinned | an absolute path on a bpf file system | `/sys/fs/bpf/lockstep` |
//! | `addresses` | the engine's addresses, extra ones that the network routes to this host: TCP and UDP to them go to the engine, and the first of each IP version is the outer source of tunnels | unicast addresses, one at least, none twice, none that is an interface's only one | required |
//! | `poll` | how workers wait for packets | `busy`, `adaptive`, `interrupt` | `adaptive` |
//! | `receive` | who takes packets in from the devices | `kernel` (its software interrupt), `worker` (each its own queues, by preferred busy polling; not with `poll = "interrupt"`) | `kernel` |
//! | `spread` | how packets are spread over workers | `rss` (each polls queues and processes what comes there), `rps` (those that poll hand each packet to the one that has its flow) | `rss` |
//! | `flows_ipv4` | entries of each worker's IPv4 flow table | 1,024 to 67,108,864 | 1,000,000 |
//! | `flows_ipv6` | entries of each worker's IPv6 flow table | 1,024 to 67,108,864 | 250,000 |
//! | `umem_frames` | packet buffers of each worker, over all its queues | a power of two from 256 to 1,048,576, 128 a queue at least | 8,192 |
//! | `frame_size` | bytes of a packet buffer | 2048 (MTU up to 1,734), 4096 (MTU up to 3,782) | 2048 |
//! | `watchdog` | a worker that shows no life for this long loses its sockets: the XDP program carries the packets of tunnels then, and the kernel gets the others | 10 ms to 1 m, with a unit: `"500ms"` | `"1s"` |
//!
//! `[sessions]`, once or not at all: what each worker takes when the first service with `mode = "replicate"` comes.
//!
//! | key | what | allowed | default |
//! |---|---|---|---|
//! | `max` | sessions of each worker | 1 to 1,048,576 | 4,096 |
//! | `connections` | connections of each worker to replicas; each needs a port of its own | 1 to 65,536 | 16,384 |
//! | `client_buffer` | bytes of the buffers of a client's connection, each way: the window that it is offered | a power of two from 4,096 to 16,777,216 | 262,144 |
//! | `replica_buffer` | bytes of the buffers of a replica's connection, each way: how far it may be ahead of what the client was sent | a power of two from 4,096 to 16,777,216 | 131,072 |
//! | `log_memory` | bytes of each worker's memory for input that is kept | 1,048,576 to 1,099,511,627,776 | 268,435,456 |
//! | `ports` | local ports of the connections to replicas, split evenly over the workers | `"FIRST-LAST"` from 1024 to 65535, 64 a worker at least | `"16384-65535"` |
//! | `spill` | the directory for input that has no room in memory; without it such sessions cannot be joined any more | an absolute path | none |
//! | `spill_limit` | bytes of all files there | 1,048,576 to 1,125,899,906,842,624 | 4,294,967,296 |
//!
//! `[nat]`, once or not at all: what packets of services with `mode = "full-nat"` are rewritten with.
//!
//! | key | what | allowed | default |
//! |---|---|---|---|
//! | `ports` | the ports of the engine's addresses that are taken as sources, split evenly over the workers; each port once for each backend and address | `"FIRST-LAST"` from 1024 to 65535, 64 a worker at least, none of `[sessions]` | `"1024-16383"` |
//!
//! `[[interface]]`, one for each interface that packets are taken from and sent on:
//!
//! | key | what | allowed | default |
//! |---|---|---|---|
//! | `name` | the kernel's name for it | the name of an Ethernet interface | required |
//! | `mode` | how its sockets are bound | `auto` (the first that works), `zero-copy`, `copy`, `generic` | `auto` |
//!
//! `[[worker]]`, one for each pinned thread, which polls one queue of every interface at least; under RPS it may be without any:
//!
//! | key | what | allowed | default |
//! |---|---|---|---|
//! | `core` | the core it is pinned to | a core of its own, on line | required |
//! | `queues` | the RX queues it polls; it sends on the TX queues of the same numbers | `"INTERFACE:QUEUE"` and `"INTERFACE:FIRST-LAST"`, 64 queues at most, none or some of every interface under `rps` | required under `rss` |
//! | `process` | whether it processes packets; one that does not receives and sends for others | `true`, `false` under `rps` | `true` |

#![forbid(unsafe_code)]

pub mod apply;
pub mod diagnostics;
pub mod duration;

mod check;
mod deferral;
mod detect;
mod file;
mod host;
mod memory;
mod model;
mod nat;
mod queues;
mod render;
mod rules;
mod sessions;
mod show;

pub use check::{ENGINE_ADDRESS_IS_FINE, VETH_MAX_MTU, check};
pub use deferral::Deferral;
pub use detect::{DetectError, Wishes, detect};
pub use host::{DiscoverError, Host, HostInterface, InterfaceKind};
pub use memory::{WorkerMemory, total as total_memory};
pub use model::{
    Addresses, BindMode, Core, Engine, FlowCapacity, FrameSize, Interface, Poll, Receive, Spread,
    Topology, UmemFrames, Watchdog, Worker,
};
pub use nat::Nat;
pub use queues::{InterfaceName, ParseQueuesError, Queue, QueueRange};
pub use render::render;
pub use sessions::{
    BufferSize, ConnectionCapacity, LogMemory, ParsePortsError, PortRange, SessionCapacity,
    Sessions, SpillLimit,
};
pub use show::{WorkerRow, rows, show};

#[cfg(test)]
mod tests;
