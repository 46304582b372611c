//! Several balancers, and what the status makes of their sessions.

use super::*;
use k8s_openapi::jiff::SignedDuration;

/// A session in this state, with these replicas: pod, state, cause; the first one is primary.
fn session<'a>(
    state: &'a str,
    kept_from: u64,
    replicas: &[(&'a str, &'a str, &'a str)],
) -> SessionView<'a> {
    let views = replicas
        .iter()
        .enumerate()
        .map(|(n, (pod, state, cause))| ReplicaView {
            pod,
            state,
            cause,
            since: 1.0,
            primary: n == 0 && *state == "in-sync",
        });
    SessionView {
        service: "default/game-dire",
        state,
        kept_from,
        replicas: views.collect(),
    }
}

fn counted(views: &[SessionView<'_>]) -> Sessions {
    let mut sessions = Sessions::default();
    views.iter().for_each(|view| sessions.add(view));
    sessions
}

const ALL: [(&str, &str, &str); 3] = [
    ("a", "in-sync", ""),
    ("b", "in-sync", ""),
    ("c", "in-sync", ""),
];

impl Cluster {
    fn see(&mut self, balancer: &str, sessions: &Sessions) {
        let parts = parts(&self.world, &settings(), sessions, balancer, self.clock);
        self.perform(parts);
        self.settle();
    }

    fn later(&mut self, seconds: i64) {
        self.clock += SignedDuration::from_secs(seconds);
        self.uptime += Duration::from_secs(seconds.unsigned_abs());
    }
}

fn switchover(from: &str, to: &str, at: Timestamp) -> Switchover {
    Switchover {
        time: MicroTime(at),
        from: from.to_owned(),
        to: to.to_owned(),
        cause: "the connection was reset".to_owned(),
    }
}

#[test]
fn the_status_sums_up_what_all_balancers_see() {
    let mut cluster = serving(json!({}));
    cluster.see("lb1", &counted(&[session("protected", 0, &ALL)]));
    let b = [
        ("b", "in-sync", ""),
        ("c", "in-sync", ""),
        ("a", "joining", ""),
    ];
    cluster.see(
        "lb2",
        &counted(&[session("protected", 0, &b), session("protected", 0, &b)]),
    );
    let status = cluster.status();
    assert_eq!(status.sessions, 3);
    assert_eq!(status.primary.as_deref(), Some("b"));
    assert_eq!(status.synced_replicas, 2);
    let states: Vec<_> = cluster.states().into_iter().map(|(_, s)| s).collect();
    let (joining, in_sync) = (ReplicaState::Joining, ReplicaState::InSync);
    assert_eq!(states, [joining, in_sync, in_sync]);
    // The session of lb2 is over.
    cluster.later(2);
    cluster.see("lb2", &Sessions::none());
    assert_eq!(cluster.status().sessions, 1);
    assert_eq!(cluster.status().primary.as_deref(), Some("a"));
    assert_eq!(cluster.status().balancers.len(), 1);
}

#[test]
fn sessions_that_have_not_begun_or_are_over_are_none_and_others_services_are_not_ours() {
    let mut sessions = counted(&[session("opening", 0, &ALL), session("closed", 0, &ALL)]);
    sessions.add(&SessionView {
        service: "default/other",
        ..session("protected", 0, &ALL)
    });
    let cluster = serving(json!({}));
    assert_eq!(
        parts(&cluster.world, &settings(), &sessions, "lb1", now()),
        []
    );
}

#[test]
fn one_that_joins_between_two_looks_is_told_of() {
    let mut cluster = serving(json!({}));
    let two = [("a", "in-sync", ""), ("b", "in-sync", "")];
    cluster.see("lb1", &counted(&[session("protected", 0, &two)]));
    assert_eq!(cluster.reasons(), [""; 0]);
    cluster.later(2);
    cluster.see("lb1", &counted(&[session("protected", 0, &ALL)]));
    assert_eq!(cluster.reasons(), ["ReplicaJoined"]);
}

#[test]
fn a_switchover_and_who_is_out_are_told_of_once() {
    let mut cluster = serving(json!({}));
    cluster.see("lb1", &counted(&[session("protected", 0, &ALL)]));
    assert_eq!(cluster.reasons(), [""; 0]);
    cluster.later(2);
    let after = [
        ("b", "in-sync", ""),
        ("a", "evicted", "lost: reset"),
        ("c", "in-sync", ""),
    ];
    let mut sessions = counted(&[session("protected", 0, &after)]);
    sessions.switched("default/game-dire", switchover("a", "b", cluster.clock));
    cluster.see("lb1", &sessions);
    cluster.see("lb1", &sessions);
    assert_eq!(cluster.reasons(), ["SwitchedOver"]);
    assert!(
        cluster.events[0]
            .1
            .contains("b is primary in the place of a")
    );
    assert_eq!(cluster.status().primary.as_deref(), Some("b"));
    // It is about to come back.
    assert_eq!(cluster.states()[0].1, ReplicaState::Joining);
    cluster.later(2);
    let mut again = counted(&[session(
        "protected",
        0,
        &[
            ("b", "in-sync", ""),
            ("a", "in-sync", ""),
            ("c", "in-sync", ""),
        ],
    )]);
    again.switched("default/game-dire", switchover("a", "b", now()));
    cluster.see("lb1", &again);
    assert_eq!(cluster.reasons(), ["SwitchedOver", "ReplicaJoined"]);
    cluster.later(2);
    // Its log is cut: who is out now stays out.
    let cut = counted(&[session("protected", 4096, &after)]);
    cluster.see("lb1", &cut);
    let told = ["SwitchedOver", "ReplicaJoined", "ReplicaEvicted"];
    assert_eq!(cluster.reasons(), told);
    let status = cluster.status();
    assert_eq!(status.replicas[0].cause.as_deref(), Some("lost: reset"));
    assert_eq!(status.synced_replicas, 2);
}

#[test]
fn what_matters_is_written_at_once_and_numbers_now_and_then() {
    let mut cluster = serving(json!({}));
    let one = counted(&[session("protected", 0, &ALL)]);
    let two = counted(&[session("protected", 0, &ALL), session("protected", 0, &ALL)]);
    let lost = counted(&[session("unprotected", 0, &[("b", "in-sync", "")])]);
    cluster.see("lb1", &one);
    let writes_after = |sessions: &Sessions, milliseconds: i64| {
        let at = now() + SignedDuration::from_millis(milliseconds);
        parts(&cluster.world, &settings(), sessions, "lb1", at).len()
    };
    for (sessions, milliseconds, wanted) in [
        (&one, 1_000, 0),
        (&one, 29_000, 0),
        (&one, 30_000, 1),
        (&one, -1_000, 1),
        (&two, 1_000, 0),
        (&two, 5_000, 1),
        (&lost, 100, 0),
        (&lost, 1_000, 1),
    ] {
        let written = writes_after(sessions, milliseconds);
        assert_eq!(written, wanted, "{milliseconds} ms: {sessions:?}");
    }
    // The end of all sessions, too.
    assert_eq!(writes_after(&Sessions::none(), 1_000), 1);
    // What is not known yet, after a restart, ends nothing.
    assert_eq!(writes_after(&Sessions::default(), 1_000), 0);
}

#[test]
fn a_balancer_that_is_gone_stops_counting_and_is_taken_away() {
    let mut cluster = serving(json!({}));
    cluster.see("lb1", &counted(&[session("unprotected", 0, &ALL[..1])]));
    assert_eq!(cluster.condition("Protected").1, "Unprotected");
    assert!(cluster.reasons().contains(&"Unprotected"));
    cluster.later(101);
    cluster.settle();
    assert_eq!(cluster.status().sessions, 0);
    assert_eq!(cluster.condition("Protected").0, "True");
    assert_eq!(cluster.status().balancers.len(), 1);
    cluster.later(600);
    cluster.settle();
    assert_eq!(cluster.status().balancers.len(), 0);
}

#[test]
fn no_wall_clock_says_how_old_a_balancers_part_is() {
    let hour = SignedDuration::from_hours(1);
    // The balancer's clock is far behind, or far ahead; then the leader's jumps.
    for wrong in [hour, -hour] {
        let mut cluster = serving(json!({}));
        cluster.clock -= wrong;
        cluster.see("lb1", &counted(&[session("protected", 0, &ALL)]));
        cluster.clock += wrong;
        cluster.settle();
        assert_eq!(cluster.status().sessions, 1, "{wrong}");
        cluster.clock += wrong;
        cluster.settle();
        assert_eq!(cluster.status().sessions, 1, "{wrong}");
        // What is not renewed for long has an end all the same.
        cluster.later(100);
        cluster.settle();
        assert_eq!(cluster.status().sessions, 0, "{wrong}");
        // Whoever leads next begins to count anew.
        cluster.ages = Ages::default();
        cluster.settle();
        assert_eq!(cluster.status().sessions, 1, "{wrong}");
    }
}

#[test]
fn a_dire_of_another_installation_is_left_alone() {
    let mut cluster = serving(json!({}));
    cluster.see("lb1", &counted(&[session("protected", 0, &ALL)]));
    let foreign = Settings {
        class: "example.org/lb".to_owned(),
        ..settings()
    };
    let world = &cluster.world;
    cluster.ages.look(world, cluster.uptime);
    assert_eq!(services(world, &foreign), []);
    assert_eq!(namespaces(world, &foreign).len(), 0);
    assert_eq!(writes(world, &foreign, &cluster.ages, cluster.clock), []);
    let sessions = counted(&[session("protected", 0, &ALL)]);
    assert_eq!(parts(world, &foreign, &sessions, "lb9", cluster.clock), []);
}

proptest! {
    /// Whatever balancers see, writing ends, and the status never says more than they do.
    #[test]
    fn any_sessions_lead_to_a_status_that_stays(
        seen in prop::collection::vec(
            (0..4_usize, 0..6_usize, 0..2_u64, prop::collection::vec((0..4_usize, 0..5_usize, 0..4_usize), 0..4)),
            0..12,
        ),
        stop in any::<bool>(),
        rejoin in any::<bool>(),
    ) {
        let states = ["opening", "protected", "degraded", "unprotected", "orphaned", "closed"];
        let pods = ["a", "b", "c", "gone"];
        let stands = ["in-sync", "joining", "lagging", "evicted", "in-sync"];
        let causes = ["differs", "removed from the service", "lagging", "lost"];
        let mut cluster = serving(json!({ "stopEvicted": stop, "rejoin": rejoin }));
        let mut balancers: BTreeMap<usize, Sessions> = BTreeMap::new();
        for (balancer, state, cut, replicas) in &seen {
            let replicas: Vec<_> = replicas
                .iter()
                .map(|(pod, state, cause)| (pods[*pod], stands[*state], causes[*cause]))
                .collect();
            let view = session(states[*state], *cut, &replicas);
            balancers.entry(*balancer).or_default().add(&view);
        }
        // The leader sees what all have said.
        for (balancer, sessions) in &balancers {
            let name = format!("lb{balancer}");
            let parts = parts(&cluster.world, &settings(), sessions, &name, cluster.clock);
            cluster.perform(parts);
        }
        cluster.settle();
        let began = |s: &usize| !matches!(states[*s], "opening" | "closed");
        let wanted = seen.iter().filter(|(_, state, ..)| began(state)).count();
        prop_assert_eq!(usize::try_from(cluster.status().sessions), Ok(wanted));
        // One at a time, and never the last one.
        prop_assert!(cluster.deleted.len() <= usize::from(stop));
        if let Some(pod) = cluster.deleted.first() {
            let status = cluster.status();
            for balancer in &status.balancers {
                let own = balancer.replicas.iter().find(|r| r.pod == *pod);
                prop_assert_eq!(own.map_or(0, |r| r.needed), 0);
                let others = balancer.replicas.iter().filter(|r| r.pod != *pod);
                prop_assert!(others.map(|r| r.in_sync).sum::<i64>() > 0);
            }
        }
    }
}
