//! The tables of replicated sessions.

use super::{name, number, table, thousands};
use serde_json::Value;

/// The replicator without a network.
pub fn alone(text: &mut String, file: &str, rows: &[Value]) {
    text.push_str(&format!("\nThe replicator alone ({file}):\n\n"));
    table(
        text,
        &["direction", "replicas", "ns a packet", "CPU s/GB"],
        rows.iter().map(|row| {
            vec![
                name(row, "direction"),
                thousands(&row["replicas"]),
                number(&row["ns_per_packet"], 0),
                number(&row["s_per_gb"], 2),
            ]
        }),
    );
}

/// The engine in the lab.
pub fn tables(text: &mut String, file: &str, rows: &[Value]) {
    text.push_str(&format!(
        "\nReplicated sessions beside HAProxy ({file}):\n\n"
    ));
    bulk(text, rows);
    text.push_str("\nThe longest time without a byte at the client, around a switchover:\n\n");
    switchovers(text, rows);
    text.push_str("\nMany sessions on one worker:\n\n");
    requests(text, rows);
    text.push_str("\nOther figures of replicated sessions:\n\n");
    others(text, rows);
}

fn of<'a>(rows: &'a [Value], case: &'static str) -> impl Iterator<Item = &'a Value> {
    let is_it = move |row: &&Value| name(row, "case").starts_with(case);
    rows.iter().filter(is_it)
}

fn bulk(text: &mut String, rows: &[Value]) {
    table(
        text,
        &[
            "case",
            "balancer",
            "replicas",
            "Gbit/s",
            "to HAProxy's",
            "CPU s/GB",
            "to HAProxy's",
            "everybody's CPU s/GB",
            "to HAProxy's",
            "in sync at the end",
            "CPU s/replicated GB",
        ],
        of(rows, "bulk-").map(|row| {
            let ratio = |key: &str| {
                let ratio = row[key].as_f64().zip(row["peer"][key].as_f64());
                ratio.map_or("-".to_owned(), |(ours, peer)| format!("{:.2}", ours / peer))
            };
            vec![
                name(row, "case"),
                name(row, "balancer"),
                thousands(&row["replicas"]),
                number(&row["gbit_s"], 2),
                ratio("gbit_s"),
                number(&row["cpu_s_per_gb"], 2),
                ratio("cpu_s_per_gb"),
                number(&row["machine_cpu_s_per_gb"], 2),
                ratio("machine_cpu_s_per_gb"),
                thousands(&row["in_sync"]),
                number(&row["cpu_s_per_replicated_gb"], 2),
            ]
        }),
    );
}

fn switchovers(text: &mut String, rows: &[Value]) {
    table(
        text,
        &[
            "case",
            "switchovers",
            "p50 ms",
            "p99 ms",
            "goal",
            "max ms",
            "without a fault: p50 ms",
            "p99 ms",
        ],
        of(rows, "switchover-").map(|row| {
            vec![
                name(row, "case"),
                thousands(&row["switches"]),
                number(&row["p50_ms"], 2),
                number(&row["p99_ms"], 2),
                format!("≤ {}", number(&row["goal_p99_ms"], 0)),
                number(&row["max_ms"], 2),
                number(&row["undisturbed_p50_ms"], 2),
                number(&row["undisturbed_p99_ms"], 2),
            ]
        }),
    );
}

fn requests(text: &mut String, rows: &[Value]) {
    table(
        text,
        &[
            "case",
            "sessions",
            "replicas",
            "requests/s",
            "CPU µs/request",
            "CPU ns/packet",
            "to few sessions",
            "goal",
        ],
        of(rows, "requests").map(|row| {
            vec![
                name(row, "case"),
                thousands(&row["sessions"]),
                thousands(&row["replicas"]),
                thousands(&row["requests_per_second"]),
                number(&row["cpu_us_per_request"], 1),
                thousands(&row["ns_per_packet"]),
                number(&row["ratio_to_few"], 2),
                goal(&row["goal_ratio"], 1),
            ]
        }),
    );
}

fn others(text: &mut String, rows: &[Value]) {
    let idle = of(rows, "idle-session").map(|row| {
        vec![
            format!("an idle session, of {}: KiB", thousands(&row["sessions"])),
            thousands(&row["replicas"]),
            number(&row["kib_per_session"], 1),
            goal(&row["goal_kib"], 0),
        ]
    });
    let delay = of(rows, "commit-delay").map(|row| {
        vec![
            format!(
                "from the slower of the two that agree to the client under `quorum = 2`, p99: µs \
                 (with one replica: {})",
                number(&row["primary_p99_us"], 0)
            ),
            thousands(&row["replicas"]),
            number(&row["p99_us"], 0),
            goal(&row["goal_p99_us"], 0),
        ]
    });
    table(
        text,
        &["figure", "replicas", "measured", "goal"],
        idle.chain(delay),
    );
}

fn goal(value: &Value, decimals: usize) -> String {
    match number(value, decimals).as_str() {
        "-" => "-".to_owned(),
        number => format!("≤ {number}"),
    }
}
