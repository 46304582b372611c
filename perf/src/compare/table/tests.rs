//! What the terminal says of a run.

#![allow(clippy::unwrap_used)]

use super::super::case::Case;
use super::super::failed::Failed;
use super::super::fixtures::{self, carried, late};
use super::super::part::Part;
use super::super::results::{LatencyRound, Measured, PacketRound, Share, note};
use super::*;
use anyhow::anyhow;

fn results(rounds: usize, bound: bool, latency: bool) -> Results {
    let mut measured = Measured::default();
    for round in 0..rounds {
        let carried = PacketRound {
            bound_by_generator: bound,
            ..carried(644_571.0 + round as f64)
        };
        let key = (PacketLoad::Udp, 64);
        note(&mut measured.packets, Case::LockstepNat, key, carried);
        let late = LatencyRound {
            p50_us: 1_234.5,
            ..late(3_000.0)
        };
        if latency {
            let key = (LatencyLoad::Udp, Share(50));
            note(&mut measured.latencies, Case::LockstepNat, key, late);
        }
    }
    Results {
        quick: rounds == 1,
        rounds,
        ..fixtures::results(&measured)
    }
}

#[test]
fn a_short_run_says_so_and_has_no_spread() {
    let text = text(&results(1, false, false));
    for wanted in [
        "no result.",
        "(one round)",
        "  -",
        "(of a short run: no result)",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    let row = text.lines().find(|line| line.contains("lockstep-nat"));
    let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(cells[..5], ["lockstep-nat", "64", "644,571", "-", "-"]);
}

#[test]
fn only_what_is_in_the_tables_is_explained() {
    let plain = text(&results(3, false, false));
    assert!(plain.contains("medians of 3 rounds"), "{plain}");
    assert!(plain.contains("644,571"), "{plain}");
    for unwanted in [
        "≥",
        "requests a second",
        "stalled",
        "Rounds that failed",
        "short run",
    ] {
        assert!(!plain.contains(unwanted), "{unwanted} in\n{plain}");
    }
    let full = text(&results(3, true, true));
    for wanted in [
        "≥ 644,572",
        "≥: the generator",
        "1,235 / 3,000",
        "stalled: trials",
    ] {
        assert!(full.contains(wanted), "no {wanted} in\n{full}");
    }
    assert_eq!(full.matches("stalled: trials").count(), 1);
}

#[test]
fn what_lacks_a_round_says_so_beside_its_name_and_why_below() {
    let mut results = results(3, false, true);
    let failed = |part| Failed::new(Case::LockstepNat, part, 2, &anyhow!("no answer"));
    results.failed = vec![failed(Part::Packets)];
    let packets = text(&results);
    assert_eq!(packets.matches("lockstep-nat (2 of 3 rounds)").count(), 1);
    assert!(
        packets.contains("\n  lockstep-nat, packets, round 2: no answer\n"),
        "{packets}"
    );
    results.failed.push(failed(Part::LatencyOfDatagrams));
    let both = text(&results);
    assert_eq!(both.matches("lockstep-nat (2 of 3 rounds)").count(), 2);
}

#[test]
fn a_goal_without_figures_has_none_on_its_line() {
    let goals = goals(&results(1, false, false));
    assert_eq!(
        told(&goals[0]),
        "not measured  packets/s of the engine (tunnel, 64 bytes), times nftables': wanted at least 1.5"
    );
    let reached = Goal {
        measured: Some((1_234.5, super::super::ratio::Bound::AtLeast)),
        outcome: Outcome::NotKnown,
        notes: vec!["a note".to_owned()],
        ..goals[0].clone()
    };
    assert_eq!(
        told(&reached),
        "not known     packets/s of the engine (tunnel, 64 bytes), times nftables': ≥ 1,234.50, wanted at least 1.5; a note"
    );
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!(two_digits(None), "-");
    assert_eq!(two_digits(Some(1.5)), "1.50");
    assert_eq!(percent(0.876), "88 %");
}
