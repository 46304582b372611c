//! `lockstep capture` as a process: lines, JSON, and files that another program reads.

use crate::common::{Place, web};
use std::process::Command;

#[test]
fn a_capture_is_printed_as_lines_or_json() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _engine = place.engine();
    let lines = place.lockstep(&["capture"]);
    lines.expect(
        0,
        &[
            "09:31:14.250  eth0     tcp 198.51.100.7:0 > 203.0.113.10:80  forward to web-1 \
             (10.0.0.1), service web\n",
            "eth1     tcp 198.51.100.7:1 > 203.0.113.10:80  drop no_vip\n",
            "3 packets; 5 more found no room between worker and agent",
        ],
    );
    assert_eq!(lines.out.lines().count(), 3, "{lines:?}");
    let json = place.lockstep(&["capture", "--count", "1", "--output", "json"]);
    assert_eq!(json.json()["backend"], "web-1");
    place
        .lockstep(&["capture", "--vip", "web"])
        .expect(1, &["`web` is no VIP"]);
    place.lockstep(&["capture", "--count", "0"]).expect(2, &[]);
    place
        .lockstep(&["capture", "--time", "0s"])
        .expect(2, &["no time"]);
}

#[test]
fn a_file_is_pcapng_for_other_programs_too() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _engine = place.engine();
    let written = place.lockstep(&["capture", "--write", "out.pcapng", "--snap-length", "64"]);
    written.expect(0, &["3 packets"]);
    assert_eq!(written.out, "");
    let bytes = std::fs::read(place.path("out.pcapng")).unwrap();
    let piped = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["capture", "-w", "-", "--snap-length", "64"])
        .env("LOCKSTEP_ENGINE_SOCKET", place.engine_socket())
        .output()
        .unwrap();
    assert_eq!(piped.stdout, bytes);
    let comment = b"forward to web-1 (10.0.0.1), service web\nparsed";
    assert!(bytes.windows(comment.len()).any(|part| part == comment));

    let tcpdump = Command::new("tcpdump")
        .args(["-n", "-tttt", "-e", "-r"])
        .arg(place.path("out.pcapng"))
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let read = String::from_utf8(tcpdump.stdout).unwrap();
    assert_eq!(read.lines().count(), 3, "{read}");
    assert!(read.contains("2025-11-21 09:31:14.250000"), "{read}");
    assert!(read.contains("length 1000"), "{read}");

    place
        .lockstep(&["capture", "-w", "no/such/place"])
        .expect(2, &["cannot write no/such/place"]);
}

#[test]
fn without_an_engine_it_says_so() {
    let place = Place::new(&web(&["10.0.0.1"]));
    place
        .lockstep(&["capture"])
        .expect(3, &["lockstep-engine is not running"]);
}
