use super::super::ReplicatorConfig;
use super::world::*;
use crate::replicate::stack::peer::Peer;
use crate::replicate::stack::segment::{Bare, SynOptions};
use core::net::{Ipv4Addr, SocketAddr};
use lockstep_plan::{DropReason, Grouping, Replicate};
use lockstep_wire::TcpFlags;
use smoltcp::socket::tcp::State;
use std::vec::Vec;

fn stranger(number: u32) -> SocketAddr {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 0, 0).to_bits() + 2 + number);
    SocketAddr::new(address.into(), 1_024 + (number % 60_000) as u16)
}

fn ack(from: SocketAddr, sequence: u32, acknowledgment: u32) -> Vec<u8> {
    written(&Bare {
        source: from,
        destination: VIP.parse().unwrap(),
        sequence,
        acknowledgment,
        flags: TcpFlags::ACK,
        window: 500,
        options: SynOptions::default(),
    })
}

#[test]
fn ten_thousand_sources_take_no_more_than_their_share_and_a_real_client_gets_through() {
    let mut world = World::default();
    let half = config().sessions / 2;
    for number in 0..10_000 {
        let packet = syn(stranger(number), number * 3);
        world.receive(&packet);
        if number % 50 == 0 {
            world.step();
        }
        assert!(world.replicator.len() <= half);
    }
    assert_eq!(world.replicator.half_open, half);
    assert_eq!(world.counters().cookies_sent.get(), 10_000 - half as u64);
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    world.exchange(socket, b"let me in", 100);
    assert_eq!(world.counters().cookies_accepted.get(), 1);
    let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    world.exchange(socket, &sent, 5_000);
    // Every SYN was answered, with one packet and the retransmissions of those that wait.
    assert!(world.lost.len() < 10_000 + half * 5, "{}", world.lost.len());
    world.clients[0].get(socket).close();
    world.until(70_000, "everything is given back", |w| {
        w.replicator.is_empty()
    });
    world.assert_whole();
}

#[test]
fn a_client_that_never_acknowledges_is_forgotten() {
    let mut world = World::default();
    let packet = syn(stranger(1), 9);
    world.receive(&packet);
    world.run(5);
    assert_eq!(world.replicator.len(), 1);
    assert_eq!(world.servers[0].accepted, 1);
    world.until(11_000, "forgotten", |w| w.replicator.is_empty());
    world.run(50);
    // SYN-ACKs after 0, 1, 3 and 7 seconds, and no RST to who may never have asked.
    assert_eq!(world.lost.len(), 4);
    assert!(world.lost.iter().all(|p| p[33] == 0x12));
    world.assert_whole();
}

#[test]
fn what_belongs_to_no_session_is_reset_and_no_more_often_than_allowed() {
    let mut world = World::default();
    for number in 0..1_000 {
        let packet = ack(stranger(number), 7, 8);
        world.receive(&packet);
    }
    world.run(2);
    assert_eq!(world.count(DropReason::NoSession), 1_000);
    assert_eq!(world.lost.len(), 2);
    // RFC 9293 section 3.10.7.1: RST with the sequence number of the ACK.
    let reset = etherparse::TcpHeaderSlice::from_slice(&world.lost[0][20..]).unwrap();
    assert!(reset.rst() && !reset.ack());
    assert_eq!(reset.sequence_number(), 8);
    assert!(world.replicator.is_empty());
}

#[test]
fn guessed_cookies_open_nothing() {
    let mut world = World::default();
    for number in 0..100 {
        let packet = syn(stranger(number), number);
        world.receive(&packet);
    }
    assert!(world.counters().cookies_sent.get() > 0);
    let sessions = world.replicator.len();
    let mut dice = Dice(4);
    for number in 0..20_000 {
        let guess = dice.roll(1 << 32) as u32;
        let packet = ack(stranger(5_000 + number), 77, guess);
        world.receive(&packet);
    }
    assert_eq!(world.replicator.len(), sessions);
    assert_eq!(world.counters().cookies_accepted.get(), 0);
}

#[test]
fn a_wrong_checksum_is_dropped() {
    let mut world = World::default();
    let mut packet = syn(stranger(1), 9);
    packet[25] ^= 1;
    world.receive(&packet);
    assert_eq!(world.count(DropReason::BadTransportChecksum), 1);
    assert!(world.replicator.is_empty());
}

#[test]
fn syns_in_a_client_s_name_do_not_fill_its_group() {
    let policy = Replicate {
        group: Grouping::Client,
        ..Replicate::DEFAULT
    };
    let config = ReplicatorConfig {
        sessions: 512,
        connections: 2_048,
        ..config()
    };
    let mut world = World::new(config, policy);
    let victim = stranger(1).ip();
    for port in 10_000..10_100 {
        let packet = syn(SocketAddr::new(victim, port), u32::from(port));
        world.receive(&packet);
        world.run(3);
    }
    assert!(world.replicator.len() < 64, "{}", world.replicator.len());
    world.clients.push(Peer::new(&std::format!("{victim}"), 99));
    let socket = world.clients[1].connect(4_001, VIP.parse().unwrap(), 32_768);
    world.until(200, "open", |w| {
        w.clients[1].state(socket) == State::Established
    });
    world.clients[1].write(socket, b"HAL");
    let mut got = Vec::new();
    world.until(200, "an answer", |w| {
        got.extend(w.clients[1].read(socket));
        got == b"IBM"
    });
    world.clients[1].get(socket).close();
    world.until(70_000, "everything is given back", |w| {
        w.replicator.is_empty()
    });
    world.assert_whole();
}
