//! What a running daemon may do that others may not. Needs root.

use crate::common::net::Net;
use crate::common::{Place, wait_for};
use std::collections::BTreeMap;
use std::fs;

/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW (capabilities(7)).
const KEPT: u64 = 1 << 10 | 1 << 12 | 1 << 13;

/// A line of each thread's status, by the thread's name.
fn of_threads(pid: u32, line: &str) -> Vec<(String, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")));
    // One that has ended meanwhile has no file.
    let texts = texts.filter_map(Result::ok);
    texts
        .map(|text| {
            let lines = text.lines().filter_map(|line| line.split_once(":\t"));
            let lines: BTreeMap<&str, &str> = lines.collect();
            let bits = u64::from_str_radix(lines[line], 16).unwrap();
            (lines["Name"].to_owned(), bits)
        })
        .collect()
}

/// The capabilities of the thread that has some; no other has any, and none has them in force.
fn permitted(pid: u32) -> u64 {
    for line in ["CapEff", "CapInh", "CapAmb", "CapBnd"] {
        for (thread, bits) in of_threads(pid, line) {
            assert_eq!(bits, 0, "{line} of {thread}");
        }
    }
    for (thread, set) in of_threads(pid, "NoNewPrivs") {
        assert_eq!(set, 1, "{thread} may get more");
    }
    let (keepers, others): (Vec<_>, Vec<_>) = of_threads(pid, "CapPrm")
        .into_iter()
        .partition(|(thread, _)| thread == "capabilities");
    assert!(others.len() > 1, "{others:?}");
    for (thread, bits) in others {
        assert_eq!(bits, 0, "{thread}");
    }
    assert_eq!(keepers.len(), 1);
    keepers[0].1
}

#[test]
fn a_running_daemon_has_no_capability_in_force_and_gives_the_others_up_when_told() {
    let place = Place::new("service = []\n");
    let net = Net::new(&place);
    let daemon = net.daemon(&place);
    wait_for("the daemon", || place.daemon_socket().exists());
    assert_eq!(permitted(daemon.pid()), KEPT);

    // What is configured later gets its socket all the same.
    let metrics = |port: u16| format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n");
    let layer2 = "[layer2]\ninterfaces = [\"lo\"]\nlisten = \"10.99.0.1:600\"\n";
    place.configure(&(metrics(81) + layer2));
    wait_for("a low port", || net.accepts("127.0.0.1", 81));
    wait_for("frames of the link", || {
        let shown = place.lockstep(&["layer2", "--output", "json"]).json();
        shown["interfaces"][0]["mac"] == "00:00:00:00:00:00"
    });
    assert_eq!(permitted(daemon.pid()), KEPT);

    let drop = "[process]\ndrop = [\"net_admin\", \"net_raw\"]\n";
    place.configure(drop);
    wait_for("two are gone", || permitted(daemon.pid()) == 1 << 10);
    // Said no more, it comes back with the next start only.
    place.configure("[process]\ndrop = [\"net_bind_service\"]\n");
    wait_for("all are gone", || permitted(daemon.pid()) == 0);
    place.configure(&metrics(82));
    for said in [
        "cannot listen at 127.0.0.1:82",
        "lockstepd has no CAP_NET_BIND_SERVICE, or gave it up by `drop` in [process]",
        "comes back with a restart",
    ] {
        wait_for(said, || daemon.log().contains(said));
    }
}
