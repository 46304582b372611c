//! A balancer: the engine, the daemon and the command line in a namespace of their own.

use super::address::{
    VIP_V4, VIP_V6, balancer_v4, balancer_v6, engine_v4, engine_v6, router_rack_v4, router_rack_v6,
};
use super::binaries;
use super::counters::Counters;
use super::mounts::{Bpffs, Tmpfs};
use super::netns::Netns;
use super::process::Process;
use super::run::Run;
use super::status::Status;
use super::wait::wait_until;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub(super) const DEVICE: &str = "eth0";
const START: Duration = Duration::from_secs(15);

/// How a balancer's workers share the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// By the queues that they come to.
    Rss,
    /// By flow. With one queue, one worker receives and sends, and another processes everything; with
    /// more, each does both.
    Rps,
}

/// A load-balancer host.
#[derive(Debug)]
pub struct Balancer {
    index: usize,
    queues: usize,
    spread: Spread,
    daemon: Option<Process>,
    engine: Option<Process>,
    netns: Netns,
    bpffs: Bpffs,
    dir: PathBuf,
}

impl Balancer {
    pub(super) fn new(run: &Arc<Run>, index: usize, queues: usize, spread: Spread) -> Result<Self> {
        let name = format!("b{index}");
        let dir = run.dir().join(&name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Before the namespace: what runs inside sees the mounts of the time it starts.
        let bpffs = Bpffs::mount(dir.join("bpf"))?;
        let netns = Netns::new(run, &name)?;
        Ok(Balancer {
            index,
            queues,
            spread,
            daemon: None,
            engine: None,
            netns,
            bpffs,
            dir,
        })
    }

    /// Addresses, routes and files, once the link is there.
    pub(super) fn configure(&self) -> Result<()> {
        self.netns
            .ip(&format!("addr add {}/24 dev {DEVICE}", self.v4()))?;
        self.netns
            .ip(&format!("addr add {}/64 dev {DEVICE} nodad", self.v6()))?;
        self.netns
            .ip(&format!("route add default via {}", router_rack_v4()))?;
        self.netns
            .ip(&format!("route add default via {}", router_rack_v6()))?;
        // So that somebody answers ARP and ND for the engine's addresses, which replicas in the rack
        // answer to. No program is to send from them: deprecated ones are not chosen.
        self.netns.ip(&format!(
            "addr add {}/32 dev {DEVICE} preferred_lft 0",
            engine_v4(self.index)
        ))?;
        self.netns.ip(&format!(
            "addr add {}/128 dev {DEVICE} nodad preferred_lft 0",
            engine_v6(self.index)
        ))?;
        fs::write(self.topology_file(), self.topology())?;
        fs::write(self.config_file(), "")?;
        Ok(())
    }

    /// Lines of `[sessions]` in its topology. To be called before the engine is started.
    pub fn set_sessions(&self, lines: &str) -> Result<()> {
        let text = self.topology() + "\n[sessions]\n" + lines + "\n";
        fs::write(self.topology_file(), text).context("cannot write the topology")
    }

    /// A line of `[engine]` in its topology. To be called before the engine is started.
    pub fn set_engine(&self, line: &str) -> Result<()> {
        let text = self.topology();
        let text = text.replacen("[engine]\n", &format!("[engine]\n{line}\n"), 1);
        fs::write(self.topology_file(), text).context("cannot write the topology")
    }

    /// A small file system in memory, at a directory of this name.
    pub fn tmpfs(&self, name: &str, size: u64) -> Result<Tmpfs> {
        Tmpfs::mount(self.dir.join(name), size)
    }

    /// Bytes of memory that the engine holds.
    pub fn engine_memory(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.engine()?.pid()))?;
        let mut lines = text.lines();
        let resident = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.context("the kernel does not tell VmRSS")?;
        let kib = resident.trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// `b0`, `b1`, ...; also its port on the router's switch.
    pub fn name(&self) -> String {
        format!("b{}", self.index)
    }

    /// Its own IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        balancer_v4(self.index)
    }

    /// Its own IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        balancer_v6(self.index)
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The `topology.toml` its engine starts from.
    pub fn topology_file(&self) -> PathBuf {
        self.dir.join("topology.toml")
    }

    /// The `services.toml` its daemon follows.
    pub fn services_file(&self) -> PathBuf {
        self.dir.join("services.toml")
    }

    /// The `lockstepd.toml` its daemon follows.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("lockstepd.toml")
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The engine's process.
    pub fn engine(&self) -> Result<&Process> {
        self.engine
            .as_ref()
            .with_context(|| format!("{} has no engine", self.name()))
    }

    /// Starts the engine and waits until it answers.
    pub fn start_engine(&mut self) -> Result<()> {
        ensure!(
            self.engine.is_none(),
            "{} has an engine already",
            self.name()
        );
        let process = self.spawn_engine(&self.topology_file())?;
        self.keep_engine(process)
    }

    /// Starts an engine with some topology file, without waiting for it.
    pub fn spawn_engine(&self, topology: &Path) -> Result<Process> {
        let mut command = self.netns.command(binaries::find("lockstep-engine")?);
        command.arg("--topology").arg(topology);
        let name = topology.file_stem().unwrap_or_default().to_string_lossy();
        self.netns.spawn(&format!("engine-{name}"), command)
    }

    /// Starts an engine that takes the place of the one that runs, and waits until that has ended
    /// and the new one answers.
    pub fn take_over(&mut self) -> Result<()> {
        let mut before = self.engine.take().context("there is no engine")?;
        let mut command = self.netns.command(binaries::find("lockstep-engine")?);
        command.arg("--topology").arg(self.topology_file());
        command.arg("--takeover");
        let process = self.netns.spawn("engine-successor", command)?;
        let status = before.wait(START)?;
        ensure!(status.success(), "the engine before ended with {status}");
        self.keep_engine(process)
    }

    /// Waits until an engine that was started answers.
    fn keep_engine(&mut self, mut process: Process) -> Result<()> {
        let what = format!("the engine of {} answers", self.name());
        wait_until(&what, START, || {
            process.must_run()?;
            Ok(self.engine_answers().then_some(()))
        })?;
        self.engine = Some(process);
        Ok(())
    }

    /// Starts an engine by way of other programs, such as `setpriv` with its arguments, without
    /// waiting for it.
    pub fn spawn_engine_by(&self, way: &[&str]) -> Result<Process> {
        let (program, args) = way
            .split_first()
            .context("no program to start the engine by")?;
        let mut command = self.netns.command(program);
        command.args(args).arg(binaries::find("lockstep-engine")?);
        command.arg("--topology").arg(self.topology_file());
        self.netns.spawn("engine", command)
    }

    /// Whether the engine's socket answers.
    pub fn engine_answers(&self) -> bool {
        self.status().is_ok()
    }

    /// What the engine that runs has logged.
    pub fn engine_log(&self) -> Result<String> {
        let engine = self.engine.as_ref();
        Ok(engine.context("there is no engine")?.log())
    }

    /// `kill -9` of the engine.
    pub fn kill_engine(&mut self) -> Result<()> {
        self.engine
            .take()
            .context("there is no engine to kill")?
            .kill()
    }

    /// SIGTERM to the engine; waits for its end.
    pub fn stop_engine(&mut self) -> Result<ExitStatus> {
        let mut engine = self.engine.take().context("there is no engine to stop")?;
        engine.signal(Signal::SIGTERM)?;
        engine.wait(START)
    }

    /// Whether an XDP program is on its link.
    pub fn has_xdp(&self) -> Result<bool> {
        let links = self.netns.ip_json(&format!("link show dev {DEVICE}"))?;
        Ok(!links[0]["xdp"].is_null())
    }

    /// Starts the daemon and waits until it has found the engine.
    pub fn start_daemon(&mut self) -> Result<()> {
        ensure!(
            self.daemon.is_none(),
            "{} has a daemon already",
            self.name()
        );
        let mut command = self.netns.command(binaries::find("lockstepd")?);
        command.arg("--services").arg(self.services_file());
        command.arg("--config").arg(self.config_file());
        command.arg("--engine-socket").arg(self.engine_socket());
        command.arg("--socket").arg(self.daemon_socket());
        command.arg("--state-dir").arg(self.dir.join("state"));
        let mut process = self.netns.spawn("daemon", command)?;
        wait_until(
            &format!("the daemon of {} has found its engine", self.name()),
            START,
            || {
                process.must_run()?;
                let connected = &self.whole_status()?["daemon"]["engine_connected"];
                Ok((*connected == Value::Bool(true)).then_some(()))
            },
        )?;
        self.daemon = Some(process);
        Ok(())
    }

    /// `kill -9` of the daemon.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.daemon
            .take()
            .context("there is no daemon to kill")?
            .kill()
    }

    /// A signal to the daemon; waits for its end.
    pub fn end_daemon(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("there is no daemon to stop")?;
        daemon.signal(signal)?;
        daemon.wait(START)
    }

    /// The daemon's process.
    pub fn daemon(&self) -> Result<&Process> {
        let daemon = self.daemon.as_ref();
        daemon.with_context(|| format!("{} has no daemon", self.name()))
    }

    /// Runs the command line to its end, whatever the outcome.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args)?;
        command.stdin(Stdio::null());
        command.output().context("cannot run lockstep")
    }

    /// Starts the command line under a name for its log, and returns at once.
    pub fn start(&self, name: &str, args: &[&str]) -> Result<Process> {
        self.netns.spawn(name, self.command(args)?)
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.netns.command(binaries::find("lockstep")?);
        command.arg("--engine-socket").arg(self.engine_socket());
        command.arg("--daemon-socket").arg(self.daemon_socket());
        command.args(args);
        Ok(command)
    }

    /// Runs the command line and returns what it writes for people.
    pub fn cli_text(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let says = String::from_utf8_lossy(&output.stderr);
        let line = args.join(" ");
        ensure!(
            output.status.success(),
            "`lockstep {line}` failed ({}): {says}",
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the command line with `--output json`.
    pub fn cli(&self, args: &[&str]) -> Result<Value> {
        let args = [args, &["--output", "json"]].concat();
        let text = self.cli_text(&args)?;
        serde_json::from_str(&text).with_context(|| format!("lockstep wrote {text:?}"))
    }

    /// Puts services into force, and waits until every backend's next hop is known.
    pub fn apply(&self, services: &str) -> Result<()> {
        let file = self.dir.join("next.toml");
        fs::write(&file, services)?;
        self.cli(&["apply", &file.display().to_string()])?;
        wait_until(
            &format!("{} knows the next hop of every backend", self.name()),
            START,
            || Ok(self.status()?.all_reachable()?.then_some(())),
        )
    }

    /// `lockstep status`, the engine's part. The exit code also speaks of the daemon, which the
    /// engine does not need.
    pub fn status(&self) -> Result<Status> {
        let mut status = self.whole_status()?;
        ensure!(
            status["engine"].is_object(),
            "the engine of {} does not answer",
            self.name()
        );
        Ok(Status(status["engine"].take()))
    }

    /// Why the daemon does not follow its services file, when it does not.
    pub fn file_error(&self) -> Result<Option<String>> {
        let status = self.whole_status()?;
        ensure!(
            status["daemon"].is_object(),
            "the daemon of {} does not answer",
            self.name()
        );
        Ok(status["daemon"]["file_error"].as_str().map(String::from))
    }

    fn whole_status(&self) -> Result<Value> {
        let output = self.run(&["status", "--output", "json"])?;
        let says = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("no status: {says}"))
    }

    /// Counts what the kernel gets that is for the VIPs: `vip` in all, on the balancer's link
    /// behind the XDP program.
    pub fn count_kernel_path(&self) -> Result<Counters> {
        let (v4, v6) = (format!("ip daddr {VIP_V4}"), format!("ip6 daddr {VIP_V6}"));
        let rules = [
            ("vip", "ingress", v4.as_str()),
            ("vip", "ingress", v6.as_str()),
        ];
        Counters::start(&self.netns, DEVICE, &rules)
    }

    /// The threads of the engine that carry packets, by thread id.
    pub fn worker_threads(&self) -> Result<Vec<Pid>> {
        let pid = self.engine()?.pid();
        let mut workers = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with("worker") {
                let thread = entry.file_name().to_string_lossy().parse()?;
                workers.push(Pid::from_raw(thread));
            }
        }
        ensure!(
            !workers.is_empty(),
            "the engine has no thread whose name starts with worker"
        );
        Ok(workers)
    }

    fn engine_socket(&self) -> PathBuf {
        self.dir.join("engine.sock")
    }

    fn daemon_socket(&self) -> PathBuf {
        self.dir.join("daemon.sock")
    }

    fn topology(&self) -> String {
        let mut text = format!(
            "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = [\"{}\", \"{}\"]\n\
             spread = \"{}\"\n\n[[interface]]\nname = \"{DEVICE}\"\n",
            self.engine_socket(),
            self.bpffs.path(),
            engine_v4(self.index),
            engine_v6(self.index),
            match self.spread {
                Spread::Rss => "rss",
                Spread::Rps => "rps",
            },
        );
        for queue in 0..self.queues {
            text.push_str(&format!(
                "\n[[worker]]\ncore = {queue}\nqueues = [\"{DEVICE}:{queue}\"]\n"
            ));
        }
        if self.spread == Spread::Rps && self.queues == 1 {
            text.push_str("process = false\n\n[[worker]]\ncore = 1\n");
        }
        text
    }

    /// Balances by nftables instead, with address translation both ways: what the engine is
    /// compared with, and what proves the lab without it.
    pub fn balance_by_nftables(&self, servers: usize) -> Result<()> {
        self.netns.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        self.netns
            .sysctl(&[("net.ipv6.conf.all.forwarding", "1")])?;
        let map = |address: &dyn Fn(usize) -> IpAddr| -> String {
            let entry = |index| format!("{index} : {}", address(index));
            (0..servers).map(entry).collect::<Vec<_>>().join(", ")
        };
        let v4 = map(&|index| super::server_v4(index).into());
        let v6 = map(&|index| super::server_v6(index).into());
        let script = format!(
            "table inet balance {{\nchain to {{\ntype nat hook prerouting priority dstnat\n\
             ip daddr {VIP_V4} dnat ip to numgen inc mod {servers} map {{ {v4} }}\n\
             ip6 daddr {VIP_V6} dnat ip6 to numgen inc mod {servers} map {{ {v6} }}\n}}\n\
             chain back {{\ntype nat hook postrouting priority srcnat\n\
             ct status dnat masquerade\n}}\n}}\n"
        );
        self.netns.output("nft", &[&script]).map(drop)
    }
}
