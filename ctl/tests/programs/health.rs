//! The daemon as a process in a network namespace of its own: replicas that answer pings, stop
//! answering, and a daemon that may not ping. Needs root.

use crate::common::{Daemon, FakeEngine, Place, wait_for};
use lockstep_api::HealthVerdict;
use std::fs::File;
use std::process::Command;

/// One service that replicates and one that does not, over the same backends. The third address
/// is nobody's.
const SERVICES: &str = r#"
[[service]]
name = "game"
vips = ["203.0.113.10:80/tcp"]
mode = "replicate"
backends = [{ address = "10.99.0.1" }, { address = "fd99::2" }, { address = "10.99.0.3" }]

[[service]]
name = "web"
vips = ["203.0.113.10:81/tcp"]
backends = [{ address = "10.99.0.1" }]
"#;

/// The daemon in a namespace where the first two backends are, so that the kernel answers for
/// them. `rights` are put before the daemon's command.
fn daemon(place: &Place, rights: &str) -> Daemon {
    let script = format!(
        "ip link set lo up && ip address add 10.99.0.1/32 dev lo && \
         ip address add fd99::2/128 dev lo nodad && \
         ip route add 10.99.0.3/32 dev lo && exec {rights} \"$0\" \"$@\""
    );
    let real = place.daemon_command();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", &script]);
    command.arg(real.get_program()).args(real.get_args());
    let log = File::create(place.path("lockstepd.log")).unwrap();
    Daemon::start(command.stderr(log), place.path("lockstepd.log"))
}

/// Verdicts of the service that replicates, in the order of the file, with whether there is a
/// round-trip time.
fn verdicts(engine: &FakeEngine) -> Vec<(HealthVerdict, bool)> {
    let current = engine.current();
    let game = current.services.iter().find(|s| s.name == "game");
    let health = |b: &lockstep_api::Backend| {
        let health = b.health.unwrap_or_default();
        (health.verdict(), health.rtt_microseconds.is_some())
    };
    game.map_or(Vec::new(), |s| s.backends.iter().map(health).collect())
}

const UP: (HealthVerdict, bool) = (HealthVerdict::Up, true);
const DOWN: (HealthVerdict, bool) = (HealthVerdict::Down, false);
const UNKNOWN: (HealthVerdict, bool) = (HealthVerdict::Unknown, false);

#[test]
fn the_engine_hears_which_replicas_answer_pings() {
    let place = Place::new(SERVICES);
    let engine = place.engine();
    let first = daemon(&place, "");
    wait_for("both that answer", || {
        verdicts(&engine) == [UP, UP, UNKNOWN]
    });
    let tunnel = &engine.current().services[1];
    assert_eq!(
        tunnel.backends[0].health, None,
        "a tunnel's is nobody's business"
    );
    // The file, and the answers of two backends within a second.
    assert!(engine.applied() <= 3, "{} snapshots", engine.applied());
    place
        .lockstep(&["status"])
        .expect(0, &["HEALTH", "up 0.", "unknown"]);
    let shown = place.lockstep(&["diff", "etc/services.toml"]);
    shown.expect(0, &["no change"]);

    let removed = first.in_its_namespace("ip address del 10.99.0.1/32 dev lo");
    assert!(removed.success());
    wait_for("the one that is gone", || {
        verdicts(&engine) == [DOWN, UP, UNKNOWN]
    });
    place.lockstep(&["status"]).expect(
        1,
        &[
            "down",
            "service game: backend 10.99.0.1 (10.99.0.1) does not answer pings any more",
        ],
    );

    // What the engine holds is where the next daemon begins.
    let before = engine.history().len();
    first.kill();
    let second = daemon(&place, "");
    wait_for("the one that is back", || {
        verdicts(&engine) == [UP, UP, UNKNOWN]
    });
    assert_eq!(engine.history().len(), before + 1, "nothing but that");
    assert!(second.log().contains("answers pings"), "{}", second.log());
}

#[test]
fn a_daemon_that_may_not_ping_says_so_once_and_what_to_do() {
    let place = Place::new(SERVICES);
    let engine = place.engine();
    let daemon = daemon(
        &place,
        "setpriv --bounding-set=-net_raw --inh-caps=-net_raw",
    );
    wait_for("the file in force", || engine.epoch() == 1);
    let warning = "Give lockstepd CAP_NET_RAW";
    wait_for("a warning for each IP version", || {
        daemon.log().matches(warning).count() == 2
    });
    // A new file is a few rounds later, and nothing more was said or sent.
    place.edit(&SERVICES.replace("10.99.0.3", "10.99.0.4"));
    wait_for("the new file", || engine.epoch() == 2);
    assert_eq!(verdicts(&engine), [UNKNOWN; 3]);
    assert_eq!(engine.applied(), 2);
    assert_eq!(daemon.log().matches(warning).count(), 2, "{}", daemon.log());
}
