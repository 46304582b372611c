//! A topology proposed for a host: a worker a queue, on the NIC's NUMA node, and under RPS more of
//! them.

use crate::host::{Host, InterfaceKind};
use crate::memory::total;
use crate::model::{
    Addresses, BindMode, Core, Engine, FlowCapacity, FrameSize, Interface, Spread, Topology,
    UmemFrames, Worker,
};
use crate::queues::{InterfaceName, Queue};
use crate::sessions::Sessions;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Frames for each queue of a worker: a full ring of 2,048 on its way in and one on its way out.
const FRAMES_A_QUEUE: u32 = 4_096;

/// What the operator says beforehand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The interfaces to use; otherwise every Ethernet device and veth that is up.
    pub interfaces: Vec<String>,
    /// The engine's addresses, one at least. They cannot be guessed: an interface's own would take
    /// its TCP and UDP, SSH included, away from the kernel.
    pub addresses: Vec<IpAddr>,
    /// How packets are to be spread over workers.
    pub spread: Spread,
    /// The most queues of an interface that are to be used; 1 leaves nothing to the NIC.
    pub queues: Option<u32>,
}

/// Why nothing can be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// No interface is fit.
    #[error(
        "no Ethernet device and no veth is up; name an interface (this host has {})",
        names(.0)
    )]
    NoInterface(Vec<String>),
    /// sysfs shows another network namespace's interfaces.
    #[error(
        "/sys does not show {} of this network namespace: start with `ip netns exec`, which mounts \
         it anew",
        names(.0)
    )]
    ForeignSysfs(Vec<String>),
    /// A named interface is not there, or not one that packets can be balanced on.
    #[error("{name} cannot be used: {why}")]
    Unfit {
        /// The interface.
        name: String,
        /// What is the matter with it.
        why: String,
    },
    /// No engine address was named.
    #[error(
        "name the engine's addresses with --address: one IPv4 address, one IPv6 address, or both, extra ones that \
         the network routes to this host"
    )]
    NoAddress,
    /// A named address is an interface's own.
    #[error(
        "{address} cannot be an engine address: {interface} has it, and the engine would take its \
         TCP and UDP, SSH and BGP included; name an extra one that the network routes to this host"
    )]
    Occupied {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// The addresses that were named cannot be the engine's.
    #[error("engine addresses are unicast, and none is named twice")]
    Addresses,
    /// The host says of no core that it is on line.
    #[error("no core is on line")]
    NoCore,
}

/// Proposes a topology for a host.
///
/// Every interface gets the same number of workers: as many as the one with the fewest queues
/// has, or as there are cores. Worker *i* is core *i* of the interfaces' NUMA nodes (isolated
/// cores where there are some); core 0 is left to the system where there are more than two. An
/// interface with more queues than workers has successive queues on each. Under RPS the cores that
/// are left get workers without queues. Memory is halved until
/// it takes at most half of what is available.
///
/// # Errors
/// [`DetectError`] says what the operator has to name.
pub fn detect(host: &Host, wishes: &Wishes) -> Result<Topology, DetectError> {
    if !host.hidden.is_empty() {
        let hidden = host.hidden.iter().cloned().collect();
        return Err(DetectError::ForeignSysfs(hidden));
    }
    let names = interfaces(host, wishes)?;
    let addresses = addresses(host, wishes)?;
    let queues: Vec<u32> = names
        .iter()
        .map(|name| {
            let there = host.interfaces[name.as_str()].rx_queues;
            wishes.queues.map_or(there, |most| there.min(most.max(1)))
        })
        .collect();
    let fewest = queues.iter().copied().min().unwrap_or(1);
    let cores = cores(host, &names)?;
    let count = cores.len().min(fewest as usize);
    let used = match wishes.spread {
        Spread::Rss => count,
        Spread::Rps => cores.len(),
    };
    let workers: Vec<Worker> = cores
        .into_iter()
        .take(used)
        .enumerate()
        .map(|(index, core)| Worker {
            core,
            queues: match index < count {
                true => share(&names, &queues, index as u32, count as u32),
                false => Vec::new(),
            },
            process: true,
        })
        .collect();
    let mut engine = engine(host, addresses, &names, &workers);
    engine.spread = wishes.spread;
    let interfaces = names
        .into_iter()
        .map(|name| Interface {
            name,
            mode: BindMode::Auto,
        })
        .collect();
    let topology = Topology::new(engine, Sessions::default(), interfaces, workers)
        .expect("the interfaces and cores are sets, and each queue is dealt out once");
    Ok(fit_memory(topology, host.memory_available / 2))
}

fn interfaces(host: &Host, wishes: &Wishes) -> Result<Vec<InterfaceName>, DetectError> {
    let unfit = |name: &str, why: String| DetectError::Unfit {
        name: name.to_owned(),
        why,
    };
    let mut chosen: Vec<InterfaceName> = Vec::new();
    for name in &wishes.interfaces {
        let known: Vec<&str> = host.interfaces.keys().map(String::as_str).collect();
        let Some(interface) = host.interfaces.get(name) else {
            let why = format!("it is not there; this host has {}", known.join(", "));
            return Err(unfit(name, why));
        };
        if interface.kind == InterfaceKind::NotEthernet {
            return Err(unfit(name, "it is not an Ethernet interface".to_owned()));
        }
        if interface.rx_queues == 0 {
            return Err(unfit(name, "it has no RX queue".to_owned()));
        }
        let valid = InterfaceName::new(name);
        let valid = valid.ok_or_else(|| unfit(name, "its name has a `:` in it".to_owned()))?;
        if !chosen.contains(&valid) {
            chosen.push(valid);
        }
    }
    if wishes.interfaces.is_empty() {
        let fit = host.interfaces.iter().filter(|(_, interface)| {
            let kind = &interface.kind;
            let real = matches!(kind, InterfaceKind::Device { .. } | InterfaceKind::Veth);
            real && interface.up && interface.rx_queues > 0
        });
        chosen.extend(fit.filter_map(|(name, _)| InterfaceName::new(name)));
    }
    if chosen.is_empty() {
        let known = host.interfaces.keys().cloned().collect();
        return Err(DetectError::NoInterface(known));
    }
    Ok(chosen)
}

fn addresses(host: &Host, wishes: &Wishes) -> Result<Addresses, DetectError> {
    if wishes.addresses.is_empty() {
        return Err(DetectError::NoAddress);
    }
    for &address in &wishes.addresses {
        let mut interfaces = host.interfaces.iter();
        // As `check` has it: an extra one that is there to answer ARP or ND is fine.
        let is_only = |addresses: &[IpAddr]| {
            let same = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
            let mut others = addresses.iter().filter(same).filter(|&&o| o != address);
            addresses.contains(&address) && others.all(|other| wishes.addresses.contains(other))
        };
        if let Some((name, _)) = interfaces.find(|(_, i)| is_only(&i.addresses)) {
            let interface = name.clone();
            return Err(DetectError::Occupied { address, interface });
        }
    }
    Addresses::new(wishes.addresses.clone()).ok_or(DetectError::Addresses)
}

/// The cores that workers may have, the best first.
fn cores(host: &Host, names: &[InterfaceName]) -> Result<Vec<Core>, DetectError> {
    let nodes: BTreeSet<u32> = names
        .iter()
        .filter_map(|name| host.interfaces[name.as_str()].numa_node)
        .collect();
    let near = |core: &u32| {
        let node = host.node_of(*core);
        nodes.is_empty() || node.is_none_or(|node| nodes.contains(&node))
    };
    let free = |core: &u32| *core != 0 || host.online.len() <= 2;
    let choose = |wanted: &dyn Fn(&u32) -> bool| -> Vec<Core> {
        let cores = host.online.iter().filter(|core| wanted(core));
        cores
            .filter_map(|core| u16::try_from(*core).ok().and_then(Core::new))
            .collect()
    };
    let isolated = |core: &u32| host.isolated.contains(core);
    // A node without cores, and a host whose devices belong to no node, have no near core.
    let choices: [Vec<Core>; 4] = [
        choose(&|core| near(core) && isolated(core)),
        choose(&|core| near(core) && free(core)),
        choose(&|core| free(core)),
        choose(&|_| true),
    ];
    let best = choices.into_iter().find(|cores| !cores.is_empty());
    best.ok_or(DetectError::NoCore)
}

/// The queues of worker `index` of `count`: on each interface a share of successive ones.
fn share(names: &[InterfaceName], queues: &[u32], index: u32, count: u32) -> Vec<Queue> {
    let bound = |queues: u32, index: u32| {
        // At most `queues`, so it fits.
        (u64::from(queues) * u64::from(index) / u64::from(count)) as u32
    };
    names
        .iter()
        .zip(queues)
        .flat_map(|(name, &queues)| {
            (bound(queues, index)..bound(queues, index + 1)).map(|number| Queue {
                interface: name.clone(),
                number,
            })
        })
        .collect()
}

fn engine(
    host: &Host,
    addresses: Addresses,
    names: &[InterfaceName],
    workers: &[Worker],
) -> Engine {
    let interfaces = names.iter().map(|name| &host.interfaces[name.as_str()]);
    let mtu = interfaces.map(|interface| interface.mtu).max().unwrap_or(0);
    let queues = workers.iter().map(|w| w.queues.len()).max().unwrap_or(1);
    let frames = (queues as u32).saturating_mul(FRAMES_A_QUEUE);
    let frames = frames
        .checked_next_power_of_two()
        .unwrap_or(UmemFrames::MAX);
    let frames = frames.clamp(UmemFrames::DEFAULT.get(), UmemFrames::MAX);
    let mut engine = Engine::new(addresses);
    engine.umem_frames = UmemFrames::new(frames).unwrap_or(UmemFrames::DEFAULT);
    if mtu > FrameSize::Bytes2048.max_mtu() {
        engine.frame_size = FrameSize::Bytes4096;
    }
    engine
}

/// Halves the flow tables until the whole fits, or they cannot be smaller.
fn fit_memory(mut topology: Topology, available: u64) -> Topology {
    while total(&topology) > available {
        let halve = |capacity: FlowCapacity| FlowCapacity::new(capacity.get() / 2);
        let engine = &mut topology.engine;
        let (Some(ipv4), Some(ipv6)) = (halve(engine.flows_ipv4), halve(engine.flows_ipv6)) else {
            break;
        };
        engine.flows_ipv4 = ipv4;
        engine.flows_ipv6 = ipv6;
    }
    topology
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
