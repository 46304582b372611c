//! Whether what backends send to the engine's own addresses can arrive.

use super::Finding;
use super::facts::{Engine, Facts};
use lockstep_api as api;
use lockstep_topology::ENGINE_ADDRESS_IS_FINE;
use std::net::IpAddr;

/// Backends on a link of this host ask there who has an engine address that they are sent packets
/// from.
pub fn judge(engine: &Engine, facts: &Facts) -> Vec<Finding> {
    let Some(Ok(topology)) = &facts.topology else {
        return Vec::new();
    };
    let held = |address: &IpAddr| {
        let mut interfaces = facts.host.interfaces.values();
        interfaces.any(|interface| interface.addresses.contains(address))
    };
    let nobodys = topology.engine().addresses.all().iter().copied();
    let nobodys = nobodys.filter(|address| !held(address));
    nobodys
        .filter_map(|address| unheard(engine, address))
        .collect()
}

/// The error about an address that no interface has.
fn unheard(engine: &Engine, address: IpAddr) -> Option<Finding> {
    let services = engine.status.services.iter();
    let mut backends = services
        .filter(|service| service.mode == "full-nat")
        .flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    let (service, backend) = backends.find(|(_, backend)| asks(backend, address))?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    let device = backend
        .next_hop
        .split(" dev ")
        .nth(1)
        .unwrap_or("INTERFACE");
    Some(Finding::error(
        address,
        format!(
            "no interface has this address of the engine, so nobody answers ARP or ND for it: backend {} of \
             service {} is on the link of {device} and cannot answer",
            backend.name, service.name
        ),
        format!("`ip addr add {address}/{length} dev {device} preferred_lft 0`"),
    ))
}

/// Whether a backend is on a link, and none of its answers has come all the same.
fn asks(backend: &api::BackendStatus, address: IpAddr) -> bool {
    let same = backend.address.parse::<IpAddr>();
    let same = same.is_ok_and(|backend| backend.is_ipv4() == address.is_ipv4());
    // "52:54:00:12:34:56 via 10.0.0.1 dev eth0" where there is a router.
    let on_link = backend.reachable && !backend.next_hop.contains(" via ");
    same && on_link && backend.answers == 0
}

/// Whether a warning about the topology is none: that an interface has an engine address is right
/// where services send from it to their own link.
pub fn is_fine(finding: &Finding, engine: Option<&Engine>) -> bool {
    let services = engine.iter().flat_map(|engine| &engine.status.services);
    let mut sends = services.filter(|s| s.mode == "full-nat" || s.mode == "replicate");
    finding.mend == ENGINE_ADDRESS_IS_FINE && sends.next().is_some()
}
