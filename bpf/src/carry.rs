//! What the steering program needs to carry packets by itself while no engine takes them: each
//! service's table, and the tunnels to their backends.
//!
//! All interfaces share these maps. Every table is a map of its own, which is filled before it is
//! put in the place of the one that it replaces, so that no packet meets half of it.

use crate::BpfError;
use crate::abi::{BACKENDS, PINNED, SERVICES, ServiceNumber, mapped};
use crate::mirror::Mirror;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that all tables may take: as many as 2,000 services of the usual size would.
pub const CARRY_MEMORY: usize = 256 << 20;

/// `STEER_CHUNK`: entries in one element of a table's map.
pub(crate) const CHUNK: usize = 64;
/// `struct steer_chunk`.
const ELEMENT: usize = 2 * CHUNK;
/// `struct steer_backend`.
const BACKEND: usize = 64;
const UNUSED: [u8; BACKEND] = [0; BACKEND];

/// A tunnel to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tunnel {
    /// The outer source.
    pub source: IpAddr,
    /// The outer destination, of the same IP version.
    pub destination: IpAddr,
    /// The UDP port of GUE; `None` for IP in IP.
    pub port: Option<NonZeroU16>,
}

/// Where a tunnel's packets leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The number of the interface.
    pub interface: u32,
    /// The next hop's MAC address.
    pub destination: [u8; 6],
    /// The interface's.
    pub source: [u8; 6],
    /// The 802.1Q tag.
    pub vlan: Option<u16>,
    /// The longest IP packet.
    pub mtu: u16,
}

/// A service that is to be carried.
#[derive(Debug, Clone)]
pub struct CarriedService<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether the hash is of the client's address alone.
    pub by_client: bool,
    /// Its Maglev table: indices into `backends`.
    pub entries: &'a [u16],
    /// Its backends, and the ways there as far as they are known. Flows can be pinned to those
    /// without entries.
    pub backends: Vec<(Tunnel, Option<Way>)>,
}

/// A flow as a client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarriedFlow {
    /// The client.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// The client's port.
    pub source_port: u16,
    /// The VIP's port.
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
}

/// The numbers that services were given, by their names. The others do not fit: without an engine
/// their packets go to the kernel.
pub type Numbers = BTreeMap<String, ServiceNumber>;

/// The maps, and what is in them.
#[derive(Debug)]
pub struct Carrier {
    rings: MapHandle,
    backends: MapHandle,
    pinned: MapHandle,
    /// Where each tunnel is in `backends`.
    places: BTreeMap<Tunnel, u16>,
    written: BTreeMap<u16, [u8; BACKEND]>,
    free: BTreeSet<u16>,
    services: BTreeMap<u64, Held>,
    flows: Mirror<40, 4>,
    /// What the last [`Carrier::set`] asked for.
    wanted: BTreeSet<Tunnel>,
    wanted_services: BTreeSet<u64>,
}

/// A service's table in the map.
#[derive(Debug, Clone, Copy)]
struct Held {
    number: u32,
    content: u64,
}

/// A table that is to be made.
struct Made {
    service: u64,
    number: u32,
    content: u64,
    map: MapHandle,
}

impl Carrier {
    /// Of these maps; what a predecessor left in them stays in force.
    pub(crate) fn new(
        rings: MapHandle,
        backends: MapHandle,
        pinned: MapHandle,
    ) -> Result<Self, BpfError> {
        let mut carrier = Carrier {
            rings,
            backends,
            pinned,
            places: BTreeMap::new(),
            written: BTreeMap::new(),
            free: (0..BACKENDS as u16).collect(),
            services: BTreeMap::new(),
            flows: Mirror::new("pinned", PINNED),
            wanted: BTreeSet::new(),
            wanted_services: BTreeSet::new(),
        };
        carrier.recover()?;
        Ok(carrier)
    }

    fn recover(&mut self) -> Result<(), BpfError> {
        for place in 0..BACKENDS as u16 {
            let bytes = lookup(&self.backends, "backends", u32::from(place))?;
            let Some(bytes) = bytes.and_then(|bytes| <[u8; BACKEND]>::try_from(bytes).ok()) else {
                continue;
            };
            if let Some(tunnel) = tunnel_of(&bytes) {
                self.places.insert(tunnel, place);
                self.written.insert(place, bytes);
                self.free.remove(&place);
            }
        }
        for number in 1..SERVICES {
            // User space is given the number of the map that is there.
            let id = lookup(&self.rings, "rings", number)?;
            let Some(id) = id.and_then(|id| <[u8; 4]>::try_from(id).ok()) else {
                continue;
            };
            let ring = match MapHandle::from_map_id(u32::from_ne_bytes(id)) {
                Ok(ring) => ring,
                // Maps are opened by number with CAP_SYS_ADMIN only. Without it nobody knows whose
                // table this is: it stays in force under no service's name, each service gets a new
                // one under another number, and this one is retired with those that are gone.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let content = 0;
                    self.services
                        .insert(u64::from(number), Held { number, content });
                    continue;
                }
                Err(error) => return Err(failed("rings", "open a service's table")(error)),
            };
            if let Some((service, content)) = lookup(&ring, "ring", 0)?.and_then(|h| head_of(&h)) {
                self.services.insert(service, Held { number, content });
            }
        }
        self.flows.read(&self.pinned)
    }

    /// Makes sure that all of `services` are there, in their order as far as there is room, and
    /// leaves what was there before until [`Carrier::retire`].
    ///
    /// May take some milliseconds, in which the kernel waits for the program to leave old tables.
    pub fn set(&mut self, services: &[CarriedService<'_>]) -> Result<Numbers, BpfError> {
        let mut numbers = Numbers::new();
        let mut made = Vec::new();
        let mut memory = 0;
        self.wanted.clear();
        self.wanted_services.clear();
        for service in services {
            memory += service.entries.len().div_ceil(CHUNK) * ELEMENT + ELEMENT;
            if memory > CARRY_MEMORY {
                break;
            }
            let identity = hash_of(&service.name);
            let Some(places) = self.place_all(&service.backends)? else {
                continue;
            };
            let Some(number) = self.number(identity, &made) else {
                continue;
            };
            // Two names with one hash: the first one has it.
            if !self.wanted_services.insert(identity) {
                continue;
            }
            let entries: Vec<u16> = service
                .entries
                .iter()
                .filter_map(|&entry| places.get(usize::from(entry)).copied())
                .collect();
            let content = hash_of(&(&entries, service.by_client));
            let held = self.services.get(&identity);
            if held.is_none_or(|held| held.content != content) {
                made.push(Made {
                    service: identity,
                    number,
                    content,
                    map: ring(identity, content, &entries, service.by_client)?,
                });
            }
            numbers.insert(service.name.to_owned(), ServiceNumber(number));
        }
        self.exchange(made)?;
        Ok(numbers)
    }

    /// Writes the ways of tunnels that are there already.
    pub fn reroute(
        &mut self,
        tunnels: impl Iterator<Item = (Tunnel, Option<Way>)>,
    ) -> Result<(), BpfError> {
        for (tunnel, way) in tunnels {
            if let Some(&place) = self.places.get(&tunnel) {
                self.write(place, &tunnel, way.as_ref())?;
            }
        }
        Ok(())
    }

    /// Removes what the last [`Carrier::set`] did not ask for. Call when no destination names a
    /// number any more that it did not return.
    pub fn retire(&mut self) -> Result<(), BpfError> {
        let gone = |service: &&u64| !self.wanted_services.contains(*service);
        let gone: Vec<u64> = self.services.keys().filter(gone).copied().collect();
        for service in gone {
            if let Some(held) = self.services.get(&service) {
                let deleted = self.rings.delete(&held.number.to_ne_bytes());
                deleted.map_err(failed("rings", "remove a service's table"))?;
                self.services.remove(&service);
            }
        }
        if self.flows.len() > 0 {
            // Flows may be pinned to backends that no table has any more.
            return Ok(());
        }
        let gone = |(tunnel, _): &(&Tunnel, &u16)| !self.wanted.contains(*tunnel);
        let places = self.places.iter().filter(gone);
        let gone: Vec<(Tunnel, u16)> = places.map(|(&t, &p)| (t, p)).collect();
        for (tunnel, place) in gone {
            update(&self.backends, "backends", place, &UNUSED)?;
            self.written.remove(&place);
            self.places.remove(&tunnel);
            self.free.insert(place);
        }
        Ok(())
    }

    /// Makes `flows` the ones that are carried to another backend than their hash gives; those
    /// whose tunnel is not known, and those beyond [`PINNED`], are left out.
    pub fn pin(&mut self, flows: &BTreeMap<CarriedFlow, Tunnel>) -> Result<usize, BpfError> {
        let known = flows.iter().filter_map(|(flow, tunnel)| {
            let place = *self.places.get(tunnel)?;
            Some((flow.key(), u32::from(place).to_ne_bytes()))
        });
        let wanted: BTreeMap<[u8; 40], [u8; 4]> = known.take(PINNED).collect();
        self.flows.remove(&self.pinned, &wanted)?;
        self.flows.add(&self.pinned, &wanted)?;
        Ok(wanted.len())
    }

    /// The places of these backends; `None` when there are not enough.
    fn place_all(
        &mut self,
        backends: &[(Tunnel, Option<Way>)],
    ) -> Result<Option<Vec<u16>>, BpfError> {
        let new = |(tunnel, _): &&(Tunnel, Option<Way>)| !self.places.contains_key(tunnel);
        if backends.iter().filter(new).count() > self.free.len() {
            return Ok(None);
        }
        let mut places = Vec::with_capacity(backends.len());
        for (tunnel, way) in backends {
            let held = self.places.get(tunnel).copied();
            let Some(place) = held.or_else(|| self.free.first().copied()) else {
                return Ok(None);
            };
            self.write(place, tunnel, way.as_ref())?;
            self.free.remove(&place);
            self.places.insert(*tunnel, place);
            self.wanted.insert(*tunnel);
            places.push(place);
        }
        Ok(Some(places))
    }

    fn write(&mut self, place: u16, tunnel: &Tunnel, way: Option<&Way>) -> Result<(), BpfError> {
        let bytes = backend(tunnel, way);
        if self.written.get(&place) != Some(&bytes) {
            update(&self.backends, "backends", place, &bytes)?;
            self.written.insert(place, bytes);
        }
        Ok(())
    }

    /// The number that a service has, or the first one that is free.
    fn number(&self, service: u64, made: &[Made]) -> Option<u32> {
        if let Some(held) = self.services.get(&service) {
            return Some(held.number);
        }
        let held = self.services.values().map(|held| held.number);
        let taken: BTreeSet<u32> = held.chain(made.iter().map(|made| made.number)).collect();
        (1..SERVICES).find(|number| !taken.contains(number))
    }

    /// Puts new tables in the places of old ones, all at once: the kernel waits only once then.
    fn exchange(&mut self, made: Vec<Made>) -> Result<(), BpfError> {
        if made.is_empty() {
            return Ok(());
        }
        let keys: Vec<u8> = made.iter().flat_map(|m| m.number.to_ne_bytes()).collect();
        let fd = |made: &Made| made.map.as_fd().as_raw_fd().to_ne_bytes();
        let values: Vec<u8> = made.iter().flat_map(fd).collect();
        let count = made.len() as u32;
        self.rings
            .update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
            .map_err(failed("rings", "exchange services' tables"))?;
        for made in made {
            let (number, content) = (made.number, made.content);
            self.services.insert(made.service, Held { number, content });
        }
        Ok(())
    }
}

impl CarriedFlow {
    /// `struct steer_flow`.
    fn key(&self) -> [u8; 40] {
        let mut key = [0; 40];
        key[..16].copy_from_slice(&mapped(self.source));
        key[16..32].copy_from_slice(&mapped(self.destination));
        key[32..34].copy_from_slice(&self.source_port.to_be_bytes());
        key[34..36].copy_from_slice(&self.destination_port.to_be_bytes());
        key[36] = self.protocol;
        key
    }
}

/// A table's map, filled.
fn ring(
    service: u64,
    content: u64,
    entries: &[u16],
    by_client: bool,
) -> Result<MapHandle, BpfError> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: libbpf_sys::BPF_F_INNER_MAP,
        ..Default::default()
    };
    let count = 1 + entries.len().div_ceil(CHUNK) as u32;
    let map = MapHandle::create(
        MapType::Array,
        Some("ring"),
        4,
        ELEMENT as u32,
        count,
        &options,
    )
    .map_err(failed("ring", "make a service's table"))?;
    let mut values = Vec::with_capacity(count as usize * ELEMENT);
    // There are at most as many entries as a `TableSize` says.
    values.extend((entries.len() as u32).to_ne_bytes());
    values.extend(u32::from(by_client).to_ne_bytes());
    values.extend(service.to_ne_bytes());
    values.extend(content.to_ne_bytes());
    values.resize(ELEMENT, 0);
    values.extend(entries.iter().flat_map(|entry| entry.to_ne_bytes()));
    values.resize(count as usize * ELEMENT, 0);
    let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
    map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
        .map_err(failed("ring", "fill a service's table"))?;
    Ok(map)
}

/// Service and content of `struct steer_ring`.
fn head_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let word = |at| {
        let bytes: Option<&[u8; 8]> = bytes.get(at..)?.first_chunk();
        bytes.map(|bytes| u64::from_ne_bytes(*bytes))
    };
    Some((word(8)?, word(16)?))
}

/// `struct steer_backend`.
fn backend(tunnel: &Tunnel, way: Option<&Way>) -> [u8; BACKEND] {
    let mut bytes = UNUSED;
    match (tunnel.source, tunnel.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes[..4].copy_from_slice(&source.octets());
            bytes[16..20].copy_from_slice(&destination.octets());
            bytes[54] = 4;
        }
        (source, destination) => {
            bytes[..16].copy_from_slice(&mapped(source));
            bytes[16..32].copy_from_slice(&mapped(destination));
            bytes[54] = 6;
        }
    }
    let port = tunnel.port.map_or(0, NonZeroU16::get);
    bytes[46..48].copy_from_slice(&port.to_be_bytes());
    if let Some(way) = way {
        bytes[32..38].copy_from_slice(&way.destination);
        bytes[38..44].copy_from_slice(&way.source);
        let vlan = way.vlan.unwrap_or(0) & 0xfff;
        bytes[44..46].copy_from_slice(&vlan.to_be_bytes());
        bytes[48..52].copy_from_slice(&way.interface.to_ne_bytes());
        bytes[52..54].copy_from_slice(&way.mtu.to_ne_bytes());
    }
    bytes
}

/// The tunnel that `struct steer_backend` says.
fn tunnel_of(bytes: &[u8; BACKEND]) -> Option<Tunnel> {
    let (halves, _) = bytes.as_chunks::<16>();
    let v4 = |bytes: &[u8; 16]| {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    let v6 = |bytes: &[u8; 16]| IpAddr::V6(Ipv6Addr::from_octets(*bytes));
    let (source, destination) = match bytes[54] {
        4 => (v4(&halves[0]), v4(&halves[1])),
        6 => (v6(&halves[0]), v6(&halves[1])),
        _ => return None,
    };
    Some(Tunnel {
        source,
        destination,
        port: NonZeroU16::new(u16::from_be_bytes([bytes[46], bytes[47]])),
    })
}

/// The same for the same build of the standard library; another one's tables are written anew.
fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn lookup(map: &MapHandle, name: &'static str, key: u32) -> Result<Option<Vec<u8>>, BpfError> {
    map.lookup(&key.to_ne_bytes(), MapFlags::ANY)
        .map_err(failed(name, "read an entry"))
}

fn update(map: &MapHandle, name: &'static str, key: u16, value: &[u8]) -> Result<(), BpfError> {
    map.update(&u32::from(key).to_ne_bytes(), value, MapFlags::ANY)
        .map_err(failed(name, "write an entry"))
}

fn failed(map: &'static str, doing: &'static str) -> impl FnOnce(libbpf_rs::Error) -> BpfError {
    move |source| BpfError::Map { map, doing, source }
}

#[cfg(test)]
mod tests;
