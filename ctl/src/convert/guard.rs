//! Schedulers and guards, to messages and back.

use super::{ConvertError, refused};
use lockstep_api as api;
use lockstep_plan::{Guard, Prefix, Scheduler, SourceRate};
use std::num::NonZeroU32;

/// A scheduler's value.
pub fn scheduler_to_proto(scheduler: Scheduler) -> api::Scheduler {
    match scheduler {
        Scheduler::Maglev => api::Scheduler::Maglev,
        Scheduler::RoundRobin => api::Scheduler::RoundRobin,
        Scheduler::LeastConnections => api::Scheduler::LeastConnections,
        Scheduler::SourceHash => api::Scheduler::SourceHash,
        Scheduler::Random => api::Scheduler::Random,
    }
}

/// A value's scheduler.
pub fn scheduler_from_proto(number: i32) -> Result<Scheduler, ConvertError> {
    match api::Scheduler::try_from(number) {
        Ok(api::Scheduler::Maglev) => Ok(Scheduler::Maglev),
        Ok(api::Scheduler::RoundRobin) => Ok(Scheduler::RoundRobin),
        Ok(api::Scheduler::LeastConnections) => Ok(Scheduler::LeastConnections),
        Ok(api::Scheduler::SourceHash) => Ok(Scheduler::SourceHash),
        Ok(api::Scheduler::Random) => Ok(Scheduler::Random),
        Err(_) => Err(refused("service scheduler", number)),
    }
}

/// A guard as a message; nothing for an open one.
pub fn guard_to_proto(guard: &Guard) -> Option<api::Guard> {
    let texts = |prefixes: &[Prefix]| prefixes.iter().map(Prefix::to_string).collect();
    let number = |limit: Option<NonZeroU32>| limit.map_or(0, NonZeroU32::get);
    (!guard.is_open()).then(|| api::Guard {
        allow: texts(&guard.allow),
        deny: texts(&guard.deny),
        new_flows: number(guard.new_flows),
        packets: number(guard.packets),
        source: guard.source.map(|source| api::SourceRate {
            new_flows: source.new_flows.get(),
            prefix_v4: source.prefix_v4.into(),
            prefix_v6: source.prefix_v6.into(),
        }),
    })
}

/// A message's guard.
pub fn guard_from_proto(message: Option<&api::Guard>) -> Result<Guard, ConvertError> {
    let Some(message) = message else {
        return Ok(Guard::default());
    };
    let prefixes = |texts: &[String]| -> Result<Vec<Prefix>, ConvertError> {
        let one = |text: &String| text.parse().map_err(|_| refused("guard prefix", text));
        texts.iter().map(one).collect()
    };
    let length = |bits: u32, most: u8| {
        let fits = u8::try_from(bits).ok().filter(|&bits| bits <= most);
        fits.ok_or_else(|| refused("guard source prefix length", bits))
    };
    let source = message.source.as_ref().map(|source| {
        Ok::<_, ConvertError>(SourceRate {
            new_flows: NonZeroU32::new(source.new_flows)
                .ok_or_else(|| refused("guard source new_flows", source.new_flows))?,
            prefix_v4: length(source.prefix_v4, 32)?,
            prefix_v6: length(source.prefix_v6, 128)?,
        })
    });
    Ok(Guard {
        allow: prefixes(&message.allow)?,
        deny: prefixes(&message.deny)?,
        new_flows: NonZeroU32::new(message.new_flows),
        packets: NonZeroU32::new(message.packets),
        source: source.transpose()?,
    })
}
