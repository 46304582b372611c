//! The daemon as a process, with a fake engine: what the engine is told, and when.

mod drains;
mod hangs;

use crate::common::{Place, wait_for, web, write};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const ONE: &[&str] = &["10.0.0.1"];
const TWO: &[&str] = &["10.0.0.1", "10.0.0.2"];

#[test]
fn the_file_is_applied_when_the_daemon_starts() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    assert_eq!((engine.epoch(), engine.applied()), (1, 1));
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
    let mode = fs::metadata(place.daemon_socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_changed_file_is_applied_as_the_next_epoch() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the first file", || engine.has(ONE));
    place.edit(&web(TWO));
    wait_for("a file renamed over it", || engine.has(TWO));
    assert_eq!(engine.epoch(), 2);
    fs::write(place.services(), web(ONE)).unwrap();
    wait_for("a file written in place", || engine.has(ONE));
    assert_eq!((engine.epoch(), engine.applied()), (3, 3));
}

#[test]
fn a_file_with_errors_changes_nothing_and_shows_in_the_status() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the first file", || engine.has(ONE));
    for (bad, expected) in [
        (
            web(TWO).replace("10.0.0.2", "10.0.0.256"),
            "services.toml:4:51: `address`",
        ),
        (String::new(), "`service` is missing"),
    ] {
        place.edit(&bad);
        wait_for("the error in the status", || {
            place
                .status("/daemon/file_error")
                .to_string()
                .contains(expected)
        });
        place
            .lockstep(&["status"])
            .expect(1, &["NOT in force", expected, "Needs attention"]);
    }
    fs::remove_file(place.services()).unwrap();
    wait_for("the missing file in the status", || {
        place
            .status("/daemon/file_error")
            .to_string()
            .contains("cannot read")
    });
    assert!(daemon.log().contains("what is in force stays"));
    assert_eq!((engine.epoch(), engine.has(ONE)), (1, true));
    place.edit(&web(TWO));
    wait_for("the mended file", || engine.has(TWO));
    wait_for("no error any more", || {
        place.status("/daemon/file_error").is_null()
    });
}

#[test]
fn an_engine_that_restarts_has_its_services_within_a_second() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    engine.kill();
    wait_for("the loss in the status", || {
        place.status("/daemon/engine_connected") == false
    });
    let engine = place.engine();
    let start = Instant::now();
    wait_for("the file in force again", || engine.has(TWO));
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        engine.epoch(),
        2,
        "epochs grow over a restart of the engine"
    );
}

#[test]
fn a_daemon_that_starts_before_the_engine_waits_for_it() {
    let place = Place::new(&web(ONE));
    let daemon = place.daemon();
    wait_for("the daemon has found no engine", || {
        let found = "lockstep-engine is not running (no socket at ";
        daemon.log().contains(found)
    });
    assert_eq!(place.status("/daemon/engine_connected"), false);
    let engine = place.engine();
    wait_for("the file in force", || engine.has(ONE));
}

#[test]
fn a_command_that_comes_before_the_engine_waits_a_moment_for_it() {
    let place = Place::new(&web(ONE));
    let new = write(&place.path("new.toml"), &web(TWO));
    let _daemon = place.daemon();
    wait_for("the daemon", || {
        place.status("/daemon/engine_connected") == false
    });
    std::thread::scope(|scope| {
        let (place, new) = (&place, &new);
        let (answer, answered) = mpsc::channel();
        scope.spawn(move || answer.send(place.lockstep(&["apply", new])));
        let early = answered.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "answered without an engine: {early:?}");
        let engine = place.engine();
        answered.recv().unwrap().expect(0, &[]);
        assert!(engine.has(TWO), "{:?}", engine.backends());
    });
}

#[test]
fn a_killed_daemon_disturbs_nothing_when_it_is_back() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    daemon.kill();
    assert!(
        place.daemon_socket().exists(),
        "what a killed daemon leaves"
    );
    let _daemon = place.daemon();
    wait_for("the epoch taken over", || {
        place.status("/daemon/epoch") == 1
    });
    assert_eq!((engine.epoch(), engine.applied()), (1, 1));
}

#[test]
fn a_daemon_that_starts_with_a_bad_file_goes_on_with_the_last_good_one() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    daemon.kill();
    engine.kill();
    place.edit("[[service]]");
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the last good file", || engine.has(TWO));
    assert!(
        place
            .status("/daemon/file_error")
            .to_string()
            .contains("`name` is missing")
    );
}

#[test]
fn a_first_file_with_errors_leaves_the_engine_alone() {
    let place = Place::new("[[service]]");
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the daemon", || {
        place.status("/daemon/engine_connected") == true
    });
    assert_eq!(engine.applied(), 0);
}

#[test]
fn an_engine_that_refuses_is_asked_again() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    engine.refuse(Some("no memory for the tables"));
    let _daemon = place.daemon();
    wait_for("the refusal in the status", || {
        place
            .status("/daemon/engine_error")
            .to_string()
            .contains("no memory for the tables")
    });
    place
        .lockstep(&["status"])
        .expect(1, &["the engine does not have what it should"]);
    engine.refuse(None);
    wait_for("the file in force", || engine.has(ONE));
    wait_for("no error any more", || {
        place.status("/daemon/engine_error").is_null()
    });
}

#[test]
fn applying_a_file_replaces_the_daemons() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    fs::set_permissions(place.services(), fs::Permissions::from_mode(0o640)).unwrap();
    let new = crate::common::write(&place.path("new.toml"), &web(TWO));
    place
        .lockstep(&["apply", &new])
        .expect(0, &["in force as epoch 2"]);
    assert!(engine.has(TWO), "in force when the command returns");
    assert_eq!(fs::read_to_string(place.services()).unwrap(), web(TWO));
    let mode = fs::metadata(place.services()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the file's mode stays");

    engine.refuse(Some("busy"));
    let third = crate::common::write(&place.path("third.toml"), &web(&["10.0.0.3"]));
    place
        .lockstep(&["apply", &third])
        .expect(1, &["refuses: busy; nothing was changed"]);
    assert_eq!(fs::read_to_string(place.services()).unwrap(), web(TWO));
    assert_eq!(
        fs::read_dir(place.path("etc")).unwrap().count(),
        2,
        "nothing left beside it and lockstepd.toml"
    );
    engine.refuse(None);
    place
        .lockstep(&["apply", &new])
        .expect(0, &["in force as epoch 2"]);
    assert_eq!(engine.applied(), 2, "the same file again is no new epoch");
}

#[test]
fn a_signal_ends_the_daemon_in_order() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!place.daemon_socket().exists());
    assert_eq!(
        (engine.epoch(), engine.has(ONE)),
        (1, true),
        "the engine goes on"
    );
}

#[test]
fn a_second_daemon_is_refused() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    let second = place.daemon_command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another lockstepd is running"), "{said}");
    wait_for("the first one", || place.lockstep(&["status"]).code == 0);
}

#[test]
fn damaged_drains_are_an_error_at_the_start() {
    let place = Place::new(&web(ONE));
    fs::create_dir(place.path("state")).unwrap();
    fs::write(place.path("state/drains.json"), "{").unwrap();
    let refused = place.daemon_command().output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("drains.json: the saved drains are damaged"),
        "{said}"
    );
}

#[test]
fn a_snapshot_at_the_limits_fits_through() {
    let service = |s: usize| {
        let backend = |b: usize| format!("{{ address = \"10.{s}.{}.{}\" }}", b / 256, b % 256);
        let backends: Vec<String> = (0..4_096).map(backend).collect();
        let (port, backends) = (s + 1, backends.join(", "));
        format!(
            "[[service]]\nname = \"s{s}\"\nvips = [\"203.0.113.10:{port}/tcp\"]\nbackends = [{backends}]\n"
        )
    };
    let place = Place::new(&(0..32).map(service).collect::<String>());
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("131,072 backends in force", || engine.epoch() == 1);
    let backends: usize = engine
        .current()
        .services
        .iter()
        .map(|s| s.backends.len())
        .sum();
    assert_eq!(backends, 131_072);
    place.edit(&web(ONE));
    wait_for("the next file", || engine.has(ONE));
}

#[test]
fn another_daemon_on_the_engine_does_not_go_unnoticed() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("its services", || engine.has(&["10.0.0.1"]));
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
    let mut other = engine.current();
    other.epoch += 1;
    other.services[0].backends[0].address = "10.0.0.9".to_owned();
    engine.replace(other);
    place.lockstep(&["status"]).expect(
        1,
        &["the engine has epoch 2, and lockstepd sent or found 1"],
    );
    assert!(!daemon.log().contains("another lockstepd"));
    write(&place.services(), &web(&["10.0.0.2"]));
    wait_for("its own services again", || engine.epoch() == 3);
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
    assert!(daemon.log().contains("another lockstepd"));
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_told_as_a_whole() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    place.configure("[log]\nformat = \"xml\"\n[shutdown]\ndeadline = \"1d\"\n");
    wait_for("the error", || {
        place.status("/daemon/config_error").as_str().is_some()
    });
    place
        .lockstep(&["status"])
        .expect(1, &["lockstepd.toml is not in force", "2:10", "4:12"]);
    daemon.terminate();
    let _again = place.daemon();
    wait_for("the daemon goes on with the last one", || {
        place.status("/daemon/engine_connected") == true
    });
    place.configure("");
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
}

#[test]
fn a_daemon_whose_first_configuration_is_wrong_says_so_and_does_not_start() {
    let place = Place::new(&web(ONE));
    place.configure("[nodes]\n");
    let output = place.daemon_command().output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        says.contains("lockstepd.toml:1:2") && says.contains("node"),
        "{says}"
    );
    // Once, and then what comes of it.
    assert_eq!(says.matches("lockstepd.toml:1:2").count(), 1, "{says}");
    assert!(says.contains("no configuration from before"), "{says}");
}

#[test]
fn a_configuration_is_compared_and_applied_like_the_services() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    let _daemon = place.daemon();
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
    let new = crate::common::write(
        &place.path("lockstepd.toml"),
        "[shutdown]\ndeadline = \"3s\"\n",
    );
    place
        .lockstep(&["diff", &new])
        .expect(1, &["shutdown.deadline: \"3s\" (new)"]);
    place.lockstep(&["apply", &new]).expect(0, &["in force"]);
    place.lockstep(&["diff", &new]).expect(0, &["no change"]);
    assert!(fs::read_to_string(place.config()).unwrap().contains("3s"));
}

#[test]
fn the_status_lists_what_ails_routers_the_link_and_random_numbers() {
    let place = Place::new(&web(ONE));
    // Nobody listens at a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let key = place.path("no-such.key");
    place.configure(&format!(
        "[bgp]\nas = 64512\nrouter_id = \"10.0.0.1\"\n\
         [[bgp.peer]]\naddress = \"127.0.0.1\"\nport = {port}\nas = 64513\nmultihop = 2\n\
         [layer2]\ninterfaces = [\"lo\"]\nlisten = \"127.0.0.1\"\nkey_file = {key:?}\n\
         [random]\nlisten = \"192.0.2.1:26666\"\n"
    ));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    let said = [
        "router 127.0.0.1 has no session",
        "onnection refused",
        "layer 2: this balancer takes no part: cannot read key_file",
        "cannot serve random numbers at 192.0.2.1:26666",
    ];
    wait_for("all of it in the status", || {
        let answer = place.lockstep(&["status"]);
        said.iter().all(|part| answer.out.contains(part))
    });
    place.lockstep(&["status"]).expect(1, &said);
    place
        .lockstep(&["layer2"])
        .expect(1, &["takes no part: cannot read key_file", "openssl rand"]);
}

#[test]
fn nothing_is_announced_that_the_engine_does_not_have() {
    let place = Place::new(&web(ONE));
    let withheld = || {
        let answer = place.lockstep(&["bgp", "--output", "json"]);
        let json = serde_json::from_str(&answer.out).unwrap_or(serde_json::Value::Null);
        json["withheld"].as_array().cloned().unwrap_or_default()
    };
    let engine = place.engine();
    engine.refuse(Some("no memory for the tables"));
    let _daemon = place.daemon();
    wait_for("the VIP held back", || withheld().len() == 1);
    assert_eq!(withheld()[0]["reason"], "no_engine");
    engine.refuse(None);
    wait_for("the file in force", || engine.has(ONE));
    wait_for("the VIP announced", || withheld().is_empty());
    engine.refuse(Some("no memory for the tables"));
    let more = web(ONE).replace(
        "203.0.113.10:80/tcp",
        "203.0.113.10:80/tcp\", \"203.0.113.99:80/tcp",
    );
    place.edit(&more);
    wait_for("the new VIP held back", || withheld().len() == 1);
    assert_eq!(withheld()[0]["reason"], "not_in_force");
}

/// As Kubernetes does it where the files of a ConfigMap are linked to from another directory.
#[test]
fn a_link_that_is_moved_in_another_directory_is_followed_at_once() {
    use std::os::unix::fs::symlink;
    let place = Place::new("");
    let (volume, link) = (place.path("volume"), place.path("volume/..data"));
    let version = |name: &str, text: &str| {
        fs::create_dir_all(volume.join(name)).unwrap();
        fs::write(volume.join(name).join("services.toml"), text).unwrap();
        symlink(name, place.path("volume/..new")).unwrap();
        fs::rename(place.path("volume/..new"), &link).unwrap();
    };
    version("..1", &web(&["10.0.0.1"]));
    fs::remove_file(place.services()).unwrap();
    symlink(link.join("services.toml"), place.services()).unwrap();
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the first", || engine.has(&["10.0.0.1"]));
    for (name, backend) in [("..2", "10.0.0.2"), ("..3", "10.0.0.3")] {
        let moved = Instant::now();
        version(name, &web(&[backend]));
        wait_for(backend, || engine.has(&[backend]));
        // Sooner than by looking now and then.
        assert!(moved.elapsed() < Duration::from_secs(2), "{moved:?}");
    }
}
