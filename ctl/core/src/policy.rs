//! A policy of replicated sessions key by key, in the words of `services.toml`.

use crate::services::bytes;
use lockstep_plan::mask::Mask;
use lockstep_plan::{Commit, Divergence, Grouping, Replicate};
use lockstep_topology::duration;
use std::time::Duration;

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
