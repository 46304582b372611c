//! What rewriting does with packets of no flow: in full NAT there are SYN cookies.

use super::Fate;
use crate::dataplane::HALF_OPEN;
use crate::tables::{BackendRef, Delivery, Tables};
use crate::tracking::Segment;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use lockstep_plan::DropReason;
use lockstep_wire::TcpFlags;

/// What is said of a packet of no flow for a backend, and its fate where that is not the backend.
pub(super) fn cookies(
    tables: &Tables,
    backend: BackendRef,
    (segment, flags): (Segment, Option<TcpFlags>),
    steps: &mut Vec<String>,
) -> Option<Fate> {
    let delivery = &tables.hop(backend)?.delivery;
    let acknowledges = flags.is_some_and(|flags| flags.contains(TcpFlags::ACK));
    if delivery.translates() && segment == Segment::Open && acknowledges {
        steps.push(format!(
            "it is the second segment of a connection, and nobody here sent the first: dropped as {}",
            DropReason::NoFlow
        ));
        return Some(Fate::Drop(DropReason::NoFlow));
    }
    if !matches!(delivery, Delivery::FullNat(_)) {
        return None;
    }
    match segment {
        Segment::Datagram => None,
        Segment::Open => {
            steps.push(format!(
                "a worker in which this backend has {HALF_OPEN} half-open flows, or one in 16 of a \
                 small flow table, answers a SYN itself, with a cookie, and goes on when the client \
                 acknowledges that; one that has fewer goes on at once"
            ));
            None
        }
        Segment::Data | Segment::Fin | Segment::Reset | Segment::Stray => {
            steps.push(format!(
                "it is from the middle of a connection, and which port the backend knows it by is in \
                 the flow table alone: dropped as {}, unless it acknowledges a SYN cookie and so \
                 opens its connection",
                DropReason::NoFlow
            ));
            Some(Fate::Drop(DropReason::NoFlow))
        }
    }
}
