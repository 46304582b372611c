//! The cases between client and servers.

use super::super::Cpus;
use super::super::case::Case;
use super::super::engine::{Balancer, IN, OUT, Plan, forward_by_xdp, receive_by_xdp};
use super::network::{ENGINE, Network, SERVERS, backend};
use crate::replicate::network::{CLIENT_DEVICE, PORT, SERVERS_DEVICE, VIP, server};
use crate::site::{Lockstep, haproxy, nginx_stream, receive_by_thread_on};
use anyhow::{Result, bail};
use std::net::{Ipv4Addr, SocketAddr};

/// Puts a case in place; when this returns, it can be connected to.
pub fn start(case: Case, network: &Network, cpus: Cpus) -> Result<Balancer> {
    let netns = network.balancer();
    let (vip, servers) = ((VIP, PORT).into(), backends());
    match case {
        Case::LinuxForwarding => {
            netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;
            network.servers().ip(&format!("addr add {VIP}/32 dev lo"))?;
            netns.ip(&format!("route add {VIP}/32 via {}", server(0)))?;
            Ok(Balancer::Kernel)
        }
        Case::XdpForwarding => {
            network.servers().ip(&format!("addr add {VIP}/32 dev lo"))?;
            forward_both_ways(network)?;
            receive_by_threads(network, cpus)?;
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
            nginx_stream(network.site(), cpus.balancer, vip, false, &servers).map(Balancer::Proxy)
        }
        Case::LockstepTunnel
        | Case::LockstepTunnelInterrupt
        | Case::LockstepNat
        | Case::LockstepFullNat
        | Case::LockstepReplicate => engine(case, network, cpus).map(Balancer::Engine),
        Case::LockstepFallback => {
            engine(case, network, cpus)?.kill()?;
            Ok(Balancer::Kernel)
        }
        Case::LinuxForwardingOneCpu
        | Case::NftablesDnatOneCpu
        | Case::LockstepTunnelOneCpu
        | Case::LockstepGue => bail!("{case} is measured with UDP only"),
    }
}

/// The engine, its packets taken in on its own CPU as the kernel's are with RPS.
fn engine(case: Case, network: &Network, cpus: Cpus) -> Result<Lockstep> {
    let servers = match case {
        Case::LockstepReplicate => 1,
        _ => SERVERS,
    };
    let backends: Vec<Ipv4Addr> = (0..servers).map(server).collect();
    let engine = Plan {
        case,
        site: network.site(),
        pins: network.pins(),
        addresses: &ENGINE,
        vip: &format!("{VIP}:{PORT}/tcp"),
        backends: &backends,
        cpu: cpus.balancer,
        mtu: network.mtu(),
    }
    .start()?;
    receive_by_threads(network, cpus)?;
    Ok(engine)
}

fn receive_by_threads(network: &Network, cpus: Cpus) -> Result<()> {
    for device in [IN, OUT] {
        receive_by_thread_on(network.balancer(), device, cpus.balancer)?;
    }
    Ok(())
}

fn forward_both_ways(network: &Network) -> Result<()> {
    let (client, servers) = (network.client(), network.servers());
    receive_by_xdp(client, CLIENT_DEVICE)?;
    receive_by_xdp(servers, SERVERS_DEVICE)?;
    let netns = network.balancer();
    forward_by_xdp(netns, IN, OUT, servers.mac(SERVERS_DEVICE)?)?;
    forward_by_xdp(netns, OUT, IN, client.mac(CLIENT_DEVICE)?)
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
