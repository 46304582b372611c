//! What is counted of replicated sessions.

use super::{Page, times};
use crate::agent::Agent;
use crate::agent::sessions::names;
use crate::spill::SpillCounters;
use lockstep_api as api;
use lockstep_core::counters::Count;
use lockstep_core::histogram::Histogram;
use lockstep_core::replicate::counters::ReplicateCounters;
use lockstep_core::replicate::session::SessionState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of each worker: its name, kind and help, and where it is.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ReplicateCounters) -> &Count,
);

const FAMILIES: [Family; 22] = [
    (
        "lockstep_session_opened_total",
        "counter",
        "Sessions whose client was answered.",
        |c| &c.opened,
    ),
    (
        "lockstep_session_refused_total",
        "counter",
        "Sessions whose client was refused.",
        |c| &c.refused,
    ),
    (
        "lockstep_session_ended_total",
        "counter",
        "Sessions that ended after their client was answered.",
        |c| &c.ended,
    ),
    (
        "lockstep_session_switchovers_total",
        "counter",
        "Times that another replica became primary.",
        |c| &c.switched,
    ),
    (
        "lockstep_session_orphaned_total",
        "counter",
        "Sessions that were without a replica.",
        |c| &c.orphaned,
    ),
    (
        "lockstep_session_log_cuts_total",
        "counter",
        "Sessions that nobody can join any more, their input being no longer kept from the start.",
        |c| &c.log_cuts,
    ),
    (
        "lockstep_session_half_open",
        "gauge",
        "Sessions whose client has not acknowledged the SYN-ACK.",
        |c| &c.half_open,
    ),
    (
        "lockstep_session_time_wait",
        "gauge",
        "Connections in TIME-WAIT.",
        |c| &c.time_wait,
    ),
    (
        "lockstep_session_cookies_sent_total",
        "counter",
        "SYNs answered with a cookie.",
        |c| &c.cookies_sent,
    ),
    (
        "lockstep_session_cookies_accepted_total",
        "counter",
        "Sessions opened by the answer to a cookie.",
        |c| &c.cookies_accepted,
    ),
    (
        "lockstep_session_resets_total",
        "counter",
        "RSTs sent for packets of no session.",
        |c| &c.resets,
    ),
    (
        "lockstep_session_unsent_packets_total",
        "counter",
        "Packets that found no frame or no room on the ring, and were sent again later.",
        |c| &c.unsent,
    ),
    (
        "lockstep_session_input_bytes_total",
        "counter",
        "Bytes received from clients.",
        |c| &c.input_bytes,
    ),
    (
        "lockstep_session_output_bytes_total",
        "counter",
        "Bytes sent to clients.",
        |c| &c.output_bytes,
    ),
    (
        "lockstep_session_log_bytes",
        "gauge",
        "Memory that input logs hold.",
        |c| &c.log_memory,
    ),
    (
        "lockstep_session_events_lost_total",
        "counter",
        "Events that found no place in a queue.",
        |c| &c.events_lost,
    ),
    (
        "lockstep_replica_connections",
        "gauge",
        "Connections to replicas.",
        |c| &c.connections,
    ),
    (
        "lockstep_replica_unconnected_total",
        "counter",
        "Connections to replicas that were not opened: no connection, port or route left.",
        |c| &c.unconnected,
    ),
    (
        "lockstep_replica_diverged_total",
        "counter",
        "Differences between a replica's output and what its client was sent.",
        |c| &c.diverged,
    ),
    (
        "lockstep_replica_evicted_total",
        "counter",
        "Replicas evicted from a session.",
        |c| &c.evicted,
    ),
    (
        "lockstep_replica_joined_total",
        "counter",
        "Replicas that joined a session, or joined it again.",
        |c| &c.joined,
    ),
    (
        "lockstep_replica_lagging_total",
        "counter",
        "Times that a replica was too far behind to count as in sync.",
        |c| &c.lagging,
    ),
];

/// The upper ends of the histograms' buckets, in microseconds.
const ENDS: [u64; 16] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000,
    1_000_000, 10_000_000,
];

impl Agent {
    pub(super) fn session_metrics(&self, page: &mut Page, status: &api::EngineStatus) {
        page.family("lockstep_session_active", "gauge", "Sessions there are.");
        for service in status.services.iter().filter(|s| s.mode == "replicate") {
            page.sample(&[("service", &service.name)], service.sessions);
        }
        let workers: Vec<Option<&Arc<ReplicateCounters>>> =
            self.workers.iter().map(|w| w.sessions()).collect();
        for (name, kind, help, field) in FAMILIES {
            page.family(name, kind, help);
            for (index, counters) in workers.iter().enumerate() {
                let value = counters.map_or(0, |c| field(c).get());
                page.sample(&[("worker", &index.to_string())], value);
            }
        }
        let counters: Vec<&ReplicateCounters> =
            workers.into_iter().flatten().map(AsRef::as_ref).collect();
        page.family(
            "lockstep_sessions",
            "gauge",
            "Sessions, by how well they are protected.",
        );
        for state in SessionState::ALL {
            let sessions = self.sessions_in(state);
            page.sample(&[("state", names::session(state))], sessions);
        }
        histogram(
            page,
            "lockstep_session_switchover_gap_seconds",
            "From the last byte to the client before a switchover, or from when there was first something \
             to send after it, to the first byte after it.",
            counters.iter().map(|c| &c.gap),
        );
        histogram(
            page,
            "lockstep_session_commit_delay_seconds",
            "From when the first replica has a byte until it goes to the client.",
            counters.iter().map(|c| &c.commit_delay),
        );
        replica_bytes(page, status);
        self.spill_metrics(page);
    }

    fn spill_metrics(&self, page: &mut Page) {
        type Field = fn(&SpillCounters) -> &AtomicU64;
        let Some(spill) = &self.spill else {
            return;
        };
        let families: [(&str, &str, &str, Field); 5] = [
            (
                "lockstep_spill_written_bytes_total",
                "counter",
                "Bytes of input written to files.",
                |c| &c.written,
            ),
            (
                "lockstep_spill_read_bytes_total",
                "counter",
                "Bytes of input read from files.",
                |c| &c.read,
            ),
            (
                "lockstep_spill_stored_bytes",
                "gauge",
                "Bytes of input in files.",
                |c| &c.stored,
            ),
            ("lockstep_spill_files", "gauge", "Files with input.", |c| {
                &c.files
            }),
            (
                "lockstep_spill_failures_total",
                "counter",
                "Pieces of input that were not written or not read: a full disk, the limit, an error.",
                |c| &c.failures,
            ),
        ];
        for (name, kind, help, field) in families {
            page.family(name, kind, help);
            page.sample(&[], field(spill.counters()).load(Ordering::Relaxed));
        }
    }
}

fn replica_bytes(page: &mut Page, status: &api::EngineStatus) {
    type Field = fn(&api::BackendStatus) -> u64;
    let families: [(&str, &str, Field); 2] = [
        (
            "lockstep_replica_input_bytes_total",
            "Bytes given to a replica.",
            |b| b.replica_input_bytes,
        ),
        (
            "lockstep_replica_output_bytes_total",
            "Bytes that a replica has answered.",
            |b| b.replica_output_bytes,
        ),
    ];
    for (name, help, field) in families {
        page.family(name, "counter", help);
        for service in status.services.iter().filter(|s| s.mode == "replicate") {
            for backend in &service.backends {
                let labels = [
                    ("service", service.name.as_str()),
                    ("backend", &backend.name),
                    ("address", &backend.address),
                ];
                page.sample(&labels, field(backend));
            }
        }
    }
}

/// Times of all workers together, in seconds.
fn histogram<'a>(
    page: &mut Page,
    name: &str,
    help: &str,
    of: impl Iterator<Item = &'a Histogram> + Clone,
) {
    page.family(name, "histogram", help);
    times(page, &[], &ENDS, 1e6, of);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_value_below_its_end() {
        let (one, other) = (Histogram::default(), Histogram::default());
        [5, 900, 70_000]
            .into_iter()
            .for_each(|micros| one.record(micros));
        [15, 20_000_000]
            .into_iter()
            .for_each(|micros| other.record(micros));
        let mut page = Page::default();
        histogram(
            &mut page,
            "gap_seconds",
            "Gaps.",
            [&one, &other].into_iter(),
        );
        let text = page.into_text();
        for line in [
            "# TYPE gap_seconds histogram",
            "gap_seconds_bucket{le=\"0.00001\"} 1",
            "gap_seconds_bucket{le=\"0.00002\"} 2",
            "gap_seconds_bucket{le=\"0.001\"} 3",
            "gap_seconds_bucket{le=\"0.1\"} 4",
            "gap_seconds_bucket{le=\"10\"} 4",
            "gap_seconds_bucket{le=\"+Inf\"} 5",
            "gap_seconds_sum 20.07092",
            "gap_seconds_count 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
