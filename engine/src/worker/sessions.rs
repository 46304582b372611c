//! A worker's end of replicated sessions: packets to the [`Replicator`], from this worker's sockets
//! and from other workers; what it has to tell, to whom it concerns.

use super::Links;
use crate::handover::Handover;
use crate::mailbox::{Reply, SessionPage};
use crate::spill::SpillEndpoint;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::replicator::{Replicator, SessionEvent, SwitchoverError};
use lockstep_core::{BURST, Micros, PortId, Tables};
use lockstep_plan::DropReason;
use lockstep_xsk::{XskError, wait};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Sessions {
    /// There since the first service that replicates.
    replicator: Option<Box<Replicator>>,
    handover: Handover,
    /// To the agent, which is not waited for: what finds no place stays in the replicator's own
    /// queue, and what finds none there is counted.
    events: Arc<ArrayQueue<SessionEvent>>,
    /// To the thread that keeps input in files, where there is one.
    spill: Option<SpillEndpoint>,
}

/// What came of the packets that other workers had.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many there were.
    pub received: usize,
    /// Why some were dropped.
    pub dropped: ArrayVec<DropReason, BURST>,
}

impl Sessions {
    /// No sessions, and nothing to make any with.
    pub fn new(
        handover: Handover,
        events: Arc<ArrayQueue<SessionEvent>>,
        spill: Option<SpillEndpoint>,
    ) -> Self {
        Sessions {
            replicator: None,
            handover,
            events,
            spill,
        }
    }

    /// Takes what sessions need; gives it back where there is one already.
    pub fn equip(&mut self, offered: Box<Replicator>) -> Reply {
        let (replicator, spare) = match self.replicator.take() {
            Some(replicator) => (replicator, Some(offered)),
            None => (offered, None),
        };
        let counters = Arc::clone(replicator.counters());
        self.replicator = Some(replicator);
        Reply::Equipped { counters, spare }
    }

    /// A packet from one of the worker's sockets: to its session, or to the worker that has it.
    pub fn receive(
        &mut self,
        now: Micros,
        tables: &Tables,
        from: PortId,
        frame: &mut [u8],
        links: &mut Links,
    ) -> Result<(), DropReason> {
        let replicator = self.replicator.as_mut().ok_or(DropReason::NoSession)?;
        match replicator.owner(tables, frame) {
            None => replicator.receive(now, tables, from, frame, links),
            Some(other) if self.handover.give(other, from, frame) => Ok(()),
            Some(_) => Err(DropReason::HandoverFull),
        }
    }

    /// A burst of what other workers have received for this one.
    pub fn take(&mut self, now: Micros, tables: &Tables, links: &mut Links) -> Taken {
        let mut taken = Taken::default();
        for _ in 0..BURST {
            let Some(mut parcel) = self.handover.take() else {
                break;
            };
            let port = parcel.port();
            // Whose it is was settled where it came in: asked again, two workers that disagree for
            // a moment would pass it to and fro.
            let done = match &mut self.replicator {
                Some(replicator) => replicator.receive(now, tables, port, parcel.frame(), links),
                None => Err(DropReason::NoSession),
            };
            taken.received += 1;
            // There are no more than a burst.
            taken.dropped.extend(done.err());
            self.handover.give_back(parcel);
        }
        taken
    }

    /// Does what the packets of this turn, and the files, have made due.
    pub fn poll(&mut self, now: Micros, tables: &Tables, links: &mut Links) {
        let Some(replicator) = &mut self.replicator else {
            return;
        };
        while let Some(reply) = self.spill.as_mut().and_then(SpillEndpoint::receive) {
            replicator.spilled(reply);
        }
        replicator.poll(now, tables, links);
        if let Some(spill) = &mut self.spill {
            spill.send(replicator.spill_queue());
        }
    }

    /// Does what time has made due, and tells what has happened.
    pub fn tick(&mut self, now: Micros, tables: &Tables, links: &mut Links) {
        let Some(replicator) = &mut self.replicator else {
            return;
        };
        replicator.tick(now, tables, links);
        while let Some(event) = replicator.events().pop() {
            if let Err(event) = self.events.push(event) {
                replicator.events().unpop(event);
                break;
            }
        }
    }

    /// New tables are in force.
    pub fn adopt(&mut self) {
        if let Some(replicator) = &mut self.replicator {
            replicator.adopt();
        }
    }

    /// Fills a page within the memory it has.
    pub fn fill(&self, page: &mut SessionPage, now: Micros) {
        page.fill(now, self.replicator.as_deref());
    }

    /// Makes the replica on a backend the primary of a session.
    pub fn switch_to(
        &mut self,
        now: Micros,
        tables: &Tables,
        session: SessionId,
        backend: IpAddr,
    ) -> Result<(), SwitchoverError> {
        match &mut self.replicator {
            Some(replicator) => replicator.switch_to(now, tables, session, backend),
            None => Err(SwitchoverError::NoSuchSession(session)),
        }
    }

    /// Sleeps until a packet comes, a session's time has come, or `nap` is over.
    pub fn sleep(&self, now: Micros, links: &Links, nap: Duration) -> Result<(), XskError> {
        let deadline = self.replicator.as_ref().and_then(|r| r.next_deadline());
        let nap = deadline.map_or(nap, |deadline| nap.min(deadline.since(now)));
        let waker = self.handover.waker();
        waker.doze();
        let replied = self.spill.as_ref().is_some_and(SpillEndpoint::has_mail);
        if !replied && !self.handover.has_mail() {
            wait(&links.ports, Some(waker), nap)?;
        }
        waker.rise();
        Ok(())
    }
}
