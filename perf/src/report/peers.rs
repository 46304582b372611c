//! The tables of what the engine is compared with.

use super::{name, number, table, thousands};
use serde_json::Value;

/// Packets through the lab.
pub fn packets(text: &mut String, rows: &[Value]) {
    text.push_str("\nPackets, beside nftables and nginx (`perf/results/lab.json`):\n\n");
    table(
        text,
        &[
            "case",
            "bytes",
            "packets/s",
            "ratio to nftables",
            "packets/s at 1 % loss",
            "CPU s/million packets",
        ],
        rows.iter().map(|row| {
            vec![
                name(row, "case"),
                thousands(&row["bytes"]),
                thousands(&row["packets_per_second"]),
                number(&row["ratio_to_nftables"], 2),
                thousands(&row["packets_per_second_within_1_percent_loss"]),
                number(&row["cpu_s_per_million_packets"], 2),
            ]
        }),
    );
}

/// HTTP requests through the lab.
pub fn requests(text: &mut String, rows: &[Value]) {
    text.push_str(
        "\nHTTP requests, beside nftables, HAProxy and nginx (`perf/results/http.json`):\n\n",
    );
    table(
        text,
        &[
            "case",
            "load",
            "requests/s",
            "to HAProxy's",
            "p50 µs",
            "p99 µs",
            "CPU s/million requests",
            "balancer's CPU",
            "errors",
        ],
        rows.iter().map(|row| {
            let share = row["balancer_cpu"].as_f64();
            vec![
                name(row, "case"),
                name(row, "load"),
                thousands(&row["requests_per_second"]),
                number(&row["ratio_to_haproxy"], 2),
                thousands(&row["p50_us"]),
                thousands(&row["p99_us"]),
                number(&row["cpu_s_per_million_requests"], 1),
                share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0)),
                thousands(&row["errors"]),
            ]
        }),
    );
}
