//! The policy: what a `Dire` says, as the keys of `[service.replicate]`, so that both are read,
//! bounded and explained by the same code.

use crate::services::replicate_policy;
use lockstep_kubernetes::resources::DireSpec;
use lockstep_kubernetes::resources::dire::{Commit, Divergence, Group, Mask};
use lockstep_plan::Replicate;

/// The policy of a Dire's sessions.
///
/// # Errors
/// What of it is out of range, in a line.
pub fn policy(spec: &DireSpec) -> Result<Replicate, String> {
    replicate_policy(&text(spec))
}

/// The keys of `[service.replicate]` that say the same.
pub fn text(spec: &DireSpec) -> String {
    let mut lines = Vec::new();
    let mut say = |key: &str, value: String| lines.push(format!("{key} = {value}\n"));
    match (spec.commit, spec.quorum) {
        (Commit::Quorum, quorum) => {
            say("commit", format!("{{ quorum = {} }}", quorum.unwrap_or(0)));
        }
        (Commit::Primary, _) => say("commit", quoted("primary")),
    }
    if let Some(min_sync) = spec.min_sync {
        say("min_sync", min_sync.to_string());
    }
    let divergence = match spec.divergence {
        Divergence::Ignore => "ignore",
        Divergence::Count => "count",
        Divergence::Evict => "evict",
        Divergence::Reset => "reset",
    };
    say("divergence", quoted(divergence));
    let group = match spec.group {
        Group::Connection => "connection",
        Group::Client => "client",
    };
    say("group", quoted(group));
    say("proxy_protocol", spec.proxy_protocol.to_string());
    say("rejoin", spec.rejoin.to_string());
    let masks: Vec<String> = spec.masks.iter().map(mask).collect();
    say("masks", format!("[{}]", masks.join(", ")));
    let limits = &spec.limits;
    let times = [
        ("open_timeout", &limits.open_timeout),
        ("stall_timeout", &limits.stall_timeout),
        ("dead_after", &limits.dead_after),
        ("fin_timeout", &limits.fin_timeout),
        ("orphan_timeout", &limits.orphan_timeout),
        ("grace", &limits.grace),
        ("lag_timeout", &limits.lag_timeout),
        ("keepalive", &limits.keepalive),
        ("client_timeout", &limits.client_timeout),
    ];
    for (key, value) in times {
        if let Some(value) = value {
            say(key, quoted(value));
        }
    }
    let sizes = [
        ("max_lag", &limits.max_lag),
        ("log_memory", &limits.log_memory),
        ("log_disk", &limits.log_disk),
    ];
    for (key, value) in sizes {
        if let Some(value) = value {
            // `1Mi` of Kubernetes is `1MiB`.
            say(key, quoted(&format!("{value}B")));
        }
    }
    lines.concat()
}

fn mask(mask: &Mask) -> String {
    let keys = [
        mask.offset.map(|offset| format!("offset = {offset}")),
        mask.length.map(|length| format!("length = {length}")),
        mask.pattern
            .as_ref()
            .map(|pattern| format!("pattern = {}", quoted(pattern))),
    ];
    let keys: Vec<String> = keys.into_iter().flatten().collect();
    format!("{{ {} }}", keys.join(", "))
}

/// A TOML string. JSON's escapes are TOML's, but for DEL, which TOML does not allow as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}
