//! The ring before: how packets from the middle of a connection find its backend when this
//! balancer has not seen it open.
//!
//! A connection that another balancer opened comes here when that one is lost. As long as the
//! backends are the same the ring finds its backend again; when they change at about the same
//! time, it does not find those whose entries moved. So tables keep the ring before for a while
//! (ADR 0009). It is asked for TCP only: a SYN says that a connection is new, no datagram says
//! that of its flow, and most are new. Were datagrams chosen by the ring before, backends that
//! take no more flows would get new ones, and new backends none, for as long as it is kept.

use super::{BackendRef, Ring, Tables};
use crate::maglev::Maglev;
use crate::tracking::Segment;
use alloc::sync::Arc;
use alloc::vec::Vec;
use lockstep_plan::{Scheduler, ServiceName};

/// What a ring was before it changed.
#[derive(Debug, Clone)]
pub(super) struct Before {
    maglev: Arc<Maglev>,
    active: Vec<BackendRef>,
}

impl Before {
    /// What is kept of `old` beside `new`: the ring before it where that is still kept, since most
    /// connections are older than changes in quick succession; else `old` itself.
    pub(super) fn of(old: &Ring, new: &Ring) -> Option<Arc<Self>> {
        // By another scheduler's hash the old table says nothing.
        if old.mode.name() != new.mode.name()
            || old.scheduler != new.scheduler
            || !by_hash(new.scheduler)
        {
            return None;
        }
        if old.before.is_some() {
            return old.before.clone();
        }
        let maglev = old.maglev.as_ref()?;
        let same = new.maglev.as_ref().is_some_and(|m| Arc::ptr_eq(m, maglev));
        (!same || old.active != new.active).then(|| {
            Arc::new(Before {
                maglev: Arc::clone(maglev),
                active: old.active.clone(),
            })
        })
    }
}

/// Whether balancers agree on a flow's backend without talking. Where they do not, no ring finds
/// what another one chose.
fn by_hash(scheduler: Scheduler) -> bool {
    match scheduler {
        Scheduler::Maglev | Scheduler::SourceHash => true,
        Scheduler::RoundRobin | Scheduler::LeastConnections | Scheduler::Random => false,
    }
}

impl Ring {
    /// Whether the ring before is kept.
    pub fn has_before(&self) -> bool {
        self.before.is_some()
    }
}

impl Tables {
    /// The backend that the ring before gives a packet of no known flow, by its selection hash:
    /// none where there is no such ring, where its backend is gone, and for what begins a flow.
    pub fn backend_before(&self, ring: &Ring, hash: u64, segment: Segment) -> Option<BackendRef> {
        match segment {
            Segment::Data | Segment::Fin | Segment::Reset | Segment::Stray => {}
            Segment::Open | Segment::Datagram => return None,
        }
        let before = ring.before.as_ref()?;
        let index = before.maglev.lookup(hash);
        let backend = before.active.get(usize::from(index)).copied()?;
        // Of this service, active or draining: slots that are given back change generation.
        self.hop(backend).map(|_| backend)
    }

    /// The same tables without the rings before of some services.
    pub fn settled(&self, services: impl Fn(&ServiceName) -> bool) -> Tables {
        let settle = |ring: &Ring| Ring {
            before: ring.before.clone().filter(|_| !services(&ring.name)),
            ..ring.clone()
        };
        Tables {
            rings: Arc::new(self.rings.iter().map(settle).collect()),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
