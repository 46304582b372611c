//! The addresses of this network namespace's interfaces, from procfs.

use super::{DiscoverError, optional, read};
use crate::model::Addresses;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// `/proc/net` leads to the namespace of the process; a thread may be in another.
fn net(procfs: &Path) -> PathBuf {
    procfs.join("thread-self/net")
}

/// The interfaces of the calling thread's network namespace.
pub(super) fn interface_names(procfs: &Path) -> Result<Vec<String>, DiscoverError> {
    let text = read(&net(procfs).join("dev"))?;
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Interfaces and their addresses, those only that other hosts can send to.
pub(super) fn discover(procfs: &Path) -> Result<Vec<(String, IpAddr)>, DiscoverError> {
    let net = net(procfs);
    // A kernel without IPv4 or IPv6 has no such files.
    let file = |name: &str| optional(read(&net.join(name))).map(Option::unwrap_or_default);
    let routes = connected_routes(&file("route")?);
    let local = local_ipv4(&file("fib_trie")?);
    let ipv4 = local.into_iter().filter_map(|address| {
        let route = routes.iter().find(|route| route.holds(address))?;
        Some((route.interface.clone(), IpAddr::V4(address)))
    });
    let ipv6 = ipv6(&file("if_inet6")?);
    Ok(ipv4
        .chain(ipv6)
        .filter(|(_, address)| Addresses::is_usable(*address))
        .collect())
}

/// A network that an interface is connected to.
struct Connected {
    interface: String,
    network: u32,
    mask: u32,
}

impl Connected {
    fn holds(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask == self.network
    }
}

/// `/proc/net/route`, whose addresses are hexadecimal in the byte order of the machine, longest
/// prefix first. procfs names no IPv4 address's interface; the network it is connected to does.
fn connected_routes(text: &str) -> Vec<Connected> {
    let hexadecimal = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let mut routes: Vec<Connected> = text
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [interface, network, gateway, _, _, _, _, mask, ..] = fields[..] else {
                return None;
            };
            let connected = hexadecimal(gateway)? == 0;
            let (network, mask) = (hexadecimal(network)?, hexadecimal(mask)?);
            (connected && mask != 0).then(|| Connected {
                interface: interface.to_owned(),
                network,
                mask,
            })
        })
        .collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.mask));
    routes
}

/// `/proc/net/fib_trie`: an address on its line, what it is on the next.
fn local_ipv4(text: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// `/proc/net/if_inet6`: address, index, prefix length, scope (0 is global), flags, name.
fn ipv6(text: &str) -> Vec<(String, IpAddr)> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [address, _, _, "00", _, interface] = fields[..] else {
                return None;
            };
            let address = u128::from_str_radix(address, 16).ok()?;
            Some((
                interface.to_owned(),
                IpAddr::V6(Ipv6Addr::from_bits(address)),
            ))
        })
        .collect()
}
