//! Pings and ICMP errors: what the dataplane's cold path does with them.

use super::{Explanation, Fate, finish, walk};
use crate::dataplane::KnownFlow;
use crate::tables::Tables;
use alloc::format;
use alloc::string::ToString;
use lockstep_plan::DropReason;
use lockstep_wire::{Control, Headers, parse_icmp};

/// Explains an ICMP message that is ours; `None` where the XDP program leaves it to the kernel.
pub(super) fn message(
    tables: &Tables,
    ports: &[&str],
    frame: &[u8],
    known: Option<KnownFlow>,
) -> Option<Explanation> {
    let to = lockstep_wire::destination(frame)?;
    let ours = tables.has_vip(to) || tables.is_engine_address(to);
    match parse_icmp(frame).ok()? {
        (_, Control::Echo) if ours => Some(Explanation {
            fate: Fate::Answer,
            service: None,
            packet: format!("ping to {to}"),
            steps: alloc::vec![format!("the balancer answers pings to {to} itself")],
        }),
        (headers, Control::Error(_)) => error(tables, ports, &headers, known, ours),
        (_, Control::Echo) => None,
    }
}

fn error(
    tables: &Tables,
    ports: &[&str],
    headers: &Headers,
    known: Option<KnownFlow>,
    ours: bool,
) -> Option<Explanation> {
    let key = &headers.key;
    let mut steps = alloc::vec![
        "an ICMP error: it goes where the flow belongs that it quotes, which is explained here"
            .to_string()
    ];
    if tables.is_engine_address(key.destination_address())
        && tables.is_tunnel_end(key.source_address())
    {
        steps.push(format!(
            "it is about a tunnel to {}: a client whose packet is too big for it is told, \
             anything else is dropped",
            key.source_address()
        ));
        return Some(finish(
            tables,
            Fate::Drop(DropReason::IcmpTunnel),
            key,
            steps,
        ));
    }
    let fate = match walk(tables, ports, key, Some(headers), known, &mut steps) {
        Fate::Session => Fate::Drop(DropReason::IcmpSession),
        Fate::Pass if ours => Fate::Drop(DropReason::IcmpUnmatched),
        Fate::Pass => return None,
        fate @ (Fate::Forward { .. } | Fate::Answer | Fate::Sent | Fate::Drop(_)) => fate,
    };
    Some(finish(tables, fate, key, steps))
}
