//! What the user sees: a line each second, and a table in the end.

use super::live::Live;
use super::{Outcome, Protocol};
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often the line is written.
const PERIOD: Duration = Duration::from_secs(1);

/// The line on the terminal; none where nobody looks.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    next: Instant,
    last: (u64, u64),
    written: bool,
}

impl Progress {
    /// On a terminal, unless the output is for a program.
    pub fn new(json: bool) -> Self {
        Progress {
            shown: !json && stderr().is_terminal(),
            next: Instant::now() + PERIOD,
            last: (0, 0),
            written: false,
        }
    }

    /// Whether there is one.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// Writes the line if it is time.
    pub fn glance(&mut self, live: &Live) {
        let time = Instant::now();
        if !self.shown || time < self.next {
            return;
        }
        self.next = time + PERIOD;
        let (sent, received, spread) = live.look();
        let missing = sent.saturating_sub(received);
        let latency = match spread.is_empty() {
            true => String::from("-"),
            false => format!(
                "p50 {} p99 {}",
                time_of(spread.quantile_us(0.5)),
                time_of(spread.quantile_us(0.99))
            ),
        };
        // What the terminal does not take is not worth ending for.
        let _ = write!(
            stderr(),
            "\r\x1b[K{} sent/s, {} received/s, {missing} missing, {latency}",
            sent - self.last.0,
            received - self.last.1
        );
        let _ = stderr().flush();
        self.last = (sent, received);
        self.written = true;
    }

    /// The trial is over.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.written) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
        self.last = (0, 0);
        self.next = Instant::now() + PERIOD;
    }
}

/// Of microseconds, with a unit that suits.
fn time_of(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.1} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// The table of a trial.
pub fn table(outcome: &Outcome, protocol: Protocol, mean_bytes: Option<f64>) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<14} {value}\n"));
    let rate = outcome.sent_per_second();
    let what = match protocol {
        Protocol::Udp => "packets",
        Protocol::Syn => "SYNs",
        Protocol::Rr => "requests",
        Protocol::Crr => "connections",
    };
    line(
        "offered",
        format!(
            "{:.0} {what}/s for {:.2} s",
            outcome.offered_per_second, outcome.seconds
        ),
    );
    line(
        "sent",
        format!(
            "{} ({rate:.0}/s{})",
            outcome.sent,
            gigabits(rate, mean_bytes)
        ),
    );
    let received = outcome.received_per_second();
    line(
        "received",
        format!(
            "{} ({received:.0}/s{})",
            outcome.received,
            gigabits(received, mean_bytes)
        ),
    );
    let lost = outcome.lost as f64 / outcome.sent.max(1) as f64;
    line("lost", format!("{} ({:.4} %)", outcome.lost, lost * 100.0));
    if outcome.unsent > 0 {
        line(
            "unsent",
            format!(
                "{}: they were due, and could not be sent in time",
                outcome.unsent
            ),
        );
    }
    if protocol == Protocol::Udp {
        line("reordered", outcome.reordered.to_string());
        line("duplicated", outcome.duplicated.to_string());
    } else {
        let resets = if protocol == Protocol::Syn {
            "refused"
        } else {
            "reset"
        };
        line(resets, outcome.resets.to_string());
        line("errors", outcome.errors.to_string());
        line("retransmitted", outcome.retransmitted.to_string());
    }
    if outcome.foreign > 0 {
        line(
            "foreign",
            format!("{}: frames of others came to the socket", outcome.foreign),
        );
    }
    if let Some(seconds) = outcome.observed_cpu_seconds {
        line("observed CPU", format!("{seconds:.2} s not idle"));
    }
    match &outcome.latency {
        None => line("latency", String::from("nothing arrived")),
        Some(latency) => {
            for (name, us) in [
                ("latency p50", latency.p50_us),
                ("p90", latency.p90_us),
                ("p99", latency.p99_us),
                ("p99.9", latency.p999_us),
                ("max", latency.max_us),
                ("mean", latency.mean_us),
            ] {
                line(name, time_of(us));
            }
        }
    }
    lines.concat()
}

/// On the wire, with preamble and gap (20 bytes a frame), as line rates are counted.
fn gigabits(rate: f64, mean_bytes: Option<f64>) -> String {
    match mean_bytes {
        None => String::new(),
        Some(bytes) => format!(
            ", {:.3} Gbit/s on the wire",
            rate * (bytes + 20.0) * 8.0 / 1e9
        ),
    }
}

/// One line of a search.
pub fn trial(outcome: &Outcome, met: bool) -> String {
    let p99 = outcome.latency.as_ref().map(|latency| latency.p99_us);
    format!(
        "{:>10.0}/s  loss {:>8.4} %  unsent {:>8}  p99 {:>9}  {}",
        outcome.offered_per_second,
        outcome.loss() * 100.0,
        outcome.unsent,
        p99.map_or(String::from("-"), time_of),
        if met { "carried" } else { "not carried" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Latency;

    #[test]
    fn a_table_says_what_was_lost_and_how_late_the_rest_was() {
        let outcome = Outcome {
            offered_per_second: 1_000.0,
            sent: 2_000,
            received: 1_900,
            lost: 100,
            seconds: 2.0,
            latency: Some(Latency {
                p50_us: 12.34,
                max_us: 2_500.0,
                ..Latency::default()
            }),
            ..Outcome::default()
        };
        let text = table(&outcome, Protocol::Udp, Some(64.0));
        for part in [
            "offered        1000 packets/s for 2.00 s\n",
            "lost           100 (5.0000 %)\n",
            "latency p50    12.3 µs\n",
            "max            2.50 ms\n",
            "(1000/s, 0.001 Gbit/s on the wire)",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("unsent") && !text.contains("retransmitted"));
        let text = table(&outcome, Protocol::Crr, None);
        assert!(text.contains("connections/s") && text.contains("retransmitted"));
    }
}
