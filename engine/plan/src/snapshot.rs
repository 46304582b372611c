//! The snapshot: everything the engine forwards by, as one unit with a number.

use crate::vip::is_unicast;
use crate::{Mode, Protocol, Replicate, Service, ServiceName, Vip};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

/// The most of everything in a snapshot. Memory in the engine is taken for these at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits;

impl Limits {
    /// VIPs (address, port and protocol) over all services.
    pub const VIPS: usize = 16_384;
    /// Backends over all services; one that serves two services counts twice.
    pub const BACKENDS: usize = 131_072;
    /// Backends of one service.
    pub const BACKENDS_PER_SERVICE: usize = 4_096;
    /// Backends of one service that replicates: each is a connection of every session.
    pub const REPLICAS: usize = 128;
}

/// Services under an epoch number: what the daemon sends and the engine applies as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    epoch: u64,
    services: Vec<Service>,
}

impl Snapshot {
    /// The snapshot of an engine that was told nothing yet.
    pub const fn empty() -> Self {
        Snapshot {
            epoch: 0,
            services: Vec::new(),
        }
    }

    /// A snapshot of these services, or every reason why they cannot stand together.
    pub fn new(epoch: u64, services: Vec<Service>) -> Result<Self, Vec<PlanError>> {
        let errors = conflicts(&services);
        if errors.is_empty() {
            Ok(Snapshot { epoch, services })
        } else {
            Err(errors)
        }
    }

    /// The snapshot's number; a later one is larger.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The services, in the order given.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }
}

/// Why services cannot stand together in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two services of one name.
    #[error("service {0}: the name is used twice; give each service its own")]
    DuplicateService(ServiceName),
    /// A service no client can reach.
    #[error("service {0}: has no VIP; add one such as \"203.0.113.10:80/tcp\"")]
    NoVip(ServiceName),
    /// Two services answer on one VIP.
    #[error("service {service}: VIP {vip} belongs to service {owner} already")]
    DuplicateVip {
        /// The later service.
        service: ServiceName,
        /// The VIP both name.
        vip: Vip,
        /// The earlier service.
        owner: ServiceName,
    },
    /// A backend named twice in a service.
    #[error("service {service}: backend {address} is listed twice; raise its weight instead")]
    DuplicateBackend {
        /// The service.
        service: ServiceName,
        /// The address that stands twice.
        address: IpAddr,
    },
    /// A backend address no packet can be sent to.
    #[error("service {service}: backend {address} is not a unicast address off this host")]
    BackendAddress {
        /// The service.
        service: ServiceName,
        /// The address.
        address: IpAddr,
    },
    /// Tunnel backends of both IP versions: the room that the XDP program makes in front of a
    /// packet is one size per VIP.
    #[error(
        "service {0}: its backends have IPv4 and IPv6 addresses; a tunnel service needs one \
         version for all (the clients' version does not matter)"
    )]
    MixedTunnel(ServiceName),
    /// A service that rewrites addresses cannot turn one IP version into the other.
    #[error(
        "service {service}: VIP {vip} and backend {address} are not of one IP version, which \
         mode = \"{mode}\" needs; use mode = \"tunnel\" or \"replicate\", or a service for each version"
    )]
    TranslatedVersion {
        /// The service.
        service: ServiceName,
        /// The first VIP of another version.
        vip: Vip,
        /// The address of the first backend of another version than the VIP.
        address: IpAddr,
        /// The mode's name.
        mode: &'static str,
    },
    /// Two ranges of ports, or a range and a port, of one address.
    #[error(
        "service {service}: VIP {vip} has ports of {other}, which belongs to service {owner}; ranges of \
         one address may not overlap each other (a single port within a range may)"
    )]
    OverlappingRange {
        /// The later service.
        service: ServiceName,
        /// Its VIP.
        vip: Vip,
        /// The VIP it overlaps.
        other: Vip,
        /// The other one's service.
        owner: ServiceName,
    },
    /// A port of a backend that gets the client's packets whole.
    #[error(
        "service {service}: backend {address} has a port, but packets in a tunnel keep that of \
         the VIP; leave `port` out, or use another mode"
    )]
    TunnelPort {
        /// The service.
        service: ServiceName,
        /// The backend's address.
        address: IpAddr,
    },
    /// A VIP whose packets are no TCP connection.
    #[error(
        "service {service}: VIP {vip} is not TCP, and mode = \"replicate\" replicates TCP only"
    )]
    ReplicateVip {
        /// The service.
        service: ServiceName,
        /// The VIP.
        vip: Vip,
    },
    /// A VIP of every port and a backend of one.
    #[error(
        "service {service}: VIP {vip} stands for several ports, each to the same port of a backend, \
         but backend {address} has a port of its own; name one port, or leave out the backend's"
    )]
    EveryPort {
        /// The service.
        service: ServiceName,
        /// The VIP.
        vip: Vip,
        /// The address of the first backend with a port.
        address: IpAddr,
    },
    /// More replicas have to agree than there are.
    #[error(
        "service {service}: a quorum of {quorum} can never be reached by {backends} backends; \
         add backends or lower `quorum`"
    )]
    Quorum {
        /// The service.
        service: ServiceName,
        /// The quorum.
        quorum: u8,
        /// How many backends there are.
        backends: usize,
    },
    /// More replicas have to accept than there are.
    #[error(
        "service {service}: min_sync = {min_sync} can never be reached by {backends} backends; \
         add backends or lower `min_sync`"
    )]
    MinSync {
        /// The service.
        service: ServiceName,
        /// The replicas that have to accept.
        min_sync: u8,
        /// How many backends there are.
        backends: usize,
    },
    /// A client would be answered before as many replicas are there as have to agree.
    #[error(
        "service {service}: min_sync = {min_sync} is less than the quorum of {quorum}; raise it, or \
         leave it out"
    )]
    MinSyncBelowQuorum {
        /// The service.
        service: ServiceName,
        /// The replicas that have to accept.
        min_sync: u8,
        /// The quorum.
        quorum: u8,
    },
    /// A backend that is itself a VIP: its packets would come back to the balancer.
    #[error("service {service}: backend {address} is a VIP of service {owner}: packets would loop")]
    BackendIsVip {
        /// The service.
        service: ServiceName,
        /// The address that is both.
        address: IpAddr,
        /// Whose VIP it is.
        owner: ServiceName,
    },
    /// More than [`Limits`] allows.
    #[error("{what}: {count} are more than the {limit} an engine holds")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Idle times out of range.
    #[error("service {0}: idle times must be from 1 to 43200 seconds (12 hours)")]
    IdleTime(ServiceName),
}

fn conflicts(services: &[Service]) -> Vec<PlanError> {
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    let mut vips: BTreeMap<Vip, &ServiceName> = BTreeMap::new();
    let mut vip_addresses: BTreeMap<IpAddr, &ServiceName> = BTreeMap::new();
    for service in services {
        if !names.insert(&service.name) {
            errors.push(PlanError::DuplicateService(service.name.clone()));
        }
        if service.vips.is_empty() {
            errors.push(PlanError::NoVip(service.name.clone()));
        }
        for &vip in &service.vips {
            vip_addresses.entry(vip.address()).or_insert(&service.name);
            if let Some(owner) = vips.insert(vip, &service.name) {
                errors.push(PlanError::DuplicateVip {
                    service: service.name.clone(),
                    vip,
                    owner: owner.clone(),
                });
            }
        }
        let idle = service.idle;
        let times = [idle.tcp_syn, idle.tcp_established, idle.tcp_fin, idle.udp];
        if !times
            .iter()
            .all(|t| (1..=crate::IdleTimeouts::MAX).contains(t))
        {
            errors.push(PlanError::IdleTime(service.name.clone()));
        }
    }
    overlapping_ranges(&vips, &mut errors);
    for service in services {
        backend_conflicts(service, &vip_addresses, &mut errors);
    }
    let backends = services.iter().map(|s| s.backends.len()).sum();
    for (what, count, limit) in [
        ("VIPs", vips.len(), Limits::VIPS),
        ("backends", backends, Limits::BACKENDS),
    ] {
        if count > limit {
            errors.push(PlanError::TooMany { what, count, limit });
        }
    }
    errors
}

fn backend_conflicts(
    service: &Service,
    vip_addresses: &BTreeMap<IpAddr, &ServiceName>,
    errors: &mut Vec<PlanError>,
) {
    let name = || service.name.clone();
    let mut addresses = BTreeSet::new();
    for address in service.backends.iter().map(|b| b.address) {
        if !addresses.insert(address) {
            errors.push(PlanError::DuplicateBackend {
                service: name(),
                address,
            });
        }
        if !is_unicast(address) {
            errors.push(PlanError::BackendAddress {
                service: name(),
                address,
            });
        }
        if let Some(&owner) = vip_addresses.get(&address) {
            let owner = owner.clone();
            errors.push(PlanError::BackendIsVip {
                service: name(),
                address,
                owner,
            });
        }
    }
    match &service.mode {
        Mode::Tunnel(_) => tunnel_conflicts(service, errors),
        Mode::Nat | Mode::FullNat => {
            every_port_conflicts(service, errors);
            version_conflicts(service, errors);
        }
        Mode::Replicate(policy) => replicate_conflicts(service, policy, errors),
    }
    let (what, limit) = match service.mode {
        Mode::Tunnel(_) | Mode::Nat | Mode::FullNat => {
            ("backends of one service", Limits::BACKENDS_PER_SERVICE)
        }
        Mode::Replicate(_) => ("backends of one service that replicates", Limits::REPLICAS),
    };
    let count = service.backends.len();
    if count > limit {
        errors.push(PlanError::TooMany { what, count, limit });
    }
}

fn tunnel_conflicts(service: &Service, errors: &mut Vec<PlanError>) {
    let v4 = service
        .backends
        .iter()
        .filter(|b| b.address.is_ipv4())
        .count();
    if v4 != 0 && v4 != service.backends.len() {
        errors.push(PlanError::MixedTunnel(service.name.clone()));
    }
    let ported = service.backends.iter().filter(|b| b.port.is_some());
    errors.extend(ported.map(|b| PlanError::TunnelPort {
        service: service.name.clone(),
        address: b.address,
    }));
}

/// Ranges are looked up by the last one that begins at or before a port.
fn overlapping_ranges(vips: &BTreeMap<Vip, &ServiceName>, errors: &mut Vec<PlanError>) {
    let mut ranges: Vec<(&Vip, &&ServiceName)> = vips
        .iter()
        .filter(|(vip, _)| vip.port() != vip.last_port())
        .collect();
    ranges.sort_by_key(|(vip, _)| (vip.address(), vip.protocol(), vip.port()));
    for pair in ranges.windows(2) {
        let [(first, owner), (second, service)] = pair else {
            continue;
        };
        let one_list = (first.address(), first.protocol()) == (second.address(), second.protocol());
        if one_list && second.port() <= first.last_port() {
            errors.push(PlanError::OverlappingRange {
                service: ServiceName::clone(service),
                vip: **second,
                other: **first,
                owner: ServiceName::clone(owner),
            });
        }
    }
}

fn version_conflicts(service: &Service, errors: &mut Vec<PlanError>) {
    let differ = |vip: &&Vip| {
        let version = vip.address().is_ipv4();
        service
            .backends
            .iter()
            .any(|b| b.address.is_ipv4() != version)
    };
    let Some(&vip) = service.vips.iter().find(differ) else {
        return;
    };
    let version = vip.address().is_ipv4();
    let backend = service
        .backends
        .iter()
        .find(|b| b.address.is_ipv4() != version);
    errors.extend(backend.map(|backend| PlanError::TranslatedVersion {
        service: service.name.clone(),
        vip,
        address: backend.address,
        mode: service.mode.name(),
    }));
}

/// A VIP of several ports cannot have a backend of one.
fn every_port_conflicts(service: &Service, errors: &mut Vec<PlanError>) {
    let Some(backend) = service.backends.iter().find(|b| b.port.is_some()) else {
        return;
    };
    let several = service.vips.iter().filter(|vip| !vip.has_one_port());
    errors.extend(several.map(|&vip| PlanError::EveryPort {
        service: service.name.clone(),
        vip,
        address: backend.address,
    }));
}

fn replicate_conflicts(service: &Service, policy: &Replicate, errors: &mut Vec<PlanError>) {
    let name = || service.name.clone();
    for &vip in service
        .vips
        .iter()
        .filter(|v| v.protocol() != Protocol::Tcp)
    {
        let service = name();
        errors.push(PlanError::ReplicateVip { service, vip });
    }
    every_port_conflicts(service, errors);
    let (quorum, min_sync) = (policy.quorum(), policy.min_sync.get());
    if min_sync < quorum {
        errors.push(PlanError::MinSyncBelowQuorum {
            service: name(),
            min_sync,
            quorum,
        });
    }
}

/// Services that replicate with fewer backends than their policy asks for. They may stand in a
/// snapshot: sessions wait for backends that come, where they are found by others. In a file, where
/// an operator names them, they are mistakes.
pub fn too_few_backends(services: &[Service]) -> Vec<PlanError> {
    let short = services.iter().filter_map(|service| {
        let policy = service.mode.replicate()?;
        let (quorum, min_sync) = (policy.quorum(), policy.min_sync.get());
        let (name, backends) = (service.name.clone(), service.backends.len());
        if usize::from(quorum) > backends {
            Some(PlanError::Quorum {
                service: name,
                quorum,
                backends,
            })
        } else if usize::from(min_sync) > backends {
            Some(PlanError::MinSync {
                service: name,
                min_sync,
                backends,
            })
        } else {
            None
        }
    });
    short.collect()
}

#[cfg(test)]
mod tests;
