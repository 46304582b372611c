//! What is to be known beside latencies: what their rates are shares of, what was lost, what stood still.

use super::goals::in_percent;
use super::results::{Latency, LatencyLoad, Packets, Results, Slowest, of_smallest};
use crate::written::{grouped, thousands};

impl Results {
    /// What the rates are shares of; and of datagrams, whose latency is that of a part of them only.
    pub fn rates_in_words(&self, load: LatencyLoad) -> Vec<String> {
        if !self.latencies.iter().any(|row| row.load == load) {
            return Vec::new();
        }
        let of = match load {
            LatencyLoad::Udp => self.of_datagrams(),
            LatencyLoad::Rr => self.recorded(load).map(|of| {
                let rate = thousands(of.per_second);
                format!(
                    "Shares of {rate} requests a second, as many as {} carried, the slowest.",
                    of.case
                )
            }),
        };
        let never_calm = self.never_calm(load).map(|row| {
            format!(
                "{}: at no rate did it lose 1 % or less, so it did not set the rates; its latency is that of what came through.",
                row.case
            )
        });
        of.into_iter().chain(never_calm).collect()
    }

    /// Where something was lost, and where something stood still: for pictures, whose tables have neither.
    pub fn losses_in_words(&self, rows: &[&Latency]) -> Vec<String> {
        let named = |of: &dyn Fn(&Latency) -> Option<String>| {
            let all: Vec<String> = rows.iter().filter_map(|row| of(row)).collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        let lost = named(&|row| {
            (row.lost > 0.0).then(|| format!("{} {}", row.case, in_percent(row.lost)))
        });
        let stalled = named(&|row| {
            (row.stalled > 0).then(|| format!("{} in {} of {}", row.case, row.stalled, row.trials))
        });
        let lost = lost.map(|all| {
            format!("Lost, and in no percentile, in the trial in which it was most: {all}.")
        });
        let stalled = stalled.map(|all| {
            format!("Trials in which something, be it the case itself, stood still for 20 ms or longer: {all}.")
        });
        [lost, stalled].into_iter().flatten().collect()
    }

    /// Requests that had fewer connections than were asked for, in words.
    pub fn fewer_connections(&self) -> Vec<String> {
        let asked = u64::from(self.connections);
        (self.latencies.iter())
            .filter_map(|row| Some((row, row.connections.filter(|there| *there < asked)?)))
            .map(|(row, there)| {
                let percent = row.share * 100.0;
                format!(
                    "{} at {percent:.0} %: {} of {} connections",
                    row.case,
                    grouped(there),
                    grouped(asked)
                )
            })
            .collect()
    }

    fn recorded(&self, load: LatencyLoad) -> Option<&Slowest> {
        self.slowest.iter().find(|of| of.load == load)
    }

    fn of_datagrams(&self) -> Option<String> {
        if let Some(of) = self.recorded(LatencyLoad::Udp) {
            return Some(format!(
                "Shares of {} datagrams a second, the most that {} carried with a loss of 1 % at most: the slowest that has such a \
                 rate.",
                thousands(of.per_second),
                of.case
            ));
        }
        // Runs that do not say it took the maximum of a case without such a rate for one.
        let rate = |row: &&Packets| {
            row.calm_packets_per_second
                .unwrap_or(row.packets_per_second)
        };
        let slowest = of_smallest(&self.packets).min_by(|a, b| rate(a).total_cmp(&rate(b)))?;
        if slowest.calm_packets_per_second.is_some() {
            return None;
        }
        Some(format!(
            "Shares of {} datagrams a second, what came through {} of a load of which it lost {}: no rate that it carries.",
            thousands(slowest.packets_per_second),
            slowest.case,
            slowest.loss.map_or("more than 1 %".to_owned(), in_percent)
        ))
    }

    /// Cases whose latency was measured though no rate was found at which they lose next to nothing.
    fn never_calm(&self, load: LatencyLoad) -> impl Iterator<Item = &Packets> {
        let measured = move |case: &str| {
            let mut rows = self.latencies.iter();
            rows.any(|row| row.load == load && row.case == case)
        };
        // Where the run does not say what it took, the other sentence names the case.
        let is_told = load == LatencyLoad::Udp && self.recorded(load).is_some();
        of_smallest(&self.packets).filter(move |row| {
            is_told && row.calm_packets_per_second.is_none() && measured(&row.case)
        })
    }
}
