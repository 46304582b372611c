//! Whether this host can do what a topology says.

use crate::deferral::Deferral;
use crate::diagnostics::{Diagnostic, Diagnostics, Position};
use crate::host::{Host, HostInterface, InterfaceKind};
use crate::memory::{WorkerMemory, human, total};
use crate::model::{FrameSize, Interface, Receive, Topology, Worker};
use nix::unistd::AccessFlags;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// When an interface may have an engine address: what the warning about it says to do.
pub const ENGINE_ADDRESS_IS_FINE: &str = "right when it is there to answer ARP or ND only";

/// The largest MTU with which the kernel attaches an XDP program to a veth: one page less the
/// head-room and what `build_skb` needs behind the packet.
pub const VETH_MAX_MTU: u32 = 3_506;

/// Everything of a topology that this host cannot do (errors), or does badly (warnings), at once.
pub fn check(topology: &Topology, host: &Host) -> Diagnostics {
    let mut check = Check {
        topology,
        host,
        found: Diagnostics::new(),
    };
    for (index, interface) in topology.interfaces().iter().enumerate() {
        match host.interfaces.get(interface.name.as_str()) {
            Some(actual) => check.interface(index, interface, actual),
            None => check.no_interface(index, interface),
        }
    }
    for worker in 0..topology.workers().len() {
        check.core(worker);
        check.queues(worker);
    }
    check.addresses();
    check.memory();
    check.spill();
    check.log_memory();
    check.found
}

struct Check<'a> {
    topology: &'a Topology,
    host: &'a Host,
    found: Diagnostics,
}

impl Check<'_> {
    fn error(&mut self, at: Option<Position>, message: String, help: impl Into<String>) {
        let file = &self.topology.origin.file;
        let error = Diagnostic::error(file, at, message);
        self.found.push(error.help(help));
    }

    fn warning(&mut self, at: Option<Position>, message: String, help: impl Into<String>) {
        let file = &self.topology.origin.file;
        let warning = Diagnostic::warning(file, at, message);
        self.found.push(warning.help(help));
    }

    fn no_interface(&mut self, index: usize, interface: &Interface) {
        let name = interface.name.as_str();
        let at = self.topology.origin.interface(index);
        if self.host.hidden.contains(name) {
            let message = format!("/sys does not show interface {name}, which is here");
            let help = "it was mounted in another network namespace: start with `ip netns exec`, \
                        which mounts it anew";
            return self.error(at, message, help);
        }
        let names = self.host.interfaces.keys().map(String::as_str);
        let help = crate::diagnostics::suggest(name, names);
        self.error(at, format!("this host has no interface {name}"), help);
    }

    fn interface(&mut self, index: usize, interface: &Interface, actual: &HostInterface) {
        let name = &interface.name;
        let at = self.topology.origin.interface(index);
        if actual.kind == InterfaceKind::NotEthernet {
            let message = format!("{name} is not an Ethernet interface");
            return self.error(at, message, "name the one that the packets arrive on");
        }
        if !actual.up {
            let help = format!("`ip link set {name} up`");
            self.warning(at, format!("{name} is down"), help);
        }
        self.mtu(at, interface, actual);
        self.deferral(at, interface, actual);
        let polled: BTreeSet<u32> = self.topology.queues_of(name).into_iter().collect();
        let left: Vec<u32> = (0..actual.rx_queues)
            .filter(|queue| !polled.contains(queue))
            .collect();
        // Queues that are not there are reported where they are written.
        if !left.is_empty() {
            let message = format!(
                "nothing polls {} of {name}: packets that arrive there go to the kernel",
                queue_list(&left)
            );
            let help = format!(
                "add {} to a worker, or reduce the queues: `ethtool -L {name} combined {}`",
                queue_ranges(name.as_str(), &left),
                (actual.rx_queues as usize - left.len()).max(1)
            );
            self.error(at, message, help);
        }
    }

    fn mtu(&mut self, at: Option<Position>, interface: &Interface, actual: &HostInterface) {
        let (name, mtu) = (&interface.name, actual.mtu);
        let frame_size = self.topology.engine().frame_size;
        let largest = frame_size.max_mtu();
        if actual.kind == InterfaceKind::Veth && mtu > VETH_MAX_MTU {
            let message = format!("the MTU of {name}, {mtu}, is too large for XDP on a veth");
            let help = format!("`ip link set {name} mtu {VETH_MAX_MTU}` at most, on both ends");
            self.error(at, message, help);
        } else if mtu > largest {
            let message = format!(
                "packets of {name}'s MTU, {mtu}, do not fit a frame of {} bytes",
                frame_size.bytes()
            );
            let bigger = FrameSize::Bytes4096;
            let help = if frame_size != bigger && mtu <= bigger.max_mtu() {
                format!("`frame_size = 4096`, or `ip link set {name} mtu {largest}`")
            } else {
                format!("`ip link set {name} mtu {}`", bigger.max_mtu())
            };
            self.error(at, message, help);
        }
    }

    /// A worker asks in vain for packets that the device does not leave to it. What
    /// `lockstep topology apply` would change is what is said here.
    fn deferral(&mut self, at: Option<Position>, interface: &Interface, actual: &HostInterface) {
        let (name, wanted) = (&interface.name, Deferral::FOR_WORKERS);
        if self.topology.engine().receive != Receive::Worker || actual.deferral == Some(wanted) {
            return;
        }
        let Some(found) = actual.deferral else {
            let message = format!(
                "{name} cannot leave its packets to workers (`receive = \"worker\"`): this kernel \
                 has no {}",
                Deferral::FILES.join(" and ")
            );
            return self.warning(at, message, "`receive = \"kernel\"`, or a newer kernel");
        };
        let message = format!(
            "{name} does not leave its packets to workers as `receive = \"worker\"` needs it: \
             {found}, not {wanted}"
        );
        let help = format!("`lockstep topology apply {}`", self.topology.file());
        self.warning(at, message, help);
    }

    fn core(&mut self, worker: usize) {
        let number = u32::from(self.topology.workers()[worker].core.get());
        let at = self.topology.origin.core(worker);
        if !self.host.cores.contains(&number) {
            let help = format!("it has {}", list(&self.host.cores));
            self.error(at, format!("this host has no core {number}"), help);
        } else if !self.host.online.contains(&number) {
            let help = format!("`echo 1 > /sys/devices/system/cpu/cpu{number}/online`");
            self.error(at, format!("core {number} is off line"), help);
        } else {
            self.numa(worker, number, at);
        }
    }

    fn numa(&mut self, worker: usize, core: u32, at: Option<Position>) {
        let Some(node) = self.host.node_of(core) else {
            return;
        };
        let queues = &self.topology.workers()[worker].queues;
        let names: BTreeSet<&str> = queues.iter().map(|q| q.interface.as_str()).collect();
        for name in names {
            let actual = self.host.interfaces.get(name);
            let Some(other) = actual.and_then(|i| i.numa_node).filter(|n| *n != node) else {
                continue;
            };
            let message = format!("core {core} is on NUMA node {node}, {name} on node {other}");
            let near = self.host.nodes.get(&other).cloned().unwrap_or_default();
            let help = format!(
                "each packet crosses between the nodes; the cores of node {other} are {}",
                list(&near)
            );
            self.warning(at, message, help);
        }
    }

    /// TCP and UDP to an engine address go to the engine: on the address that the operator comes
    /// in by, that would be the last packet of the session.
    fn addresses(&mut self) {
        let (topology, host) = (self.topology, self.host);
        let engine = topology.engine().addresses.all();
        let at = topology.origin.key("addresses");
        for interface in topology.interfaces() {
            let name = &interface.name;
            let actual = host.interfaces.get(name.as_str());
            let own: &[IpAddr] = actual.map_or(&[], |actual| &actual.addresses);
            for address in own.iter().filter(|address| engine.contains(address)) {
                let same_version = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
                let mut others = own.iter().filter(same_version);
                if others.all(|other| engine.contains(other)) {
                    let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    let message = format!(
                        "{address} is the kernel's: {name} has no other {version} address, and \
                         the engine would take its TCP and UDP, SSH and BGP included"
                    );
                    let help = "engine addresses are extra ones that the network routes to this \
                                host; no interface needs to have them";
                    self.error(at, message, help);
                } else {
                    let message = format!(
                        "{name} has engine address {address} too: TCP and UDP to it go to the \
                         engine, not to this host's programs"
                    );
                    self.warning(at, message, ENGINE_ADDRESS_IS_FINE);
                }
            }
        }
    }

    fn queues(&mut self, worker: usize) {
        let plan = &self.topology.workers()[worker];
        let queues = &plan.queues;
        if queues.len() > Worker::MAX_QUEUES {
            let message = format!(
                "the worker on core {} polls {} queues, the most is {}",
                plan.core,
                queues.len(),
                Worker::MAX_QUEUES
            );
            let help = "have more workers, or fewer queues (`ethtool -L`)";
            self.error(self.topology.origin.core(worker), message, help);
        }
        for (index, queue) in queues.iter().enumerate() {
            let name = &queue.interface;
            let Some(actual) = self.host.interfaces.get(name.as_str()) else {
                continue;
            };
            let at = self.topology.origin.queue(worker, index);
            let has = match actual.rx_queues {
                0 => "no RX queue".to_owned(),
                1 => "RX queue 0 only".to_owned(),
                more => format!("RX queues 0-{}", more - 1),
            };
            if queue.number >= actual.rx_queues {
                let help = format!(
                    "`ethtool -L {name} combined N` changes that, where the device has more"
                );
                let message = format!("there is no queue {queue}: {name} has {has}");
                self.error(at, message, help);
            } else if queue.number >= actual.tx_queues {
                let message = format!("{name} has no TX queue {} to send on", queue.number);
                let help = "give it as many TX queues as RX queues";
                self.warning(at, message, help);
            }
        }
    }

    fn memory(&mut self) {
        let (needed, available) = (total(self.topology), self.host.memory_available);
        if needed <= available {
            return;
        }
        let workers = self.topology.workers();
        let memory = workers
            .iter()
            .map(|w| WorkerMemory::of(self.topology.engine(), w));
        let (umem, flows) = memory.fold((0, 0), |(umem, flows), each| {
            (umem + each.umem, flows + each.flows)
        });
        let message = format!(
            "the memory does not fit: {} workers take {} for UMEMs and {} for flow tables, {} \
             together, and {} are available",
            workers.len(),
            human(umem),
            human(flows),
            human(needed),
            human(available)
        );
        let help = "lower `flows_ipv4`, `flows_ipv6` or `umem_frames`, or have fewer workers";
        let origin = &self.topology.origin;
        let at = ["flows_ipv4", "flows_ipv6", "umem_frames"]
            .iter()
            .find_map(|key| origin.key(key));
        self.error(at, message, help);
    }

    fn spill(&mut self) {
        let path = self.topology.sessions().spill.as_deref();
        let Some((path, why)) = path.and_then(|path| Some((path, unusable(path)?))) else {
            return;
        };
        let message = format!("{} cannot hold spilled logs: {why}", path.display());
        let help = "name a directory that is there or can be made, on a file system for it";
        self.error(self.topology.origin.key("spill"), message, help);
    }

    /// Taken when the first service asks for sessions: only who writes of it is told before.
    fn log_memory(&mut self) {
        let topology = self.topology;
        let Some(at) = topology.origin.key("log_memory") else {
            return;
        };
        let (each, workers) = (
            topology.sessions().log_memory.get(),
            topology.workers().len(),
        );
        let logs = each.saturating_mul(workers as u64);
        let (rest, available) = (total(topology), self.host.memory_available);
        if logs.saturating_add(rest) <= available {
            return;
        }
        let message = format!(
            "the logs of sessions may not fit: {workers} workers take up to {} each, {} together, \
             beside {} for packets and flows, and {} are available",
            human(each),
            human(logs),
            human(rest),
            human(available)
        );
        let help = "lower `log_memory`; `spill` is for what has no room in it";
        self.warning(Some(at), message, help);
    }
}

/// The nearest directory that is there, of a path to be made: why nothing can be made in it.
fn unusable(path: &Path) -> Option<String> {
    let there = path.ancestors().find(|p| p.symlink_metadata().is_ok())?;
    let shown = there.display();
    if !there.is_dir() {
        return Some(format!("{shown} is no directory"));
    }
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    let error = nix::unistd::access(there, wanted).err()?;
    Some(format!(
        "nothing can be written in {shown}: {}",
        error.desc()
    ))
}

/// `queue 3` or `queues 2, 3`.
fn queue_list(queues: &[u32]) -> String {
    let noun = if queues.len() == 1 { "queue" } else { "queues" };
    let set: BTreeSet<u32> = queues.iter().copied().collect();
    format!("{noun} {}", list(&set))
}

/// `"eth0:2-3"`, as a worker's list takes it.
fn queue_ranges(interface: &str, queues: &[u32]) -> String {
    let set: BTreeSet<u32> = queues.iter().copied().collect();
    let ranges: Vec<String> = ranges(&set)
        .into_iter()
        .map(|range| format!("\"{interface}:{range}\""))
        .collect();
    ranges.join(", ")
}

/// Numbers in the kernel's notation: `0-3, 8`; `none` for none.
pub(crate) fn list(numbers: &BTreeSet<u32>) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    ranges(numbers).join(", ")
}

fn ranges(numbers: &BTreeSet<u32>) -> Vec<String> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect()
}
