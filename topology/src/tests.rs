//! The crate from the outside: text in, exactly the report out.

use super::*;
use std::net::IpAddr;
use std::time::Duration;

mod against_host;
mod properties;

/// A file with nothing wrong in it: `engine` replaces the `[engine]` keys after `addresses`.
fn file(engine: &str) -> String {
    format!(
        "[engine]\naddresses = [\"192.0.2.10\"]\n{engine}\n\
         [[interface]]\nname = \"eth0\"\n\n[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n"
    )
}

fn said(text: &str) -> String {
    match Topology::parse("t.toml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(found) => found.to_string(),
    }
}

#[test]
fn every_key_is_read() {
    let text = r#"
        [engine]
        socket = "/tmp/e.sock"
        pin_dir = "/sys/fs/bpf/other"
        addresses = ["2001:db8::10", "192.0.2.10", "192.0.2.11"]
        poll = "busy"
        flows_ipv4 = 2048
        flows_ipv6 = 1024
        umem_frames = 4096
        frame_size = 4096
        watchdog = "250ms"

        [sessions]
        max = 100
        connections = 300
        client_buffer = 4096
        replica_buffer = 8192
        log_memory = 2000000
        ports = "20000-29999"
        spill = "/var/spill"
        spill_limit = 3000000

        [[interface]]
        name = "eth0"
        mode = "zero-copy"

        [[interface]]
        name = "eth1"

        [[worker]]
        core = 3
        queues = ["eth0:0", "eth1:0-1"]

        [[worker]]
        core = 2
        queues = ["eth1:2", "eth0:1"]
    "#;
    let topology = Topology::parse("t.toml", text).unwrap();
    let engine = topology.engine();
    assert_eq!(engine.socket.to_str(), Some("/tmp/e.sock"));
    assert_eq!(engine.pin_dir.to_str(), Some("/sys/fs/bpf/other"));
    assert_eq!(engine.addresses.ipv4(), "192.0.2.10".parse().ok());
    assert_eq!(engine.addresses.ipv6(), "2001:db8::10".parse().ok());
    assert_eq!(engine.poll, Poll::Busy);
    assert_eq!(engine.flows_ipv4.get(), 2048);
    assert_eq!(engine.flows_ipv6.get(), 1024);
    assert_eq!(engine.umem_frames.get(), 4096);
    assert_eq!(engine.frame_size, FrameSize::Bytes4096);
    assert_eq!(engine.watchdog.get(), Duration::from_millis(250));
    let sessions = topology.sessions();
    assert_eq!(sessions.max.get(), 100);
    assert_eq!(sessions.connections.get(), 300);
    assert_eq!(sessions.client_buffer.get(), 4_096);
    assert_eq!(sessions.replica_buffer.get(), 8_192);
    assert_eq!(sessions.log_memory.get(), 2_000_000);
    assert_eq!(sessions.ports.share(1, 2), 25_000..=29_999);
    assert_eq!(sessions.spill.as_deref(), Some("/var/spill".as_ref()));
    assert_eq!(sessions.spill_limit.get(), 3_000_000);
    let modes: Vec<_> = topology.interfaces().iter().map(|i| i.mode).collect();
    assert_eq!(modes, [BindMode::ZeroCopy, BindMode::Auto]);
    let workers: Vec<_> = topology.workers().iter().collect();
    assert_eq!(workers[0].core.get(), 3);
    assert_eq!(workers[0].queues_text(), "eth0:0 eth1:0-1");
    assert_eq!(workers[1].queues_text(), "eth1:2 eth0:1");
    let eth1 = &topology.interfaces()[1].name;
    assert_eq!(topology.queues_of(eth1), [0, 1, 2]);
}

#[test]
fn a_key_that_is_left_out_has_its_default() {
    let topology = Topology::parse("t.toml", &file("")).unwrap();
    let address = "192.0.2.10".parse().unwrap();
    let default = Engine::new(Addresses::new(vec![address]).unwrap());
    assert_eq!(*topology.engine(), default);
    assert_eq!(default.flows_ipv4.get(), 1_000_000);
    assert_eq!(default.watchdog.get(), Duration::from_secs(1));
    assert_eq!(*topology.sessions(), Sessions::default());
}

#[test]
fn wrong_values_in_the_sessions_section_are_named_with_what_is_allowed() {
    let rows: &[(&str, &str)] = &[
        (
            "max = 0",
            "t.toml:4:7: `max` cannot be 0; allowed: 1 to 1048576",
        ),
        (
            "client_buffer = 5000",
            "t.toml:4:17: `client_buffer` cannot be 5000; allowed: a power of two from 4096 to 16777216",
        ),
        (
            "ports = \"80-90\"",
            "t.toml:4:9: `ports` cannot be \"80-90\"; allowed: FIRST-LAST, ports 1024 to 65535, such as \"16384-65535\"",
        ),
        (
            "ports = \"20000-20062\"",
            "t.toml:4:9: ports 20000-20062 are too few for 1 workers; 64 at least, 64 a worker",
        ),
        (
            "spill = \"spill\"",
            "t.toml:4:9: `spill` is not an absolute path: \"spill\"; such as \"/var/lib/lockstep/spill\"",
        ),
        (
            "sessions = 5",
            "t.toml:4:1: unknown key `sessions`; allowed: max, connections, client_buffer, replica_buffer, log_memory, ports, spill, spill_limit",
        ),
    ];
    for (keys, report) in rows {
        assert_eq!(
            said(&file(&format!("[sessions]\n{keys}"))),
            *report,
            "for {keys}"
        );
    }
}

#[test]
fn wrong_values_in_the_engine_section_are_named_with_what_is_allowed() {
    let rows: &[(&str, &[&str])] = &[
        (
            "socket = \"run/e.sock\"",
            &[
                "t.toml:3:10: `socket` is not an absolute path: \"run/e.sock\"; such as \"/run/lockstep/engine.sock\"",
            ],
        ),
        (
            "poll = \"adaptve\"",
            &[
                "t.toml:3:8: `poll` cannot be `adaptve`; did you mean `adaptive`? (allowed: busy, adaptive, interrupt)",
            ],
        ),
        (
            "flows_ipv4 = 1000\nflows_ipv6 = -1",
            &[
                "t.toml:3:14: `flows_ipv4` cannot be 1000; allowed: 1024 to 67108864",
                "t.toml:4:14: `flows_ipv6` cannot be -1; allowed: 1024 to 67108864",
            ],
        ),
        (
            "umem_frames = 1000",
            &[
                "t.toml:3:15: `umem_frames` cannot be 1000; allowed: a power of two from 256 to 1048576",
            ],
        ),
        (
            "umem_frames = 2097152",
            &[
                "t.toml:3:15: `umem_frames` cannot be 2097152; allowed: a power of two from 256 to 1048576",
            ],
        ),
        (
            "frame_size = 1024",
            &["t.toml:3:14: `frame_size` cannot be 1024; allowed: 2048, 4096"],
        ),
        (
            "watchdog = \"1 second\"",
            &[
                "t.toml:3:12: `watchdog` cannot be \"1 second\"; a duration is a whole number and ms, s, m or h, such as \"500ms\" or \"5m\"",
            ],
        ),
        (
            "watchdog = \"2h\"",
            &["t.toml:3:12: `watchdog` cannot be \"2h\"; allowed: 10ms to 1m"],
        ),
        (
            "watchdog = 1",
            &["t.toml:3:12: `watchdog` cannot be `1`; it takes a string"],
        ),
        (
            "adresses = []",
            &[
                "t.toml:3:1: unknown key `adresses`; did you mean `addresses`? (allowed: socket, pin_dir, addresses, poll, receive, spread, flows_ipv4, flows_ipv6, umem_frames, frame_size, watchdog)",
            ],
        ),
    ];
    for (keys, report) in rows {
        assert_eq!(said(&file(keys)), report.join("\n"), "for {keys}");
    }
    let long = format!("socket = \"/{}\"", "s".repeat(107));
    assert_eq!(
        said(&file(&long)),
        "t.toml:3:10: `socket` is not a path that the kernel takes; at most 107 bytes, none of them 0"
    );
}

#[test]
fn wrong_addresses_are_named_one_by_one() {
    let of = |list: &str| file("").replace("\"192.0.2.10\"", list);
    assert_eq!(
        said(&of(
            "\"192.0.2.1\", \"192.0.2.1/24\", \"192.0.2.1\", \"ff02::1\", \"127.0.0.1\""
        )),
        "t.toml:2:27: \"192.0.2.1/24\" is not an IP address; without a prefix length or a port, such as \"192.0.2.10\"\n\
         t.toml:2:43: address 192.0.2.1 is named twice\n\
         t.toml:2:56: ff02::1 cannot be an engine address; a unicast address that the network routes to this host\n\
         t.toml:2:67: 127.0.0.1 cannot be an engine address; a unicast address that the network routes to this host"
    );
    assert_eq!(
        said(&of("")),
        "t.toml:2:13: `addresses` is empty; tunnels need an outer source: one IPv4 address, one IPv6 address, or both"
    );
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.1.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "::ffff:192.0.2.1",
    ] {
        assert!(!Addresses::is_usable(text.parse().unwrap()), "{text}");
    }
}

const ENGINE: &str = "[engine]\naddresses = [\"192.0.2.10\"]\n";

#[test]
fn rules_between_interfaces_queues_and_workers_name_both_places() {
    let eth = |names: &[&str]| -> String {
        let sections = names
            .iter()
            .map(|n| format!("[[interface]]\nname = \"{n}\"\n"));
        format!("{ENGINE}{}", sections.collect::<String>())
    };
    let rows: &[(String, &[&str])] = &[
        (
            ENGINE.to_owned(),
            &[
                "t.toml: there is no [[interface]]; `lockstep topology detect` proposes some for this host",
                "t.toml: there is no [[worker]]; `lockstep topology detect` proposes some for this host",
            ],
        ),
        (
            eth(&["eth0"])
                + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 1\nqueues = [\"eth0:1\"]\n",
            &["t.toml:9:8: core 1 has a worker already, line 6; one worker a core"],
        ),
        (
            eth(&["eth0"])
                + "[[worker]]\ncore = 1\nqueues = [\"eth0:0-1\"]\n[[worker]]\ncore = 2\nqueues = [\"eth0:1-2\"]\n",
            &["t.toml:10:11: queue eth0:1 is polled by the worker on core 1 already, line 6"],
        ),
        (
            eth(&["eth0"]) + "[[worker]]\ncore = 1\nqueues = [\"eth0:0-1\", \"eth0:0\"]\n",
            &["t.toml:7:23: queue eth0:0 is named twice by the worker on core 1"],
        ),
        (
            eth(&["eth0"]) + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\", \"eht0:0-3\"]\n",
            &["t.toml:7:21: there is no [[interface]] eht0; did you mean `eth0`? (allowed: eth0)"],
        ),
        (
            eth(&["eth0", "eth1"])
                + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 2\nqueues = [\"eth0:1\"]\n",
            &["t.toml:6:8: no worker polls eth1; add \"eth1:0\" to the `queues` of a worker"],
        ),
        (
            eth(&["eth0", "eth1"])
                + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 2\nqueues = [\"eth0:1\", \"eth1:0\"]\n",
            &[
                "t.toml:8:8: the worker on core 1 polls no queue of eth1; it could not send there: give each worker a queue of each interface",
            ],
        ),
        (
            eth(&["eth0"])
                + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 2\nqueues = []\n",
            &[
                "t.toml:9:8: the worker on core 2 polls no queue of eth0; it could not send there: give each worker a queue of each interface, or have packets handed to it (`spread = \"rps\"`)",
            ],
        ),
        (
            eth(&["eth0"]) + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\nprocess = false\n",
            &[
                "t.toml:6:8: the worker on core 1 would not process what it receives; `process = false` is for `spread = \"rps\"`, where it hands packets to others",
            ],
        ),
        (
            eth(&["eth0", "eth0"]) + "[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n",
            &["t.toml:6:8: interface eth0 is there already, line 4"],
        ),
        (
            eth(&["eth0"]) + "[[worker]]\ncore = 1\nqueues = [\"eth0:0-99\"]\n",
            &[
                "t.toml:6:8: 8192 frames are too few for the 100 queues of the worker on core 1; `umem_frames` of 16384 at least, 128 a queue, or fewer queues a worker",
            ],
        ),
        (
            eth(&["eth0", "a name"])
                + "[[worker]]\ncore = 9000\nqueues = [\"eth0\", \"eth0:2-1\", \"eth0:+1\", \"eth0:4096\"]\n",
            &[
                "t.toml:6:8: \"a name\" cannot be an interface; allowed: 1 to 15 characters without `/`, `:` and spaces",
                "t.toml:8:8: `core` cannot be 9000; allowed: 0 to 8191",
                "t.toml:9:11: \"eth0\" names no queues; queues are written INTERFACE:QUEUE or INTERFACE:FIRST-LAST, queues 0 to 4095",
                "t.toml:9:19: \"eth0:2-1\" names no queues; queues are written INTERFACE:QUEUE or INTERFACE:FIRST-LAST, queues 0 to 4095",
                "t.toml:9:31: \"eth0:+1\" names no queues; queues are written INTERFACE:QUEUE or INTERFACE:FIRST-LAST, queues 0 to 4095",
                "t.toml:9:42: \"eth0:4096\" names no queues; queues are written INTERFACE:QUEUE or INTERFACE:FIRST-LAST, queues 0 to 4095",
            ],
        ),
    ];
    for (text, report) in rows {
        // Interfaces that were left out as wrong must not be reported as missing too.
        let report = report.join("\n");
        assert_eq!(said(text), report, "for:\n{text}");
    }
}

#[test]
fn errors_of_values_and_of_rules_are_listed_together() {
    let text = "[engine]\naddresses = []\nframe_size = 1\n[[interface]]\nname = \"eth0\"\n\
                [[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n[[worker]]\ncore = 1\nqueues = [\"eth0:0\"]\n";
    let report = said(text);
    let places: Vec<&str> = report
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["t.toml:2:13", "t.toml:3:14", "t.toml:10:8", "t.toml:11:11"]
    );
}

#[test]
fn parts_are_held_to_the_same_rules_as_a_file() {
    let topology = Topology::parse("t.toml", &file("")).unwrap();
    let interfaces = topology.interfaces().to_vec();
    let twice = [topology.workers(), topology.workers()].concat();
    let found = Topology::new(
        topology.engine().clone(),
        Sessions::default(),
        interfaces,
        twice,
    )
    .unwrap_err();
    assert_eq!(
        found.to_string(),
        "topology: core 1 has a worker already; one worker a core\n\
         topology: queue eth0:0 is polled by the worker on core 1 already"
    );
}

#[test]
fn the_file_of_the_documentation_is_right() {
    let documentation = include_str!("lib.rs");
    let block = documentation.split("//! ```").nth(1).unwrap();
    let text: String = block
        .lines()
        .skip(1)
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
        .collect();
    let topology = Topology::parse("t.toml", &text).unwrap();
    assert_eq!(topology.workers()[0].queues_text(), "eth0:0 eth1:0-1");
}

#[test]
fn full_nat_has_ports_of_its_own() {
    let nat = |keys: &str| file(&format!("[nat]\n{keys}"));
    let topology = Topology::parse("t.toml", &nat("ports = \"2000-9999\"")).unwrap();
    assert_eq!(topology.nat().ports.share(0, 2), 2_000..=5_999);
    assert_eq!(
        Topology::parse("t.toml", &render(&topology)).unwrap(),
        topology
    );
    let rows = [
        (
            "ports = \"80-90\"",
            "t.toml:4:9: `ports` cannot be \"80-90\"; allowed: FIRST-LAST, ports 1024 to 65535, such as \"16384-65535\"",
        ),
        (
            "ports = \"2000-2062\"",
            "t.toml:4:9: [nat] ports 2000-2062 are too few for 1 workers; 64 at least, 64 a worker",
        ),
        (
            "ports = \"2000-16384\"",
            "t.toml:4:9: [nat] ports 2000-16384 and [sessions] ports 16384-65535 overlap; a port of an engine address is either's; make one of the ranges smaller",
        ),
        (
            "port = 5",
            "t.toml:4:1: unknown key `port`; did you mean `ports`? (allowed: ports)",
        ),
    ];
    for (keys, report) in rows {
        assert_eq!(said(&nat(keys)), report, "for {keys}");
    }
}

#[test]
fn memory_is_counted_by_the_sizes_of_the_parts() {
    let topology = Topology::parse("t.toml", &file("")).unwrap();
    let memory = WorkerMemory::of(topology.engine(), &topology.workers()[0]);
    assert_eq!(memory.umem, 16 << 20);
    // 42 bytes for each of 1,600,000 slots, and 74 for each of 400,000; 1 for each 8 of both; and
    // 640 KiB for the spliced flows of each table.
    assert_eq!(memory.flows, 67_400_000 + 29_650_000 + 2 * 655_360);
    assert_eq!(total_memory(&topology), memory.total());
    assert!(memory.flows < 128 << 20, "the assignment's limit");
}

#[test]
fn a_worker_that_sleeps_at_once_takes_nothing_in() {
    let text = file("").replacen("[engine]", "[engine]\nreceive = \"worker\"", 1);
    assert_eq!(
        Topology::parse("t.toml", &text).unwrap().engine().receive,
        Receive::Worker
    );
    let text = text.replacen("[engine]", "[engine]\npoll = \"interrupt\"", 1);
    assert_eq!(
        said(&text),
        "t.toml: a worker that sleeps (`poll = \"interrupt\"`) cannot take packets in itself (`receive = \"worker\"`); poll = \"adaptive\" or \"busy\", or receive = \"kernel\""
    );
}

#[test]
fn a_rendered_file_explains_every_key() {
    let text = render(&Topology::parse("t.toml", &file("")).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(lines[at - 1].starts_with("# "), "{line}");
        }
    }
    for key in [
        "socket",
        "pin_dir",
        "addresses",
        "poll",
        "receive",
        "flows_ipv4",
        "flows_ipv6",
        "umem_frames",
        "frame_size",
        "watchdog",
        "max",
        "connections",
        "client_buffer",
        "replica_buffer",
        "log_memory",
        "ports",
        "spill_limit",
        "# spill",
        "name",
        "mode",
        "core",
        "queues",
        "spread",
        "process",
    ] {
        assert!(text.contains(&format!("\n{key} = ")), "{key}");
    }
}

/// Under RPS, which replaces the file's last line but for its workers.
fn rps(workers: &str) -> String {
    format!(
        "[engine]\naddresses = [\"192.0.2.10\"]\nspread = \"rps\"\n\
         [[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth1\"\n{workers}"
    )
}

#[test]
fn under_rps_workers_may_only_receive_or_only_process() {
    let text = rps(
        "[[worker]]\ncore = 1\nqueues = [\"eth0:0\", \"eth1:0\"]\nprocess = false\n\
                    [[worker]]\ncore = 2\n[[worker]]\ncore = 3\nqueues = []\n",
    );
    let topology = Topology::parse("t.toml", &text).unwrap();
    assert_eq!(topology.engine().spread, Spread::Rps);
    assert_eq!(topology.processing(), [1, 2]);
    let memory = topology.workers().iter();
    let memory = memory.map(|worker| WorkerMemory::of(topology.engine(), worker));
    let has: Vec<_> = memory.map(|m| (m.umem > 0, m.flows > 0)).collect();
    assert_eq!(has, [(true, false), (false, true), (false, true)]);
}

#[test]
fn workers_that_cannot_do_their_part_under_rps_are_named() {
    let rows = [
        (
            "[[worker]]\ncore = 1\nqueues = [\"eth0:0\", \"eth1:0\"]\n[[worker]]\ncore = 2\nprocess = false\n",
            "t.toml:12:8: the worker on core 2 neither receives nor processes; give it `queues`, or leave `process = false` out",
        ),
        (
            "[[worker]]\ncore = 1\nqueues = [\"eth0:0\", \"eth1:0\"]\nprocess = false\n",
            "t.toml:9:8: no worker processes packets; leave `process = false` out where one shall, or add a [[worker]] without `queues`",
        ),
        (
            "[[worker]]\ncore = 1\nqueues = [\"eth0:0\", \"eth1:0\"]\n[[worker]]\ncore = 2\nqueues = [\"eth1:1\"]\n",
            "t.toml:12:8: the worker on core 2 polls no queue of eth0; it could not send there: give each worker a queue of each interface",
        ),
        (
            "[[worker]]\ncore = 1\n",
            "t.toml:5:8: no worker polls eth0; add \"eth0:0\" to the `queues` of a worker\n\
             t.toml:7:8: no worker polls eth1; add \"eth1:0\" to the `queues` of a worker",
        ),
    ];
    for (workers, expected) in rows {
        assert_eq!(said(&rps(workers)), expected, "{workers}");
    }
}
