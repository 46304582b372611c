#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use lockstep_core::{EngineAddresses, NextHop, PortId, Route};
use lockstep_plan::{
    Backend, BackendState, Encapsulation, Guard, Health, IdleTimeouts, Scheduler, Service,
    ServiceName, Snapshot, TableSize, Weight,
};
use lockstep_wire::LinkHeader;

const ENGINE: &str = "192.0.2.1";

fn service(name: &str, vips: &[&str], mode: Mode, backend: &str, port: Option<u16>) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        mode,
        backends: vec![Backend {
            name: backend.to_owned(),
            address: backend.parse().unwrap(),
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            port: port.map(|port| port.try_into().unwrap()),
            health: Health::UNKNOWN,
        }],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(251).unwrap(),
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    }
}

fn compile(services: Vec<Service>) -> Tables {
    let addresses = EngineAddresses {
        v4: Some(ENGINE.parse().unwrap()),
        v6: None,
    };
    let snapshot = Snapshot::new(1, services).unwrap();
    Tables::compile(&Tables::default(), &snapshot, addresses, |_| {
        NextHop::Via(Route {
            port: PortId(0),
            link: LinkHeader {
                destination: [2; 6],
                source: [2; 6],
                vlan: None,
            },
            mtu: 1_500,
        })
    })
    .unwrap()
}

fn at(address: &str, port: u16, protocol: Option<u8>) -> Destination {
    Destination::new(address.parse().unwrap(), port, protocol)
}

fn rooms(destinations: &Destinations) -> Vec<(Destination, u16)> {
    let room =
        |(destination, steered): (&Destination, &Steered)| (*destination, steered.room.get());
    destinations.iter().map(room).collect()
}

#[test]
fn an_address_has_entries_for_icmp_and_fragments_with_the_most_room_of_its_vips() {
    let gue = Mode::Tunnel(Encapsulation::Gue {
        port: Encapsulation::GUE_PORT,
    });
    let vip = "203.0.113.10";
    let tables = compile(vec![
        service(
            "web",
            &["203.0.113.10:80/tcp"],
            Mode::TUNNEL,
            "10.0.0.1",
            None,
        ),
        service(
            "games",
            &["203.0.113.10:5000-5999/udp"],
            gue,
            "10.0.0.2",
            None,
        ),
        service(
            "files",
            &["203.0.113.10:21/tcp"],
            Mode::Nat,
            "10.0.0.3",
            None,
        ),
    ]);
    let engine = [ENGINE.parse().unwrap()];
    let destinations = destinations(&engine, &tables, &Numbers::new());
    let mut range = at(vip, 5_000, Some(17));
    range.last_port = 5_999;
    let mut expected = vec![
        (at(ENGINE, 0, None), 0),
        (at(ENGINE, 0, Some(1)), 0),
        (at(ENGINE, 0, Some(6)), 0),
        (at(ENGINE, 0, Some(17)), 0),
        (at(vip, 0, None), 28),
        (at(vip, 0, Some(1)), 28),
        (at(vip, 21, Some(6)), 0),
        (at(vip, 80, Some(6)), 20),
        (range, 28),
    ];
    expected.sort();
    assert_eq!(rooms(&destinations), expected);
}

#[test]
fn answers_come_from_backends_of_services_that_rewrite_destinations() {
    let tables = compile(vec![
        service(
            "web",
            &["203.0.113.10:80/tcp"],
            Mode::TUNNEL,
            "10.0.0.1",
            None,
        ),
        service(
            "files",
            &["203.0.113.10:21/tcp"],
            Mode::Nat,
            "10.0.0.3",
            None,
        ),
        service(
            "mail",
            &["203.0.113.10:25/tcp"],
            Mode::Nat,
            "10.0.0.4",
            Some(2525),
        ),
        service("all", &["203.0.113.11:0/udp"], Mode::Nat, "10.0.0.5", None),
        service(
            "full",
            &["203.0.113.12:80/tcp"],
            Mode::FullNat,
            "10.0.0.6",
            None,
        ),
    ]);
    let mut expected = vec![
        (at("10.0.0.3", 21, Some(6)), 0),
        (at("10.0.0.4", 2_525, Some(6)), 0),
        (at("10.0.0.5", 0, Some(17)), 0),
    ];
    for backend in ["10.0.0.3", "10.0.0.4", "10.0.0.5"] {
        expected.push((at(backend, 0, None), 0));
        expected.push((at(backend, 0, Some(1)), 0));
    }
    expected.sort();
    assert_eq!(rooms(&sources(&tables)), expected);
}
