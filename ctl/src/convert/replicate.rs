//! The policy of replicated sessions and the health of replicas, to messages and back.

use super::{ConvertError, refused};
use lockstep_api as api;
use lockstep_plan::health::Verdict;
use lockstep_plan::mask::{Mask, Pattern};
use lockstep_plan::{Commit, Divergence, Grouping, Health, Replicate};
use std::num::NonZeroU8;
use std::time::Duration;

/// A policy as a message.
pub fn replicate_to_proto(policy: &Replicate) -> api::Replicate {
    api::Replicate {
        quorum: match policy.commit {
            Commit::Primary => 0,
            Commit::Quorum(quorum) => quorum.get().into(),
        },
        min_sync: policy.min_sync.get().into(),
        open_timeout: milliseconds(policy.open_timeout),
        stall_timeout: milliseconds(policy.stall_timeout),
        dead_after: milliseconds(policy.dead_after),
        fin_timeout: milliseconds(policy.fin_timeout),
        orphan_timeout: milliseconds(policy.orphan_timeout),
        max_lag: policy.max_lag,
        grace: milliseconds(policy.grace),
        lag_timeout: milliseconds(policy.lag_timeout),
        divergence: match policy.divergence {
            Divergence::Ignore => api::Divergence::Ignore.into(),
            Divergence::Count => api::Divergence::Count.into(),
            Divergence::Evict => api::Divergence::Evict.into(),
            Divergence::Reset => api::Divergence::Reset.into(),
        },
        masks: policy.masks.iter().map(mask_to_proto).collect(),
        group: match policy.group {
            Grouping::Connection => api::Grouping::Connection.into(),
            Grouping::Client => api::Grouping::Client.into(),
        },
        proxy_protocol: policy.proxy_protocol,
        rejoin: policy.rejoin,
        log_memory: policy.log_memory,
        log_disk: policy.log_disk,
        keepalive: milliseconds(policy.keepalive),
        client_timeout: milliseconds(policy.client_timeout),
    }
}

/// A message's policy.
pub fn replicate_from_proto(message: &api::Replicate) -> Result<Replicate, ConvertError> {
    let count = |field, number: u32| {
        let count = u8::try_from(number).ok().and_then(NonZeroU8::new);
        count.ok_or_else(|| refused(field, number))
    };
    Ok(Replicate {
        commit: match message.quorum {
            0 => Commit::Primary,
            quorum => Commit::Quorum(count("replicate quorum", quorum)?),
        },
        min_sync: count("replicate min_sync", message.min_sync)?,
        open_timeout: Duration::from_millis(message.open_timeout),
        stall_timeout: Duration::from_millis(message.stall_timeout),
        dead_after: Duration::from_millis(message.dead_after),
        fin_timeout: Duration::from_millis(message.fin_timeout),
        orphan_timeout: Duration::from_millis(message.orphan_timeout),
        max_lag: message.max_lag,
        grace: Duration::from_millis(message.grace),
        lag_timeout: Duration::from_millis(message.lag_timeout),
        divergence: match message.divergence() {
            api::Divergence::Ignore => Divergence::Ignore,
            api::Divergence::Count => Divergence::Count,
            api::Divergence::Evict => Divergence::Evict,
            api::Divergence::Reset => Divergence::Reset,
            api::Divergence::Unspecified => {
                return Err(refused("replicate divergence", message.divergence));
            }
        },
        masks: message
            .masks
            .iter()
            .map(mask_from_proto)
            .collect::<Result<_, _>>()?,
        group: match message.group() {
            api::Grouping::Connection => Grouping::Connection,
            api::Grouping::Client => Grouping::Client,
            api::Grouping::Unspecified => return Err(refused("replicate group", message.group)),
        },
        proxy_protocol: message.proxy_protocol,
        rejoin: message.rejoin,
        log_memory: message.log_memory,
        log_disk: message.log_disk,
        keepalive: Duration::from_millis(message.keepalive),
        client_timeout: Duration::from_millis(message.client_timeout),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn mask_to_proto(mask: &Mask) -> api::Mask {
    let mask = match mask {
        &Mask::Range { offset, length } => {
            api::mask::Mask::Range(api::ByteRange { offset, length })
        }
        Mask::Pattern(pattern) => api::mask::Mask::Pattern(pattern.as_str().to_owned()),
    };
    api::Mask { mask: Some(mask) }
}

fn mask_from_proto(message: &api::Mask) -> Result<Mask, ConvertError> {
    match &message.mask {
        Some(api::mask::Mask::Range(range)) => Ok(Mask::Range {
            offset: range.offset,
            length: range.length,
        }),
        Some(api::mask::Mask::Pattern(source)) => Pattern::new(source)
            .map(Mask::Pattern)
            .map_err(|_| refused("replicate mask", source)),
        None => Err(refused("replicate mask", "nothing")),
    }
}

/// A replica's health as a message; `None` where nothing is known.
pub fn health_to_proto(health: Health) -> Option<api::Health> {
    (health != Health::UNKNOWN).then(|| api::Health {
        verdict: match health.verdict {
            Verdict::Unknown => api::HealthVerdict::Unknown.into(),
            Verdict::Up => api::HealthVerdict::Up.into(),
            Verdict::Down => api::HealthVerdict::Down.into(),
        },
        rtt_microseconds: health
            .rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
    })
}

/// A message's health.
pub fn health_from_proto(message: Option<&api::Health>) -> Result<Health, ConvertError> {
    let Some(message) = message else {
        return Ok(Health::UNKNOWN);
    };
    let verdict = api::HealthVerdict::try_from(message.verdict)
        .map_err(|_| refused("backend health", message.verdict))?;
    Ok(Health {
        verdict: match verdict {
            api::HealthVerdict::Unknown => Verdict::Unknown,
            api::HealthVerdict::Up => Verdict::Up,
            api::HealthVerdict::Down => Verdict::Down,
        },
        rtt: message.rtt_microseconds.map(Duration::from_micros),
    })
}
