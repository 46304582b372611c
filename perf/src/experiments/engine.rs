//! The engine between clients and servers of [`crate::replicate::network`].

use crate::replicate::Cpus;
use crate::replicate::network::{ENGINE, IN, Network, OUT, PORT, VIP, server};
use crate::site::Lockstep;
use anyhow::{Result, ensure};

/// What it does with the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Packets go to one server.
    Nat,
    /// It answers clients itself.
    Replicate {
        /// Servers, each a replica.
        replicas: usize,
        /// Lines below `[service.replicate]`.
        policy: String,
    },
}

impl Mode {
    fn servers(&self) -> usize {
        match self {
            Mode::Nat => 1,
            Mode::Replicate { replicas, .. } => *replicas,
        }
    }

    fn services(&self) -> String {
        let backends: Vec<String> = (0..self.servers())
            .map(|index| {
                let address = server(index);
                format!("    {{ address = \"{address}\", name = \"s{index}\" }},\n")
            })
            .collect();
        let (mode, policy) = match self {
            Mode::Nat => ("nat", String::new()),
            Mode::Replicate { policy, .. } => {
                ("replicate", format!("[service.replicate]\n{policy}"))
            }
        };
        format!(
            "[[service]]\nname = \"bench\"\nvips = [\"{VIP}:{PORT}/tcp\"]\nmode = \"{mode}\"\n\
             backends = [\n{}]\n{policy}\n",
            backends.concat(),
        )
    }
}

/// Starts it on the balancer's CPU. What the kernel does to put packets into its memory runs on the
/// sender's: a thread for that on the balancer's CPU would take turns with the worker.
pub fn start_engine(network: &Network, mode: &Mode, cpus: Cpus) -> Result<Lockstep> {
    let topology = format!(
        "[engine]\nsocket = {:?}\npin_dir = {:?}\naddresses = [\"{ENGINE}\"]\n\n\
         [[interface]]\nname = \"{IN}\"\n\n[[interface]]\nname = \"{OUT}\"\n\n\
         [[worker]]\ncore = {}\nqueues = [\"{IN}:0\", \"{OUT}:0\"]\n",
        network.file("engine.sock"),
        network.bpffs.path(),
        cpus.balancer
    );
    let site = network.site();
    Lockstep::start(site, &topology, &mode.services(), mode.servers())
}

/// The two CPUs, this process, and what it starts from now on, on the one of the endpoints.
pub fn cpus() -> Result<Cpus> {
    let cpus = Cpus {
        endpoints: 0,
        balancer: 1,
    };
    let id = cpus.endpoints;
    let on_core = core_affinity::set_for_current(core_affinity::CoreId { id });
    ensure!(on_core, "cannot run on CPU {id}");
    Ok(cpus)
}
