//! What the XDP program carries leaves as if the engine had forwarded it, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use crate::agent::steering::destinations::destinations;
use lockstep_bpf::{Action, Carrier, Seeds, SteerProgram};
use lockstep_core::maglev::SELECTION_SEED;
use lockstep_core::{
    Dataplane, DataplaneConfig, EngineAddresses, Micros, NextHop, PortId, Tables, Verdict,
};
use lockstep_plan::{
    Backend, BackendState, Encapsulation, Guard, Health, IdleTimeouts, Prefix, Service,
    ServiceName, Snapshot, TableSize, Weight,
};
use lockstep_wire::ipip::LABEL_SEED;
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// Flows for each of the eight cases.
const FLOWS: usize = 3_000;

/// xorshift64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn service(name: &str, mode: Mode, backends: &[String]) -> Service {
    let vips = [
        format!("{V4}:80/tcp"),
        format!("{V4}:53/udp"),
        format!("[{V6}]:80/tcp"),
        format!("[{V6}]:53/udp"),
    ];
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        mode,
        backends: backends.iter().map(|address| backend(address)).collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(5_003).unwrap(),
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    }
}

fn backend(address: &str) -> Backend {
    Backend {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

fn compile(services: Vec<Service>, vlan: Option<u16>) -> Tables {
    let snapshot = Snapshot::new(1, services).unwrap();
    let addresses = EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: Some("2001:db8:ffff::1".parse().unwrap()),
    };
    Tables::compile(&Tables::default(), &snapshot, addresses, |to| {
        // Every backend behind a neighbour of its own.
        let last = match to {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        NextHop::Via(Route {
            port: PortId(0),
            link: LinkHeader {
                destination: [2, 0, 0, 0, 9, last],
                source: [2, 0, 0, 0, 0, 2],
                vlan,
            },
            mtu: 1_400,
        })
    })
    .unwrap()
}

fn program() -> SteerProgram {
    let seeds = Seeds {
        selection: *SELECTION_SEED.words(),
        label: *LABEL_SEED.words(),
    };
    SteerProgram::load(Duration::from_secs(3600), &seeds).unwrap()
}

/// Gives a program what the agent would.
fn tell(program: &mut SteerProgram, carrier: &mut Carrier, tables: &Tables) {
    let numbers = carrier.set(&services(tables, &[1])).unwrap();
    let wanted = destinations(&[], tables, &numbers);
    program.set_destinations(&wanted).unwrap();
    carrier.retire().unwrap();
}

/// A packet of a client that is like no other.
fn packet(chance: &mut Chance, v6: bool) -> Vec<u8> {
    let (bits, tos) = (chance.next(), chance.next() as u8);
    let udp = bits & 1 == 1;
    let port = if udp { 53 } else { 80 };
    let mut segment = ((bits >> 8) as u16).to_be_bytes().to_vec();
    segment.extend(u16::to_be_bytes(port));
    if udp {
        segment.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    } else {
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    }
    let (protocol, length) = (if udp { 17 } else { 6 }, segment.len() as u16);
    let mut packet;
    if v6 {
        packet = vec![0x60 | tos >> 4, tos << 4, 0, 7];
        packet.extend(length.to_be_bytes());
        packet.extend([protocol, 2 + (bits >> 24) as u8 % 200]);
        packet.extend([0x20, 1, 0xd, 0xb8]);
        packet.extend([0; 4]);
        packet.extend(chance.next().to_be_bytes());
        packet.extend(V6.octets());
    } else {
        packet = vec![0x45, tos];
        packet.extend((20 + length).to_be_bytes());
        packet.extend([0x12, 0x34, 0x40, 0]);
        packet.extend([2 + (bits >> 24) as u8 % 200, protocol, 0, 0]);
        packet.extend((bits >> 32).to_be_bytes().last_chunk::<4>().unwrap());
        packet.extend(V4.octets());
        let sum: u32 = packet
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    packet.extend(segment);
    packet
}

fn frame(vlans: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    for vlan in vlans {
        frame.extend([0x81, 0]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    });
    frame.extend(packet);
    frame
}

/// What the engine makes of a packet that has the room it needs.
fn forwarded(dataplane: &mut Dataplane, room: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    frame.extend(STEER_ETHERTYPE.to_be_bytes());
    frame.extend(room.to_be_bytes());
    frame.resize(14 + usize::from(room), 0);
    frame.extend(packet);
    let mut verdicts = [Verdict::Local];
    let mut frames = [&mut frame[..]];
    dataplane.process(Micros::ZERO, &[PortId(0)], &mut frames, &mut verdicts);
    match verdicts[0] {
        Verdict::Forward { length, .. } => frame[..usize::from(length)].to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn thousands_of_flows_leave_byte_for_byte_as_the_engine_sends_them() {
    let mut chance = Chance(0x5eed);
    let mut program = program();
    let mut carrier = program.carrier().unwrap();
    let gue = Encapsulation::Gue {
        port: Encapsulation::GUE_PORT,
    };
    let over_v4: Vec<String> = (1..=7).map(|n| format!("10.0.1.{n}")).collect();
    let over_v6: Vec<String> = (1..=7).map(|n| format!("2001:db8:9::{n}")).collect();
    for (backends, encapsulation, vlan, scheduler) in [
        (&over_v4, Encapsulation::Ipip, None, Scheduler::Maglev),
        (&over_v6, Encapsulation::Ipip, Some(7), Scheduler::Maglev),
        (&over_v4, gue, Some(9), Scheduler::SourceHash),
        (&over_v6, gue, None, Scheduler::Maglev),
    ] {
        let mut web = service("web", Mode::Tunnel(encapsulation), backends);
        web.scheduler = scheduler;
        let tables = compile(vec![web], vlan);
        tell(&mut program, &mut carrier, &tables);
        let room = tables.rooms().next().unwrap().1;
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 100_000,
            flows_v6: 100_000,
            seed: 3,
            ..DataplaneConfig::default()
        });
        dataplane.adopt(Arc::new(tables));
        let mut neighbours = std::collections::BTreeSet::new();
        for flow in 0..2 * FLOWS {
            let packet = packet(&mut chance, flow % 2 == 0);
            let tags: &[u16] = [&[][..], &[5], &[6, 5]][flow % 3];
            let run = program.run(&frame(tags, &packet), 1).unwrap();
            assert_eq!(run.action, Action::Redirect);
            let expected = forwarded(&mut dataplane, room, &packet);
            assert_eq!(
                run.frame, expected,
                "{encapsulation:?}, {vlan:?}, {packet:x?}"
            );
            neighbours.insert(run.frame[5]);
        }
        assert_eq!(neighbours.len(), 7, "every backend has its share");
    }
    assert_eq!(program.counters().unwrap().carried, 8 * FLOWS as u64);
}

#[test]
fn what_cannot_be_carried_goes_to_the_kernel_as_it_came() {
    let mut program = program();
    let mut carrier = program.carrier().unwrap();
    let mut chance = Chance(7);
    let servers = ["10.0.1.1".to_owned()];
    let tables = compile(vec![service("web", Mode::TUNNEL, &servers)], None);
    tell(&mut program, &mut carrier, &tables);
    let check = |program: &SteerProgram, says: &str, frame: &[u8], counted: &str| {
        let before = program.counters().unwrap();
        let run = program.run(frame, 1).unwrap();
        assert_eq!(
            (run.action, &run.frame[..]),
            (Action::Pass, frame),
            "{says}"
        );
        let after = program.counters().unwrap();
        for ((name, before), (_, after)) in before.iter().zip(after.iter()) {
            assert_eq!(after - before, u64::from(name == counted), "{says}: {name}");
        }
    };
    let good = frame(&[], &packet(&mut chance, false));
    let mut last_hop = good.clone();
    last_hop[14 + 8] = 1;
    check(&program, "its last hop", &last_hop, "ttl_exceeded");
    let mut big = good.clone();
    big[14 + 2..14 + 4].copy_from_slice(&1_381u16.to_be_bytes());
    big.resize(14 + 1_381, 0);
    check(&program, "1,381 bytes, MTU 1,400", &big, "too_big");
    let mut fragment = good.clone();
    fragment[14 + 6] = 0x20;
    check(&program, "a fragment", &fragment, "stale");

    let no_way = carrier.reroute(tunnels(&tables, &[]));
    no_way.unwrap();
    check(&program, "no way to the backend", &good, "no_way");
    carrier.reroute(tunnels(&tables, &[1])).unwrap();
    assert_eq!(program.run(&good, 1).unwrap().action, Action::Redirect);

    // Nobody is in the service any more.
    let tables = compile(vec![service("web", Mode::TUNNEL, &[])], None);
    tell(&mut program, &mut carrier, &tables);
    check(&program, "no backend", &good, "stale");
}

#[test]
fn services_with_a_list_of_clients_are_not_carried() {
    let servers = ["10.0.1.1".to_owned()];
    let plain = service("web", Mode::TUNNEL, &servers);
    let carried = |service: Service| services(&compile(vec![service], None), &[1]).len();
    assert_eq!(carried(plain.clone()), 1);
    let prefix: Prefix = "198.51.100.0/24".parse().unwrap();
    let mut listed = plain.clone();
    listed.guard.deny = vec![prefix];
    assert_eq!(carried(listed), 0);
    let mut in_turn = plain.clone();
    in_turn.scheduler = Scheduler::RoundRobin;
    assert_eq!(carried(in_turn), 1);
    let mut rewritten = plain;
    rewritten.mode = Mode::FullNat;
    rewritten.vips.retain(|vip| vip.address().is_ipv4());
    assert_eq!(carried(rewritten), 0);
}

/// Tables are exchanged under running packets: always one of the two, never anything else.
#[test]
fn a_successor_finds_what_was_carried_and_changes_only_what_differs() {
    let mut program = program();
    let mut carrier = program.carrier().unwrap();
    let mut chance = Chance(11);
    let servers: Vec<String> = (1..=5).map(|n| format!("10.0.1.{n}")).collect();
    let tables = compile(vec![service("web", Mode::TUNNEL, &servers)], None);
    tell(&mut program, &mut carrier, &tables);
    let frames: Vec<Vec<u8>> = (0..200)
        .map(|_| frame(&[], &packet(&mut chance, false)))
        .collect();
    let run = |program: &SteerProgram| -> Vec<Vec<u8>> {
        let out = frames.iter().map(|f| program.run(f, 1).unwrap());
        out.inspect(|run| assert_eq!(run.action, Action::Redirect))
            .map(|run| run.frame)
            .collect()
    };
    let before = run(&program);
    drop(carrier);

    let mut successor = program.carrier().unwrap();
    assert_eq!(run(&program), before);
    tell(&mut program, &mut successor, &tables);
    assert_eq!(run(&program), before);
    // One backend less: flows of the others mostly stay.
    let fewer = compile(vec![service("web", Mode::TUNNEL, &servers[1..])], None);
    tell(&mut program, &mut successor, &fewer);
    let after = run(&program);
    assert!(after.iter().all(|frame| frame[5] != 1));
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
    assert!(moved < 80, "{moved} of 200 flows moved, 40 had to");
}
