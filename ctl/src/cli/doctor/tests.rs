//! Bad hosts, made up, and what is said of them.

#![allow(clippy::unwrap_used)]

use super::facts::{Engine, Facts, Irq, Kind, Probe, Reached, ServerFacts, ServerInterface};
use super::{Finding, Report, Severity, judge, server};
use lockstep_api as api;
use lockstep_topology::{Deferral, Host, HostInterface, InterfaceKind, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const TOPOLOGY: &str = "[engine]\naddresses = [\"192.0.2.10\"]\nflows_ipv4 = 1024\nflows_ipv6 = 1024\n\
    [[interface]]\nname = \"eth0\"\n\
    [[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 2\nqueues = [\"eth0:1\"]\n";

/// A host with nothing to say against it.
fn good() -> Facts {
    let eth0 = HostInterface {
        kind: InterfaceKind::Device {
            driver: "ice".to_owned(),
        },
        rx_queues: 2,
        tx_queues: 2,
        numa_node: Some(0),
        mtu: 1_600,
        up: true,
        deferral: None,
        addresses: Vec::new(),
    };
    let cores = BTreeSet::from([0, 1, 2]);
    let host = Host {
        interfaces: [("eth0".to_owned(), eth0)].into(),
        cores: cores.clone(),
        online: cores.clone(),
        isolated: [1, 2].into(),
        nodes: [(0, cores)].into(),
        memory_available: 1 << 34,
        ..Host::default()
    };
    let irq = |number, queue, core| Irq {
        number,
        interface: "eth0".to_owned(),
        queue: Some(queue),
        cores: [core].into(),
    };
    Facts {
        host,
        topology: Some(Topology::parse("t.toml", TOPOLOGY).map_err(|e| e.to_string())),
        irqs: vec![irq(24, 0, 1), irq(25, 1, 2)],
        features: [("eth0".to_owned(), features(&[]))].into(),
        huge_pages: Some("madvise".to_owned()),
        engine: Some(Ok(engine())),
        client_mtu: 1_500,
        probes: vec![probe(true, Reached::Yes)],
        ..Facts::default()
    }
}

fn features(on: &[&str]) -> BTreeMap<String, bool> {
    let all = [
        "large-receive-offload",
        "generic-receive-offload",
        "rx-vlan-offload",
    ];
    all.iter()
        .map(|f| ((*f).to_owned(), on.contains(f)))
        .collect()
}

fn probe(short: bool, long: Reached) -> Probe {
    Probe {
        backend: "10.0.0.1".parse().unwrap(),
        bytes: 1_520,
        short,
        long,
    }
}

fn engine() -> Engine {
    let worker = |index| api::WorkerStatus {
        index,
        core: index + 1,
        state: "running".to_owned(),
        epoch: 3,
        ..api::WorkerStatus::default()
    };
    let backend = api::BackendStatus {
        name: "s1".to_owned(),
        address: "10.0.0.1".to_owned(),
        state: api::BackendState::Active.into(),
        next_hop: "52:54:00:12:34:56 via 10.0.0.254 dev eth0".to_owned(),
        reachable: true,
        ..api::BackendStatus::default()
    };
    let service = api::ServiceStatus {
        name: "web".to_owned(),
        mode: "tunnel".to_owned(),
        backends: vec![backend],
        ..api::ServiceStatus::default()
    };
    let status = api::EngineStatus {
        epoch: 3,
        workers: vec![worker(0), worker(1)],
        services: vec![service],
        interfaces: vec![api::InterfaceStatus {
            name: "eth0".to_owned(),
            mode: "zero-copy".to_owned(),
            mtu: 1_600,
            ..api::InterfaceStatus::default()
        }],
        ..api::EngineStatus::default()
    };
    let told = api::Service {
        name: "web".to_owned(),
        mode: api::Mode::Tunnel.into(),
        backends: vec![api::Backend {
            address: "10.0.0.1".to_owned(),
            ..api::Backend::default()
        }],
        ..api::Service::default()
    };
    Engine {
        status,
        snapshot: api::Snapshot {
            epoch: 3,
            services: vec![told],
        },
        xdp: vec![("eth0".to_owned(), "redirected".to_owned(), 1_000)],
    }
}

fn running(facts: &mut Facts) -> &mut Engine {
    facts.engine.as_mut().unwrap().as_mut().unwrap()
}

/// The one finding of a host that was good before this was done to it.
#[track_caller]
fn one(severity: Severity, parts: &[&str], spoil: impl FnOnce(&mut Facts)) {
    let mut facts = good();
    spoil(&mut facts);
    expect(severity, parts, &judge::judge(&facts));
}

#[track_caller]
fn expect(severity: Severity, parts: &[&str], found: &[Finding]) {
    let [finding] = found else {
        panic!("not one finding: {found:#?}");
    };
    let text = format!("{}: {} -> {}", finding.about, finding.found, finding.mend);
    assert_eq!(finding.severity, severity, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn a_good_host_has_no_finding() {
    assert_eq!(judge::judge(&good()), []);
    assert_eq!(Report::new(Vec::new()).text(), "nothing found\n");
}

#[test]
fn what_the_topology_check_says_is_said() {
    one(
        Severity::Error,
        &["nothing polls queue 2", "ethtool -L eth0"],
        |facts| {
            facts.host.interfaces.get_mut("eth0").unwrap().rx_queues = 3;
        },
    );
    one(
        Severity::Warning,
        &["is on NUMA node 0, eth0 on node 1"],
        |facts| {
            facts.host.interfaces.get_mut("eth0").unwrap().numa_node = Some(1);
            facts.host.nodes = [(0, [1].into()), (1, [0, 2].into())].into();
        },
    );
    one(
        Severity::Warning,
        &[
            "eth0 does not leave its packets to workers",
            "gro_flush_timeout 0, not napi_defer_hard_irqs",
            "-> `lockstep topology apply t.toml`",
        ],
        |facts| {
            let text = TOPOLOGY.replacen("[engine]", "[engine]\nreceive = \"worker\"", 1);
            facts.topology = Some(Topology::parse("t.toml", &text).map_err(|e| e.to_string()));
            let (polls, nanoseconds) = (0, 0);
            facts.host.interfaces.get_mut("eth0").unwrap().deferral =
                Some(Deferral { polls, nanoseconds });
        },
    );
    one(
        Severity::Error,
        &["no such file", "lockstep topology detect"],
        |facts| {
            facts.topology = Some(Err("no such file".to_owned()));
        },
    );
}

#[test]
fn interrupts_and_cores_are_held_against_the_plan() {
    one(
        Severity::Warning,
        &[
            "IRQ 25 of queue 1",
            "core 2",
            "`echo 2 > /proc/irq/25/smp_affinity_list`",
        ],
        |facts| facts.irqs[1].cores = [0, 1, 2].into(),
    );
    one(
        Severity::Warning,
        &["irqbalance", "systemctl disable"],
        |facts| facts.irqbalance = true,
    );
    // Without an interrupt of ours there is nothing for it to move.
    let mut facts = good();
    facts.irqbalance = true;
    facts.irqs.clear();
    assert_eq!(judge::judge(&facts), []);
    one(Severity::Note, &["cores 2,", "isolcpus=2"], |facts| {
        facts.host.isolated = [1].into();
    });
    one(Severity::Warning, &["isolcpus=1,2"], |facts| {
        facts.host.isolated.clear();
        let busy = TOPOLOGY.replace("[engine]\n", "[engine]\npoll = \"busy\"\n");
        facts.topology = Some(Topology::parse("t.toml", &busy).map_err(|e| e.to_string()));
    });
}

#[test]
fn offloads_that_change_packets_are_found() {
    let with = |facts: &mut Facts, on: &[&str]| {
        facts.features.insert("eth0".to_owned(), features(on));
    };
    one(
        Severity::Error,
        &["eth0: LRO", "`ethtool -K eth0 lro off`"],
        |facts| {
            with(facts, &["large-receive-offload"]);
        },
    );
    // Harmless where no tag is expected, and where XDP runs before it.
    let mut facts = good();
    with(&mut facts, &["rx-vlan-offload", "generic-receive-offload"]);
    assert_eq!(judge::judge(&facts), []);
    one(
        Severity::Warning,
        &["eth0.7 has some", "rxvlan off"],
        |facts| {
            with(facts, &["rx-vlan-offload"]);
            facts.vlans = [("eth0".to_owned(), vec!["eth0.7".to_owned()])].into();
        },
    );
    let mut facts = good();
    with(&mut facts, &["generic-receive-offload"]);
    running(&mut facts).status.interfaces[0].mode = "generic".to_owned();
    let found = judge::judge(&facts);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].mend.contains("gro off") && found[1].found.contains("native XDP"));
    one(Severity::Note, &["install ethtool"], |facts| {
        facts.features.clear()
    });
    one(Severity::Note, &["veth", "tx off"], |facts| {
        facts.host.interfaces.get_mut("eth0").unwrap().kind = InterfaceKind::Veth;
        running(facts).status.services[0].mode = "nat".to_owned();
    });
}

#[test]
fn the_way_to_the_backends_has_to_take_the_longest_packet() {
    one(
        Severity::Warning,
        &[
            "its MTU is 1500",
            "becomes 1520",
            "`ip link set eth0 mtu 1520`",
        ],
        |facts| running(facts).status.interfaces[0].mtu = 1_500,
    );
    one(Severity::Warning, &["becomes 1528"], |facts| {
        running(facts).status.interfaces[0].mtu = 1_520;
        running(facts).snapshot.services[0].gue_port = 6_080;
    });
    // A rewritten packet is no longer.
    let mut facts = good();
    let engine = running(&mut facts);
    engine.status.interfaces[0].mtu = 1_500;
    engine.snapshot.services[0].mode = api::Mode::Replicate.into();
    assert_eq!(judge::judge(&facts), []);
    for (long, part) in [
        (Reached::No, "though short ones do"),
        (Reached::TooLong(Some(1_400)), "which takes 1400"),
        (Reached::TooLong(None), "this host's own interface"),
    ] {
        one(
            Severity::Error,
            &["1520 bytes does not get there", part],
            |facts| {
                facts.probes = vec![probe(true, long)];
            },
        );
    }
    one(Severity::Note, &["does not answer pings"], |facts| {
        facts.probes = vec![probe(false, Reached::No)];
    });
}

#[test]
fn the_engines_own_troubles_are_found() {
    one(Severity::Error, &["is not running"], |facts| {
        facts.engine = Some(Err("lockstep-engine is not running".to_owned()));
    });
    one(
        Severity::Error,
        &["worker 1: it is hung", "core 2"],
        |facts| {
            running(facts).status.workers[1].state = "hung".to_owned();
        },
    );
    one(
        Severity::Warning,
        &["forwards by epoch 2, and 3"],
        |facts| {
            running(facts).status.workers[0].epoch = 2;
        },
    );
    one(
        Severity::Warning,
        &["dropped 1,234 packets", "socket_drops"],
        |facts| {
            running(facts).status.workers[0].kernel_dropped = 1_234;
        },
    );
    one(Severity::Warning, &["no native XDP"], |facts| {
        running(facts).status.interfaces[0].mode = "generic".to_owned();
    });
    for (verdict, part) in [
        ("no_socket", "no worker polls"),
        ("stale", "no sign of life"),
        ("no_headroom", "no room in front"),
    ] {
        one(Severity::Warning, &["eth0: 17 packets", part], |facts| {
            running(facts)
                .xdp
                .push(("eth0".to_owned(), verdict.to_owned(), 17));
        });
    }
    one(
        Severity::Error,
        &[
            "backend s1 (10.0.0.1) is not reachable: no route",
            "ip route get 10.0.0.1",
        ],
        |facts| {
            let backend = &mut running(facts).status.services[0].backends[0];
            (backend.reachable, backend.next_hop) = (false, "no route".to_owned());
        },
    );
    one(
        Severity::Error,
        &["no backend takes new flows", "undrain"],
        |facts| {
            let backend = &mut running(facts).status.services[0].backends[0];
            backend.state = api::BackendState::Draining.into();
        },
    );
    one(
        Severity::Warning,
        &["5 packets", "wrong checksum"],
        |facts| {
            running(facts).status.drops.push(api::DropCount {
                reason: "bad_checksum".to_owned(),
                packets: 5,
                help: String::new(),
            });
        },
    );
    one(
        Severity::Warning,
        &["huge pages", "echo madvise"],
        |facts| {
            facts.huge_pages = Some("never".to_owned());
        },
    );
}

#[test]
fn servers_behind_nat_need_somebody_who_forwards() {
    let nat = |facts: &mut Facts| {
        running(facts).snapshot.services[0].mode = api::Mode::Nat.into();
    };
    one(
        Severity::Warning,
        &["net.ipv4.ip_forward", "default route"],
        nat,
    );
    let mut facts = good();
    nat(&mut facts);
    facts.forwarding_v4 = true;
    assert_eq!(judge::judge(&facts), []);
}

#[test]
fn somebody_answers_for_the_engines_address_on_the_link_of_full_nat() {
    let full_nat = |facts: &mut Facts, next_hop: &str, answers| {
        let service = &mut running(facts).status.services[0];
        service.mode = "full-nat".to_owned();
        service.backends[0].next_hop = next_hop.to_owned();
        service.backends[0].answers = answers;
    };
    let on_link = "52:54:00:12:34:56 dev eth0";
    one(
        Severity::Error,
        &[
            "192.0.2.10: no interface has this address",
            "backend s1 of service web",
            "ip addr add 192.0.2.10/32 dev eth0 preferred_lft 0",
        ],
        |facts| full_nat(facts, on_link, 0),
    );
    // By a router, which may know the way; and where answers come.
    for (next_hop, answers) in [
        ("52:54:00:12:34:56 via 10.0.0.254 dev eth0", 0),
        (on_link, 1),
    ] {
        let mut facts = good();
        full_nat(&mut facts, next_hop, answers);
        assert_eq!(judge::judge(&facts), []);
    }
    // An interface has it: right here, worth a warning where no service sends from it.
    let held = |facts: &mut Facts| {
        let eth0 = facts.host.interfaces.get_mut("eth0").unwrap();
        let addresses = ["192.0.2.9", "192.0.2.10"].map(|a| a.parse().unwrap());
        eth0.addresses = addresses.to_vec();
    };
    let mut facts = good();
    held(&mut facts);
    full_nat(&mut facts, on_link, 0);
    assert_eq!(judge::judge(&facts), []);
    one(
        Severity::Warning,
        &["right when it is there to answer ARP"],
        held,
    );
}

/// A real server with nothing to say against it.
fn good_server() -> ServerFacts {
    let vip: IpAddr = "203.0.113.10".parse().unwrap();
    let interface = |name: &str, kind, addresses: &[IpAddr]| ServerInterface {
        name: name.to_owned(),
        kind,
        up: true,
        mtu: 1_600,
        addresses: addresses.to_vec(),
        rp_filter: 2,
        arp_ignore: 1,
        decap: false,
    };
    ServerFacts {
        vips: vec![vip],
        interfaces: vec![
            interface("lo", Kind::Other, &[vip]),
            interface("eth0", Kind::Ethernet, &["10.0.0.1".parse().unwrap()]),
            interface("tunl0", Kind::Tunnel(4), &[]),
        ],
        client_mtu: 1_500,
    }
}

#[track_caller]
fn one_of_server(severity: Severity, parts: &[&str], spoil: impl FnOnce(&mut ServerFacts)) {
    let mut facts = good_server();
    spoil(&mut facts);
    expect(severity, parts, &server::judge(&facts));
}

#[test]
fn a_real_server_has_to_end_tunnels_and_have_the_vip() {
    assert_eq!(server::judge(&good_server()), []);
    one_of_server(
        Severity::Error,
        &["tunl0: it is down", "ip link set tunl0 up"],
        |f| f.interfaces[2].up = false,
    );
    one_of_server(
        Severity::Error,
        &["nobody takes packets out", "lockstep decap attach"],
        |f| {
            f.interfaces.pop();
        },
    );
    // By an XDP program, which knows no rp_filter.
    let mut facts = good_server();
    facts.interfaces.pop();
    facts.interfaces[1].decap = true;
    facts.interfaces[1].rp_filter = 1;
    assert_eq!(server::judge(&facts), []);
    one_of_server(
        Severity::Error,
        &["tunl0: rp_filter is strict", "conf.tunl0.rp_filter=2"],
        |f| {
            f.interfaces[2].rp_filter = 1;
        },
    );
    one_of_server(
        Severity::Warning,
        &["eth0: its MTU is 1500", "mtu 1520"],
        |f| f.interfaces[1].mtu = 1_500,
    );
    one_of_server(
        Severity::Error,
        &[
            "no address of this host",
            "ip addr add 203.0.113.10/32 dev lo",
        ],
        |f| {
            f.interfaces[0].addresses.clear();
        },
    );
    one_of_server(
        Severity::Error,
        &["eth0 has it", "takes its traffic away"],
        |f| {
            let vip = f.interfaces[0].addresses.remove(0);
            f.interfaces[1].addresses.push(vip);
        },
    );
    one_of_server(Severity::Warning, &["answers ARP", "arp_ignore=1"], |f| {
        f.interfaces[1].arp_ignore = 0
    });
    one_of_server(Severity::Note, &["--vip"], |f| f.vips.clear());
}

#[test]
fn what_is_worst_comes_first() {
    let report = Report::new(vec![
        Finding::note("c", "third", ""),
        Finding::error("a", "first", "mend it"),
        Finding::warning("b", "second", "see to it"),
    ]);
    assert!(!report.ok);
    assert!(Report::new(report.findings[1..].to_vec()).ok);
    assert_eq!(
        report.text(),
        "ERROR    a: first\n         -> mend it\nwarning  b: second\n         -> see to it\nnote     c: third\n\n\
         FOUND     NUMBER\nerrors         1\nwarnings       1\nnotes          1\n"
    );
}
