//! The ways from the client to its servers.

use crate::experiments::engine::{Mode, start_engine};
use crate::replicate::Cpus;
use crate::replicate::network::{Network, PORT, VIP, server};
use crate::site::Lockstep;
use anyhow::Result;
use nix::unistd::Pid;
use std::net::Ipv4Addr;

/// A kind of way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kernel routes to one server, and translates nothing.
    Routing,
    /// nftables translates the destination, as a node port's rules do.
    Dnat,
    /// The engine translates the destination.
    Nat,
    /// The engine replicates to so many servers.
    Replicate(usize),
}

impl Way {
    /// Its name in figures.
    pub fn name(self) -> String {
        match self {
            Way::Routing => "routing".to_owned(),
            Way::Dnat => "nftables DNAT".to_owned(),
            Way::Nat => "engine, NAT".to_owned(),
            Way::Replicate(1) => "engine, 1 replica".to_owned(),
            Way::Replicate(count) => format!("engine, {count} replicas"),
        }
    }

    /// Servers behind it.
    pub fn servers(self) -> usize {
        match self {
            Way::Routing | Way::Dnat | Way::Nat => 1,
            Way::Replicate(count) => count,
        }
    }

    /// Where they listen.
    pub fn addresses(self) -> Vec<Ipv4Addr> {
        match self {
            Way::Routing => vec![VIP],
            Way::Dnat | Way::Nat | Way::Replicate(_) => (0..self.servers()).map(server).collect(),
        }
    }

    /// Puts it in place, in front of servers that listen. With `policy` below
    /// `[service.replicate]`.
    pub fn open(self, network: &Network, policy: &str, cpus: Cpus) -> Result<Path> {
        let engine = match self {
            Way::Routing => {
                (network.balancer).sysctl(&[("net.ipv4.ip_forward", "1")])?;
                (network.balancer).ip(&format!("route add {VIP}/32 via {}", server(0)))?;
                None
            }
            Way::Dnat => {
                (network.balancer).sysctl(&[("net.ipv4.ip_forward", "1")])?;
                let script = format!(
                    "table ip balance {{\nchain to {{\ntype nat hook prerouting priority dstnat\n\
                     ip daddr {VIP} tcp dport {PORT} dnat to {}\n}}\n}}\n",
                    server(0)
                );
                network.balancer.output("nft", &[&script])?;
                None
            }
            Way::Nat => Some(start_engine(network, &Mode::Nat, cpus)?),
            Way::Replicate(replicas) => {
                let mode = Mode::Replicate {
                    replicas,
                    policy: policy.to_owned(),
                };
                Some(start_engine(network, &mode, cpus)?)
            }
        };
        Ok(Path { way: self, engine })
    }
}

/// A way that is in place.
#[derive(Debug)]
pub struct Path {
    /// Of which kind it is.
    pub way: Way,
    engine: Option<Lockstep>,
}

impl Path {
    /// The process that balances; none where the kernel does.
    pub fn program(&self) -> Option<Pid> {
        self.engine.as_ref().map(|engine| engine.engine().pid())
    }
}
