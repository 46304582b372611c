//! Rule 9 over several connections of one client: a control connection, and one for data.

use super::world::{World, millis, policy};
use crate::replicate::event::{EventKind, EvictCause};
use crate::replicate::group::{Group, MAX_MEMBERS};
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::session::ReplicaState;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;
use lockstep_plan::{Grouping, Replicate};

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
        let mut world = World::new(self.policy.clone(), self.servers);
        world.group = Some(Rc::clone(&self.group));
        if let Some(first) = self.worlds.first() {
            world.now = first.now;
            // A process serves all its connections, or none.
            for (server, other) in world.servers.iter_mut().zip(&first.servers) {
                (server.up, server.frozen) = (other.up, other.frozen);
            }
        }
        self.worlds.push(world);
        self.settle();
        self.worlds.len() - 1
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
        for world in &self.worlds {
            assert_eq!(world.received.len(), world.expected().len());
            assert!(world.expected().iter().eq(&world.received));
        }
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
    client.worlds[data].reset(0);
    client.settle();
    let cause = EvictCause::Lost(Loss::Reset);
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
