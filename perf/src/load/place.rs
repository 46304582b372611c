//! Where sockets are: network namespaces, interfaces, and what the kernel knows of the way from there.

use super::Mac;
use anyhow::{Context, Result, anyhow, bail, ensure};
use lockstep_tests::lab::wait_until;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const DIRECTORY: &str = "/run/netns";
/// For a neighbor to answer.
const SOON: Duration = Duration::from_secs(3);
/// What is sent there is thrown away (RFC 863): it only makes the kernel ask for the neighbor.
const DISCARD: u16 = 9;

/// Runs `task` in this thread inside a namespace, and comes back from it. Sockets that it opens, and
/// programs that it starts, stay inside.
pub fn within<T>(netns: Option<&str>, task: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(name) = netns else { return task() };
    let path = match name.contains('/') {
        true => PathBuf::from(name),
        false => Path::new(DIRECTORY).join(name),
    };
    let inside = File::open(&path).with_context(|| {
        format!("there is no network namespace {name}: `ip netns list` names them")
    })?;
    let home = File::open("/proc/thread-self/ns/net").context("cannot find the way back")?;
    setns(&inside, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace {name}: run it as root"))?;
    let result = task();
    setns(&home, CloneFlags::CLONE_NEWNET).context("cannot come back from the namespace")?;
    result
}

/// How an interface's link is: looked at before and after, it says whether it was there all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    /// Whether it is up, and has a link.
    pub up: bool,
    /// How often it came and went.
    pub changes: u64,
}

impl Carrier {
    /// Of an interface of this thread's namespace; one that is gone is down.
    pub fn of(name: &str) -> Self {
        let link = ip(&["-statistics", "-statistics", "link", "show", "dev", name]);
        link.map_or(
            Carrier {
                up: false,
                changes: 0,
            },
            |link| Self::read(&link[0]),
        )
    }

    fn read(link: &Value) -> Self {
        let flags: Vec<&str> = (link["flags"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        Carrier {
            up: flags.contains(&"UP") && flags.contains(&"LOWER_UP"),
            changes: (link["stats64"]["tx"]["carrier_changes"].as_u64()).unwrap_or_default(),
        }
    }

    /// Whether the link was there from `before` until now.
    pub fn stayed(self, before: Carrier) -> bool {
        self.up && self.changes == before.changes
    }
}

/// What an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    pub mac: Mac,
    /// Its MTU, in bytes.
    pub mtu: usize,
    /// Its addresses that others can answer to.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// An interface of this thread's namespace.
    pub fn find(name: &str) -> Result<Self> {
        let links = ip(&["addr", "show", "dev", name]).with_context(|| {
            format!("there is no interface {name} here: see `ip link`, and name its namespace")
        })?;
        let link = &links[0];
        let mac: Result<Mac, String> = link["address"].as_str().unwrap_or_default().parse();
        let flags = link["flags"].as_array().into_iter().flatten();
        ensure!(
            flags.into_iter().any(|flag| flag == "UP"),
            "{name} is down: `ip link set {name} up`"
        );
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        Ok(Interface {
            name: name.to_owned(),
            mac: mac.map_err(|_| anyhow!("{name} is no Ethernet: it has no link-layer address"))?,
            mtu: link["mtu"].as_u64().unwrap_or_default() as usize,
            addresses: addresses
                .filter(|address| address["scope"] == "global")
                .filter_map(|address| address["local"].as_str()?.parse().ok())
                .collect(),
        })
    }

    /// The link-layer address that packets to `to` leave this interface for, by the kernel's routes;
    /// the kernel asks for it where it does not know it.
    pub fn next_hop(&self, to: IpAddr) -> Result<Mac> {
        let name = &self.name;
        let by_hand = "name the next hop with --next-hop MAC";
        let routes = ip(&["route", "get", &to.to_string(), "oif", name]).with_context(|| {
            format!("there is no route to {to} from {name}: add one, or {by_hand}")
        })?;
        let gateway = routes[0]["gateway"].as_str().map(str::parse).transpose();
        let neighbor = gateway
            .context("the kernel named no gateway")?
            .unwrap_or(to);
        let unspecified: IpAddr = match neighbor {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let probe = UdpSocket::bind(SocketAddr::new(unspecified, 0))
            .context("cannot open a socket to find the next hop")?;
        // It may be unreachable for now; what counts is what the kernel learns.
        let _ = probe.send_to(&[], SocketAddr::new(neighbor, DISCARD));
        wait_until(&format!("{neighbor} answers on {name}"), SOON, || {
            self.neighbor(neighbor)
        })
        .with_context(|| {
            format!("nobody has {neighbor} on the link of {name}: see `ip neigh`, or {by_hand}")
        })
    }

    fn neighbor(&self, address: IpAddr) -> Result<Option<Mac>> {
        let known = ip(&["neigh", "show", &address.to_string(), "dev", &self.name])?;
        let mac = known[0]["lladdr"].as_str();
        Ok(mac.and_then(|mac| mac.parse().ok()))
    }
}

/// `ip -json`, as the kernel of this thread's namespace sees things.
fn ip(words: &[&str]) -> Result<Value> {
    let output = Command::new("ip").arg("-json").args(words).output();
    let output = output.context("cannot run ip (Debian's package iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", words.join(" "), said.trim());
    }
    if output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("ip {} wrote no JSON", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_link_stayed_if_it_is_up_and_did_not_change() {
        let link = |flags: &[&str], changes: u64| {
            Carrier::read(&json!({
                "flags": flags, "stats64": {"tx": {"carrier_changes": changes}}
            }))
        };
        let before = link(&["BROADCAST", "UP", "LOWER_UP"], 2);
        for (says, flags, changes, stayed) in [
            ("as it was", &["UP", "LOWER_UP"][..], 2, true),
            ("went and came back", &["UP", "LOWER_UP"], 4, false),
            ("was taken down", &["BROADCAST"], 2, false),
            ("has lost its carrier", &["NO-CARRIER", "UP"], 3, false),
        ] {
            assert_eq!(link(flags, changes).stayed(before), stayed, "{says}");
        }
        assert!(!Carrier::of("no-such-link").up);
    }
}
