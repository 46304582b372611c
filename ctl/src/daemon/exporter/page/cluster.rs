//! What the daemon says of the cluster that it follows.

use lockstep_api::{KubernetesLatency, KubernetesReply};
use lockstep_process::metrics::Page;

/// Of the cluster.
pub fn kubernetes(page: &mut Page, reply: &KubernetesReply) {
    if !reply.configured {
        return;
    }
    page.one(
        "lockstep_kubernetes_connected",
        "gauge",
        "1 while the API server answers.",
        u8::from(reply.connected),
    );
    page.one(
        "lockstep_kubernetes_leader",
        "gauge",
        "1 while this balancer is the one that hands out addresses and writes status.",
        u8::from(reply.leads),
    );
    kinds(page, reply);
    page.family(
        "lockstep_kubernetes_services",
        "gauge",
        "Services of our class, by what has become of them.",
    );
    let ailing = reply.services.iter().filter(|s| !s.problems.is_empty());
    let ailing = ailing.count();
    let served = reply.services.len() - ailing;
    for (state, services) in [("served", served), ("problem", ailing)] {
        page.sample(&[("state", state)], services);
    }
    page.family(
        "lockstep_kubernetes_requests_total",
        "counter",
        "Requests to the API server, by how it answered; 404, 409 and 410 are usual answers.",
    );
    let answered = reply.requests.saturating_sub(reply.requests_refused);
    for (result, requests) in [
        ("answered", answered),
        ("refused", reply.requests_refused),
        ("failed", reply.requests_failed),
    ] {
        page.sample(&[("result", result)], requests);
    }
    page.family(
        "lockstep_kubernetes_writes_total",
        "counter",
        "Status, events and objects that the leader has written, by whether they were taken.",
    );
    for (result, writes) in [("done", reply.writes), ("failed", reply.writes_failed)] {
        page.sample(&[("result", result)], writes);
    }
    page.one(
        "lockstep_kubernetes_writes_open",
        "gauge",
        "What is still to be written.",
        reply.writes_open,
    );
    if let Some(latency) = &reply.latency {
        histogram(page, latency);
    }
}

fn kinds(page: &mut Page, reply: &KubernetesReply) {
    type Field = fn(&lockstep_api::KubernetesKind) -> u64;
    let families: [(&str, &str, &str, Field); 4] = [
        (
            "lockstep_kubernetes_objects",
            "gauge",
            "Objects that are followed.",
            |kind| kind.objects,
        ),
        (
            "lockstep_kubernetes_events_total",
            "counter",
            "Changes of objects that were told.",
            |kind| kind.events,
        ),
        (
            "lockstep_kubernetes_lists_total",
            "counter",
            "How often all objects were told: once, and once after each gap (410).",
            |kind| kind.lists,
        ),
        (
            "lockstep_kubernetes_kind_failing",
            "gauge",
            "1 while objects cannot be followed.",
            |kind| u64::from(!kind.error.is_empty()),
        ),
    ];
    for (name, kind, help, field) in families {
        page.family(name, kind, help);
        for kind in &reply.kinds {
            let labels = [
                ("resource", kind.resource.as_str()),
                ("namespace", kind.namespace.as_str()),
            ];
            page.sample(&labels, field(kind));
        }
    }
}

fn histogram(page: &mut Page, latency: &KubernetesLatency) {
    page.family(
        "lockstep_kubernetes_event_to_engine_seconds",
        "histogram",
        "From a change that was told to what the engine has in force.",
    );
    let mut all = 0;
    let bounds = latency
        .bounds
        .iter()
        .map(|ms| (*ms as f64 / 1e3).to_string());
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, observations) in bounds.zip(&latency.buckets) {
        all += observations;
        page.part("_bucket", &[("le", &bound)], all);
    }
    page.part("_sum", &[], latency.sum);
    page.part("_count", &[], all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_all() {
        let mut page = Page::default();
        let latency = KubernetesLatency {
            bounds: vec![300, 1_000],
            buckets: vec![2, 0, 1],
            sum: 4.5,
        };
        histogram(&mut page, &latency);
        let text = page.into_text();
        for line in [
            "lockstep_kubernetes_event_to_engine_seconds_bucket{le=\"0.3\"} 2",
            "lockstep_kubernetes_event_to_engine_seconds_bucket{le=\"1\"} 2",
            "lockstep_kubernetes_event_to_engine_seconds_bucket{le=\"+Inf\"} 3",
            "lockstep_kubernetes_event_to_engine_seconds_sum 4.5",
            "lockstep_kubernetes_event_to_engine_seconds_count 3",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
