//! The cases: what stands between client and servers.

use super::network::{ENGINE, Network, SERVERS, backend};
use crate::replicate::Cpus;
use crate::replicate::network::{IN, OUT, PORT, VIP, server};
use crate::site::{Lockstep, haproxy, nginx_stream, receive_by_thread_on};
use anyhow::Result;
use lockstep_tests::lab::Process;
use std::net::SocketAddr;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// The kernel routes to one server, without balancing or connection tracking.
    Routing,
    /// nftables translates the destination.
    NftablesDnat,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
    /// nginx' stream module, one worker.
    NginxStream,
    /// The engine with tunnels; the servers answer the client themselves.
    Tunnel,
    /// The same, its worker sleeping whenever there is nothing: what it does not spend on polling.
    TunnelInterrupt,
    /// The engine, rewriting the destination.
    Nat,
    /// The engine, rewriting both addresses.
    FullNat,
    /// The engine, replicating to one server.
    Replicate,
    /// The tunnels of the XDP program alone, the engine killed.
    Fallback,
}

impl Case {
    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Case::Routing => "routing",
            Case::NftablesDnat => "nftables-dnat",
            Case::Haproxy => "haproxy",
            Case::NginxStream => "nginx-stream",
            Case::Tunnel => "engine-tunnel",
            Case::TunnelInterrupt => "engine-tunnel-interrupt",
            Case::Nat => "engine-nat",
            Case::FullNat => "engine-full-nat",
            Case::Replicate => "engine-replicate",
            Case::Fallback => "engine-fallback",
        }
    }

    /// Whether answers go from the servers to the client without the balancer.
    pub const fn answers_directly(self) -> bool {
        matches!(self, Case::Tunnel | Case::TunnelInterrupt | Case::Fallback)
    }

    /// Puts it in place; when this returns, it can be connected to.
    pub fn start(self, network: &Network, cpus: Cpus) -> Result<Balancer> {
        let netns = network.balancer();
        let (vip, servers) = ((VIP, PORT).into(), backends());
        match self {
            Case::Routing => {
                netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;
                (network.servers()).ip(&format!("addr add {VIP}/32 dev lo"))?;
                netns.ip(&format!("route add {VIP}/32 via {}", server(0)))?;
                Ok(Balancer::Kernel)
            }
            Case::NftablesDnat => {
                netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;
                translate(network)?;
                Ok(Balancer::Kernel)
            }
            Case::Haproxy => {
                netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
                haproxy(network.site(), cpus.balancer, vip, &servers).map(Balancer::Proxy)
            }
            Case::NginxStream => {
                netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
                nginx_stream(network.site(), cpus.balancer, vip, false, &servers)
                    .map(Balancer::Proxy)
            }
            Case::Tunnel | Case::TunnelInterrupt | Case::Nat | Case::FullNat | Case::Replicate => {
                self.engine(network, cpus).map(Balancer::Engine)
            }
            Case::Fallback => {
                let mut engine = self.engine(network, cpus)?;
                engine.kill()?;
                Ok(Balancer::Kernel)
            }
        }
    }

    /// The engine, its packets taken in on its own CPU as the kernel's are with RPS.
    fn engine(self, network: &Network, cpus: Cpus) -> Result<Lockstep> {
        let (mode, servers) = match self {
            Case::Nat => ("nat", SERVERS),
            Case::FullNat => ("full-nat", SERVERS),
            Case::Replicate => ("replicate", 1),
            _ => ("tunnel", SERVERS),
        };
        let poll = match self {
            Case::TunnelInterrupt => "interrupt",
            _ => "adaptive",
        };
        let topology = format!(
            "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = {ENGINE:?}\n\
             poll = \"{poll}\"\n\n\
             [[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
             [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
            network.site().file("engine.sock"),
            network.pins(),
            cpus.balancer
        );
        let backends: Vec<String> = (0..servers)
            .map(|index| format!("{{ address = \"{}\" }}", server(index)))
            .collect();
        let services = format!(
            "[[service]]\nname = \"web\"\nvips = [\"{VIP}:{PORT}/tcp\"]\nmode = \"{mode}\"\n\
             backends = [{}]\n",
            backends.join(", ")
        );
        let engine = Lockstep::start(network.site(), &topology, &services, servers)?;
        for device in [IN, OUT] {
            receive_by_thread_on(network.balancer(), device, cpus.balancer)?;
        }
        Ok(engine)
    }
}

fn backends() -> Vec<SocketAddr> {
    (0..SERVERS).map(backend).collect()
}

fn translate(network: &Network) -> Result<()> {
    let backends: Vec<String> = (0..SERVERS)
        .map(|index| format!("{index} : {}", server(index)))
        .collect();
    let script = format!(
        "table ip balance {{\nchain to {{\ntype nat hook prerouting priority dstnat\n\
         ip daddr {VIP} tcp dport {PORT} dnat to jhash ip saddr . tcp sport mod {SERVERS} map \
         {{ {} }}\n}}\n}}\n",
        backends.join(", ")
    );
    network.balancer().output("nft", &[&script]).map(drop)
}

/// What is in place.
#[derive(Debug)]
pub enum Balancer {
    /// Nothing that has to be kept.
    Kernel,
    /// Another's program.
    Proxy(#[expect(dead_code, reason = "it runs until it is dropped")] Process),
    /// Programs of ours.
    Engine(#[expect(dead_code, reason = "it runs until it is dropped")] Lockstep),
}
