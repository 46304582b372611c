//! Guards at their place on a packet's way: before its flow is gone by, or made.

use super::{Flows, Now};
use crate::guard::{Levels, Rules, SourceId, Sources};
use crate::tables::{Ring, Tables, VipRef};
use crate::tracking::Segment;
use core::net::IpAddr;
use lockstep_plan::DropReason;

/// What guards have let through, in this worker.
#[derive(Debug, Default)]
pub(super) struct Guards {
    levels: Levels,
    sources: Sources,
}

impl Flows {
    /// Whether a packet of a known flow of a guarded VIP ([`VipSlot::guarded`](crate::tables::VipSlot::guarded)) goes on.
    #[inline(never)]
    pub(super) fn guard_packet(
        &mut self,
        tables: &Tables,
        now: Now,
        vip: VipRef,
        client: IpAddr,
        segment: Segment,
    ) -> Result<(), DropReason> {
        let Some(ring) = tables.ring(vip) else {
            return Ok(());
        };
        match segment {
            // Else a made-up segment in front of each SYN would spare it the rates of new flows.
            Segment::Open => self.guard_new(ring, now, client, segment),
            Segment::Data | Segment::Fin | Segment::Reset | Segment::Stray | Segment::Datagram => {
                self.look_at(ring, now, client).map(drop)
            }
        }
    }

    /// Whether a packet that no flow is known for goes on.
    ///
    /// What begins a flow is a SYN or a datagram. A segment from the middle of a connection is not
    /// held to the rates of new flows: the connections of a balancer that died come here all at
    /// once and are none of them new. It counts as a packet.
    pub(super) fn guard_new(
        &mut self,
        ring: &Ring,
        now: Now,
        client: IpAddr,
        segment: Segment,
    ) -> Result<(), DropReason> {
        let Some(rules) = self.look_at(ring, now, client)? else {
            return Ok(());
        };
        match segment {
            Segment::Open | Segment::Datagram => {}
            Segment::Data | Segment::Fin | Segment::Reset | Segment::Stray => return Ok(()),
        }
        let Guards { levels, sources } = &mut *self.guards;
        // The source first: what it has too much of is not taken from the others.
        if let Some(source) = &rules.source {
            let id = SourceId::new(&self.seed, ring.guard_slot, source.prefix(client));
            let taken = sources.take(id, source.pace(), now.micros);
            self.counters.sources_forgotten.add(u64::from(taken.forgot));
            if !taken.is_there {
                return Err(DropReason::SourceRateLimited);
            }
        }
        match rules.new_flows {
            Some(pace) if !levels.new_flows(ring.guard_slot).take(pace, now.micros) => {
                Err(DropReason::RateLimited)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What every packet is held against. Returns the service's rules, if it has any.
    fn look_at<'a>(
        &mut self,
        ring: &'a Ring,
        now: Now,
        client: IpAddr,
    ) -> Result<Option<&'a Rules>, DropReason> {
        let Some(rules) = ring.guard.as_deref() else {
            return Ok(None);
        };
        if !rules.lists.serves(client) {
            return Err(DropReason::Denied);
        }
        let levels = &mut self.guards.levels;
        match rules.packets {
            Some(pace) if !levels.packets(ring.guard_slot).take(pace, now.micros) => {
                Err(DropReason::RateLimited)
            }
            Some(_) | None => Ok(Some(rules)),
        }
    }
}

#[cfg(test)]
mod tests;
