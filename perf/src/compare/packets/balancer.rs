//! The cases between generator and sink.

use super::super::Cpus;
use super::super::case::Case;
use super::super::engine::{Balancer, IN, OUT, Plan, forward_by_xdp};
use super::network::{BACKENDS, ENGINE, Network, PORT, VIP};
use crate::site::{Lockstep, nginx_stream, receive_by_thread_on, receive_on};
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr};

/// Where the generator sends to.
pub const fn destination(case: Case) -> Ipv4Addr {
    match case {
        Case::LinuxForwarding | Case::LinuxForwardingOneCpu | Case::XdpForwarding => BACKENDS[0],
        _ => VIP,
    }
}

/// Puts a case in place; when this returns, it forwards.
pub fn start(case: Case, network: &Network, cpus: Cpus) -> Result<Balancer> {
    let netns = &network.balancer;
    match case {
        Case::LinuxForwarding => {
            route(network)?;
            receive_on(netns, IN, cpus.balancer)?;
            Ok(Balancer::Kernel)
        }
        Case::LinuxForwardingOneCpu => {
            route(network)?;
            take_in(network, cpus)
        }
        Case::XdpForwarding => {
            forward_by_xdp(netns, IN, OUT, network.sink.mac(super::network::DEVICE)?)?;
            receive_by_thread_on(netns, IN, cpus.balancer)?;
            Ok(Balancer::Kernel)
        }
        Case::NftablesDnat => {
            route(network)?;
            translate(network)?;
            receive_on(netns, IN, cpus.balancer)?;
            Ok(Balancer::Kernel)
        }
        Case::NftablesDnatOneCpu => {
            route(network)?;
            translate(network)?;
            take_in(network, cpus)
        }
        Case::NginxStream => {
            receive_on(netns, IN, cpus.balancer)?;
            netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
            let servers = BACKENDS.map(|backend| SocketAddr::from((backend, PORT)));
            let at = (VIP, PORT).into();
            nginx_stream(network.site(), cpus.balancer, at, true, &servers).map(Balancer::Proxy)
        }
        Case::LockstepTunnel
        | Case::LockstepTunnelInterrupt
        | Case::LockstepGue
        | Case::LockstepNat
        | Case::LockstepFullNat => engine(case, network, cpus).map(Balancer::Engine),
        Case::LockstepTunnelOneCpu => {
            receive_by_thread_on(netns, IN, cpus.balancer)?;
            engine(case, network, cpus).map(Balancer::Engine)
        }
        Case::LockstepFallback => {
            engine(case, network, cpus)?.kill()?;
            receive_by_thread_on(netns, IN, cpus.balancer)?;
            Ok(Balancer::Kernel)
        }
        Case::Haproxy | Case::LockstepReplicate => bail!("{case} passes no UDP on"),
    }
}

fn engine(case: Case, network: &Network, cpus: Cpus) -> Result<Lockstep> {
    Plan {
        case,
        site: network.site(),
        pins: network.bpffs.path(),
        addresses: &[ENGINE],
        vip: &format!("{VIP}:{PORT}/udp"),
        backends: &BACKENDS,
        cpu: cpus.balancer,
        mtu: network.mtu,
    }
    .start()
}

/// By a thread, as where there is an XDP program.
fn take_in(network: &Network, cpus: Cpus) -> Result<Balancer> {
    let netns = &network.balancer;
    receive_by_thread_on(netns, IN, cpus.balancer)?;
    Ok(Balancer::Kernel)
}

fn route(network: &Network) -> Result<()> {
    network.balancer.sysctl(&[("net.ipv4.ip_forward", "1")])
}

fn translate(network: &Network) -> Result<()> {
    let backends: Vec<String> = (BACKENDS.iter().enumerate())
        .map(|(index, backend)| format!("{index} : {backend}"))
        .collect();
    let script = format!(
        "table ip balance {{\nchain to {{\ntype nat hook prerouting priority dstnat\n\
         ip daddr {VIP} udp dport {PORT} dnat to jhash ip saddr . udp sport mod {} map {{ {} }}\n\
         }}\n}}\n",
        BACKENDS.len(),
        backends.join(", ")
    );
    network.balancer.output("nft", &[&script]).map(drop)
}

/// What the engine has counted since its start.
#[derive(Debug, Clone)]
pub struct EngineCounts {
    /// CPU time of all its threads.
    pub cpu_seconds: f64,
    /// Packets received.
    pub received: f64,
    /// Packets sent.
    pub sent: f64,
    /// Packets dropped.
    pub dropped: f64,
    /// Bursts with at least one packet.
    pub bursts: f64,
    /// Turns of the worker's loop.
    pub turns: f64,
    /// System calls made to send.
    pub tx_wakeups: f64,
}

impl EngineCounts {
    /// Of now; none where no engine runs.
    pub fn read(balancer: &Balancer, network: &Network) -> Result<Option<Self>> {
        let Balancer::Engine(engine) = balancer else {
            return Ok(None);
        };
        let page = network.site().lockstep(&["metrics"])?;
        let of = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().last()?.parse().ok())
                .with_context(|| format!("the engine has no metric {name}"))
        };
        Ok(Some(EngineCounts {
            cpu_seconds: engine.cpu_seconds()?,
            received: of("lockstep_worker_rx_packets_total{")?,
            sent: of("lockstep_worker_tx_packets_total{")?,
            dropped: of("lockstep_worker_dropped_packets_total{")?,
            bursts: of("lockstep_worker_bursts_total{")?,
            turns: of("lockstep_worker_turns_total{")?,
            tx_wakeups: of("lockstep_worker_tx_wakeups_total{")?,
        }))
    }
}
