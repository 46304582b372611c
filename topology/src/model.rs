//! The typed model: values that cannot be wrong one by one, and [`Topology`], which cannot be
//! wrong as a whole (as far as that can be known without the host).

mod division;

use crate::diagnostics::{Diagnostics, Position};
use crate::nat::Nat;
use crate::queues::{InterfaceName, Queue, QueueRange};
use crate::sessions::Sessions;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Which queue is polled on which core of a host, and with what memory.
///
/// A value has at least one interface and one worker; no core and no queue twice; every worker
/// polls a queue of every interface, or, under RPS, of none; one at least processes. Whether this host can do it is for [`crate::check`].
#[derive(Debug, Clone)]
pub struct Topology {
    pub(crate) engine: Engine,
    pub(crate) sessions: Sessions,
    pub(crate) nat: Nat,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) origin: Origin,
}

impl Topology {
    /// The file that it was read from, under the name that it was read by.
    pub fn file(&self) -> &str {
        &self.origin.file
    }

    /// A topology from its parts, by the same rules as a file's.
    ///
    /// # Errors
    /// Every rule that the parts break, without positions.
    pub fn new(
        engine: Engine,
        sessions: Sessions,
        interfaces: Vec<Interface>,
        workers: Vec<Worker>,
    ) -> Result<Self, Diagnostics> {
        let topology = Topology {
            engine,
            sessions,
            nat: Nat::default(),
            interfaces,
            workers,
            origin: Origin::default(),
        };
        crate::rules::broken(&topology).into_result(topology)
    }

    /// What concerns the engine as a whole.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is taken for replicated sessions.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What packets are rewritten with.
    pub const fn nat(&self) -> &Nat {
        &self.nat
    }

    /// The interfaces that packets are taken from and sent on, in the order of the file.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The workers in the order of the file; a worker's index is its number everywhere else.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }
}

/// Two topologies are the same when they say the same, wherever it was written.
impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        (&self.engine, &self.sessions, &self.nat) == (&other.engine, &other.sessions, &other.nat)
            && (&self.interfaces, &self.workers) == (&other.interfaces, &other.workers)
    }
}

impl Eq for Topology {}

/// Where the parts of a topology were written, for diagnostics about them.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) file: String,
    /// The `[engine]`, `[sessions]` and `[nat]` keys that the file has; that of the last is
    /// `nat.ports`, the others are in one only.
    pub(crate) keys: Vec<(&'static str, Position)>,
    /// The name of each interface.
    pub(crate) interfaces: Vec<Position>,
    pub(crate) workers: Vec<WorkerOrigin>,
}

#[derive(Debug, Clone)]
pub(crate) struct WorkerOrigin {
    pub(crate) core: Position,
    /// One for each of the worker's queues; those of a range share theirs.
    pub(crate) queues: Vec<Position>,
}

impl Default for Origin {
    fn default() -> Self {
        Origin {
            file: "topology".to_owned(),
            keys: Vec::new(),
            interfaces: Vec::new(),
            workers: Vec::new(),
        }
    }
}

impl Origin {
    pub(crate) fn key(&self, key: &str) -> Option<Position> {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map(|(_, position)| *position)
    }

    pub(crate) fn interface(&self, index: usize) -> Option<Position> {
        self.interfaces.get(index).copied()
    }

    pub(crate) fn core(&self, worker: usize) -> Option<Position> {
        self.workers.get(worker).map(|w| w.core)
    }

    pub(crate) fn queue(&self, worker: usize, queue: usize) -> Option<Position> {
        self.workers
            .get(worker)
            .and_then(|w| w.queues.get(queue).copied())
    }
}

/// What concerns the engine as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The Unix socket of the gRPC interface, an absolute path.
    pub socket: PathBuf,
    /// Where XDP programs and maps are pinned, an absolute path on a bpf file system.
    pub pin_dir: PathBuf,
    /// The engine's own addresses.
    pub addresses: Addresses,
    /// How workers wait for packets.
    pub poll: Poll,
    /// Who takes packets in from the devices.
    pub receive: Receive,
    /// How packets are spread over the workers.
    pub spread: Spread,
    /// Entries of each worker's IPv4 flow table.
    pub flows_ipv4: FlowCapacity,
    /// Entries of each worker's IPv6 flow table.
    pub flows_ipv6: FlowCapacity,
    /// Frames of each worker's UMEM, over all its queues.
    pub umem_frames: UmemFrames,
    /// Bytes of a frame.
    pub frame_size: FrameSize,
    /// A worker that shows no life for this long loses its sockets.
    pub watchdog: Watchdog,
}

impl Engine {
    /// The socket of a file that names none.
    pub const SOCKET: &'static str = "/run/lockstep/engine.sock";
    /// The pin directory of a file that names none.
    pub const PIN_DIR: &'static str = "/sys/fs/bpf/lockstep";

    /// An engine with these addresses and every default.
    pub fn new(addresses: Addresses) -> Self {
        Engine {
            socket: PathBuf::from(Self::SOCKET),
            pin_dir: PathBuf::from(Self::PIN_DIR),
            addresses,
            poll: Poll::default(),
            receive: Receive::default(),
            spread: Spread::default(),
            flows_ipv4: FlowCapacity::DEFAULT_IPV4,
            flows_ipv6: FlowCapacity::DEFAULT_IPV6,
            umem_frames: UmemFrames::DEFAULT,
            frame_size: FrameSize::default(),
            watchdog: Watchdog::DEFAULT,
        }
    }
}

/// The engine's own addresses: unicast, none twice, at least one. TCP and UDP to them go to the
/// engine, so they are not the ones that this host's other programs are reached by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// Stands in while the errors of a file are collected, one of which is about its addresses.
    pub(crate) const NONE: Addresses = Addresses(Vec::new());

    /// These addresses; `None` when there is none, one twice, or one that is not unicast
    /// ([`Addresses::is_usable`]).
    pub fn new(addresses: Vec<IpAddr>) -> Option<Self> {
        let unique = addresses
            .iter()
            .enumerate()
            .all(|(at, address)| !addresses[..at].contains(address));
        let usable = addresses.iter().copied().all(Self::is_usable);
        (!addresses.is_empty() && unique && usable).then_some(Addresses(addresses))
    }

    /// Whether an address can be the outer source of a packet that crosses a router: not
    /// unspecified, loopback, multicast, broadcast, link-local, reserved, or IPv4 mapped into IPv6.
    pub fn is_usable(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let first = v4.octets()[0];
                // 0/8 (RFC 791), 127/8 and 240/4 with the broadcast address (RFC 1112).
                !(first == 0 || first == 127 || first >= 224 || v4.is_link_local())
            }
            IpAddr::V6(v6) => {
                !(v6.is_unspecified()
                    || v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some())
            }
        }
    }

    /// All of them, in the order of the file.
    pub fn all(&self) -> &[IpAddr] {
        &self.0
    }

    /// The outer source of IPv4 tunnels: the first IPv4 address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.0.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// The outer source of IPv6 tunnels: the first IPv6 address.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.0.iter().find_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(*v6),
        })
    }
}

/// How a worker waits when its queues are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// It does not: the core is always busy, and latency lowest.
    Busy,
    /// It polls for a while, then sleeps until the kernel wakes it.
    #[default]
    Adaptive,
    /// It sleeps at once: the core is free for others when there is no traffic.
    Interrupt,
}

impl Poll {
    /// Its name in `topology.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Poll::Busy => "busy",
            Poll::Adaptive => "adaptive",
            Poll::Interrupt => "interrupt",
        }
    }
}

/// Who takes packets in from a device and runs the XDP program: what the kernel calls NAPI polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receive {
    /// The kernel's software interrupt, on the CPU that a queue's interrupt goes to.
    #[default]
    Kernel,
    /// The worker itself, in a system call whenever its queue is empty, while the device's interrupts
    /// stay masked: the kernel's preferred busy polling (`SO_PREFER_BUSY_POLL`, Linux 5.11).
    Worker,
}

impl Receive {
    /// Its name in `topology.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Receive::Kernel => "kernel",
            Receive::Worker => "worker",
        }
    }
}

/// How packets are spread over the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// By the queues that the NIC puts them into (receive side scaling).
    #[default]
    Rss,
    /// By the workers themselves (receive packet steering): one that receives hands each packet to
    /// the one that has its flow.
    Rps,
}

impl Spread {
    /// Its name in `topology.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Spread::Rss => "rss",
            Spread::Rps => "rps",
        }
    }
}

/// How an AF_XDP socket is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindMode {
    /// The first of the others that works, in their order.
    #[default]
    Auto,
    /// Native XDP, and the device writes into the UMEM itself.
    ZeroCopy,
    /// Native XDP, and the kernel copies each packet into the UMEM.
    Copy,
    /// XDP behind the driver, on any device; slow.
    Generic,
}

impl BindMode {
    /// Its name in `topology.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            BindMode::Auto => "auto",
            BindMode::ZeroCopy => "zero-copy",
            BindMode::Copy => "copy",
            BindMode::Generic => "generic",
        }
    }
}

macro_rules! bounded {
    ($(#[doc = $doc:literal])+ $name:ident($inner:ty), $min:expr, $max:expr, $fits:expr, $allowed:literal) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// The least that is allowed.
            pub const MIN: $inner = $min;
            /// The most that is allowed.
            pub const MAX: $inner = $max;
            /// What is allowed, for messages.
            pub const ALLOWED: &'static str = $allowed;

            /// This value; `None` when it is not one that is allowed.
            pub fn new(value: $inner) -> Option<Self> {
                let fits: fn($inner) -> bool = $fits;
                ((Self::MIN..=Self::MAX).contains(&value) && fits(value)).then_some($name(value))
            }

            /// The value as it is.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
    };
}
pub(crate) use bounded;

bounded! {
    /// Entries of a flow table.
    FlowCapacity(u32), 1_024, 1 << 26, |_| true, "1024 to 67108864"
}

impl FlowCapacity {
    /// IPv4 entries of a file that names none.
    pub const DEFAULT_IPV4: FlowCapacity = FlowCapacity(1_000_000);
    /// IPv6 entries of a file that names none.
    pub const DEFAULT_IPV6: FlowCapacity = FlowCapacity(250_000);
}

bounded! {
    /// Frames of a UMEM.
    UmemFrames(u32), 256, 1 << 20, u32::is_power_of_two, "a power of two from 256 to 1048576"
}

impl UmemFrames {
    /// Frames of a file that names none.
    pub const DEFAULT: UmemFrames = UmemFrames(8_192);
    /// The fewest that one queue needs: a burst of 64 in the RX ring, and one on its way out.
    pub const PER_QUEUE: u32 = 128;
}

bounded! {
    /// How long a worker may show no life.
    Watchdog(Duration), Duration::from_millis(10), Duration::from_secs(60),
    |d| d.subsec_nanos() % 1_000_000 == 0, "10ms to 1m"
}

impl Watchdog {
    /// The patience of a file that names none.
    pub const DEFAULT: Watchdog = Watchdog(Duration::from_secs(1));
}

bounded! {
    /// The number of a CPU core, as in `/sys/devices/system/cpu`.
    Core(u16), 0, 8_191, |_| true, "0 to 8191"
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes of a UMEM frame: what AF_XDP's aligned mode allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FrameSize {
    /// 2,048 bytes: an MTU of up to 1,734.
    #[default]
    Bytes2048,
    /// 4,096 bytes: an MTU of up to 3,782.
    Bytes4096,
}

impl FrameSize {
    /// The kernel keeps this much of each frame free in front of the packet
    /// (`XDP_PACKET_HEADROOM`).
    pub const HEADROOM: u32 = 256;
    /// The most that stands in front of an IP packet in a frame: the Ethernet header (14 bytes),
    /// an outer IPv6 header (40) and a VLAN tag on the way out (4).
    pub const IN_FRONT: u32 = 14 + 40 + 4;

    /// The frame of so many bytes, when there is one.
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            2_048 => Some(FrameSize::Bytes2048),
            4_096 => Some(FrameSize::Bytes4096),
            _ => None,
        }
    }

    /// Its bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            FrameSize::Bytes2048 => 2_048,
            FrameSize::Bytes4096 => 4_096,
        }
    }

    /// The largest MTU whose packets fit, with all that may stand in front of them.
    pub const fn max_mtu(self) -> u32 {
        self.bytes() - Self::HEADROOM - Self::IN_FRONT
    }
}

/// An interface that packets are taken from and sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name for it.
    pub name: InterfaceName,
    /// How its sockets are bound.
    pub mode: BindMode,
}

/// One pinned thread and the queues it polls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The core it is pinned to.
    pub core: Core,
    /// The queues it polls, in the order of the file; none under RPS where it only processes.
    pub queues: Vec<Queue>,
    /// Whether it processes packets; under RPS one that does not receives and sends for others.
    pub process: bool,
}

impl Worker {
    /// The most queues an engine's worker waits for at a time. As each worker has a queue of
    /// every interface, there are no more interfaces either.
    pub const MAX_QUEUES: usize = 64;

    /// Its queues in the notation of the file: `eth0:0 eth1:0-1`; empty without any.
    pub fn queues_text(&self) -> String {
        let ranges = QueueRange::cover(&self.queues);
        let texts: Vec<String> = ranges.iter().map(QueueRange::to_string).collect();
        texts.join(" ")
    }
}
