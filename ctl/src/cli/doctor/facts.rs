//! What is known of a host, as plain data: judged by functions that touch nothing.

use lockstep_api as api;
use lockstep_topology::{Host, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is known of a balancer.
#[derive(Debug, Default)]
pub struct Facts {
    pub host: Host,
    /// The topology, or why there is none.
    pub topology: Option<Result<Topology, String>>,
    pub irqs: Vec<Irq>,
    /// Whether irqbalance runs.
    pub irqbalance: bool,
    /// What `ethtool -k` says of each interface; an interface is missing where it says nothing.
    pub features: BTreeMap<String, Features>,
    /// VLAN interfaces, by the interface below.
    pub vlans: BTreeMap<String, Vec<String>>,
    pub forwarding_v4: bool,
    pub forwarding_v6: bool,
    /// The choice of `/sys/kernel/mm/transparent_hugepage/enabled`.
    pub huge_pages: Option<String>,
    /// The engine, or why it does not answer.
    pub engine: Option<Result<Engine, String>>,
    pub client_mtu: u32,
    pub probes: Vec<Probe>,
}

/// What the engine says of itself.
#[derive(Debug, Default)]
pub struct Engine {
    pub status: api::EngineStatus,
    pub snapshot: api::Snapshot,
    /// What the XDP programs did with packets: interface, verdict, how many.
    pub xdp: Vec<(String, String, u64)>,
}

/// The interrupt of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irq {
    pub number: u32,
    pub interface: String,
    /// The queue, where its name tells.
    pub queue: Option<u32>,
    /// The cores that it may be handled on.
    pub cores: BTreeSet<u32>,
}

/// Offloads by ethtool's names: whether each is on.
pub type Features = BTreeMap<String, bool>;

/// Pings of a backend, with and without the longest packet that it may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub backend: IpAddr,
    /// Bytes of the long packet, its IP header included; never fragmented.
    pub bytes: u32,
    pub short: bool,
    pub long: Reached,
}

/// What became of a long ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Yes,
    No,
    /// Somebody on the way, this host maybe, takes no packets longer than this.
    TooLong(Option<u32>),
}

/// What is known of a real server.
#[derive(Debug, Default)]
pub struct ServerFacts {
    /// Those that it is said to answer for.
    pub vips: Vec<IpAddr>,
    pub interfaces: Vec<ServerInterface>,
    pub client_mtu: u32,
}

/// An interface of a real server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInterface {
    pub name: String,
    pub kind: Kind,
    pub up: bool,
    pub mtu: u32,
    pub addresses: Vec<IpAddr>,
    /// In force: the larger of the interface's and that of `all`.
    pub rp_filter: u32,
    pub arp_ignore: u32,
    /// Whether Lockstep's XDP program ends tunnels there.
    pub decap: bool,
}

/// What an interface is to a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Other,
    Ethernet,
    /// Ends tunnels over IPv4 (`tunl0`, `sit0`), or over IPv6 (`ip6tnl0`).
    Tunnel(u8),
}
