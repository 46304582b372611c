//! Checks against a host, and the proposals for one.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn cores(range: std::ops::Range<u32>) -> BTreeSet<u32> {
    range.collect()
}

fn device(queues: u32, node: Option<u32>) -> HostInterface {
    HostInterface {
        kind: InterfaceKind::Device {
            driver: "ice".to_owned(),
        },
        rx_queues: queues,
        tx_queues: queues,
        numa_node: node,
        mtu: 1500,
        up: true,
        deferral: Some(Deferral {
            polls: 0,
            nanoseconds: 0,
        }),
        addresses: vec!["192.0.2.2".parse().unwrap()],
    }
}

/// Eight cores, 0 to 3 on node 0 and 4 to 7 on node 1; `eth0` with two queues on node 0.
fn host() -> Host {
    let eth0 = device(2, Some(0));
    let lo = HostInterface {
        kind: InterfaceKind::NotEthernet,
        ..device(1, None)
    };
    Host {
        interfaces: BTreeMap::from([("eth0".to_owned(), eth0), ("lo".to_owned(), lo)]),
        hidden: BTreeSet::new(),
        cores: cores(0..8),
        online: cores(0..8),
        isolated: BTreeSet::new(),
        nodes: BTreeMap::from([(0, cores(0..4)), (1, cores(4..8))]),
        memory_available: 1 << 30,
    }
}

/// Two workers on cores 1 and 2, which poll both queues of `eth0`.
fn topology() -> Topology {
    let text = "[engine]\naddresses = [\"192.0.2.10\"]\nflows_ipv4 = 1000000\n\
                [[interface]]\nname = \"eth0\"\n\
                [[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n\
                [[worker]]\ncore = 2\nqueues = [\"eth0:1\"]\n";
    Topology::parse("t.toml", text).unwrap()
}

fn eth0(host: &mut Host) -> &mut HostInterface {
    host.interfaces.get_mut("eth0").unwrap()
}

#[test]
fn a_worker_with_more_queues_than_it_can_wait_for_is_named() {
    let mut host = host();
    *eth0(&mut host) = device(65, Some(0));
    let text = "[engine]\naddresses = [\"192.0.2.10\"]\numem_frames = 16384\n\
                [[interface]]\nname = \"eth0\"\n\
                [[worker]]\ncore = 1\nqueues = [\"eth0:0-64\"]\n";
    let topology = Topology::parse("t.toml", text).unwrap();
    assert_eq!(
        check(&topology, &host).to_string(),
        "t.toml:7:8: the worker on core 1 polls 65 queues, the most is 64; have more workers, or \
         fewer queues (`ethtool -L`)"
    );
}

#[test]
fn a_host_that_fits_is_left_without_comment() {
    assert_eq!(check(&topology(), &host()).to_string(), "");
}

#[test]
fn what_the_host_cannot_do_is_named_with_its_line() {
    type Change = fn(&mut Host);
    let rows: &[(Change, &str)] = &[
        (
            |host| {
                let eth0 = host.interfaces.remove("eth0").unwrap();
                host.interfaces.insert("eth1".to_owned(), eth0);
            },
            "t.toml:5:8: this host has no interface eth0; did you mean `eth1`? (allowed: eth1, lo)",
        ),
        (
            |host| {
                host.interfaces.clear();
                host.hidden = BTreeSet::from(["eth0".to_owned()]);
            },
            "t.toml:5:8: /sys does not show interface eth0, which is here; it was mounted in another network namespace: start with `ip netns exec`, which mounts it anew",
        ),
        (
            |host| eth0(host).kind = InterfaceKind::NotEthernet,
            "t.toml:5:8: eth0 is not an Ethernet interface; name the one that the packets arrive on",
        ),
        (
            |host| eth0(host).up = false,
            "t.toml:5:8: warning: eth0 is down; `ip link set eth0 up`",
        ),
        (
            |host| *eth0(host) = device(1, None),
            "t.toml:11:11: there is no queue eth0:1: eth0 has RX queue 0 only; `ethtool -L eth0 combined N` changes that, where the device has more",
        ),
        (
            |host| *eth0(host) = device(3, None),
            "t.toml:5:8: nothing polls queue 2 of eth0: packets that arrive there go to the kernel; add \"eth0:2\" to a worker, or reduce the queues: `ethtool -L eth0 combined 2`",
        ),
        (
            |host| *eth0(host) = device(5, None),
            "t.toml:5:8: nothing polls queues 2-4 of eth0: packets that arrive there go to the kernel; add \"eth0:2-4\" to a worker, or reduce the queues: `ethtool -L eth0 combined 2`",
        ),
        (
            |host| eth0(host).tx_queues = 1,
            "t.toml:11:11: warning: eth0 has no TX queue 1 to send on; give it as many TX queues as RX queues",
        ),
        (
            |host| host.cores = cores(0..2),
            "t.toml:10:8: this host has no core 2; it has 0-1",
        ),
        (
            |host| {
                host.online.remove(&2);
            },
            "t.toml:10:8: core 2 is off line; `echo 1 > /sys/devices/system/cpu/cpu2/online`",
        ),
        (
            |host| {
                host.nodes = BTreeMap::from([(0, cores(2..4)), (1, BTreeSet::from([0, 1, 4]))]);
            },
            "t.toml:7:8: warning: core 1 is on NUMA node 1, eth0 on node 0; each packet crosses between the nodes; the cores of node 0 are 2-3",
        ),
        (
            |host| eth0(host).mtu = 1735,
            "t.toml:5:8: packets of eth0's MTU, 1735, do not fit a frame of 2048 bytes; `frame_size = 4096`, or `ip link set eth0 mtu 1734`",
        ),
        (
            |host| eth0(host).mtu = 9000,
            "t.toml:5:8: packets of eth0's MTU, 9000, do not fit a frame of 2048 bytes; `ip link set eth0 mtu 3782`",
        ),
        (
            |host| {
                eth0(host).kind = InterfaceKind::Veth;
                eth0(host).mtu = 3507;
            },
            "t.toml:5:8: the MTU of eth0, 3507, is too large for XDP on a veth; `ip link set eth0 mtu 3506` at most, on both ends",
        ),
        (
            |host| eth0(host).addresses = vec!["192.0.2.10".parse().unwrap()],
            "t.toml:2:13: 192.0.2.10 is the kernel's: eth0 has no other IPv4 address, and the engine would take its TCP and UDP, SSH and BGP included; engine addresses are extra ones that the network routes to this host; no interface needs to have them",
        ),
        (
            |host| eth0(host).addresses.push("192.0.2.10".parse().unwrap()),
            "t.toml:2:13: warning: eth0 has engine address 192.0.2.10 too: TCP and UDP to it go to the engine, not to this host's programs; right when it is there to answer ARP or ND only",
        ),
        (
            |host| {
                let addresses = ["192.0.2.10", "2001:db8::2"];
                eth0(host).addresses = addresses.map(|a| a.parse().unwrap()).to_vec();
            },
            "t.toml:2:13: 192.0.2.10 is the kernel's: eth0 has no other IPv4 address, and the engine would take its TCP and UDP, SSH and BGP included; engine addresses are extra ones that the network routes to this host; no interface needs to have them",
        ),
        (
            |host| host.memory_available = 150 << 20,
            "t.toml:3:14: the memory does not fit: 2 workers take 32.0 MiB for UMEMs and 187.6 MiB for flow tables, 219.6 MiB together, and 150.0 MiB are available; lower `flows_ipv4`, `flows_ipv6` or `umem_frames`, or have fewer workers",
        ),
    ];
    for (change, report) in rows {
        let mut host = host();
        change(&mut host);
        assert_eq!(check(&topology(), &host).to_string(), *report);
    }
}

#[test]
fn an_interface_leaves_its_packets_to_workers_that_are_to_take_them_in() {
    let polls = |polls, nanoseconds| Some(Deferral { polls, nanoseconds });
    let not_as = |found: &str| {
        format!(
            "t.toml:6:8: warning: eth0 does not leave its packets to workers as `receive = \
             \"worker\"` needs it: {found}, not napi_defer_hard_irqs 2 and gro_flush_timeout \
             20000; `lockstep topology apply t.toml`"
        )
    };
    let rows = [
        (polls(2, 20_000), String::new()),
        (
            polls(0, 0),
            not_as("napi_defer_hard_irqs 0 and gro_flush_timeout 0"),
        ),
        (
            polls(2, 0),
            not_as("napi_defer_hard_irqs 2 and gro_flush_timeout 0"),
        ),
        (
            polls(0, 20_000),
            not_as("napi_defer_hard_irqs 0 and gro_flush_timeout 20000"),
        ),
        (
            None,
            "t.toml:6:8: warning: eth0 cannot leave its packets to workers (`receive = \
             \"worker\"`): this kernel has no napi_defer_hard_irqs and gro_flush_timeout; \
             `receive = \"kernel\"`, or a newer kernel"
                .to_owned(),
        ),
    ];
    let text = "[engine]\naddresses = [\"192.0.2.10\"]\nreceive = \"worker\"\n\
                flows_ipv4 = 1000000\n[[interface]]\nname = \"eth0\"\n\
                [[worker]]\ncore = 1\nqueues = [\"eth0:0-1\"]\n";
    let by_workers = Topology::parse("t.toml", text).unwrap();
    for (deferral, report) in rows {
        let mut host = host();
        eth0(&mut host).deferral = deferral;
        assert_eq!(check(&by_workers, &host).to_string(), report);
        // The kernel's software interrupt does without.
        assert_eq!(check(&topology(), &host).to_string(), "");
    }
}

#[test]
fn everything_the_host_cannot_do_is_listed_at_once() {
    let host = Host::default();
    let found = check(&topology(), &host);
    assert_eq!(found.len(), 4, "{found}");
    assert!(found.has_errors());
}

/// Cores and their queues, as `1: eth0:0 | 2: eth0:1`.
fn plan(topology: &Topology) -> String {
    let workers = topology.workers().iter();
    let workers = workers.map(|w| format!("{}: {}", w.core, w.queues_text()));
    workers.collect::<Vec<_>>().join(" | ")
}

fn wishes(interfaces: &[&str], addresses: &[&str]) -> Wishes {
    Wishes {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        spread: Spread::Rss,
        queues: None,
    }
}

fn detected(host: &Host, interfaces: &[&str]) -> Topology {
    detect(host, &wishes(interfaces, &["192.0.2.10", "2001:db8::10"])).unwrap()
}

#[test]
fn a_worker_a_queue_is_proposed_on_the_nodes_of_the_interfaces() {
    type Change = fn(&mut Host);
    let rows: &[(&str, Change, &str)] = &[
        ("core 0 is the system's", |_| {}, "1: eth0:0 | 2: eth0:1"),
        (
            "the NIC's node",
            |host| eth0(host).numa_node = Some(1),
            "4: eth0:0 | 5: eth0:1",
        ),
        (
            "fewer cores than queues",
            |host| *eth0(host) = device(8, Some(0)),
            "1: eth0:0-1 | 2: eth0:2-4 | 3: eth0:5-7",
        ),
        (
            "two cores are both used",
            |host| {
                host.online = cores(0..2);
                host.nodes = BTreeMap::from([(0, cores(0..2))]);
            },
            "0: eth0:0 | 1: eth0:1",
        ),
        (
            "isolated cores are meant for this",
            |host| host.isolated = cores(2..4),
            "2: eth0:0 | 3: eth0:1",
        ),
        (
            "isolated cores of a far node are not",
            |host| host.isolated = cores(6..8),
            "1: eth0:0 | 2: eth0:1",
        ),
        (
            "isolation matters without NUMA too",
            |host| {
                eth0(host).numa_node = None;
                host.nodes.clear();
                host.isolated = cores(6..8);
            },
            "6: eth0:0 | 7: eth0:1",
        ),
        (
            "a node without cores",
            |host| eth0(host).numa_node = Some(9),
            "1: eth0:0 | 2: eth0:1",
        ),
        (
            "every worker has a queue of every interface",
            |host| {
                host.interfaces
                    .insert("eth1".to_owned(), device(5, Some(0)));
            },
            "1: eth0:0 eth1:0-1 | 2: eth0:1 eth1:2-4",
        ),
        (
            "what is down or virtual is left alone",
            |host| {
                let mut down = device(4, None);
                down.up = false;
                host.interfaces.insert("eth1".to_owned(), down);
                let mut bridge = device(1, None);
                let devtype = "bridge".to_owned();
                bridge.kind = InterfaceKind::Virtual { devtype };
                host.interfaces.insert("br0".to_owned(), bridge);
            },
            "1: eth0:0 | 2: eth0:1",
        ),
    ];
    for (what, change, expected) in rows {
        let mut host = host();
        change(&mut host);
        assert_eq!(plan(&detected(&host, &[])), *expected, "{what}");
    }
}

/// The four settings of receive side scaling and receive packet steering.
#[test]
fn each_setting_of_rss_and_rps_is_proposed() {
    let mut host = host();
    eth0(&mut host).rx_queues = 2;
    let rows = [
        (Spread::Rps, None, "1: eth0:0 | 2: eth0:1 | 3: "),
        (Spread::Rss, None, "1: eth0:0 | 2: eth0:1"),
        (Spread::Rps, Some(1), "1: eth0:0 | 2:  | 3: "),
        (Spread::Rss, Some(1), "1: eth0:0"),
    ];
    for (spread, queues, expected) in rows {
        let wishes = Wishes {
            spread,
            queues,
            ..wishes(&[], &["192.0.2.10"])
        };
        let topology = detect(&host, &wishes).unwrap();
        assert_eq!(plan(&topology), expected);
        assert_eq!(topology.engine().spread, spread);
    }
}

#[test]
fn a_proposal_takes_frames_and_memory_from_the_host() {
    let mut host = host();
    eth0(&mut host).mtu = 3000;
    host.interfaces.insert("eth1".to_owned(), device(8, None));
    host.memory_available = 200 << 20;
    let topology = detected(&host, &["eth0", "eth1"]);
    let engine = topology.engine();
    assert_eq!(engine.frame_size, FrameSize::Bytes4096);
    // Five queues of 4,096 frames, rounded up.
    assert_eq!(topology.workers()[0].queues.len(), 5);
    assert_eq!(engine.umem_frames.get(), 32_768);
    let texts: Vec<_> = engine
        .addresses
        .all()
        .iter()
        .map(IpAddr::to_string)
        .collect();
    assert_eq!(texts, ["192.0.2.10", "2001:db8::10"]);
    let mut roomy = host.clone();
    roomy.memory_available = 1 << 40;
    assert_eq!(
        detected(&roomy, &["eth0"]).engine().flows_ipv4.get(),
        1_000_000
    );
    roomy.memory_available = 256 << 20;
    let tight = detected(&roomy, &["eth0"]);
    assert_eq!(tight.engine().flows_ipv4.get(), 250_000);
    assert!(total_memory(&tight) <= 128 << 20);
}

#[test]
fn what_cannot_be_proposed_says_what_to_name() {
    const ADDRESS: &[&str] = &["192.0.2.10"];
    let refused = |host: &Host, interfaces: &[&str], addresses: &[&str]| {
        let error = detect(host, &wishes(interfaces, addresses)).unwrap_err();
        error.to_string()
    };
    let good = host();
    assert_eq!(
        refused(&good, &["eth7"], ADDRESS),
        "eth7 cannot be used: it is not there; this host has eth0, lo"
    );
    assert_eq!(
        refused(&good, &["lo"], ADDRESS),
        "lo cannot be used: it is not an Ethernet interface"
    );
    assert_eq!(
        refused(&good, &[], &["192.0.2.1", "192.0.2.1"]),
        "engine addresses are unicast, and none is named twice"
    );
    assert_eq!(
        refused(&good, &[], &[]),
        "name the engine's addresses with --address: one IPv4 address, one IPv6 address, or both, extra ones that the network routes to this host"
    );
    assert_eq!(
        refused(&good, &[], &["2001:db8::10", "192.0.2.2"]),
        "192.0.2.2 cannot be an engine address: eth0 has it, and the engine would take its TCP and UDP, SSH and BGP included; name an extra one that the network routes to this host"
    );
    let mut foreign = host();
    foreign.hidden = BTreeSet::from(["v0".to_owned()]);
    assert_eq!(
        refused(&foreign, &[], ADDRESS),
        "/sys does not show v0 of this network namespace: start with `ip netns exec`, which mounts it anew"
    );
    let mut down = host();
    eth0(&mut down).up = false;
    assert_eq!(
        refused(&down, &[], ADDRESS),
        "no Ethernet device and no veth is up; name an interface (this host has eth0, lo)"
    );
    let mut idle = host();
    idle.online.clear();
    assert_eq!(refused(&idle, &[], ADDRESS), "no core is on line");
}

#[test]
fn the_table_shows_core_node_queues_and_memory() {
    assert_eq!(
        show(&topology(), &host()),
        "WORKER  CORE  NUMA  QUEUES  PROCESSES  UMEM      FLOW TABLES\n\
         0       1     0     eth0:0  yes        16.0 MiB  93.8 MiB\n\
         1       2     0     eth0:1  yes        16.0 MiB  93.8 MiB\n\
         \n\
         spread rss, poll adaptive, received by the kernel, 8192 frames of 2048 bytes a worker, 219.6 MiB together, 1.0 GiB available\n\
         replicated sessions: 4096 a worker, 6.2 GiB at most for it once a service asks for them\n"
    );
}

#[test]
fn a_core_of_no_known_node_has_a_dash() {
    let mut host = host();
    host.nodes.clear();
    assert_eq!(rows(&topology(), &host)[0].node, None);
    assert!(show(&topology(), &host).contains("0       1     -     eth0:0"));
}

fn hosts() -> impl Strategy<Value = Host> {
    // Three interfaces at most: what falls to a single core is within what a worker can poll.
    let interface = (
        1u32..=(Worker::MAX_QUEUES / 3) as u32,
        proptest::option::of(0u32..3),
        576u32..=3506,
        any::<bool>(),
    );
    (
        proptest::collection::btree_map("[a-z]{1,8}", interface, 1..4),
        proptest::collection::btree_set(0u32..64, 1..20),
        proptest::collection::btree_set(0u32..64, 0..4),
        2u32..4,
    )
        .prop_map(|(interfaces, online, isolated, nodes)| {
            let interfaces = interfaces
                .into_iter()
                .map(|(name, (queues, node, mtu, veth))| {
                    let mut interface = device(queues, node);
                    interface.mtu = mtu;
                    if veth {
                        interface.kind = InterfaceKind::Veth;
                    }
                    (name, interface)
                });
            let on = |node: u32| (0..64).filter(move |core| core % nodes == node).collect();
            Host {
                interfaces: interfaces.collect(),
                hidden: BTreeSet::new(),
                cores: cores(0..64),
                online,
                isolated,
                nodes: (0..nodes).map(|node| (node, on(node))).collect(),
                memory_available: 1 << 36,
            }
        })
}

proptest! {
    /// What is proposed for a host passes that host's check, and survives being written.
    #[test]
    fn a_proposal_passes_the_check(host in hosts()) {
        let topology = detected(&host, &[]);
        let found = check(&topology, &host);
        prop_assert!(!found.has_errors(), "{}\n{}", found, render(&topology));
        let parsed = Topology::parse("t.toml", &render(&topology));
        prop_assert_eq!(parsed, Ok(topology));
    }
}

/// Two workers, and these lines of `[sessions]`.
fn with_sessions(lines: &str) -> Topology {
    let text = format!(
        "[engine]\naddresses = [\"192.0.2.10\"]\nflows_ipv4 = 1000000\n[sessions]\n{lines}\n\
         [[interface]]\nname = \"eth0\"\n\
         [[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n\
         [[worker]]\ncore = 2\nqueues = [\"eth0:1\"]\n"
    );
    Topology::parse("t.toml", &text).unwrap()
}

#[test]
fn a_place_for_spilled_logs_is_there_or_can_be_made() {
    let place = tempfile::tempdir().unwrap();
    let said = |path: &std::path::Path| {
        check(&with_sessions(&format!("spill = {path:?}")), &host()).to_string()
    };
    assert_eq!(said(place.path()), "");
    assert_eq!(said(&place.path().join("to/be/made")), "");
    assert!(!place.path().join("to").exists(), "it is only looked at");
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = file.join("logs");
    let (path, file) = (path.display(), file.display());
    assert_eq!(
        said(path.to_string().as_ref()),
        format!(
            "t.toml:5:9: {path} cannot hold spilled logs: {file} is no directory; name a \
             directory that is there or can be made, on a file system for it"
        )
    );
}

#[test]
fn logs_of_sessions_that_do_not_fit_are_told_to_who_asks_for_them() {
    assert_eq!(
        check(&with_sessions("log_memory = 268435456"), &host()).to_string(),
        ""
    );
    assert_eq!(
        check(&with_sessions("log_memory = 536870912"), &host()).to_string(),
        "t.toml:5:14: warning: the logs of sessions may not fit: 2 workers take up to 512.0 MiB \
         each, 1.0 GiB together, beside 219.6 MiB for packets and flows, and 1.0 GiB are \
         available; lower `log_memory`; `spill` is for what has no room in it"
    );
}
