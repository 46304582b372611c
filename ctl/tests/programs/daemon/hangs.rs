//! An engine that hangs holds up nothing but what it is told.

use super::*;

/// A place with a service of four backends whose checks find them up that have a file in `up/`.
fn checked() -> Place {
    let backends = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let health = "health = { type = \"script\", command = [\"is-up\"], interval = \"1s\", timeout = \"1s\", \
                  fast_interval = \"200ms\", rise = 1, fall = 1 }\n";
    let place = Place::new(&(web(&backends) + health));
    fs::create_dir(place.path("up")).unwrap();
    fs::create_dir(place.path("scripts")).unwrap();
    let up = place.path("up");
    let text = format!("#!/bin/sh\ntest -e {}/$LOCKSTEP_ADDRESS\n", up.display());
    let script = write(&place.path("scripts/is-up"), &text);
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    for backend in backends {
        write(&up.join(backend), "");
    }
    let scripts = place.path("scripts");
    let config = format!("[health]\nscripts = \"{}\"\n", scripts.display());
    place.configure(&config);
    place
}

#[test]
fn an_engine_that_hangs_holds_up_no_withdrawal_and_has_the_rest_when_it_goes_on() {
    let place = checked();
    let engine = place.engine();
    let daemon = place.daemon();
    let fail = |backend: &str| fs::remove_file(place.path("up").join(backend)).unwrap();
    let verdicts = || {
        let text = place.lockstep(&["health", "--output", "json"]).out;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let backends = json["backends"].as_array().cloned().unwrap_or_default();
        let of = |b: serde_json::Value| b["state"].as_str().map(str::to_owned);
        backends.into_iter().filter_map(of).collect::<Vec<_>>()
    };
    wait_for("all up", || verdicts() == ["up"; 4]);
    engine.stick(true);
    fail("10.0.0.1");
    wait_for("the engine hangs", || engine.is_stuck());
    let begun = Instant::now();
    place
        .lockstep(&["drain", "--balancer"])
        .expect(0, &["203.0.113.10", "drained"]);
    let bgp = place.lockstep(&["bgp", "--output", "json"]).json();
    assert_eq!(bgp["withheld"][0]["reason"], "drained");
    place
        .lockstep(&["undrain", "--balancer"])
        .expect(0, &["203.0.113.10", "announced"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{begun:?}");
    fail("10.0.0.2");
    wait_for("the next verdict", || {
        verdicts() == ["down", "down", "up", "up"]
    });
    assert!(engine.is_stuck());
    engine.stick(false);
    wait_for("both gone", || engine.has(&["10.0.0.3", "10.0.0.4"]));

    engine.stick(true);
    fail("10.0.0.3");
    wait_for("the engine hangs again", || engine.is_stuck());
    let begun = Instant::now();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{begun:?}");
}

#[test]
fn an_operator_waits_for_an_engine_that_hangs_and_is_told_what_it_took() {
    let place = Place::new(&web(TWO));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || engine.has(TWO));
    let third = write(&place.path("third.toml"), &web(&["10.0.0.3"]));
    engine.stick(true);
    std::thread::scope(|scope| {
        let (place, third) = (&place, &third);
        let (answer, answered) = mpsc::channel();
        scope.spawn(move || {
            let drain = ["drain", "10.0.0.1", "--deadline", "0s"];
            answer.send(place.lockstep(&drain)).unwrap();
            answer.send(place.lockstep(&["apply", third])).unwrap();
        });
        wait_for("the engine hangs", || engine.is_stuck());
        let early = answered.try_recv();
        assert!(early.is_err(), "answered too early: {early:?}");
        assert_eq!(place.status("/daemon/drains"), serde_json::json!([]));
        // The file's own change comes after it.
        place.edit(&web(&["10.0.0.1", "10.0.0.2", "10.0.0.9"]));
        engine.stick(false);
        answered.recv().unwrap().expect(0, &["in force as epoch"]);
        assert_eq!(engine.backends()[0], ("10.0.0.1".into(), true));
        answered.recv().unwrap().expect(0, &["in force as epoch"]);
    });
    assert!(engine.has(&["10.0.0.3"]), "{:?}", engine.backends());
    let text = fs::read_to_string(place.services()).unwrap();
    assert_eq!(text, web(&["10.0.0.3"]));
}
