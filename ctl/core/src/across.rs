//! What is wrong with the files of a balancer together, as far as the files alone tell.

use crate::bgp::Family;
use crate::checks::{Probe, Via};
use crate::config::Config;
use crate::config::process::Capability;
use crate::layer2::MAX_VIPS;
use crate::services::ServicesFile;
use lockstep_plan::{Mode, Service};
use lockstep_topology::Topology;
use lockstep_topology::diagnostics::{Diagnostic, Source};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// A file without errors of its own.
#[derive(Debug)]
pub struct Read<'a, T> {
    /// The name that errors are reported under.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What it says.
    pub value: &'a T,
}

impl<T> Clone for Read<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Read<'_, T> {}

/// The files of a balancer, those that are at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// The services.
    pub services: Option<Read<'a, ServicesFile>>,
    /// The daemon's own settings.
    pub config: Option<Read<'a, Config>>,
    /// The engine's.
    pub topology: Option<Read<'a, Topology>>,
}

/// Everything in which the files contradict each other, and listeners of the daemon each other.
pub fn compare(files: &Files<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Some(config) = files.config {
        found.extend(listeners(config));
    }
    if let (Some(services), Some(topology)) = (files.services, files.topology) {
        found.extend(engine_of(services, topology.value));
    }
    if let (Some(config), Some(topology)) = (files.config, files.topology) {
        found.extend(daemon_beside_engine(config, topology.value));
    }
    if let (Some(services), Some(config)) = (files.services, files.config) {
        found.extend(checks(services, config.value));
        found.extend(daemon_beside_vips(services.value, config));
        found.extend(announcements(services, config));
    }
    found
}

impl<T> Read<'_, T> {
    fn source(&self) -> Source<'_> {
        Source::new(self.file, self.text)
    }

    /// An error at the first value of the file that is this text, or begins so.
    fn error(&self, at: &str, message: String) -> Diagnostic {
        match span(self.text, at) {
            Some(span) => self.source().error(span, message),
            None => self.source().whole(message),
        }
    }

    fn warning(&self, at: &str, message: String) -> Diagnostic {
        let error = self.error(at, message);
        Diagnostic::warning(&error.file, error.position, error.message)
    }
}

/// Where a string of the file is this text: as a whole, or what stands before a port.
fn span(text: &str, wanted: &str) -> Option<std::ops::Range<usize>> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(wanted).map(|at| from + at) {
        let (before, after) = (&text[..at], &text[at + wanted.len()..]);
        let begins = before.ends_with(['"', '\'', '[']);
        if begins && after.starts_with(['"', '\'', ':', ']', '/']) {
            let quote = before.trim_end_matches('[').len().saturating_sub(1);
            return Some(quote..at + wanted.len());
        }
        from = at + wanted.len();
    }
    None
}

// ---- lockstepd.toml alone ---------------------------------------------------------------------

/// Where the daemon listens over TCP, by section.
fn tcp(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let bgp = config.bgp.listen.iter().map(|a| ("[bgp]", *a));
    let metrics = config.operation.metrics.iter().map(|a| ("[metrics]", *a));
    let random = config.random.iter().map(|r| ("[random]", r.listen));
    bgp.chain(metrics).chain(random).collect()
}

/// And over UDP.
fn udp(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let layer2 = config.layer2.iter().map(|l| ("[layer2]", l.listen));
    layer2.collect()
}

/// Two that cannot listen both.
fn listeners(config: Read<'_, Config>) -> Vec<Diagnostic> {
    let all = tcp(config.value);
    let pairs = all.iter().enumerate().flat_map(|(at, one)| {
        let others = all[at + 1..].iter();
        others.map(move |other| (one, other))
    });
    let same = pairs.filter(|((_, a), (_, b))| {
        let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && overlap
    });
    same.map(|((one, _), (other, address))| {
        let message = format!("{other} listens at {address}, as {one} does");
        let error = config.error(&address.to_string(), message);
        error.help("give one of them another port")
    })
    .collect()
}

// ---- services.toml and topology.toml ----------------------------------------------------------

fn engine_of(services: Read<'_, ServicesFile>, topology: &Topology) -> Vec<Diagnostic> {
    let addresses = &topology.engine().addresses;
    let mut found = Vec::new();
    for service in &services.value.services {
        let name = &service.name;
        let vips: BTreeSet<IpAddr> = service.vips.iter().map(|v| v.address()).collect();
        for vip in vips.iter().filter(|v| addresses.all().contains(v)) {
            let message = format!("service {name}: VIP {vip} is an engine address");
            let error = services.error(&vip.to_string(), message);
            found.push(error.help("give one of them another address"));
        }
        let backends = service.backends.iter().map(|b| b.address);
        for backend in backends.filter(|b| addresses.all().contains(b)) {
            let message = format!("service {name}: backend {backend} is an engine address");
            let error = services.error(&backend.to_string(), message);
            found.push(error.help("what is sent there comes back to the engine; name the server"));
        }
        found.extend(sources(services, service, topology));
    }
    found
}

/// A service whose backends cannot be sent anything, for want of an address to send from.
fn sources(
    services: Read<'_, ServicesFile>,
    service: &Service,
    topology: &Topology,
) -> Vec<Diagnostic> {
    match service.mode {
        Mode::Nat => return Vec::new(),
        Mode::Tunnel(_) | Mode::FullNat | Mode::Replicate(_) => {}
    }
    let addresses = &topology.engine().addresses;
    let has = |v4: bool| service.backends.iter().any(|b| b.address.is_ipv4() == v4);
    let versions = [
        ("IPv4", has(true) && addresses.ipv4().is_none()),
        ("IPv6", has(false) && addresses.ipv6().is_none()),
    ];
    let missing = versions.into_iter().filter(|(_, missing)| *missing);
    missing
        .map(|(version, _)| {
            let name = &service.name;
            let message = format!(
                "service {name}: its backends are reached over {version}, but the engine has no \
                 {version} address"
            );
            let error = services.error(name.as_str(), message);
            error.help("add one to [engine] addresses in topology.toml")
        })
        .collect()
}

// ---- lockstepd.toml and topology.toml ---------------------------------------------------------

fn daemon_beside_engine(config: Read<'_, Config>, topology: &Topology) -> Vec<Diagnostic> {
    let of_engine = |a: &IpAddr| topology.engine().addresses.all().contains(a);
    let all = tcp(config.value).into_iter().chain(udp(config.value));
    let mut found: Vec<Diagnostic> = all
        .filter(|(_, address)| of_engine(&address.ip()))
        .map(|(section, address)| {
            let message = format!("{section} listens at {address}, an engine address");
            let error = config.error(&address.ip().to_string(), message);
            error.help("the engine takes what is sent there; use an address of an interface")
        })
        .collect();
    for (peer, settings) in &config.value.bgp.peers {
        if of_engine(peer) {
            let message = format!("router {peer} is an engine address");
            found.push(config.error(&peer.to_string(), message));
        }
        if let Some(source) = settings.source.filter(of_engine) {
            let message = format!("router {peer}: `source` {source} is an engine address");
            let error = config.error(&source.to_string(), message);
            found.push(error.help("the engine takes the answers; use an address of an interface"));
        }
    }
    found
}

// ---- services.toml and lockstepd.toml ---------------------------------------------------------

/// Checks that can never be made.
fn checks(services: Read<'_, ServicesFile>, config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let dropped = |capability| config.process.dropped.contains(&capability);
    for (name, policy) in &services.value.health {
        let Some(check) = &policy.check else { continue };
        let through = check.via == Via::Tunnel;
        let needed: &[Capability] = match through {
            true => &[Capability::NetAdmin, Capability::NetRaw],
            false => &[],
        };
        for capability in needed.iter().filter(|c| dropped(**c)) {
            let capability = capability.name();
            let message = format!(
                "service {name}: via = \"tunnel\" needs {capability}, which [process] drops"
            );
            let error = services.error(name.as_str(), message);
            found.push(error.help("leave one of them out"));
        }
        match &check.probe {
            Probe::Icmp if dropped(Capability::NetRaw) => {
                let message = format!("service {name}: [process] drops net_raw, which pings need");
                let warning = services.warning(name.as_str(), message);
                let help = "leave one of them out, or let everybody ping with the sysctl \
                            net.ipv4.ping_group_range";
                found.push(warning.help(help));
            }
            Probe::Script { .. } if config.health.scripts.is_none() => {
                let message = format!("service {name}: its check is a script, and none is run");
                let error = services.error(name.as_str(), message);
                let help = "name their directory as `scripts` in [health] of lockstepd.toml";
                found.push(error.help(help));
            }
            _ => {}
        }
    }
    found
}

fn vips(services: &ServicesFile) -> BTreeSet<IpAddr> {
    let vips = services.services.iter().flat_map(|s| &s.vips);
    vips.map(|vip| vip.address()).collect()
}

fn daemon_beside_vips(services: &ServicesFile, config: Read<'_, Config>) -> Vec<Diagnostic> {
    let vips = vips(services);
    let all = tcp(config.value).into_iter().chain(udp(config.value));
    let listens = all.filter(|(_, address)| vips.contains(&address.ip()));
    let listens = listens.map(|(section, address)| {
        let message = format!("{section} listens at {address}, a VIP");
        let error = config.error(&address.ip().to_string(), message);
        error.help("the engine takes what is sent there; use an address of an interface")
    });
    let peers = config.value.bgp.peers.keys();
    let peers = peers.filter(|peer| vips.contains(peer)).map(|peer| {
        let message = format!("router {peer} is a VIP");
        config.error(&peer.to_string(), message)
    });
    listens.chain(peers).collect()
}

/// VIPs that nobody is told of, and aggregates that stand for none.
fn announcements(services: Read<'_, ServicesFile>, config: Read<'_, Config>) -> Vec<Diagnostic> {
    let (bgp, layer2) = (&config.value.bgp, &config.value.layer2);
    let vips = vips(services.value);
    let mut found = Vec::new();
    if !bgp.peers.is_empty() && layer2.is_none() {
        let carried = |family| {
            let mut peers = bgp.peers.values();
            peers.any(|peer| peer.settings.families.contains(&family))
        };
        for vip in &vips {
            let (family, name) = match vip {
                IpAddr::V4(_) => (Family::Ipv4, "ipv4"),
                IpAddr::V6(_) => (Family::Ipv6, "ipv6"),
            };
            if !carried(family) {
                let message = format!("VIP {vip} is announced to nobody: no router has {name}");
                let warning = services.warning(&vip.to_string(), message);
                found.push(warning.help("see `families` and `next_hop` of [[bgp.peer]]"));
            }
        }
    }
    for aggregate in &bgp.aggregates {
        if !vips.iter().any(|vip| aggregate.contains(vip)) {
            let message = format!("no VIP is in {aggregate}: it is never announced");
            found.push(config.warning(&aggregate.to_string(), message));
        }
    }
    if layer2.is_some() && vips.len() > MAX_VIPS {
        let message = format!("{} VIPs are too many for [layer2]", vips.len());
        let help = format!("up to {MAX_VIPS}; the others are not announced there");
        found.push(services.source().whole(message).help(help));
    }
    found
}

#[cfg(test)]
mod tests;
