//! What the user sees: a line each second, and a table in the end.

use super::live::Live;
use super::{Outcome, Protocol};
use crate::written::{grouped, thousands};
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
            "\r\x1b[K{} sent/s, {} received/s, {} missing, {latency}",
            grouped(sent - self.last.0),
            grouped(received - self.last.1),
            grouped(missing)
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

/// What a table is about.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// What was sent.
    pub protocol: Protocol,
    /// Bytes of a frame, in the mean, where a line rate is made of them.
    pub mean_bytes: Option<f64>,
    /// Whether it was counted what arrived.
    pub counted: bool,
    /// Flows, or connections, that were asked for.
    pub flows: u32,
}

impl About {
    /// The table of a trial.
    pub fn table(&self, outcome: &Outcome) -> String {
        let Outcome { sent, unsent, .. } = outcome;
        let mut table = Table(String::new());
        let offered = outcome.offered_per_second;
        let what = match self.protocol {
            Protocol::Udp => "packets",
            Protocol::Syn => "SYNs",
            Protocol::Rr => "requests",
            Protocol::Crr => "connections",
        };
        let seconds = outcome.seconds;
        table.line(
            "offered",
            format!("{} {what}/s for {seconds:.2} s", thousands(offered)),
        );
        if let Some(connections) = outcome.connections {
            let of = format!("{} of {}", grouped(connections), grouped(self.flows.into()));
            table.line("connections", of);
        }
        table.line("sent", self.rate(*sent, outcome.sent_per_second()));
        if *unsent > 0 {
            table.line(
                "unsent",
                format!("{}: due, and not sent in time", grouped(*unsent)),
            );
        }
        if !outcome.down.is_empty() {
            let text = format!(
                "{}: the link was not there all the time",
                outcome.down.join(", ")
            );
            table.line("down", text);
        }
        if let Some(seconds) = outcome.observed_cpu_seconds {
            let busy = format!("{seconds:.2} s not idle while it was sent");
            table.line("observed CPU", busy);
        }
        if self.counted {
            self.arrivals(&mut table, outcome);
        }
        table.0
    }

    fn arrivals(&self, table: &mut Table, outcome: &Outcome) {
        let Outcome { received, lost, .. } = outcome;
        table.line(
            "received",
            self.rate(*received, outcome.received_per_second()),
        );
        let share = *lost as f64 / outcome.sent.max(1) as f64 * 100.0;
        table.line("lost", format!("{} ({share:.4} %)", grouped(*lost)));
        if let Some(corrupt) = outcome.corrupt {
            table.line("corrupt", grouped(corrupt));
        }
        if self.protocol == Protocol::Udp {
            table.line("reordered", grouped(outcome.reordered));
            table.line("duplicated", grouped(outcome.duplicated));
        } else {
            let syn = self.protocol == Protocol::Syn;
            table.line(
                if syn { "refused" } else { "reset" },
                grouped(outcome.resets),
            );
            if outcome.disconnected > 0 {
                table.line("disconnected", grouped(outcome.disconnected));
            }
            table.line("errors", grouped(outcome.errors));
            table.line("retransmitted", grouped(outcome.retransmitted));
        }
        if outcome.foreign > 0 {
            table.line(
                "foreign",
                format!("{} frames of others", grouped(outcome.foreign)),
            );
        }
        let Some(latency) = &outcome.latency else {
            table.line("latency", String::from("nothing arrived"));
            return;
        };
        for (name, us) in [
            ("latency p50", latency.p50_us),
            ("p90", latency.p90_us),
            ("p99", latency.p99_us),
            ("p99.9", latency.p999_us),
            ("max", latency.max_us),
            ("mean", latency.mean_us),
        ] {
            table.line(name, time_of(us));
        }
    }

    fn rate(&self, count: u64, rate: f64) -> String {
        let wire = self.mean_bytes.map(|bytes| gigabits(rate, bytes));
        let wire = wire.unwrap_or_default();
        format!("{} ({}/s{wire})", grouped(count), thousands(rate))
    }
}

/// Names and values, a line each.
struct Table(String);

impl Table {
    fn line(&mut self, name: &str, value: String) {
        self.0.push_str(&format!("{name:<14} {value}\n"));
    }
}

/// On the wire, with preamble and gap (20 bytes a frame), as line rates are counted.
fn gigabits(rate: f64, mean_bytes: f64) -> String {
    let gigabits = rate * (mean_bytes + 20.0) * 8.0 / 1e9;
    format!(", {gigabits:.3} Gbit/s on the wire")
}

/// One line of a search.
pub fn trial(outcome: &Outcome, met: bool) -> String {
    let p99 = outcome.latency.as_ref().map(|latency| latency.p99_us);
    format!(
        "{:>11}/s  loss {:>8.4} %  unsent {:>10}  p99 {:>9}  {}",
        thousands(outcome.offered_per_second),
        outcome.loss() * 100.0,
        grouped(outcome.unsent),
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
        let mut about = About {
            protocol: Protocol::Udp,
            mean_bytes: Some(64.0),
            counted: true,
            flows: 64,
        };
        let text = about.table(&outcome);
        for part in [
            "offered        1,000 packets/s for 2.00 s\n",
            "sent           2,000 (",
            "lost           100 (5.0000 %)\n",
            "latency p50    12.3 µs\n",
            "max            2.50 ms\n",
            "(1,000/s, 0.001 Gbit/s on the wire)",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("unsent") && !text.contains("retransmitted"));
        about.counted = false;
        let text = about.table(&outcome);
        assert!(
            !text.contains("lost") && !text.contains("latency"),
            "{text}"
        );
        about = About {
            protocol: Protocol::Crr,
            mean_bytes: None,
            ..about
        };
        about.counted = true;
        let text = about.table(&outcome);
        assert!(text.contains("connections/s") && text.contains("retransmitted"));
        assert!(!text.contains("connections  "), "{text}");
        about.protocol = Protocol::Rr;
        let outcome = Outcome {
            connections: Some(37),
            ..outcome
        };
        let text = about.table(&outcome);
        assert!(text.contains("connections    37 of 64\n"), "{text}");
    }
}
