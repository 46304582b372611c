//! The tables of the comparison, from `compare.json`.

use super::{cell, table};
use crate::compare::{
    Goal, Latency, LatencyLoad, Outcome, PacketLoad, Packets, Requests, Results, Row, goals, held,
    in_percent,
};
use crate::figure::SHORT_RUN;
use crate::written::{grouped, thousands};

/// All of them, and goals of what is measured apart.
pub fn tables(text: &mut String, results: &Results, more: Vec<Goal>) {
    text.push_str(
        "\nBeside nftables, HAProxy, nginx and the kernel (`perf/results/compare.json`):\n\n",
    );
    if results.quick {
        text.push_str(&format!("**{SHORT_RUN}**\n\n"));
    }
    let (rounds, machine) = (results.rounds, &results.machine);
    text.push_str(&format!("{rounds} rounds; {}.\n\n", machine.line()));
    if let Some(warning) = machine.warning() {
        text.push_str(&format!("**{warning}.**\n\n"));
    }
    cases(text, results);
    text.push_str("\nPackets a second that each carries at most:\n\n");
    packets(text, results);
    text.push_str("\nHTTP requests a second that each carries at most:\n\n");
    requests(text, results);
    text.push_str("\nLatency at shares of what the slowest carries, µs:\n\n");
    latencies(text, results);
    for load in LatencyLoad::ALL {
        let told = results.rates_in_words(load);
        if !told.is_empty() {
            text.push_str(&format!("\n{}: {}\n", load.name(), told.join(" ")));
        }
    }
    for line in results.fewer_connections() {
        text.push_str(&format!(
            "\n{line} could be made: another load than that of the others.\n"
        ));
    }
    failed(text, results);
    text.push_str("\nWhat the project has set itself:\n\n");
    if results.quick {
        text.push_str("**Of a short run: nothing is judged by it.**\n\n");
    }
    goals_of(text, &[goals(results), more].concat());
}

fn cases(text: &mut String, results: &Results) {
    // Words, which a table of numbers would set to the right.
    text.push_str("| case | what it is | what is not the same |\n|---|---|---|\n");
    for row in &results.cases {
        let cells = [&row.case, &row.about, &row.differs].map(|words| words.as_str());
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// How far the rounds came apart, and how many they are where some have failed.
fn spread(results: &Results, row: &impl Row, (low, high): (f64, f64)) -> String {
    // One round says nothing of how well it repeats.
    let range = (low != high).then(|| format!("{}–{}", thousands(low), thousands(high)));
    let all = [range, results.rounds_of(row)];
    let said: Vec<String> = all.into_iter().flatten().collect();
    match said.is_empty() {
        true => "-".to_owned(),
        false => said.join(", "),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A value that not every case has.
fn some(value: Option<f64>, written: impl Fn(f64) -> String) -> String {
    value.map_or("-".to_owned(), written)
}

fn packets(text: &mut String, results: &Results) {
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
    let row = |row: &Packets| {
        let most = thousands(row.packets_per_second);
        vec![
            row.case.clone(),
            match row.load {
                PacketLoad::Udp => grouped(row.bytes as u64),
                // What a frame of TCP has in the mean.
                PacketLoad::TcpRequests | PacketLoad::TcpStream => {
                    format!("~{}", thousands(row.frame_bytes))
                }
            },
            row.load.name().to_owned(),
            match row.bound_by_generator {
                true => format!("≥ {most}"),
                false => most,
            },
            spread(results, row, (row.spread.low, row.spread.high)),
            held(row.to_nftables.as_ref(), &row.case),
            held(row.to_forwarding.as_ref(), &row.case),
            format!("{:.2}", row.gbit_per_second),
            some(row.loss, in_percent),
            some(row.calm_packets_per_second, thousands),
            some(row.cpu_s_per_million_packets, |s| format!("{s:.2}")),
            percent(row.balancer_cpu),
        ]
    };
    table(text, &head, results.packets.iter().map(row));
    if results.packets.iter().any(|row| row.bound_by_generator) {
        text.push_str(
            "\n≥: the generator could offer no more. A ratio of or to that is a bound, ≥ or ≤; of two such, it says \
             nothing (?).\n",
        );
    }
}

fn requests(text: &mut String, results: &Results) {
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
    let row = |row: &Requests| {
        vec![
            row.case.clone(),
            row.load.clone(),
            thousands(row.requests_per_second),
            spread(results, row, (row.spread.low, row.spread.high)),
            held(row.to_haproxy.as_ref(), &row.case),
            held(row.to_forwarding.as_ref(), &row.case),
            format!("{:.1}", row.cpu_s_per_million_requests),
            percent(row.balancer_cpu),
            grouped(row.errors),
        ]
    };
    table(text, &head, results.requests.iter().map(row));
}

fn latencies(text: &mut String, results: &Results) {
    let head = [
        "case",
        "load",
        "at",
        "a second",
        "p50",
        "p90",
        "p99",
        "p99 of the trials",
        "p99.9",
        "most",
        "p99 that it adds",
        "lost",
        "stalled",
        "left out",
        "CPU s/million",
    ];
    let row = |row: &Latency| {
        vec![
            row.case.clone(),
            row.load.name().to_owned(),
            percent(row.share),
            thousands(row.per_second),
            thousands(row.p50_us),
            thousands(row.p90_us),
            thousands(row.p99_us),
            spread(results, row, (row.p99_low_us, row.p99_high_us)),
            thousands(row.p999_us),
            thousands(row.max_us),
            match (&row.added_to, row.added_p99_us) {
                (Some(to), Some(added)) => format!("{} to {to}", thousands(added)),
                _ => "-".to_owned(),
            },
            in_percent(row.lost),
            format!("{} of {}", row.stalled, row.trials),
            match row.only_disturbed {
                true => "none, though in all".to_owned(),
                false => row.disturbed.to_string(),
            },
            some(row.cpu_s_per_million, |s| format!("{s:.2}")),
        ]
    };
    table(text, &head, results.latencies.iter().map(row));
    if !results.latencies.is_empty() {
        text.push_str(
            "\nMost and lost are those of the worst trial, the others medians of all. Stalled are trials in which \
             something, be it the case itself, stood still for 20 ms or longer: each is followed by another one, two at \
             most, and all of them count. Left out are trials in which a host took one of the CPUs away (steal), where there \
             are others: each is followed by another one, as many as were to be made at most.",
        );
        if let Some(words) = results.stolen_in_words() {
            text.push_str(&format!(" {words}"));
        }
        text.push('\n');
    }
}

/// What is in no figure, though it was to be.
fn failed(text: &mut String, results: &Results) {
    if results.failed.is_empty() {
        return;
    }
    text.push_str("\nRounds that failed, and are in none of these figures:\n\n");
    text.push_str("| case | what | round | why |\n|---|---|---:|---|\n");
    for one in &results.failed {
        let (case, what, why) = (&one.case, one.what(), cell(&one.error));
        text.push_str(&format!("| {case} | {what} | {} | {why} |\n", one.round));
    }
}

fn goals_of(text: &mut String, goals: &[Goal]) {
    // Words to the left, as of the cases.
    text.push_str("| goal | measured | wanted | met | notes |\n|---|---:|---:|---|---|\n");
    for goal in goals {
        let side = if goal.at_least { "≥" } else { "≤" };
        let met = match goal.outcome {
            Outcome::Met => "yes",
            Outcome::Missed => "no",
            Outcome::NotKnown => "not known",
            Outcome::NotMeasured => "not measured",
        };
        let met = match &goal.qualified {
            Some(how) => format!("{met}; {how}"),
            None => met.to_owned(),
        };
        text.push_str(&format!(
            "| {} | {} | {side} {:.2} | {met} | {} |\n",
            goal.goal,
            goal.figure(),
            goal.wanted,
            goal.notes.join("; ")
        ));
    }
}

#[cfg(test)]
mod tests;
