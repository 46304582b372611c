//! What is wrong with a running engine, and with the ways to its backends.

use super::Finding;
use super::facts::{Engine, Facts};
use crate::cli::units::count;
use lockstep_api as api;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes of the headers that come in front of a packet.
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;

/// Everything that is found.
pub fn judge(engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let mut findings = workers(&engine.status);
    findings.extend(interfaces(engine));
    findings.extend(backends(&engine.status));
    findings.extend(mtu(engine, facts));
    findings.extend(forwarding(engine, facts));
    findings.extend(checksums(&engine.status));
    findings
}

fn workers(status: &api::EngineStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    for worker in &status.workers {
        let about = format!("worker {}", worker.index);
        if worker.state != "running" {
            findings.push(Finding::error(
                &about,
                format!(
                    "it is {}: its queues' packets go to the kernel",
                    worker.state
                ),
                format!(
                    "see the engine's log and what else runs on core {}; restart the engine",
                    worker.core
                ),
            ));
        } else if worker.epoch != status.epoch {
            findings.push(Finding::warning(
                &about,
                format!(
                    "it forwards by epoch {}, and {} is in force",
                    worker.epoch, status.epoch
                ),
                "ask again in a second; where it stays so, restart the engine",
            ));
        }
        if worker.kernel_dropped > 0 {
            findings.push(Finding::warning(
                &about,
                format!("the kernel dropped {} packets at its sockets", count(worker.kernel_dropped)),
                "`lockstep metrics | grep socket_drops` says why, and the page on metrics what to do",
            ));
        }
    }
    findings
}

/// How XDP runs, and what it left to the kernel for want of something.
fn interfaces(engine: &Engine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in &engine.status.interfaces {
        let name = &interface.name;
        if interface.mode == "generic" {
            findings.push(Finding::warning(
                name,
                "its driver has no native XDP: each packet is copied, and made an skb first",
                format!("`ethtool -i {name}` names the driver; take one with XDP, or `mode = \"copy\"` to insist"),
            ));
        }
    }
    for (interface, verdict, packets) in engine.xdp.iter().filter(|(_, _, n)| *n > 0) {
        let (why, mend) = match verdict.as_str() {
            "no_socket" => (
                "came while no engine was there, or to queues that no worker polls",
                "fine after a restart; if it grows, `lockstep topology check` names the queues"
                    .to_owned(),
            ),
            "stale" => (
                "came while there was no sign of life of an engine",
                "fine after a restart; if it grows, see the engine's log: is the host out of CPU time?"
                    .to_owned(),
            ),
            "no_headroom" => (
                "had no room in front for a tunnel header",
                format!(
                    "the driver of {interface} leaves too little: `ethtool -i {interface}`; another driver, or `mode = \"generic\"`"
                ),
            ),
            _ => continue,
        };
        let found = format!(
            "{} packets for VIPs went to the kernel since the XDP program came: they {why}",
            count(*packets)
        );
        findings.push(Finding::warning(interface, found, mend));
    }
    findings
}

fn backends(status: &api::EngineStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in &status.services {
        let about = format!("service {}", service.name);
        for backend in service.backends.iter().filter(|b| !b.reachable) {
            findings.push(Finding::error(
                &about,
                format!(
                    "backend {} ({}) is not reachable: {}",
                    backend.name, backend.address, backend.next_hop
                ),
                format!(
                    "`ip route get {0}` and `ip neigh show {0}`",
                    backend.address
                ),
            ));
        }
        let takes = |b: &api::BackendStatus| b.state() == api::BackendState::Active;
        if !service.backends.iter().any(takes) {
            findings.push(Finding::error(
                &about,
                "no backend takes new flows",
                "`lockstep undrain BACKEND`, or add one to services.toml",
            ));
        }
    }
    findings
}

/// Bytes that the engine puts in front of a packet for a backend.
fn overhead(service: &api::Service, backend: &IpAddr) -> u32 {
    if service.mode() != api::Mode::Tunnel {
        return 0;
    }
    let udp = if service.gue_port == 0 { 0 } else { UDP };
    udp + if backend.is_ipv4() { IPV4 } else { IPV6 }
}

/// Every backend with the longest packet that it may be sent.
pub fn longest(snapshot: &api::Snapshot, client_mtu: u32) -> BTreeMap<IpAddr, u32> {
    let mut longest = BTreeMap::new();
    for service in &snapshot.services {
        for backend in &service.backends {
            if let Ok(address) = backend.address.parse::<IpAddr>() {
                let bytes = client_mtu + overhead(service, &address);
                let known = longest.entry(address).or_insert(bytes);
                *known = bytes.max(*known);
            }
        }
    }
    longest
}

/// Interfaces that do not take a client's longest packet with its tunnel header.
fn mtu(engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let longest = longest(&engine.snapshot, facts.client_mtu);
    let mut needed: BTreeMap<&str, u32> = BTreeMap::new();
    for backend in engine.status.services.iter().flat_map(|s| &s.backends) {
        let address = backend.address.parse::<IpAddr>().ok();
        // "52:54:00:12:34:56 via 10.0.0.1 dev eth0".
        let device = backend.next_hop.split(" dev ").nth(1);
        if let (Some(bytes), Some(device)) = (address.and_then(|a| longest.get(&a)), device) {
            let known = needed.entry(device).or_insert(*bytes);
            *known = (*known).max(*bytes);
        }
    }
    let mut findings = Vec::new();
    for interface in &engine.status.interfaces {
        let Some(bytes) = needed
            .get(interface.name.as_str())
            .filter(|b| **b > interface.mtu)
        else {
            continue;
        };
        let (name, mtu) = (&interface.name, interface.mtu);
        findings.push(Finding::warning(
            name,
            format!(
                "its MTU is {mtu}, and a client's packet of {} bytes becomes {bytes} in the tunnel: it is dropped as too_big, and the client told to send less",
                facts.client_mtu
            ),
            format!("`ip link set {name} mtu {bytes}`, and the same on all of the way to the backends"),
        ));
    }
    findings
}

/// The servers of a `nat` service have this host as their way to everywhere.
fn forwarding(engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |v4: bool| {
        let nat = engine
            .snapshot
            .services
            .iter()
            .filter(|s| s.mode() == api::Mode::Nat);
        let mut backends = nat.flat_map(|s| &s.backends);
        backends.any(|b| b.address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4() == v4))
    };
    for (v4, forwards, key) in [
        (true, facts.forwarding_v4, "net.ipv4.ip_forward"),
        (false, facts.forwarding_v6, "net.ipv6.conf.all.forwarding"),
    ] {
        if has(v4) && !forwards {
            findings.push(Finding::warning(
                key,
                "servers of a service with mode nat have this host as their default route, and its \
                 kernel forwards nothing else for them: no DNS, no updates",
                // Without the route a packet for a VIP that the engine does not take (another port, or
                // no engine) goes back to the router that sent it, and so to and fro until its TTL ends.
                format!(
                    "`sysctl -w {key}=1` and, so that stray packets for VIPs do not go back to their \
                     router, `ip route add unreachable` for the VIPs' prefix; or give the servers \
                     another way for that"
                ),
            ));
        }
    }
    findings
}

/// Packets that came without the checksum that the network should see.
fn checksums(status: &api::EngineStatus) -> Vec<Finding> {
    let of_vips = status
        .services
        .iter()
        .flat_map(|s| &s.vips)
        .flat_map(|v| &v.drops);
    let all = status.drops.iter().chain(of_vips);
    let wrong =
        all.filter(|d| ["bad_checksum", "bad_transport_checksum"].contains(&d.reason.as_str()));
    let packets: u64 = wrong.map(|d| d.packets).sum();
    let found = format!(
        "{} packets were dropped for a wrong checksum",
        count(packets)
    );
    let mend = "where the sender is behind a veth, at its end: `ethtool -K PEER tx off`; else look for \
                a broken device with `lockstep capture --reason bad_checksum`";
    (packets > 0)
        .then(|| Finding::warning("checksums", found, mend))
        .into_iter()
        .collect()
}
