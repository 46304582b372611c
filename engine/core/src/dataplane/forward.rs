//! Forwarding into tunnels: the outer header in front of the packet, in place.

use super::{Flows, Verdict};
use crate::tables::{BackendRef, Delivery, Hop, Route, VipRef};
use lockstep_plan::DropReason;
use lockstep_wire::{Headers, NoRoom, Outer};

impl Flows {
    /// Sends a packet to its backend, as its service's mode says.
    #[inline(always)]
    pub(super) fn forward(
        &mut self,
        hop: &Hop,
        vip: VipRef,
        backend: BackendRef,
        headers: &Headers,
        frame: &mut [u8],
    ) -> Result<Verdict, DropReason> {
        let route = admit(hop, headers)?;
        if headers.length > self.unusual.paths.watch() {
            self.unusual.paths.admit(hop, headers)?;
        }
        let length = match &hop.delivery {
            Delivery::Tunnel(outer) => self.tunnel(outer, route, headers, frame)?,
            Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session => {
                return Err(DropReason::NoRoom);
            }
        };
        self.count(vip, backend, headers);
        Ok(Verdict::Forward {
            port: route.port,
            length,
        })
    }

    /// Counts a packet of a client that goes to a backend.
    #[inline(always)]
    pub(super) fn count(&self, vip: VipRef, backend: BackendRef, headers: &Headers) {
        let bytes = u64::from(headers.length);
        let (vip, backend) = (
            &self.counters.vips[vip.slot()],
            &self.counters.backends[backend.slot()],
        );
        vip.packets.add(1);
        vip.bytes.add(bytes);
        backend.packets.add(1);
        backend.bytes.add(bytes);
    }

    /// Puts a tunnel's header in front of a packet.
    #[inline(always)]
    fn tunnel(
        &mut self,
        outer: &Outer,
        route: &Route,
        headers: &Headers,
        frame: &mut [u8],
    ) -> Result<u16, DropReason> {
        self.identification = self.identification.wrapping_add(1);
        let id = self.identification;
        let length = match outer.push(frame, headers, &route.link, id) {
            Ok(length) => length,
            Err(NoRoom) => push_moved(outer, route, headers, frame, id)?,
        };
        // Only an MTU near 64 KiB leaves room for a longer frame.
        u16::try_from(length).map_err(|_| DropReason::TooBig)
    }
}

/// There may be more room in front than this tunnel needs: what has no ports is steered with the
/// most that any VIP of its address needs.
#[cold]
#[inline(never)]
fn push_moved(
    outer: &Outer,
    route: &Route,
    headers: &Headers,
    frame: &mut [u8],
    id: u16,
) -> Result<usize, DropReason> {
    let room = outer.room(route.link.vlan.is_some());
    let headers = headers
        .with_less_room(frame, room)
        .ok_or(DropReason::NoRoom)?;
    outer
        .push(frame, &headers, &route.link, id)
        .map_err(|NoRoom| DropReason::NoRoom)
}

/// The way to a backend for a packet, or why it cannot take it.
#[inline]
pub(crate) fn admit<'a>(hop: &'a Hop, headers: &Headers) -> Result<&'a Route, DropReason> {
    let route = hop.route.as_ref().map_err(|&reason| reason)?;
    let more = match &hop.delivery {
        Delivery::Tunnel(outer) => outer.len(),
        Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session => 0,
    };
    // Sums of two 16-bit lengths: u32 holds them.
    if u32::from(headers.length) + u32::from(more) > u32::from(route.mtu) {
        return Err(DropReason::TooBig);
    }
    Ok(route)
}
