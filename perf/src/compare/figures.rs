//! The comparison's figures, for the report to draw: of the rows, like its tables.

use super::failed::Row;
use super::ratio::{Bound, Ratio};
use super::results::{Latency, LatencyLoad, PacketLoad, Packets, Requests, Results, Share};
use crate::figure::{Axis, Fact, Figure, Kind, Point, Series};
use crate::written::{grouped, thousands};
use std::collections::BTreeSet;

/// All of them.
pub fn figures(results: &Results) -> Vec<Figure> {
    let sizes: BTreeSet<usize> = results.packets.iter().map(|row| row.bytes).collect();
    let of_packets = sizes.into_iter().map(|bytes| packets(results, bytes));
    let mut figures: Vec<Figure> = of_packets.collect();
    figures.push(requests(results));
    for share in Share::ALL {
        figures.push(latency(results, LatencyLoad::Rr, share));
        figures.push(latency(results, LatencyLoad::Udp, share));
    }
    figures.retain(|figure| !figure.labels.is_empty());
    for figure in &mut figures {
        figure.quick = results.quick;
    }
    figures
}

fn bars(id: String, title: String, y: (&str, &str)) -> Figure {
    Figure {
        id,
        title,
        kind: Kind::Bars,
        x: Axis::new("case", ""),
        y: Axis::new(y.0, y.1),
        labels: Vec::new(),
        ours: Vec::new(),
        theirs: Vec::new(),
        theirs_from: String::new(),
        differs: Vec::new(),
        facts: Vec::new(),
        quick: false,
    }
}

/// A sentence for each case in the figure, and one for each that lacks rounds.
fn differs<R: Row>(results: &Results, rows: &[&R]) -> Vec<String> {
    let named = |case: &str| rows.iter().any(|row| row.case() == case);
    let mut sentences: Vec<String> = (results.cases.iter())
        .filter(|about| named(&about.case))
        .map(|about| format!("{}: {}", about.case, about.differs))
        .collect();
    for row in rows {
        if let Some(rounds) = results.rounds_of(*row) {
            let (case, part) = (row.case(), row.part().name());
            let sentence = format!("{case}, {part}: {rounds}; the others failed.");
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
    }
    sentences
}

fn packets(results: &Results, bytes: usize) -> Figure {
    let class = match bytes {
        super::packets::LARGE => "large".to_owned(),
        other => other.to_string(),
    };
    let mut figure = bars(
        format!("compare-packets-{class}"),
        format!(
            "Packets a second that each carries at most, frames of {} bytes",
            grouped(bytes as u64)
        ),
        ("packets", "1/s"),
    );
    let rows: Vec<&Packets> = (results.packets.iter())
        .filter(|row| row.bytes == bytes)
        .collect();
    figure.labels = rows.iter().map(|row| label(row)).collect();
    let points = rows.iter().enumerate().map(|(at, row)| Point {
        x: at as f64,
        y: row.packets_per_second,
        low: row.spread.low,
        high: row.spread.high,
    });
    figure.ours = vec![Series {
        name: "packets a second".to_owned(),
        points: points.collect(),
    }];
    let udp = rows.iter().filter(|row| row.load == PacketLoad::Udp);
    figure.facts = udp
        .filter_map(|row| ratio(row.to_nftables.as_ref(), &row.case, ""))
        .collect();
    figure.differs = differs(results, &rows);
    let bound = rows.iter().filter(|row| row.bound_by_generator);
    figure.differs.extend(bound.map(|row| {
        format!(
            "{}: as much as the generator could offer; it may carry more.",
            label(row)
        )
    }));
    let tcp = rows.iter().filter(|row| row.load != PacketLoad::Udp);
    figure.differs.extend(tcp.map(|row| {
        format!(
            "{}: TCP, frames of {} bytes on average, acknowledgements and both directions counted.",
            label(row),
            thousands(row.frame_bytes)
        )
    }));
    figure
}

/// The case, and how its packets come where that is not as datagrams.
fn label(row: &Packets) -> String {
    match row.load {
        PacketLoad::Udp => row.case.clone(),
        PacketLoad::TcpRequests | PacketLoad::TcpStream => format!("{} (TCP)", row.case),
    }
}

fn requests(results: &Results) -> Figure {
    let mut figure = bars(
        "compare-requests".to_owned(),
        "HTTP requests a second that each carries at most".to_owned(),
        ("requests", "1/s"),
    );
    for (load, name) in [
        ("keep-alive", "over open connections"),
        ("connection-per-request", "a connection for each"),
    ] {
        let rows: Vec<&Requests> = (results.requests.iter())
            .filter(|row| row.load == load)
            .collect();
        for row in &rows {
            if !figure.labels.contains(&row.case) {
                figure.labels.push(row.case.clone());
            }
        }
        let labels = &figure.labels;
        let at = |case: &str| labels.iter().position(|label| label == case);
        let points = rows.iter().filter_map(|row| {
            Some(Point {
                x: at(&row.case)? as f64,
                y: row.requests_per_second,
                low: row.spread.low,
                high: row.spread.high,
            })
        });
        figure.ours.push(Series {
            name: name.to_owned(),
            points: points.collect(),
        });
        let facts = rows.iter();
        let of = format!(", {name}");
        figure
            .facts
            .extend(facts.filter_map(|row| ratio(row.to_haproxy.as_ref(), &row.case, &of)));
    }
    let rows: Vec<&Requests> = results.requests.iter().collect();
    figure.differs = differs(results, &rows);
    figure
}

fn latency(results: &Results, load: LatencyLoad, share: Share) -> Figure {
    let (id, what) = match load {
        LatencyLoad::Rr => ("compare-latency", "requests over open connections"),
        LatencyLoad::Udp => ("compare-latency-packets", "datagrams one way"),
    };
    let rows: Vec<&Latency> = (results.latencies.iter())
        .filter(|row| row.load == load && Share((row.share * 100.0).round() as u32) == share)
        .collect();
    let rate = rows.first().map_or(0.0, |row| row.per_second);
    let mut figure = bars(
        format!("{id}-{}", share.0),
        format!(
            "Latency of {what} at {} % of what the slowest carries ({} a second)",
            share.0,
            thousands(rate)
        ),
        ("latency", "µs"),
    );
    figure.y.logarithmic = true;
    figure.labels = rows.iter().map(|row| row.case.clone()).collect();
    let series = |name: &str, of: fn(&Latency) -> (f64, f64, f64)| Series {
        name: name.to_owned(),
        points: (rows.iter().enumerate())
            .map(|(at, row)| {
                let (y, low, high) = of(row);
                let x = at as f64;
                Point { x, y, low, high }
            })
            .collect(),
    };
    figure.ours = vec![
        series("p50", |row| (row.p50_us, row.p50_us, row.p50_us)),
        series("p99", |row| (row.p99_us, row.p99_low_us, row.p99_high_us)),
        series("p99.9", |row| (row.p999_us, row.p999_us, row.p999_us)),
    ];
    let added = rows.iter().filter_map(|row| {
        let name = format!("p99 that {} adds to {}", row.case, row.added_to.as_ref()?);
        Some(Fact::new(name, row.added_p99_us?, None, "µs"))
    });
    figure.facts = added.collect();
    figure.differs = differs(results, &rows);
    figure.differs.extend(results.rates_in_words(load));
    figure.differs.extend(results.losses_in_words(&rows));
    figure
}

/// A ratio, and how it is to be read; none of a case to itself, which results of some time ago have.
fn ratio(ratio: Option<&Ratio>, case: &str, of: &str) -> Option<Fact> {
    let ratio = ratio.filter(|ratio| ratio.to != case)?;
    let read = match ratio.bound {
        Bound::Exact => "",
        Bound::AtLeast => ", at least",
        Bound::AtMost => ", at most",
        Bound::Neither => ", neither at its limit",
    };
    let name = format!("{case} to {}{read}{of}", ratio.to);
    Some(Fact::new(name, ratio.ratio, None, "times"))
}

#[cfg(test)]
mod tests;
