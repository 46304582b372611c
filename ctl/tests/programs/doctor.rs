//! `lockstep doctor` as a process, on this host.

use crate::common::{Place, web};

#[test]
fn a_host_without_engine_and_topology_has_errors_with_their_mends() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let found = place.lockstep(&["doctor", "--topology", "missing.toml"]);
    found.expect(
        1,
        &[
            "ERROR    topology.toml: cannot read missing.toml",
            "-> name the file with --topology",
            "ERROR    engine: lockstep-engine is not running",
        ],
    );
    let json = place.lockstep(&["doctor", "--topology", "missing.toml", "--output", "json"]);
    assert_eq!((json.code, json.json()["ok"].clone()), (1, false.into()));
    assert_eq!(json.json()["findings"][0]["severity"], "error");
    place
        .lockstep(&["doctor", "--vip", "203.0.113.10"])
        .expect(2, &["--server"]);
}

#[test]
fn the_engine_is_asked_what_it_knows() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _engine = place.engine();
    let found = place.lockstep(&["doctor", "--topology", "missing.toml", "--no-ping"]);
    assert!(!found.out.contains("is not running"), "{found:?}");
}

#[test]
fn a_server_without_the_vip_is_told_how_to_have_it() {
    let place = Place::new(&web(&["10.0.0.1"]));
    place
        .lockstep(&["doctor", "--server", "--vip", "203.0.113.99"])
        .expect(
            1,
            &[
                "203.0.113.99: it is no address of this host",
                "ip addr add 203.0.113.99/32 dev lo",
            ],
        );
}
