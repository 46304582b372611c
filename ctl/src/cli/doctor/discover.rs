//! Looking at a host: files of sysfs and procfs, `ethtool -k`, the engine. Decides nothing.

use super::engine::longest;
use super::facts::{Engine, Facts, Features, Irq, Kind, ServerFacts, ServerInterface};
use super::probe;
use crate::cli::{Failure, Global, ask};
use crate::transport::Peer;
use lockstep_api::{CurrentRequest, MetricsRequest, StatusRequest};
use lockstep_bpf::Decap;
use lockstep_topology::{Host, InterfaceKind, Topology};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::task::spawn_blocking;

/// A tunnel over IPv4, as `/sys/class/net/*/type` numbers them (ARPHRD of linux/if_arp.h): ipip,
/// sit. One over IPv6.
const TUNNELS_V4: [&str; 2] = ["768", "776"];
const TUNNEL_V6: &str = "769";

/// A balancer.
pub async fn balancer(
    global: &Global,
    topology: Option<&Path>,
    client_mtu: u32,
    ping: bool,
) -> Result<Facts, Failure> {
    let host = host()?;
    let engine = engine(global).await;
    let topology = topology_of(topology, engine.as_ref().ok());
    let probes = match &engine {
        Ok(engine) if ping => {
            let longest = longest(&engine.snapshot, client_mtu);
            let pinged = spawn_blocking(move || probe::ping(&longest)).await;
            match pinged {
                Ok(Ok(probes)) => probes,
                Ok(Err(error)) => {
                    let text =
                        format!("cannot ping the backends: {error}; --no-ping leaves that out");
                    return Err(Failure::Refused(text));
                }
                Err(_) => Vec::new(),
            }
        }
        Ok(_) | Err(_) => Vec::new(),
    };
    let names: Vec<String> = host.interfaces.keys().cloned().collect();
    Ok(Facts {
        topology: Some(read_topology(&topology)),
        irqs: names.iter().flat_map(|name| irqs(name)).collect(),
        irqbalance: runs("irqbalance"),
        features: names
            .iter()
            .filter_map(|name| Some((name.clone(), features(name)?)))
            .collect(),
        vlans: vlans(&names),
        forwarding_v4: sysctl("net/ipv4/ip_forward") == Some(1),
        forwarding_v6: sysctl("net/ipv6/conf/all/forwarding") == Some(1),
        huge_pages: chosen(
            &text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default(),
        ),
        engine: Some(engine),
        client_mtu,
        probes,
        host,
    })
}

/// The file to judge: what is asked for, else the one that the engine was started with, which need not
/// be where files are by default.
fn topology_of(asked: Option<&Path>, engine: Option<&Engine>) -> PathBuf {
    let of_engine = engine.map(|engine| Path::new(&engine.status.topology_file));
    let of_engine = of_engine.filter(|file| !file.as_os_str().is_empty());
    asked
        .or(of_engine)
        .unwrap_or(Path::new("/etc/lockstep/topology.toml"))
        .to_owned()
}

fn host() -> Result<Host, Failure> {
    Host::discover(Path::new("/sys"), Path::new("/proc"))
        .map_err(|error| Failure::Refused(error.to_string()))
}

fn read_topology(path: &Path) -> Result<Topology, String> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Topology::parse(&name, &text).map_err(|errors| errors.to_string())
}

async fn engine(global: &Global) -> Result<Engine, String> {
    let asked = async {
        let mut engine = ask::engine(global).await?;
        let status = ask::present(Peer::Engine, engine.status(StatusRequest {})).await?;
        let snapshot = ask::present(Peer::Engine, engine.current(CurrentRequest {})).await?;
        let metrics = ask::present(Peer::Engine, engine.metrics(MetricsRequest {})).await?;
        Ok(Engine {
            status,
            snapshot,
            xdp: xdp(&metrics.text),
        })
    };
    asked.await.map_err(|failure: Failure| failure.to_string())
}

/// What the XDP programs did with packets, of the engine's metrics.
fn xdp(metrics: &str) -> Vec<(String, String, u64)> {
    let value = |labels: &str, label: &str| {
        let (_, rest) = labels.split_once(&format!("{label}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let line = |line: &str| {
        let (labels, count) = line
            .strip_prefix("lockstep_xdp_packets_total{")?
            .split_once("} ")?;
        Some((
            value(labels, "interface")?,
            value(labels, "verdict")?,
            count.parse().ok()?,
        ))
    };
    metrics.lines().filter_map(line).collect()
}

/// The interrupts of an interface's device: those that are its own, by number, with what
/// `/proc/interrupts` calls them.
fn irqs(interface: &str) -> Vec<Irq> {
    let table = text("/proc/interrupts").unwrap_or_default();
    let own = names(&format!("/sys/class/net/{interface}/device/msi_irqs"));
    own.iter()
        .filter_map(|number| {
            let number: u32 = number.parse().ok()?;
            let cores = text(&format!("/proc/irq/{number}/smp_affinity_list"))?;
            Some(Irq {
                number,
                interface: interface.to_owned(),
                queue: queue(&table, number),
                cores: cores_of(&cores),
            })
        })
        .collect()
}

/// The queue that an interrupt's name ends with: `ice-eth0-TxRx-3`, `mlx5_comp3@pci:...`,
/// `virtio0-input.3`. Interrupts for other things have names without a number at the end.
fn queue(interrupts: &str, number: u32) -> Option<u32> {
    let line = interrupts.lines().find(|line| {
        let head = line.split(':').next().unwrap_or_default();
        head.trim().parse() == Ok(number)
    })?;
    let name = line.split_whitespace().last()?.split('@').next()?;
    let carries = ["rx", "Rx", "input", "comp", "fp-", "queue"]
        .iter()
        .any(|word| name.contains(word));
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    carries
        .then(|| name[name.len() - digits..].parse().ok())
        .flatten()
}

/// A list in the kernel's notation: `0-3,8`.
fn cores_of(list: &str) -> BTreeSet<u32> {
    let parts = list.split(',').filter(|part| !part.is_empty());
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<u32>().ok()?)
    };
    parts.filter_map(range).flatten().collect()
}

/// Whether a program of this name runs.
fn runs(program: &str) -> bool {
    let comm = |pid: &String| text(&format!("/proc/{pid}/comm"));
    names("/proc")
        .iter()
        .filter_map(comm)
        .any(|name| name == program)
}

/// What `ethtool -k` says; `None` without ethtool, or where it says nothing.
fn features(interface: &str) -> Option<Features> {
    let mut command = Command::new("ethtool");
    let output = command
        .args(["-k", interface])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| parse_features(&text))
}

fn parse_features(text: &str) -> Features {
    let line = |line: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        Some((name.to_owned(), value.starts_with("on")))
    };
    text.lines().filter_map(line).collect()
}

/// VLAN interfaces, by the interface below.
fn vlans(interfaces: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut vlans: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in interfaces {
        let uevent = text(&format!("/sys/class/net/{name}/uevent")).unwrap_or_default();
        if !uevent.lines().any(|line| line == "DEVTYPE=vlan") {
            continue;
        }
        let entries = names(&format!("/sys/class/net/{name}"));
        for below in entries
            .iter()
            .filter_map(|entry| entry.strip_prefix("lower_"))
        {
            vlans
                .entry(below.to_owned())
                .or_default()
                .push(name.clone());
        }
    }
    vlans
}

/// The choice in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split(']').next().map(str::to_owned)
}

fn sysctl(key: &str) -> Option<u32> {
    text(&format!("/proc/sys/{key}"))?.parse().ok()
}

/// A file's text; nothing where it cannot be read, which is a fact too.
fn text(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A real server.
pub fn server(vips: Vec<IpAddr>, client_mtu: u32) -> Result<ServerFacts, Failure> {
    let host = host()?;
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let all = getifaddrs().map_err(|error| {
        Failure::Refused(format!("cannot list the addresses of this host: {error}"))
    })?;
    for entry in all {
        if let Some(address) = entry.address.as_ref().and_then(ip) {
            addresses
                .entry(entry.interface_name)
                .or_default()
                .push(address);
        }
    }
    let conf = |name: &str, key: &str| {
        let of = |place: &str| sysctl(&format!("net/ipv4/conf/{place}/{key}")).unwrap_or(0);
        of("all").max(of(name))
    };
    let interface = |(name, found): (&String, &lockstep_topology::HostInterface)| ServerInterface {
        kind: kind(name, &found.kind),
        up: found.up,
        mtu: found.mtu,
        addresses: addresses.get(name).cloned().unwrap_or_default(),
        rp_filter: conf(name, "rp_filter"),
        arp_ignore: conf(name, "arp_ignore"),
        decap: Decap::open(name).is_ok(),
        name: name.clone(),
    };
    Ok(ServerFacts {
        vips,
        interfaces: host.interfaces.iter().map(interface).collect(),
        client_mtu,
    })
}

fn kind(name: &str, kind: &InterfaceKind) -> Kind {
    let number = text(&format!("/sys/class/net/{name}/type")).unwrap_or_default();
    match (kind, number.as_str()) {
        (_, v4) if TUNNELS_V4.contains(&v4) => Kind::Tunnel(4),
        (_, TUNNEL_V6) => Kind::Tunnel(6),
        (InterfaceKind::Device { .. } | InterfaceKind::Veth, _) => Kind::Ethernet,
        (InterfaceKind::Virtual { devtype }, _) if devtype != "dummy" => Kind::Ethernet,
        (InterfaceKind::Virtual { .. } | InterfaceKind::NotEthernet, _) => Kind::Other,
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_the_engine_runs_with_is_judged() {
        let engine = |file: &str| {
            let mut engine = Engine::default();
            engine.status.topology_file = file.to_owned();
            engine
        };
        let (asked, own) = (Path::new("asked.toml"), engine("/srv/own.toml"));
        let by_default = Path::new("/etc/lockstep/topology.toml");
        assert_eq!(topology_of(Some(asked), Some(&own)), asked);
        assert_eq!(topology_of(None, Some(&own)), Path::new("/srv/own.toml"));
        // One from before it told.
        assert_eq!(topology_of(None, Some(&engine(""))), by_default);
        assert_eq!(topology_of(None, None), by_default);
    }

    #[test]
    fn interrupts_are_of_a_queue_by_their_names() {
        let table = "           CPU0       CPU1\n\
             \x20 24:    1 2  IR-PCI-MSI 1-edge   ice-eth0-TxRx-3\n\
             \x20 25:    1 2  IR-PCI-MSI 2-edge   mlx5_comp7@pci:0000:01:00.0\n\
             \x20 26:    1 2  IR-PCI-MSI 3-edge   virtio0-input.0\n\
             \x20 27:    1 2  IR-PCI-MSI 4-edge   virtio0-config\n\
             \x20124:    1 2  IR-PCI-MSI 5-edge   ice-0000:01:00.0:misc\n";
        let expected = [
            (24, Some(3)),
            (25, Some(7)),
            (26, Some(0)),
            (27, None),
            (124, None),
            (4, None),
        ];
        for (number, queue_number) in expected {
            assert_eq!(queue(table, number), queue_number, "{number}");
        }
    }

    #[test]
    fn lists_choices_features_and_metrics_are_read() {
        assert_eq!(cores_of("0-2,8"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(cores_of(""), BTreeSet::new());
        assert_eq!(chosen("always [madvise] never"), Some("madvise".to_owned()));
        let features = parse_features(
            "Features for eth0:\nrx-checksumming: on [fixed]\n\ttx-checksum-ipv4: off\nlarge-receive-offload: off [fixed]\n",
        );
        assert_eq!(features.get("rx-checksumming"), Some(&true));
        assert_eq!(features.get("tx-checksum-ipv4"), Some(&false));
        let metrics = "# TYPE lockstep_xdp_packets_total counter\n\
             lockstep_xdp_packets_total{interface=\"eth0\",verdict=\"stale\"} 17\n\
             lockstep_epoch 3\n";
        assert_eq!(xdp(metrics), [("eth0".to_owned(), "stale".to_owned(), 17)]);
    }
}
