use super::*;
use crate::replicate::stack::peer::{Wiretap, way};
use core::net::Ipv4Addr;
use lockstep_wire::{FlowKey4, protocol};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

fn key(port: u16) -> FlowKey {
    FlowKey4::new(CLIENT, port, VIP, 80, protocol::TCP).into()
}

fn segment(port: u16, flags: TcpFlags, sequence: u32) -> Segment {
    Segment {
        key: key(port),
        sequence,
        acknowledgment: 500,
        flags,
        window: 1_000,
        transport: 20,
        payload: 0,
    }
}

fn remains() -> Remains {
    Remains {
        next: 500,
        expected: 900,
        owed: false,
    }
}

fn seconds(seconds: u64) -> Micros {
    Micros::new(seconds * 1_000_000)
}

#[test]
fn a_fin_that_comes_again_is_acknowledged_and_nothing_else_is_answered() {
    let mut table = TimeWait::new(8, 1);
    let mut out = Wiretap::default();
    table.insert(
        seconds(0),
        key(1),
        remains(),
        way(),
        &mut Wiretap::default(),
    );
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    assert_eq!(
        table.receive(&segment(1, fin, 899), &mut out),
        Late::Settled
    );
    let packet = out.packets.pop_front().unwrap();
    let tcp = etherparse::TcpHeaderSlice::from_slice(&packet[20..]).unwrap();
    assert_eq!(
        (tcp.sequence_number(), tcp.acknowledgment_number()),
        (500, 900)
    );
    assert!(tcp.ack() && !tcp.rst() && !tcp.fin());
    for flags in [TcpFlags::RST, TcpFlags::ACK] {
        let late = table.receive(&segment(1, flags, 900), &mut out);
        assert_eq!(late, Late::Settled);
    }
    assert!(out.packets.is_empty());
    assert_eq!(
        table.receive(&segment(2, fin, 899), &mut out),
        Late::Unknown
    );
}

#[test]
fn a_syn_behind_the_old_connection_opens_a_new_one_and_one_within_does_not() {
    let mut table = TimeWait::new(8, 1);
    let mut out = Wiretap::default();
    table.insert(
        seconds(0),
        key(1),
        remains(),
        way(),
        &mut Wiretap::default(),
    );
    let old = table.receive(&segment(1, TcpFlags::SYN, 900), &mut out);
    assert_eq!(old, Late::Settled);
    assert_eq!(out.packets.len(), 1);
    let new = table.receive(&segment(1, TcpFlags::SYN, 901), &mut out);
    assert_eq!(new, Late::Opens);
    assert!(table.is_empty());
}

#[test]
fn entries_go_after_a_minute_and_the_oldest_first_when_it_is_full() {
    let mut table = TimeWait::new(4, 1);
    for port in 0..6 {
        table.insert(
            seconds(u64::from(port)),
            key(port),
            remains(),
            way(),
            &mut Wiretap::default(),
        );
    }
    assert_eq!(table.len(), 4);
    let mut out = Wiretap::default();
    let ack = |port| segment(port, TcpFlags::ACK, 900);
    assert_eq!(table.receive(&ack(1), &mut out), Late::Unknown);
    assert_eq!(table.receive(&ack(2), &mut out), Late::Settled);
    table.expire(seconds(63));
    assert_eq!(table.receive(&ack(3), &mut out), Late::Unknown);
    assert_eq!(table.receive(&ack(4), &mut out), Late::Settled);
    table.expire(seconds(70));
    assert!(table.is_empty());
}

#[test]
fn a_flow_that_ends_again_and_again_has_one_entry() {
    let mut table = TimeWait::new(4, 1);
    for at in 0..1_000 {
        table.insert(
            seconds(0),
            key(at % 2),
            remains(),
            way(),
            &mut Wiretap::default(),
        );
        assert!(table.len() <= 2);
    }
    table.expire(seconds(60));
    assert!(table.is_empty());
    table.insert(
        seconds(61),
        key(9),
        remains(),
        way(),
        &mut Wiretap::default(),
    );
    assert_eq!(table.len(), 1);
}
