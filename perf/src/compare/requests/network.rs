//! The network of [`crate::replicate`] with an nginx behind it, and a way for answers that do not
//! pass the balancer.

use super::super::Cpus;
use super::super::engine::{IN, OUT};
use crate::reading::{self, NetFile};
use crate::replicate::network::{self as base, CLIENT_DEVICE, PORT, SERVERS_DEVICE, VIP, server};
use crate::site::{START, Site, nginx};
use anyhow::{Context, Result};
use lockstep_tests::lab::{Netns, Process, find_binary, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Backends, each an address of the same server.
pub const SERVERS: usize = 4;
/// Addresses of the engine: full NAT needs a port of them for each connection, closed ones included
/// for a while.
pub const ENGINE: [Ipv4Addr; 4] = [
    Ipv4Addr::new(198, 19, 0, 2),
    Ipv4Addr::new(198, 19, 0, 3),
    Ipv4Addr::new(198, 19, 0, 4),
    Ipv4Addr::new(198, 19, 0, 5),
];
/// Of links whose packets are not to be of a certain size.
pub const MTU: u16 = 1_500;
/// Both ends of the link for answers.
pub const DIRECT: &str = "direct0";
const ANSWER: Duration = Duration::from_secs(2);

/// A network for one case: new for each, so that none inherits programs, rules or routes.
#[derive(Debug)]
pub struct Network {
    // Dropped, and so killed, before its namespace is removed.
    #[expect(dead_code, reason = "it runs until it is dropped")]
    server: Process,
    base: base::Network,
    /// Of the balancer: what its devices count.
    devices: NetFile,
    mtu: u16,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    /// nginx: 1,000 bytes for `/`, nothing for `/least`.
    Http,
    /// [`crate::replicate::serve`].
    Stream,
}

impl Network {
    /// Namespaces, links and servers. With `direct`, the servers have the VIP, take tunnel headers
    /// off and answer the client themselves.
    pub fn build(direct: bool, cpus: Cpus, mtu: u16, servers: Servers) -> Result<Self> {
        let base = base::Network::build(SERVERS, cpus.into())?;
        if mtu != MTU {
            set_mtu(&base, mtu)?;
        }
        for netns in [&base.client, &base.balancer] {
            netns.sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
        }
        // The engine's addresses answer no ARP: their link-layer address is the device's.
        let mac = base::mac(&base.balancer, base::OUT)?;
        for engine in ENGINE {
            base.servers.ip(&format!(
                "neigh replace {engine} lladdr {mac} nud permanent dev {SERVERS_DEVICE}"
            ))?;
        }
        if direct {
            answer_directly(&base, cpus)?;
        }
        let server = match servers {
            Servers::Http => start_server(&base, cpus)?,
            Servers::Stream => base.start_server(None, cpus.generator)?,
        };
        let devices = NetFile::open(&base.balancer, "dev")?;
        Ok(Network {
            server,
            base,
            devices,
            mtu,
        })
    }

    /// Where requests come from.
    pub fn client(&self) -> &Netns {
        &self.base.client
    }

    /// Where they are balanced.
    pub fn balancer(&self) -> &Netns {
        &self.base.balancer
    }

    /// Where they are answered.
    pub fn servers(&self) -> &Netns {
        &self.base.servers
    }

    /// All of it, for what is made for replication.
    pub const fn base(&self) -> &base::Network {
        &self.base
    }

    /// Of all links.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What the balancer's devices have received so far, from either side.
    pub fn received(&self) -> Result<Received> {
        let mut sum = Received::default();
        let text = self.devices.read()?;
        for device in [IN, OUT] {
            let (bytes, packets) = reading::received(&text, device)
                .with_context(|| format!("{device} counts nothing: {text}"))?;
            sum.packets += packets;
            sum.bytes += bytes;
        }
        Ok(sum)
    }

    /// Where what the engine pins is.
    pub fn pins(&self) -> &std::path::Path {
        self.base.bpffs.path()
    }

    /// The balancer, to run programs.
    pub fn site(&self) -> Site<'_> {
        self.base.site()
    }

    /// What is asked for.
    pub fn url(&self, path: &str) -> String {
        format!("http://{VIP}:{PORT}{path}")
    }

    /// Waits until a request is answered.
    pub fn answers(&self) -> Result<()> {
        wait_until("a request is answered", START, || {
            Ok(self
                .answer()
                .is_ok_and(|text| text.contains(" 200 OK"))
                .then_some(()))
        })
    }

    fn answer(&self) -> Result<String> {
        let mut stream = self.base.client.connect((VIP, PORT).into(), ANSWER)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Packets, and the bytes of their frames without the checksum sequence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Their number.
    pub packets: u64,
    /// All of them.
    pub bytes: u64,
}

fn set_mtu(base: &base::Network, mtu: u16) -> Result<()> {
    let ends = [
        (&base.client, CLIENT_DEVICE),
        (&base.balancer, IN),
        (&base.balancer, OUT),
        (&base.servers, SERVERS_DEVICE),
    ];
    for (netns, device) in ends {
        netns.ip(&format!("link set dev {device} mtu {mtu}"))?;
    }
    Ok(())
}

/// Where backend `index` listens.
pub fn backend(index: usize) -> SocketAddr {
    (server(index), PORT).into()
}

fn answer_directly(base: &base::Network, cpus: Cpus) -> Result<()> {
    base.link(DIRECT, cpus.into())?;
    let to = base::mac(&base.client, DIRECT)?;
    base.servers
        .ip(&format!("route add {} dev {DIRECT}", base::CLIENT))?;
    base.servers.ip(&format!(
        "neigh replace {} lladdr {to} nud permanent dev {DIRECT}",
        base::CLIENT
    ))?;
    base.servers.ip(&format!("addr add {VIP}/32 dev lo"))?;
    let mut words = vec!["decap".to_owned(), "attach".into(), SERVERS_DEVICE.into()];
    for index in 0..SERVERS {
        words.extend(["--address".to_owned(), server(index).to_string()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let lockstep = find_binary("lockstep")?;
    let lockstep = lockstep.to_str().context("a path that is no text")?;
    base.servers.output(lockstep, &words).map(drop)
}

/// One worker, and an answer that fits a packet.
fn start_server(base: &base::Network, cpus: Cpus) -> Result<Process> {
    let site = Site {
        netns: &base.servers,
        directory: base.site().directory,
    };
    let directory = site.directory.display();
    let body = "x".repeat(1_000);
    let text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {directory}/http.pid;\n\
         error_log {directory}/http.log;\nevents {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 100000000;\n  keepalive_timeout 300;\n  \
         server {{ listen {PORT} backlog=4096; location / {{ return 200 {body}; }} \
         location = /least {{ return 204; }} }}\n}}\n"
    );
    let file = site.file("http.conf");
    fs::write(&file, text)?;
    let command = nginx(site, cpus.generator, &file);
    let mut server = site.netns.spawn("http", command)?;
    wait_until("nginx listens", START, || {
        server.must_run()?;
        let sockets = site.netns.output("ss", &["-Hltn"])?;
        Ok(sockets.contains(&format!(":{PORT} ")).then_some(()))
    })?;
    Ok(server)
}
