//! What the XDP programs are told of the tables: which packets are ours, and what room they need.

use lockstep_bpf::{Destination, Numbers, Room, Steered};
use lockstep_core::Tables;
use lockstep_plan::{Mode, Protocol, Vip};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub type Destinations = BTreeMap<Destination, Steered>;

/// ICMP, of the address's IP version.
const fn icmp(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 58,
    }
}

/// A VIP has an entry of its own, and its address has two: for packets without readable ports, and
/// for pings and errors, with the most room that any VIP of the address needs. An engine address has
/// those two and one for each protocol.
pub fn destinations(
    engine_addresses: &[IpAddr],
    tables: &Tables,
    numbers: &Numbers,
) -> Destinations {
    let mut destinations = Destinations::new();
    for &address in engine_addresses {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let every = Destination::new(address, 0, Some(protocol.number()));
            destinations.insert(every, Room::NONE.into());
        }
        put_address(&mut destinations, address, Room::NONE);
    }
    let rooms: BTreeMap<Vip, u16> = tables.rooms().collect();
    for (_, vip, ring) in tables.vips() {
        // Rooms are lengths of headers: none is out of the range that a room may have.
        let room = rooms.get(&vip).and_then(|&room| Room::new(room));
        let room = room.unwrap_or(Room::NONE);
        let destination = Destination {
            address: vip.address(),
            port: vip.port(),
            last_port: vip.last_port(),
            protocol: Some(vip.protocol().number()),
        };
        let service = numbers.get(ring.name.as_str()).copied();
        destinations.insert(destination, Steered { room, service });
        put_address(&mut destinations, vip.address(), room);
    }
    destinations
}

fn put_address(destinations: &mut Destinations, address: IpAddr, room: Room) {
    for protocol in [None, Some(icmp(address))] {
        let entry = Destination::new(address, 0, protocol);
        let steered = destinations.entry(entry).or_insert(Room::NONE.into());
        steered.room = steered.room.max(room);
    }
}

/// Where answers come from that have to be rewritten: the backends of services with `nat`, with
/// errors about packets and what has no readable ports.
pub fn sources(tables: &Tables) -> Destinations {
    let mut sources = Destinations::new();
    for (_, vip, ring) in tables.vips() {
        if ring.mode != Mode::Nat {
            continue;
        }
        let protocol = Some(vip.protocol().number());
        // Without a port of its own a backend answers from that which the client sent to.
        let same = if vip.has_one_port() { vip.port() } else { 0 };
        for member in &ring.members {
            let address = member.backend.address;
            let port = member.backend.port.map_or(same, |port| port.get());
            let of_flows = Destination::new(address, port, protocol);
            sources.insert(of_flows, Room::NONE.into());
            put_address(&mut sources, address, Room::NONE);
        }
    }
    sources
}

#[cfg(test)]
mod tests;
