//! A worker's end of replicated sessions: packets to the [`Replicator`], and what it has to tell, to
//! whom it concerns.

use super::Links;
use crate::mailbox::{Reply, SessionPage};
use crate::spill::SpillEndpoint;
use crossbeam::queue::ArrayQueue;
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::replicator::{Replicator, SessionEvent, SwitchoverError};
use lockstep_core::{Micros, PortId, Tables};
use lockstep_plan::DropReason;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct Sessions {
    /// There since the first service that replicates.
    replicator: Option<Box<Replicator>>,
    /// To the agent, which is not waited for: what finds no place stays in the replicator's own
    /// queue, and what finds none there is counted.
    events: Arc<ArrayQueue<SessionEvent>>,
    /// To the thread that keeps input in files, where there is one.
    spill: Option<SpillEndpoint>,
}

impl Sessions {
    /// No sessions, and nothing to make any with.
    pub fn new(events: Arc<ArrayQueue<SessionEvent>>, spill: Option<SpillEndpoint>) -> Self {
        Sessions {
            replicator: None,
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

    /// The worker that has the session of a packet, when it is another than this one.
    pub fn owner(&self, tables: &Tables, frame: &[u8]) -> Option<u8> {
        self.replicator.as_ref()?.owner(tables, frame)
    }

    /// A packet of one of this worker's sessions.
    pub fn receive(
        &mut self,
        now: Micros,
        tables: &Tables,
        from: PortId,
        frame: &mut [u8],
        links: &mut Links,
    ) -> Result<(), DropReason> {
        let replicator = self.replicator.as_mut().ok_or(DropReason::NoSession)?;
        replicator.receive(now, tables, from, frame, links)
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

    /// How long there is nothing to do for any session, at most `nap`.
    pub fn rest(&self, now: Micros, nap: Duration) -> Duration {
        let deadline = self.replicator.as_ref().and_then(|r| r.next_deadline());
        deadline.map_or(nap, |deadline| nap.min(deadline.since(now)))
    }

    /// Whether the thread that keeps input in files has answered.
    pub fn has_mail(&self) -> bool {
        self.spill.as_ref().is_some_and(SpillEndpoint::has_mail)
    }
}
