//! The three namespaces and their links.

use super::super::engine::{IN, OUT};
use crate::site::Site;
use anyhow::{Context, Result};
use lockstep_bpf::{Arrivals, Arriving};
use lockstep_tests::lab::{Bpffs, End, Netns, Run, connect, wait_until};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Where requests go.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The UDP port of the service.
pub const PORT: u16 = 53;
/// The generator, on its link to the balancer: addresses for benchmarks, RFC 2544, appendix C.2.2.
pub const GENERATOR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The engine's own address, which no kernel has.
pub const ENGINE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// The backends, all of them the sink.
pub const BACKENDS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(198, 19, 0, 11),
    Ipv4Addr::new(198, 19, 0, 12),
    Ipv4Addr::new(198, 19, 0, 13),
    Ipv4Addr::new(198, 19, 0, 14),
];
/// A network that has all of them.
const AT: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 0, 8), 29);
/// The device of the generator and of the sink.
pub const DEVICE: &str = "eth0";
const SOON: Duration = Duration::from_secs(5);
/// Source ports that the generator has of each source address.
const PORTS: u32 = 50_000;

/// Source addresses for so many flows.
pub fn sources(flows: u32) -> Vec<IpAddr> {
    (0..flows.div_ceil(PORTS).max(1))
        .map(|index| Ipv4Addr::from(u32::from(GENERATOR) + index).into())
        .collect()
}

/// A network for one case: new for each, so that none inherits programs, rules or flows.
#[derive(Debug)]
pub struct Network {
    /// Where packets come from.
    pub generator: Netns,
    /// Where they are balanced.
    pub balancer: Netns,
    /// Where they are counted and dropped.
    pub sink: Netns,
    /// For what the engine pins.
    pub bpffs: Bpffs,
    /// Of both links.
    pub mtu: u16,
    arrivals: Option<Arrivals>,
    run: Arc<Run>,
}

impl Network {
    /// Namespaces, links, addresses, neighbours, and the sink's counter, which is made for a balancer that
    /// passes on a driver's frames as they are, or one that sends skbs.
    pub fn build(mtu: u16, frames: bool) -> Result<Self> {
        let run = Arc::new(Run::start()?);
        // Before the namespaces: what runs inside sees the mounts of the time it starts.
        let bpffs = Bpffs::mount(run.dir().join("bpf"))?;
        let mut network = Network {
            generator: Netns::new(&run, "generator")?,
            balancer: Netns::new(&run, "balancer")?,
            sink: Netns::new(&run, "sink")?,
            bpffs,
            mtu,
            arrivals: None,
            run,
        };
        let end = |netns, device| End {
            netns,
            device,
            queues: 1,
        };
        let (generator, balancer, sink) = (&network.generator, &network.balancer, &network.sink);
        connect(&end(generator, DEVICE), &end(balancer, IN), mtu)?;
        connect(&end(balancer, OUT), &end(sink, DEVICE), mtu)?;
        generator.ip(&format!("addr add {GENERATOR}/16 dev {DEVICE}"))?;
        balancer.ip(&format!("addr add 198.18.0.1/16 dev {IN}"))?;
        balancer.ip(&format!("addr add 198.19.0.1/16 dev {OUT}"))?;
        network
            .balancer
            .output("ethtool", &["-K", IN, "gro", "on"])?;
        network.address_sink()?;
        let arriving = match frames {
            true => Arriving::Frames,
            false => Arriving::Skbs,
        };
        let attached = (network.sink).within(|| Ok(Arrivals::attach(DEVICE, arriving, AT)?))?;
        network.arrivals = Some(attached);
        Ok(network)
    }

    fn address_sink(&self) -> Result<()> {
        let mac = self.sink.mac(DEVICE)?.map(|byte| format!("{byte:02x}"));
        let mac = mac.join(":");
        for backend in BACKENDS {
            self.sink
                .ip(&format!("addr add {backend}/16 dev {DEVICE}"))?;
            // No neighbour discovery in the middle of a trial.
            self.balancer.ip(&format!(
                "neigh replace {backend} lladdr {mac} nud permanent dev {OUT}"
            ))?;
        }
        Ok(())
    }

    /// The balancer, to run programs.
    pub fn site(&self) -> Site<'_> {
        Site {
            netns: &self.balancer,
            directory: self.run.dir(),
        }
    }

    /// The packets that have arrived, once no more come.
    pub fn arrived(&self) -> Result<u64> {
        let mut last = None;
        wait_until("no more packets arrive", SOON, || {
            let now = self.count()?;
            let quiet = last.replace(now) == Some(now);
            Ok(quiet.then_some(now))
        })
    }

    /// The sink drops what it counts where its kernel first sees it, so that no answer comes back, and the
    /// balancer's CPU, on which that runs, has little to do with it: of a machine, the NIC would.
    fn count(&self) -> Result<u64> {
        let arrivals = self.arrivals.as_ref();
        Ok(arrivals.context("nothing counts at the sink")?.count()?)
    }
}
