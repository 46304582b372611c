//! What is to be known beside latencies: what their rates are shares of, what was lost, what stood still.

use super::goals::in_percent;
use super::latency::HIGHEST;
use super::packets::CALM;
use super::results::{Latency, LatencyLoad, Measured, Packets, Results};
use super::slowest::{Slowest, of_smallest};
use crate::written::{grouped, thousands};
use serde::{Deserialize, Serialize};

/// A load whose latency was to be measured, and could not be: there were no rates for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoLatency {
    /// The load.
    pub load: LatencyLoad,
    /// Why not.
    pub why: String,
}

impl NoLatency {
    /// Of what was measured, where nothing of it gives a rate.
    pub fn of(measured: &Measured, load: LatencyLoad) -> Self {
        let (packets, ..) = measured.rows();
        let size = of_smallest(&packets).next().map(|row| row.bytes);
        let why = match (load, size, measured.slowest(load)) {
            (_, _, Some(slowest)) => format!(
                "{}, the slowest, carried {} a second, too few to take shares of",
                slowest.case,
                thousands(slowest.per_second)
            ),
            (LatencyLoad::Udp, Some(bytes), None) => format!(
                "no case carried datagrams in frames of {} bytes at any rate with a loss of {:.0} % or less",
                grouped(bytes as u64),
                CALM * 100.0
            ),
            (LatencyLoad::Udp, None, None) => {
                "no round could tell how many datagrams a case carries".to_owned()
            }
            (LatencyLoad::Rr, _, None) => {
                "no round could tell how many requests over open connections a case carries"
                    .to_owned()
            }
        };
        NoLatency { load, why }
    }
}

impl Results {
    /// Why the latency under a load was not measured, where that was not for lack of asking.
    pub fn why_no_latency(&self, load: LatencyLoad) -> Option<&str> {
        let of_it = self.no_latency.iter().find(|no| no.load == load);
        of_it.map(|no| no.why.as_str())
    }

    /// What a host took from this machine while latencies were measured, where it took something.
    pub fn stolen_in_words(&self) -> Option<String> {
        let stolen = self.stolen.filter(|stolen| *stolen > 0.0)?;
        Some(format!(
            "A host had taken {} of both CPUs' time away meanwhile, pauses of milliseconds that no case is to blame for; \
             short ones are in all figures.",
            in_percent(stolen)
        ))
    }

    /// In how many trials a host took a CPU away, and what became of them.
    pub fn left_out_in_words(&self) -> Option<String> {
        let disturbed: usize = self.latencies.iter().map(|row| row.disturbed).sum();
        let only = self.latencies.iter().filter(|row| row.only_disturbed);
        let only: usize = only.map(|row| row.disturbed).sum();
        let counted: usize = self.latencies.iter().map(|row| row.trials).sum();
        let of = counted + disturbed - only;
        let but = match only {
            0 => String::new(),
            _ => format!(", but for {only} of cases that had no others at that load"),
        };
        (disturbed > 0).then(|| {
            format!(
                "In {disturbed} of {of} trials a host took a CPU away (steal): they are left out{but}."
            )
        })
    }

    /// What the rates are shares of; and of datagrams, whose latency is that of a part of them only. Where there are
    /// no rates, why not.
    pub fn rates_in_words(&self, load: LatencyLoad) -> Vec<String> {
        if !self.latencies.iter().any(|row| row.load == load) {
            let why = self.why_no_latency(load).into_iter();
            return why.map(|why| format!("Not measured: {why}.")).collect();
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
        let paced: Vec<String> = (self.paced.iter())
            .filter(|_| load == LatencyLoad::Udp)
            .map(|paced| {
                let or_more = match paced.per_second >= HIGHEST as f64 {
                    true => "≥ ",
                    false => "",
                };
                format!("{} {or_more}{}", paced.case, thousands(paced.per_second))
            })
            .collect();
        let paced = (!paced.is_empty()).then(|| {
            let all = paced.join(", ");
            let bound = match all.contains('≥') {
                true => " ≥: no higher rate was tried.",
                false => "",
            };
            format!("Of these, which a socket sends, cases carried with such a loss: {all}.{bound}")
        });
        of.into_iter().chain(paced).chain(never_calm).collect()
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
            let carries = match self.paced.as_slice() {
                [] => row.calm_packets_per_second.is_some(),
                paced => paced.iter().any(|paced| paced.case == row.case),
            };
            is_told && !carries && measured(&row.case)
        })
    }
}
