//! Tiers and slow starts: what the engine is told of them, and what the operator.

use crate::common::{Place, wait_for, write};

fn file(lines: &str) -> String {
    format!("[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n{lines}\n")
}

const TIERS: &str = r#"backends = [
    { address = "10.0.0.1" },
    { address = "10.0.0.2" },
    { address = "10.0.1.1", priority = 1 },
]"#;

#[test]
fn a_drain_of_the_first_tier_spills_to_the_second() {
    let place = Place::new(&file(TIERS));
    let engine = place.engine();
    let _daemon = place.daemon();
    let last = || engine.weights().last().cloned().unwrap_or_default();
    wait_for("the second tier waits", || last() == [100, 100, 0]);
    place
        .lockstep(&["status"])
        .expect(0, &["TIER", "0 (100 %)", "waiting", "1 (0 %)"]);

    place
        .lockstep(&["drain", "10.0.0.1", "--deadline", "0s"])
        .expect(0, &[]);
    // 1.4 times a half is 70 percent, and 30 go to the only one of the next tier.
    wait_for("a part spills", || last() == [0, 7, 3]);
    place
        .lockstep(&["status"])
        .expect(0, &["0 (70 %)", "1 (30 %)", "draining"]);
    place
        .lockstep(&["drain", "10.0.0.2", "--deadline", "0s"])
        .expect(0, &[]);
    wait_for("the second tier has all of it", || last() == [0, 0, 100]);

    place.lockstep(&["undrain", "10.0.0.1"]).expect(0, &[]);
    place.lockstep(&["undrain", "10.0.0.2"]).expect(0, &[]);
    wait_for("the second tier waits again", || last() == [100, 100, 0]);
    assert!(
        place
            .status("/daemon/drains")
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn diff_compares_what_files_say() {
    let place = Place::new(&file(TIERS));
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the file in force", || !engine.weights().is_empty());
    place
        .lockstep(&["drain", "10.0.0.1", "--deadline", "0s"])
        .expect(0, &[]);
    let same = write(&place.path("same.toml"), &file(TIERS));
    place.lockstep(&["diff", &same]).expect(0, &["no change"]);
    let other = TIERS.replace("priority = 1", "priority = 2") + "\nslow_start = \"30s\"";
    let other = write(&place.path("other.toml"), &file(&other));
    place.lockstep(&["diff", &other]).expect(
        1,
        &[
            "~ slow_start: none -> \"30s\"",
            "~ backend 10.0.1.1: priority 1 -> 2",
        ],
    );
}

#[test]
fn a_new_backend_begins_slowly_and_has_its_whole_share_in_the_end() {
    let before = file("slow_start = \"3s\"\nbackends = [{ address = \"10.0.0.1\" }]");
    let place = Place::new(&before);
    let engine = place.engine();
    let _daemon = place.daemon();
    wait_for("a service that begins", || engine.weights() == [[100]]);
    let after = before.replace(" }]", " }, { address = \"10.0.0.2\" }]");
    place.edit(&after);
    wait_for("the beginning", || engine.weights().len() > 1);
    assert_eq!(engine.weights()[1], [10, 1], "a tenth");
    let same = write(&place.path("same.toml"), &after);
    place.lockstep(&["diff", &same]).expect(0, &["no change"]);
    place.lockstep(&["status"]).expect(0, &["slow start"]);
    wait_for("the end", || {
        engine.weights().last().unwrap() == &[100, 100]
    });
    let shares: Vec<f64> = engine.weights()[1..]
        .iter()
        .map(|w| f64::from(w[1]) / f64::from(w[0]))
        .collect();
    assert!(shares.is_sorted(), "{shares:?}");
    // As many steps as a busy machine lets it take, ten at most.
    assert!((2..=10).contains(&shares.len()), "{shares:?}");
    // Nothing is left to say, and nothing more is applied.
    assert!(!place.lockstep(&["status"]).out.contains("slow start"));
}
