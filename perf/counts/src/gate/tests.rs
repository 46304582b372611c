use super::baseline::{Baseline, Origin};
use super::compare::compare;
use super::*;

fn counts(of: &[(&str, f64)]) -> Counts {
    of.iter()
        .map(|&(path, count)| (path.to_owned(), count))
        .collect()
}

fn origin() -> Origin {
    Origin {
        host: "x86_64-linux".into(),
        rustc: "rustc 1.95.0".into(),
        valgrind: "valgrind-3.19.0".into(),
        libc: "glibc 2.36".into(),
    }
}

#[test]
fn a_path_that_grew_by_more_than_a_twentieth_is_refused() {
    let baseline = counts(&[("tunnel-v4", 200.0), ("nat-v4", 300.0)]);
    for (now, is_passed) in [(200.0, true), (209.9, true), (210.1, false), (400.0, false)] {
        let comparison = compare(&baseline, &counts(&[("tunnel-v4", now), ("nat-v4", 300.0)]));
        assert_eq!(comparison.is_passed(), is_passed, "{comparison}");
        assert_eq!(comparison.has_grown(), !is_passed, "{comparison}");
    }
}

#[test]
fn a_refusal_names_what_grew_and_how_it_is_accepted() {
    let baseline = counts(&[("tunnel-v4", 200.0), ("nat-v4", 300.0)]);
    let comparison = compare(
        &baseline,
        &counts(&[("tunnel-v4", 230.0), ("nat-v4", 300.0)]),
    );
    let text = refusal(&comparison, false, Path::new("perf/baseline.json"));
    for said in [
        "tunnel-v4",
        "230.0",
        "200.0",
        "+15.0 %",
        "make gate UPDATE=1",
        "perf/baseline.json",
    ] {
        assert!(text.contains(said), "no {said} in: {text}");
    }
    assert!(!text.contains("nat-v4"), "{text}");
    assert!(!text.contains("other tools"), "{text}");
    let text = refusal(&comparison, true, Path::new("perf/baseline.json"));
    assert!(text.contains("other tools"), "{text}");
}

#[test]
fn a_much_shorter_path_has_to_go_into_the_baseline_too() {
    let baseline = counts(&[("tunnel-v4", 200.0)]);
    let comparison = compare(&baseline, &counts(&[("tunnel-v4", 191.0)]));
    assert!(comparison.is_passed(), "{comparison}");
    let comparison = compare(&baseline, &counts(&[("tunnel-v4", 180.0)]));
    assert!(!comparison.is_passed());
    assert!(
        comparison.to_string().contains("-10.0 %  SHORTER"),
        "{comparison}"
    );
    let text = refusal(&comparison, false, Path::new("perf/baseline.json"));
    assert!(text.contains("tunnel-v4 needs 180.0"), "{text}");
    assert!(text.contains("make gate UPDATE=1"), "{text}");
    assert!(!text.contains("what grew"), "{text}");
}

#[test]
fn another_architecture_fails_unless_it_is_told_to_pass() {
    let arm = Origin {
        host: "aarch64-linux".into(),
        ..origin()
    };
    assert!(not_comparable(&origin(), &origin(), Elsewhere::Fail).is_none());
    let (said, code) = not_comparable(&arm, &origin(), Elsewhere::Fail).unwrap();
    assert_eq!(code, ExitCode::FAILURE);
    for part in [
        "Nothing was counted",
        "x86_64-linux",
        "aarch64-linux",
        "SKIP_OTHER_ARCHITECTURES=1",
    ] {
        assert!(said.contains(part), "no {part} in: {said}");
    }
    let (said, code) = not_comparable(&arm, &origin(), Elsewhere::Skip).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(said.contains("Nothing was counted"), "{said}");
}

#[test]
fn the_baseline_has_exactly_the_paths_that_there_are() {
    let one = counts(&[("tunnel-v4", 200.0)]);
    let two = counts(&[("tunnel-v4", 200.0), ("nat-v4", 300.0)]);
    for (baseline, now, said) in [
        (&one, &two, "nat-v4 is not in the baseline."),
        (
            &two,
            &one,
            "nat-v4 is in the baseline, and there is no such path.",
        ),
    ] {
        let comparison = compare(baseline, now);
        assert!(!comparison.is_passed());
        assert_eq!(comparison.what_is_wrong(), [said]);
    }
}

#[test]
fn a_count_that_is_no_number_is_refused() {
    let none = counts(&[("tunnel-v4", f64::NAN)]);
    assert!(!compare(&counts(&[("tunnel-v4", 200.0)]), &none).is_passed());
    let text = Baseline {
        origin: origin(),
        counts: counts(&[("a", 0.0)]),
    }
    .render()
    .unwrap();
    assert!(Baseline::parse(&text).is_err());
}

#[test]
fn a_baseline_is_read_as_it_was_written() {
    let baseline = Baseline {
        origin: origin(),
        counts: counts(&[("tunnel-v4", 201.5), ("session-upload-1", 5_123_456.0)]),
    };
    assert_eq!(
        Baseline::parse(&baseline.render().unwrap()).unwrap(),
        baseline
    );
}

#[test]
fn other_tools_are_named() {
    let newer = Origin {
        rustc: "rustc 1.96.0".into(),
        ..origin()
    };
    assert_eq!(
        newer.differences(&origin()),
        "rustc 1.95.0, here it is rustc 1.96.0"
    );
    assert_eq!(origin().differences(&origin()), "");
}

/// The committed file, so that a new path is not forgotten until the gate runs.
#[test]
fn the_committed_baseline_names_every_path() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../baseline.json");
    let baseline = Baseline::read(&file).unwrap();
    let paths: Vec<&str> = baseline.counts.keys().map(String::as_str).collect();
    let mut known: Vec<&str> = names().collect();
    known.sort_unstable();
    assert_eq!(paths, known);
}

#[test]
fn every_path_runs() {
    for (path, packets) in packets::PATHS.iter().map(|case| (case.name, case.traffic)) {
        assert!(work(path).is_some());
        let flows = 64;
        Bench::new(packets, flows, 64).round(BURST);
    }
    for (_, direction, replicas) in SESSIONS {
        let trial = session::Bench::new(replicas, direction)
            .unwrap()
            .run(50_000)
            .unwrap();
        assert!(trial.bytes >= 40_000, "{}", trial.bytes);
    }
    assert!(run("no-such-path").is_err());
}
