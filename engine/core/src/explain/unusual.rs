//! What becomes of pings, errors and fragments, in sentences.

use super::{Explanation, Fate, Tuple, choose, finish, keep, label, reach, refused, walk};
use crate::dataplane::KnownFlow;
use crate::tables::{Delivery, Tables};
use crate::tracking::Segment;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use lockstep_plan::{DropReason, Protocol};
use lockstep_wire::icmp::ErrorKind;
use lockstep_wire::{Control, FlowKey, Headers, ParseError, parse_fragment, parse_icmp, protocol};

/// The flow of a frame that has one though the parser refuses it: that which an error quotes, or
/// that of a first fragment.
pub(super) fn flow_of(frame: &[u8], error: ParseError) -> Option<FlowKey> {
    match error {
        ParseError::NotTransport => match parse_icmp(frame).ok()? {
            (headers, Control::Error(_)) => Some(headers.key),
            (_, Control::Echo) => None,
        },
        ParseError::Fragment => {
            let fragment = parse_fragment(frame).ok()?;
            fragment.is_first().then_some(fragment.headers.key)
        }
        _ => None,
    }
}

/// Explains a frame that the parser refused.
pub(super) fn explain(
    tables: &Tables,
    ports: &[&str],
    frame: &[u8],
    error: ParseError,
    known: Option<KnownFlow>,
) -> Explanation {
    let told = match error {
        ParseError::NotTransport => match parse_icmp(frame) {
            Ok((headers, Control::Echo)) => Some(ping(tables, &headers)),
            Ok((headers, Control::Error(kind))) => {
                Some(quoting(tables, ports, &headers, kind, known))
            }
            // Other messages are the kernel's.
            Err(ParseError::NotTransport) => None,
            Err(error) => return broken(tables, frame, error),
        },
        ParseError::Fragment => match parse_fragment(frame) {
            Ok(fragment) if fragment.is_first() => {
                let (headers, mut steps) = (fragment.headers, Vec::new());
                steps.push(format!(
                    "parsed: the first fragment of a datagram, {} bytes; where it goes is \
                     remembered for the others",
                    headers.length
                ));
                let fate = walk(
                    tables,
                    ports,
                    &headers.key,
                    Some(&headers),
                    known,
                    &mut steps,
                );
                Some(finish(tables, fate, &headers.key, steps))
            }
            Ok(fragment) => Some(later(tables, &fragment.headers)),
            Err(error) => return broken(tables, frame, error),
        },
        _ => None,
    };
    told.unwrap_or_else(|| broken(tables, frame, error))
}

fn broken(tables: &Tables, frame: &[u8], error: ParseError) -> Explanation {
    let (fate, step) = refused(tables, frame, error);
    Explanation {
        fate,
        service: None,
        packet: format!("frame of {} bytes", frame.len()),
        steps: alloc::vec![step],
    }
}

fn ping(tables: &Tables, headers: &Headers) -> Explanation {
    let tuple = Tuple::of(&headers.key);
    let (from, to) = (tuple.from.ip(), tuple.to.ip());
    let (fate, step) = if tables.has_vip(to) || tables.is_engine_address(to) {
        let what = if tables.has_vip(to) {
            "has a VIP"
        } else {
            "is an engine address"
        };
        let limited = DropReason::IcmpLimited;
        let step = format!(
            "{to} {what}: the engine answers the ping itself, as far as its rate allows (dropped as \
             {limited} otherwise); that says nothing about backends"
        );
        (Fate::Reply, step)
    } else {
        (
            Fate::Pass,
            format!("{to} has no VIP and is no engine address: left to the kernel"),
        )
    };
    Explanation {
        fate,
        service: None,
        packet: format!("ping {from} > {to}"),
        steps: alloc::vec![step],
    }
}

fn later(tables: &Tables, headers: &Headers) -> Explanation {
    let tuple = Tuple::of(&headers.key);
    let (from, to) = (tuple.from.ip(), tuple.to.ip());
    let rewritten = || {
        let sources = tables.steered_sources();
        tables.is_engine_address(to) || sources.iter().any(|source| source.address == from)
    };
    let (fate, step) = if tables.has_vip(to) || rewritten() {
        let step = format!(
            "parsed: a later fragment, which has no ports: it goes where the first one of its \
             datagram went, if that came to the same worker shortly before; dropped as {} otherwise",
            DropReason::Fragment
        );
        (Fate::Unsettled, step)
    } else {
        (
            Fate::Pass,
            format!("a fragment, and {to} has no VIP and {from} no answers: left to the kernel"),
        )
    };
    Explanation {
        fate,
        service: None,
        packet: format!("fragment {from} > {to}"),
        steps: alloc::vec![step],
    }
}

/// An error: to whom sent the packet that it quotes.
fn quoting(
    tables: &Tables,
    ports: &[&str],
    headers: &Headers,
    kind: ErrorKind,
    known: Option<KnownFlow>,
) -> Explanation {
    let (key, tuple) = (&headers.key, Tuple::of(&headers.key));
    let (address, port) = (tuple.to.ip(), tuple.to.port());
    if tables.is_engine_address(address) && tables.is_tunnel_end(tuple.from.ip()) {
        // A backend can be reached by a tunnel and by rewriting, too.
        let tunnel = match tuple.protocol {
            protocol::UDP => tables.is_tunnel_port(tuple.from.port()).then_some("GUE"),
            protocol::TCP => None,
            protocol::IPV4 => Some("IPv4 in IP"),
            protocol::IPV6 => Some("IPv6 in IP"),
            _ => Some("no protocol of ours"),
        };
        if let Some(tunnel) = tunnel {
            return about_tunnel(tables, &tuple, tunnel, kind);
        }
    }
    let mut steps = alloc::vec![format!(
        "parsed: an ICMP error, {}, about the flow {tuple}",
        name(kind)
    )];
    let fate = if tables.is_session(address, port, tuple.protocol) {
        end(DropReason::IcmpSession, &mut steps)
    } else if let Some(flow) = known.filter(|flow| flow.is_answer) {
        to_client(tables, flow, &mut steps)
    } else {
        to_backend(tables, ports, headers, known, &mut steps)
    };
    let mut told = finish(tables, fate, key, steps);
    told.packet = format!("icmp error about {}", told.packet);
    told
}

/// An error about a tunnel: `tuple` is turned as a client's flow, from the backend to the engine.
fn about_tunnel(tables: &Tables, tuple: &Tuple, tunnel: &str, kind: ErrorKind) -> Explanation {
    let (engine, end) = (tuple.to.ip(), tuple.from.ip());
    let members = tables.rings().iter().flat_map(|ring| {
        let members = ring.members.iter();
        members.map(move |member| (&ring.name, member))
    });
    let ends = members
        .filter(|(_, member)| member.backend.address == end)
        .map(|(service, member)| format!("backend {} of service {service}", label(member)))
        .collect::<Vec<_>>()
        .join(", ");
    let mut steps = alloc::vec![format!(
        "parsed: an ICMP error, {}, about the engine's own packet in a tunnel ({tunnel}) from \
         {engine} to {end}: {ends}",
        name(kind)
    )];
    let fate = match kind {
        ErrorKind::TooBig { .. } => {
            steps.push(format!(
                "the client whose packet was inside is told what fits, and the way's MTU is \
                 remembered; dropped as {} where the error does not show that packet",
                DropReason::IcmpTunnel
            ));
            Fate::Unsettled
        }
        ErrorKind::Unreachable { .. }
        | ErrorKind::TimeExceeded { .. }
        | ErrorKind::ParameterProblem { .. } => self::end(DropReason::IcmpTunnel, &mut steps),
    };
    Explanation {
        fate,
        service: None,
        packet: format!("icmp error about tunnel {engine} > {end}"),
        steps,
    }
}

/// An error about what a client sent and the engine rewrote.
fn to_client(tables: &Tables, flow: KnownFlow, steps: &mut Vec<String>) -> Fate {
    let mut rings = tables.rings().iter();
    let Some(ring) = rings.find(|ring| ring.member(flow.backend).is_some()) else {
        return end(DropReason::IcmpUnmatched, steps);
    };
    steps.push(format!(
        "the flow table has it: an error about what {} sent to {}, which it gets rewritten and from \
         the VIP",
        flow.client, flow.vip
    ));
    Fate::Answer {
        service: ring.name.to_string(),
        client: flow.client,
    }
}

fn to_backend(
    tables: &Tables,
    ports: &[&str],
    headers: &Headers,
    known: Option<KnownFlow>,
    steps: &mut Vec<String>,
) -> Fate {
    let (key, tuple) = (&headers.key, Tuple::of(&headers.key));
    // An error moves nothing in the flow's entry: as a packet from the middle of a connection.
    let kept = known.and_then(|flow| keep(tables, key, None, flow, steps));
    let vip = tables.vip(tuple.to.ip(), tuple.to.port(), tuple.protocol);
    let found = kept.or_else(|| {
        let ring = tables.ring(vip?)?;
        if ring.replicate.is_some() {
            return None;
        }
        steps.push(
            "no flow here: another balancer may have it, which chose by the same ring".to_string(),
        );
        let segment = match tuple.protocol == Protocol::Tcp.number() {
            true => Segment::Data,
            false => Segment::Datagram,
        };
        Some((ring, choose(tables, ring, key, segment, steps)?))
    });
    let replicates = vip
        .and_then(|v| tables.ring(v))
        .is_some_and(|r| r.replicate.is_some());
    match found {
        None if replicates => end(DropReason::IcmpSession, steps),
        None => end(DropReason::IcmpUnmatched, steps),
        Some((ring, backend)) => match tables.hop(backend).map(|hop| &hop.delivery) {
            Some(Delivery::FullNat(_)) if kept.is_none() => {
                steps.push("which port the backend sees is in the flow's entry alone".to_string());
                end(DropReason::IcmpUnmatched, steps)
            }
            Some(Delivery::Tunnel(_) | Delivery::Nat(_) | Delivery::FullNat(_)) => {
                reach(tables, ports, ring, backend, (Some(headers), known), steps)
            }
            Some(Delivery::Session) | None => end(DropReason::IcmpUnmatched, steps),
        },
    }
}

fn end(reason: DropReason, steps: &mut Vec<String>) -> Fate {
    steps.push(format!("{reason}: {}", reason.help()));
    Fate::Drop(reason)
}

fn name(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::Unreachable { code } => format!("unreachable (code {code})"),
        ErrorKind::TooBig { mtu } => format!("too big (MTU {mtu})"),
        ErrorKind::TimeExceeded { code } => format!("time exceeded (code {code})"),
        ErrorKind::ParameterProblem { code } => format!("parameter problem (code {code})"),
    }
}
