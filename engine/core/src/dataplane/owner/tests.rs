//! Every worker says the same of a packet, and each processing one gets its part.

use super::*;
use crate::dataplane::NatConfig;
use crate::fixtures::{VIP, VIP6, compile, replicated, tcp, three, web};
use crate::tables::PortId;
use crate::{DataplaneConfig, Micros, Verdict};
use alloc::sync::Arc;
use alloc::vec::Vec;
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, PacketBuilder};
use lockstep_plan::{Mode, Replicate};

const WORKERS: u8 = 5;

/// Worker 1 and worker 3 only receive and send.
fn workers(tables: &Arc<Tables>) -> Vec<Dataplane> {
    let worker = |me| {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 10,
            flows_v6: 10,
            seed: u64::from(me),
            ..DataplaneConfig::default()
        })
        .with_spread(Spread {
            me,
            processing: [0, 2, 4].into(),
            by: SpreadBy::Flow,
        });
        dataplane.adopt(Arc::clone(tables));
        dataplane
    };
    (0..WORKERS).map(worker).collect()
}

/// The worker that all of them say a frame belongs to.
fn owner(workers: &[Dataplane], frame: &[u8]) -> u8 {
    let mut said = (0..)
        .zip(workers)
        .map(|(me, w)| w.owner(frame).unwrap_or(me));
    let first = said.next().unwrap();
    assert!(said.all(|other| other == first));
    first
}

/// Also where it comes from a router, whose address says nothing of the flow.
#[test]
fn an_icmp_error_belongs_to_the_flow_it_quotes_and_all_fragments_of_a_client_to_one_worker() {
    use etherparse::PacketBuilder;
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let workers = workers(&tables);
    let mut by_fragments = Vec::new();
    for port in 10_000..10_100 {
        let mut sent = Vec::new();
        PacketBuilder::ipv4([203, 0, 113, 10], [198, 51, 100, 7], 64)
            .tcp(80, port, 1, 1024)
            .write(&mut sent, &[0; 100])
            .unwrap();
        let mut error = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 1], [203, 0, 113, 10], 64)
            .icmpv4_raw(3, 4, [0, 0, 5, 0])
            .write(&mut error, &sent)
            .unwrap();
        let flow = tcp(("198.51.100.7", port), VIP, "A");
        assert_eq!(owner(&workers, &error), owner(&workers, &flow));
        // More fragments follow; the checksum is less by as much as the word is more.
        let mut first = flow;
        first[20] = 0x20;
        let sum = u16::from_be_bytes([first[24], first[25]]);
        let dont_fragment = 0x4000;
        let (sum, borrow) = sum.overflowing_add(dont_fragment - 0x2000);
        let sum = sum + u16::from(borrow);
        first[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(lockstep_wire::parse_fragment(&first).is_ok());
        by_fragments.push(owner(&workers, &first));
    }
    by_fragments.dedup();
    assert_eq!(by_fragments.len(), 1);
}

#[test]
fn a_flow_belongs_to_one_processing_worker_and_flows_are_spread() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let workers = workers(&tables);
    for (client, vip) in [("198.51.100.7", VIP), ("2001:db8:1::7", VIP6)] {
        let mut counts = [0; WORKERS as usize];
        for port in 10_000..11_000 {
            let owner_of = |flags| owner(&workers, &tcp((client, port), vip, flags));
            let first = owner_of("S");
            assert_eq!(owner_of("A"), first);
            counts[usize::from(first)] += 1;
        }
        let processing = [counts[0], counts[2], counts[4]];
        assert!(
            processing.iter().all(|n| (270..400).contains(n)),
            "{counts:?}"
        );
        assert_eq!((counts[1], counts[3]), (0, 0));
    }
}

#[test]
fn clients_are_spread_by_their_addresses_too() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let workers = workers(&tables);
    let mut counts = [0; WORKERS as usize];
    for host in 0..=255_u8 {
        let v4 = std::format!("198.51.{host}.7");
        let v6 = std::format!("2001:db8:{host}::7");
        for (client, vip) in [(&v4, VIP), (&v6, VIP6)] {
            let frame = tcp((client.as_str(), 40_000), vip, "S");
            counts[usize::from(owner(&workers, &frame))] += 1;
        }
    }
    let processing = [counts[0], counts[2], counts[4]];
    assert!(
        processing.iter().all(|n| (130..210).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn answers_from_replicas_go_by_port_and_groups_by_client() {
    let mut group = replicated("game", &[VIP], three());
    group.mode = Mode::Replicate(Arc::new(Replicate {
        group: Grouping::Client,
        ..Replicate::DEFAULT
    }));
    let before = Tables::default().with_session_ports(20_000..=20_999);
    let tables = Arc::new(compile(&before, 1, std::vec![group]));
    let workers = workers(&tables);
    let answer = |port: u16| {
        let engine = std::format!("192.0.2.1:{port}/tcp");
        owner(&workers, &tcp(("10.0.0.1", 80), &engine, "A"))
    };
    let ports = [20_000, 20_332, 20_333, 20_665, 20_666, 20_998];
    assert_eq!(ports.map(answer), [0, 0, 2, 2, 4, 4]);
    // What is left over is nobody's; some worker drops it.
    assert!([0, 2, 4].contains(&answer(20_999)));
    let of_client = |port| owner(&workers, &tcp(("198.51.100.7", port), VIP, "S"));
    assert!((1..2_000).all(|port| of_client(port) == of_client(1)));
}

/// A router says that what a server sent to the client was too big.
#[test]
fn an_icmp_error_goes_to_the_worker_with_the_flow_that_it_quotes() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let workers = workers(&tables);
    for port in 10_000..10_100 {
        let mut quote = Vec::new();
        PacketBuilder::ipv4([203, 0, 113, 10], [198, 51, 100, 7], 60)
            .tcp(80, port, 1, 1024)
            .write(&mut quote, &[])
            .unwrap();
        let mut frame = Vec::new();
        let kind = DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu: 1_400,
        };
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 99], [203, 0, 113, 10], 60)
            .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
            .write(&mut frame, &quote)
            .unwrap();
        let flow = tcp(("198.51.100.7", port), VIP, "A");
        assert_eq!(owner(&workers, &frame), owner(&workers, &flow), "{port}");
    }
}

#[test]
fn what_is_no_packet_of_a_flow_stays_where_packets_are_processed() {
    let tables = Arc::new(compile(&Tables::default(), 1, web()));
    let workers = workers(&tables);
    let owners: Vec<_> = workers.iter().map(|w| w.owner(&[0; 60])).collect();
    assert_eq!(owners, [None, Some(0), None, Some(0), None]);
}

#[test]
fn an_engine_of_one_worker_hands_nothing_over() {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 10,
        flows_v6: 10,
        seed: 1,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(compile(&Tables::default(), 1, web())));
    assert_eq!(dataplane.owner(&tcp(("198.51.100.7", 1), VIP, "S")), None);
}

/// The workers of [`workers`], each with its share of 300 ports.
fn rewriting(mode: Mode, by: SpreadBy) -> Vec<Dataplane> {
    let mut service = crate::fixtures::service("web", &[VIP], three());
    service.mode = mode;
    let tables = Arc::new(compile(&Tables::default(), 1, std::vec![service]));
    let worker = |me| {
        let spread = Spread {
            me,
            processing: [0, 2, 4].into(),
            by,
        };
        let first = 2_000 + 100 * spread.share().unwrap_or(0) as u16;
        let config = DataplaneConfig {
            flows_v4: 2_000,
            flows_v6: 10,
            nat: NatConfig {
                pool_v4: std::vec!["192.0.2.1".parse().unwrap()],
                ports: Some(first..=first + 99),
                ..NatConfig::default()
            },
            ..DataplaneConfig::default()
        };
        let mut dataplane = Dataplane::new(&config).with_spread(spread);
        dataplane.adopt(Arc::clone(&tables));
        dataplane
    };
    (0..WORKERS).map(worker).collect()
}

#[test]
fn an_answer_goes_to_the_worker_that_its_flow_is_at() {
    for mode in [Mode::Nat, Mode::FullNat] {
        for by in [SpreadBy::Queue, SpreadBy::Flow] {
            let mut workers = rewriting(mode.clone(), by);
            assert!(workers.iter().all(Dataplane::has_other_owners));
            for port in 10_000..10_200 {
                // It comes to some worker's queue.
                let came = [0, 2, 4][usize::from(port % 3)];
                let syn = tcp(("198.51.100.7", port), VIP, "S");
                let at = workers[came].owner(&syn).unwrap_or(came as u8);
                let mut frames = [syn];
                let mut verdicts = [Verdict::Local];
                let worker = &mut workers[usize::from(at)];
                worker.process(Micros::ZERO, &[PortId(0)], &mut frames, &mut verdicts);
                let Verdict::Forward { length, .. } = verdicts[0] else {
                    panic!("{:?}", verdicts[0]);
                };
                let key = lockstep_wire::parse(&frames[0][..usize::from(length)])
                    .unwrap()
                    .key;
                let end = |address: IpAddr, port| (std::format!("{address}"), port);
                let from = end(key.destination_address(), key.destination_port());
                let to = std::format!("{}:{}/tcp", key.source_address(), key.source_port());
                let answer = tcp((from.0.as_str(), from.1), &to, "SA");
                assert_eq!(owner(&workers, &answer), at, "{mode:?} {by:?} {port}");
            }
        }
    }
}

#[test]
fn tunnels_stay_with_the_queue_they_come_to() {
    let mut workers = rewriting(Mode::TUNNEL, SpreadBy::Queue);
    assert!(!workers.iter().any(Dataplane::has_other_owners));
    workers = rewriting(Mode::FullNat, SpreadBy::Queue);
    let frame = tcp(("198.51.100.7", 1), "203.0.113.99:80/tcp", "S");
    assert!(
        workers
            .iter()
            .all(|w| w.owner(&frame).is_none() && w.owner(&[0; 60]).is_none())
    );
}
