//! Schedulers and guards, to messages and back.

use super::{Fields, Problem};
use lockstep_api as api;
use lockstep_plan::{Guard, Prefix, Scheduler, SourceRate};
use std::num::NonZeroU32;

/// A scheduler's value.
pub const fn scheduler_to_proto(scheduler: Scheduler) -> api::Scheduler {
    match scheduler {
        Scheduler::Maglev => api::Scheduler::Maglev,
        Scheduler::RoundRobin => api::Scheduler::RoundRobin,
        Scheduler::LeastConnections => api::Scheduler::LeastConnections,
        Scheduler::SourceHash => api::Scheduler::SourceHash,
        Scheduler::Random => api::Scheduler::Random,
    }
}

/// A value's scheduler.
pub fn scheduler(number: i32) -> Result<Scheduler, Problem> {
    let one = |scheduler: &Scheduler| i32::from(scheduler_to_proto(*scheduler)) == number;
    let found = Scheduler::ALL.into_iter().find(one);
    found.ok_or(Problem::Unknown(number))
}

/// A guard as a message; nothing for an open one.
pub fn guard_to_proto(guard: &Guard) -> Option<api::Guard> {
    if guard.is_open() {
        return None;
    }
    let Guard {
        allow,
        deny,
        new_flows,
        packets,
        source,
    } = guard;
    Some(api::Guard {
        allow: allow.iter().map(ToString::to_string).collect(),
        deny: deny.iter().map(ToString::to_string).collect(),
        new_flows: new_flows.map_or(0, NonZeroU32::get),
        packets: packets.map_or(0, NonZeroU32::get),
        source: source.as_ref().map(|s| api::SourceRate {
            new_flows: s.new_flows.get(),
            prefix_v4: s.prefix_v4.into(),
            prefix_v6: s.prefix_v6.into(),
        }),
    })
}

/// Reads a guard; `None` when one of its fields is wrong. All of them are looked at.
pub fn guard(message: Option<&api::Guard>, fields: &mut Fields<'_>) -> Option<Guard> {
    let Some(message) = message else {
        return Some(Guard::default());
    };
    let allow = prefixes("guard.allow", &message.allow, fields);
    let deny = prefixes("guard.deny", &message.deny, fields);
    let source = match &message.source {
        Some(source) => source_rate(source, fields).map(Some),
        None => Some(None),
    };
    Some(Guard {
        allow: allow?,
        deny: deny?,
        new_flows: NonZeroU32::new(message.new_flows),
        packets: NonZeroU32::new(message.packets),
        source: source?,
    })
}

fn prefixes(name: &str, texts: &[String], fields: &mut Fields<'_>) -> Option<Vec<Prefix>> {
    let read = texts.iter().enumerate().map(|(at, text)| {
        let prefix = text.parse().map_err(|error| Problem::Prefix {
            text: text.clone(),
            error,
        });
        fields.take(format!("{name}[{at}]"), prefix)
    });
    // All of them first, so that every error is found.
    let all: Vec<Option<Prefix>> = read.collect();
    all.into_iter().collect()
}

fn source_rate(message: &api::SourceRate, fields: &mut Fields<'_>) -> Option<SourceRate> {
    let new_flows = NonZeroU32::new(message.new_flows).ok_or(Problem::Missing);
    let new_flows = fields.take("guard.source.new_flows", new_flows);
    let mut length = |name: &str, bits: u32, most: u8| {
        let fits = u8::try_from(bits).ok().filter(|&bits| bits <= most);
        fields.take(name, fits.ok_or(Problem::PrefixLength(bits)))
    };
    let prefix_v4 = length("guard.source.prefix_v4", message.prefix_v4, 32);
    let prefix_v6 = length("guard.source.prefix_v6", message.prefix_v6, 128);
    Some(SourceRate {
        new_flows: new_flows?,
        prefix_v4: prefix_v4?,
        prefix_v6: prefix_v6?,
    })
}
