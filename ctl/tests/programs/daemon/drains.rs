//! Drains: of backends and of the whole balancer.

use super::*;

#[test]
fn a_drained_backend_is_removed_at_its_deadline() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    let drain = place.lockstep(&["drain", "10.0.0.1", "--deadline", "500ms"]);
    drain.expect(0, &["in force as epoch 2"]);
    wait_for("the removal", || engine.has(&["10.0.0.2"]));
    let draining = vec![
        ("10.0.0.1".to_owned(), true),
        ("10.0.0.2".to_owned(), false),
    ];
    assert_eq!(engine.history()[1], draining);
    wait_for("the removal in the status", || {
        place.status("/daemon/drains/0/removed") == true
    });

    // Removed, it stays out over a restart and comes back when undrained.
    daemon.kill();
    let _daemon = place.daemon();
    wait_for("the epoch taken over", || {
        place.status("/daemon/epoch") == 3
    });
    assert_eq!(engine.applied(), 3);
    place
        .lockstep(&["undrain", "10.0.0.1"])
        .expect(0, &["ended"]);
    assert!(engine.has(TWO));
}

#[test]
fn a_drain_outlives_the_daemon_and_ends_with_its_backend() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    let drain = ["drain", "10.0.0.1", "--service", "web", "--deadline", "0s"];
    place.lockstep(&drain).expect(0, &["draining, no deadline"]);
    daemon.kill();
    let _daemon = place.daemon();
    wait_for("the drain", || {
        place.status("/daemon/drains/0/address") == "10.0.0.1"
    });
    assert_eq!(engine.backends()[0], ("10.0.0.1".into(), true));
    place.edit(&web(&["10.0.0.2"]));
    wait_for("the backend gone", || engine.has(&["10.0.0.2"]));
    place.edit(&web(TWO));
    wait_for("the backend back, not draining", || engine.has(TWO));
    assert_eq!(place.status("/daemon/drains"), serde_json::json!([]));
}

#[test]
fn drains_that_cannot_be_are_refused() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    let drain =
        |arguments: &[&str]| place.lockstep(&[&["drain", "--deadline", "60s"], arguments].concat());
    drain(&["10.0.0.9"]).expect(1, &["no backend 10.0.0.9 in any service"]);
    drain(&["10.0.0.1", "--service", "wep"]).expect(1, &["no service wep; there are: web"]);
    place
        .lockstep(&["undrain", "10.0.0.1"])
        .expect(1, &["is not draining"]);
    engine.refuse(Some("busy"));
    drain(&["10.0.0.1"]).expect(1, &["the engine refuses: busy; nothing was changed"]);
    assert_eq!(place.status("/daemon/drains"), serde_json::json!([]));
    engine.refuse(None);
    drain(&["10.0.0.1"]).expect(0, &["service web has no active backend"]);
    engine.kill();
    wait_for("the loss in the status", || {
        place.status("/daemon/engine_connected") == false
    });
    place
        .lockstep(&["undrain", "10.0.0.1"])
        .expect(3, &["lockstep-engine is not running"]);
}

#[test]
fn a_drained_balancer_announces_nothing_also_after_a_restart() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(ONE));
    place
        .lockstep(&["drain", "--balancer"])
        .expect(0, &["203.0.113.10", "drained", "its flows go on"]);
    place
        .lockstep(&["status"])
        .expect(1, &["the balancer is drained", "undrain --balancer"]);
    daemon.terminate();
    let _again = place.daemon();
    wait_for("still drained", || place.status("/daemon/drained") == true);
    place
        .lockstep(&["undrain", "--balancer"])
        .expect(0, &["203.0.113.10", "announced", "back"]);
    wait_for("a calm status", || place.lockstep(&["status"]).code == 0);
}

#[test]
fn a_file_that_the_engine_can_never_have_holds_up_no_drain() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    place
        .lockstep(&["drain", "10.0.0.1", "--deadline", "0s"])
        .expect(0, &["draining"]);
    engine.refuse_for_ever("it has no IPv6 address");
    place.edit(&web(&["10.0.0.7"]));
    wait_for("the refusal", || {
        let error = place.status("/daemon/file_error").to_string();
        error.contains("the engine refuses: it has no IPv6 address")
    });
    engine.refuse(None);
    place
        .lockstep(&["drain", "10.0.0.2", "--deadline", "0s"])
        .expect(0, &["draining"]);
    let in_force: Vec<_> = TWO.iter().map(|a| ((*a).to_owned(), true)).collect();
    assert_eq!(
        engine.backends(),
        in_force,
        "what was in force, with both drains"
    );
    place.edit(&web(&["10.0.0.3"]));
    wait_for("the next file", || engine.has(&["10.0.0.3"]));
    assert!(place.status("/daemon/file_error").is_null());
}

#[test]
fn a_backend_is_drained_although_nothing_can_be_written() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    fs::remove_dir_all(place.path("state")).unwrap();
    let forgets = "a restart of the daemon forgets what changed";
    place
        .lockstep(&["drain", "10.0.0.1", "--deadline", "0s"])
        .expect(0, &["draining, no deadline", forgets]);
    assert_eq!(engine.backends()[0], ("10.0.0.1".into(), true));
    assert!(daemon.log().contains(forgets));
    place
        .lockstep(&["undrain", "10.0.0.1"])
        .expect(0, &["ended", forgets]);
    assert!(engine.has(TWO));
}
