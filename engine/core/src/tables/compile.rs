//! From snapshot to tables.

use super::*;
use crate::guard::Rules;
use crate::replicate::mask::TooManyMasks;
use alloc::collections::BTreeMap;
use lockstep_plan::{BackendId, BackendState, Encapsulation, Service, TableSize, Weight};

/// Why a snapshot cannot be put into tables on this engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Tunnels and connections to replicas need a source address of the backends' IP version.
    #[error(
        "service {service}: its backends are reached over {version}, but topology.toml has no \
         {version} address under [engine] addresses"
    )]
    NoEngineAddress {
        /// The service.
        service: ServiceName,
        /// "IPv4" or "IPv6".
        version: &'static str,
    },
    /// A VIP that is an engine address as well.
    #[error("service {service}: VIP {vip} is an engine address; give one of them another address")]
    VipIsEngineAddress {
        /// The service.
        service: ServiceName,
        /// The VIP.
        vip: Vip,
    },
    /// More masks than are compared with.
    #[error("service {service}: {source}")]
    Masks {
        /// The service.
        service: ServiceName,
        /// How many.
        source: TooManyMasks,
    },
}

/// Slots wait in the free list until that many are in it, so that a flow entry which names an
/// old owner is swept long before a generation number comes around.
const REUSE_DELAY: usize = 64;

/// What the previous tables hold, by what it is known by across snapshots.
struct Previous<'a> {
    vips: BTreeMap<Vip, (VipRef, &'a Ring)>,
    backends: BTreeMap<(&'a ServiceName, BackendId), BackendRef>,
    rings: BTreeMap<&'a ServiceName, &'a Ring>,
}

impl<'a> Previous<'a> {
    fn of(tables: &'a Tables) -> Self {
        Previous {
            vips: tables
                .vips()
                .map(|(r, vip, ring)| (vip, (r, ring)))
                .collect(),
            backends: tables.backends(),
            rings: tables.rings.iter().map(|r| (&r.name, r)).collect(),
        }
    }
}

impl Tables {
    /// Tables for `snapshot` in succession of `previous`: what is in both keeps its slots.
    /// `resolve` says what is known of the way to an address.
    pub fn compile(
        previous: &Tables,
        snapshot: &Snapshot,
        addresses: EngineAddresses,
        resolve: impl Fn(IpAddr) -> NextHop,
    ) -> Result<Tables, CompileError> {
        let mut tables = Tables {
            epoch: snapshot.epoch(),
            addresses,
            session_ports: previous.session_ports.clone(),
            workers: previous.workers,
            index: Arc::default(),
            vip_addresses: Arc::default(),
            tunnel_ends: Arc::default(),
            answers: Arc::default(),
            tells_unserved: false,
            rings: Arc::default(),
            vips: previous.vips.clone(),
            hops: previous.hops.clone(),
            free_vips: previous.free_vips.clone(),
            free_hops: previous.free_hops.clone(),
        };
        let mut old = Previous::of(previous);
        let mut rings = Vec::with_capacity(snapshot.services().len());
        let mut index: Vec<(Vip, u16)> = Vec::new();
        for (number, service) in snapshot.services().iter().enumerate() {
            let guard = tables.rules(service, &old);
            let guarded = guard.is_some();
            let first = index.len();
            for &vip in &service.vips {
                if addresses.has(vip.address()) {
                    let service = service.name.clone();
                    return Err(CompileError::VipIsEngineAddress { service, vip });
                }
                // In another mode it is another VIP: flows in a tunnel are no sessions.
                let kept = old
                    .vips
                    .remove(&vip)
                    .filter(|(_, owner)| owner.name == service.name)
                    .filter(|(_, owner)| owner.mode.name() == service.mode.name())
                    .map(|(vip_ref, _)| vip_ref.slot);
                let slot = kept.unwrap_or_else(|| tables.take_vip());
                let entry = &mut tables.vips[usize::from(slot)];
                *entry = VipSlot {
                    vip: Some(vip),
                    service: number as u32,
                    guarded,
                    ..*entry
                };
                index.push((vip, slot));
            }
            let slots = index[first..].iter().map(|&(_, slot)| slot);
            let was = old.rings.get(&service.name).copied();
            let guard_slot = tables.guard_slot(slots, was);
            let ring = tables.compile_ring(service, &mut old, &resolve)?;
            rings.push(Ring {
                guard,
                guard_slot,
                before: was.and_then(|was| Before::of(was, &ring)),
                ..ring
            });
        }
        tables.retire(previous, &index, &rings);
        let addresses = index.iter().map(|(vip, _)| vip.address());
        tables.vip_addresses = Arc::new(AddressSet::new(addresses));
        tables.index = Arc::new(VipIndex::new(index.into_iter()));
        let tunnels = rings
            .iter()
            .filter(|ring| matches!(ring.mode, Mode::Tunnel(_)));
        let ends = tunnels
            .flat_map(|ring| &ring.members)
            .map(|m| m.backend.address);
        tables.tunnel_ends = Arc::new(AddressSet::new(ends));
        tables.answers = Arc::new(Answers::new(snapshot.services()));
        tables.tells_unserved = rings.iter().any(|ring| {
            ring.unserved == Unserved::Reset && ring.active.is_empty() && ring.replicate.is_none()
        });
        tables.rings = Arc::new(rings);
        Ok(tables)
    }

    /// The same tables with the ways to the backends looked up again. Where `resolve` has nothing
    /// to say the way stays what it is.
    pub fn rerouted(&self, resolve: impl Fn(IpAddr) -> Option<NextHop>) -> Tables {
        let mut tables = self.clone();
        for member in self.rings.iter().flat_map(|r| &r.members) {
            if let Some(next_hop) = resolve(member.backend.address) {
                tables.hops[member.backend_ref.slot()].route = route(next_hop);
            }
        }
        tables
    }

    pub(super) fn blank() -> Tables {
        Tables {
            epoch: 0,
            addresses: EngineAddresses::default(),
            session_ports: None,
            workers: NonZeroU32::MIN,
            index: Arc::default(),
            vip_addresses: Arc::default(),
            tunnel_ends: Arc::default(),
            answers: Arc::default(),
            tells_unserved: false,
            // Slot 0 of both is nobody's: VipRef::UNKNOWN and BackendRef::NONE point there, with
            // another generation.
            vips: alloc::vec![VipSlot {
                generation: 1,
                vip: None,
                service: 0,
                guarded: false,
            }],
            rings: Arc::default(),
            hops: alloc::vec![Hop {
                generation: 1,
                delivery: Delivery::Session,
                route: Err(DropReason::NoRoute),
            }],
            free_vips: VecDeque::new(),
            free_hops: VecDeque::new(),
        }
    }

    fn backends(&self) -> BTreeMap<(&ServiceName, BackendId), BackendRef> {
        self.rings
            .iter()
            .flat_map(|r| {
                r.members
                    .iter()
                    .map(|m| ((&r.name, m.backend.id()), m.backend_ref))
            })
            .collect()
    }

    fn compile_ring<'a>(
        &mut self,
        service: &'a Service,
        old: &mut Previous<'a>,
        resolve: &impl Fn(IpAddr) -> NextHop,
    ) -> Result<Ring, CompileError> {
        let mut members = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let delivery = self.delivery(service, backend)?;
            // Behind another port it is another backend: a flow that was rewritten to the one
            // cannot go on with the other.
            let backend_ref = old
                .backends
                .remove(&(&service.name, backend.id()))
                .filter(|r| self.hops[r.slot()].delivery.translation() == delivery.translation())
                .unwrap_or_else(|| self.take_hop());
            let hop = &mut self.hops[backend_ref.slot()];
            *hop = Hop {
                delivery,
                route: route(resolve(backend.address)),
                ..*hop
            };
            members.push(Member {
                backend_ref,
                backend: backend.clone(),
                entries: 0,
            });
        }
        let takes_flows: Vec<usize> = (0..members.len())
            .filter(|&i| members[i].backend.state == BackendState::Active)
            .collect();
        let maglev = match service.mode.replicate() {
            None => maglev(
                service,
                &members,
                &takes_flows,
                old.rings.get(&service.name).copied(),
            ),
            Some(_) => None,
        };
        let shares = maglev
            .as_ref()
            .map(|m| m.shares(takes_flows.len()))
            .unwrap_or_default();
        for (&member, entries) in takes_flows.iter().zip(shares) {
            members[member].entries = entries;
        }
        let replicate = service.mode.replicate().cloned();
        let masks = replicate.as_ref().map_or(&[][..], |policy| &policy.masks);
        let masks = Masks::new(masks).map_err(|source| CompileError::Masks {
            service: service.name.clone(),
            source,
        })?;
        Ok(Ring {
            name: service.name.clone(),
            mode: service.mode.clone(),
            scheduler: service.scheduler,
            idle: service.idle,
            replicate,
            masks: Arc::new(masks),
            guard: None,
            unserved: service.unserved,
            guard_slot: VipRef::UNKNOWN,
            active: takes_flows
                .iter()
                .map(|&i| members[i].backend_ref)
                .collect(),
            order: Order::new(
                service.scheduler,
                takes_flows
                    .iter()
                    .map(|&i| members[i].backend.weight.get())
                    .collect(),
            ),
            members,
            maglev,
            before: None,
        })
    }

    /// A service's guard, compiled: as it was where nothing changed, since lists may be long.
    fn rules(&self, service: &Service, old: &Previous) -> Option<Arc<Rules>> {
        let before = old.rings.get(&service.name).and_then(|r| r.guard.as_ref());
        match before {
            Some(rules) if rules.guard == service.guard => Some(Arc::clone(rules)),
            _ => Rules::new(&service.guard, self.workers).map(Arc::new),
        }
    }

    /// Where a service's guard keeps its levels: where it did as long as that VIP stays.
    fn guard_slot(&self, slots: impl Iterator<Item = u16>, old: Option<&Ring>) -> VipRef {
        let mut slots = slots.map(|slot| VipRef {
            slot,
            generation: self.vips[usize::from(slot)].generation,
        });
        let first = slots.next().unwrap_or(VipRef::UNKNOWN);
        match old.map(|ring| ring.guard_slot) {
            Some(kept) if kept == first || slots.any(|slot| slot == kept) => kept,
            Some(_) | None => first,
        }
    }

    fn delivery(&self, service: &Service, backend: &Backend) -> Result<Delivery, CompileError> {
        let translation = Translation {
            address: backend.address,
            port: backend.port,
        };
        match service.mode {
            Mode::Tunnel(encapsulation) => {
                let outer = self.outer(service, backend.address, encapsulation)?;
                Ok(Delivery::Tunnel(outer))
            }
            Mode::Nat => Ok(Delivery::Nat(translation)),
            Mode::FullNat => {
                self.outer(service, backend.address, Encapsulation::Ipip)?;
                Ok(Delivery::FullNat(translation))
            }
            Mode::Replicate(_) => {
                self.outer(service, backend.address, Encapsulation::Ipip)?;
                Ok(Delivery::Session)
            }
        }
    }

    fn outer(
        &self,
        service: &Service,
        backend: IpAddr,
        encapsulation: Encapsulation,
    ) -> Result<Outer, CompileError> {
        let missing = |version| CompileError::NoEngineAddress {
            service: service.name.clone(),
            version,
        };
        match backend {
            IpAddr::V4(to) => self
                .addresses
                .v4
                .map(|from| match encapsulation {
                    Encapsulation::Ipip => Outer::v4(from, to),
                    Encapsulation::Gue { port } => Outer::gue_v4(from, to, port.get()),
                })
                .ok_or(missing("IPv4")),
            IpAddr::V6(to) => self
                .addresses
                .v6
                .map(|from| match encapsulation {
                    Encapsulation::Ipip => Outer::v6(from, to),
                    Encapsulation::Gue { port } => Outer::gue_v6(from, to, port.get()),
                })
                .ok_or(missing("IPv6")),
        }
    }

    fn take_vip(&mut self) -> u16 {
        if self.free_vips.len() > REUSE_DELAY
            && let Some(slot) = self.free_vips.pop_front()
        {
            return slot;
        }
        self.vips.push(VipSlot {
            generation: 0,
            vip: None,
            service: 0,
            guarded: false,
        });
        (self.vips.len() - 1) as u16
    }

    fn take_hop(&mut self) -> BackendRef {
        if self.free_hops.len() > REUSE_DELAY
            && let Some(slot) = self.free_hops.pop_front()
        {
            return BackendRef::new(slot, self.hops[slot as usize].generation);
        }
        self.hops.push(Hop {
            generation: 0,
            ..self.hops[0]
        });
        BackendRef::new((self.hops.len() - 1) as u32, 0)
    }

    /// Frees the slots of what is in `previous` only.
    fn retire(&mut self, previous: &Tables, kept_vips: &[(Vip, u16)], rings: &[Ring]) {
        let mut used_vips = alloc::vec![false; self.vips.len()];
        kept_vips
            .iter()
            .for_each(|&(_, slot)| used_vips[usize::from(slot)] = true);
        for (vip, _, _) in previous.vips().filter(|(vip, _, _)| !used_vips[vip.slot()]) {
            let entry = &mut self.vips[vip.slot()];
            *entry = VipSlot {
                generation: entry.generation.wrapping_add(1),
                vip: None,
                service: 0,
                guarded: false,
            };
            self.free_vips.push_back(vip.slot);
        }
        let mut used_hops = alloc::vec![false; self.hops.len()];
        for member in rings.iter().flat_map(|r| &r.members) {
            used_hops[member.backend_ref.slot()] = true;
        }
        for (_, backend) in previous
            .backends()
            .into_iter()
            .filter(|(_, b)| !used_hops[b.slot()])
        {
            let hop = &mut self.hops[backend.slot()];
            hop.generation = hop.generation.wrapping_add(1);
            self.free_hops.push_back(backend.slot() as u32);
        }
    }
}

fn route(next_hop: NextHop) -> Result<Route, DropReason> {
    match next_hop {
        NextHop::Via(route) => Ok(route),
        NextHop::NoRoute => Err(DropReason::NoRoute),
        NextHop::NoNeighbour => Err(DropReason::NoNeighbour),
        NextHop::NoPort => Err(DropReason::NoPort),
    }
}

/// The service's table: the previous one where the active backends, their weights and the size
/// are the same, since most snapshots change few services.
fn maglev(
    service: &Service,
    members: &[Member],
    active: &[usize],
    old: Option<&Ring>,
) -> Option<Arc<Maglev>> {
    let wanted = ranked(active.iter().map(|&i| &members[i].backend));
    if let Some(old) = old
        && old.table_entries() == service.table_size.get()
        && ranked(
            old.members
                .iter()
                .map(|m| &m.backend)
                .filter(|b| b.state == BackendState::Active),
        ) == wanted
    {
        return old.maglev.clone();
    }
    build(&wanted, service.table_size)
}

fn ranked<'a>(backends: impl Iterator<Item = &'a Backend>) -> Vec<(BackendId, Weight)> {
    backends.map(|b| (b.id(), b.weight)).collect()
}

fn build(backends: &[(BackendId, Weight)], size: TableSize) -> Option<Arc<Maglev>> {
    Maglev::new(backends, size).map(Arc::new)
}
