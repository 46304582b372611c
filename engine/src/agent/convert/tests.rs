//! Round trips, and each field that is wrong.

use super::*;
use lockstep_plan::Health;
use lockstep_plan::health::Verdict;
use proptest::prelude::*;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// One that replicates.
fn replicating() -> api::Snapshot {
    let policy = plan::Replicate {
        masks: vec![plan::mask::Mask::Range {
            offset: 0,
            length: 1,
        }],
        ..plan::Replicate::DEFAULT
    };
    let mut message = good();
    message.services[0].mode = api::Mode::Replicate.into();
    message.services[0].replicate = Some(replicate_to_proto(&policy));
    message
}

/// One good service, to be spoiled.
fn good() -> api::Snapshot {
    api::Snapshot {
        epoch: 7,
        services: vec![api::Service {
            name: "web".into(),
            vips: vec![api::Vip {
                address: "203.0.113.10".into(),
                port: 80,
                protocol: api::Protocol::Tcp.into(),
                last_port: 0,
            }],
            mode: api::Mode::Tunnel.into(),
            backends: vec![api::Backend {
                name: "web-1".into(),
                address: "10.0.0.1".into(),
                weight: 100,
                state: api::BackendState::Active.into(),
                ..api::Backend::default()
            }],
            table_size: 65_537,
            idle: Some(api::IdleTimeouts {
                tcp_syn: 60,
                tcp_established: 900,
                tcp_fin: 120,
                udp: 300,
            }),
            ..api::Service::default()
        }],
    }
}

fn errors(message: &api::Snapshot) -> Vec<String> {
    let errors = snapshot_from_proto(message).expect_err("it is no snapshot");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn each_wrong_field_is_named_with_its_service() {
    type Spoil = fn(&mut api::Service);
    let table: [(Spoil, &str); 14] = [
        (
            |s| s.name = "a b".into(),
            "service #1: name: \"a b\" is not 1 to 253 letters, digits, `-`, `_`, `.` or `/`",
        ),
        (|s| s.mode = 0, "service web: mode: is missing"),
        (
            |s| s.mode = 9,
            "service web: mode: 9 is not a value this engine knows; is the daemon of a later \
             version?",
        ),
        (
            |s| s.table_size = 65_536,
            "service web: table_size: 65536 is not a prime from 251 to 655373",
        ),
        (|s| s.idle = None, "service web: idle: is missing"),
        (
            |s| s.vips[0].address = "203.0.113".into(),
            "service web: vips[0].address: \"203.0.113\" is not an IPv4 or IPv6 address",
        ),
        (
            |s| s.vips[0].address = "127.0.0.1".into(),
            "service web: vips[0].address: 127.0.0.1 is not a unicast address that clients can \
             reach",
        ),
        (
            |s| s.vips[0].port = 65_536,
            "service web: vips[0].port: 65536 is not a port (0 to 65535)",
        ),
        (
            |s| s.vips[0].protocol = 0,
            "service web: vips[0].protocol: is missing",
        ),
        (
            |s| s.backends[0].address = "web-1".into(),
            "service web: backends[0].address: \"web-1\" is not an IPv4 or IPv6 address",
        ),
        (
            |s| s.backends[0].weight = 0,
            "service web: backends[0].weight: 0 is not a weight (1 to 10000)",
        ),
        (
            |s| s.backends[0].weight = 65_537,
            "service web: backends[0].weight: 65537 is not a weight (1 to 10000)",
        ),
        (
            |s| s.backends[0].state = 0,
            "service web: backends[0].state: is missing",
        ),
        (
            |s| s.vips.clear(),
            "service web: has no VIP; add one such as \"203.0.113.10:80/tcp\"",
        ),
    ];
    for (spoil, expected) in table {
        let mut message = good();
        spoil(&mut message.services[0]);
        assert_eq!(errors(&message), [expected]);
    }
}

#[test]
fn each_wrong_field_of_a_policy_is_named() {
    type Spoil = fn(&mut api::Service, &mut api::Replicate);
    let table: [(Spoil, &str); 10] = [
        (
            |_, p| p.quorum = 256,
            "service web: replicate.quorum: 256 is not a number of replicas (1 to 255)",
        ),
        (
            |_, p| p.min_sync = 0,
            "service web: replicate.min_sync: 0 is not a number of replicas (1 to 255)",
        ),
        (
            |_, p| p.divergence = 0,
            "service web: replicate.divergence: is missing",
        ),
        (
            |_, p| p.group = 9,
            "service web: replicate.group: 9 is not a value this engine knows; is the daemon of a \
             later version?",
        ),
        (
            |_, p| p.masks[0].mask = None,
            "service web: replicate.masks[0]: is missing",
        ),
        (
            |_, p| p.masks[0].mask = Some(api::mask::Mask::Pattern("Date: ^".into())),
            "service web: replicate.masks[0]: \"Date: ^\": `^`, `$`, `\\b` and their like mean \
             nothing in a stream of bytes: leave them out",
        ),
        (
            |s, _| s.backends[0].port = 65_536,
            "service web: backends[0].port: 65536 is not a port (0 to 65535)",
        ),
        (
            |s, _| {
                s.backends[0].health = Some(api::Health {
                    verdict: 7,
                    rtt_microseconds: None,
                });
            },
            "service web: backends[0].health: 7 is not a value this engine knows; is the daemon of \
             a later version?",
        ),
        (
            |s, _| s.vips[0].protocol = api::Protocol::Udp.into(),
            "service web: VIP 203.0.113.10:80/udp is not TCP, and mode = \"replicate\" replicates \
             TCP only",
        ),
        (
            |_, p| (p.quorum, p.min_sync) = (2, 1),
            "service web: min_sync = 1 is less than the quorum of 2; raise it, or leave it out",
        ),
    ];
    for (spoil, expected) in table {
        let mut message = replicating();
        let service = &mut message.services[0];
        let mut policy = service.replicate.take().expect("a policy");
        spoil(service, &mut policy);
        service.replicate = Some(policy);
        assert_eq!(errors(&message), [expected]);
    }
    let mut message = replicating();
    message.services[0].replicate = None;
    assert_eq!(errors(&message), ["service web: replicate: is missing"]);
}

#[test]
fn all_wrong_fields_of_all_services_are_reported_at_once() {
    let mut message = good();
    let mut second = message.services[0].clone();
    message.services[0].table_size = 1;
    message.services[0].backends[0].weight = 0;
    (second.name, second.mode, second.idle) = (String::new(), 0, None);
    message.services.push(second);
    let found = errors(&message);
    for start in [
        "service web: table_size",
        "service web: backends[0].weight",
        "service #2: name",
        "service #2: mode",
        "service #2: idle",
    ] {
        assert!(
            found.iter().any(|e| e.starts_with(start)),
            "{start} in {found:#?}"
        );
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn a_backend_without_a_name_goes_by_its_address() {
    let mut message = good();
    message.services[0].backends[0].name.clear();
    let snapshot = snapshot_from_proto(&message).expect("a snapshot");
    assert_eq!(snapshot.services()[0].backends[0].name, "10.0.0.1");
}

fn service_strategy(at: usize) -> impl Strategy<Value = Service> {
    let backend = (
        any::<[u8; 2]>(),
        1..=Weight::MAX,
        any::<bool>(),
        "[a-z]{1,8}",
    );
    let backends = prop::collection::vec(backend, 0..6);
    let idle = prop::array::uniform4(1..=IdleTimeouts::MAX);
    let (sizes, v6) = (
        prop::sample::select(vec![251, 65_537, 655_373]),
        any::<bool>(),
    );
    (any::<u16>(), any::<bool>(), backends, idle, sizes, v6).prop_map(
        move |(port, udp, backends, [tcp_syn, tcp_established, tcp_fin, udp_idle], size, v6)| {
            let address = match v6 {
                false => IpAddr::from([203, 0, 113, at as u8 + 1]),
                true => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, at as u16 + 1]),
            };
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let backends = backends.into_iter().enumerate();
            let backends = backends.map(|(n, ([a, b], weight, active, name))| Backend {
                name,
                address: match v6 {
                    true => IpAddr::from([10, a, b, n as u8]),
                    false => IpAddr::from([0xfd00, a.into(), b.into(), 0, 0, 0, 1, n as u16]),
                },
                weight: Weight::new(weight).expect("a weight"),
                state: if active {
                    BackendState::Active
                } else {
                    BackendState::Draining
                },
                port: None,
                health: Health::UNKNOWN,
            });
            Service {
                name: ServiceName::new(&format!("service-{at}")).expect("a name"),
                vips: vec![Vip::new(address, port, protocol).expect("a VIP")],
                mode: Mode::TUNNEL,
                backends: backends.collect(),
                unserved: lockstep_plan::Unserved::Drop,
                table_size: TableSize::new(size).expect("a prime"),
                idle: IdleTimeouts {
                    tcp_syn,
                    tcp_established,
                    tcp_fin,
                    udp: udp_idle,
                },
                scheduler: plan::Scheduler::default(),
                guard: plan::Guard::default(),
            }
        },
    )
}

fn policy_strategy() -> impl Strategy<Value = plan::Replicate> {
    use plan::mask::{Mask, Pattern};
    let mask = prop_oneof![
        any::<(u64, u32)>().prop_map(|(offset, length)| Mask::Range { offset, length }),
        "[a-z]{3,9}[.][*]".prop_map(|p| Mask::Pattern(Pattern::new(&p).expect("a pattern"))),
    ];
    let times = prop::array::uniform9(any::<u64>().prop_map(Duration::from_millis));
    let divergence = prop::sample::select(vec![
        plan::Divergence::Ignore,
        plan::Divergence::Count,
        plan::Divergence::Evict,
        plan::Divergence::Reset,
    ]);
    let group = prop::sample::select(vec![plan::Grouping::Connection, plan::Grouping::Client]);
    let masks = prop::collection::vec(mask, 0..4);
    (
        times,
        any::<(u8, u8, u32, u32, u64, bool, bool)>(),
        divergence,
        group,
        masks,
    )
        .prop_map(
            |(
                times,
                (quorum, more, max_lag, log_memory, log_disk, a, b),
                divergence,
                group,
                masks,
            )| {
                plan::Replicate {
                    commit: NonZeroU8::new(quorum % 4)
                        .map_or(plan::Commit::Primary, plan::Commit::Quorum),
                    min_sync: NonZeroU8::new((quorum % 4).max(more % 4)).unwrap_or(NonZeroU8::MIN),
                    open_timeout: times[0],
                    stall_timeout: times[1],
                    dead_after: times[2],
                    fin_timeout: times[3],
                    orphan_timeout: times[4],
                    max_lag,
                    grace: times[5],
                    lag_timeout: times[6],
                    divergence,
                    masks,
                    group,
                    proxy_protocol: a,
                    rejoin: b,
                    log_memory,
                    log_disk,
                    keepalive: times[7],
                    client_timeout: times[8],
                }
            },
        )
}

fn replicated_strategy() -> impl Strategy<Value = Service> {
    let verdict = prop::sample::select(vec![Verdict::Unknown, Verdict::Up, Verdict::Down]);
    let rtt = any::<Option<u32>>().prop_map(|rtt| rtt.map(|us| Duration::from_micros(us.into())));
    let backends = prop::collection::vec((any::<u16>(), verdict, rtt), 4..6);
    (policy_strategy(), backends).prop_map(|(policy, backends)| Service {
        name: ServiceName::new("replicated").expect("a name"),
        vips: vec![Vip::new([203, 0, 113, 99].into(), 80, Protocol::Tcp).expect("a VIP")],
        mode: Mode::Replicate(Arc::new(policy)),
        backends: backends
            .into_iter()
            .enumerate()
            .map(|(n, (port, verdict, rtt))| Backend {
                name: format!("r{n}"),
                address: IpAddr::from([10, 9, 9, n as u8]),
                weight: Weight::DEFAULT,
                state: BackendState::Active,
                port: NonZeroU16::new(port),
                health: Health { verdict, rtt },
            })
            .collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: plan::Scheduler::default(),
        guard: plan::Guard::default(),
    })
}

fn guard_strategy() -> impl Strategy<Value = plan::Guard> {
    let prefix = (any::<[u8; 16]>(), 0_u8..=128, any::<bool>()).prop_map(|(bytes, length, v4)| {
        let (address, length) = match v4 {
            true => (
                IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
                length % 33,
            ),
            false => (IpAddr::from(bytes), length),
        };
        let address = plan::guard::masked(address, length);
        plan::Prefix::new(address, length).expect("no bits behind it")
    });
    let prefixes = || prop::collection::vec(prefix.clone(), 0..4);
    let source = prop::option::of((any::<NonZeroU32>(), 0_u8..=32, 0_u8..=128));
    let limits = any::<(u32, u32)>();
    (prefixes(), prefixes(), limits, source).prop_map(|(allow, deny, limits, source)| plan::Guard {
        allow,
        deny,
        new_flows: NonZeroU32::new(limits.0),
        packets: NonZeroU32::new(limits.1),
        source: source.map(|(new_flows, prefix_v4, prefix_v6)| plan::SourceRate {
            new_flows,
            prefix_v4,
            prefix_v6,
        }),
    })
}

/// A service in any mode that spreads flows, under any scheduler and any guard.
fn spreading_strategy() -> impl Strategy<Value = Service> {
    let mode = prop_oneof![
        Just(Mode::Nat),
        Just(Mode::FullNat),
        any::<NonZeroU16>().prop_map(|port| Mode::Tunnel(Encapsulation::Gue { port })),
    ];
    let scheduler = prop::sample::select(&plan::Scheduler::ALL[..]);
    let ports = (1_u16.., any::<u16>(), prop::option::of(any::<NonZeroU16>()));
    (mode, scheduler, guard_strategy(), ports).prop_map(
        |(mode, scheduler, guard, (first, more, port))| {
            let address = IpAddr::from([203, 0, 113, 99]);
            let port = port.filter(|_| mode.translates());
            let last = match port {
                Some(_) => first,
                None => first.saturating_add(more),
            };
            let vip = Vip::with_ports(address, first, last, Protocol::Udp).expect("a VIP");
            let backend = Backend {
                name: "x".into(),
                address: IpAddr::from([10, 9, 9, 9]),
                weight: Weight::DEFAULT,
                state: BackendState::Active,
                port,
                health: Health::UNKNOWN,
            };
            Service {
                name: ServiceName::new("spreading").expect("a name"),
                vips: vec![vip],
                mode,
                backends: vec![backend],
                unserved: lockstep_plan::Unserved::Drop,
                table_size: TableSize::DEFAULT,
                idle: IdleTimeouts::DEFAULT,
                scheduler,
                guard,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_snapshot_reads_back_as_it_was_written(
        epoch in any::<u64>(),
        services in (service_strategy(0), service_strategy(1), replicated_strategy(), spreading_strategy()),
    ) {
        let services = vec![services.0, services.1, services.2, services.3];
        let snapshot = Snapshot::new(epoch, services).expect("they stand together");
        prop_assert_eq!(snapshot_from_proto(&snapshot_to_proto(&snapshot)), Ok(snapshot));
    }
}
