//! Attaching, replacing, being killed and cleaning up, on veths of an own network namespace.

// A test that cannot be set up has failed.
#![allow(clippy::unwrap_used)]

mod support;

use libbpf_rs::{MapCore, MapHandle};
use lockstep_bpf::{
    AttachMode, BpfError, Decap, Destination, ModeChoice, Room, Seeds, Steer, SteerOptions,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::*;

fn options(pins: &Path, mode: ModeChoice) -> SteerOptions {
    SteerOptions {
        pin_dir: pins.to_owned(),
        mode,
        deadline: Duration::from_secs(60),
        seeds: Seeds::default(),
    }
}

fn veth() {
    ip("link add lb0 type veth peer name lb1");
    ip("link set lb0 up");
    ip("link set lb1 up");
}

/// The program's number as `ip` sees it, and whether it is in generic mode.
fn attached(interface: &str) -> Option<(u32, bool)> {
    let shown = ip(&format!("-details link show dev {interface}"));
    let id = shown.split_once("prog/xdp id ")?.1;
    let id = id.split_whitespace().next()?.parse().unwrap();
    Some((id, shown.contains("xdpgeneric")))
}

/// The names in a directory, none if it is not there.
fn pinned(pins: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(pins)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const PINS: [&str; 12] = [
    "backends",
    "config2",
    "counters",
    "destinations",
    "heartbeat",
    "locals",
    "pinned",
    "program",
    "ranges",
    "rings",
    "sources",
    "xsks",
];

#[test]
fn a_program_is_attached_pinned_and_removed() {
    isolated(|pins| {
        veth();
        for (choice, mode) in [
            (ModeChoice::Auto, AttachMode::Native),
            (ModeChoice::Native, AttachMode::Native),
            (ModeChoice::Generic, AttachMode::Generic),
        ] {
            let steer = Steer::attach("lb0", &options(pins, choice)).unwrap();
            assert_eq!(steer.mode(), mode);
            assert_eq!(steer.native_refused(), None);
            let (_, generic) = attached("lb0").unwrap();
            assert_eq!(generic, mode == AttachMode::Generic);
            assert_eq!(pinned(&pins.join("lb0")), PINS);
            steer.detach().unwrap();
            assert_eq!(attached("lb0"), None);
            assert!(pinned(pins).is_empty());
        }
    });
}

#[test]
fn an_interface_without_native_xdp_gets_the_generic_one_and_says_why() {
    isolated(|pins| {
        veth();
        ip("link add br.100 type bridge");
        let steer = Steer::attach("br.100", &options(pins, ModeChoice::Auto)).unwrap();
        assert_eq!(steer.mode(), AttachMode::Generic);
        assert!(steer.native_refused().is_some());
        // The BPF file system has no names with dots.
        assert_eq!(pinned(pins), ["br%2E100"]);
        steer.detach().unwrap();

        ip("link set lb0 mtu 9000");
        ip("link set lb1 mtu 9000");
        let result = Steer::attach("lb0", &options(pins, ModeChoice::Native));
        let Err(BpfError::NoXdp {
            mode: AttachMode::Native,
            reason,
            ..
        }) = result
        else {
            panic!("{result:?}");
        };
        // The kernel's own words, from the extended acknowledgement.
        assert!(reason.to_lowercase().contains("mtu"), "{reason}");
        assert!(pinned(pins).is_empty(), "a failed attempt leaves nothing");
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        assert_eq!(steer.native_refused(), Some(reason.as_str()));
        steer.detach().unwrap();
    });
}

#[test]
fn what_a_dropped_engine_left_is_replaced_in_every_mode() {
    isolated(|pins| {
        veth();
        let mut before = None;
        for (choice, generic) in [
            (ModeChoice::Native, false),
            (ModeChoice::Auto, false),
            (ModeChoice::Generic, true),
            (ModeChoice::Generic, true),
            (ModeChoice::Auto, false),
        ] {
            let mut steer = Steer::attach("lb0", &options(pins, choice)).unwrap();
            let map = || MapHandle::from_pinned_path(pins.join("lb0/destinations")).unwrap();
            let left = usize::from(before.is_some());
            assert_eq!(steer.has_taken_over(), left == 1);
            assert_eq!(map().keys().count(), left, "what was steered still is");
            let any = Destination::new(v4(), 0, None);
            steer
                .set_destinations(&[(any, Room::NONE.into())].into())
                .unwrap();
            assert_eq!(map().keys().count(), 1, "the pins are of the maps in use");
            let (id, is_generic) = attached("lb0").unwrap();
            assert_eq!(is_generic, generic);
            assert_ne!(before.replace(id), Some(id));
            drop(steer);
            assert_eq!(attached("lb0"), Some((id, generic)), "stays when dropped");
            assert_eq!(pinned(&pins.join("lb0")), PINS);
        }
        Steer::remove_pinned(pins, "lb0").unwrap();
        assert_eq!(attached("lb0"), None);
        assert!(pinned(pins).is_empty());
        Steer::remove_pinned(pins, "lb0").unwrap();
    });
}

#[test]
fn pins_and_interfaces_may_disappear_under_a_program() {
    isolated(|pins| {
        veth();
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        drop(steer);
        // As when the BPF file system goes away with a mount namespace.
        for name in PINS {
            std::fs::remove_file(pins.join("lb0").join(name)).unwrap();
        }
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        drop(steer);
        ip("link del lb0");
        veth();
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        assert!(attached("lb0").is_some());
        ip("link del lb0");
        steer.detach().unwrap();
        assert!(pinned(pins).is_empty());

        veth();
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        ip("link set lb0 down");
        ip("link set lb0 name renamed");
        steer.detach().unwrap();
        assert_eq!(attached("renamed"), None);
        assert!(pinned(pins).is_empty());
        ip("link del renamed");

        veth();
        drop(Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap());
        ip("link del lb0");
        Steer::remove_pinned(pins, "lb0").unwrap();
        assert!(pinned(pins).is_empty());
    });
}

#[test]
fn maps_of_another_form_or_without_a_program_are_not_taken_over() {
    isolated(|pins| {
        veth();
        let attach = || Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        drop(attach());
        assert!(attach().has_taken_over());
        std::fs::rename(pins.join("lb0/config2"), pins.join("lb0/config1")).unwrap();
        assert!(!attach().has_taken_over());
        std::fs::remove_file(pins.join("lb0/rings")).unwrap();
        assert!(!attach().has_taken_over());
        assert_eq!(pinned(&pins.join("lb0")), PINS);
        ip("link set lb0 xdp off");
        assert!(!attach().has_taken_over(), "nothing was carried");
        assert!(attach().has_taken_over());
    });
}

#[test]
fn interfaces_share_what_is_carried_also_with_their_successors() {
    isolated(|pins| {
        veth();
        ip("link add lb2 type veth peer name lb3");
        let options = options(pins, ModeChoice::Auto);
        let id = |interface: &str, map: &str| {
            let map = MapHandle::from_pinned_path(pins.join(interface).join(map)).unwrap();
            map.info().unwrap().info.id
        };
        let mut rings = None;
        for taken_over in [false, true] {
            let first = Steer::attach("lb0", &options).unwrap();
            let second = Steer::attach_beside(Some(&first), "lb2", &options).unwrap();
            assert_eq!(first.has_taken_over(), taken_over);
            assert_eq!(second.has_taken_over(), taken_over);
            for map in ["rings", "backends", "pinned"] {
                assert_eq!(id("lb0", map), id("lb2", map), "{map}");
            }
            assert_ne!(id("lb0", "destinations"), id("lb2", "destinations"));
            let now = id("lb0", "rings");
            assert_eq!(*rings.get_or_insert(now), now, "the predecessor's");
        }
        // One of them alone is no part of what the first one carries now.
        Steer::remove_pinned(pins, "lb0").unwrap();
        let first = Steer::attach("lb0", &options).unwrap();
        let second = Steer::attach_beside(Some(&first), "lb2", &options).unwrap();
        assert!(!first.has_taken_over() && !second.has_taken_over());
        assert_eq!(id("lb0", "rings"), id("lb2", "rings"));
    });
}

#[test]
fn a_live_engine_keeps_its_interface() {
    isolated(|pins| {
        veth();
        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        let id = attached("lb0");
        for result in [
            Steer::attach("lb0", &options(pins, ModeChoice::Auto)).map(drop),
            Steer::remove_pinned(pins, "lb0"),
        ] {
            assert!(matches!(result, Err(BpfError::InUse { .. })), "{result:?}");
        }
        assert_eq!(attached("lb0"), id);
        steer.detach().unwrap();
    });
}

#[test]
fn somebody_else_s_program_is_named_and_left_alone() {
    isolated(|pins| {
        veth();
        for mode in [ModeChoice::Native, ModeChoice::Generic] {
            let decap = Decap::attach("lb0", &[v4()], None, mode).unwrap();
            let there = attached("lb0");
            let error = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap_err();
            assert!(matches!(error, BpfError::Busy { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("lockstep_decap"), "{text}");
            // What it tells the operator to do works.
            let command = text.split('`').nth(1).unwrap();
            Steer::remove_pinned(pins, "lb0").unwrap();
            assert_eq!(attached("lb0"), there);
            assert!(pinned(pins).is_empty());
            ip(command.strip_prefix("ip ").unwrap());
            assert_eq!(attached("lb0"), None);
            decap.detach().unwrap();
        }
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    isolated(|pins| {
        for error in [
            Steer::attach("nowhere", &options(pins, ModeChoice::Auto)).unwrap_err(),
            Decap::attach("nowhere", &[], None, ModeChoice::Auto).unwrap_err(),
            Decap::open("nowhere").unwrap_err(),
        ] {
            assert!(matches!(error, BpfError::NoInterface { .. }), "{error}");
            assert!(error.to_string().contains("nowhere"));
        }
        veth();
        let error = Decap::open("lb0").unwrap_err();
        assert!(matches!(error, BpfError::NotAttached { .. }), "{error}");
    });
}

#[test]
fn a_bpf_file_system_is_mounted_where_there_is_none_and_hides_no_files() {
    isolated(|_| {
        veth();
        let directory = tempfile::tempdir().unwrap();
        let pins = directory.path().join("run").join("pins");
        let steer = Steer::attach("lb0", &options(&pins, ModeChoice::Auto)).unwrap();
        assert_eq!(pinned(&pins.join("lb0")), PINS);
        steer.detach().unwrap();
        nix::mount::umount(&pins).unwrap();

        std::fs::write(pins.join("precious"), "x").unwrap();
        let error = Steer::attach("lb0", &options(&pins, ModeChoice::Auto)).unwrap_err();
        assert!(matches!(error, BpfError::NoBpffs { .. }), "{error}");
        assert!(pins.join("precious").exists());
        assert_eq!(attached("lb0"), None);
    });
}

#[test]
fn without_privileges_the_error_says_so() {
    isolated(|pins| {
        veth();
        let pins = pins.to_owned();
        let mut child = test_process("child_attaches_without_privileges", &pins);
        let mut said = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert!(
            said.contains("not permitted to load the XDP program"),
            "{said}"
        );
        assert_eq!(attached("lb0"), None);
    });
}

/// The engine had a socket and a destination. Its program stays, but from its death on the packets
/// reach the kernel, here a server on the same host.
#[test]
fn a_killed_engine_leaves_the_kernel_s_path_and_is_replaced() {
    isolated(|pins| {
        veth();
        ip("addr add 192.0.2.10/24 dev lb0");
        let server = UdpSocket::bind((V4, 5353)).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut child = test_process("child_attaches_and_waits", pins);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("attached")));
        let (id, _) = attached("lb0").unwrap();
        let locked = Steer::attach("lb0", &options(pins, ModeChoice::Auto));
        assert!(matches!(locked, Err(BpfError::InUse { .. })), "{locked:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(attached("lb0").map(|program| program.0), Some(id));

        let client = Peer::with_link("lb1", || {
            ip("addr add 192.0.2.1/24 dev lb1");
            ip("link set lb1 up");
            let client = UdpSocket::bind("192.0.2.1:0").unwrap();
            client.send_to(b"anybody there?", (V4, 5353)).unwrap();
        });
        let mut buffer = [0; 64];
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"anybody there?");

        let steer = Steer::attach("lb0", &options(pins, ModeChoice::Auto)).unwrap();
        assert_ne!(attached("lb0").unwrap().0, id);
        steer.beat().unwrap();
        let socket = xdp_socket();
        steer.set_socket(0, socket.as_fd()).unwrap();
        steer.clear_socket(0).unwrap();
        steer.detach().unwrap();
        drop(client);
    });
}

#[test]
fn a_tunnelled_datagram_reaches_a_real_server_s_socket() {
    for mode in [ModeChoice::Native, ModeChoice::Generic] {
        isolated(move |_| {
            veth();
            ip("addr add 10.0.0.5/24 dev lb0");
            ip("link set lo up");
            ip("addr add 192.0.2.10/32 dev lo");
            // Reverse path filters want the client where its packets come from.
            ip("route add 198.51.100.0/24 dev lb0");
            drop(Decap::attach("lb0", &["10.0.0.9".parse().unwrap()], None, mode).unwrap());
            // The second attachment replaces the first one and its addresses.
            drop(Decap::attach("lb0", &["10.0.0.5".parse().unwrap()], None, mode).unwrap());
            let server = UdpSocket::bind((V4, 5353)).unwrap();
            server
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();

            let balancer = Peer::with_link("lb1", || {
                ip("addr add 10.0.0.1/24 dev lb1");
                ip("link set lb1 up");
                // The kernel writes the outer header.
                let tunnel = Socket::new(Domain::IPV4, Type::from(3), Some(Protocol::from(4)));
                let inner = Ip4::new(UDP, udp(5353)).build();
                let end: SocketAddr = "10.0.0.5:0".parse().unwrap();
                tunnel.unwrap().send_to(&inner, &end.into()).unwrap();
            });
            let mut buffer = [0; 64];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"eighteen bytes ...");
            assert_eq!(from.to_string(), "198.51.100.7:50000");

            let decap = Decap::open("lb0").unwrap();
            assert_eq!(decap.counters().unwrap().decapsulated, 1);
            decap.detach().unwrap();
            assert_eq!(attached("lb0"), None);
            let error = Decap::open("lb0").unwrap_err();
            assert!(matches!(error, BpfError::NotAttached { .. }), "{error}");
            drop(balancer);
        });
    }
}

/// This test program again, running one of the ignored tests below in the caller's namespaces.
fn test_process(test: &str, pins: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("LOCKSTEP_TEST_PINS", pins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pins_of_parent() -> std::path::PathBuf {
    std::env::var_os("LOCKSTEP_TEST_PINS").unwrap().into()
}

#[test]
#[ignore = "the process that another test starts and kills"]
fn child_attaches_and_waits() {
    let pins = pins_of_parent();
    let mut steer = Steer::attach("lb0", &options(&pins, ModeChoice::Auto)).unwrap();
    let served = Destination::new(v4(), 5353, Some(UDP));
    let socket = xdp_socket();
    steer
        .set_destinations(&[(served, Room::NONE.into())].into())
        .unwrap();
    steer.set_socket(0, socket.as_fd()).unwrap();
    steer.beat().unwrap();
    println!("attached");
    std::io::stdout().flush().unwrap();
    // Until killed, or until the parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
#[ignore = "the process that another test starts"]
fn child_attaches_without_privileges() {
    let pins = pins_of_parent();
    let nobody = nix::unistd::Uid::from_raw(65_534);
    nix::unistd::setuid(nobody).unwrap();
    println!(
        "{}",
        Steer::attach("lb0", &options(&pins, ModeChoice::Auto)).unwrap_err()
    );
}
