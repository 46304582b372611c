//! Next hops: which Ethernet header leads to each backend.
//!
//! The workers write Ethernet headers themselves, but routing, ARP (RFC 826) and neighbor
//! discovery (RFC 4861) stay with the kernel. [`NextHops`] follows the kernel's routes, neighbors
//! and links by rtnetlink (RFC 3549), for the addresses it is told to follow, and asks the kernel
//! to resolve what is missing.
//!
//! - [`state`]: what is known and what to ask next, without I/O and clock.
//! - [`hop`]: the life of one neighbor, a part of the state.
//! - [`driver`]: the loop between state, kernel and the rest of the agent.
//! - [`netlink`] and [`message`]: the kernel's end of it.

mod driver;
mod hop;
mod message;
mod netlink;
mod state;

use driver::{Counters, Driver};
use lockstep_plan::DropReason;
use netlink::Netlink;
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;

/// What the way to every followed address is. An address is missing until the kernel has been
/// asked about it, which takes about a millisecond.
pub type Table = BTreeMap<IpAddr, Resolution>;

/// What a worker needs to send to an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface frames leave by: for a VLAN device the one it is on, as in `topology.toml`.
    pub device: String,
    /// That interface's number in the kernel.
    pub ifindex: u32,
    /// The 802.1Q tag that frames carry, 1 to 4094.
    pub vlan: Option<u16>,
    /// The source MAC address.
    pub source: [u8; 6],
    /// The destination MAC address: the backend's own or its gateway's.
    pub destination: [u8; 6],
    /// The longest IP packet in bytes that fits: the smaller of the device's and the route's.
    pub mtu: u16,
    /// The gateway; `None` when the address is on the link itself.
    pub via: Option<IpAddr>,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.destination;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.device)?;
        match self.vlan {
            Some(vlan) => write!(f, " (vlan {vlan})"),
            None => Ok(()),
        }
    }
}

/// The way to an address, or what stands in it. Its text is for `lockstep status`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Frames can be sent.
    Reachable(NextHop),
    /// The kernel does not route there.
    NoRoute(NoRoute),
    /// There is a route, but its next hop has no link-layer address (yet).
    NoNeighbour {
        /// The interface it is looked for on.
        device: String,
        /// Who does not answer: the gateway, or the address itself.
        next: IpAddr,
    },
    /// The route's interface is down or has no carrier.
    Down {
        /// The interface.
        device: String,
    },
    /// The route's interface is of a kind the engine does not send by.
    Unsupported {
        /// The interface.
        device: String,
        /// What is not supported about it.
        why: Unsupported,
    },
}

impl Resolution {
    /// The next hop, when there is one.
    pub const fn next_hop(&self) -> Option<&NextHop> {
        match self {
            Resolution::Reachable(hop) => Some(hop),
            Resolution::NoRoute(_)
            | Resolution::NoNeighbour { .. }
            | Resolution::Down { .. }
            | Resolution::Unsupported { .. } => None,
        }
    }

    /// Why packets to the address are dropped, when they are.
    pub const fn drop_reason(&self) -> Option<DropReason> {
        match self {
            Resolution::Reachable(_) => None,
            Resolution::NoRoute(_) | Resolution::Down { .. } => Some(DropReason::NoRoute),
            Resolution::NoNeighbour { .. } => Some(DropReason::NoNeighbour),
            Resolution::Unsupported { .. } => Some(DropReason::NoPort),
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resolution::Reachable(hop) => hop.fmt(f),
            Resolution::NoRoute(why) => why.fmt(f),
            Resolution::NoNeighbour { device, next } => {
                write!(f, "{next} does not answer on {device}")
            }
            Resolution::Down { device } => write!(f, "{device} is down"),
            Resolution::Unsupported { device, why } => write!(f, "{device} {why}"),
        }
    }
}

/// Why the kernel does not route to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoRoute {
    /// No route matches.
    #[error("no route; see `ip route get`")]
    Missing,
    /// A route of type `unreachable` matches.
    #[error("the route is of type unreachable")]
    Unreachable,
    /// A route of type `prohibit` matches.
    #[error("the route is of type prohibit")]
    Prohibited,
    /// A route of type `blackhole` matches.
    #[error("the route is of type blackhole")]
    Blackhole,
    /// The address belongs to this host.
    #[error("is an address of this host")]
    Local,
    /// A broadcast, multicast or anycast address.
    #[error("is a broadcast, multicast or anycast address")]
    NotUnicast,
    /// The route adds a header (MPLS, segment routing, a tunnel) that the engine does not write.
    #[error("the route has an encapsulation, which the engine does not write")]
    Encapsulated,
    /// The kernel answered with an error that no route explains.
    #[error("the kernel refuses the lookup: {}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
}

/// Why the engine cannot send by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unsupported {
    /// Loopback, TUN, an IP tunnel, ...
    #[error("is not an Ethernet device")]
    NotEthernet,
    /// A VLAN device on a VLAN device, or one with 802.1ad service tags.
    #[error("adds more than one 802.1Q tag")]
    StackedVlan,
    /// A VLAN device whose base the engine cannot see.
    #[error("is a VLAN of an interface in another network namespace")]
    ForeignBase,
}

/// Why next hops cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NextHopError {
    /// No rtnetlink socket.
    #[error("cannot open an rtnetlink socket: {0}; is AF_NETLINK allowed for this service?")]
    Open(#[source] io::Error),
    /// The kernel does not send its changes.
    #[error("cannot subscribe to the kernel's {group} changes: {source}")]
    Subscribe {
        /// What changes, in rtnetlink's words.
        group: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A request could not be sent or its answer not be read.
    #[error("rtnetlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused to list its interfaces.
    #[error("the kernel does not list its interfaces: {0}")]
    Links(#[source] io::Error),
    /// The kernel did not answer.
    #[error("the kernel does not answer an rtnetlink request within {0} s")]
    Timeout(u64),
    /// Changes came faster than they were read, and some are lost.
    #[error("the kernel's changes came faster than they were read")]
    Overrun,
}

/// How much next hops cost so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests sent to the kernel.
    pub queries: u64,
    /// Changes heard of that concern the engine or may do so.
    pub events: u64,
    /// Times everything was asked anew, because the kernel's messages came faster than they
    /// were read.
    pub resyncs: u64,
    /// Times the rtnetlink sockets were opened anew after an error.
    pub restarts: u64,
    /// Neighbor resolutions that the kernel refused.
    pub refusals: u64,
}

/// Follows the kernel's next hops for a set of addresses. Dropping it ends its task.
#[derive(Debug)]
pub struct NextHops {
    follow: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    table: watch::Receiver<Arc<Table>>,
    counters: Arc<Counters>,
}

impl NextHops {
    /// Subscribes to the kernel's changes in the network namespace of the calling thread and
    /// starts a task, on the current tokio runtime, that follows them.
    ///
    /// Errors of later days are logged and answered by opening the sockets anew; until that
    /// works, the last table stays in force.
    pub async fn start() -> Result<Self, NextHopError> {
        let mut state = State::new(Instant::now());
        let kernel = driver::connect(&mut state, Netlink::open).await?;
        let (follow, followed) = watch::channel(Arc::default());
        let (publish, table) = watch::channel(Arc::default());
        let counters = Arc::new(Counters::default());
        let driver = Driver::new(state, followed, publish, Arc::clone(&counters));
        tokio::spawn(driver.run(kernel, Netlink::open));
        Ok(NextHops {
            follow,
            table,
            counters,
        })
    }

    /// Replaces the set of followed addresses. Cheap when it is the same as before.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.follow.send_if_modified(|followed| {
            let changed = **followed != addresses;
            if changed {
                *followed = Arc::new(addresses);
            }
            changed
        });
    }

    /// The table as of now, and notice when it changes: at most every few milliseconds.
    pub fn watch(&self) -> watch::Receiver<Arc<Table>> {
        self.table.clone()
    }

    /// What it has cost so far.
    pub fn usage(&self) -> Usage {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            queries: read(&self.counters.queries),
            events: read(&self.counters.events),
            resyncs: read(&self.counters.resyncs),
            restarts: read(&self.counters.restarts),
            refusals: read(&self.counters.refusals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_reads_as_ip_route_would_print_it() {
        let mut hop = NextHop {
            device: "eth0".into(),
            ifindex: 2,
            vlan: Some(100),
            source: [2, 0, 0, 0, 0, 1],
            destination: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            mtu: 1500,
            via: Some([10, 0, 0, 1].into()),
        };
        let text = |hop: &NextHop| Resolution::Reachable(hop.clone()).to_string();
        assert_eq!(
            text(&hop),
            "52:54:00:12:34:56 via 10.0.0.1 dev eth0 (vlan 100)"
        );
        (hop.vlan, hop.via) = (None, None);
        assert_eq!(text(&hop), "52:54:00:12:34:56 dev eth0");
    }
}
