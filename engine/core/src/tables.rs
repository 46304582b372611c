//! Tables: a snapshot in the form the dataplane looks things up in.
//!
//! The agent compiles them, workers only read them. VIPs and backends have slots, small numbers
//! that stay theirs from one snapshot to the next, so that flow entries and counters can name
//! them; a generation tells a slot's present owner from an earlier one.

mod addresses;
mod answers;
mod before;
mod compile;
mod preview;
mod vips;

pub use answers::{Answers, Source};
pub use compile::CompileError;
pub use preview::ring_share_moved;
pub use vips::VipIndex;

use addresses::AddressSet;

use crate::guard::Rules;
use crate::maglev::Maglev;
use crate::replicate::mask::Masks;
use crate::schedule::Order;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use before::Before;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::{NonZeroU16, NonZeroU32};
use core::ops::RangeInclusive;
use lockstep_plan::{
    Backend, DropReason, Encapsulation, IdleTimeouts, Mode, Protocol, Replicate, Scheduler,
    ServiceName, Snapshot, Unserved, Vip,
};
use lockstep_wire::vlan::TAG_LENGTH;
use lockstep_wire::{LinkHeader, Outer};

/// A backend's slot (24 bits) and the generation of its owner (8 bits), as a flow entry keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendRef(u32);

impl BackendRef {
    /// No backend: the slot that nobody ever owns.
    pub const NONE: BackendRef = BackendRef(0);

    pub(crate) const fn new(slot: u32, generation: u8) -> Self {
        BackendRef(slot << 8 | generation as u32)
    }

    /// The index of the backend's counters.
    #[inline]
    pub const fn slot(self) -> usize {
        (self.0 >> 8) as usize
    }

    const fn generation(self) -> u8 {
        self.0 as u8
    }
}

/// A VIP's slot and the generation of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VipRef {
    slot: u16,
    generation: u8,
}

impl VipRef {
    /// Slot 0: packets whose VIP is not known, or not one.
    pub const UNKNOWN: VipRef = VipRef {
        slot: 0,
        generation: 0,
    };

    /// The index of the VIP's counters.
    #[inline]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    pub(crate) const fn generation(self) -> u8 {
        self.generation
    }

    #[cfg(test)]
    pub(crate) const fn of_slot(slot: u16) -> Self {
        VipRef {
            slot,
            generation: 0,
        }
    }
}

/// An interface of the engine, by its place in `topology.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// The way to a backend's next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface to send from.
    pub port: PortId,
    /// The Ethernet header to send with.
    pub link: LinkHeader,
    /// The longest IP packet that interface takes, in bytes.
    pub mtu: u16,
}

/// What is known of the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// A neighbour whose link-layer address is known.
    Via(Route),
    /// The kernel has no route.
    NoRoute,
    /// There is a route, its next hop does not answer.
    NoNeighbour,
    /// The route leaves by an interface the engine has no socket on.
    NoPort,
}

/// The engine's own addresses: the outer source of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineAddresses {
    /// For tunnels over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For tunnels over IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl EngineAddresses {
    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4 == Some(v4),
            IpAddr::V6(v6) => self.v6 == Some(v6),
        }
    }
}

/// A backend as the dataplane sees it: all that forwarding one packet needs.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    generation: u8,
    /// What is done to packets for it.
    pub delivery: Delivery,
    /// The way there, or the reason packets for it are dropped.
    pub route: Result<Route, DropReason>,
}

/// How packets are brought to a backend.
#[derive(Debug, Clone, Copy)]
pub enum Delivery {
    /// Behind a tunnel header.
    Tunnel(Outer),
    /// With the backend as their destination.
    Nat(Translation),
    /// With the backend as their destination, and an address of the engine as their source.
    FullNat(Translation),
    /// As input of sessions.
    Session,
}

/// What the destination of a packet becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The backend's address.
    pub address: IpAddr,
    /// The backend's port; without it, that which the client sent to.
    pub port: Option<NonZeroU16>,
}

/// A VIP's slot.
#[derive(Debug, Clone, Copy)]
pub struct VipSlot {
    generation: u8,
    /// The VIP, `None` in a slot that is free.
    pub vip: Option<Vip>,
    /// Index of its service.
    pub service: u32,
    /// Whether its service's guard has a say on packets of known flows.
    pub guarded: bool,
}

/// A backend of a service, with its slot.
#[derive(Debug, Clone)]
pub struct Member {
    /// What flow entries call it.
    pub backend_ref: BackendRef,
    /// What the snapshot says of it.
    pub backend: Backend,
    /// Entries it has in the service's Maglev table.
    pub entries: u32,
}

/// A service's choice of backends.
#[derive(Debug, Clone)]
pub struct Ring {
    /// Its name.
    pub name: ServiceName,
    /// What is done to its packets.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub scheduler: Scheduler,
    /// Idle times of its flows.
    pub idle: IdleTimeouts,
    /// The policy of its sessions, when it replicates. Such a service has no Maglev table: each of
    /// its connections goes to all backends.
    pub replicate: Option<Arc<Replicate>>,
    /// The masks of its policy, compiled.
    pub masks: Arc<Masks>,
    /// Whom it serves, and how much of it, unless it is everybody without limits.
    pub guard: Option<Arc<Rules>>,
    /// What becomes of packets while it has no backend.
    pub unserved: Unserved,
    /// The VIP under whose slot workers keep what its guard has let through: one of its own.
    pub guard_slot: VipRef,
    /// All backends, in the snapshot's order; draining ones have no entries.
    pub members: Vec<Member>,
    /// The Maglev table over the active ones; `None` when there is none.
    maglev: Option<Arc<Maglev>>,
    /// The active backends, as the Maglev table numbers them.
    active: Vec<BackendRef>,
    /// The ring before it changed, for a while.
    before: Option<Arc<Before>>,
    /// What the scheduler goes by, beside the Maglev table.
    order: Order,
}

impl Ring {
    /// The backend of a selection hash ([`crate::schedule::Selected`]) by the Maglev table.
    #[inline]
    pub fn select(&self, hash: u64) -> Option<BackendRef> {
        self.active.get(usize::from(self.entry(hash)?)).copied()
    }

    /// The entry of the Maglev table at a hash: an index into the active backends.
    #[inline]
    pub(crate) fn entry(&self, hash: u64) -> Option<u16> {
        Some(self.maglev.as_ref()?.lookup(hash))
    }

    /// The backends that take new flows.
    pub(crate) fn active(&self) -> &[BackendRef] {
        &self.active
    }

    /// What the scheduler goes by.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    /// The backends that take new flows, from the one behind `backend` on, without it.
    pub fn others(&self, backend: BackendRef) -> impl Iterator<Item = BackendRef> {
        let at = self.active.iter().position(|&b| b == backend);
        let (before, behind) = self.active.split_at(at.unwrap_or(0));
        let behind = behind.iter().filter(move |&&b| b != backend);
        behind.chain(before).copied()
    }

    /// The member that a flow entry's reference names.
    pub fn member(&self, backend: BackendRef) -> Option<&Member> {
        self.members.iter().find(|m| m.backend_ref == backend)
    }

    /// The Maglev table, and the active backends as it numbers them.
    pub fn table(&self) -> Option<(&Maglev, &[BackendRef])> {
        Some((self.maglev.as_deref()?, &self.active))
    }

    /// The size of the Maglev table, 0 without one.
    pub fn table_entries(&self) -> u32 {
        self.maglev.as_ref().map_or(0, |m| m.entries().len() as u32)
    }
}

/// A compiled snapshot.
#[derive(Debug, Clone)]
pub struct Tables {
    epoch: u64,
    addresses: EngineAddresses,
    /// Local ports of connections to replicas; none where the engine holds no sessions.
    session_ports: Option<RangeInclusive<u16>>,
    /// Workers that share what guards let through.
    workers: NonZeroU32,
    index: Arc<VipIndex>,
    /// The addresses of all VIPs.
    vip_addresses: Arc<AddressSet>,
    /// The far ends of all tunnels.
    tunnel_ends: Arc<AddressSet>,
    answers: Arc<Answers>,
    tells_unserved: bool,
    vips: Vec<VipSlot>,
    rings: Arc<Vec<Ring>>,
    hops: Vec<Hop>,
    free_vips: VecDeque<u16>,
    free_hops: VecDeque<u32>,
}

impl Tables {
    /// The epoch of the snapshot they were made from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The VIP that a destination belongs to: the one of its port, else the one whose range has it,
    /// else the one of every port.
    #[inline]
    pub fn vip(&self, address: IpAddr, port: u16, protocol: u8) -> Option<VipRef> {
        let slot = self.index.find(address, port, protocol)?;
        Some(VipRef {
            slot,
            generation: self.vips[usize::from(slot)].generation,
        })
    }

    /// Every VIP that a destination can belong to, the one of [`Tables::vip`] first.
    pub fn vip_candidates(
        &self,
        address: IpAddr,
        port: u16,
        protocol: u8,
    ) -> impl Iterator<Item = VipRef> {
        let slots = self.index.candidates(address, port, protocol);
        slots.into_iter().flatten().map(|slot| VipRef {
            slot,
            generation: self.vips[usize::from(slot)].generation,
        })
    }

    /// The slot of a VIP that is still the one a flow entry was made for.
    #[inline]
    pub fn vip_slot(&self, vip: VipRef) -> Option<&VipSlot> {
        self.vips
            .get(vip.slot())
            .filter(|s| s.generation == vip.generation && s.vip.is_some())
    }

    /// The service of a VIP.
    #[inline]
    pub fn ring(&self, vip: VipRef) -> Option<&Ring> {
        self.vip_slot(vip)
            .and_then(|s| self.rings.get(s.service as usize))
    }

    /// A backend that is still the one a flow entry was made for.
    #[inline]
    pub fn hop(&self, backend: BackendRef) -> Option<&Hop> {
        self.hops
            .get(backend.slot())
            .filter(|h| h.generation == backend.generation())
    }

    /// All services.
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// All VIPs in use, with their references and services.
    pub fn vips(&self) -> impl Iterator<Item = (VipRef, Vip, &Ring)> {
        self.vips.iter().enumerate().filter_map(|(slot, s)| {
            let vip = VipRef {
                slot: slot as u16,
                generation: s.generation,
            };
            Some((vip, s.vip?, self.rings.get(s.service as usize)?))
        })
    }

    /// These tables, with the local ports of the engine's connections to replicas. Tables that are
    /// compiled in succession keep them: they are the engine's for its life.
    pub fn with_session_ports(self, ports: RangeInclusive<u16>) -> Self {
        Tables {
            session_ports: Some(ports),
            ..self
        }
    }

    /// These tables, for engines of that many workers that process packets: each lets its part of
    /// a guard's rates through. Tables that are compiled in succession keep the number.
    pub fn with_workers(self, workers: NonZeroU32) -> Self {
        Tables { workers, ..self }
    }

    /// Whether a packet to this destination can belong to a connection to a replica.
    pub fn is_session(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        let ports = self.session_ports.as_ref();
        protocol == Protocol::Tcp.number()
            && ports.is_some_and(|ports| ports.contains(&port))
            && self.is_engine_address(address)
    }

    /// Which of `shares` equal parts of those ports a port is in; what is left over is in none.
    pub(crate) fn session_port_share(&self, port: u16, shares: usize) -> Option<usize> {
        let ports = self.session_ports.as_ref()?;
        let size = ports.len() / shares.max(1);
        let share = usize::from(port.checked_sub(*ports.start())?).checked_div(size)?;
        (share < shares).then_some(share)
    }

    /// Whether an address has any VIP in force.
    pub fn has_vip(&self, address: IpAddr) -> bool {
        self.vip_addresses.has(address)
    }

    /// Whether a backend at this address is reached by a tunnel.
    pub fn is_tunnel_end(&self, address: IpAddr) -> bool {
        self.tunnel_ends.has(address)
    }

    /// Whether any service's tunnels go to this UDP port.
    pub fn is_tunnel_port(&self, port: u16) -> bool {
        self.rings.iter().any(|ring| match ring.mode {
            Mode::Tunnel(Encapsulation::Gue { port: to }) => to.get() == port,
            Mode::Tunnel(Encapsulation::Ipip) | Mode::Nat | Mode::FullNat | Mode::Replicate(_) => {
                false
            }
        })
    }

    /// Whether there is a service without a backend that takes flows whose senders are to know.
    pub fn tells_unserved(&self) -> bool {
        self.tells_unserved
    }

    /// Whether an address is one of the engine's own.
    pub fn is_engine_address(&self, address: IpAddr) -> bool {
        self.addresses.has(address)
    }

    /// The room each VIP's packets need in front, in bytes: the tunnel header, and a VLAN tag
    /// where most of the service's reachable backends are behind one. None where sessions are:
    /// their packets end here.
    pub fn rooms(&self) -> impl Iterator<Item = (Vip, u16)> {
        self.vips().map(|(_, vip, ring)| (vip, self.room(ring)))
    }

    fn room(&self, ring: &Ring) -> u16 {
        if ring.replicate.is_some() {
            return 0;
        }
        let hops = || ring.members.iter().filter_map(|m| self.hop(m.backend_ref));
        let (tagged, plain) = hops()
            .filter_map(|h| h.route.ok())
            .fold((0, 0), |(t, p), r| {
                if r.link.vlan.is_some() {
                    (t + 1, p)
                } else {
                    (t, p + 1)
                }
            });
        match hops().next().map(|h| &h.delivery) {
            Some(Delivery::Tunnel(outer)) => outer.room(tagged > plain),
            Some(Delivery::Nat(_) | Delivery::FullNat(_)) if tagged > plain => TAG_LENGTH as u16,
            Some(Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session) | None => 0,
        }
    }

    /// The slots of backends whose owner is not the one in `previous`, so that counters start
    /// anew for them. Likewise for VIPs.
    pub(crate) fn changed_since(
        &self,
        previous: &Tables,
    ) -> (impl Iterator<Item = usize>, impl Iterator<Item = usize>) {
        let backends = changed(&self.hops, &previous.hops, |h| h.generation);
        let vips = changed(&self.vips, &previous.vips, |v| v.generation);
        (vips, backends)
    }

    /// A service's name for messages.
    pub fn service_name(&self, vip: VipRef) -> Option<String> {
        self.ring(vip).map(|r| String::from(r.name.as_str()))
    }
}

fn changed<T>(
    now: &[T],
    before: &[T],
    generation: impl Fn(&T) -> u8,
) -> impl Iterator<Item = usize> {
    now.iter()
        .enumerate()
        .filter(move |(slot, item)| {
            before
                .get(*slot)
                .is_some_and(|b| generation(b) != generation(item))
        })
        .map(|(slot, _)| slot)
}

impl Default for Tables {
    fn default() -> Self {
        Tables::compile(
            &Tables::blank(),
            &Snapshot::empty(),
            EngineAddresses::default(),
            |_| NextHop::NoRoute,
        )
        .unwrap_or_else(|_| Tables::blank())
    }
}

#[cfg(test)]
mod tests;
