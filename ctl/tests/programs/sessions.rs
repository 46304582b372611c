//! The commands about replicated sessions, against an engine with canned answers.

use crate::common::Place;
use serde_json::json;

const WEB: &str = "[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n\
                   backends = [{ address = \"10.0.0.1\" }]\n";

#[test]
fn sessions_are_listed_and_filtered() {
    let place = Place::new(WEB);
    let _engine = place.engine();
    place.lockstep(&["sessions"]).expect(
        0,
        &[
            "0-1      web      198.51.100.7:40000   protected  s1       2 of 2",
            "1-3      game     [2001:db8::7]:40000  degraded   s1       1 of 2",
            "2 sessions",
        ],
    );
    let game = ["sessions", "--service", "game", "--output", "json"];
    let game = place.lockstep(&game).json();
    let sessions = game["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["id"], "1-3");
    assert_eq!(sessions[0]["client"], "[2001:db8::7]:40000");
    assert_eq!(sessions[0]["rejoinable"], false);
    assert_eq!(sessions[0]["replicas"][0]["cause"], json!(null));
    assert_eq!(sessions[0]["replicas"][1]["cause"], "reset");
    place
        .lockstep(&["sessions", "--service", "none"])
        .expect(0, &["no sessions"]);
}

#[test]
fn a_session_is_shown_with_its_replicas() {
    let place = Place::new(WEB);
    let _engine = place.engine();
    place.lockstep(&["session", "1-3"]).expect(
        0,
        &[
            "session 1-3: service game, [2001:db8::7]:40000 to 203.0.113.10:80, degraded, 1m 1s old",
            "no replica can join: input is kept from byte 50 on",
            "in-sync  5s     100       0   5,000       0  250 µs  primary",
            "evicted  5s     100       0   4,000  -1,000  250 µs  reset",
        ],
    );
    place
        .lockstep(&["session", "9-9"])
        .expect(1, &["there is no session 9-9"]);
}

#[test]
fn a_switchover_says_who_is_primary_or_why_not() {
    let place = Place::new(WEB);
    let _engine = place.engine();
    place
        .lockstep(&["switchover", "0-1", "--to", "10.0.0.2"])
        .expect(0, &["session 0-1: s2 is primary"]);
    place
        .lockstep(&["switchover", "0-1", "--to", "s1"])
        .expect(1, &["s1 is primary already"]);
    assert_eq!(place.lockstep(&["switchover", "0-1"]).code, 2);
}

#[test]
fn events_are_printed_in_their_order() {
    let place = Place::new(WEB);
    let _engine = place.engine();
    let lines = [
        "09:31:14.250  0-1      web        198.51.100.7:40000    switched s1 -> s2: asked for\n",
        "09:31:14.250  0-1      web        198.51.100.7:40000    resumed after 900 µs\n",
    ];
    place.lockstep(&["events"]).expect(0, &lines);
    place.lockstep(&["events", "--follow"]).expect(0, &lines);
    let all = place.lockstep(&["events", "--output", "json"]).json();
    assert_eq!(all["events"][0]["from"], "s1");
    assert_eq!(all["events"][1]["gap_us"], 900);
    assert_eq!(all["events"][1].get("from"), None);
}
