use super::super::ReplicatorConfig;
use super::world::*;
use crate::replicate::event::{EndCause, EventKind};
use lockstep_plan::{DropReason, Replicate};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use std::vec::Vec;

#[test]
fn when_all_sessions_are_taken_the_next_client_waits_for_one() {
    let config = ReplicatorConfig {
        sessions: 4,
        ..config()
    };
    let mut world = World::new(config, Replicate::DEFAULT);
    let mut sockets: Vec<SocketHandle> = Vec::new();
    for port in 4_000..4_004 {
        let socket = world.connect(port);
        world.until(50, "open", |w| w.is_open(socket));
        sockets.push(socket);
    }
    let late = world.connect(4_010);
    world.run(20);
    assert!(!world.is_open(late));
    assert_eq!(world.count(DropReason::SessionsFull), 1);
    world.clients[0].get(sockets[0]).close();
    // It sends its SYN again after a second.
    world.until(2_000, "open", |w| w.is_open(late));
    world.exchange(sockets[3], b"undisturbed", 50);
    world.exchange(late, b"in turn", 50);
}

#[test]
fn without_ports_sessions_have_fewer_replicas_or_none() {
    let config = ReplicatorConfig {
        ports: 20_000..=20_003,
        ..config()
    };
    let mut world = World::new(config, Replicate::DEFAULT);
    let first = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(first));
    let second = world.connect(4_001);
    world.until(50, "open", |w| w.is_open(second));
    assert_eq!(world.counters().unconnected.get(), 2);
    world.exchange(second, b"by one replica", 50);
    let third = world.connect(4_002);
    world.run(20);
    assert!(!world.is_open(third));
    assert_eq!(world.count(DropReason::ConnectionsFull), 1);
    world.clients[0].get(first).close();
    world.until(5_000, "open", |w| w.is_open(third));
    for socket in [second, third] {
        world.clients[0].get(socket).close();
    }
    world.until(5_000, "gone", |w| w.replicator.is_empty());
    world.assert_whole();
}

#[test]
fn sessions_that_no_replica_reads_leave_memory_to_the_others() {
    let config = ReplicatorConfig {
        log_memory: 1 << 20,
        ..config()
    };
    let mut world = World::new(config, Replicate::DEFAULT);
    for server in &mut world.servers {
        server.deaf = 16;
    }
    let mut unread: Vec<SocketHandle> = Vec::new();
    for port in 4_000..4_016 {
        let socket = world.connect(port);
        world.until(100, "open", |w| w.is_open(socket));
        world.run(5);
        unread.push(socket);
    }
    for _ in 0..2_000 {
        for &socket in &unread {
            world.clients[0].write(socket, &[7; 32_768]);
        }
        world.step();
    }
    let pool = &world.replicator.shared.pool;
    assert!(pool.is_low() && pool.free() > 0, "{}", pool.free());
    let socket = world.connect(5_000);
    world.until(100, "open", |w| w.is_open(socket));
    let sent: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
    world.exchange(socket, &sent, 2_000);
}

#[test]
fn everything_is_given_back_after_ten_thousand_sessions() {
    let mut world = World::default();
    let (mut begun, mut done) = (0u32, 0);
    let mut running: Vec<(SocketHandle, u32)> = Vec::new();
    for _ in 0..200_000 {
        while running.len() < 40 && begun < 10_000 {
            let socket = world.connect(1_024 + (begun % 60_000) as u16);
            running.push((socket, begun));
            begun += 1;
        }
        world.step();
        world.events.clear();
        running.retain(|&(socket, number)| {
            match (world.state(socket), number % 4) {
                (State::Established, 0) => world.clients[0].get(socket).abort(),
                (State::Established, 1) => world.clients[0].get(socket).close(),
                (State::Established, _) => {
                    if world.clients[0].get(socket).can_recv() {
                        world.clients[0].get(socket).close();
                    } else if world.clients[0].get(socket).send_queue() == 0 {
                        world.clients[0].write(socket, b"one line\n");
                    }
                }
                (State::Closed | State::TimeWait, _) => {
                    // An RST is still to be sent, or the last ACK was.
                    if world.clients[0].get(socket).remote_endpoint().is_none()
                        || world.state(socket) == State::TimeWait
                    {
                        world.clients[0].remove(socket);
                        done += 1;
                        return false;
                    }
                }
                (_, _) => {}
            }
            true
        });
        if done == 10_000 {
            break;
        }
    }
    assert_eq!((begun, done), (10_000, 10_000));
    world.until(20_000, "gone", |w| w.replicator.is_empty());
    world.assert_whole();
    // Some came by a cookie, and were gone before there was an answer.
    let counters = world.counters();
    assert!(counters.cookies_accepted.get() > 0);
    assert_eq!(counters.opened.get() + counters.refused.get(), 10_000);
    assert_eq!(counters.opened.get(), counters.ended.get());
}

#[test]
fn carrying_packets_takes_no_memory() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.out.spare = (0..4_096).map(|_| Vec::with_capacity(2_048)).collect();
    world.out.packets.reserve(4_096);
    let sent: Vec<u8> = (0..400_000u32).map(|n| (n * 3) as u8).collect();
    // The log and the chain have their sizes after a while.
    world.exchange(socket, &sent, 5_000);
    world.allocations = 0;
    world.received = 0;
    world.exchange(socket, &sent, 5_000);
    assert!(world.received > 1_000);
    assert_eq!(world.allocations, 0, "{} packets", world.received);
    assert!(!world.events.contains(&EventKind::Ended(EndCause::Closed)));
}
