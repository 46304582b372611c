//! The cases: what stands between the generator and the sink.

use super::Cpus;
use super::network::{BACKENDS, ENGINE, IN, Network, OUT, PORT, VIP};
use crate::site::{Lockstep, nginx_stream, receive_by_thread_on, receive_on};
use anyhow::{Context, Result};
use lockstep_tests::lab::Process;
use std::net::{Ipv4Addr, SocketAddr};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// The kernel routes, without balancing or connection tracking: what no balancer in the
    /// kernel's own path can exceed.
    Forward,
    /// nftables translates the destination, with connection tracking, on the balancer's CPU.
    NftablesDnat,
    /// The same on the generator's CPU, where the packets come in.
    NftablesDnatNoRps,
    /// nginx' stream module passes datagrams on, a socket for each client; one worker.
    NginxStream,
    /// The engine, as `topology.toml` has it when nothing is said.
    Engine,
    /// The engine, polling all the time.
    EngineBusy,
    /// The engine, sleeping whenever there is nothing.
    EngineInterrupt,
    /// The engine whose CPU also takes the packets in, as the kernel's does with RPS.
    EngineOneCpu,
    /// The engine, tunnelling over UDP.
    EngineGue,
    /// The engine, rewriting the destination.
    EngineNat,
    /// The engine, rewriting both addresses.
    EngineFullNat,
    /// The XDP program alone, the engine killed; on the balancer's CPU.
    EngineFallback,
}

/// What there is to know of a case.
struct Kind {
    name: &'static str,
    /// How the worker waits, where there is one.
    poll: &'static str,
    /// Lines of its service.
    service: &'static str,
}

impl Case {
    const fn kind(self) -> Kind {
        let (name, poll, service) = match self {
            Case::Forward => ("forward", "", ""),
            Case::NftablesDnat => ("nftables-dnat", "", ""),
            Case::NftablesDnatNoRps => ("nftables-dnat-no-rps", "", ""),
            Case::NginxStream => ("nginx-stream", "", ""),
            Case::Engine => ("engine", "adaptive", ""),
            Case::EngineBusy => ("engine-busy", "busy", ""),
            Case::EngineInterrupt => ("engine-interrupt", "interrupt", ""),
            Case::EngineOneCpu => ("engine-one-cpu", "adaptive", ""),
            Case::EngineGue => ("engine-gue", "adaptive", "encapsulation = \"gue\"\n"),
            Case::EngineNat => ("engine-nat", "adaptive", "mode = \"nat\"\n"),
            Case::EngineFullNat => ("engine-full-nat", "adaptive", "mode = \"full-nat\"\n"),
            Case::EngineFallback => ("engine-fallback", "adaptive", ""),
        };
        Kind {
            name,
            poll,
            service,
        }
    }

    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        self.kind().name
    }

    /// Whether it is nftables.
    pub const fn is_nftables(self) -> bool {
        matches!(self, Case::NftablesDnat | Case::NftablesDnatNoRps)
    }

    /// Whether the balancer's CPU does all that is done for a packet from the balancer's device on.
    /// Where it does not, its time says nothing.
    pub const fn is_on_the_balancers_cpu(self) -> bool {
        !matches!(self, Case::NftablesDnatNoRps)
    }

    /// Where the generator sends to.
    pub const fn destination(self) -> Ipv4Addr {
        match self {
            Case::Forward => BACKENDS[0],
            _ => VIP,
        }
    }

    /// Puts it in place; when this returns, it forwards.
    pub fn start(self, network: &Network, cpus: Cpus) -> Result<Balancer> {
        let netns = &network.balancer;
        match self {
            Case::Forward => {
                route(network)?;
                receive_on(netns, IN, cpus.balancer)?;
                Ok(Balancer::Kernel)
            }
            Case::NftablesDnat => {
                route(network)?;
                translate(network)?;
                receive_on(netns, IN, cpus.balancer)?;
                Ok(Balancer::Kernel)
            }
            Case::NftablesDnatNoRps => {
                route(network)?;
                translate(network)?;
                Ok(Balancer::Kernel)
            }
            Case::NginxStream => {
                receive_on(netns, IN, cpus.balancer)?;
                netns.ip(&format!("addr add {VIP}/32 dev lo"))?;
                let servers = BACKENDS.map(|backend| SocketAddr::from((backend, PORT)));
                let at = (VIP, PORT).into();
                nginx_stream(network.site(), cpus.balancer, at, true, &servers).map(Balancer::Proxy)
            }
            Case::Engine
            | Case::EngineBusy
            | Case::EngineInterrupt
            | Case::EngineGue
            | Case::EngineNat
            | Case::EngineFullNat => self.engine(network, cpus).map(Balancer::Engine),
            Case::EngineOneCpu => {
                let engine = self.engine(network, cpus)?;
                receive_by_thread_on(netns, IN, cpus.balancer)?;
                Ok(Balancer::Engine(engine))
            }
            Case::EngineFallback => {
                let mut engine = self.engine(network, cpus)?;
                engine.0.kill()?;
                receive_by_thread_on(netns, IN, cpus.balancer)?;
                Ok(Balancer::Kernel)
            }
        }
    }

    fn engine(self, network: &Network, cpus: Cpus) -> Result<Engine> {
        let kind = self.kind();
        let topology = format!(
            "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = [\"{ENGINE}\"]\npoll = \"{}\"\n\n\
             [[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
             [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
            network.site().file("engine.sock"),
            network.bpffs.path(),
            kind.poll,
            cpus.balancer
        );
        let backends = BACKENDS.map(|backend| format!("{{ address = \"{backend}\" }}"));
        let services = format!(
            "[[service]]\nname = \"dns\"\nvips = [\"{VIP}:{PORT}/udp\"]\n{}backends = [{}]\n",
            kind.service,
            backends.join(", ")
        );
        Lockstep::start(network.site(), &topology, &services, BACKENDS.len()).map(Engine)
    }
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

/// What is in place.
#[derive(Debug)]
pub enum Balancer {
    /// Nothing that has to be kept.
    Kernel,
    /// Another's program.
    Proxy(#[expect(dead_code, reason = "it runs until it is dropped")] Process),
    /// Programs of ours.
    Engine(Engine),
}

impl Balancer {
    /// What the engine has counted so far, if it is the engine.
    pub fn engine_counts(&self, network: &Network) -> Result<Option<EngineCounts>> {
        match self {
            Balancer::Kernel | Balancer::Proxy(_) => Ok(None),
            Balancer::Engine(engine) => engine.counts(network).map(Some),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine(Lockstep);

/// Totals since the engine's start.
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

impl Engine {
    fn counts(&self, network: &Network) -> Result<EngineCounts> {
        let page = network.site().lockstep(&["metrics"])?;
        let of = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().last()?.parse().ok())
                .with_context(|| format!("the engine has no metric {name}"))
        };
        Ok(EngineCounts {
            cpu_seconds: self.0.cpu_seconds()?,
            received: of("lockstep_worker_rx_packets_total{")?,
            sent: of("lockstep_worker_tx_packets_total{")?,
            dropped: of("lockstep_worker_dropped_packets_total{")?,
            bursts: of("lockstep_worker_bursts_total{")?,
            turns: of("lockstep_worker_turns_total{")?,
            tx_wakeups: of("lockstep_worker_tx_wakeups_total{")?,
        })
    }
}
