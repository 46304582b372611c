//! The cases: what stands between the generator and the sink.

use super::Cpus;
use super::network::{BACKENDS, ENGINE, IN, Network, OUT, PORT, VIP};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Process, find_binary, wait_until};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(15);

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
    /// The engine, as `topology.toml` has it when nothing is said.
    Engine,
    /// The engine, polling all the time.
    EngineBusy,
    /// The engine, sleeping whenever there is nothing.
    EngineInterrupt,
}

impl Case {
    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Case::Forward => "forward",
            Case::NftablesDnat => "nftables-dnat",
            Case::NftablesDnatNoRps => "nftables-dnat-no-rps",
            Case::Engine => "engine",
            Case::EngineBusy => "engine-busy",
            Case::EngineInterrupt => "engine-interrupt",
        }
    }

    /// Whether it is nftables.
    pub const fn is_nftables(self) -> bool {
        match self {
            Case::NftablesDnat | Case::NftablesDnatNoRps => true,
            Case::Forward | Case::Engine | Case::EngineBusy | Case::EngineInterrupt => false,
        }
    }

    /// Where the generator sends to.
    pub const fn destination(self) -> Ipv4Addr {
        match self {
            Case::Forward => BACKENDS[0],
            Case::NftablesDnat | Case::NftablesDnatNoRps => VIP,
            Case::Engine | Case::EngineBusy | Case::EngineInterrupt => VIP,
        }
    }

    /// Puts it in place; when this returns, it forwards.
    pub fn start(self, network: &Network, cpus: Cpus) -> Result<Balancer> {
        let engine = |poll| Engine::start(network, cpus, poll).map(Balancer::Engine);
        match self {
            Case::Forward => {
                route(network)?;
                receive_packets_on(network, cpus.balancer)?;
            }
            Case::NftablesDnat => {
                route(network)?;
                translate(network)?;
                receive_packets_on(network, cpus.balancer)?;
            }
            Case::NftablesDnatNoRps => {
                route(network)?;
                translate(network)?;
            }
            Case::Engine => return engine("adaptive"),
            Case::EngineBusy => return engine("busy"),
            Case::EngineInterrupt => return engine("interrupt"),
        }
        Ok(Balancer::Kernel)
    }
}

fn route(network: &Network) -> Result<()> {
    network.balancer.sysctl(&[("net.ipv4.ip_forward", "1")])
}

/// Receive packet steering: the kernel's way to give packets of one queue to another CPU.
fn receive_packets_on(network: &Network, cpu: usize) -> Result<()> {
    let mask = 1_u128 << cpu;
    let script = format!("echo {mask:x} > /sys/class/net/{IN}/queues/rx-0/rps_cpus");
    network.balancer.output("sh", &["-c", &script]).map(drop)
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
    /// Programs of ours.
    Engine(Engine),
}

impl Balancer {
    /// What the engine has counted so far, if it is the engine.
    pub fn engine_counts(&self, network: &Network) -> Result<Option<EngineCounts>> {
        match self {
            Balancer::Kernel => Ok(None),
            Balancer::Engine(engine) => engine.counts(network).map(Some),
        }
    }
}

/// The engine, and the daemon that told it the service.
#[derive(Debug)]
pub struct Engine {
    daemon: Process,
    process: Process,
}

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
    fn start(network: &Network, cpus: Cpus, poll: &str) -> Result<Self> {
        let (topology, services) = (network.file("topology.toml"), network.file("services.toml"));
        let text = format!(
            "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = [\"{ENGINE}\"]\npoll = \"{poll}\"\n\n\
             [[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
             [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
            network.file("engine.sock"),
            network.bpffs.path(),
            cpus.balancer
        );
        fs::write(&topology, text)?;
        let backends = BACKENDS
            .map(|backend| format!("{{ address = \"{backend}\" }}"))
            .join(", ");
        let text = format!(
            "[[service]]\nname = \"dns\"\nvips = [\"{VIP}:{PORT}/udp\"]\nbackends = [{backends}]\n"
        );
        fs::write(&services, text)?;
        // Ahead of what else runs on this machine, as the kernel's own forwarding is.
        let mut command = network.balancer.command("chrt");
        command.args(["--rr", "1"]);
        command.arg(find_binary("lockstep-engine")?);
        command.arg("--topology").arg(&topology);
        let process = network.balancer.spawn("engine", command)?;
        let mut command = network.balancer.command(find_binary("lockstepd")?);
        command.arg("--services").arg(&services);
        command
            .arg("--engine-socket")
            .arg(network.file("engine.sock"));
        command.arg("--socket").arg(network.file("daemon.sock"));
        command.arg("--state-dir").arg(network.file("state"));
        let daemon = network.balancer.spawn("daemon", command)?;
        let mut engine = Engine { daemon, process };
        wait_until("the engine knows the way to every backend", START, || {
            engine.process.must_run()?;
            Ok(forwards(network).then_some(()))
        })
        .with_context(|| format!("{}{}", engine.process.log(), engine.daemon.log()))?;
        Ok(engine)
    }

    fn counts(&self, network: &Network) -> Result<EngineCounts> {
        let page = lockstep(network, &["metrics"])?;
        let of = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().last()?.parse().ok())
                .with_context(|| format!("the engine has no metric {name}"))
        };
        Ok(EngineCounts {
            cpu_seconds: self.cpu_seconds()?,
            received: of("lockstep_worker_rx_packets_total{")?,
            sent: of("lockstep_worker_tx_packets_total{")?,
            dropped: of("lockstep_worker_dropped_packets_total{")?,
            bursts: of("lockstep_worker_bursts_total{")?,
            turns: of("lockstep_worker_turns_total{")?,
            tx_wakeups: of("lockstep_worker_tx_wakeups_total{")?,
        })
    }

    /// From the scheduler's own count of each thread, in nanoseconds.
    fn cpu_seconds(&self) -> Result<f64> {
        let mut nanoseconds = 0_u64;
        let tasks = format!("/proc/{}/task", self.process.pid());
        for task in fs::read_dir(&tasks).context("the engine is gone")? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = text.split_whitespace().next().context("no schedstat")?;
            nanoseconds += on_cpu.parse::<u64>()?;
        }
        Ok(nanoseconds as f64 / 1e9)
    }
}

/// Whether the service is in force and every backend's next hop known.
fn forwards(network: &Network) -> bool {
    let text = lockstep(network, &["status", "--output", "json"]).unwrap_or_default();
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    let services = status["engine"]["services"].as_array();
    let backends: Vec<&Value> = services
        .into_iter()
        .flatten()
        .filter_map(|service| service["backends"].as_array())
        .flatten()
        .collect();
    backends.len() == BACKENDS.len() && backends.iter().all(|b| b["reachable"] == true)
}

fn lockstep(network: &Network, args: &[&str]) -> Result<String> {
    let mut command: Command = network.balancer.command(find_binary("lockstep")?);
    command
        .arg("--engine-socket")
        .arg(network.file("engine.sock"));
    command
        .arg("--daemon-socket")
        .arg(network.file("daemon.sock"));
    let output = command.args(args).output().context("cannot run lockstep")?;
    ensure!(
        output.status.success(),
        "`lockstep {}` failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
