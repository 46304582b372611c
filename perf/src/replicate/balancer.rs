//! What stands between client and servers.

use super::Cpus;
use super::network::{ENGINE, IN, Network, OUT, PORT, VIP, server};
use crate::cpu;
use crate::site::{Lockstep, haproxy};
use anyhow::{Context, Result, bail};
use lockstep_tests::lab::Process;
use serde_json::Value;
use std::fs;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// The kernel routes and nobody terminates TCP: what the client, the server and the links
    /// carry.
    Forward,
    /// HAProxy in TCP mode.
    Haproxy,
    /// The engine, replicating.
    Lockstep,
    /// The same, its worker sleeping whenever there is nothing: what it does not spend on waiting.
    LockstepInterrupt,
}

impl Case {
    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Case::Forward => "forward",
            Case::Haproxy => "haproxy",
            Case::Lockstep => "lockstep",
            Case::LockstepInterrupt => "lockstep-interrupt",
        }
    }
}

/// What is in place.
#[derive(Debug)]
pub enum Balancer {
    /// Nothing that has to be kept.
    Kernel,
    /// A program of another's.
    Haproxy(Process),
    /// Programs of ours.
    Lockstep(Engine),
}

impl Balancer {
    /// Puts it in place in front of `replicas` servers; when this returns, it can be connected to.
    pub fn start(case: Case, network: &Network, replicas: usize, cpus: Cpus) -> Result<Self> {
        match case {
            Case::Forward => {
                (network.balancer).sysctl(&[("net.ipv4.ip_forward", "1")])?;
                let (balancer, servers) = (&network.balancer, &network.servers);
                servers.ip(&format!("addr add {VIP}/32 dev lo"))?;
                balancer.ip(&format!("route add {VIP}/32 via {}", server(0)))?;
                Ok(Balancer::Kernel)
            }
            Case::Haproxy => {
                network.balancer.ip(&format!("addr add {VIP}/32 dev lo"))?;
                let (at, to) = ((VIP, PORT).into(), (server(0), PORT).into());
                haproxy(network.site(), cpus.balancer, at, &[to]).map(Balancer::Haproxy)
            }
            Case::Lockstep | Case::LockstepInterrupt => {
                let mut policy = Policy::replicas(replicas);
                // The client is held to the pace of the slowest: what is measured is that many.
                policy.replicate = "grace = \"1m\"\n".to_owned();
                if case == Case::LockstepInterrupt {
                    policy.poll = "interrupt";
                }
                Engine::start(network, &policy, cpus).map(Balancer::Lockstep)
            }
        }
    }

    /// Replicas in sync with the only session; the servers of what does not replicate.
    pub fn in_sync(&self, network: &Network, servers: usize) -> Result<usize> {
        match self {
            Balancer::Kernel | Balancer::Haproxy(_) => Ok(servers),
            Balancer::Lockstep(_) => {
                let sessions = sessions(network)?;
                let replicas = sessions.first().and_then(|s| s["replicas"].as_array());
                let replicas = replicas.into_iter().flatten();
                Ok(replicas.filter(|r| r["state"] == "in-sync").count())
            }
        }
    }

    /// CPU seconds that its processes have used.
    pub fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Balancer::Kernel => Ok(0.0),
            Balancer::Haproxy(process) => cpu::of_process(process.pid()),
            Balancer::Lockstep(engine) => engine.cpu_seconds(),
        }
    }
}

/// The service and the engine's sizes.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Servers, each a replica.
    pub replicas: usize,
    /// How the worker waits for packets.
    pub poll: &'static str,
    /// Lines below `[service.replicate]`.
    pub replicate: String,
    /// Lines below `[sessions]`.
    pub sessions: String,
}

impl Policy {
    /// All defaults.
    pub fn replicas(replicas: usize) -> Self {
        Policy {
            replicas,
            poll: "adaptive",
            replicate: String::new(),
            sessions: String::new(),
        }
    }
}

/// The engine, replicating.
#[derive(Debug)]
pub struct Engine(Lockstep);

impl Engine {
    /// Starts it, and waits until every replica's next hop is known.
    pub fn start(network: &Network, policy: &Policy, cpus: Cpus) -> Result<Self> {
        let topology = topology_text(network, policy, cpus);
        let services = services_text(policy);
        Lockstep::start(network.site(), &topology, &services, policy.replicas).map(Engine)
    }

    /// The engine's process.
    pub fn process(&self) -> &Process {
        self.0.engine()
    }

    /// CPU seconds of its process.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.0.cpu_seconds()
    }

    /// Bytes of memory that are its process's own.
    pub fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process().pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kibibytes.context("the kernel does not say how much memory it has")? * 1024)
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, network: &Network, name: &str) -> Result<f64> {
        let page = network.site().lockstep(&["metrics"])?;
        sum_of(&page, name).with_context(|| format!("the engine has no metric {name}"))
    }
}

/// The sum of all samples of this name on a page of metrics; none when there is none.
pub fn sum_of(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(['{', ' ']);
        is_it.then(|| rest.split_whitespace().last()?.parse::<f64>().ok())?
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn topology_text(network: &Network, policy: &Policy, cpus: Cpus) -> String {
    let mut text = format!(
        "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = [\"{ENGINE}\"]\npoll = \"{}\"\n\n\
         [[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
         [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
        network.file("engine.sock"),
        network.bpffs.path(),
        policy.poll,
        cpus.balancer
    );
    if !policy.sessions.is_empty() {
        text.push_str(&format!("\n[sessions]\n{}\n", policy.sessions));
    }
    text
}

fn services_text(policy: &Policy) -> String {
    let backends: Vec<String> = (0..policy.replicas)
        .map(|index| {
            format!(
                "    {{ address = \"{}\", name = \"s{index}\" }},\n",
                server(index)
            )
        })
        .collect();
    format!(
        "[[service]]\nname = \"bench\"\nvips = [\"{VIP}:{PORT}/tcp\"]\nmode = \"replicate\"\n\
         backends = [\n{}]\n\n[service.replicate]\n{}\n",
        backends.concat(),
        policy.replicate
    )
}

/// All sessions, as `lockstep sessions` has them.
pub fn sessions(network: &Network) -> Result<Vec<Value>> {
    let text = (network.site()).lockstep(&["sessions", "--output", "json"])?;
    let mut value: Value = serde_json::from_str(&text)?;
    match value["sessions"].take() {
        Value::Array(sessions) => Ok(sessions),
        _ => bail!("`lockstep sessions` wrote {text}"),
    }
}
