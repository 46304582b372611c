//! Guards in the burst loop: new flows and known ones, rates over tables' lives, what is counted.

use crate::dataplane::Verdict;
use crate::fixtures::{
    VIP, VIP_UDP, VIP6, addresses, replicated, service, steered, tcp, three, udp,
};
use crate::tables::{NextHop, PortId, Tables, VipRef};
use crate::{BURST, Dataplane, DataplaneConfig, Micros};
use alloc::sync::Arc;
use core::num::NonZeroU32;
use lockstep_plan::{DropReason, Guard, Service, Snapshot, SourceRate};
use std::format;
use std::vec;
use std::vec::Vec;

const T0: Micros = Micros::new(1_000_000_000);
const SECOND: u64 = 1_000_000;

fn guard(allow: &[&str], deny: &[&str]) -> Guard {
    let prefixes = |list: &[&str]| list.iter().map(|p| p.parse().unwrap()).collect();
    Guard {
        allow: prefixes(allow),
        deny: prefixes(deny),
        ..Guard::default()
    }
}

fn rates(new_flows: u32, packets: u32) -> Guard {
    Guard {
        new_flows: NonZeroU32::new(new_flows),
        packets: NonZeroU32::new(packets),
        ..Guard::default()
    }
}

fn source_rate(new_flows: u32) -> Guard {
    Guard {
        source: Some(SourceRate {
            new_flows: NonZeroU32::new(new_flows).unwrap(),
            prefix_v4: 24,
            prefix_v6: 56,
        }),
        ..Guard::default()
    }
}

fn web(guard: Guard) -> Vec<Service> {
    vec![Service {
        guard,
        ..service("web", &[VIP, VIP6, VIP_UDP], three())
    }]
}

/// A dataplane and the number of its tables' epoch.
struct Engine(Dataplane, u64);

impl Engine {
    fn new(services: Vec<Service>) -> Self {
        Self::with_workers(services, 1)
    }

    fn with_workers(services: Vec<Service>, workers: u32) -> Self {
        let config = DataplaneConfig {
            flows_v4: 10_000,
            flows_v6: 1_000,
            seed: 42,
            ..DataplaneConfig::default()
        };
        let mut engine = Engine(Dataplane::new(&config), 0);
        let blank = Tables::default().with_workers(NonZeroU32::new(workers).unwrap());
        engine.0.adopt(Arc::new(blank));
        engine.apply(services);
        engine
    }

    fn apply(&mut self, services: Vec<Service>) {
        self.1 += 1;
        let snapshot = Snapshot::new(self.1, services).unwrap();
        let way = |_| NextHop::Via(crate::fixtures::route());
        let tables = Tables::compile(self.0.tables(), &snapshot, addresses(), way).unwrap();
        self.0.adopt(Arc::new(tables));
    }

    fn takes(&mut self, now: Micros, frame: &[u8]) -> Result<(), DropReason> {
        let mut frames = [steered(20, frame)];
        let mut verdicts = [Verdict::Drop(DropReason::TxFull)];
        let ports = [PortId(0); BURST];
        self.0.process(now, &ports, &mut frames, &mut verdicts);
        match verdicts[0] {
            Verdict::Forward { .. } | Verdict::Local => Ok(()),
            Verdict::Drop(reason) => Err(reason),
        }
    }

    /// How many of a second's evenly spaced SYNs of different flows from a prefix go on.
    fn syns(&mut self, second: u64, prefix: &str, count: u16) -> usize {
        let frame = |n: u16| tcp((&format!("{prefix}{}", n % 250), 1_000 + n), VIP, "S");
        (0..count)
            .filter(|&n| {
                let offset = second * SECOND + u64::from(n) * SECOND / u64::from(count);
                self.takes(Micros::new(T0.get() + offset), &frame(n))
                    .is_ok()
            })
            .count()
    }

    fn vip(&self) -> VipRef {
        self.0
            .tables()
            .vip("203.0.113.10".parse().unwrap(), 80, 6)
            .unwrap()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let vip = &self.0.counters().vips[self.vip().slot()];
        vip.drops[reason as usize].get()
    }
}

#[test]
fn who_is_denied_gets_no_new_flow_and_is_counted_for_the_vip() {
    let mut engine = Engine::new(web(guard(&[], &["198.51.100.0/25", "2001:db8:bad::/48"])));
    let rows = [
        ("198.51.100.127", VIP, Err(DropReason::Denied)),
        ("198.51.100.128", VIP, Ok(())),
        ("2001:db8:bad::1", VIP6, Err(DropReason::Denied)),
        ("2001:db8:1::1", VIP6, Ok(())),
    ];
    for (client, vip, expected) in rows {
        assert_eq!(
            engine.takes(T0, &tcp((client, 1), vip, "S")),
            expected,
            "{client}"
        );
    }
    let datagram = udp(("198.51.100.1", 53), VIP_UDP, b"?");
    assert_eq!(engine.takes(T0, &datagram), Err(DropReason::Denied));
    assert_eq!(
        engine.dropped(DropReason::Denied),
        1,
        "of the IPv4 VIP for TCP"
    );
    assert_eq!(engine.0.flows_v4().len(), 1);
}

#[test]
fn only_who_is_allowed_is_served() {
    let mut engine = Engine::new(web(guard(&["198.51.100.0/24"], &[])));
    assert_eq!(
        engine.takes(T0, &tcp(("198.51.100.1", 1), VIP, "S")),
        Ok(())
    );
    for (client, vip) in [("192.0.2.1", VIP), ("2001:db8::1", VIP6)] {
        let frame = tcp((client, 1), vip, "S");
        assert_eq!(
            engine.takes(T0, &frame),
            Err(DropReason::Denied),
            "{client}"
        );
    }
}

#[test]
fn a_list_that_comes_later_stops_flows_that_are_known_and_a_list_that_goes_lets_them_on() {
    let mut engine = Engine::new(web(Guard::default()));
    let (syn, data) = (
        tcp(("198.51.100.1", 1), VIP, "S"),
        tcp(("198.51.100.1", 1), VIP, "A"),
    );
    assert_eq!(engine.takes(T0, &syn), Ok(()));
    engine.apply(web(guard(&[], &["198.51.100.1/32"])));
    assert_eq!(engine.takes(T0, &data), Err(DropReason::Denied));
    engine.apply(web(Guard::default()));
    assert_eq!(engine.takes(T0, &data), Ok(()));
    assert_eq!(engine.0.flows_v4().len(), 1);
}

#[test]
fn sessions_of_replicated_services_are_guarded_too() {
    let mut engine = Engine::new(vec![Service {
        guard: guard(&[], &["198.51.100.1/32"]),
        ..replicated("web", &[VIP], three())
    }]);
    assert_eq!(
        engine.takes(T0, &tcp(("198.51.100.2", 1), VIP, "S")),
        Ok(())
    );
    let denied = tcp(("198.51.100.1", 1), VIP, "A");
    assert_eq!(engine.takes(T0, &denied), Err(DropReason::Denied));
}

#[test]
fn new_flows_are_limited_and_packets_of_known_ones_are_not() {
    let mut engine = Engine::new(web(rates(10, 0)));
    assert_eq!(
        engine.syns(0, "198.51.100.", 100),
        19,
        "a burst and a second"
    );
    assert_eq!(engine.syns(1, "198.51.101.", 100), 10);
    assert_eq!(engine.dropped(DropReason::RateLimited), 171);
    let data = tcp(("198.51.100.0", 1_000), VIP, "A");
    for _ in 0..1_000 {
        assert_eq!(engine.takes(T0, &data), Ok(()));
    }
}

#[test]
fn connections_of_a_balancer_that_died_are_none_of_the_new_flows() {
    let mut engine = Engine::new(web(rates(1, 0)));
    for port in 1..100 {
        let data = tcp(("198.51.100.1", port), VIP, "A");
        assert_eq!(engine.takes(T0, &data), Ok(()), "{port}");
    }
    assert_eq!(engine.syns(0, "198.51.101.", 10), 1);
}

#[test]
fn packets_are_limited_over_all_vips_of_a_service() {
    let mut engine = Engine::new(web(rates(0, 100)));
    let (a, b) = (
        tcp(("198.51.100.1", 1), VIP, "A"),
        tcp(("2001:db8::1", 1), VIP6, "A"),
    );
    let through = (0..1_000)
        .flat_map(|_| [&a, &b])
        .filter(|frame| engine.takes(T0, frame).is_ok())
        .count();
    assert_eq!(through, 100);
}

#[test]
fn each_worker_lets_its_part_of_a_rate_through() {
    let mut engine = Engine::with_workers(web(rates(40, 0)), 4);
    assert_eq!(engine.syns(0, "198.51.100.", 1_000), 19);
    assert_eq!(engine.syns(1, "198.51.101.", 1_000), 10);
}

#[test]
fn rates_go_on_over_new_tables_and_begin_anew_with_a_new_owner() {
    let mut engine = Engine::new(web(rates(10, 0)));
    let spend = |engine: &mut Engine, prefix| {
        let syn = |n| tcp((&format!("{prefix}{n}"), 7), VIP, "S");
        (0..50)
            .filter(|&n| engine.takes(T0, &syn(n)).is_ok())
            .count()
    };
    assert_eq!(spend(&mut engine, "198.51.100."), 10);
    // Another epoch, another backend, VIPs in another order, and the first of them gone.
    let mut services = web(rates(10, 0));
    services[0].vips.reverse();
    services[0].backends.pop();
    engine.apply(services.clone());
    assert_eq!(spend(&mut engine, "198.51.101."), 0);
    services[0].vips.retain(|vip| *vip != VIP6.parse().unwrap());
    engine.apply(services);
    assert_eq!(spend(&mut engine, "198.51.102."), 0);

    engine.apply(vec![Service {
        guard: rates(10, 0),
        ..service("other", &[VIP], three())
    }]);
    assert_eq!(spend(&mut engine, "198.51.103."), 10);
}

#[test]
fn a_source_prefix_is_limited_and_the_others_are_not() {
    let mut engine = Engine::new(web(source_rate(5)));
    assert_eq!(engine.syns(0, "198.51.100.", 200), 9);
    assert_eq!(engine.syns(0, "198.51.101.", 5), 5, "another /24");
    assert_eq!(engine.dropped(DropReason::SourceRateLimited), 191);
    let v6 = |n: u16| tcp((&format!("2001:db8:0:{n:x}::1"), 1), VIP6, "S");
    let through = (0..0x200)
        .filter(|&n| engine.takes(T0, &v6(n)).is_ok())
        .count();
    assert_eq!(through, 10, "two prefixes of 56 bits");
}

#[test]
fn what_a_source_has_too_much_of_is_not_taken_from_the_service() {
    let mut engine = Engine::new(web(Guard {
        new_flows: NonZeroU32::new(20),
        ..source_rate(5)
    }));
    // One source tries 1,000 times, and 15 others once each.
    assert_eq!(engine.syns(0, "198.51.100.", 1_000), 9);
    let others = (0..15).map(|n| tcp((&format!("203.0.{n}.1"), 1), VIP, "S"));
    let end = Micros::new(T0.get() + SECOND);
    let through = others.filter(|syn| engine.takes(end, syn).is_ok()).count();
    assert_eq!(through, 15);
    assert_eq!(engine.dropped(DropReason::RateLimited), 0);
}
