//! What is written in TOML reads back, and what is damaged is refused.

use super::*;

/// A service in TOML, with every key written out.
fn render(service: &Service, spread: &Spread) -> String {
    let vips: Vec<String> = service.vips.iter().map(|v| format!("\"{v}\"")).collect();
    let backend = |b: &Backend| {
        let weight = match b.state {
            BackendState::Active => b.weight.get(),
            BackendState::Draining => 0,
        };
        let (address, name) = (b.address, &b.name);
        let port = b.port.map_or(String::new(), |p| format!(", port = {p}"));
        let priority = spread.priority(b.id()).get();
        format!(
            "{{ address = \"{address}\", name = \"{name}\", weight = {weight}, \
             priority = {priority}{port} }}"
        )
    };
    let backends: Vec<String> = service.backends.iter().map(backend).collect();
    let IdleTimeouts {
        tcp_syn,
        tcp_established,
        tcp_fin,
        udp,
    } = service.idle;
    let settings: String = settings(service, spread)
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} = {}\n", value?)))
        .collect();
    format!(
        "[[service]]\nname = \"{}\"\nvips = [{}]\nmode = \"{}\"\n{settings}table_size = {}\nbackends = [{}]\n\
         idle = {{ tcp_syn = \"{tcp_syn}s\", tcp_established = \"{tcp_established}s\", \
         tcp_fin = \"{tcp_fin}s\", udp = \"{udp}s\" }}\n",
        service.name,
        vips.join(", "),
        service.mode.name(),
        service.table_size.get(),
        backends.join(", "),
    )
}

/// Backends, of IPv6 where the VIPs are, and their tiers.
fn any_backends() -> impl Strategy<Value = (Vec<Backend>, BTreeMap<BackendId, Priority>)> {
    type Facts = (Option<String>, u16, bool, Option<NonZeroU16>, u8);
    let one = |(name, weight, draining, port, _): Facts, address: IpAddr| Backend {
        // A name that is an address has to be its own.
        name: name
            .filter(|name| name.parse::<IpAddr>().is_err())
            .unwrap_or_else(|| address.to_string()),
        address,
        weight: if draining {
            Weight::DEFAULT
        } else {
            Weight::new(weight).unwrap()
        },
        state: if draining {
            BackendState::Draining
        } else {
            BackendState::Active
        },
        port,
        health: Health::UNKNOWN,
    };
    let facts = (
        proptest::option::of("[a-z][a-z0-9.:/_-]{0,9}"),
        1u16..=10_000,
        any::<bool>(),
        proptest::option::of(any::<NonZeroU16>()),
        0..=Priority::MAX,
    );
    proptest::collection::btree_map(1u32..60_000, facts, 0..6).prop_map(move |backends| {
        let mut names = BTreeSet::new();
        let mut priorities = BTreeMap::new();
        let mut found = Vec::new();
        for (n, facts) in backends {
            let address = IpAddr::from(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n)));
            let priority = Priority::new(facts.4).unwrap();
            let backend = one(facts, address);
            if names.insert(backend.name.clone()) {
                if priority != Priority::default() {
                    priorities.insert(backend.id(), priority);
                }
                found.push(backend);
            }
        }
        (found, priorities)
    })
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let prefix = (any::<u128>(), 0u8..=128, any::<bool>()).prop_map(|(bits, length, v4)| {
        let (address, length) = match v4 {
            true => (IpAddr::from(Ipv4Addr::from_bits(bits as u32)), length % 33),
            false => (IpAddr::from(Ipv6Addr::from_bits(bits)), length),
        };
        Prefix::new(masked(address, length), length).unwrap()
    });
    let prefixes = || proptest::collection::vec(prefix.clone(), 0..4);
    let number = || any::<NonZeroU32>();
    let source = (number(), 1u8..=32, 1u8..=128);
    (
        prefixes(),
        prefixes(),
        proptest::option::of(number()),
        proptest::option::of(number()),
        proptest::option::of(source),
    )
        .prop_map(|(allow, deny, new_flows, packets, source)| Guard {
            allow,
            deny,
            new_flows,
            packets,
            source: source.map(|(new_flows, prefix_v4, prefix_v6)| SourceRate {
                new_flows,
                prefix_v4,
                prefix_v6,
            }),
        })
}

fn any_service() -> impl Strategy<Value = (Service, Spread)> {
    let seconds = || 1..=IdleTimeouts::MAX;
    let idle = (seconds(), seconds(), seconds(), seconds());
    let size = prop_oneof![Just(251), Just(65_537), Just(655_373)];
    let name = "[A-Za-z0-9_./-]{1,253}";
    let mode = prop_oneof![
        Just(Mode::TUNNEL),
        any::<NonZeroU16>().prop_map(|port| Mode::Tunnel(Encapsulation::Gue { port })),
        Just(Mode::Nat),
        Just(Mode::FullNat),
    ];
    let scheduler = proptest::sample::select(&Scheduler::ALL[..]);
    let slow_start = proptest::option::of((1u64..=43_200).prop_map(Duration::from_secs));
    let flows = (mode, scheduler, slow_start, any_guard());
    (name, any_backends(), size, idle, flows).prop_map(|(name, backends, size, idle, flows)| {
        let (mode, scheduler, slow_start, guard) = flows;
        let (mut backends, priorities) = backends;
        if !mode.translates() {
            backends.iter_mut().for_each(|b| b.port = None);
        }
        let spread = Spread {
            slow_start,
            priorities,
        };
        let service = Service {
            name: ServiceName::new(&name).unwrap(),
            vips: Vec::new(),
            mode,
            backends,
            table_size: TableSize::new(size).unwrap(),
            idle: IdleTimeouts {
                tcp_syn: idle.0,
                tcp_established: idle.1,
                tcp_fin: idle.2,
                udp: idle.3,
            },
            scheduler,
            guard,
            unserved: lockstep_plan::Unserved::Drop,
        };
        (service, spread)
    })
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back(
        mut services in proptest::collection::vec(any_service(), 1..4),
        vips in proptest::collection::vec(1usize..4, 4),
        ranges in any::<bool>(),
    ) {
        let mut names = BTreeSet::new();
        services.retain(|(s, _)| names.insert(s.name.clone()));
        for (at, (service, _)) in services.iter_mut().enumerate() {
            let with_ports = service.backends.iter().any(|b| b.port.is_some());
            let last = if ranges && !with_ports { "-9000" } else { "" };
            service.vips = (0..vips[at])
                .map(|n| format!("[2001:db8::{at}:{n}]:{}{last}/udp", n + 1).parse().unwrap())
                .collect();
        }
        let text: String = services.iter().map(|(s, spread)| render(s, spread)).collect();
        let file = parse("t.toml", &text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let spreads = services.iter().map(|(s, spread)| (s.name.clone(), spread.clone()));
        prop_assert_eq!(file.spreads, spreads.collect::<Spreads>());
        prop_assert_eq!(file.services, services.into_iter().map(|(s, _)| s).collect::<Vec<_>>());
    }

    /// A file with a letter too many, too few or another one is read or refused, never a panic,
    /// and a refusal says where.
    #[test]
    fn a_damaged_file_is_answered(at in 0usize..220, cut in 0usize..3, put in "[\\]\\[{}\"=,0-9a-z\n]{0,2}") {
        let text = with("table_size = 251\nbackends = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.2\", weight = 7 }]\nidle = { udp = \"1s\" }");
        let (at, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let damaged = format!("{}{put}{}", &text[..at], &text[end..]);
        if let Err(found) = parse("t.toml", &damaged) {
            prop_assert!(found.has_errors());
            prop_assert!(found.iter().all(|d| !d.message.is_empty()));
        }
    }
}
