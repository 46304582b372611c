//! The three namespaces: client, balancer, servers.

use super::Cpus;
use crate::site::{Site, receive_on};
use anyhow::{Context, Result};
use lockstep_tests::lab::{Bpffs, End, Netns, Process, Run, connect};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where clients connect to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The service's port, and that of the servers.
pub const PORT: u16 = 5201;
/// The engine's own address, which no kernel has.
pub const ENGINE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// The balancer on the servers' link.
const BALANCER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The device of the client and of the servers.
const DEVICE: &str = "eth0";
/// That of the client.
pub const CLIENT_DEVICE: &str = DEVICE;
/// That of the servers.
pub const SERVERS_DEVICE: &str = DEVICE;
/// The balancer's device towards the client.
pub const IN: &str = "in0";
/// The balancer's device towards the servers.
pub const OUT: &str = "out0";

const MTU: u16 = 1500;
/// Packets that wait at a device: a veth's own ring drops what comes at once past 256.
const QUEUE: u32 = 5_000;

/// The address of server `index`, from 0.
pub const fn server(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 1 + (index / 200) as u8, 1 + (index % 200) as u8)
}

/// A network for one case: new for each, so that none inherits programs, rules or routes.
#[derive(Debug)]
pub struct Network {
    /// Where connections come from.
    pub client: Netns,
    /// What stands between.
    pub balancer: Netns,
    /// The servers, each with an address of its own.
    pub servers: Netns,
    /// For what the engine pins.
    pub bpffs: Bpffs,
    run: Arc<Run>,
}

impl Network {
    /// Namespaces, links, addresses and neighbours for `servers` servers.
    ///
    /// What a kernel does for a packet that it received is done on the CPU of that machine's
    /// programs, as on machines of their own; without that, a veth's sender pays for the receiver.
    pub fn build(servers: usize, cpus: Cpus) -> Result<Self> {
        let run = Arc::new(Run::start()?);
        // Before the namespaces: what runs inside sees the mounts of the time it starts.
        let bpffs = Bpffs::mount(run.dir().join("bpf"))?;
        let network = Network {
            client: Netns::new(&run, "client")?,
            balancer: Netns::new(&run, "balancer")?,
            servers: Netns::new(&run, "servers")?,
            bpffs,
            run,
        };
        let end = |netns, device| End {
            netns,
            device,
            queues: 1,
        };
        connect(
            &end(&network.client, DEVICE),
            &end(&network.balancer, IN),
            MTU,
        )?;
        connect(
            &end(&network.balancer, OUT),
            &end(&network.servers, DEVICE),
            MTU,
        )?;
        for (netns, device) in network.ends() {
            as_on_the_wire(netns, device)?;
            let cpu = if netns.name() == network.balancer.name() {
                cpus.balancer
            } else {
                cpus.endpoints
            };
            receive_on(netns, device, cpu)?;
        }
        network.address(servers)?;
        Ok(network)
    }

    /// One more link between client and servers, both ends of which are called `device`.
    pub fn link(&self, device: &str, cpus: Cpus) -> Result<()> {
        let ends = [&self.client, &self.servers].map(|netns| End {
            netns,
            device,
            queues: 1,
        });
        connect(&ends[0], &ends[1], MTU)?;
        for end in ends {
            as_on_the_wire(end.netns, device)?;
            receive_on(end.netns, device, cpus.endpoints)?;
        }
        Ok(())
    }

    fn ends(&self) -> [(&Netns, &str); 4] {
        [
            (&self.client, DEVICE),
            (&self.balancer, IN),
            (&self.balancer, OUT),
            (&self.servers, DEVICE),
        ]
    }

    fn address(&self, servers: usize) -> Result<()> {
        self.client
            .ip(&format!("addr add {CLIENT}/16 dev {DEVICE}"))?;
        self.client.ip("route add default via 198.18.0.1")?;
        self.balancer
            .ip(&format!("addr add 198.18.0.1/16 dev {IN}"))?;
        self.balancer
            .ip(&format!("addr add {BALANCER}/16 dev {OUT}"))?;
        let mac = mac(&self.servers, DEVICE)?;
        let mut addresses = String::new();
        let mut neighbours = String::new();
        for index in 0..servers {
            let server = server(index);
            addresses.push_str(&format!("addr add {server}/16 dev {DEVICE}\n"));
            // No neighbour discovery in the middle of a trial.
            neighbours.push_str(&format!(
                "neigh replace {server} lladdr {mac} nud permanent dev {OUT}\n"
            ));
        }
        // The engine's address answers no ARP: its link-layer address is the device's.
        let mac = self::mac(&self.balancer, OUT)?;
        for balancer in [BALANCER, ENGINE] {
            addresses.push_str(&format!(
                "neigh replace {balancer} lladdr {mac} nud permanent dev {DEVICE}\n"
            ));
        }
        addresses.push_str(&format!("route add default via {BALANCER}\n"));
        self.batch(&self.servers, "servers", &addresses)?;
        self.batch(&self.balancer, "balancer", &neighbours)
    }

    /// Many `ip` commands at once.
    fn batch(&self, netns: &Netns, name: &str, lines: &str) -> Result<()> {
        let file = self.file(&format!("{name}.ip"));
        std::fs::write(&file, lines)?;
        let file = file.display().to_string();
        netns.output("ip", &["-batch", &file]).map(drop)
    }

    /// The balancer, to run programs.
    pub fn site(&self) -> Site<'_> {
        Site {
            netns: &self.balancer,
            directory: self.run.dir(),
        }
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.dir().join(name)
    }

    /// Starts the server program for every address, or for the one of server `only`.
    pub fn start_server(&self, only: Option<usize>, cpu: usize) -> Result<Process> {
        let mut command = self.servers.command(std::env::current_exe()?);
        let address = only.map_or(Ipv4Addr::UNSPECIFIED, server);
        command.arg("stream-server");
        command.args(["--address", &address.to_string()]);
        command.args(["--port", &PORT.to_string()]);
        command.args(["--cpu", &cpu.to_string()]);
        let name = only.map_or("server".to_owned(), |index| format!("server{index}"));
        self.servers.spawn(&name, command)
    }
}

/// A link-layer address as `ip` writes it.
pub fn mac(netns: &Netns, device: &str) -> Result<String> {
    let bytes = netns.mac(device)?.map(|byte| format!("{byte:02x}"));
    Ok(bytes.join(":"))
}

/// Packets of at most the MTU, as a NIC's peer sees them: nothing is put together or taken apart
/// on the way, and every balancer pays for every packet. A queue holds back senders, as a NIC's
/// does.
fn as_on_the_wire(netns: &Netns, device: &str) -> Result<()> {
    let offloads = ["tso", "off", "gso", "off", "gro", "off"];
    netns.output("ethtool", &[&["-K", device], &offloads[..]].concat())?;
    let queue = format!("qdisc replace dev {device} root pfifo limit {QUEUE}");
    let words: Vec<&str> = queue.split_whitespace().collect();
    (netns.output("tc", &words)).with_context(|| format!("cannot give {device} a queue"))?;
    Ok(())
}
