//! From `compare.json` to the page.

#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

fn packets(case: &str) -> Value {
    json!({"case": case, "load": "udp", "bytes": 64, "frame_bytes": 64.0, "packets_per_second": 1_234_567.0,
        "low": 1_000_000.0, "high": 1_300_000.0, "rounds": [1_000_000.0, 1_234_567.0, 1_300_000.0],
        "to_nftables": {"to": "nftables-dnat", "ratio": 1.5, "bound": "neither"}, "to_forwarding": null,
        "gbit_per_second": 0.8, "calm_packets_per_second": 1e6, "cpu_s_per_million_packets": 0.7, "loss": 0.0312,
        "balancer_cpu": 0.98, "bound_by_generator": true})
}

fn requests(low: f64, high: f64) -> Value {
    json!({"case": "haproxy", "load": "keep-alive", "requests_per_second": 61_836.0, "low": low, "high": high,
        "rounds": [low, 61_836.0, high], "to_haproxy": {"to": "haproxy", "ratio": 1.0, "bound": "exact"},
        "to_forwarding": {"to": "linux-forwarding", "ratio": 0.9, "bound": "exact"}, "p50_us": 1.0, "p99_us": 2.0,
        "cpu_s_per_million_requests": 3.4, "balancer_cpu": 0.21, "errors": 0})
}

fn latency(case: &str, stalled: u64) -> Value {
    let added = if case == "haproxy" { 20.0 } else { -1234.5 };
    json!({"case": case, "load": "rr", "share": 0.5, "per_second": 10_000.0, "p50_us": 90.0,
        "p90_us": 100.0, "p99_us": 120.4, "p99_low_us": 110.0, "p99_high_us": 130.0, "p999_us": 200.0,
        "max_us": 40_000.0, "added_to": "linux-forwarding", "added_p50_us": 10.0, "added_p99_us": added, "lost": 0.0,
        "cpu_s_per_million": null, "trials": 4, "stalled": stalled, "connections": 37})
}

/// As of a run of some time ago, which does not say whether rounds have failed, and judges goals itself.
fn results() -> Value {
    json!({
        "quick": true, "rounds": 3, "flows": 1_000, "connections": 64,
        "cases": [{"case": "haproxy", "about": "HAProxy.", "differs": "It ends TCP."}],
        "packets": [packets("lockstep-tunnel"), packets("nftables-dnat")],
        "requests": [requests(60_000.0, 62_000.0)],
        "latencies": [latency("haproxy", 1), latency("linux-forwarding", 0), latency("lockstep-tunnel", 3)],
        "goals": [{"goal": "packets", "measured": 1.4, "wanted": 1.5, "bound": "at-most", "met": false, "at_least": true,
            "notes": ["3 of haproxy failed"]}],
    })
}

fn written(results: Value) -> String {
    let mut text = String::new();
    tables(
        &mut text,
        &serde_json::from_value(results).unwrap(),
        Vec::new(),
    );
    text
}

#[test]
fn every_part_of_the_comparison_has_its_table() {
    let text = written(results());
    for wanted in [
        "no result",
        "| haproxy | HAProxy. | It ends TCP. |",
        "| lockstep-tunnel | 64 | udp | ≥ 1,234,567 | 1,000,000–1,300,000 | ? 1.50 nftables-dnat | - | 0.80 | 3.12 % | 1,000,000 | 0.70 | 98 % |",
        "| haproxy | keep-alive | 61,836 | 60,000–62,000 | - | 0.90 linux-forwarding | 3.4 | 21 % | 0 |",
        "| haproxy | rr | 50 % | 10,000 | 90 | 100 | 120 | 110–130 | 200 | 40,000 | 20 to linux-forwarding | 0 % | 1 of 4 |",
        "\nhaproxy at 50 %: 37 of 64 connections could be made",
        "| packets/s of the engine (tunnel, 64 bytes), times nftables' | ? 1.50 | ≥ 1.50 | not known | the generator could offer no more |",
        "| p99 at half load that the engine (tunnel, requests) adds to Linux forwarding's, µs | -1,234.50 | ≤ 0.00 | not known | \
         something stood still in 3 of 4 trials of lockstep-tunnel |",
        "packets of both taken in on their own CPU, µs | - | ≤ 0.00 | not measured |  |",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    assert!(!text.contains("Rounds that failed"), "{text}");
    assert!(!text.contains("3 of haproxy failed"), "{text}");
}

#[test]
fn what_a_host_took_from_the_latencies_is_told_where_it_took_something() {
    let mut results = results();
    results["stolen"] = json!(0.002_34);
    let text = written(results.clone());
    let told = "A host had taken 0.23 % of both CPUs' time away";
    assert!(text.contains(told), "{text}");
    for nothing in [json!(0.0), json!(null)] {
        results["stolen"] = nothing;
        let text = written(results.clone());
        assert!(!text.contains("A host had taken"), "{text}");
    }
}

#[test]
fn a_case_is_not_held_against_itself() {
    let text = written(results());
    let row = text
        .lines()
        .find(|line| line.starts_with("| nftables-dnat | 64"));
    assert!(
        row.unwrap().contains("| 1,000,000–1,300,000 | - | - |"),
        "{text}"
    );
}

#[test]
fn figures_that_lack_a_round_say_so_and_why() {
    let mut results = results();
    results["requests"] = json!([requests(60_000.0, 60_000.0)]);
    results["failed"] = json!([
        {"case": "haproxy", "part": "requests", "round": 1, "error": "no answer | at all"},
        {"case": "haproxy", "part": "requests", "round": 3, "error": "no answer"},
        {"case": "haproxy", "part": "latency-of-requests", "round": 2, "error": "nothing arrived"},
        {"case": "nginx-stream", "part": "packets", "round": 2, "error": "nothing arrived"},
        {"case": "lockstep-tunnel", "part": "packets", "bytes": 1_400, "round": 2, "error": "it stopped"},
    ]);
    let text = written(results);
    for wanted in [
        "| haproxy | keep-alive | 61,836 | 1 of 3 rounds |",
        "| 120 | 110–130, 2 of 3 rounds |",
        "| lockstep-tunnel | 64 | udp | ≥ 1,234,567 | 1,000,000–1,300,000 |",
        "| haproxy | requests | 1 | no answer / at all |",
        "| nginx-stream | packets | 2 | nothing arrived |",
        "| lockstep-tunnel | packets in frames of 1,400 bytes | 2 | it stopped |",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
}

#[test]
fn a_latency_that_could_not_be_measured_is_missing_for_a_reason() {
    let mut results = results();
    results["no_latency"] = json!([{"load": "udp", "why": "no case carried them"}]);
    let text = written(results);
    for wanted in [
        "\nudp: Not measured: no case carried them.\n",
        "packets of both taken in on their own CPU, µs | - | ≤ 0.00 | not measured | no case carried them |",
    ] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
    assert!(!text.contains("rr: Not measured"), "{text}");
}
