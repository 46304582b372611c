//! What counts as reached.

#![allow(clippy::unwrap_used)]

use super::super::case::About;
use super::super::caveats::NoLatency;
use super::super::failed::Failed;
use super::super::fixtures::{answered, carried, late, packets, results};
use super::super::part::Part;
use super::super::requests::Trial;
use super::super::results::{LatencyRound, Measured, PacketRound, Share, note};
use super::*;

/// The goals of which there are figures.
fn of(measured: &Measured) -> Vec<Goal> {
    let mut goals = goals(&results(measured));
    goals.retain(|goal| goal.outcome != Outcome::NotMeasured);
    goals
}

fn value(goal: &Goal) -> f64 {
    goal.measured.unwrap().0
}

#[test]
fn a_goal_without_figures_is_told_as_not_measured() {
    use PacketLoad::{TcpStream, Udp};
    let measured = packets(&[
        (Case::LockstepTunnel, Udp, 64, [140.0]),
        (Case::LockstepFallback, Udp, 64, [200.0]),
        (Case::NftablesDnat, Udp, 64, [100.0]),
        // The fallback's packets are taken in on the same CPU as these.
        (Case::NftablesDnatOneCpu, Udp, 64, [80.0]),
        (Case::LockstepReplicate, TcpStream, 1_400, [3e8]),
        (Case::Haproxy, TcpStream, 1_400, [6e8]),
    ]);
    let all = goals(&results(&measured));
    let found: Vec<_> = (all.iter())
        .map(|goal| (goal.figure(), goal.wanted, goal.outcome))
        .collect();
    let none = |wanted| ("-".to_owned(), wanted, Outcome::NotMeasured);
    let expected = [
        ("1.40".to_owned(), 1.5, Outcome::Missed),
        none(1.5),
        ("2.50".to_owned(), 2.0, Outcome::Met),
        none(0.0),
        none(0.0),
        none(0.0),
        none(0.9),
        ("0.50".to_owned(), 0.9, Outcome::Missed),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_goal_of_latency_that_could_not_be_measured_says_why() {
    let mut results = results(&packets(&[(
        Case::LockstepTunnel,
        PacketLoad::Udp,
        64,
        [90.0],
    )]));
    let why = "no case carried them";
    results.no_latency.push(NoLatency {
        load: LatencyLoad::Udp,
        why: why.to_owned(),
    });
    let goals = goals(&results);
    let told: Vec<&[String]> = goals.iter().map(|goal| goal.notes.as_slice()).collect();
    let (none, why): (&[String], &[String]) = (&[], &[why.to_owned()]);
    assert_eq!(told, [none, none, none, why, why, none, none, none]);
}

/// What comes of a goal with a figure of 2.
fn reached(bound: Bound, wanted: f64, at_least: bool) -> Outcome {
    let figure = Figure {
        value: 2.0,
        bound,
        faults: Vec::new(),
        doubts: Vec::new(),
        qualified: None,
        beside: Vec::new(),
    };
    let goal = judged("a goal", Some(figure), wanted, at_least);
    assert_eq!(goal.notes.is_empty(), goal.outcome != Outcome::NotKnown);
    goal.outcome
}

#[test]
fn a_bound_reaches_only_what_lies_on_its_own_side() {
    for (bound, wanted, at_least, expected) in [
        (Bound::Exact, 1.0, true, Outcome::Met),
        (Bound::Exact, 3.0, true, Outcome::Missed),
        (Bound::Exact, 3.0, false, Outcome::Met),
        (Bound::AtLeast, 1.0, true, Outcome::Met),
        // It may be.
        (Bound::AtLeast, 3.0, true, Outcome::NotKnown),
        (Bound::AtLeast, 3.0, false, Outcome::NotKnown),
        (Bound::AtLeast, 1.0, false, Outcome::Missed),
        (Bound::AtMost, 1.0, true, Outcome::NotKnown),
        (Bound::AtMost, 3.0, true, Outcome::Missed),
        (Bound::AtMost, 3.0, false, Outcome::Met),
        (Bound::Neither, 1.0, true, Outcome::NotKnown),
    ] {
        let found = reached(bound, wanted, at_least);
        assert_eq!(found, expected, "{bound:?}, {wanted}, {at_least}");
    }
}

fn with_errors(rate: f64, errors: u64) -> Trial {
    Trial {
        errors,
        ..answered(rate)
    }
}

#[test]
fn requests_with_errors_reach_nothing_however_many_they_are() {
    for (ours, theirs, outcome, notes) in [
        (0, 0, Outcome::Met, vec![]),
        (
            1,
            0,
            Outcome::Missed,
            vec!["1 of lockstep-replicate failed"],
        ),
        (0, 2_000, Outcome::Missed, vec!["2,000 of haproxy failed"]),
    ] {
        let mut measured = Measured::default();
        for (case, rate, errors) in [
            (Case::LockstepReplicate, 200.0, ours),
            (Case::Haproxy, 100.0, theirs),
        ] {
            let all = &mut measured.requests;
            note(all, case, Load::KeepAlive, with_errors(rate, errors));
            note(all, case, Load::KeepAlive, answered(rate));
        }
        let goals = of(&measured);
        assert_eq!((value(&goals[0]), goals[0].outcome), (2.0, outcome));
        assert_eq!(
            goals[0].notes[0],
            "CPU s/million requests: 1.00, haproxy's 1.00"
        );
        assert_eq!(goals[0].notes[1..], notes);
        assert_eq!(goals[0].qualified, None);
    }
}

#[test]
fn a_rate_of_a_peer_that_is_not_at_its_limit_is_said_to_be_the_endpoints() {
    let mut measured = Measured::default();
    for (case, rate, busy, cpu) in [
        (Case::LockstepReplicate, 91.0, 0.92, 19.5),
        (Case::Haproxy, 100.0, 0.24, 4.7),
    ] {
        let trial = Trial {
            balancer_cpu: busy,
            cpu_s_per_million_requests: cpu,
            ..answered(rate)
        };
        note(&mut measured.requests, case, Load::KeepAlive, trial);
        let round = PacketRound {
            balancer_cpu: busy,
            ..carried(rate)
        };
        let key = (PacketLoad::TcpStream, UPLOAD);
        note(&mut measured.packets, case, key, round);
    }
    let said = "haproxy's CPU was 24 % busy: client and servers were its limit";
    for goal in of(&measured) {
        assert_eq!((value(&goal), goal.outcome), (0.91, Outcome::Met));
        assert_eq!(goal.qualified.as_deref(), Some(said));
    }
    let notes = &of(&measured)[0].notes;
    assert_eq!(notes, &["CPU s/million requests: 19.50, haproxy's 4.70"]);
}

#[test]
fn packets_of_a_peer_that_is_not_at_its_limit_are_said_to_be_what_the_generator_gave_it() {
    let qualified = |busy| {
        let mut measured = packets(&[(Case::LockstepTunnel, PacketLoad::Udp, 64, [220.0])]);
        let round = PacketRound {
            balancer_cpu: busy,
            ..carried(100.0)
        };
        let key = (PacketLoad::Udp, 64);
        note(&mut measured.packets, Case::NftablesDnat, key, round);
        let [goal] = &of(&measured)[..] else {
            panic!("another goal has figures")
        };
        assert_eq!((value(goal), goal.outcome), (2.2, Outcome::Met));
        goal.qualified.clone()
    };
    let said = "nftables-dnat's CPU was 88 % busy: what the generator's gave it";
    assert_eq!(qualified(0.88).as_deref(), Some(said));
    assert_eq!(qualified(0.96), None);
}

#[test]
fn a_latency_with_losses_reaches_nothing_however_short_it_is() {
    let with = |lost: f64, lost_by_theirs: f64| {
        let mut measured = Measured::default();
        for (case, p99_us, lost) in [
            (Case::LockstepTunnel, 50.0, lost),
            (Case::LinuxForwarding, 90.0, lost_by_theirs),
        ] {
            for lost in [0.0, lost, 0.0] {
                let key = (LatencyLoad::Udp, Share(50));
                let round = LatencyRound {
                    lost,
                    ..late(p99_us)
                };
                note(&mut measured.latencies, case, key, round);
            }
        }
        of(&measured).remove(0)
    };
    let goal = with(0.0, 0.0);
    assert_eq!((value(&goal), goal.outcome), (-40.0, Outcome::Met));
    let goal = with(0.000_003, 0.0);
    assert_eq!(goal.outcome, Outcome::Missed);
    assert_eq!(goal.notes, ["lockstep-tunnel lost < 0.01 %"]);
    // What theirs lost would have made it longer.
    let goal = with(0.0, 0.002);
    assert_eq!(goal.outcome, Outcome::Met);
    assert_eq!(goal.notes, ["linux-forwarding lost 0.20 %"]);
}

#[test]
fn a_latency_is_that_of_trials_in_which_no_host_took_a_cpu_away() {
    let with = |stolen: [f64; 3]| {
        let mut measured = Measured::default();
        for (case, stolen) in [
            (Case::LockstepTunnel, stolen),
            (Case::LinuxForwarding, [0.0; 3]),
        ] {
            for (p99_us, stolen_ms) in [70.0, 50.0, 9_000.0].into_iter().zip(stolen) {
                let round = LatencyRound {
                    stolen_ms,
                    ..late(p99_us)
                };
                let key = (LatencyLoad::Udp, Share(50));
                note(&mut measured.latencies, case, key, round);
            }
        }
        let rows = super::super::fixtures::results(&measured).latencies;
        let ours = (rows.into_iter()).find(|row| row.case == Case::LockstepTunnel.name());
        let row = ours.unwrap();
        let goal = of(&measured).remove(0);
        (row, goal)
    };
    let (row, goal) = with([0.0, 0.0, 10.0]);
    assert_eq!((row.p99_us, row.trials, row.disturbed), (60.0, 2, 1));
    assert_eq!((value(&goal), goal.outcome), (-10.0, Outcome::Met));
    let (row, goal) = with([10.0, 20.0, 10.0]);
    assert_eq!((row.p99_us, row.trials, row.disturbed), (70.0, 3, 3));
    assert!(row.only_disturbed);
    assert_eq!(goal.outcome, Outcome::NotKnown);
    let said = "a host took CPUs away in all 3 trials of lockstep-tunnel";
    assert_eq!(goal.notes, [said]);
}

#[test]
fn a_latency_has_what_it_takes_of_the_cpu_beside_it() {
    let mut measured = Measured::default();
    for (case, cpu) in [(Case::LockstepTunnel, 10.0), (Case::LinuxForwarding, 2.6)] {
        let round = LatencyRound {
            cpu_s_per_million: Some(cpu),
            ..late(90.0)
        };
        let key = (LatencyLoad::Udp, Share(50));
        note(&mut measured.latencies, case, key, round);
    }
    let notes = &of(&measured)[0].notes;
    assert_eq!(notes, &["CPU s/million: 10.00, linux-forwarding's 2.60"]);
}

#[test]
fn a_latency_in_whose_trials_something_mostly_stood_still_is_not_known() {
    let with = |ours: [f64; 4], theirs: [f64; 4]| {
        let mut measured = Measured::default();
        for (case, trials) in [
            (Case::LockstepTunnel, ours),
            (Case::LinuxForwarding, theirs),
        ] {
            for max_us in trials {
                let round = LatencyRound {
                    max_us,
                    ..late(50.0)
                };
                let key = (LatencyLoad::Udp, Share(50));
                note(&mut measured.latencies, case, key, round);
            }
        }
        let goal = of(&measured).remove(0);
        (goal.outcome, goal.notes)
    };
    let (quiet, once, half) = (
        [100.0; 4],
        [100.0, 45_000.0, 100.0, 100.0],
        [45_000.0, 100.0, 45_000.0, 100.0],
    );
    assert_eq!(with(quiet, once), (Outcome::Met, vec![]));
    let said =
        |case: &str, count| format!("something stood still in {count} of 4 trials of {case}");
    assert_eq!(
        with(half, once),
        (Outcome::NotKnown, vec![said("lockstep-tunnel", 2)])
    );
    assert_eq!(
        with(half, [45_000.0; 4]),
        (
            Outcome::NotKnown,
            vec![said("lockstep-tunnel", 2), said("linux-forwarding", 4)]
        )
    );
}

#[test]
fn a_figure_that_lacks_a_round_on_either_side_is_not_known() {
    let measured = packets(&[
        (Case::LockstepTunnel, PacketLoad::Udp, 64, [200.0]),
        (Case::NftablesDnat, PacketLoad::Udp, 64, [100.0]),
    ]);
    let mut results = results(&measured);
    let failed = |case, part| Failed::new(case, part, 1, &anyhow::anyhow!("no answer"));
    results.failed = vec![failed(Case::NftablesDnat, Part::Requests)];
    assert_eq!(goals(&results)[0].outcome, Outcome::Met);
    results
        .failed
        .push(failed(Case::NftablesDnat, Part::Packets));
    let goal = goals(&results).remove(0);
    assert_eq!(goal.outcome, Outcome::NotKnown);
    assert_eq!(goal.notes, ["2 of 3 rounds of nftables-dnat"]);
}

#[test]
fn a_case_that_was_something_else_in_that_run_is_not_judged() {
    let measured = packets(&[
        (Case::LockstepTunnelOneCpu, PacketLoad::Udp, 64, [200.0]),
        (Case::NftablesDnatOneCpu, PacketLoad::Udp, 64, [100.0]),
    ]);
    let mut results = results(&measured);
    let with = |results: &Results| goals(results).remove(1);
    let about = |about: &str| About {
        case: Case::LockstepTunnelOneCpu.name().to_owned(),
        about: about.to_owned(),
        differs: String::new(),
    };
    results.cases = vec![about(Case::LockstepTunnelOneCpu.about())];
    assert_eq!(with(&results).outcome, Outcome::Met);
    results.cases = vec![about("Its worker takes packets in.")];
    let goal = with(&results);
    assert_eq!(goal.outcome, Outcome::NotKnown);
    let said = "lockstep-tunnel-one-cpu was another case in this run (Its worker takes packets in)";
    assert_eq!(goal.notes, [said]);
}

#[test]
fn a_share_that_is_anything_is_not_told_as_nothing() {
    let told = [0.0, 0.000_001, 0.0123, 1.0].map(in_percent);
    assert_eq!(told, ["0 %", "< 0.01 %", "1.23 %", "100.00 %"]);
}
