//! From rows to figures.

#![allow(clippy::unwrap_used)]

use super::super::case::Case;
use super::super::failed::Failed;
use super::super::fixtures::{self, answered, late};
use super::super::part::Part;
use super::super::requests::Load;
use super::super::results::{LatencyRound, Measured, note};
use super::*;
use anyhow::anyhow;

/// Requests of two cases, three rounds each.
fn results() -> Results {
    let mut measured = Measured::default();
    for (case, rate) in [(Case::Haproxy, 100.0), (Case::LockstepNat, 200.0)] {
        for load in [Load::KeepAlive, Load::ConnectionPerRequest] {
            for round in 0..3 {
                let trial = answered(rate + f64::from(round));
                note(&mut measured.requests, case, load, trial);
            }
        }
    }
    for case in [
        Case::LinuxForwardingOneCpu,
        Case::LinuxForwarding,
        Case::XdpForwarding,
    ] {
        let round = LatencyRound {
            per_second: 12_345.0,
            ..late(3.0)
        };
        let key = (LatencyLoad::Rr, Share(50));
        note(&mut measured.latencies, case, key, round);
    }
    fixtures::results(&measured)
}

#[test]
fn a_figure_says_once_which_of_its_cases_lacks_a_round() {
    let mut results = results();
    assert_eq!(requests(&results).differs, Vec::<String>::new());
    let failed = |part| Failed::new(Case::Haproxy, part, 2, &anyhow!("no answer"));
    results.failed = vec![failed(Part::Requests), failed(Part::LatencyOfRequests)];
    assert_eq!(
        requests(&results).differs,
        ["haproxy, requests: 2 of 3 rounds; the others failed."]
    );
}

#[test]
fn every_case_is_held_against_the_other_that_its_row_names() {
    let figures = figures(&results());
    let ids: Vec<&str> = figures.iter().map(|figure| figure.id.as_str()).collect();
    assert_eq!(ids, ["compare-requests", "compare-latency-50"]);
    let facts = |at: usize| -> Vec<&str> {
        let facts = figures[at].facts.iter();
        facts.map(|fact| fact.name.as_str()).collect()
    };
    assert_eq!(
        facts(0),
        [
            "lockstep-nat to haproxy, over open connections",
            "lockstep-nat to haproxy, a connection for each"
        ]
    );
    // Of requests there is one forwarding only, whoever takes packets in.
    let added = ["linux-forwarding-one-cpu", "xdp-forwarding"]
        .map(|case| format!("p99 that {case} adds to linux-forwarding"));
    assert_eq!(facts(1), added);
    assert!(
        figures[1].title.ends_with("(12,345 a second)"),
        "{}",
        figures[1].title
    );
}

#[test]
fn a_case_without_a_load_keeps_the_others_at_their_names() {
    let mut results = results();
    results.requests.remove(0);
    let figure = requests(&results);
    assert_eq!(figure.labels, ["lockstep-nat", "haproxy"]);
    let xs = figure.ours.iter().map(|series| {
        let points = series.points.iter();
        points.map(|point| point.x).collect::<Vec<f64>>()
    });
    assert_eq!(xs.collect::<Vec<_>>(), [vec![0.0], vec![1.0, 0.0]]);
}
