use super::super::{ReplicatorConfig, SwitchoverError};
use super::world::*;
use crate::fixtures::{addresses, backend, via_router};
use crate::replicate::event::{EndCause, EventKind, SessionId};
use crate::replicate::session::ReplicaState;
use crate::replicate::stack::peer::{self, Peer};
use crate::replicate::stack::segment::{Bare, SynOptions};
use crate::tables::{PortId, Tables};
use crate::{Spread, SpreadBy};
use core::net::SocketAddr;
use core::num::NonZeroU16;
use lockstep_plan::{Backend, Grouping, Replicate, Snapshot};
use lockstep_wire::TcpFlags;
use smoltcp::socket::tcp::State;
use std::string::ToString;
use std::vec::Vec;

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n ^ n >> 8) as u8).collect()
}

#[test]
fn one_client_is_answered_by_three_replicas_as_by_one() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    assert_eq!(world.replicator.len(), 1);
    world.exchange(socket, b"hello", 50);
    world.exchange(socket, &bytes(300_000), 5_000);
    for server in &world.servers {
        assert_eq!(server.accepted, 1);
    }
    world.clients[0].get(socket).close();
    world.until(100, "closed", |w| w.state(socket) == State::TimeWait);
    world.until(2_000, "gone", |w| w.replicator.is_empty());
    assert!(world.events.contains(&EventKind::Ended(EndCause::Closed)));
    assert_eq!(world.drops, Default::default());
    world.assert_whole();
}

#[test]
fn the_wire_may_lose_repeat_and_reorder() {
    for seed in 0..6 {
        let policy = Replicate {
            dead_after: core::time::Duration::from_secs(60),
            stall_timeout: core::time::Duration::from_secs(60),
            open_timeout: core::time::Duration::from_secs(60),
            ..Replicate::DEFAULT
        };
        let mut world = World::new(config(), policy);
        world.dice = Dice(seed);
        world.weather = Weather {
            lost: 20,
            repeated: 20,
            delayed: 100,
        };
        let socket = world.connect(4_000);
        world.until(60_000, "open", |w| w.is_open(socket));
        world.exchange(socket, &bytes(100_000), 300_000);
        world.clients[0].get(socket).close();
        world.weather = Weather::default();
        world.until(200_000, "gone", |w| w.replicator.is_empty());
        assert!(
            world.events.contains(&EventKind::Ended(EndCause::Closed)),
            "{:?}",
            world.events
        );
        world.assert_whole();
    }
}

#[test]
fn a_replica_that_dies_is_replaced_in_the_middle_of_the_answer() {
    for reset in [true, false] {
        let mut world = World::default();
        let socket = world.connect(4_000);
        world.until(50, "open", |w| w.is_open(socket));
        world.exchange(socket, b"hello", 50);
        let details = world.details(1);
        let primary = usize::from(details.report.primary.unwrap());
        let sent = bytes(400_000);
        let expected: Vec<u8> = sent.iter().map(|b| b.wrapping_add(1)).collect();
        let (mut written, mut got) = (0, Vec::new());
        world.until(20_000, "all bytes are answered", |world| {
            written += world.clients[0].write(socket, &sent[written..]);
            got.extend(world.clients[0].read(socket));
            if got.len() > 100_000 && !world.servers[primary].dead {
                if reset {
                    world.reset(primary);
                }
                world.servers[primary].dead = true;
            }
            got.len() == sent.len()
        });
        assert!(got == expected);
        let switched = |e: &EventKind| matches!(e, EventKind::Switched { .. });
        assert_eq!(world.events.iter().filter(|e| switched(e)).count(), 1);
        assert_ne!(world.details(1).report.primary, Some(primary as u16));
    }
}

#[test]
fn an_operator_switches_over() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    let details = world.details(1);
    let primary = usize::from(details.report.primary.unwrap());
    let to = (primary + 1) % 3;
    let id = details.report.id;
    let address = REPLICAS[to].parse().unwrap();
    let World {
        replicator,
        tables,
        now,
        ..
    } = &mut world;
    assert_eq!(replicator.switch_to(*now, tables, id, address), Ok(()));
    world.exchange(socket, b"by another", 50);
    let report = world.details(1).report;
    assert_eq!(report.primary, Some(to as u16));
    assert!(report.replicas[to].primary);
    let World {
        replicator,
        tables,
        now,
        ..
    } = &mut world;
    let nobody = "10.9.9.9".parse().unwrap();
    let error = replicator.switch_to(*now, tables, id, nobody);
    assert_eq!(
        error.unwrap_err().to_string(),
        "session 0-1 has no replica 10.9.9.9; see `lockstep session 0-1`"
    );
    let gone = SessionId {
        worker: 0,
        number: 99,
    };
    let error = replicator.switch_to(*now, tables, gone, address);
    assert_eq!(error, Err(SwitchoverError::NoSuchSession(gone)));
}

#[test]
fn sessions_are_listed_page_by_page() {
    let mut world = World::default();
    for port in 4_000..4_010 {
        let socket = world.connect(port);
        world.until(50, "open", |w| w.is_open(socket));
        world.exchange(socket, b"12345", 50);
    }
    let mut cursor = Some(0);
    let mut seen = Vec::new();
    while let Some(from) = cursor {
        let mut page = Vec::with_capacity(4);
        cursor = world.replicator.sessions(from, &mut page);
        assert!(page.len() <= 4);
        seen.extend(page);
    }
    let mut ports: Vec<u16> = seen.iter().map(|s| s.client.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, (4_000..4_010).collect::<Vec<u16>>());
    for details in seen {
        assert_eq!(details.destination, VIP.parse().unwrap());
        assert_eq!(details.report.input, 5);
        assert_eq!(details.report.output, 5);
        assert_eq!(details.report.replicas.len(), 3);
        assert_eq!(world.replicator.session(details.report.id), Some(details));
    }
}

#[test]
fn a_service_that_goes_takes_its_sessions_along_and_a_new_replica_joins() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.exchange(socket, b"before", 50);
    // Another replica in the first one's place.
    world.servers.push(Server::new("10.0.0.4", 9));
    let backends = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(backend).to_vec();
    world.tables = tables(&world.tables, 2, Replicate::DEFAULT, backends);
    world.replicator.adopt();
    world.until(100, "joined", |w| {
        w.events.contains(&EventKind::Joined { replica: 3 })
    });
    world.exchange(socket, b"after", 50);
    assert_eq!(world.servers[3].accepted, 1);
    assert_eq!(world.details(1).report.replicas[3].produced, 11);
    // No service at all.
    let snapshot = Snapshot::new(3, Vec::new()).unwrap();
    world.tables = Tables::compile(&world.tables, &snapshot, addresses(), via_router).unwrap();
    world.replicator.adopt();
    world.until(100, "reset", |w| w.state(socket) == State::Closed);
    assert!(world.events.contains(&EventKind::Ended(EndCause::Removed)));
    world.assert_whole();
}

#[test]
fn a_client_behind_a_vlan_or_over_ipv6_is_answered_the_same_way() {
    let mut world = World::default();
    world.clients.push(Peer::new("2001:db8:1::7", 8));
    let vip = "[2001:db8::10]:80".parse().unwrap();
    let socket = world.clients[1].connect(4_000, vip, 30_000);
    world.until(50, "open", |w| {
        w.clients[1].state(socket) == State::Established
    });
    world.clients[1].write(socket, b"six");
    world.until(50, "answered", |w| w.clients[1].read(socket) == b"tjy");

    let from = "198.51.100.9:1234".parse().unwrap();
    let packet = syn(from, 1);
    let mut frame = peer::frame(&packet);
    frame.splice(12..12, [0x81, 0x00, 0xa0, 0x07]);
    let World {
        replicator,
        tables,
        out,
        now,
        ..
    } = &mut world;
    let received = replicator.receive(*now, tables, PortId(0), &mut frame, out);
    assert_eq!(received, Ok(()));
    world.until(50, "answered", |w| !w.lost.is_empty());
    let link = world.out.tagged.unwrap();
    assert_eq!(link.vlan, Some(7));
    assert_eq!(
        (link.destination, link.source),
        (peer::PEER_MAC, peer::OUR_MAC)
    );
}

#[test]
fn replicas_may_be_reached_over_ipv6_and_at_other_ports() {
    let mut world = World::default();
    let hosts = ["2001:db8:2::1", "2001:db8:2::2"];
    world.servers = (0..).zip(hosts).map(|(n, h)| Server::new(h, n)).collect();
    let replicas = hosts.map(|host| Backend {
        port: NonZeroU16::new(Server::OTHER_PORT),
        ..backend(host)
    });
    world.tables = tables(&world.tables, 2, Replicate::DEFAULT, replicas.to_vec());
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.exchange(socket, &bytes(100_000), 2_000);
    assert!(world.servers.iter().all(|s| s.accepted == 1));
    world.clients[0].get(socket).close();
    world.until(5_000, "gone", |w| w.replicator.is_empty());
    world.assert_whole();
}

#[test]
fn ports_of_a_client_can_be_used_again_at_once() {
    let mut world = World::default();
    for _ in 0..20 {
        let socket = world.connect(4_000);
        world.until(3_000, "open", |w| w.is_open(socket));
        world.exchange(socket, b"again", 50);
        world.clients[0].get(socket).close();
        world.until(100, "closed", |w| w.state(socket) == State::TimeWait);
        world.clients[0].remove(socket);
        world.until(2_000, "gone", |w| w.replicator.is_empty());
    }
    world.assert_whole();
}

#[test]
fn a_last_acknowledgment_that_is_lost_is_sent_again() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    // The client closes, and the answers to the replicas' FINs are lost.
    world.clients[0].get(socket).close();
    world.until(100, "closed", |w| {
        let served = w.replicator.sessions.iter().flatten();
        let mut legs = served.flat_map(|s| s.legs.iter().flatten());
        legs.any(|leg| leg.remains().is_some()) || !w.replicator.time_wait.is_empty()
    });
    world.cut();
    world.run(100);
    assert!(world.servers.iter().any(|s| !s.talks.is_empty()));
    world.weather.lost = 0;
    world.until(5_000, "all replicas are done", |w| {
        w.servers.iter().all(|s| s.talks.is_empty())
    });
    world.until(5_000, "gone", |w| w.replicator.is_empty());
    assert_eq!(world.replicator.time_wait.len(), 3);
    world.assert_whole();
}

#[test]
fn each_replica_is_told_the_clients_address_where_it_asks() {
    let policy = Replicate {
        proxy_protocol: true,
        ..Replicate::DEFAULT
    };
    let mut world = World::new(config(), policy);
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.clients[0].write(socket, b"x");
    // The server answers each byte, those of the header too.
    let mut answer = Vec::new();
    world.until(50, "answered", |w| {
        answer.extend(w.clients[0].read(socket));
        answer.len() == 29
    });
    let got: Vec<u8> = answer.iter().map(|b| b.wrapping_sub(1)).collect();
    assert_eq!(got[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(got[12..16], [0x21, 0x11, 0, 12]);
    assert_eq!(got[16..20], [198, 51, 100, 7]);
    assert_eq!(got[28], b'x');
}

#[test]
fn connections_of_one_client_are_a_group_and_an_evicted_replica_leaves_all_of_them() {
    let policy = Replicate {
        group: Grouping::Client,
        rejoin: false,
        ..Replicate::DEFAULT
    };
    let mut world = World::new(config(), policy);
    let sockets = [4_000, 4_001, 4_002].map(|port| {
        let socket = world.connect(port);
        world.until(50, "open", |w| w.is_open(socket));
        socket
    });
    assert_eq!(world.replicator.groups.len(), 1);
    for socket in sockets {
        world.exchange(socket, &bytes(50_000), 2_000);
    }
    world.reset(1);
    // It may have meant that connection only: time tells that the others go on with it.
    world.until(1_200, "evicted everywhere", |w| {
        (1..=3).all(|number| {
            let replica = w.details(number).report.replicas[1];
            matches!(replica.state, ReplicaState::Evicted(_))
        })
    });
    for socket in sockets {
        world.exchange(socket, &bytes(50_000), 2_000);
        world.clients[0].get(socket).close();
    }
    world.until(5_000, "gone", |w| w.replicator.is_empty());
    world.assert_whole();
}

#[test]
fn packets_for_other_workers_are_told_by_port_and_by_client() {
    let config = ReplicatorConfig {
        spread: Spread {
            me: 1,
            processing: [0, 1, 2].into(),
            by: SpreadBy::Queue,
        },
        ports: 20_333..=20_665,
        ..config()
    };
    let policy = Replicate {
        group: Grouping::Client,
        ..Replicate::DEFAULT
    };
    let world = World::new(config, policy);
    let owner = |packet: &[u8]| world.replicator.owner(&world.tables, &peer::frame(packet));
    let reply = |port: u16| {
        let engine = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
        written(&Bare {
            source: "10.0.0.1:80".parse().unwrap(),
            destination: engine,
            sequence: 1,
            acknowledgment: 1,
            flags: TcpFlags::ACK,
            window: 1,
            options: SynOptions::default(),
        })
    };
    let owners = [
        20_000, 20_332, 20_333, 20_665, 20_666, 20_998, 20_999, 21_000,
    ];
    let owners = owners.map(|port| owner(&reply(port)));
    let expected = [Some(0), Some(0), None, None, Some(2), Some(2), None, None];
    assert_eq!(owners, expected);
    // Every connection of a client is at one worker, and clients are spread.
    let mut counts = [0; 3];
    for host in 1..=200u8 {
        let at = |port| owner(&syn(SocketAddr::new([10, 1, 1, host].into(), port), 1));
        assert_eq!(at(1_000), at(2_000));
        counts[usize::from(at(1_000).unwrap_or(1))] += 1;
    }
    assert!(counts.iter().all(|&n| n > 40), "{counts:?}");
}

#[test]
fn who_knows_the_addresses_of_a_client_does_not_get_its_answers() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.exchange(socket, b"mine", 50);
    let way = |w: &World| w.replicator.sessions.iter().flatten().next().map(|s| s.way);
    let before = way(&world);
    let by_another = |world: &mut World, packet: &[u8]| {
        let mut frame = peer::frame(packet);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        let (now, tables) = (world.now, &world.tables);
        let out = &mut world.out;
        let received = world
            .replicator
            .receive(now, tables, PortId(0), &mut frame, out);
        assert!(received.is_ok());
    };
    for step in 0..64u32 {
        let forged = written(&Bare {
            source: "198.51.100.7:4000".parse().unwrap(),
            destination: VIP.parse().unwrap(),
            sequence: step << 26,
            acknowledgment: 77,
            flags: TcpFlags::ACK,
            window: 500,
            options: SynOptions::default(),
        });
        by_another(&mut world, &forged);
    }
    assert_eq!(way(&world), before);
    // The client itself may come by another router.
    world.clients[0].write(socket, b"moved");
    let now = world.now;
    for packet in world.clients[0].poll(now) {
        by_another(&mut world, &packet);
    }
    let after = way(&world).unwrap();
    assert_eq!(after.link.destination, [2, 0, 0, 0, 0, 9]);
}
