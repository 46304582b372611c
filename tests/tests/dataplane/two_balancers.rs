//! Two balancers that share nothing but their snapshot choose the same backend for every flow, so
//! that a router may send a connection to either.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket};
use lockstep_core::{
    BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, NextHop, PortId, Route, Tables,
    Verdict,
};
use lockstep_plan::{
    Backend, BackendState, DropReason, Health, IdleTimeouts, Mode, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const FLOWS: usize = 100_000;
const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
const ENGINES: EngineAddresses = EngineAddresses {
    v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
};
const ROOM: u16 = 20;

#[test]
fn two_balancers_with_the_same_snapshot_agree_on_a_hundred_thousand_random_flows() {
    let mut random = StdRng::seed_from_u64(0x10c5);
    let backends: Vec<Backend> = (1..=17).map(backend).collect();
    let mut shuffled = backends.clone();
    shuffled.shuffle(&mut random);

    // One has just started; the other had other services and backends before, the same ones in
    // another order now, its own secret, and a flow table that is full.
    let fresh = compile(&Tables::default(), 1, backends.clone());
    let before = compile(&Tables::default(), 1, vec![backend(99), backend(3)]);
    let aged = compile(&before, 2, shuffled);
    let mut a = dataplane(FLOWS, 1, fresh);
    let mut b = dataplane(64, 2, aged);

    let mut shares: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for _ in 0..FLOWS.div_ceil(BURST) {
        let frames: Vec<Vec<u8>> = (0..BURST).map(|_| random_syn(&mut random)).collect();
        let (of_a, of_b) = (
            chosen(&mut a, frames.clone()),
            chosen(&mut b, frames.clone()),
        );
        assert_eq!(of_a, of_b);
        for server in of_a {
            *shares.entry(server).or_default() += 1;
        }
    }
    assert_eq!(
        shares.len(),
        backends.len(),
        "every backend has its share: {shares:?}"
    );
    let (remembered_a, remembered_b) = (remembered(&a), remembered(&b));
    assert!(
        remembered_a > 10 * remembered_b,
        "{remembered_a} and {remembered_b} flows: b decided nearly all without its table"
    );
}

fn remembered(dataplane: &Dataplane) -> usize {
    dataplane.flows_v4().len() + dataplane.flows_v6().len()
}

fn backend(number: u8) -> Backend {
    Backend {
        name: format!("s{number}"),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 1, number)),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

fn compile(previous: &Tables, epoch: u64, backends: Vec<Backend>) -> Tables {
    let service = Service {
        name: ServiceName::new("web").unwrap(),
        vips: [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)]
            .map(|vip| lockstep_plan::Vip::new(vip, 443, lockstep_plan::Protocol::Tcp).unwrap())
            .to_vec(),
        mode: Mode::TUNNEL,
        backends,
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let link = LinkHeader {
        destination: [2; 6],
        source: [4; 6],
        vlan: None,
    };
    let route = Route {
        port: PortId(0),
        link,
        mtu: 1600,
    };
    let snapshot = Snapshot::new(epoch, vec![service]).unwrap();
    Tables::compile(previous, &snapshot, ENGINES, |_| NextHop::Via(route)).unwrap()
}

fn dataplane(flows: usize, seed: u64, tables: Tables) -> Dataplane {
    let config = DataplaneConfig {
        flows_v4: flows,
        flows_v6: flows,
        seed,
        ..DataplaneConfig::default()
    };
    let mut dataplane = Dataplane::new(&config);
    dataplane.adopt(Arc::new(tables));
    dataplane
}

/// The first packet of a connection from anywhere, as the XDP program hands it over.
fn random_syn(random: &mut StdRng) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([6; 6], [4; 6]);
    let ip = if random.random() {
        ethernet.ipv4(random.random(), VIP_V4.octets(), 64)
    } else {
        ethernet.ipv6(random.random(), VIP_V6.octets(), 64)
    };
    let mut frame = Vec::new();
    ip.tcp(random.random_range(1..=u16::MAX), 443, 1, 1024)
        .syn()
        .write(&mut frame, &[])
        .unwrap();
    let room = [
        &STEER_ETHERTYPE.to_be_bytes()[..],
        &ROOM.to_be_bytes(),
        &[0; 18],
    ]
    .concat();
    frame.splice(12..14, room);
    frame
}

/// The backend of each packet of a burst, from the tunnel headers that were written.
fn chosen(dataplane: &mut Dataplane, mut frames: Vec<Vec<u8>>) -> Vec<Ipv4Addr> {
    let mut verdicts = vec![Verdict::Drop(DropReason::NoVip); frames.len()];
    dataplane.process(
        Micros::new(0),
        &[PortId(0); BURST],
        &mut frames,
        &mut verdicts,
    );
    frames
        .iter()
        .zip(verdicts)
        .map(|(frame, verdict)| {
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            match SlicedPacket::from_ethernet(frame).unwrap().net {
                Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr(),
                other => panic!("no outer IPv4 header: {other:?}"),
            }
        })
        .collect()
}
