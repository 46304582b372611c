//! Why a packet went where it went: a worker's verdict, in the words of the tables.

use super::{Explanation, Fate, frame};
use crate::dataplane::{KnownFlow, Verdict};
use crate::tables::{Member, Tables};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::DropReason;
use lockstep_wire::{STEER_ETHERTYPE, ethernet};

/// What a worker did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its verdict.
    pub verdict: Verdict,
    /// The flow's entry before the packet.
    pub before: Option<KnownFlow>,
    /// The flow's entry after it.
    pub after: Option<KnownFlow>,
}

/// Explains what became of a frame, as the network brought it. The verdict is the worker's; the
/// reasons are those of the tables now in force, as far as they lead to it.
pub fn seen(tables: &Tables, ports: &[&str], bytes: &[u8], seen: &Seen) -> Explanation {
    let told = frame(tables, ports, bytes, seen.before);
    match seen.verdict {
        Verdict::Forward { .. } => forwarded(tables, ports, bytes, seen, told),
        Verdict::Local => Explanation {
            fate: Fate::Session,
            ..told
        },
        Verdict::Drop(reason) if told.fate == Fate::Drop(reason) => told,
        Verdict::Drop(reason) => {
            let mut told = told;
            told.steps.push(format!("{reason}: {}", reason.help()));
            Explanation {
                fate: Fate::Drop(reason),
                ..told
            }
        }
    }
}

/// A new flow's backend need not be the one that the tables would choose: a scheduler may go by
/// what is known to the worker alone. Then the entry that it made says which.
fn forwarded(
    tables: &Tables,
    ports: &[&str],
    bytes: &[u8],
    seen: &Seen,
    told: Explanation,
) -> Explanation {
    match told.fate {
        // What is sent then is the engine's own word, to the sender.
        Fate::Answer { .. } | Fate::Reply | Fate::Drop(DropReason::TooBig) => return told,
        Fate::Unsettled => {
            return Explanation {
                fate: Fate::Sent,
                ..told
            };
        }
        Fate::Forward { .. } | Fate::Pass | Fate::Session | Fate::Sent | Fate::Drop(_) => {}
    }
    let went = seen.after.and_then(|flow| member(tables, &flow));
    match (
        address(&told.fate),
        went.map(|member| member.backend.address),
    ) {
        (Some(_), None) => return told,
        (Some(told_address), Some(went)) if told_address == went => return told,
        (_, Some(went)) => {
            let again = frame(tables, ports, bytes, seen.after);
            if address(&again.fate) == Some(went) {
                return again;
            }
        }
        (None, None) => {}
    }
    let mut told = told;
    told.steps.push(
        "sent on, why cannot be told: other tables were in force, or too little is kept of it"
            .to_string(),
    );
    Explanation {
        fate: Fate::Sent,
        ..told
    }
}

fn address(fate: &Fate) -> Option<IpAddr> {
    match fate {
        Fate::Forward { address, .. } => Some(*address),
        Fate::Pass
        | Fate::Session
        | Fate::Answer { .. }
        | Fate::Reply
        | Fate::Unsettled
        | Fate::Sent
        | Fate::Drop(_) => None,
    }
}

fn member<'a>(tables: &'a Tables, flow: &KnownFlow) -> Option<&'a Member> {
    tables
        .rings()
        .iter()
        .find_map(|ring| ring.member(flow.backend))
}

/// A frame as the network brought it: without the room that the XDP program made (ADR 1). VLAN
/// tags are gone by then.
pub fn as_received(frame: &[u8]) -> Vec<u8> {
    let marker = frame.get(12..14).map(|m| u16::from_be_bytes([m[0], m[1]]));
    let room = frame.get(14..16).map(|r| u16::from_be_bytes([r[0], r[1]]));
    let (Some(STEER_ETHERTYPE), Some(room)) = (marker, room) else {
        return frame.to_vec();
    };
    let Some(packet) = frame.get(ethernet::HEADER_LENGTH + usize::from(room)..) else {
        return frame.to_vec();
    };
    let ethertype = match packet.first().map(|byte| byte >> 4) {
        Some(6) => ethernet::IPV6,
        _ => ethernet::IPV4,
    };
    [&frame[..12], &ethertype.to_be_bytes(), packet].concat()
}

#[cfg(test)]
mod tests;
