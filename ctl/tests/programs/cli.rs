//! The commands as processes: what they print, and their exit codes.

use crate::common::{FakeEngine, Place, wait_for, web, write};
use serde_json::json;

const ONE: &[&str] = &["10.0.0.1"];
const TWO: &[&str] = &["10.0.0.1", "10.0.0.2"];

/// An engine, and a daemon that has put a file in force.
fn running(place: &Place) -> (FakeEngine, crate::common::Daemon) {
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || place.status("/daemon/epoch") == 1);
    (engine, daemon)
}

#[test]
fn check_lists_every_error_of_a_file() {
    let place = Place::new(&web(TWO));
    let good = place.services();
    place
        .lockstep(&["check", good.to_str().unwrap()])
        .expect(0, &["no errors: 1 service, 1 VIP, 2 backends"]);
    write(&place.path("bad.toml"), &web(&["10.0.0.1:80", "x"]));
    let bad = place.lockstep(&["check", "bad.toml"]);
    bad.expect(1, &["bad.toml:4:25: `address`", "bad.toml:4:54: `address`"]);
    assert_eq!(bad.out.lines().count(), 2, "{bad:?}");
    let json = place.lockstep(&["check", "bad.toml", "--output", "json"]);
    assert_eq!((json.code, json.json()["ok"].clone()), (1, json!(false)));
    assert_eq!(json.json()["diagnostics"][1]["line"], 4);
    assert_eq!(json.json()["diagnostics"][1]["severity"], "error");
    place
        .lockstep(&["check", "missing.toml"])
        .expect(2, &["cannot read missing.toml"]);
}

#[test]
fn check_says_what_a_file_was_read_as_and_refuses_to_guess() {
    let place = Place::new("service = []");
    write(
        &place.path("x.toml"),
        "[metric]\nlisten = \"127.0.0.1:9478\"\n",
    );
    let near = place.lockstep(&["check", "x.toml"]);
    near.expect(
        1,
        &[
            "did you mean `metrics`?",
            "x.toml: read as a lockstepd.toml",
        ],
    );
    assert!(!near.out.contains("read as"), "{near:?}");
    let json = place
        .lockstep(&["check", "x.toml", "--output", "json"])
        .json();
    assert_eq!(json["kind"], "lockstepd");
    write(&place.path("empty.toml"), "");
    let empty = place.lockstep(&["check", "empty.toml"]);
    empty.expect(2, &["cannot tell what empty.toml is", "--kind"]);
    let told = place.lockstep(&["check", "empty.toml", "--kind", "lockstepd"]);
    told.expect(0, &["no errors"]);
    place
        .lockstep(&["apply", "empty.toml"])
        .expect(2, &["cannot tell what"]);
}

#[test]
fn check_compares_the_files_of_a_balancer() {
    let place = Place::new("service = []");
    let topology = "[engine]\naddresses = [\"10.0.0.2\"]\n[[interface]]\nname = \"eth0\"\n\
                    [[worker]]\ncore = 0\nqueues = [\"eth0:0\"]\n";
    write(&place.path("t.toml"), topology);
    write(&place.path("s.toml"), &web(TWO));
    write(
        &place.path("c.toml"),
        "[metrics]\nlisten = \"10.0.0.2:9478\"\n",
    );
    let all = place.lockstep(&["check", "t.toml", "s.toml", "c.toml"]);
    all.expect(
        1,
        &["s.toml:4:51: service web: backend 10.0.0.2 is an engine address"],
    );
    all.expect(
        1,
        &["c.toml:2:10: [metrics] listens at 10.0.0.2:9478, an engine address"],
    );
    all.expect(1, &["t.toml: no errors: 1 worker, 1 interface"]);
    let json = place
        .lockstep(&["check", "s.toml", "t.toml", "--output", "json"])
        .json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["files"][0]["diagnostics"][0]["line"], 4);
    assert_eq!(json["files"][1]["ok"], true);
    place
        .lockstep(&["check", "s.toml", "c.toml"])
        .expect(0, &["1 service", "lockstepd"]);
    let twice = place.lockstep(&["check", "s.toml", "s.toml"]);
    twice.expect(2, &["s.toml and s.toml are both a services.toml"]);
}

#[test]
fn check_knows_a_topology_by_its_keys() {
    let place = Place::new("service = []");
    write(&place.path("t.toml"), "[[worker]]\ncore = 0\nquues = []\n");
    let named = ["t.toml:3:1: unknown key `quues`; did you mean `queues`?"];
    place.lockstep(&["check", "t.toml"]).expect(1, &named);
    place
        .lockstep(&["topology", "check", "t.toml"])
        .expect(1, &named);
    place
        .lockstep(&["topology", "show", "t.toml"])
        .expect(1, &named);
    let as_services = place.lockstep(&["check", "--kind", "services", "t.toml"]);
    as_services.expect(1, &["unknown key `worker`"]);
}

#[test]
fn a_topology_is_compared_with_this_host() {
    let place = Place::new("service = []");
    let topology = "[engine]\naddresses = [\"192.0.2.10\"]\n[[interface]]\nname = \"nosuchdev0\"\n\
                    [[worker]]\ncore = 0\nqueues = [\"nosuchdev0:0\"]\n";
    write(&place.path("t.toml"), topology);
    place
        .lockstep(&["check", "t.toml"])
        .expect(0, &["no errors: 1 worker, 1 interface"]);
    place
        .lockstep(&["topology", "check", "t.toml"])
        .expect(1, &["t.toml:", "nosuchdev0"]);
    let shown = place.lockstep(&["topology", "show", "t.toml", "--output", "json"]);
    assert_eq!(
        shown.json()["workers"][0]["queues"],
        json!(["nosuchdev0:0"])
    );
    let refused = place.lockstep(&["topology", "detect", "--interface", "nosuchdev0"]);
    refused.expect(1, &["nosuchdev0"]);
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    let place = Place::new("service = []");
    for arguments in [
        &["frobnicate"][..],
        &["drain", "10.0.0.1"],
        &["drain", "10.0.0.1", "--deadline", "60"],
        &["session", "nonsense"],
        &["session", "256-1"],
        &["switchover", "foo", "--to", "s1"],
        &["flows", "--client", "nope"],
        &["flows", "--client", "10.0.0.0/33"],
        &["flows", "--client", "10.0.0.0/x"],
        &["sessions", "--client", "nope/8"],
        &["explain"],
        &["explain", "--from", "198.51.100.7:1"],
        &[
            "explain",
            "--from",
            "198.51.100.7:1",
            "--to",
            "[2001:db8::1]:80",
        ],
        &[
            "explain",
            "--pcap",
            "x.pcap",
            "--from",
            "198.51.100.7:1",
            "--to",
            "203.0.113.10:80",
        ],
    ] {
        assert_eq!(place.lockstep(arguments).code, 2, "{arguments:?}");
    }
    place
        .lockstep(&["--help"])
        .expect(0, &["Exit codes:", "3  the daemon or the engine"]);
}

#[test]
fn who_is_not_running_is_named_with_what_to_do() {
    let place = Place::new(&web(ONE));
    let engine = format!(
        "lockstep-engine is not running (no socket at {}); start it with `lockstep-engine`",
        place.engine_socket().display()
    );
    for arguments in [
        &["flows"][..],
        &["metrics"],
        &[
            "explain",
            "--from",
            "198.51.100.7:1",
            "--to",
            "203.0.113.10:80",
        ],
    ] {
        place.lockstep(arguments).expect(3, &[&engine]);
    }
    let file = place.services();
    let file = file.to_str().unwrap();
    for arguments in [
        &["diff", file][..],
        &["apply", file],
        &["drain", "x", "--deadline", "1s"],
        &["undrain", "x"],
    ] {
        place
            .lockstep(arguments)
            .expect(3, &["lockstepd is not running (no socket at "]);
    }
    let status = place.lockstep(&["status"]);
    status.expect(3, &["lockstep-engine  DOWN", "lockstepd        DOWN"]);
    let json = place.lockstep(&["status", "--output", "json"]);
    assert_eq!((json.code, json.json()["engine"].clone()), (3, json!(null)));
    assert_eq!(json.json()["engine_error"], json!(engine));
}

#[test]
fn status_shows_the_engine_when_the_daemon_is_gone() {
    let place = Place::new(&web(TWO));
    let (_engine, daemon) = running(&place);
    let parts = [
        "lockstep-engine  running  version 0.1.0, up 3h 12m, epoch 1, pid 4242",
        "lockstepd        running",
        "eth0       native-copy  1500 B",
        "203.0.113.10:80/tcp",
        "1,234,567",
        "1.5 GiB",
        "50.0 %",
        "52:54:00:12:34:56 via 10.0.0.1 dev eth0",
        "no_neighbour",
    ];
    place.lockstep(&["status"]).expect(0, &parts);
    daemon.kill();
    let status = place.lockstep(&["status"]);
    status.expect(
        3,
        &[
            "lockstep-engine  running",
            "lockstepd        DOWN",
            "1,234,567",
        ],
    );
    let json = place.lockstep(&["status", "--output", "json"]).json();
    assert_eq!(
        json["engine"]["services"][0]["vips"][0]["vip"],
        "203.0.113.10:80/tcp"
    );
    assert_eq!(
        json["engine"]["services"][0]["backends"][1]["state"],
        "active"
    );
    assert_eq!(json["daemon"], json!(null));
}

#[test]
fn a_flow_table_needs_attention_while_it_is_full_and_no_longer() {
    let place = Place::new(&web(TWO));
    let (engine, _daemon) = running(&place);
    engine.fill(949_999, 12);
    place
        .lockstep(&["status"])
        .expect(0, &["949,999 of 1,000,000"]);
    engine.fill(950_000, 0);
    let attention = "worker 0 has 950,000 of 1,000,000 flows";
    place
        .lockstep(&["status"])
        .expect(1, &["Needs attention", attention]);
}

#[test]
fn sessions_without_protection_need_attention() {
    let place = Place::new(&web(TWO));
    let (engine, _daemon) = running(&place);
    place.lockstep(&["status"]).expect(0, &[]);
    engine.endanger(1_200, 1);
    let lines = [
        "Needs attention",
        "1,200 sessions with fewer replicas in sync than `min_sync`; see `lockstep sessions`",
        "1 session with too few replicas to go on",
    ];
    place.lockstep(&["status"]).expect(1, &lines);
    let json = place.lockstep(&["status", "--output", "json"]).json();
    assert_eq!(json["engine"]["sessions_unprotected"], 1_200);
    assert_eq!(json["engine"]["sessions_orphaned"], 1);
}

#[test]
fn a_hung_engine_is_as_one_that_cannot_be_reached() {
    let place = Place::new(&web(TWO));
    let (engine, _daemon) = running(&place);
    engine.hang();
    write(&place.path("new.toml"), &web(ONE));
    place
        .lockstep(&["diff", "new.toml"])
        .expect(3, &["the engine has not answered for 10s"]);
}

#[test]
fn diff_of_a_replicated_service_says_what_becomes_of_its_sessions() {
    let replicated = |backends| web(backends).replace("vips", "mode = \"replicate\"\nvips");
    let place = Place::new(&replicated(TWO));
    let (_engine, _daemon) = running(&place);
    write(&place.path("new.toml"), &replicated(ONE));
    let diff = place.lockstep(&["diff", "new.toml"]);
    let expected = "service web: changed\n\
                    \x20 - backend 10.0.0.2 weight 100\n\
                    \x20 sessions under way keep their policy: a new replica joins them where \
                    that says `rejoin`, one that is taken out leaves them\n";
    assert_eq!(
        (diff.code, diff.out.as_str()),
        (1, expected),
        "{}",
        diff.err
    );
}

#[test]
fn diff_says_what_would_change_and_move() {
    let place = Place::new(&web(TWO));
    let (engine, _daemon) = running(&place);
    let same = place.services();
    place
        .lockstep(&["diff", same.to_str().unwrap()])
        .expect(0, &["no change", "epoch 1"]);
    let text = web(&["10.0.0.1", "10.0.0.3"]).replace("\"10.0.0.1\"", "\"10.0.0.1\", weight = 7");
    write(&place.path("new.toml"), &text);
    let diff = place.lockstep(&["diff", "new.toml"]);
    let expected = "service web: changed\n\
                    \x20 ~ backend 10.0.0.1: weight 100 -> 7\n\
                    \x20 - backend 10.0.0.2 weight 100\n\
                    \x20 + backend 10.0.0.3 weight 100\n\
                    \x20 moves 25.0 % of new flows, 56 of 1,234 live flows\n\
                    \x20 BACKEND   ADDRESS   SHARE NOW  SHARE THEN\n\
                    \x20 10.0.0.1  10.0.0.1     50.0 %      33.3 %\n";
    assert_eq!(
        (diff.code, diff.out.as_str()),
        (1, expected),
        "{}",
        diff.err
    );
    let json = place
        .lockstep(&["diff", "new.toml", "--output", "json"])
        .json();
    assert_eq!(json["services"][0]["flows_moved"], 56);
    assert_eq!(
        json["services"][0]["changes"][1],
        "- backend 10.0.0.2 weight 100"
    );
    assert_eq!(engine.applied(), 1, "nothing was changed");
    write(&place.path("bad.toml"), "[[service]]");
    place
        .lockstep(&["diff", "bad.toml"])
        .expect(1, &["bad.toml:1:1: `name` is missing"]);
    place
        .lockstep(&["apply", "bad.toml"])
        .expect(1, &["bad.toml:1:1: `name` is missing"]);
    assert_eq!(engine.applied(), 1, "nothing was changed");
}

#[test]
fn diff_says_what_changes_in_how_backends_are_checked() {
    let check = |interval: &str| {
        let health = format!("health = {{ type = \"tcp\", interval = \"{interval}\" }}\n");
        web(TWO) + &health + "all_down = \"drop\"\n"
    };
    let place = Place::new(&check("1m"));
    let (_engine, _daemon) = running(&place);
    write(&place.path("same.toml"), &check("60s"));
    place
        .lockstep(&["diff", "same.toml"])
        .expect(0, &["no change"]);
    let new = check("2m").replace("\"drop\"", "\"keep\"");
    write(&place.path("new.toml"), &new);
    let changes = [
        "service web: changed",
        "~ all_down: \"drop\" -> \"keep\"",
        "~ health.interval: \"1m\" -> \"2m\"",
    ];
    place.lockstep(&["diff", "new.toml"]).expect(1, &changes);
    let json = place
        .lockstep(&["diff", "new.toml", "--output", "json"])
        .json();
    assert_eq!(json["services"][0]["changes"][1], changes[2]);
    place.lockstep(&["apply", "new.toml"]).expect(0, &[]);
    place
        .lockstep(&["diff", "new.toml"])
        .expect(0, &["no change"]);
}

#[test]
fn diff_counts_drains_in() {
    let place = Place::new(&web(TWO));
    let (_engine, _daemon) = running(&place);
    place
        .lockstep(&["drain", "10.0.0.1", "--deadline", "0s"])
        .expect(0, &[]);
    let same = place.services();
    place
        .lockstep(&["diff", same.to_str().unwrap()])
        .expect(0, &["no change", "epoch 2"]);
}

#[test]
fn flows_are_listed_and_filtered() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    let all = place.lockstep(&["flows"]);
    all.expect(
        0,
        &[
            "198.51.100.7:40000",
            "[2001:db8::7]:40000",
            "established  1m 1s",
            "2 flows",
        ],
    );
    let dns = place
        .lockstep(&["flows", "--service", "dns", "--output", "json"])
        .json();
    assert_eq!(dns.as_array().unwrap().len(), 1);
    assert_eq!(dns[0]["client"], "2001:db8::7");
    assert_eq!(
        (dns[0]["idle_seconds"].clone(), dns[0]["worker"].clone()),
        (json!(61), json!(1))
    );
    place
        .lockstep(&["flows", "--limit", "1"])
        .expect(0, &["--limit 0 shows all"]);
    place
        .lockstep(&["flows", "--service", "none"])
        .expect(1, &["there is no service none"]);
}

#[test]
fn flows_that_cannot_be_told_are_an_error() {
    let place = Place::new(&web(TWO));
    let (engine, _daemon) = running(&place);
    engine.silence("worker 0 did not answer; ask again");
    let flows = place.lockstep(&["flows"]);
    flows.expect(3, &["worker 0 did not answer; ask again"]);
    assert_eq!(flows.out, "", "a part could be taken for all");
    write(&place.path("new.toml"), &web(ONE));
    let diff = place.lockstep(&["diff", "new.toml"]);
    diff.expect(3, &["worker 0 did not answer; ask again"]);
    assert_eq!(diff.out, "");
}

#[test]
fn explain_says_where_a_packet_goes_and_why() {
    let place = Place::new(&web(ONE));
    let (_engine, _daemon) = running(&place);
    let from = ["explain", "--from", "198.51.100.7:40000", "--to"];
    let forwarded =
        place.lockstep(&[&from[..], &["203.0.113.10:80", "--protocol", "tcp"]].concat());
    let text = "tcp 198.51.100.7:40000 > 203.0.113.10:80\n  parsed\n  Maglev entry 7\n\
                forward: web, 10.0.0.1\n";
    assert_eq!((forwarded.code, forwarded.out.as_str()), (0, text));
    let dropped = place.lockstep(&[&from[..], &["203.0.113.10:81"]].concat());
    dropped.expect(1, &["dropped for no_vip", "drop: no_vip"]);
    let json = place.lockstep(&[&from[..], &["203.0.113.10:81", "--output", "json"]].concat());
    assert_eq!(
        (json.code, json.json()["reason"].clone()),
        (1, json!("no_vip"))
    );
}

/// A capture in the classic pcap format, little-endian, microseconds.
fn capture(link: u32, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0]);
    for word in [0, 0, 65_535, link] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        let captured = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, captured, captured + 4] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(*frame);
    }
    bytes
}

#[test]
fn explain_goes_through_a_capture() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    std::fs::write(
        place.path("c.pcap"),
        capture(1, &[&[0; 60], &[0; 5], &[0; 60]]),
    )
    .unwrap();
    let text = place.lockstep(&["explain", "--pcap", "c.pcap"]);
    let parts = [
        "      1  arp  pass  not for a VIP  (4 bytes of it were not captured)\n",
        "      2  5 bytes  drop: truncated  dropped for truncated",
        "3 packets",
        "drop           1\npass           2\n",
        "truncated        1\n",
    ];
    text.expect(1, &parts);
    let json = place
        .lockstep(&["explain", "--pcap", "c.pcap", "--output", "json"])
        .json();
    assert_eq!(
        json["summary"],
        json!({
            "packets": 3,
            "verdicts": { "drop": 1, "pass": 2 },
            "drops": { "truncated": 1 },
            "backends": {},
        })
    );
    assert_eq!(json["packets"][1]["number"], 2);

    let long: Vec<&[u8]> = vec![&[0; 60]; 5_000];
    std::fs::write(place.path("long.pcap"), capture(1, &long)).unwrap();
    place
        .lockstep(&["explain", "--pcap", "long.pcap"])
        .expect(0, &["5,000 packets"]);
    std::fs::write(place.path("sll.pcap"), capture(113, &[&[0; 60]])).unwrap();
    place
        .lockstep(&["explain", "--pcap", "sll.pcap"])
        .expect(2, &["Ethernet is needed"]);
    std::fs::write(place.path("empty.pcap"), capture(1, &[])).unwrap();
    let empty = place.lockstep(&["explain", "--pcap", "empty.pcap", "--output", "json"]);
    assert_eq!(
        (empty.code, empty.json()["packets"].clone()),
        (0, json!([]))
    );
}

#[test]
fn metrics_are_printed_as_they_are() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    let metrics = place.lockstep(&["metrics"]);
    assert_eq!(
        (metrics.code, metrics.out.as_str()),
        (0, "# TYPE lockstep_epoch gauge\nlockstep_epoch 1\n")
    );
}

#[test]
fn decap_names_an_interface_that_is_not_there() {
    let place = Place::new(&web(ONE));
    let address = ["--address", "10.0.0.1"];
    let attach = place.lockstep(&[&["decap", "attach", "nosuchdev0"][..], &address].concat());
    attach.expect(1, &["nosuchdev0"]);
    place
        .lockstep(&["decap", "attach", "nosuchdev0"])
        .expect(1, &["no interface nosuchdev0"]);
    place
        .lockstep(&["decap", "detach", "nosuchdev0"])
        .expect(1, &["nosuchdev0"]);
}

#[test]
fn completions_are_there_for_the_shells() {
    let place = Place::new(&web(ONE));
    for shell in ["bash", "zsh", "fish"] {
        place
            .lockstep(&["completions", shell])
            .expect(0, &["lockstep", "undrain"]);
    }
}

#[test]
fn output_that_nobody_can_take_ends_no_program_abnormally() {
    let full = || {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full");
        std::process::Stdio::from(file.unwrap())
    };
    let run = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdout(full()).stderr(full());
        command.status().unwrap().code()
    };
    let lockstep = env!("CARGO_BIN_EXE_lockstep");
    // A panic would be code 101, an abort none at all.
    for arguments in [
        &["check", "/nowhere/services.toml"][..],
        &["--engine-socket", "/nowhere/e.sock", "flows"],
        &[
            "--engine-socket",
            "/nowhere/e.sock",
            "--daemon-socket",
            "/nowhere/d.sock",
            "status",
        ],
    ] {
        let code = run(lockstep, arguments);
        assert!(matches!(code, Some(1..=3)), "{arguments:?}: {code:?}");
    }
    let daemon = env!("CARGO_BIN_EXE_lockstepd");
    let code = run(
        daemon,
        &[
            "--socket",
            "/proc/nowhere/d.sock",
            "--state-dir",
            "/proc/nowhere",
        ],
    );
    assert_eq!(code, Some(1));
}
