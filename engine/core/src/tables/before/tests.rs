//! Two balancers behind a router that hashes: one is lost when the backends change.

use crate::dataplane::Verdict;
use crate::fixtures::{VIP, VIP_UDP, backend, compile, draining, service, steered, tcp, udp};
use crate::tables::{PortId, Tables};
use crate::{BURST, Dataplane, DataplaneConfig, Micros};
use alloc::sync::Arc;
use core::net::IpAddr;
use etherparse::{NetSlice, SlicedPacket};
use lockstep_plan::{Backend, DropReason, Service};
use std::format;
use std::vec;
use std::vec::Vec;

const T0: Micros = Micros::new(1_000_000_000);
const CONNECTIONS: u16 = 2_000;

fn web(backends: &[Backend]) -> Vec<Service> {
    vec![service("web", &[VIP, VIP_UDP], backends.to_vec())]
}

fn backends(last: impl IntoIterator<Item = u8>) -> Vec<Backend> {
    let address = |n| backend(&format!("10.0.0.{n}"));
    last.into_iter().map(address).collect()
}

struct Balancer {
    dataplane: Dataplane,
    epoch: u64,
}

impl Balancer {
    fn new(seed: u64, first: &[Backend]) -> Self {
        let dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 10_000,
            flows_v6: 8,
            seed,
            ..DataplaneConfig::default()
        });
        let mut balancer = Balancer {
            dataplane,
            epoch: 0,
        };
        balancer.apply(first);
        balancer
    }

    fn apply(&mut self, backends: &[Backend]) {
        self.epoch += 1;
        let tables = compile(self.dataplane.tables(), self.epoch, web(backends));
        self.dataplane.adopt(Arc::new(tables));
    }

    fn settle(&mut self) {
        let tables = self.dataplane.tables().settled(|_| true);
        self.dataplane.adopt(Arc::new(tables));
    }

    fn has_before(&self) -> bool {
        self.dataplane.tables().rings()[0].has_before()
    }

    /// The backend a frame is tunnelled to.
    fn goes_to(&mut self, frame: &[u8]) -> IpAddr {
        let mut frames = [steered(20, frame)];
        let mut verdicts = [Verdict::Drop(DropReason::TxFull)];
        self.dataplane
            .process(T0, &[PortId(0); BURST], &mut frames, &mut verdicts);
        assert!(
            matches!(verdicts[0], Verdict::Forward { .. }),
            "{verdicts:?}"
        );
        match SlicedPacket::from_ethernet(&frames[0]).unwrap().net {
            Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr().into(),
            other => panic!("no outer IPv4 header: {other:?}"),
        }
    }

    fn moved(&self) -> u64 {
        let vips = &self.dataplane.counters().vips;
        vips.iter().map(|vip| vip.moved.get()).sum()
    }
}

fn segment(connection: u16, flags: &str) -> Vec<u8> {
    tcp(("198.51.100.7", 10_000 + connection), VIP, flags)
}

/// Two balancers with connections: the router gives the even ones to the first.
fn rack(first: &[Backend]) -> ([Balancer; 2], Vec<IpAddr>) {
    let mut balancers = [Balancer::new(1, first), Balancer::new(2, first)];
    let servers = (0..CONNECTIONS)
        .map(|n| {
            let balancer = &mut balancers[usize::from(n % 2)];
            let server = balancer.goes_to(&segment(n, "S"));
            assert_eq!(balancer.goes_to(&segment(n, "A")), server);
            server
        })
        .collect();
    (balancers, servers)
}

/// The connections whose server is another one on `balancer`, of those whose server stays.
fn lost(balancer: &mut Balancer, servers: &[IpAddr], now: &[Backend]) -> usize {
    let stays = |server: &IpAddr| now.iter().any(|b| b.address == *server);
    let all = (0..CONNECTIONS).zip(servers).filter(|(_, s)| stays(s));
    all.filter(|(n, server)| balancer.goes_to(&segment(*n, "A")) != **server)
        .count()
}

#[test]
fn connections_of_unchanged_backends_survive_a_change_and_the_loss_of_a_balancer_at_once() {
    let before = backends(1..=5);
    // One is drained, one removed, two come.
    let after = [vec![draining("10.0.0.1")], backends(3..=7)].concat();
    let ([_, mut left], servers) = rack(&before);
    left.apply(&after);
    assert_eq!(lost(&mut left, &servers, &after), 0);
    let gone: IpAddr = "10.0.0.2".parse().unwrap();
    let own = servers.iter().skip(1).step_by(2);
    let told = own.filter(|&&server| server == gone).count();
    assert_eq!(
        lost_to(&mut left, &servers, gone),
        0,
        "nothing goes where nothing is"
    );
    assert_eq!(
        left.moved(),
        told as u64,
        "flows of the removed backend, and no others"
    );
}

/// Connections that still go to a server.
fn lost_to(balancer: &mut Balancer, servers: &[IpAddr], gone: IpAddr) -> usize {
    let its = (0..CONNECTIONS).zip(servers).filter(|(_, s)| **s == gone);
    its.filter(|(n, _)| balancer.goes_to(&segment(*n, "A")) == gone)
        .count()
}

#[test]
fn without_the_ring_before_some_would_not() {
    let (before, after) = (backends(1..=5), backends(1..=6));
    let ([_, mut left], servers) = rack(&before);
    left.apply(&after);
    left.settle();
    let lost = lost(&mut left, &servers, &after);
    assert!(lost > usize::from(CONNECTIONS) / 20, "{lost}");
}

#[test]
fn what_begins_a_flow_goes_by_the_ring_in_force() {
    let after = backends(1..=6);
    let mut changed = Balancer::new(1, &backends(1..=5));
    changed.apply(&after);
    let mut fresh = Balancer::new(2, &after);
    for n in 0..CONNECTIONS {
        let syn = segment(n, "S");
        assert_eq!(changed.goes_to(&syn), fresh.goes_to(&syn));
        let datagram = udp(("198.51.100.8", 10_000 + n), VIP_UDP, b"?");
        assert_eq!(changed.goes_to(&datagram), fresh.goes_to(&datagram));
        // Its later packets have an entry.
        assert_eq!(changed.goes_to(&segment(n, "A")), fresh.goes_to(&syn));
    }
}

#[test]
fn changes_in_quick_succession_keep_the_ring_before_the_first() {
    let before = backends(1..=5);
    let ([_, mut left], servers) = rack(&before);
    for last in 6..=9 {
        left.apply(&backends(1..=last));
    }
    assert_eq!(lost(&mut left, &servers, &before), 0);
}

#[test]
fn a_ring_that_did_not_change_has_none_before_and_a_settled_one_neither() {
    let mut balancer = Balancer::new(1, &backends(1..=3));
    assert!(!balancer.has_before(), "it is the first");
    balancer.apply(&backends(1..=3));
    assert!(!balancer.has_before(), "it is the same");
    balancer.apply(&backends(1..=4));
    assert!(balancer.has_before());
    balancer.apply(&backends(1..=4));
    assert!(
        balancer.has_before(),
        "it is kept over a snapshot that changes nothing"
    );
    balancer.settle();
    assert!(!balancer.has_before());
}

#[test]
fn a_service_whose_backends_all_drain_keeps_connections_and_gets_no_new_ones() {
    let before = backends(1..=3);
    let ([_, mut left], servers) = rack(&before);
    let all: Vec<Backend> = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(draining).to_vec();
    left.apply(&all);
    assert_eq!(lost(&mut left, &servers, &all), 0);
    let tables: &Tables = left.dataplane.tables();
    assert!(tables.rings()[0].select(1 << 40).is_none());
}
