//! The tables of the comparison, from `compare.json`.

use super::{name, number, table, thousands};
use crate::compare::{Bound, in_percent};
use crate::machine::Machine;
use serde::Deserialize;
use serde_json::Value;

/// All of them.
pub fn tables(text: &mut String, results: &Value) {
    text.push_str(
        "\nBeside nftables, HAProxy, nginx and the kernel (`perf/results/compare.json`):\n\n",
    );
    if results["quick"] == true {
        text.push_str("**From a short run, to try the tool out: no result.**\n\n");
    }
    if let Ok(machine) = Machine::deserialize(&results["machine"]) {
        text.push_str(&format!(
            "{} rounds; {}.\n\n",
            results["rounds"],
            machine.line()
        ));
        if let Some(warning) = machine.warning() {
            text.push_str(&format!("**{warning}.**\n\n"));
        }
    }
    cases(text, rows(results, "cases"));
    text.push_str("\nPackets a second that each carries at most:\n\n");
    packets(text, rows(results, "packets"));
    text.push_str("\nHTTP requests a second that each carries at most:\n\n");
    requests(text, rows(results, "requests"));
    text.push_str(
        "\nLatency at shares of what the slowest carries (packets: with 1 % loss at most), µs:\n\n",
    );
    latencies(text, rows(results, "latencies"));
    for line in fewer_connections(results) {
        text.push_str(&format!(
            "\n{line} could be made: another load than that of the others.\n"
        ));
    }
    text.push_str("\nWhat the project has set itself:\n\n");
    if results["quick"] == true {
        text.push_str("**Of a short run: nothing is judged by it.**\n\n");
    }
    goals(text, rows(results, "goals"));
}

fn rows<'a>(results: &'a Value, key: &str) -> &'a [Value] {
    results[key].as_array().map_or(&[], Vec::as_slice)
}

fn cases(text: &mut String, rows: &[Value]) {
    // Words, which a table of numbers would set to the right.
    text.push_str("| case | what it is | what is not the same |\n|---|---|---|\n");
    for row in rows {
        let cells = ["case", "about", "differs"].map(|key| name(row, key));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// The median, and how far the rounds came apart.
fn spread(row: &Value, key: &str) -> [String; 2] {
    // One round says nothing of how well it repeats.
    let range = match row["low"] == row["high"] {
        true => "-".to_owned(),
        false => format!("{}–{}", thousands(&row["low"]), thousands(&row["high"])),
    };
    [thousands(&row[key]), range]
}

/// The sign of a bound in front of its number.
fn sign(bound: &Value) -> &'static str {
    let bound = Bound::deserialize(bound);
    bound.map_or("", Bound::sign)
}

/// A ratio, and whom to.
fn held(ratio: &Value) -> String {
    match ratio.is_null() {
        true => "-".to_owned(),
        false => format!(
            "{}{} {}",
            sign(&ratio["bound"]),
            number(&ratio["ratio"], 2),
            name(ratio, "to")
        ),
    }
}

fn percent(value: &Value) -> String {
    let share = value.as_f64();
    share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

fn packets(text: &mut String, rows: &[Value]) {
    let head = [
        "case",
        "bytes",
        "load",
        "packets/s",
        "of the rounds",
        "to nftables",
        "to forwarding",
        "Gbit/s",
        "lost then",
        "packets/s at 1 % loss",
        "CPU s/million packets",
        "balancer's CPU",
    ];
    let row = |row: &Value| {
        let [mut median, range] = spread(row, "packets_per_second");
        if row["bound_by_generator"] == true {
            median = format!("≥ {median}");
        }
        vec![
            name(row, "case"),
            match row["load"] == "udp" {
                true => thousands(&row["bytes"]),
                // What a frame of TCP has in the mean.
                false => format!("~{}", thousands(&row["frame_bytes"])),
            },
            name(row, "load"),
            median,
            range,
            held(&row["to_nftables"]),
            held(&row["to_forwarding"]),
            number(&row["gbit_per_second"], 2),
            row["loss"].as_f64().map_or("-".to_owned(), in_percent),
            thousands(&row["calm_packets_per_second"]),
            number(&row["cpu_s_per_million_packets"], 2),
            percent(&row["balancer_cpu"]),
        ]
    };
    table(text, &head, rows.iter().map(row));
    if rows.iter().any(|row| row["bound_by_generator"] == true) {
        text.push_str(
            "\n≥: the generator could offer no more. A ratio of or to that is a bound, ≥ or ≤; of two such, it says \
             nothing (?).\n",
        );
    }
}

fn requests(text: &mut String, rows: &[Value]) {
    let head = [
        "case",
        "load",
        "requests/s",
        "of the rounds",
        "to HAProxy's",
        "to forwarding",
        "CPU s/million requests",
        "balancer's CPU",
        "errors",
    ];
    let row = |row: &Value| {
        let [median, range] = spread(row, "requests_per_second");
        vec![
            name(row, "case"),
            name(row, "load"),
            median,
            range,
            held(&row["to_haproxy"]),
            held(&row["to_forwarding"]),
            number(&row["cpu_s_per_million_requests"], 1),
            percent(&row["balancer_cpu"]),
            thousands(&row["errors"]),
        ]
    };
    table(text, &head, rows.iter().map(row));
}

fn latencies(text: &mut String, rows: &[Value]) {
    let head = [
        "case",
        "load",
        "at",
        "a second",
        "p50",
        "p90",
        "p99",
        "p99 of the rounds",
        "p99.9",
        "most",
        "p99 that it adds",
        "lost",
        "stalled",
    ];
    let row = |row: &Value| {
        let rounds = ["p99_low_us", "p99_high_us"].map(|key| thousands(&row[key]));
        let lost = row["lost"].as_f64();
        vec![
            name(row, "case"),
            name(row, "load"),
            percent(&row["share"]),
            thousands(&row["per_second"]),
            thousands(&row["p50_us"]),
            thousands(&row["p90_us"]),
            thousands(&row["p99_us"]),
            rounds.join("–"),
            thousands(&row["p999_us"]),
            thousands(&row["max_us"]),
            match row["added_to"].as_str() {
                Some(to) => format!("{} to {to}", thousands(&row["added_p99_us"])),
                None => "-".to_owned(),
            },
            lost.map_or("-".to_owned(), in_percent),
            format!(
                "{} of {}",
                thousands(&row["stalled"]),
                thousands(&row["trials"])
            ),
        ]
    };
    table(text, &head, rows.iter().map(row));
    if !rows.is_empty() {
        text.push_str(
            "\nMost and lost are those of the worst trial, the others medians of all. Stalled are trials in which \
             something, be it the case itself, stood still for 20 ms or longer: each is followed by another one, two at \
             most, and all of them count.\n",
        );
    }
}

/// As the tables on the terminal have it.
fn fewer_connections(results: &Value) -> Vec<String> {
    let asked = results["connections"].as_u64();
    let fewer = |row: &Value| {
        let there = row["connections"].as_u64()?;
        let asked = asked.filter(|asked| there < *asked)?;
        let (case, at) = (name(row, "case"), percent(&row["share"]));
        Some(format!("{case} at {at}: {there} of {asked} connections"))
    };
    rows(results, "latencies")
        .iter()
        .filter_map(fewer)
        .collect()
}

fn goals(text: &mut String, rows: &[Value]) {
    let row = |row: &Value| {
        let side = if row["at_least"] == true {
            "≥"
        } else {
            "≤"
        };
        let notes = row["notes"].as_array().into_iter().flatten();
        let notes: Vec<&str> = notes.filter_map(Value::as_str).collect();
        let met = if row["met"] == true { "yes" } else { "no" };
        vec![
            name(row, "goal"),
            format!("{}{}", sign(&row["bound"]), number(&row["measured"], 2)),
            format!("{side} {}", number(&row["wanted"], 2)),
            met.to_owned(),
            notes.join("; "),
        ]
    };
    table(
        text,
        &["goal", "measured", "wanted", "met", "notes"],
        rows.iter().map(row),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_part_of_the_comparison_has_its_table() {
        let results = json!({
            "quick": true, "rounds": 3, "connections": 64,
            "cases": [{"case": "haproxy", "about": "HAProxy.", "differs": "It ends TCP."}],
            "packets": [{"case": "lockstep-tunnel", "load": "udp", "bytes": 64, "packets_per_second": 1_234_567.0,
                "low": 1_000_000.0, "high": 1_300_000.0, "to_nftables": {"to": "nftables-dnat", "ratio": 1.5, "bound": "at-least"}, "to_forwarding": null,
                "gbit_per_second": 0.8, "calm_packets_per_second": 1e6, "cpu_s_per_million_packets": 0.7, "loss": 0.0312, "balancer_cpu": 0.98, "bound_by_generator": true}],
            "requests": [{"case": "haproxy", "load": "keep-alive", "requests_per_second": 61_836.0, "low": 60_000.0,
                "high": 62_000.0, "to_haproxy": {"to": "haproxy", "ratio": 1.0, "bound": "exact"},
                "to_forwarding": {"to": "linux-forwarding", "ratio": 0.9, "bound": "exact"}, "cpu_s_per_million_requests": 3.4,
                "balancer_cpu": 0.21, "errors": 0}],
            "latencies": [{"case": "haproxy", "load": "rr", "share": 0.5, "per_second": 10_000.0, "p50_us": 90.0,
                "p90_us": 100.0, "p99_us": 120.4, "p99_low_us": 110.0, "p99_high_us": 130.0, "p999_us": 200.0,
                "max_us": 40_000.0, "added_to": "linux-forwarding", "added_p99_us": 20.0, "lost": 0.0, "trials": 4, "stalled": 1, "connections": 37}],
            "goals": [{"goal": "packets", "measured": 1.4, "wanted": 1.5, "bound": "at-most", "met": false, "at_least": true, "notes": ["3 of haproxy failed"]}],
        });
        let mut text = String::new();
        tables(&mut text, &results);
        for wanted in [
            "no result",
            "| haproxy | HAProxy. | It ends TCP. |",
            "| lockstep-tunnel | 64 | udp | ≥ 1,234,567 | 1,000,000–1,300,000 | ≥ 1.50 nftables-dnat | - | 0.80 | 3.12 % | 1,000,000 | 0.70 | 98 % |",
            "| haproxy | keep-alive | 61,836 | 60,000–62,000 | 1.00 haproxy | 0.90 linux-forwarding | 3.4 | 21 % | 0 |",
            "| haproxy | rr | 50 % | 10,000 | 90 | 100 | 120 | 110–130 | 200 | 40,000 | 20 to linux-forwarding | 0 % | 1 of 4 |",
            "\nhaproxy at 50 %: 37 of 64 connections could be made",
            "| packets | ≤ 1.40 | ≥ 1.50 | no | 3 of haproxy failed |",
        ] {
            assert!(text.contains(wanted), "no {wanted} in\n{text}");
        }
    }
}
