//! A port of a Service, at its addresses of each family.

use super::wishes::{Refusal, Wishes};
use super::{Draft, Problem, Wanted};
use crate::kubernetes::backends::{Choice, Gathered, gather, limit};
use crate::kubernetes::names;
use lockstep_kubernetes::annotations::MODE;
use lockstep_kubernetes::facts::{Family, Protocol, Service, ServicePort, Slice};
use lockstep_plan::{IdleTimeouts, Limits, Mode, TableSize, Unserved, Vip};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses in the status of a Service that can be VIPs, by family.
#[derive(Debug, Default)]
pub struct Addresses {
    /// The family whose services have the plain name.
    first: Option<Family>,
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Those of a Service.
    pub fn of(service: &Service, problems: &mut Vec<Problem>) -> Self {
        let mut all = Addresses {
            first: service.families.first().copied(),
            ..Addresses::default()
        };
        for address in service.ingress.iter().map(|ingress| ingress.address) {
            match (Vip::new(address, 0, lockstep_plan::Protocol::Tcp), address) {
                (Ok(_), IpAddr::V4(_)) => _ = all.v4.insert(address),
                (Ok(_), IpAddr::V6(_)) => _ = all.v6.insert(address),
                (Err(error), _) => problems.push(Problem {
                    port: None,
                    reason: "AddressUnusable",
                    message: format!("{error}; take it out of the pool or of the Service's status"),
                }),
            }
        }
        all
    }

    fn of_family(&self, family: Family) -> &BTreeSet<IpAddr> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// Why a port can be served in no way.
pub fn refusal(service: &Service, port: &ServicePort, twice: bool) -> Option<Refusal> {
    if port.port == 0 || names::of_service(&service.name, port, None).is_none() {
        let message = format!(
            "port {} has no number or no plain name; give it one",
            port.port
        );
        return Some(("InvalidPort", message));
    }
    if twice {
        let message = format!(
            "port {} or its name is there twice; leave one out",
            port.port
        );
        return Some(("DuplicatePort", message));
    }
    let replicates = service.annotations.get(MODE).map(|mode| mode.trim()) == Some("replicate");
    match port.protocol {
        Protocol::Tcp => None,
        Protocol::Udp if replicates => {
            let message = format!(
                "port {} is UDP, and {MODE}: replicate replicates TCP only; move the port to a Service \
                 of its own",
                port.port
            );
            Some(("UnsupportedProtocol", message))
        }
        Protocol::Udp => None,
        Protocol::Other => {
            let message = format!(
                "port {} is neither TCP nor UDP, which are balanced; move it to a Service of another \
                 loadBalancerClass",
                port.port
            );
            Some(("UnsupportedProtocol", message))
        }
    }
}

/// A Service, and from where it is looked at.
pub struct View<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its slices, in the order of their names.
    pub slices: &'a [&'a Slice],
    /// Its addresses.
    pub addresses: &'a Addresses,
    /// The node of this balancer.
    pub node: Option<&'a str>,
    /// That node's zone.
    pub zone: Option<&'a str>,
}

impl View<'_> {
    /// The services of a port: one of each family that the Service has addresses of.
    pub fn translate(&self, port: &ServicePort, wishes: &Wishes, wanted: &mut Wanted) {
        let first = self.addresses.first.unwrap_or(Family::V4);
        for family in [Family::V4, Family::V6] {
            let addresses = self.addresses.of_family(family);
            let second = (family != first).then_some(family);
            let protocol = match port.protocol {
                Protocol::Tcp => lockstep_plan::Protocol::Tcp,
                Protocol::Udp => lockstep_plan::Protocol::Udp,
                // Refused before.
                Protocol::Other => continue,
            };
            let vips = addresses.iter();
            let vips = vips.filter_map(|address| Vip::new(*address, port.port, protocol).ok());
            let vips: Vec<Vip> = vips.collect();
            let name = names::of_service(&self.service.name, port, second);
            let (Some(name), false) = (name, vips.is_empty()) else {
                continue;
            };
            let Some(found) = self.endpoints(port, family, wishes, &mut wanted.problems) else {
                continue;
            };
            let service = lockstep_plan::Service {
                name,
                vips,
                mode: wishes.mode.clone(),
                table_size: wishes.table_size.unwrap_or_else(|| table_size(found.known)),
                backends: found.backends,
                scheduler: wishes.scheduler,
                guard: wishes.guard.clone(),
                // As kube-proxy: clients know at once, but where another node may serve them.
                unserved: match self.service.local {
                    true => Unserved::Drop,
                    false => Unserved::Reset,
                },
                idle: IdleTimeouts::DEFAULT,
            };
            wanted.drafts.push(Draft {
                port: Some((port.port, port.protocol)),
                service: Arc::new(service),
            });
        }
    }

    /// The endpoints of a port that this mode can send to; `None` where it can send to none of
    /// those there are.
    fn endpoints(
        &self,
        port: &ServicePort,
        family: Family,
        wishes: &Wishes,
        problems: &mut Vec<Problem>,
    ) -> Option<Gathered> {
        let replicates = wishes.mode.replicate().is_some();
        let choice = Choice {
            node: self.node,
            // Replicas are all of them.
            zone: self.zone.filter(|_| !replicates),
            local: self.service.local,
            publish_not_ready: self.service.publish_not_ready,
        };
        let at = (port.port, port.protocol);
        let mut found = gather(
            self.slices.iter().copied(),
            port,
            self.family(family, wishes),
            &choice,
        );
        if self.is_of_the_other(family) && wishes.mode.translates() {
            problems.push(family_mismatch(at, family, &wishes.mode));
            return None;
        }
        if let Mode::Tunnel(_) = wishes.mode {
            let there = !found.backends.is_empty();
            let before = found.backends.len();
            found.backends.retain(|backend| backend.port.is_none());
            let left = !found.backends.is_empty();
            if found.backends.len() < before {
                problems.push(port_mismatch(at, left));
            }
            if there && !left {
                return None;
            }
        }
        let most = match replicates {
            true => Limits::REPLICAS,
            false => Limits::BACKENDS_PER_SERVICE,
        };
        let left_out = limit(&mut found.backends, most);
        problems.extend(odd(port, &found, left_out, most));
        Some(found)
    }

    /// The family of the endpoints for addresses of a family: the same, but tunnels and replicated
    /// sessions go to the other one where there is only that.
    fn family(&self, family: Family, wishes: &Wishes) -> Family {
        match (self.is_of_the_other(family), family) {
            (true, _) if wishes.mode.translates() => family,
            (true, Family::V4) => Family::V6,
            (true, Family::V6) => Family::V4,
            (false, family) => family,
        }
    }

    /// Whether there are endpoints, and none of this family.
    fn is_of_the_other(&self, family: Family) -> bool {
        let mut some = self.slices.iter().filter(|s| !s.endpoints.is_empty());
        let first = some.next();
        first.is_some_and(|s| s.family != Some(family)) && some.all(|s| s.family != Some(family))
    }
}

/// The size of the Maglev tables of a Service that names none, by the addresses its slices know.
///
/// `services.toml` has 65,537 entries for each service (ADR 5): 128 KiB, of which a cluster's 5,000
/// Services would take 640 MiB. Here it is a hundred entries for each backend, by which shares
/// differ by a percent (Eisenbud et al., section 5.3), in three sizes that are far from each other.
///
/// Another size is another table, in which most flows without an entry in the flow table find
/// another backend. The number that counts is therefore one that changes seldom: all addresses
/// that slices know, ready or not, near or not. What is at the edge all the same names its size.
pub fn table_size(known: usize) -> TableSize {
    let entries = match known {
        0..=20 => 2_039,
        21..=160 => 16_381,
        _ => 65_537,
    };
    TableSize::new(entries).unwrap_or(TableSize::DEFAULT)
}

fn family_mismatch(port: (u16, Protocol), family: Family, mode: &Mode) -> Problem {
    let (own, other) = match family {
        Family::V4 => ("IPv4", "IPv6"),
        Family::V6 => ("IPv6", "IPv4"),
    };
    let mode = mode.name();
    Problem {
        port: Some(port),
        reason: "FamilyMismatch",
        message: format!(
            "the address is {own} and its endpoints are {other}, which {MODE}: {mode} cannot rewrite \
             into each other; add {own} to ipFamilies, or set {MODE}: tunnel or replicate"
        ),
    }
}

fn port_mismatch(port: (u16, Protocol), served: bool) -> Problem {
    let number = port.0;
    Problem {
        port: Some(port).filter(|_| !served),
        reason: "PortMismatch",
        message: format!(
            "the targetPort of port {number} is another one, and packets in a tunnel keep theirs; set \
             targetPort: {number}, or {MODE}: full-nat"
        ),
    }
}

/// What is left out of the endpoints of a port that is served.
fn odd(
    port: &ServicePort,
    found: &Gathered,
    left_out: usize,
    most: usize,
) -> impl Iterator<Item = Problem> {
    let number = port.port;
    let about = |reason, message| Problem {
        port: None,
        reason,
        message,
    };
    let several = (found.several_ports > 0).then(|| {
        let message = format!(
            "port {number}: {} endpoints have one address and several ports, of which the lowest one \
             is served; give each pod an address of its own (no hostNetwork)",
            found.several_ports
        );
        about("EndpointsShareAddress", message)
    });
    let unusable = (found.unusable > 0).then(|| {
        let message = format!(
            "port {number}: {} endpoints have addresses that no packet can be sent to (of this host, \
             of groups, or of the other family) and are left out; mend their EndpointSlices",
            found.unusable
        );
        about("EndpointUnusable", message)
    });
    let too_many = (left_out > 0).then(|| {
        let message = format!(
            "port {number}: {left_out} endpoints are more than the {most} that are served, and are left \
             out; spread the pods over several Services"
        );
        about("TooManyEndpoints", message)
    });
    [several, unusable, too_many].into_iter().flatten()
}
