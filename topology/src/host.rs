//! What a host has: interfaces, queues, cores, NUMA nodes, memory.
//!
//! [`Host`] is plain data that tests can make up; [`Host::discover`] fills it from the files of
//! sysfs and procfs and does nothing else to the machine.

use crate::deferral::Deferral;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

mod addresses;

/// What a host has, as far as a topology depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Its network interfaces by name.
    pub interfaces: BTreeMap<String, HostInterface>,
    /// Interfaces of this network namespace that sysfs does not show: it was mounted in another
    /// namespace, and so `interfaces` is another namespace's.
    pub hidden: BTreeSet<String>,
    /// Cores that there are, on line or not.
    pub cores: BTreeSet<u32>,
    /// Cores that run.
    pub online: BTreeSet<u32>,
    /// Cores that the kernel keeps free of other threads (`isolcpus=`).
    pub isolated: BTreeSet<u32>,
    /// The cores of each NUMA node.
    pub nodes: BTreeMap<u32, BTreeSet<u32>>,
    /// Bytes that can be taken without swapping (`MemAvailable`).
    pub memory_available: u64,
}

/// A network interface of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    /// What it is.
    pub kind: InterfaceKind,
    /// Its RX queues, numbered from 0.
    pub rx_queues: u32,
    /// Its TX queues, numbered from 0.
    pub tx_queues: u32,
    /// The NUMA node of its device, where it has one.
    pub numa_node: Option<u32>,
    /// The longest IP packet that it sends, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// How long it leaves its packets to a worker, where the kernel has that.
    pub deferral: Option<Deferral>,
    /// Its addresses that other hosts can send to.
    pub addresses: Vec<IpAddr>,
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A device on a bus, with its driver.
    Device {
        /// The kernel module's name, such as `ice`; empty when none is bound.
        driver: String,
    },
    /// One end of a veth pair.
    Veth,
    /// Any other: bridge, VLAN, bond, tunnel, dummy, ... with sysfs's word for it, if it has one.
    Virtual {
        /// `DEVTYPE` of the device, such as `bridge`; empty when it has none.
        devtype: String,
    },
    /// No Ethernet: the loopback interface, a tunnel.
    NotEthernet,
}

/// A file of sysfs or procfs that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; is that file system mounted here?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds {text:?}, not {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Host {
    /// Looks at this host: `Host::discover("/sys".as_ref(), "/proc".as_ref())`.
    ///
    /// Only files are read. sysfs shows the interfaces of the network namespace that it was
    /// mounted in, not of the one that the process is in; where the two differ, `hidden` says so.
    ///
    /// # Errors
    /// [`DiscoverError`] names the file that is missing or not understood.
    pub fn discover(sysfs: &Path, procfs: &Path) -> Result<Self, DiscoverError> {
        let cpu = sysfs.join("devices/system/cpu");
        let mut interfaces = BTreeMap::new();
        let net = sysfs.join("class/net");
        for name in names_in(&net)? {
            // One that goes away while it is looked at is not there.
            if let Some(interface) = HostInterface::discover(&net.join(&name))? {
                interfaces.insert(name, interface);
            }
        }
        let here = addresses::interface_names(procfs)?;
        let hidden = here
            .into_iter()
            .filter(|name| !interfaces.contains_key(name))
            .collect();
        for (name, address) in addresses::discover(procfs)? {
            if let Some(interface) = interfaces.get_mut(&name) {
                interface.addresses.push(address);
            }
        }
        Ok(Host {
            interfaces,
            hidden,
            cores: cpu_list(&cpu.join("present"))?,
            online: cpu_list(&cpu.join("online"))?,
            isolated: optional(cpu_list(&cpu.join("isolated")))?.unwrap_or_default(),
            nodes: numa_nodes(&sysfs.join("devices/system/node"))?,
            memory_available: memory_available(&procfs.join("meminfo"))?,
        })
    }

    /// The NUMA node of a core, where the host says.
    pub fn node_of(&self, core: u32) -> Option<u32> {
        let node = self.nodes.iter().find(|(_, cores)| cores.contains(&core));
        node.map(|(number, _)| *number)
    }
}

impl HostInterface {
    /// From an interface's directory in `/sys/class/net`; `None` when it is no longer there, or
    /// no interface (`bonding_masters` is a file).
    fn discover(path: &Path) -> Result<Option<Self>, DiscoverError> {
        let Some(mtu) = optional(number(&path.join("mtu"), 10))? else {
            return Ok(None);
        };
        let Some(flags) = optional(number(&path.join("flags"), 16))? else {
            return Ok(None);
        };
        let queues = |kind: &str| -> Result<u32, DiscoverError> {
            let names = optional(names_in(&path.join("queues")))?.unwrap_or_default();
            let count = names.iter().filter(|name| name.starts_with(kind)).count();
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        };
        // -1 where the device belongs to no node; a virtual interface has no device at all.
        let node = optional(read(&path.join("device/numa_node")))?;
        Ok(Some(HostInterface {
            kind: kind(path)?,
            rx_queues: queues("rx-")?,
            tx_queues: queues("tx-")?,
            numa_node: node.and_then(|node| node.parse().ok()),
            mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
            // IFF_UP.
            up: flags & 1 == 1,
            deferral: deferral(path)?,
            addresses: Vec::new(),
        }))
    }
}

/// `None` where the kernel has no such files.
fn deferral(path: &Path) -> Result<Option<Deferral>, DiscoverError> {
    let [polls, nanoseconds] = Deferral::FILES.map(|file| optional(number(&path.join(file), 10)));
    Ok(polls?
        .zip(nanoseconds?)
        .map(|(polls, nanoseconds)| Deferral { polls, nanoseconds }))
}

/// sysfs has no word for a veth: it is what is left when everything else has been told apart.
/// Both ends may have the same index, in their two namespaces, so that `iflink` does not tell it
/// from a dummy or ifb interface; their usual names do.
fn kind(path: &Path) -> Result<InterfaceKind, DiscoverError> {
    // ARPHRD_ETHER.
    if optional(number(&path.join("type"), 10))? != Some(1) {
        return Ok(InterfaceKind::NotEthernet);
    }
    if path.join("device").exists() {
        let driver = fs::read_link(path.join("device/driver")).ok();
        let name = driver.as_deref().and_then(Path::file_name);
        return Ok(InterfaceKind::Device {
            driver: name.map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        });
    }
    let uevent = optional(read(&path.join("uevent")))?.unwrap_or_default();
    let devtype = uevent.lines().find_map(|l| l.strip_prefix("DEVTYPE="));
    if let Some(devtype) = devtype {
        return Ok(InterfaceKind::Virtual {
            devtype: devtype.to_owned(),
        });
    }
    let of_kind = |kind: &str| InterfaceKind::Virtual {
        devtype: kind.to_owned(),
    };
    let directories = [
        ("tun_flags", "tun"),
        ("bridge", "bridge"),
        ("bonding", "bond"),
    ];
    for (entry, kind) in directories {
        if path.join(entry).exists() {
            return Ok(of_kind(kind));
        }
    }
    let link = optional(read(&path.join("iflink")))?;
    let own = optional(read(&path.join("ifindex")))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for kind in ["dummy", "ifb"] {
        if link == own && name.starts_with(kind) {
            return Ok(of_kind(kind));
        }
    }
    Ok(InterfaceKind::Veth)
}

fn numa_nodes(path: &Path) -> Result<BTreeMap<u32, BTreeSet<u32>>, DiscoverError> {
    let mut nodes = BTreeMap::new();
    // A kernel without NUMA has no such directory.
    for name in optional(names_in(path))?.unwrap_or_default() {
        let number = name.strip_prefix("node").and_then(|n| n.parse().ok());
        if let Some(number) = number {
            nodes.insert(number, cpu_list(&path.join(&name).join("cpulist"))?);
        }
    }
    Ok(nodes)
}

fn memory_available(path: &Path) -> Result<u64, DiscoverError> {
    let text = read(path)?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib.saturating_mul(1024))
        .ok_or_else(|| content(path, text, "a line such as \"MemAvailable: 1024 kB\""))
}

/// A list in the kernel's notation: `0-3,8,10-11`, or nothing.
fn cpu_list(path: &Path) -> Result<BTreeSet<u32>, DiscoverError> {
    let text = read(path)?;
    parse_cpu_list(&text).ok_or_else(|| content(path, text, "a list of cores such as \"0-3,8\""))
}

fn parse_cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    // Far above any kernel's NR_CPUS: a range from a broken file must not fill the memory.
    const MAX: u32 = 65_535;
    let mut cores = BTreeSet::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

fn number(path: &Path, radix: u32) -> Result<u64, DiscoverError> {
    let text = read(path)?;
    let digits = if radix == 16 {
        text.trim_start_matches("0x")
    } else {
        &text
    };
    u64::from_str_radix(digits, radix).map_err(|_| content(path, text, "a number"))
}

fn read(path: &Path) -> Result<String, DiscoverError> {
    let text = fs::read_to_string(path).map_err(|source| DiscoverError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

fn content(path: &Path, text: String, expected: &'static str) -> DiscoverError {
    DiscoverError::Content {
        path: path.to_owned(),
        text: text.chars().take(80).collect(),
        expected,
    }
}

/// The names in a directory, in order.
fn names_in(path: &Path) -> Result<Vec<String>, DiscoverError> {
    let error = |source| DiscoverError::Read {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// `None` for what is not there, or is no longer: sysfs answers ENODEV or EINVAL while an
/// interface is being taken away.
fn optional<T>(result: Result<T, DiscoverError>) -> Result<Option<T>, DiscoverError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(DiscoverError::Read { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::EINVAL)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
