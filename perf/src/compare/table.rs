//! What the comparison came to, on the terminal.

use super::failed::Row;
use super::goals::{Goal, Outcome, goals, in_percent};
use super::ratio::held;
use super::results::{Latency, LatencyLoad, PacketLoad, Results};
use crate::figure::SHORT_RUN;
use crate::written::{grouped, thousands};
use comfy_table::{CellAlignment, Table, presets};
use std::collections::BTreeSet;

/// All tables, and what their columns mean.
pub fn text(results: &Results) -> String {
    let mut lines = Vec::new();
    if results.quick {
        lines.push(format!("\n{SHORT_RUN}"));
    }
    maxima(results, &mut lines);
    latency(results, &mut lines);
    if !results.failed.is_empty() {
        lines.push("\nRounds that failed, and are in none of these figures".to_owned());
        lines.extend(results.failed.iter().map(|failed| format!("  {failed}")));
    }
    lines.push("\nWhat is not the same from case to case".to_owned());
    let differs = results.cases.iter();
    lines.extend(differs.map(|about| format!("  {}: {}", about.case, about.differs)));
    lines.push(match results.quick {
        true => "\nWhat the project has set itself (of a short run: no result)".to_owned(),
        false => "\nWhat the project has set itself".to_owned(),
    });
    lines.extend(
        goals(results)
            .iter()
            .map(|goal| format!("  {}", told(goal))),
    );
    lines.join("\n")
}

/// What each carries at most.
fn maxima(results: &Results, lines: &mut Vec<String>) {
    let rounds = match results.rounds {
        1 => "one round".to_owned(),
        rounds => {
            format!("medians of {rounds} rounds; low and high: the least and the most of them")
        }
    };
    if !results.packets.is_empty() {
        lines.push(format!(
            "\nPackets a second that each carries at most ({rounds})"
        ));
        lines.push(packets(results).to_string());
        lines.push(
            "lost then: of what was offered at that rate. at ≤ 1 % loss: the most packets a second at which no more \
             was lost."
                .to_owned(),
        );
        if results.packets.iter().any(|row| row.bound_by_generator) {
            lines.push(
                "≥: the generator could offer no more, and the case may carry more. A ratio of or to that is a bound, ≥ \
                 or ≤; of two such, it says nothing (?)."
                    .to_owned(),
            );
        }
    }
    if !results.requests.is_empty() {
        lines.push(format!(
            "\nHTTP requests a second that each carries at most ({rounds})"
        ));
        lines.push(requests(results).to_string());
    }
    if !(results.packets.is_empty() && results.requests.is_empty()) {
        lines.push(
            "CPU s/M: seconds of the balancer's CPU for a million of them. CPU: the share of the time for which it was \
             not idle."
                .to_owned(),
        );
    }
}

fn latency(results: &Results, lines: &mut Vec<String>) {
    for load in [LatencyLoad::Rr, LatencyLoad::Udp] {
        if results.latencies.iter().any(|row| row.load == load) {
            let what = match load {
                LatencyLoad::Rr => "requests over open connections, there and back",
                LatencyLoad::Udp => "datagrams of 64 bytes, one way",
            };
            lines.push(format!(
                "\nLatency of {what}, at shares of what the slowest of them carries: p50 / p99 in µs"
            ));
            lines.push(latencies(results, load).to_string());
        }
        if let Some(why) = results.why_no_latency(load) {
            lines.push(format!(
                "\nLatency of {} is not measured: {why}",
                load.words()
            ));
        }
    }
    if !results.latencies.is_empty() {
        lines.push(
            "p99 added: on top of the p99 that the case named there has. lost: in the trial in which it was most. stalled: \
             trials in which something, be it the case itself, stood still for 20 ms or longer; each is followed by \
             another one, two at most, and medians are of all of them."
                .to_owned(),
        );
        lines.extend(results.left_out_in_words());
        lines.extend(results.stolen_in_words());
    }
    let fewer = results.fewer_connections().into_iter();
    lines.extend(
        fewer.map(|line| format!("{line} could be made: another load than that of the others.")),
    );
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
    let notes = goal.qualified.iter().chain(&goal.notes);
    let notes: Vec<String> = notes.map(|note| format!("; {note}")).collect();
    let figure = match goal.measured {
        Some(_) => format!("{}, ", goal.figure()),
        None => String::new(),
    };
    format!(
        "{outcome:<12}  {}: {figure}wanted {side} {}{}",
        goal.goal,
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
        "CPU s/M",
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
            of_rounds(results, row.spread.low),
            of_rounds(results, row.spread.high),
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
        "CPU s/M",
        "CPU",
        "errors",
    ]);
    for row in &results.requests {
        table.add_row([
            named(results, row),
            row.load.clone(),
            thousands(row.requests_per_second),
            of_rounds(results, row.spread.low),
            of_rounds(results, row.spread.high),
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

/// The least or the most of the rounds: of one round both are the figure itself.
fn of_rounds(results: &Results, value: f64) -> String {
    match results.rounds {
        1 => "-".to_owned(),
        _ => thousands(value),
    }
}

fn two_digits(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests;
