//! What the comparison came to, on the terminal.

use super::failed::Row;
use super::goals::{Goal, Outcome, goals, in_percent};
use super::ratio::held;
use super::results::{Latency, LatencyLoad, PacketLoad, Results};
use crate::figure::SHORT_RUN;
use crate::written::{grouped, thousands};
use comfy_table::{CellAlignment, Table, presets};
use std::collections::BTreeSet;

/// All tables.
pub fn print(results: &Results) {
    if results.quick {
        println!("\n{SHORT_RUN}");
    }
    println!(
        "\nPackets a second at most (median of {}, and spread)",
        results.rounds
    );
    println!("{}", packets(results));
    println!(
        "≥: as much as the generator could offer. A ratio to or of that is a bound, ≥ or ≤; of two such, it \
         says nothing (?)."
    );
    println!("\nRequests a second at most");
    println!("{}", requests(results));
    for load in [LatencyLoad::Rr, LatencyLoad::Udp] {
        if results.latencies.iter().any(|row| row.load == load) {
            let what = match load {
                LatencyLoad::Rr => "requests over open connections, there and back",
                LatencyLoad::Udp => "datagrams of 64 bytes, one way",
            };
            println!("\nLatency of {what}: p50 / p99 in µs");
            println!("{}", latencies(results, load));
            println!(
                "lost: of the worst trial. stalled: trials in which something, be it the case itself, stood still \
                 for 20 ms or longer; each is followed by another one, two at most, and all are in the medians."
            );
        }
    }
    for line in results.fewer_connections() {
        println!("{line} could be made: another load than that of the others");
    }
    if !results.failed.is_empty() {
        println!("\nRounds that failed, and are in none of these figures");
        for failed in &results.failed {
            println!("  {failed}");
        }
    }
    println!("\nWhat is not the same");
    for about in &results.cases {
        println!("  {}: {}", about.case, about.differs);
    }
    let quick = if results.quick {
        " (of a short run: no result)"
    } else {
        ""
    };
    println!("\nGoals{quick}");
    for goal in goals(results) {
        println!("  {}", told(&goal));
    }
}

/// A goal in a line.
fn told(goal: &Goal) -> String {
    let outcome = match goal.outcome {
        Outcome::Met => "reached",
        Outcome::Missed => "not reached",
        Outcome::NotKnown => "not known",
        Outcome::NotMeasured => "not measured",
    };
    let side = if goal.at_least { "at least" } else { "at most" };
    let notes: Vec<String> = goal.notes.iter().map(|note| format!("; {note}")).collect();
    format!(
        "{outcome:<12} {}: {} (wanted: {side} {}){}",
        goal.goal,
        goal.figure(),
        goal.wanted,
        notes.concat()
    )
}

fn packets(results: &Results) -> Table {
    let mut table = table(&[
        "case",
        "bytes",
        "packets/s",
        "low",
        "high",
        "to nftables",
        "to forwarding",
        "Gbit/s",
        "lost then",
        "at ≤ 1 % loss",
        "CPU s/M packets",
        "CPU",
    ]);
    for row in &results.packets {
        let case = match row.load {
            PacketLoad::Udp => named(results, row),
            PacketLoad::TcpRequests => format!("{} (TCP requests)", named(results, row)),
            PacketLoad::TcpStream => format!("{} (TCP stream)", named(results, row)),
        };
        let bytes = match row.load {
            PacketLoad::Udp => grouped(row.bytes as u64),
            _ => format!("~{}", thousands(row.frame_bytes)),
        };
        table.add_row([
            case,
            bytes,
            format!(
                "{}{}",
                if row.bound_by_generator { "≥ " } else { "" },
                thousands(row.packets_per_second),
            ),
            thousands(row.spread.low),
            thousands(row.spread.high),
            held(row.to_nftables.as_ref(), &row.case),
            held(row.to_forwarding.as_ref(), &row.case),
            format!("{:.2}", row.gbit_per_second),
            row.loss.map_or("-".into(), in_percent),
            row.calm_packets_per_second.map_or("-".into(), thousands),
            two_digits(row.cpu_s_per_million_packets),
            percent(row.balancer_cpu),
        ]);
    }
    table
}

fn requests(results: &Results) -> Table {
    let mut table = table(&[
        "case",
        "load",
        "requests/s",
        "low",
        "high",
        "to HAProxy",
        "to forwarding",
        "CPU s/M requests",
        "CPU",
        "errors",
    ]);
    for row in &results.requests {
        table.add_row([
            named(results, row),
            row.load.clone(),
            thousands(row.requests_per_second),
            thousands(row.spread.low),
            thousands(row.spread.high),
            held(row.to_haproxy.as_ref(), &row.case),
            held(row.to_forwarding.as_ref(), &row.case),
            format!("{:.1}", row.cpu_s_per_million_requests),
            percent(row.balancer_cpu),
            grouped(row.errors),
        ]);
    }
    table
}

/// A row for each case, a column for each share.
fn latencies(results: &Results, load: LatencyLoad) -> Table {
    let rows: Vec<&Latency> = (results.latencies.iter())
        .filter(|row| row.load == load)
        .collect();
    let shares: BTreeSet<u32> = rows.iter().map(|row| percents(row)).collect();
    let mut head = vec!["case".to_owned()];
    for &share in &shares {
        let rate = rows.iter().find(|row| percents(row) == share);
        let rate = rate.map_or(0.0, |row| row.per_second);
        head.push(format!("{share} % ({}/s)", thousands(rate)));
        head.push("p99 added".to_owned());
        head.push("lost".to_owned());
        head.push("stalled".to_owned());
        head.push("CPU s/M".to_owned());
    }
    let words: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = table(&words);
    let mut cases: Vec<&Latency> = Vec::new();
    for row in &rows {
        if !cases.iter().any(|other| other.case == row.case) {
            cases.push(row);
        }
    }
    for of in cases {
        let mut cells = vec![named(results, of)];
        for &share in &shares {
            let row = (rows.iter()).find(|row| row.case == of.case && percents(row) == share);
            match row {
                Some(row) => cells.extend([
                    format!("{} / {}", thousands(row.p50_us), thousands(row.p99_us)),
                    match (row.added_p99_us, &row.added_to) {
                        (Some(added), Some(to)) => format!("{} to {to}", thousands(added)),
                        _ => "-".to_owned(),
                    },
                    in_percent(row.lost),
                    format!("{} of {}", row.stalled, row.trials),
                    two_digits(row.cpu_s_per_million),
                ]),
                None => cells.extend(["-"; 5].map(str::to_owned)),
            }
        }
        table.add_row(cells);
    }
    table
}

/// The case, and of how many rounds its figures are where some have failed.
fn named(results: &Results, row: &impl Row) -> String {
    match results.rounds_of(row) {
        Some(rounds) => format!("{} ({rounds})", row.case()),
        None => row.case().to_owned(),
    }
}

fn percents(row: &Latency) -> u32 {
    (row.share * 100.0).round() as u32
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn two_digits(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(two_digits(None), "-");
        assert_eq!(two_digits(Some(1.5)), "1.50");
        assert_eq!(percent(0.876), "88 %");
    }
}
