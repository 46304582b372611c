//! Programs on the machine that balances: ours, and those they are compared with.

use crate::cpu;
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Netns, Process, find_binary, wait_until};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For a program to be ready.
pub const START: Duration = Duration::from_secs(15);

/// A namespace, and where the files and sockets of its programs are.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Where they run.
    pub netns: &'a Netns,
    /// Where their files are.
    pub directory: &'a Path,
}

impl Site<'_> {
    /// A file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs our command line and returns what it writes.
    pub fn lockstep(&self, args: &[&str]) -> Result<String> {
        let mut command: Command = self.netns.command(find_binary("lockstep")?);
        command
            .arg("--engine-socket")
            .arg(self.file("engine.sock"))
            .arg("--daemon-socket")
            .arg(self.file("daemon.sock"));
        let output = command.args(args).output().context("cannot run lockstep")?;
        ensure!(
            output.status.success(),
            "`lockstep {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether the service is in force and the next hop of each of its backends known.
    fn forwards(&self, backends: usize) -> bool {
        let text = self.lockstep(&["status", "--output", "json"]);
        let status: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
        let services = status["engine"]["services"].as_array();
        let known: Vec<&Value> = services
            .into_iter()
            .flatten()
            .filter_map(|service| service["backends"].as_array())
            .flatten()
            .collect();
        known.len() == backends && known.iter().all(|b| b["reachable"] == true)
    }

    /// Waits until a program listens.
    fn listens(&self, process: &mut Process, address: SocketAddr, udp: bool) -> Result<()> {
        let kind = if udp { "-Hlun" } else { "-Hltn" };
        wait_until("it listens", START, || {
            process.must_run()?;
            let sockets = self.netns.output("ss", &[kind])?;
            Ok(sockets.contains(&address.to_string()).then_some(()))
        })
    }
}

/// The engine, and the daemon that told it its services.
#[derive(Debug)]
pub struct Lockstep {
    daemon: Process,
    engine: Process,
}

impl Lockstep {
    /// Starts both, and waits until the services' backends, so many, can be reached.
    pub fn start(site: Site<'_>, topology: &str, services: &str, backends: usize) -> Result<Self> {
        let (plan, policy) = (site.file("topology.toml"), site.file("services.toml"));
        fs::write(&plan, topology)?;
        fs::write(&policy, services)?;
        let mut command = site.netns.command(find_binary("lockstep-engine")?);
        command.arg("--topology").arg(&plan);
        let engine = site.netns.spawn("engine", command)?;
        let mut command = site.netns.command(find_binary("lockstepd")?);
        command.arg("--services").arg(&policy);
        command
            .arg("--engine-socket")
            .arg(site.file("engine.sock"))
            .arg("--socket")
            .arg(site.file("daemon.sock"))
            .arg("--state-dir")
            .arg(site.file("state"));
        let daemon = site.netns.spawn("daemon", command)?;
        let mut lockstep = Lockstep { daemon, engine };
        wait_until("the engine knows the way to every backend", START, || {
            lockstep.engine.must_run()?;
            Ok(site.forwards(backends).then_some(()))
        })
        .with_context(|| format!("{}{}", lockstep.engine.log(), lockstep.daemon.log()))?;
        Ok(lockstep)
    }

    /// Kills the engine and its daemon: what they left in the kernel stays.
    pub fn kill(&mut self) -> Result<()> {
        self.engine.kill()?;
        self.daemon.kill()
    }

    /// The engine's process.
    pub fn engine(&self) -> &Process {
        &self.engine
    }

    /// CPU seconds of the engine.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu::of_process(self.engine.pid())
    }
}

/// HAProxy as Debian packages it, on one thread: `mode tcp` and nothing else that is not its
/// default but room for connections.
pub fn haproxy(
    site: Site<'_>,
    cpu: usize,
    at: SocketAddr,
    servers: &[SocketAddr],
) -> Result<Process> {
    let lines: String = (servers.iter().enumerate())
        .map(|(index, server)| format!("  server s{index} {server}\n"))
        .collect();
    let text = format!(
        "global\n  nbthread 1\n  cpu-map auto:1/1 {cpu}\n  maxconn 2000\n\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\n\
         listen service\n  bind {at}\n{lines}"
    );
    let file = site.file("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = site.netns.command("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let mut process = site.netns.spawn("haproxy", command)?;
    site.listens(&mut process, at, false)
        .context("HAProxy does not listen")?;
    Ok(process)
}

/// nginx' stream module as Debian packages it, one worker.
pub fn nginx_stream(
    site: Site<'_>,
    cpu: usize,
    at: SocketAddr,
    udp: bool,
    servers: &[SocketAddr],
) -> Result<Process> {
    let servers = upstream(servers);
    let protocol = if udp { " udp" } else { " backlog=4096" };
    let body = format!(
        "stream {{\n  upstream servers {{{servers} }}\n  \
         server {{ listen {at}{protocol}; proxy_pass servers; }}\n}}\n"
    );
    start_nginx(site, cpu, "stream", &body, (at, udp))
}

/// The servers of an upstream of nginx.
pub fn upstream(servers: &[SocketAddr]) -> String {
    servers.iter().map(|s| format!(" server {s};")).collect()
}

/// nginx with one worker, and this in its configuration; when this returns, it listens.
pub fn start_nginx(
    site: Site<'_>,
    cpu: usize,
    name: &str,
    body: &str,
    (at, udp): (SocketAddr, bool),
) -> Result<Process> {
    let directory = site.directory.display();
    let text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {directory}/{name}.pid;\n\
         error_log {directory}/{name}.log;\n\
         load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         events {{ worker_connections 8192; }}\n{body}"
    );
    let file = site.file(&format!("{name}.conf"));
    fs::write(&file, text)?;
    let mut process = site.netns.spawn(name, nginx(site, cpu, &file))?;
    site.listens(&mut process, at, udp)
        .context("nginx does not listen")?;
    Ok(process)
}

/// nginx on one CPU.
pub fn nginx(site: Site<'_>, cpu: usize, configuration: &Path) -> Command {
    let mut command = site.netns.command("taskset");
    command.args(["--cpu-list", &cpu.to_string(), "nginx", "-c"]);
    command.arg(configuration);
    command
}

/// Receive packet steering: the kernel's way to give packets of one queue to another CPU. XDP comes
/// before it, on the CPU that the packets come in on.
pub fn receive_on(netns: &Netns, device: &str, cpu: usize) -> Result<()> {
    let mask = 1_u128 << cpu;
    let script = format!("echo {mask:x} > /sys/class/net/{device}/queues/rx-0/rps_cpus");
    netns.output("sh", &["-c", &script]).map(drop)
}

/// A kernel thread on this CPU takes in what comes to a device with an XDP program, as a driver's
/// interrupt would if it came to this CPU, and before any program there, as interrupts come. Without it, a
/// veth's sender does.
pub fn receive_by_thread_on(netns: &Netns, device: &str, cpu: usize) -> Result<()> {
    let before = threads_of(device);
    let script = format!("echo 1 > /sys/class/net/{device}/threaded");
    netns.output("sh", &["-c", &script])?;
    let threads: Vec<String> = (threads_of(device).into_iter())
        .filter(|thread| !before.contains(thread))
        .collect();
    ensure!(
        !threads.is_empty(),
        "the kernel made no thread for {device}"
    );
    for thread in threads {
        let list = cpu.to_string();
        netns.output("taskset", &["--cpu-list", "--pid", &list, &thread])?;
        netns.output("chrt", &["--rr", "--pid", "2", &thread])?;
    }
    Ok(())
}

/// The process ids of the kernel's threads for a device of this name, in whichever namespace.
fn threads_of(device: &str) -> Vec<String> {
    let wanted = format!("napi/{device}-");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            name.starts_with(&wanted)
        })
        .filter_map(|process| process.file_name().into_string().ok())
        .collect()
}
