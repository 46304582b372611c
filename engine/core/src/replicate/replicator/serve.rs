//! One session's turn: drive it, do what it wants done, send, and set its timer.

use super::events::SessionEvent;
use super::groups::GroupPlace;
use super::{LegEnds, Replicator, Served, Shared};
use crate::Micros;
use crate::replicate::event::{Event, EventKind, ReplicaIndex};
use crate::replicate::group::Group;
use crate::replicate::leg::Leg;
use crate::replicate::session::{Action, Candidate, Resources};
use crate::replicate::stack::ports::PortOwner;
use crate::replicate::stack::{Connection, Options, Transmit, Way};
use crate::tables::{BackendRef, Ring, Tables};
use alloc::boxed::Box;
use core::net::{IpAddr, SocketAddr};
use lockstep_plan::BackendState;
use lockstep_plan::health::Verdict;
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6, protocol};

impl Shared {
    pub(super) fn resources<'a>(&'a mut self, group: Option<&'a mut Group>) -> Resources<'a> {
        Resources {
            pool: &mut self.pool,
            spill: &mut self.spill,
            counters: &self.counters,
            group,
        }
    }
}

impl Served {
    /// The client's address and port.
    pub(super) fn client_address(&self) -> SocketAddr {
        SocketAddr::new(self.key.source_address(), self.key.source_port())
    }

    /// The address and port it came to.
    pub(super) fn vip_address(&self) -> SocketAddr {
        SocketAddr::new(self.key.destination_address(), self.key.destination_port())
    }

    /// A timer is due: whoever it was for sends, or is given up.
    pub(super) fn wake(&mut self, now: Micros) {
        let legs = self.legs.iter_mut().flatten();
        for connection in core::iter::once(&mut self.client).chain(legs) {
            if connection.deadline().is_some_and(|at| at <= now) {
                connection.touch();
                connection.expire(now);
            }
        }
    }

    fn deadline(&self) -> Option<Micros> {
        let legs = self.legs.iter().flatten().filter_map(|leg| leg.deadline());
        legs.chain(self.client.deadline())
            .chain(self.session.next_deadline())
            .min()
    }
}

/// The backends of a service as a session sees them.
pub(super) fn candidates(ring: &Ring) -> impl Iterator<Item = Candidate> {
    ring.members.iter().map(|member| Candidate {
        backend: member.backend_ref,
        rtt: member.backend.health.rtt,
        down: member.backend.health.verdict == Verdict::Down,
        draining: member.backend.state == BackendState::Draining,
    })
}

impl Replicator {
    pub(super) fn serve(
        &mut self,
        now: Micros,
        tables: &Tables,
        place: u32,
        out: &mut impl Transmit,
    ) {
        let Some(mut served) = self.sessions[place as usize].take() else {
            return;
        };
        served.dirty = false;
        let mut actions = core::mem::take(&mut self.shared.actions);
        let group = served.group;
        let Served {
            session,
            client,
            legs,
            ..
        } = &mut *served;
        session.drive(
            now,
            client,
            legs,
            &mut self.shared.resources(self.groups.get(group)),
            &mut actions,
        );
        self.conclude(now, tables, place, served, actions, out);
    }

    /// Does what the session wants done, and puts it back unless it is over.
    pub(super) fn conclude(
        &mut self,
        now: Micros,
        tables: &Tables,
        place: u32,
        mut served: Box<Served>,
        mut actions: alloc::vec::Vec<Action>,
        out: &mut impl Transmit,
    ) {
        self.follow_group(served.group);
        let mut over = false;
        for action in actions.drain(..) {
            match action {
                Action::Connect(replica) => self.connect(now, tables, place, &mut served, replica),
                Action::Answer => served.client.answer(),
                Action::Refuse => served.client.abort(),
                Action::Release(replica) => {
                    self.release(now, tables, &mut served, replica, out);
                }
                Action::Event(kind) => self.tell(now, &served, kind),
                Action::Ended(_) => over = true,
            }
        }
        self.shared.actions = actions;
        let rest = self.send(now, tables, &mut served, out);
        if served.half_open && !served.client.is_half_open() {
            served.half_open = false;
            self.half_open -= 1;
            self.groups.settle(served.group);
        }
        if over {
            self.end(now, tables, place, served, out);
            return;
        }
        let state = served.session.state();
        if state != served.state {
            let counters = &self.shared.counters.by_state;
            counters[served.state as usize].subtract(1);
            counters[state as usize].add(1);
            served.state = state;
        }
        if let Some(due) = served.deadline() {
            self.wheel.set(place, due);
        }
        self.sessions[place as usize] = Some(served);
        if rest {
            self.mark(place);
        }
    }

    /// What a session does may let others of its group go on.
    fn follow_group(&mut self, group: Option<GroupPlace>) {
        let Some(group) = self.groups.get(group) else {
            return;
        };
        if !group.take_changed() {
            return;
        }
        let Self {
            flows,
            sessions,
            dirty,
            ..
        } = self;
        for id in group.sessions() {
            let Some(place) = flows.named(id.number) else {
                continue;
            };
            // The one that did it is not there now.
            if let Some(served) = &mut sessions[place as usize]
                && !served.dirty
            {
                served.dirty = true;
                dirty.push(place);
                self.regrouped = true;
            }
        }
    }

    fn tell(&mut self, now: Micros, served: &Served, kind: EventKind) {
        let event = Event {
            at: now,
            session: served.session.id(),
            kind,
        };
        let event = SessionEvent::of(event, served);
        if !self.shared.events.push(event) {
            self.shared.counters.events_lost.add(1);
        }
    }

    /// Sends on every connection that may have something to send. True when one has more.
    fn send(
        &mut self,
        now: Micros,
        tables: &Tables,
        served: &mut Served,
        out: &mut impl Transmit,
    ) -> bool {
        let scratch = &mut self.shared.scratch;
        let mut rest = false;
        let mut refused = 0;
        if served.client.is_dirty() {
            rest |= served.client.send(now, Some(served.way), out, scratch);
            refused += served.client.take_refused();
        }
        for (leg, ends) in served.legs.iter_mut().zip(&served.ends) {
            let (Some(leg), Some(ends)) = (leg, ends) else {
                continue;
            };
            if leg.is_dirty() {
                rest |= leg.send(now, way_to(tables, ends.backend), out, scratch);
                refused += leg.take_refused();
            }
        }
        if refused > 0 {
            self.shared.counters.unsent.add(u64::from(refused));
        }
        rest
    }

    fn connect(
        &mut self,
        now: Micros,
        tables: &Tables,
        place: u32,
        served: &mut Served,
        replica: ReplicaIndex,
    ) {
        let at = usize::from(replica);
        let count = served.session.replicas().max(at + 1);
        if served.legs.len() < count {
            served.legs.resize_with(count, || None);
            served.ends.resize(count, None);
        }
        if self
            .try_connect(now, tables, place, served, replica)
            .is_none()
        {
            self.shared.counters.unconnected.add(1);
            served.session.unconnected(now, replica);
        }
    }

    /// `None` when there is no connection, no port, no address or no way.
    fn try_connect(
        &mut self,
        now: Micros,
        tables: &Tables,
        place: u32,
        served: &mut Served,
        replica: ReplicaIndex,
    ) -> Option<()> {
        let ring = tables.ring(served.vip)?;
        let policy = ring.replicate.as_ref()?;
        let member = ring.member(served.session.backend(replica)?)?;
        let route = tables.hop(member.backend_ref)?.route.ok()?;
        let address = member.backend.address;
        let local: IpAddr = match address {
            IpAddr::V4(_) => self.config.addresses.v4?.into(),
            IpAddr::V6(_) => self.config.addresses.v6?.into(),
        };
        let port = member
            .backend
            .port
            .map_or(served.key.destination_port(), |p| p.get());
        let remote = SocketAddr::new(address, port);
        let mut connection = self.replicas.take()?;
        let owner = PortOwner {
            session: place,
            replica,
        };
        let Some(port) = self.ports.take(owner) else {
            self.replicas.put(connection);
            return None;
        };
        let local = SocketAddr::new(local, port);
        let options = Options {
            mtu: route.mtu,
            keepalive: policy.keepalive,
            patience: policy.dead_after,
            seed: self.random.next(),
        };
        if !connection.connect(now, local, remote, &options) {
            self.ports.release(port);
            self.replicas.put(connection);
            return None;
        }
        let at = usize::from(replica);
        served.legs[at] = Some(connection);
        served.ends[at] = Some(LegEnds {
            local,
            remote,
            key: flow(remote, local),
            backend: member.backend_ref,
        });
        Some(())
    }

    /// Takes a leg back, with what it still has to say (its last ACK, or RST) sent.
    fn release(
        &mut self,
        now: Micros,
        tables: &Tables,
        served: &mut Served,
        replica: ReplicaIndex,
        out: &mut impl Transmit,
    ) {
        let at = usize::from(replica);
        let leg = served.legs.get_mut(at).and_then(Option::take);
        let ends = served.ends.get_mut(at).and_then(Option::take);
        let (Some(mut leg), Some(ends)) = (leg, ends) else {
            return;
        };
        let way = way_to(tables, ends.backend);
        leg.abort();
        leg.send(now, way, out, &mut self.shared.scratch);
        self.retire(now, &leg, ends.key, way, out);
        self.ports.release(ends.local.port());
        self.replicas.put(leg);
    }

    /// A connection whose end we began is remembered for as long as its last ACK may be lost.
    fn retire(
        &mut self,
        now: Micros,
        connection: &Connection,
        key: FlowKey,
        way: Option<Way>,
        out: &mut impl Transmit,
    ) {
        if let (Some(remains), Some(way)) = (connection.remains(), way) {
            self.time_wait.insert(now, key, remains, way, out);
        }
    }

    /// Gives everything of a session back.
    fn end(
        &mut self,
        now: Micros,
        tables: &Tables,
        place: u32,
        mut served: Box<Served>,
        out: &mut impl Transmit,
    ) {
        for replica in 0..served.legs.len() {
            self.release(now, tables, &mut served, replica as ReplicaIndex, out);
        }
        served.client.abort();
        let way = served.way;
        served
            .client
            .send(now, Some(way), out, &mut self.shared.scratch);
        self.retire(now, &served.client, served.key, Some(way), out);
        if served.half_open {
            self.half_open -= 1;
            self.groups.settle(served.group);
        }
        self.wheel.clear(place);
        self.flows.remove(&served.key, served.session.id().number);
        self.shared.counters.by_vip.of(served.vip).subtract(1);
        self.shared.counters.by_state[served.state as usize].subtract(1);
        self.places.push(place);
        if let Some(group) = served.group {
            self.groups.release(group);
        }
        self.clients.put(served.client);
    }

    /// A few more sessions see the tables in force.
    pub(super) fn adopt_some(&mut self, now: Micros, tables: &Tables, out: &mut impl Transmit) {
        let Some(first) = self.adopting else {
            return;
        };
        let end = self.sessions.len().min(first as usize + super::TICK);
        for place in first..end as u32 {
            let Some(served) = &mut self.sessions[place as usize] else {
                continue;
            };
            match tables.ring(served.vip) {
                Some(ring) if ring.replicate.is_some() => {
                    served.session.update(now, candidates(ring));
                    self.mark(place);
                }
                Some(_) | None => self.remove(now, tables, place, out),
            }
        }
        self.adopting = (end < self.sessions.len()).then_some(end as u32);
    }

    /// Ends a session whose service is gone.
    fn remove(&mut self, now: Micros, tables: &Tables, place: u32, out: &mut impl Transmit) {
        let Some(mut served) = self.sessions[place as usize].take() else {
            return;
        };
        let mut actions = core::mem::take(&mut self.shared.actions);
        let group = served.group;
        let Served {
            session,
            client,
            legs,
            ..
        } = &mut *served;
        session.remove(
            now,
            client,
            legs,
            &mut self.shared.resources(self.groups.get(group)),
            &mut actions,
        );
        self.conclude(now, tables, place, served, actions, out);
    }
}

fn way_to(tables: &Tables, backend: BackendRef) -> Option<Way> {
    let route = tables.hop(backend)?.route.ok()?;
    Some(Way {
        port: route.port,
        link: route.link,
    })
}

/// The flow of TCP packets from one end to the other. Both are of one IP version.
pub(super) fn flow(from: SocketAddr, to: SocketAddr) -> FlowKey {
    let (source, destination) = (from.port(), to.port());
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            FlowKey4::new(from, source, to, destination, protocol::TCP).into()
        }
        (from, to) => {
            let (from, to) = (six(from), six(to));
            FlowKey6::new(from, source, to, destination, protocol::TCP).into()
        }
    }
}

fn six(address: IpAddr) -> core::net::Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
