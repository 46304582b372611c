//! Rule 9 over several connections of one client: a control connection, and one for data.

mod resets;

use super::world::{World, millis, policy};
use crate::Micros;
use crate::replicate::event::{EventKind, EvictCause};
use crate::replicate::group::{Group, MAX_MEMBERS};
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::session::ReplicaState;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;
use lockstep_plan::{Grouping, Replicate};
use proptest::prelude::*;

/// The connections of one client, in the order in which it opened them.
struct Client {
    group: Rc<RefCell<Group>>,
    policy: Replicate,
    servers: usize,
    worlds: Vec<World>,
}

impl Client {
    fn new(servers: usize) -> Self {
        Client {
            group: Rc::default(),
            policy: policy(|p| p.group = Grouping::Client),
            servers,
            worlds: Vec::new(),
        }
    }

    fn connect(&mut self) -> usize {
        self.open();
        self.settle();
        self.worlds.len() - 1
    }

    fn open(&mut self) {
        let now = self
            .worlds
            .first()
            .map_or(Micros::new(1_000_000), |w| w.now);
        let mut world = World::begun(now, self.policy.clone(), self.servers, &[]);
        world.group = Some(Rc::clone(&self.group));
        if let Some(first) = self.worlds.first() {
            // A process serves all its connections, or none.
            for (server, other) in world.servers.iter_mut().zip(&first.servers) {
                (server.up, server.frozen) = (other.up, other.frozen);
            }
        }
        self.worlds.push(world);
    }

    /// Everybody is driven, and again when it concerns others.
    fn drive(&mut self) {
        loop {
            for world in self.worlds.iter_mut().filter(|w| w.ended.is_none()) {
                world.drive();
            }
            if !self.group.borrow_mut().take_changed() {
                return;
            }
        }
    }

    /// As the worker does: whoever may be concerned by a change is driven.
    fn settle(&mut self) {
        loop {
            self.worlds.iter_mut().for_each(World::settle);
            if !self.group.borrow_mut().take_changed() {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 10 {
            self.worlds.iter_mut().for_each(|w| w.pass(millis(10)));
            self.settle();
        }
    }

    fn say(&mut self, connection: usize, bytes: &[u8]) {
        self.worlds[connection].say(bytes);
        self.settle();
    }

    fn freeze(&mut self, server: usize, frozen: bool) {
        for world in &mut self.worlds {
            world.servers[server].frozen = frozen;
        }
    }

    fn kill(&mut self, server: usize) {
        self.worlds.iter_mut().for_each(|w| w.kill(server));
        self.settle();
    }

    fn start(&mut self, server: usize) {
        for world in &mut self.worlds {
            world.servers[server].up = true;
        }
    }

    fn complete(&self) {
        self.worlds.iter().for_each(World::complete);
    }
}

#[test]
fn a_slow_replica_is_not_connected_to_before_it_has_said_what_the_client_heard() {
    let mut client = Client::new(2);
    let control = client.connect();
    client.freeze(1, true);
    client.say(control, b"open data");
    let data = client.connect();
    assert!(client.worlds[data].answered);
    assert!(client.worlds[data].legs[0].is_some());
    assert!(client.worlds[data].legs[1].is_none());
    client.say(data, b"bytes");
    client.complete();
    client.freeze(1, false);
    client.settle();
    assert_eq!(client.worlds[data].servers[1].read, b"bytes");
    assert_eq!(client.worlds[data].state(1), ReplicaState::InSync);
    client.kill(0);
    client.say(data, b"more");
    client.say(control, b"done");
    client.complete();
}

#[test]
fn input_waits_for_what_was_said_on_another_connection() {
    let mut client = Client::new(2);
    let control = client.connect();
    let data = client.connect();
    client.freeze(1, true);
    client.say(control, b"how much?");
    client.say(data, b"this much");
    assert_eq!(client.worlds[data].servers[0].read, b"this much");
    let leg = client.worlds[data].legs[1].as_ref().unwrap();
    assert!(leg.outbox.is_empty());
    // Only the control connection of the second server moves.
    client.worlds[control].servers[1].frozen = false;
    client.settle();
    let leg = client.worlds[data].legs[1].as_ref().unwrap();
    assert_eq!(leg.outbox, b"this much");
    client.freeze(1, false);
    client.settle();
    assert_eq!(client.worlds[data].servers[1].read, b"this much");
}

#[test]
fn the_end_of_a_connection_waits_too() {
    let mut client = Client::new(2);
    let control = client.connect();
    let data = client.connect();
    client.freeze(1, true);
    client.say(control, b"that is all");
    client.worlds[data].ends = true;
    client.settle();
    let leg = client.worlds[data].legs[1].as_ref().unwrap();
    assert!(!leg.finished);
    client.freeze(1, false);
    client.settle();
    assert!(client.worlds[data].servers[1].saw_end);
}

#[test]
fn a_replica_lost_on_one_connection_is_lost_on_all() {
    let mut client = Client::new(3);
    let control = client.connect();
    let data = client.connect();
    client.say(control, b"abc");
    client.worlds[data].servers[0].up = false;
    if let Some(leg) = &mut client.worlds[data].legs[0] {
        leg.phase = Phase::Lost(Loss::TimedOut);
    }
    client.settle();
    let cause = EvictCause::Lost(Loss::TimedOut);
    assert!(client.worlds[data].has(EventKind::Evicted { replica: 0, cause }));
    let cause = EvictCause::Group;
    assert!(client.worlds[control].has(EventKind::Evicted { replica: 0, cause }));
    client.say(control, b"def");
    client.say(data, b"def");
    client.complete();
}

#[test]
fn the_end_of_one_connection_by_reset_leaves_the_others_alone() {
    let mut client = Client::new(2);
    let control = client.connect();
    let data = client.connect();
    for server in &mut client.worlds[data].servers {
        server.running.follows = false;
    }
    client.say(data, b"abc");
    client.worlds[data].ends = true;
    client.settle();
    client.worlds[data].reset(0);
    client.worlds[data].reset(1);
    client.settle();
    assert_eq!(client.worlds[control].state(0), ReplicaState::InSync);
    assert_eq!(client.worlds[control].state(1), ReplicaState::InSync);
}

#[test]
fn a_replica_comes_back_to_all_connections_in_their_order() {
    let mut client = Client::new(2);
    let control = client.connect();
    client.say(control, b"open data");
    let data = client.connect();
    client.say(data, b"bytes.Z");
    client.say(control, b"check");
    client.kill(1);
    client.say(data, b"and more");
    client.start(1);
    client.worlds[control].servers[1].frozen = true;
    client.pass(Duration::from_secs(3));
    // It has not said on control what it was asked there: data has to wait.
    assert!(client.worlds[data].legs[1].is_none());
    assert_ne!(client.worlds[data].state(1), ReplicaState::InSync);
    client.worlds[control].servers[1].frozen = false;
    client.pass(Duration::from_secs(9));
    for world in &client.worlds {
        assert_eq!(world.state(1), ReplicaState::InSync);
        assert_eq!(world.servers[1].read, world.sent);
    }
    client.kill(0);
    client.say(control, b"done");
    client.complete();
}

#[test]
fn nobody_comes_back_once_a_connection_has_closed() {
    let mut client = Client::new(2);
    let control = client.connect();
    let data = client.connect();
    client.worlds[data].ends = true;
    client.settle();
    assert_eq!(client.worlds[data].client.phase, Phase::Closed);
    client.kill(1);
    client.start(1);
    client.pass(Duration::from_secs(2));
    assert!(matches!(
        client.worlds[control].state(1),
        ReplicaState::Evicted(_)
    ));
    client.say(control, b"go on");
    // Nor to connections to come: it does not know what those before were about.
    let next = client.connect();
    client.say(next, b"abc");
    client.pass(Duration::from_secs(2));
    assert!(client.worlds[next].legs[1].is_none());
    client.complete();
}

#[test]
fn a_group_has_bounds() {
    let mut client = Client::new(1);
    for _ in 0..MAX_MEMBERS {
        let connection = client.connect();
        assert!(client.worlds[connection].answered);
    }
    assert!(client.group.borrow().is_full());
    let connection = client.connect();
    assert!(client.worlds[connection].refused);
    // With one less there is room again.
    client.worlds[7].ends = true;
    client.settle();
    let connection = client.connect();
    assert!(client.worlds[connection].answered);
    assert_eq!(client.group.borrow().sessions().count(), MAX_MEMBERS);
    client.worlds.iter_mut().for_each(|w| w.ends = true);
    client.settle();
    assert!(client.group.borrow().is_empty());
}

#[test]
fn a_history_that_grows_too_long_is_forgotten_and_those_behind_are_evicted() {
    let mut client = Client::new(2);
    let control = client.connect();
    let data = client.connect();
    client.freeze(1, true);
    for _ in 0..10_000 {
        client.worlds[control].say(b"a");
        client.worlds[data].say(b"a");
    }
    client.settle();
    let cause = EvictCause::Group;
    assert!(client.worlds[control].has(EventKind::Evicted { replica: 1, cause }));
    assert!(client.worlds[data].has(EventKind::Evicted { replica: 1, cause }));
    client.complete();
}

/// What happens next. Connections and servers are numbered modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    Connect,
    Say(usize, Vec<u8>),
    Serve(usize, usize, usize, usize),
    Client(usize, usize, usize),
    Settle,
    Freeze(usize, bool),
    Kill(usize),
    Start(usize),
    Pass(u64),
    End(usize),
    /// A server resets a connection, and may listen on.
    Reset(usize, usize),
    /// All servers do, whenever they get to it.
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let some = prop_oneof![Just(1usize), 2usize..50, Just(usize::MAX)];
    let letters = prop::collection::vec(prop::sample::select(&b"abcZ.."[..]), 1..8);
    let who = 0usize..6;
    prop_oneof![
        2 => Just(Step::Connect),
        6 => (who.clone(), letters).prop_map(|(c, b)| Step::Say(c, b)),
        12 => (who.clone(), who.clone(), some.clone(), some.clone())
            .prop_map(|(c, s, t, g)| Step::Serve(c, s, t, g)),
        12 => (who.clone(), some.clone(), some).prop_map(|(c, t, g)| Step::Client(c, t, g)),
        1 => Just(Step::Settle),
        3 => (who.clone(), any::<bool>()).prop_map(|(s, f)| Step::Freeze(s, f)),
        1 => who.clone().prop_map(Step::Kill),
        2 => who.clone().prop_map(Step::Start),
        2 => prop_oneof![1u64..3, 20u64..70].prop_map(|tens| Step::Pass(tens * 10)),
        1 => who.clone().prop_map(Step::End),
        1 => (who.clone(), who.clone()).prop_map(|(c, s)| Step::Reset(c, s)),
        1 => who.prop_map(Step::Cut),
    ]
}

/// A client, and what it had read on all connections when it sent each byte on each.
struct Run {
    client: Client,
    had: Vec<Vec<Vec<usize>>>,
    /// Connections that all servers reset: never the first, nor any without it.
    cut: Vec<usize>,
}

impl Run {
    fn take(&mut self, step: Step) {
        let count = self.client.worlds.len().max(1);
        let servers = self.client.servers;
        if self.client.worlds.is_empty() && !matches!(step, Step::Connect) {
            return;
        }
        match step {
            Step::Connect if self.client.worlds.len() < 4 => {
                self.client.open();
                self.had.push(Vec::new());
            }
            Step::Connect => {}
            Step::Say(c, bytes) if !self.client.worlds[c % count].ends => {
                self.client.worlds[c % count].sending.extend(bytes);
            }
            Step::Say(..) => {}
            Step::Serve(c, s, take, give) => {
                self.client.worlds[c % count].serve(s % servers, take, give);
            }
            Step::Client(c, take, give) => {
                self.client.worlds[c % count].client_sends(take);
                self.note();
                self.client.worlds[c % count].client_reads(give);
            }
            Step::Settle => self.settle(),
            Step::Freeze(s, frozen) => self.client.freeze(s % servers, frozen),
            Step::Kill(s) if s % servers > 0 => {
                self.client
                    .worlds
                    .iter_mut()
                    .for_each(|w| w.kill(s % servers));
            }
            Step::Kill(_) => {}
            Step::Start(s) => self.client.start(s % servers),
            Step::Pass(ms) => self.pass(millis(ms)),
            Step::End(c) if c % count > 0 || self.cut.is_empty() => {
                self.client.worlds[c % count].ends = true;
            }
            Step::End(_) => {}
            Step::Reset(c, s) if s % servers > 0 => {
                self.client.worlds[c % count].reset(s % servers);
            }
            Step::Reset(..) => {}
            Step::Cut(c) if c % count > 0 && self.has_control() => self.cut.push(c % count),
            Step::Cut(_) => {}
        }
        self.drive();
        self.check();
    }

    /// Whether the first connection lives on the server that never dies.
    fn has_control(&self) -> bool {
        let control = &self.client.worlds[0];
        control.answered && !control.ends && control.state(0) == ReplicaState::InSync
    }

    fn drive(&mut self) {
        for cut in &self.cut {
            let legs = self.client.worlds[*cut].legs.iter_mut().flatten();
            for leg in legs.filter(|leg| leg.phase == Phase::Open) {
                leg.phase = Phase::Lost(Loss::Reset);
            }
        }
        self.client.drive();
    }

    /// What was sent just now, was sent by a client that had read what it has.
    fn note(&mut self) {
        let read: Vec<_> = self
            .client
            .worlds
            .iter()
            .map(|w| w.received.len())
            .collect();
        for (had, world) in self.had.iter_mut().zip(&self.client.worlds) {
            had.resize(world.sent.len(), read.clone());
        }
    }

    /// Rounds, each of which is checked, until nothing changes any more.
    fn settle(&mut self) {
        let mut before = None;
        loop {
            self.drive();
            self.check();
            let all: Vec<_> = self.client.worlds.iter().map(World::fingerprint).collect();
            if before.as_ref() == Some(&all) {
                return;
            }
            before = Some(all);
            for index in 0..self.client.worlds.len() {
                self.client.worlds[index].client_sends(usize::MAX);
                self.note();
                for server in 0..self.client.servers {
                    self.client.worlds[index].serve(server, usize::MAX, usize::MAX);
                }
                self.client.worlds[index].client_reads(usize::MAX);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let step = if time < Duration::from_secs(1) {
            10
        } else {
            50
        };
        for _ in 0..time.as_millis() / u128::from(step) {
            for world in &mut self.client.worlds {
                world.now = world.now + millis(step);
            }
            self.settle();
        }
    }

    fn check(&self) {
        let worlds = &self.client.worlds;
        for (had, world) in self.had.iter().zip(worlds) {
            let given = world.received.iter().chain(&world.client.outbox);
            assert!(given.zip(world.expected()).all(|(a, b)| a == b));
            for (server, leg) in world.legs.iter().take(self.client.servers).enumerate() {
                let Some(leg) = leg else { continue };
                let read = &world.servers[server].read;
                let count = read.len() + leg.outbox.len();
                if leg.phase != Phase::Open || count == 0 {
                    continue;
                }
                assert!(read.iter().chain(&leg.outbox).eq(&world.sent[..count]));
                for (other, seen) in worlds.iter().zip(&had[count - 1]) {
                    let here = other.legs[server].as_ref();
                    let open = here.is_some_and(|leg| leg.phase == Phase::Open);
                    // What it has said on a connection that it then reset, it has said.
                    let lost = ReplicaState::Evicted(EvictCause::Lost(Loss::Reset));
                    let said = if open || other.state(server) == lost {
                        other.servers[server].said
                    } else {
                        0
                    };
                    let over =
                        other.ended.is_some() || here.is_some_and(|l| l.phase == Phase::Closed);
                    assert!(
                        over || *seen as u64 <= said,
                        "asked before it has said {seen}"
                    );
                }
            }
        }
    }

    /// Whether the client of a connection has not been told of its end.
    fn waits(&self, index: usize) -> bool {
        let world = &self.client.worlds[index];
        world.ended.is_none() && !world.client.finished
    }

    fn end(mut self) {
        for server in 0..self.client.servers {
            self.client.freeze(server, false);
        }
        self.settle();
        // One may wait for the other: what was said on it tells whether a replica covers more.
        for _ in 0..=self.cut.len() * 2 {
            self.pass(Replicate::DEFAULT.fin_timeout);
        }
        // So does one without a replica in sync, for those that try to join.
        for _ in 0..=self.cut.len() {
            if self.cut.iter().any(|&index| self.waits(index)) {
                self.pass(Replicate::DEFAULT.orphan_timeout);
            }
        }
        for (index, world) in self.client.worlds.iter().enumerate() {
            if self.cut.contains(&index) {
                assert!(!self.waits(index), "it waits");
            } else {
                world.complete();
            }
        }
        assert!(self.cut.is_empty() || self.has_control());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_causes_holds_over_any_schedule(
        servers in 1usize..4,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let client = Client::new(servers);
        let mut run = Run { client, had: Vec::new(), cut: Vec::new() };
        for step in steps {
            run.take(step);
        }
        run.end();
    }
}

#[test]
fn a_connection_that_its_servers_reset_is_over_when_nobody_has_joined_it() {
    let client = Client::new(2);
    let (had, cut) = (Vec::new(), Vec::new());
    let mut run = Run { client, had, cut };
    for step in [
        Step::Connect,
        Step::Reset(0, 1),
        Step::Serve(0, 2, 1, 1),
        Step::Connect,
        Step::Connect,
        Step::End(2),
        Step::Pass(10),
        Step::Cut(1),
    ] {
        run.take(step);
    }
    run.end();
}

#[test]
fn who_accepts_late_is_not_left_behind_when_a_connection_has_closed() {
    let mut client = Client::new(2);
    let first = client.connect();
    client.worlds[first].ends = true;
    client.settle();
    assert_eq!(client.worlds[first].client.phase, Phase::Closed);
    // On the second connection one replica answers before the other has accepted.
    client.freeze(1, true);
    let second = client.connect();
    client.worlds[second].servers[1].frozen = true;
    client.say(second, b"abc");
    let third = client.connect();
    client.say(third, b"abc");
    client.freeze(1, false);
    client.settle();
    assert_eq!(client.worlds[second].state(1), ReplicaState::InSync);
    assert_eq!(client.worlds[third].state(1), ReplicaState::InSync);
    client.kill(0);
    client.say(second, b"def");
    client.say(third, b"def");
    client.complete();
}
