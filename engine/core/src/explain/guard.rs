//! What a service's guard says of a client, in sentences.

use super::Fate;
use crate::tables::Ring;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::{DropReason, Guard, Prefix};

/// The end of a packet that the lists do not let pass. Rates are told, not applied: what they let
/// through depends on everything else that comes.
pub(super) fn guard(ring: &Ring, client: IpAddr, steps: &mut Vec<String>) -> Option<Fate> {
    let rules = ring.guard.as_deref()?;
    let lists = list_in_words(&rules.guard, client);
    if !rules.lists.serves(client) {
        let lists = lists.unwrap_or_else(|| format!("{client} is in no prefix of allow"));
        steps.push(format!(
            "{lists}: service {} does not serve it, dropped as {}",
            ring.name,
            DropReason::Denied
        ));
        return Some(Fate::Drop(DropReason::Denied));
    }
    steps.extend(lists.map(|lists| format!("{lists}: it is served")));
    let guard = &rules.guard;
    let limited = DropReason::RateLimited;
    if let Some(rate) = guard.packets {
        steps.push(format!(
            "the service takes {rate} packets a second over the engine; what is more is dropped as \
             {limited}"
        ));
    }
    if let Some(rate) = guard.new_flows {
        steps.push(format!(
            "the service takes {rate} new flows a second over the engine; what is more is dropped \
             as {limited}"
        ));
    }
    if let Some((rate, source)) = guard.source.zip(rules.source) {
        let length = if client.is_ipv4() {
            rate.prefix_v4
        } else {
            rate.prefix_v6
        };
        steps.push(format!(
            "{}/{length} may open {} flows a second; what is more is dropped as {}",
            source.prefix(client),
            rate.new_flows,
            DropReason::SourceRateLimited
        ));
    }
    None
}

/// The longest prefix that has the client, and whose list it is in.
fn list_in_words(guard: &Guard, client: IpAddr) -> Option<String> {
    let longest = |list: &[Prefix]| -> Option<Prefix> {
        let having = list.iter().filter(|prefix| prefix.contains(client));
        having.max_by_key(|prefix| prefix.length()).copied()
    };
    let (allowed, denied) = (longest(&guard.allow), longest(&guard.deny));
    let (list, prefix) = match (allowed, denied) {
        (Some(a), Some(d)) if a.length() > d.length() => ("allow", a),
        (_, Some(d)) => ("deny", d),
        (Some(a), None) => ("allow", a),
        (None, None) => return None,
    };
    Some(format!("{client} is in {prefix} of {list}"))
}

#[cfg(test)]
mod tests {
    use crate::explain::{Explanation, Fate, frame};
    use crate::fixtures::{VIP, VIP6, compile, service, tcp, three};
    use crate::tables::Tables;
    use core::num::NonZeroU32;
    use lockstep_plan::{DropReason, Guard, Service, SourceRate};

    fn explained(guard: Guard, client: &str) -> Explanation {
        let service = Service {
            guard,
            ..service("web", &[VIP, VIP6], three())
        };
        let tables = compile(&Tables::default(), 1, std::vec![service]);
        let vip = if client.contains(':') { VIP6 } else { VIP };
        frame(&tables, &["eth0"], &tcp((client, 40_000), vip, "S"), None)
    }

    #[test]
    fn lists_are_told_with_the_prefix_that_decides() {
        let lists = || Guard {
            allow: std::vec!["10.0.0.0/8".parse().unwrap()],
            deny: std::vec!["10.1.0.0/16".parse().unwrap()],
            ..Guard::default()
        };
        let rows = [
            (
                "10.0.0.1",
                None,
                "10.0.0.1 is in 10.0.0.0/8 of allow: it is served",
            ),
            (
                "10.1.0.1",
                Some(DropReason::Denied),
                "10.1.0.1 is in 10.1.0.0/16 of deny",
            ),
            (
                "192.0.2.1",
                Some(DropReason::Denied),
                "192.0.2.1 is in no prefix of allow",
            ),
            (
                "2001:db8::1",
                Some(DropReason::Denied),
                "in no prefix of allow",
            ),
        ];
        for (client, reason, words) in rows {
            let explanation = explained(lists(), client);
            let text = explanation.steps.join("\n");
            assert!(text.contains(words), "{text}");
            match (explanation.fate, reason) {
                (Fate::Forward { .. }, None) => {}
                (Fate::Drop(told), Some(reason)) => assert_eq!(told, reason),
                (fate, _) => panic!("{client}: {fate:?}"),
            }
        }
    }

    #[test]
    fn rates_are_told() {
        let explanation = explained(
            Guard {
                new_flows: NonZeroU32::new(500),
                packets: NonZeroU32::new(9_000),
                source: Some(SourceRate {
                    new_flows: NonZeroU32::new(20).unwrap(),
                    prefix_v4: 24,
                    prefix_v6: 56,
                }),
                ..Guard::default()
            },
            "198.51.100.7",
        );
        let text = explanation.steps.join("\n");
        for words in [
            "500 new flows a second",
            "9000 packets a second",
            "198.51.100.0/24 may open 20 flows",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert!(matches!(explanation.fate, Fate::Forward { .. }));
    }
}
