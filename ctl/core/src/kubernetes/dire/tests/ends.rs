//! `stopEvicted`.

use super::*;
use k8s_openapi::jiff::SignedDuration;

/// What each row sees: state of the session, first byte kept, replicas as (pod, state, cause, since).
type Seen = (
    &'static str,
    u64,
    &'static [(&'static str, &'static str, &'static str, f64)],
);

fn see(cluster: &mut Cluster, balancer: &str, seen: &[Seen]) {
    let mut sessions = Sessions::default();
    for (state, kept_from, replicas) in seen {
        let replicas = replicas
            .iter()
            .map(|(pod, state, cause, since)| ReplicaView {
                pod,
                state,
                cause,
                since: *since,
                primary: false,
            });
        sessions.add(&SessionView {
            service: "default/game-dire",
            state,
            kept_from: *kept_from,
            replicas: replicas.collect(),
        });
    }
    let parts = parts(
        &cluster.world,
        &settings(),
        &sessions,
        balancer,
        cluster.clock,
    );
    cluster.perform(parts);
    cluster.settle();
}

const GOOD: (&str, &str, &str, f64) = ("b", "in-sync", "", 9.0);
const ALSO: (&str, &str, &str, f64) = ("c", "in-sync", "", 9.0);

#[test]
fn whose_pod_is_deleted() {
    let rows: [(&str, Value, &[Seen], &[&str]); 10] = [
        (
            "out for good: the log is cut",
            json!({ "stopEvicted": true }),
            &[(
                "protected",
                1,
                &[("a", "evicted", "lagging", 1.0), GOOD, ALSO],
            )],
            &["a"],
        ),
        (
            "not asked for",
            json!({}),
            &[(
                "protected",
                1,
                &[("a", "evicted", "lagging", 1.0), GOOD, ALSO],
            )],
            &[],
        ),
        (
            "about to come back",
            json!({ "stopEvicted": true }),
            &[("protected", 0, &[("a", "evicted", "lost", 1.0), GOOD, ALSO])],
            &[],
        ),
        (
            "out for longer than anything is waited for",
            json!({ "stopEvicted": true }),
            &[(
                "protected",
                0,
                &[("a", "evicted", "differs", 61.0), GOOD, ALSO],
            )],
            &["a"],
        ),
        (
            "nobody may come back",
            json!({ "stopEvicted": true, "rejoin": false }),
            &[(
                "protected",
                0,
                &[("a", "evicted", "differs", 1.0), GOOD, ALSO],
            )],
            &["a"],
        ),
        (
            "it was taken out, or a filter drops pings",
            json!({ "stopEvicted": true, "rejoin": false }),
            &[(
                "protected",
                1,
                &[
                    ("a", "evicted", "removed from the service", 99.0),
                    ("b", "evicted", "down by its health check", 99.0),
                    ALSO,
                ],
            )],
            &[],
        ),
        (
            "two are out: one at a time",
            json!({ "stopEvicted": true }),
            &[(
                "protected",
                1,
                &[
                    ("a", "evicted", "differs", 1.0),
                    ("b", "evicted", "differs", 1.0),
                    ALSO,
                ],
            )],
            &["a"],
        ),
        (
            "all are out: none is the last one in sync",
            json!({ "stopEvicted": true }),
            &[(
                "orphaned",
                1,
                &[
                    ("a", "evicted", "differs", 1.0),
                    ("b", "evicted", "differs", 1.0),
                    ("c", "evicted", "differs", 1.0),
                ],
            )],
            &[],
        ),
        (
            "another session needs it",
            json!({ "stopEvicted": true }),
            &[
                (
                    "protected",
                    1,
                    &[("a", "evicted", "lagging", 1.0), GOOD, ALSO],
                ),
                ("degraded", 0, &[("a", "in-sync", "", 9.0)]),
            ],
            &[],
        ),
        (
            "another session has it and can do without",
            json!({ "stopEvicted": true }),
            &[
                (
                    "protected",
                    1,
                    &[("a", "evicted", "lagging", 1.0), GOOD, ALSO],
                ),
                ("protected", 0, &[("a", "in-sync", "", 9.0), GOOD, ALSO]),
            ],
            &["a"],
        ),
    ];
    for (what, spec, seen, deleted) in rows {
        let mut cluster = serving(spec);
        see(&mut cluster, "lb1", seen);
        assert_eq!(cluster.deleted, deleted, "{what}");
        let told = cluster.reasons().contains(&"ReplicaStopped");
        assert_eq!(told, !deleted.is_empty(), "{what}");
    }
}

#[test]
fn the_next_one_waits_until_the_first_one_is_replaced() {
    let two_out: &[Seen] = &[(
        "protected",
        1,
        &[
            ("a", "evicted", "differs", 1.0),
            ("b", "evicted", "lagging", 1.0),
            ALSO,
        ],
    )];
    let mut cluster = serving(json!({ "stopEvicted": true }));
    see(&mut cluster, "lb1", two_out);
    assert_eq!(cluster.deleted, ["a"]);
    let note = &cluster.events.last().expect("it was told of").1;
    assert!(note.contains("pod a") && note.contains("differs"), "{note}");
    // It ends, it has ended: nothing more.
    cluster.settle();
    cluster.lose_pod("a");
    cluster.settle();
    assert_eq!(cluster.deleted, ["a"]);
    cluster.put_pod(pod("a2", "10.0.0.4"));
    cluster.settle();
    assert_eq!(cluster.deleted, ["a", "b"]);
}

#[test]
fn a_balancer_that_is_silent_may_still_need_it() {
    let mut cluster = serving(json!({ "stopEvicted": true }));
    see(
        &mut cluster,
        "lb2",
        &[("degraded", 0, &[("a", "in-sync", "", 9.0)])],
    );
    cluster.clock += SignedDuration::from_secs(200);
    cluster.uptime += Duration::from_secs(200);
    see(
        &mut cluster,
        "lb1",
        &[(
            "protected",
            1,
            &[("a", "evicted", "differs", 1.0), GOOD, ALSO],
        )],
    );
    assert_eq!(cluster.status().sessions, 1);
    assert_eq!(cluster.deleted, [""; 0]);
}

#[test]
fn a_pod_that_is_labelled_alike_and_is_no_deployments_is_left() {
    let evicted: &[Seen] = &[(
        "protected",
        1,
        &[("a", "evicted", "differs", 1.0), GOOD, ALSO],
    )];
    for (set, deleted) in [
        (None, &[][..]),
        (Some("hive"), &[]),
        (Some("hive-two-5d9c"), &[]),
        (Some("hive-5d9c"), &["a"]),
    ] {
        let mut cluster = serving(json!({ "stopEvicted": true }));
        let mut a = (*cluster.world.pods[&Name::new("default", "a")]).clone();
        a.replica_set = set.map(str::to_owned);
        cluster.put_pod(a);
        see(&mut cluster, "lb1", evicted);
        assert_eq!(cluster.deleted, deleted, "{set:?}");
    }
}
