//! What the XDP programs are told of the tables so that they can carry packets by themselves.

use lockstep_bpf::{CarriedService, Tunnel, Way};
use lockstep_core::tables::{BackendRef, Delivery, Ring};
use lockstep_core::{Route, Tables};
use lockstep_plan::{Mode, Scheduler};
use std::num::NonZeroU16;

/// The services that can be carried without the engine, each with its table: those in tunnels whose
/// choice of backend is that of the flow's hash, and that serve everybody. A list of clients is not
/// looked at without the engine, so a service that has one is not served then.
pub fn services<'a>(tables: &'a Tables, interfaces: &[u32]) -> Vec<CarriedService<'a>> {
    let carried = tables.rings().iter().filter(|ring| is_carried(ring));
    carried
        .filter_map(|ring| {
            let (table, active) = ring.table()?;
            // Draining ones have no entries; flows may be pinned to them.
            let members = ring.members.iter().map(|member| member.backend_ref);
            let draining = members.filter(|backend| !active.contains(backend));
            let backends = active.iter().copied().chain(draining);
            let tunnel = |backend| tunnel(tables, backend, interfaces);
            Some(CarriedService {
                name: ring.name.as_str(),
                entries: table.entries(),
                backends: backends.map(tunnel).collect::<Option<_>>()?,
            })
        })
        .collect()
}

fn is_carried(ring: &Ring) -> bool {
    let everybody = ring.guard.as_ref().is_none_or(|g| g.lists.is_empty());
    matches!(ring.mode, Mode::Tunnel(_)) && ring.scheduler == Scheduler::Maglev && everybody
}

/// Every tunnel, and the way it takes now.
pub fn tunnels(tables: &Tables, interfaces: &[u32]) -> impl Iterator<Item = (Tunnel, Option<Way>)> {
    let members = tables.rings().iter().flat_map(|ring| &ring.members);
    members.filter_map(|member| tunnel(tables, member.backend_ref, interfaces))
}

/// The tunnel to a backend, and the way it takes now.
pub fn tunnel(
    tables: &Tables,
    backend: BackendRef,
    interfaces: &[u32],
) -> Option<(Tunnel, Option<Way>)> {
    let hop = tables.hop(backend)?;
    let Delivery::Tunnel(outer) = &hop.delivery else {
        return None;
    };
    let (source, destination) = outer.addresses();
    let tunnel = Tunnel {
        source,
        destination,
        port: outer.port().and_then(NonZeroU16::new),
    };
    let way = |route: &Route| {
        Some(Way {
            interface: *interfaces.get(usize::from(route.port.0))?,
            destination: route.link.destination,
            source: route.link.source,
            vlan: route.link.vlan,
            mtu: route.mtu,
        })
    };
    Some((tunnel, hop.route.as_ref().ok().and_then(way)))
}

#[cfg(test)]
mod tests;
