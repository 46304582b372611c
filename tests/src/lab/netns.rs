//! Network namespaces: made by name, removed with every process in them.

use super::process::{Process, output};
use super::run::Run;
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const DIRECTORY: &str = "/run/netns";

/// A network namespace of a run, removed on drop with every process that is still in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    run: Arc<Run>,
}

impl Netns {
    /// Makes `<run>-<role>`, its loopback device up, without the waits for IPv6 duplicate address
    /// detection and without the filters that direct server return trips over.
    pub fn new(run: &Arc<Run>, role: &str) -> Result<Self> {
        let name = format!("{}-{role}", run.name());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Netns {
            name,
            run: run.clone(),
        };
        netns.ip("link set lo up")?;
        netns.sysctl(&[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.accept_ra", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
        ])?;
        Ok(netns)
    }

    /// The name as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside. `ip netns exec` becomes the program, so the child's process id
    /// is the program's, and it gives it the namespace's own `/sys`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command(&self.name, program)
    }

    /// Runs a program inside to its end and returns what it wrote to standard output.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        output(self.command(program).args(args))
    }

    /// Starts a program inside; its output goes to a log file of the run, one for each start.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.run.log(&format!("{}-{name}", self.role()));
        Process::spawn(&format!("{} in {}", name, self.role()), log, command)
    }

    /// `ip <words>` inside.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.ip_output(words).map(drop)
    }

    /// `ip -json <words>` inside, parsed.
    pub fn ip_json(&self, words: &str) -> Result<Value> {
        let text = self.ip_output(&format!("-json {words}"))?;
        serde_json::from_str(&text).with_context(|| format!("ip -json {words} wrote {text:?}"))
    }

    fn ip_output(&self, words: &str) -> Result<String> {
        output(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(words.split_whitespace()),
        )
    }

    /// Sets kernel parameters inside, by their dotted names.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        let pairs = settings.iter().map(|(key, value)| format!("{key}={value}"));
        output(self.command("sysctl").arg("-qw").args(pairs)).map(drop)
    }

    /// The link-layer address of a device.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let links = self.ip_json(&format!("link show dev {device}"))?;
        let text = links[0]["address"].as_str().unwrap_or_default();
        let bytes: Vec<u8> = (text.split(':'))
            .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        (bytes.try_into()).map_err(|_| anyhow!("{device} has no link-layer address: {links}"))
    }

    /// Runs `task` in a thread inside. Sockets it opens stay inside for their life, wherever they
    /// are used.
    pub fn within<T: Send>(&self, task: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new(DIRECTORY).join(&self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let enter = move || {
            setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            task()
        };
        match thread::scope(|scope| scope.spawn(enter).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// What the kernel inside has learned of the MTU on the way to an address.
    pub fn learned_mtu(&self, to: IpAddr, from: IpAddr) -> Result<Option<u16>> {
        let (to, from) = (to.to_string(), from.to_string());
        let route = self.output("ip", &["route", "get", &to, "from", &from])?;
        let words = route.split_whitespace().skip_while(|word| *word != "mtu");
        let mut words = words.filter(|word| *word != "lock");
        let mtu = words.nth(1).map(str::parse).transpose();
        mtu.with_context(|| route.clone())
    }

    /// The kernel inside forgets what it has learned of ways.
    pub fn forget_mtus(&self) -> Result<()> {
        for family in ["-4", "-6"] {
            self.ip(&format!("{family} route flush cache"))?;
        }
        Ok(())
    }

    /// A TCP connection from inside, with time limits so that no scenario hangs on it.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
        self.within(|| {
            let stream = TcpStream::connect_timeout(&to, timeout)
                .with_context(|| format!("cannot connect to {to}"))?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    fn role(&self) -> &str {
        self.name.rsplit('-').next().unwrap_or(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// A command that runs in the namespace of this name.
pub(super) fn command(netns: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(program);
    command
}

/// The names of all network namespaces.
pub(super) fn list() -> Result<Vec<String>> {
    match fs::read_dir(DIRECTORY) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list the network namespaces"),
    }
}

/// Kills what runs in a namespace and deletes it; complains, but goes on, when that fails.
pub(super) fn remove(name: &str) {
    let pids = output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        // Gone already is as good.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let deleted = output(Command::new("ip").args(["netns", "del", name]));
    // At a signal, who has made it and who takes all down may both be at it: gone is gone.
    if let Err(error) = deleted
        && Path::new(DIRECTORY).join(name).exists()
    {
        eprintln!("lab: {error:#}");
    }
}
