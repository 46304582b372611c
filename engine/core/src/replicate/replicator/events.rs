//! Events on their way to whoever listens, with what a session no longer tells once it is gone.

use super::Served;
use crate::replicate::event::{Event, EventKind, ReplicaIndex};
use crate::tables::{BackendRef, VipRef};
use alloc::collections::VecDeque;
use core::net::SocketAddr;

/// An event with the names in it resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEvent {
    /// What happened.
    pub event: Event,
    /// The VIP the session is on.
    pub vip: VipRef,
    /// The session's client.
    pub client: SocketAddr,
    /// The replica that the event is about: the one that became primary, where there are two.
    pub replica: Option<BackendRef>,
    /// The one that was primary before.
    pub from: Option<BackendRef>,
}

impl SessionEvent {
    pub(super) fn of(event: Event, served: &Served) -> Self {
        let backend = |index: ReplicaIndex| served.session.backend(index);
        let (replica, from) = match event.kind {
            EventKind::Opened { primary } => (backend(primary), None),
            EventKind::Switched { from, to, .. } => (backend(to), backend(from)),
            EventKind::Diverged { replica, .. }
            | EventKind::Lagging { replica }
            | EventKind::Evicted { replica, .. }
            | EventKind::Joined { replica } => (backend(replica), None),
            EventKind::Resumed { .. }
            | EventKind::LogCut
            | EventKind::Orphaned
            | EventKind::Ended(_) => (None, None),
        };
        SessionEvent {
            event,
            vip: served.vip,
            client: served.client_address(),
            replica,
            from,
        }
    }
}

/// Events in their order. When it is full, new ones are lost and counted.
#[derive(Debug)]
pub struct EventQueue {
    events: VecDeque<SessionEvent>,
    capacity: usize,
}

impl EventQueue {
    pub(super) fn new(capacity: usize) -> Self {
        EventQueue {
            events: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// False when it is full.
    pub(super) fn push(&mut self, event: SessionEvent) -> bool {
        let room = self.events.len() < self.capacity;
        if room {
            self.events.push_back(event);
        }
        room
    }

    /// The oldest.
    pub fn pop(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Puts back what [`EventQueue::pop`] gave and nobody had room for.
    pub fn unpop(&mut self, event: SessionEvent) {
        self.events.push_front(event);
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
