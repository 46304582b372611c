//! Snapshots, ways and packets that several tests use.

use crate::tables::{EngineAddresses, NextHop, PortId, Route, Tables};
use alloc::sync::Arc;
use core::net::IpAddr;
use etherparse::PacketBuilder;
use lockstep_plan::{
    Backend, BackendState, Health, IdleTimeouts, Mode, Replicate, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE};
use std::string::ToString;
use std::vec::Vec;

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const VIP: &str = "203.0.113.10:80/tcp";
pub const VIP_UDP: &str = "203.0.113.10:53/udp";
pub const VIP6: &str = "[2001:db8::10]:80/tcp";

pub fn addresses() -> EngineAddresses {
    EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: Some("2001:db8:ffff::1".parse().unwrap()),
    }
}

pub fn route() -> Route {
    Route {
        port: PortId(0),
        link: LinkHeader {
            destination: ROUTER_MAC,
            source: BALANCER_MAC,
            vlan: None,
        },
        mtu: 1600,
    }
}

pub fn via_router(_: IpAddr) -> NextHop {
    NextHop::Via(route())
}

pub fn backend(address: &str) -> Backend {
    Backend {
        name: address.to_string(),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

pub fn draining(address: &str) -> Backend {
    Backend {
        state: BackendState::Draining,
        ..backend(address)
    }
}

pub fn service(name: &str, vips: &[&str], backends: Vec<Backend>) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vips.iter().map(|v| v.parse().unwrap()).collect(),
        mode: Mode::TUNNEL,
        backends,
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(5_003).unwrap(),
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    }
}

/// A service that replicates under the default policy.
pub fn replicated(name: &str, vips: &[&str], backends: Vec<Backend>) -> Service {
    Service {
        mode: Mode::Replicate(Arc::new(Replicate::DEFAULT)),
        ..service(name, vips, backends)
    }
}

pub fn compile(previous: &Tables, epoch: u64, services: Vec<Service>) -> Tables {
    let snapshot = Snapshot::new(epoch, services).unwrap();
    Tables::compile(previous, &snapshot, addresses(), via_router).unwrap()
}

/// A web service on an IPv4 and an IPv6 VIP over three IPv4 backends, and DNS over UDP.
pub fn web() -> Vec<Service> {
    std::vec![service("web", &[VIP, VIP6, VIP_UDP], three())]
}

pub fn three() -> Vec<Backend> {
    ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(backend).to_vec()
}

/// A frame as the XDP program hands it over: `room` bytes between the Ethernet and IP headers.
pub fn steered(room: u16, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(STEER_ETHERTYPE.to_be_bytes());
    out.extend(room.to_be_bytes());
    // No VLAN tag came with it; the rest is whatever was there.
    out.extend([0; 2]);
    out.resize(14 + usize::from(room), 0xee);
    out.extend(&frame[14..]);
    out
}

/// Flags of a TCP segment: any of `SAFR`.
pub fn tcp(client: (&str, u16), vip: &str, flags: &str) -> Vec<u8> {
    let (from, port) = client;
    let vip: lockstep_plan::Vip = vip.parse().unwrap();
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, BALANCER_MAC);
    let ip = match (from.parse().unwrap(), vip.address()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one IP version in a packet"),
    };
    let mut tcp = ip.tcp(port, vip.port(), 1, 1024);
    for flag in flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'A' => tcp.ack(1),
            'F' => tcp.fin(),
            'R' => tcp.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    frame
}

pub fn udp(client: (&str, u16), vip: &str, payload: &[u8]) -> Vec<u8> {
    let (from, port) = client;
    let vip: lockstep_plan::Vip = vip.parse().unwrap();
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from.parse().unwrap(), vip.address()) else {
        panic!("IPv4 only");
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, BALANCER_MAC)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(port, vip.port())
        .write(&mut frame, payload)
        .unwrap();
    frame
}
