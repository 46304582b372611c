//! What a service does with new flows, and a policy of replicated sessions, key by key, in the
//! words of `services.toml`.

use crate::services::bytes;
use crate::spread::Spread;
use lockstep_plan::mask::Mask;
use lockstep_plan::{
    Commit, Divergence, Encapsulation, Grouping, Guard, Mode, Prefix, Replicate, Service,
};
use lockstep_topology::duration;
use std::time::Duration;

/// The keys of `[[service]]` that say how new flows are spread, delivered and limited, each with its
/// value as TOML; `None` where nothing is to be written. In the order of the documentation.
pub fn settings(service: &Service, spread: &Spread) -> [(&'static str, Option<String>); 8] {
    let (encapsulation, gue_port) = match service.mode {
        Mode::Tunnel(Encapsulation::Ipip) => (Some("\"ipip\"".to_owned()), None),
        Mode::Tunnel(Encapsulation::Gue { port }) => {
            (Some("\"gue\"".to_owned()), Some(port.to_string()))
        }
        Mode::Nat | Mode::FullNat | Mode::Replicate(_) => (None, None),
    };
    let scheduler = match service.mode {
        Mode::Tunnel(_) | Mode::Nat | Mode::FullNat => {
            Some(format!("\"{}\"", service.scheduler.name()))
        }
        Mode::Replicate(_) => None,
    };
    let slow_start = spread.slow_start.map(duration::format);
    [
        ("encapsulation", encapsulation),
        ("gue_port", gue_port),
        ("scheduler", scheduler),
        ("slow_start", slow_start.map(|time| format!("\"{time}\""))),
        ("allow", prefixes(&service.guard.allow)),
        ("deny", prefixes(&service.guard.deny)),
        ("rate", rate(&service.guard)),
        ("source_rate", source_rate(&service.guard)),
    ]
}

fn prefixes(prefixes: &[Prefix]) -> Option<String> {
    let texts: Vec<String> = prefixes.iter().map(|p| format!("\"{p}\"")).collect();
    (!texts.is_empty()).then(|| format!("[{}]", texts.join(", ")))
}

fn rate(guard: &Guard) -> Option<String> {
    let named = [("new_flows", guard.new_flows), ("packets", guard.packets)];
    let texts: Vec<String> = named
        .into_iter()
        .filter_map(|(key, number)| Some(format!("{key} = {}", number?)))
        .collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

fn source_rate(guard: &Guard) -> Option<String> {
    guard.source.map(|source| {
        format!(
            "{{ new_flows = {}, prefix_ipv4 = {}, prefix_ipv6 = {} }}",
            source.new_flows, source.prefix_v4, source.prefix_v6
        )
    })
}

/// Every key of `[service.replicate]` with its value as TOML, in the order of the documentation.
pub fn keys(policy: &Replicate) -> [(&'static str, String); 19] {
    let time = |time: Duration| format!("\"{}\"", duration::format(time));
    let bytes = |bytes: u64| format!("\"{}\"", bytes::format(bytes));
    [
        (
            "commit",
            match policy.commit {
                Commit::Primary => "\"primary\"".to_owned(),
                Commit::Quorum(quorum) => format!("{{ quorum = {quorum} }}"),
            },
        ),
        ("min_sync", policy.min_sync.to_string()),
        ("open_timeout", time(policy.open_timeout)),
        ("stall_timeout", time(policy.stall_timeout)),
        ("dead_after", time(policy.dead_after)),
        ("fin_timeout", time(policy.fin_timeout)),
        ("orphan_timeout", time(policy.orphan_timeout)),
        ("max_lag", bytes(policy.max_lag.into())),
        ("grace", time(policy.grace)),
        ("lag_timeout", time(policy.lag_timeout)),
        (
            "divergence",
            format!("\"{}\"", divergence_name(policy.divergence)),
        ),
        ("masks", masks(&policy.masks)),
        ("group", format!("\"{}\"", grouping_name(policy.group))),
        ("proxy_protocol", policy.proxy_protocol.to_string()),
        ("rejoin", policy.rejoin.to_string()),
        ("log_memory", bytes(policy.log_memory.into())),
        ("log_disk", bytes(policy.log_disk)),
        ("keepalive", time(policy.keepalive)),
        ("client_timeout", time(policy.client_timeout)),
    ]
}

fn divergence_name(divergence: Divergence) -> &'static str {
    match divergence {
        Divergence::Ignore => "ignore",
        Divergence::Count => "count",
        Divergence::Evict => "evict",
        Divergence::Reset => "reset",
    }
}

fn grouping_name(group: Grouping) -> &'static str {
    match group {
        Grouping::Connection => "connection",
        Grouping::Client => "client",
    }
}

fn masks(masks: &[Mask]) -> String {
    let one = |mask: &Mask| match mask {
        Mask::Range { offset, length } => format!("{{ offset = {offset}, length = {length} }}"),
        Mask::Pattern(pattern) => {
            let text = toml::Value::String(pattern.as_str().to_owned());
            format!("{{ pattern = {text} }}")
        }
    };
    let all: Vec<String> = masks.iter().map(one).collect();
    format!("[{}]", all.join(", "))
}
