//! The tables of replicated sessions.

use super::{name, number, table, thousands};
use crate::compare::{self, Goal, Side};
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

/// What the project has set itself for downloads, and what came of it.
pub fn download(rows: &[Value]) -> Goal {
    let side = |balancer: &str| {
        let mut all = of(rows, "bulk-download");
        let row = all.find(|row| row["balancer"] == balancer && row["replicas"] == 1)?;
        let (gbit, cpu) = (row["gbit_s"].as_f64()?, row["cpu_s_per_gb"].as_f64()?);
        Some(Side {
            rate: gbit,
            // One CPU: seconds of it for each second.
            busy: gbit / 8.0 * cpu,
            cpu: Some(cpu),
        })
    };
    compare::download(side("lockstep").zip(side("haproxy")))
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
                goal(&row["goal_p99_ms"], &row["p99_ms"], 0),
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
                goal(&row["goal_ratio"], &row["ratio_to_few"], 1),
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
            goal(&row["goal_kib"], &row["kib_per_session"], 0),
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
            goal(&row["goal_p99_us"], &row["p99_us"], 0),
        ]
    });
    table(
        text,
        &["figure", "replicas", "measured", "goal"],
        idle.chain(delay),
    );
}

/// What is wanted, and whether it was missed: also where nothing is there to tell.
fn goal(wanted: &Value, measured: &Value, decimals: usize) -> String {
    let Some(most) = wanted.as_f64() else {
        return "-".to_owned();
    };
    let is_met = measured.as_f64().is_some_and(|measured| measured <= most);
    let missed = if is_met { "" } else { ", missed" };
    format!("≤ {}{missed}", number(wanted, decimals))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Outcome;
    use serde_json::json;

    #[test]
    fn a_goal_that_is_missed_says_so_in_every_table() {
        let rows = [
            json!({"case": "switchover-killed", "p99_ms": 6.61, "goal_p99_ms": 5.0}),
            json!({"case": "switchover-silent", "p99_ms": 22.16, "goal_p99_ms": 50.0}),
            json!({"case": "requests", "ratio_to_few": 1.6, "goal_ratio": 1.5}),
            json!({"case": "idle-session", "kib_per_session": 65.0, "goal_kib": 64.0}),
            json!({"case": "commit-delay", "p99_us": 51.0, "goal_p99_us": 100.0}),
        ];
        let mut text = String::new();
        tables(&mut text, "a file", &rows);
        let has = |parts: [&str; 2]| {
            let mut lines = text.lines();
            lines.any(|line| parts.iter().all(|part| line.contains(part)))
        };
        for row in [
            ["switchover-killed", "| 6.61 | ≤ 5, missed |"],
            ["switchover-silent", "| 22.16 | ≤ 50 |"],
            ["requests", "| 1.60 | ≤ 1.5, missed |"],
            ["an idle session", "| 65.0 | ≤ 64, missed |"],
            ["quorum", "| 51 | ≤ 100 |"],
        ] {
            assert!(has(row), "no {row:?} in\n{text}");
        }
        let nothing = Value::Null;
        assert_eq!(goal(&json!(5.0), &nothing, 0), "≤ 5, missed");
        assert_eq!(goal(&nothing, &json!(5.0), 0), "-");
    }

    #[test]
    fn a_download_is_held_against_haproxy_s_with_what_both_take() {
        let row = |balancer: &str, replicas: u32, gbit: f64, cpu: f64| json!({"case": "bulk-download", "balancer": balancer, "replicas": replicas, "gbit_s": gbit, "cpu_s_per_gb": cpu});
        let rows = [
            row("haproxy", 1, 6.0, 1.0),
            row("lockstep", 3, 2.0, 4.0),
            row("lockstep", 1, 4.5, 1.6),
        ];
        let goal = download(&rows);
        assert_eq!(
            (goal.figure().as_str(), goal.outcome),
            ("0.75", Outcome::Missed)
        );
        let how = goal.qualified.unwrap_or_default();
        assert_eq!(
            how,
            "haproxy's CPU was 75 % busy: client and servers were its limit"
        );
        assert_eq!(goal.notes, ["CPU s/GB: 1.60, haproxy's 1.00"]);
        assert_eq!(download(&rows[1..]).outcome, Outcome::NotMeasured);
    }
}
