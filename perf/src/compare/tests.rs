//! What is asked for, and what becomes of it.

use super::*;
use clap::Parser;
use clap::ValueEnum;

const CPUS: Cpus = Cpus {
    generator: 0,
    balancer: 1,
};

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn parsed(words: &str) -> Result<Arguments, clap::Error> {
    let words = ["compare"].into_iter().chain(words.split_whitespace());
    Command::try_parse_from(words).map(|command| command.arguments)
}

#[test]
fn a_case_that_is_not_there_is_refused_with_those_that_are() {
    let error = parsed("--only lockstep-tunel").expect_err("no such case");
    let text = error.to_string();
    assert!(text.contains("lockstep-tunnel"), "{text}");
    assert!(parsed("--parts nothing").is_err());
}

#[test]
fn one_cpu_for_both_is_refused() {
    let same = parsed("--generator-cpu 0 --balancer-cpu 0").expect("it parses");
    assert!(cpus(&same).is_err());
    let nowhere = parsed("--balancer-cpu 5000").expect("it parses");
    let error = cpus(&nowhere).expect_err("no such CPU").to_string();
    assert!(
        error.contains("5000") || error.contains("two CPUs"),
        "{error}"
    );
}

#[test]
fn a_quick_run_is_one_round_of_all_parts() {
    let arguments = parsed("--quick --rounds 5").expect("it parses");
    let comparison = Comparison::new(&arguments, CPUS);
    assert_eq!(comparison.rounds(), 1);
    assert_eq!(comparison.cases, Case::USUAL);
    assert!(comparison.has(Asked::Latency) && comparison.has(Asked::Streams));
    let arguments = parsed("--parts packets --only haproxy").expect("it parses");
    let comparison = Comparison::new(&arguments, CPUS);
    assert_eq!((comparison.rounds(), comparison.cases.len()), (3, 1));
    assert!(!comparison.has(Asked::Latency));
}

#[test]
fn a_run_that_would_measure_nothing_is_refused() {
    for (words, refused) in [
        ("", None),
        ("--parts packets,latency", None),
        ("--only haproxy --parts streams", None),
        ("--parts latency", Some("--parts packets,latency")),
        (
            "--only haproxy --parts packets",
            Some("none of these cases"),
        ),
        (
            "--only nftables-dnat-one-cpu --parts requests,streams,latency",
            Some("none of these cases"),
        ),
    ] {
        let arguments = parsed(words).expect("it parses");
        let outcome = Comparison::new(&arguments, CPUS).has_something();
        match (outcome, refused) {
            (Ok(()), None) => (),
            (Err(error), Some(wanted)) => {
                assert!(error.to_string().contains(wanted), "{words}: {error}");
            }
            (outcome, _) => panic!("{words}: {outcome:?}"),
        }
    }
}

#[test]
fn what_is_about_to_happen_is_told() {
    for (words, plan) in [
        (
            "",
            "12 cases, 3 rounds: what each carries at most, and then their latency as often",
        ),
        (
            "--quick --only haproxy --parts requests",
            "1 case, 1 round (a short run): what each carries at most",
        ),
    ] {
        let arguments = parsed(words).expect("it parses");
        assert_eq!(Comparison::new(&arguments, CPUS).plan(), plan);
    }
}

#[test]
fn what_the_cases_need_is_known_before_they_are_measured() {
    let of = |words: &str| {
        let arguments = parsed(words).expect("it parses");
        Comparison::new(&arguments, CPUS).programs()
    };
    let all = of("");
    assert!(
        ["haproxy", "nginx", "wrk", "lockstep-engine", "ip"].map(|p| all.contains(p)) == [true; 5]
    );
    let one = of("--only haproxy --parts requests");
    assert!(one.contains("haproxy") && one.contains("wrk") && !one.contains("lockstep"));
    let packets = of("--only lockstep-tunnel --parts packets");
    assert!(packets.contains("lockstep") && !packets.contains("wrk"));
}

#[test]
fn a_round_that_fails_is_in_the_results_and_the_others_count() {
    let arguments = parsed("--rounds 3").expect("it parses");
    let mut comparison = Comparison::new(&arguments, CPUS);
    let part = Part::Requests;
    let kept = comparison.heeded(Case::Haproxy, part, 1, Ok(vec![7]));
    assert_eq!(kept, [7]);
    let error = anyhow::anyhow!("connection refused").context("no request is answered");
    let none: Vec<u8> = comparison.heeded(Case::Haproxy, part, 2, Err(error));
    assert!(none.is_empty());
    let json = serde_json::to_value(comparison.results(Machine::default())).expect("JSON");
    let expected = serde_json::json!([{"case": "haproxy", "part": "requests", "round": 2,
        "error": "no request is answered: connection refused"}]);
    assert_eq!(json["failed"], expected);
}

#[test]
fn a_size_that_fails_is_named_and_the_others_of_the_round_count() {
    let arguments = parsed("--rounds 2").expect("it parses");
    let mut comparison = Comparison::new(&arguments, CPUS);
    let part = Part::Packets;
    let none = || Err(anyhow::anyhow!("no packet arrived: it does not forward"));
    let large = packets::LARGE;
    for (round, outcomes) in [
        vec![
            (64, Ok(fixtures::carried(200.0))),
            (1_400, none()),
            (large, none()),
        ],
        vec![
            (64, Ok(fixtures::carried(300.0))),
            (1_400, Ok(fixtures::carried(90.0))),
            (large, none()),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let kept = comparison.heeded_sizes(Case::NginxStream, part, round + 1, outcomes);
        for (bytes, most) in kept {
            let key = (PacketLoad::Udp, bytes);
            note(
                &mut comparison.measured.packets,
                Case::NginxStream,
                key,
                most,
            );
        }
    }
    let results = comparison.results(Machine::default());
    let rows: Vec<_> = (results.packets.iter())
        .map(|row| (row.bytes, row.packets_per_second, results.rounds_of(row)))
        .collect();
    let of_two = Some("1 of 2 rounds".to_owned());
    assert_eq!(rows, [(64, 250.0, None), (1_400, 90.0, of_two)]);
    let failed: Vec<_> = (results.failed.iter())
        .map(|failed| (failed.bytes, failed.round))
        .collect();
    let expected = [(Some(1_400), 1), (Some(large), 1), (Some(large), 2)];
    assert_eq!(failed, expected);
    let lost = whole::lost(&results.failed, results.rounds);
    let wanted = "no packets in frames of 3,396 bytes of nginx-stream";
    assert_eq!(lost.as_deref(), Some(wanted));
}

/// Why there is no latency of a run of one round, with its load, and what both pages say of it.
fn no_latency(words: &str, fill: impl Fn(&mut Measured)) -> Vec<(&'static str, String)> {
    let arguments = parsed(words).expect("it parses");
    let mut comparison = Comparison::new(&arguments, CPUS);
    fill(&mut comparison.measured);
    let results = comparison.results(Machine::default());
    let json = serde_json::to_value(&results).expect("JSON");
    assert_eq!(
        json.get("no_latency").is_some(),
        !results.no_latency.is_empty()
    );
    let on_terminal = table::text(&results);
    for NoLatency { load, why } in &results.no_latency {
        let sentence = format!("Latency of {} is not measured: {why}\n", load.words());
        assert!(on_terminal.contains(&sentence), "{on_terminal}");
        assert_eq!(
            results.rates_in_words(*load),
            [format!("Not measured: {why}.")]
        );
    }
    let all = results.no_latency.into_iter();
    all.map(|no| (no.load.name(), no.why)).collect()
}

#[test]
fn a_latency_for_which_there_are_no_rates_is_missing_for_a_reason() {
    let case = Case::NginxStream;
    // Of more than 100, half come through calmly.
    let carries = move |rate: f64| {
        move |measured: &mut Measured| {
            let key = (PacketLoad::Udp, 64);
            note(&mut measured.packets, case, key, fixtures::carried(rate));
        }
    };
    let never_calm =
        "no case carried datagrams in frames of 64 bytes at any rate with a loss of 1 % or less";
    let unknown = "no round could tell how many datagrams a case carries";
    let asked = "--only nginx-stream --parts packets,latency";
    let told = |why: &str| vec![("udp", why.to_owned())];
    assert_eq!(no_latency(asked, carries(90.0)), told(never_calm));
    assert_eq!(no_latency(asked, carries(500.0)), []);
    assert_eq!(no_latency(asked, |_| ()), told(unknown));
    let too_slow = "nginx-stream, the slowest, carried 0 a second, too few to take shares of";
    let trial = |measured: &mut Measured| {
        let load = requests::Load::KeepAlive;
        note(&mut measured.requests, case, load, fixtures::answered(0.0));
    };
    assert_eq!(
        no_latency("--only nginx-stream --parts requests,latency", trial),
        [("rr", too_slow.to_owned())]
    );
    // Nobody asked for it, or it has no datagrams.
    for words in [
        "--only nginx-stream --parts packets",
        "--only nginx-stream --parts streams,latency",
        "--only haproxy --parts packets,streams,latency",
    ] {
        assert_eq!(no_latency(words, |_| ()), [], "{words}");
    }
}

#[test]
fn every_other_round_goes_backwards() {
    let cases = [Case::Haproxy, Case::NginxStream, Case::LockstepNat];
    assert_eq!(in_turns(&cases, 0), cases);
    let mut backwards = cases;
    backwards.reverse();
    assert_eq!(in_turns(&cases, 1), backwards);
    assert_eq!(in_turns(&cases, 2), cases);
}

#[test]
fn usual_cases_are_named_once_and_say_what_is_not_the_same() {
    let mut names: Vec<&str> = Case::USUAL.map(Case::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Case::USUAL.len());
    for case in Case::value_variants() {
        let value = case.to_possible_value();
        assert_eq!(
            value.as_ref().map(|value| value.get_name()),
            Some(case.name())
        );
        assert!(case.differs().ends_with('.'), "{case}");
        assert!(case.has_udp() || case.has_tcp(), "{case}");
    }
}
