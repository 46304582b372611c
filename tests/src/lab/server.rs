//! Real servers: an nginx each, with the VIPs on the loopback device; what else they serve is the
//! scenario's to start.

use super::address::{VIP_V4, VIP_V6, router_rack_v4, router_rack_v6, server_v4, server_v6};
use super::binaries;
use super::iperf::IperfServer;
use super::netns::Netns;
use super::process::{Process, output};
use super::run::Run;
use super::wait::wait_until;
use anyhow::{Context, Result};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const DEVICE: &str = "eth0";
const START: Duration = Duration::from_secs(10);

/// A real server.
#[derive(Debug)]
pub struct Server {
    index: usize,
    nginx: Option<Process>,
    dir: PathBuf,
    /// Requests of ours to nginx's status page, which nginx counts too.
    polls: AtomicU64,
    netns: Netns,
}

impl Server {
    pub(super) fn new(run: &Arc<Run>, index: usize) -> Result<Self> {
        let name = format!("s{}", index + 1);
        let dir = run.dir().join(&name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let netns = Netns::new(run, &name)?;
        Ok(Server {
            index,
            nginx: None,
            dir,
            polls: AtomicU64::new(0),
            netns,
        })
    }

    /// Addresses, routes and nginx, once the link is there.
    pub(super) fn configure(&mut self) -> Result<()> {
        let netns = &self.netns;
        // Nobody but the balancer may find the VIP here: no ARP for what is on lo.
        netns.sysctl(&[("net.ipv4.conf.all.arp_ignore", "1")])?;
        netns.sysctl(&[("net.ipv4.conf.all.arp_announce", "2")])?;
        netns.ip(&format!("addr add {}/24 dev {DEVICE}", self.v4()))?;
        netns.ip(&format!("addr add {}/64 dev {DEVICE} nodad", self.v6()))?;
        netns.ip(&format!("addr add {VIP_V4}/32 dev lo"))?;
        netns.ip(&format!("addr add {VIP_V6}/128 dev lo nodad"))?;
        netns.ip(&format!("route add default via {}", router_rack_v4()))?;
        netns.ip(&format!("route add default via {}", router_rack_v6()))?;
        self.start_nginx()
    }

    /// Gives it the IPv4 addresses of other servers, which the lab does not have: a machine for each of
    /// a hundred would take longer to build than the scenario does.
    pub fn stand_in_for(&self, others: Range<usize>) -> Result<()> {
        let line = |index| format!("addr add {}/24 dev {DEVICE}\n", server_v4(index));
        let lines: String = others.map(line).collect();
        let file = self.dir.join("addresses.ip");
        fs::write(&file, lines)?;
        let file = file.display().to_string();
        self.netns.output("ip", &["-batch", &file]).map(drop)
    }

    /// `s1`, `s2`, ...
    pub fn name(&self) -> String {
        format!("s{}", self.index + 1)
    }

    /// Its own IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        server_v4(self.index)
    }

    /// Its own IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        server_v6(self.index)
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Takes the outer header off what balancers send to any of the server's own addresses.
    pub fn attach_decap(&self) -> Result<()> {
        let lockstep = binaries::find("lockstep")?;
        let (v4, v6) = (self.v4().to_string(), self.v6().to_string());
        let args = [
            "decap",
            "attach",
            DEVICE,
            "--address",
            &v4,
            "--address",
            &v6,
            "--gue-port",
            "6080",
        ];
        output(self.netns.command(lockstep).args(args)).map(drop)
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a program, and waits until its log says that it is ready.
    pub(super) fn start(&self, name: &str, command: Command, ready: &str) -> Result<Process> {
        let mut process = self.netns.spawn(name, command)?;
        let what = format!("{name} on {} is ready", self.name());
        wait_until(&what, START, || {
            process.must_run()?;
            Ok(process.log().contains(ready).then_some(()))
        })?;
        Ok(process)
    }

    /// The requests nginx has answered since it started, from its own count.
    pub fn requests(&self) -> Result<u64> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut stream = UnixStream::connect(self.status_socket())?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        // " accepted handled requests", on the line below their names.
        let mut lines = text
            .lines()
            .skip_while(|line| !line.starts_with("server accepts"));
        let counts = lines.nth(1).context("nginx has no status page")?;
        let requests = counts
            .split_whitespace()
            .nth(2)
            .context("nginx counts no requests")?;
        Ok(requests.parse::<u64>()? - self.polls.load(Ordering::Relaxed))
    }

    /// Starts an iperf3 server on an address, a VIP or its own. Bound to it, because iperf3's UDP answers otherwise carry
    /// the address that the route to the client prefers.
    pub fn start_iperf(&self, address: IpAddr) -> Result<IperfServer> {
        let mut command = self.netns.command("iperf3");
        command.args(["--server", "--forceflush", "--bind", &address.to_string()]);
        Ok(IperfServer(self.start("iperf3", command, "listening")?))
    }

    /// Datagrams that arrived and found the program's socket buffer full.
    pub fn datagrams_without_buffer(&self) -> Result<u64> {
        let v4 = self.netns.output("cat", &["/proc/net/snmp"])?;
        let v6 = self.netns.output("cat", &["/proc/net/snmp6"])?;
        // A line of names, then one of numbers.
        let mut lines = v4.lines().filter(|line| line.starts_with("Udp:"));
        let (names, numbers) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        let of_v4 = (names.split(' ').zip(numbers.split(' ')))
            .find(|(name, _)| *name == "RcvbufErrors")
            .context("the kernel does not count RcvbufErrors")?;
        let of_v6 = (v6
            .lines()
            .find_map(|line| line.strip_prefix("Udp6RcvbufErrors")))
        .context("the kernel does not count Udp6RcvbufErrors")?;
        Ok(of_v4.1.parse::<u64>()? + of_v6.trim().parse::<u64>()?)
    }

    fn status_socket(&self) -> PathBuf {
        self.dir.join("status.sock")
    }

    /// nginx.
    pub fn nginx(&mut self) -> Result<&mut Process> {
        let name = self.name();
        self.nginx
            .as_mut()
            .with_context(|| format!("{name} has no nginx"))
    }

    /// Starts nginx; one that runs is killed before.
    pub fn start_nginx(&mut self) -> Result<()> {
        self.nginx = None;
        // What a killed one leaves, and the next one could not bind.
        if let Err(error) = fs::remove_file(self.status_socket())
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).context("cannot remove nginx's socket");
        }
        let config = self.dir.join("nginx.conf");
        fs::write(&config, self.nginx_config())?;
        let mut command = self.netns.command("nginx");
        command
            .arg("-e")
            .arg(self.dir.join("error.log"))
            .arg("-c")
            .arg(&config);
        let mut nginx = self.netns.spawn("nginx", command)?;
        wait_until("nginx answers", START, || {
            nginx.must_run()?;
            Ok(UnixStream::connect(self.status_socket()).ok())
        })?;
        self.nginx = Some(nginx);
        Ok(())
    }

    fn nginx_config(&self) -> String {
        let (dir, name) = (self.dir.display(), self.name());
        let files = self.dir.with_file_name("files");
        let files = files.display();
        format!(
            r#"daemon off;
user root;
worker_processes 1;
pid {dir}/pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_requests 100000000;
    keepalive_timeout 300;
    # A request's body may take its time on a busy machine.
    lingering_time 120s;
    lingering_timeout 60s;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        default_type text/plain;
        location / {{ return 200 "{name}\n"; }}
        location /who {{ return 200 "$remote_addr\n"; }}
        location /same {{ return 200 "same\n"; }}
        location /files/ {{ alias {files}/; sendfile on; }}
    }}
    server {{
        listen 8080 backlog=4096 proxy_protocol;
        default_type text/plain;
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port\n"; }}
    }}
    server {{
        listen unix:{dir}/status.sock;
        location / {{ stub_status; }}
    }}
}}
"#
        )
    }
}
