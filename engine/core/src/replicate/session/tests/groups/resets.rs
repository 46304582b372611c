//! A reset of one connection of several: a death, or the server's decision about that connection.

use super::super::world::millis;
use super::Client;
use crate::replicate::event::{EndCause, EventKind, EvictCause, SwitchCause};
use crate::replicate::leg::{Loss, Phase};
use crate::replicate::session::ReplicaState;
use core::time::Duration;
use lockstep_plan::Replicate;

fn grace() -> Duration {
    Replicate::DEFAULT.fin_timeout
}

/// A control connection and one for data, both used. The servers end neither by themselves.
fn talking(servers: usize) -> (Client, usize, usize) {
    let mut client = Client::new(servers);
    let control = client.connect();
    let data = client.connect();
    client.say(control, b"open data");
    client.say(data, b"bytes");
    (client, control, data)
}

impl Client {
    fn resets(&mut self, connection: usize, server: usize) {
        self.worlds[connection].reset(server);
        self.settle();
    }

    fn in_sync(&self, connection: usize) -> usize {
        let states = (0..self.servers).map(|s| self.worlds[connection].state(s));
        states.filter(|s| *s == ReplicaState::InSync).count()
    }

    /// The servers have ended a connection, the others go on.
    fn has_lost_only(&mut self, data: usize, control: usize) {
        let world = &self.worlds[data];
        assert_eq!(world.ended, Some(EndCause::ServersReset));
        assert!(world.client.aborted && !world.client.finished);
        assert!(!world.has(EventKind::Orphaned));
        assert_eq!(self.in_sync(control), self.servers);
        self.say(control, b"how was it?");
        self.worlds[control].ends = true;
        self.settle();
        self.complete();
        assert_eq!(self.worlds[control].ended, Some(EndCause::Closed));
    }
}

#[test]
fn one_replica_may_reset_one_of_its_connections() {
    let (mut client, control, data) = talking(1);
    client.resets(data, 0);
    client.say(control, b"still there?");
    client.complete();
    client.pass(grace() - millis(10));
    assert_eq!(client.worlds[data].ended, None);
    assert!(client.worlds[data].legs[0].is_none(), "it was begun anew");
    client.pass(millis(10));
    client.has_lost_only(data, control);
}

#[test]
fn all_replicas_may_reset_one_of_their_connections() {
    let (mut client, control, data) = talking(3);
    for server in [1, 0, 2] {
        client.resets(data, server);
        client.pass(grace() / 2 - millis(10));
    }
    assert_eq!(client.worlds[data].ended, None);
    client.say(control, b"still there?");
    client.pass(grace());
    client.has_lost_only(data, control);
}

#[test]
fn several_connections_may_be_reset_while_one_lives() {
    let (mut client, control, data) = talking(2);
    let more = client.connect();
    for connection in [data, more] {
        client.resets(connection, 0);
        client.resets(connection, 1);
    }
    client.pass(grace());
    assert_eq!(client.worlds[more].ended, Some(EndCause::ServersReset));
    client.has_lost_only(data, control);
}

#[test]
fn one_of_three_that_resets_is_out_of_step_after_a_while() {
    let (mut client, control, data) = talking(3);
    assert_eq!(client.worlds[control].primary(), Some(0));
    client.resets(data, 0);
    let cause = EvictCause::Lost(Loss::Reset);
    assert!(client.worlds[data].has(EventKind::Evicted { replica: 0, cause }));
    // It is in doubt: another one speaks.
    let cause = SwitchCause::Group;
    let (from, to) = (0, 1);
    assert!(client.worlds[control].has(EventKind::Switched { from, to, cause }));
    assert_eq!(client.in_sync(control), 3);
    client.pass(grace() - millis(10));
    assert_eq!(client.in_sync(control), 3);
    assert!(client.worlds[data].legs[0].is_none(), "it was begun anew");
    client.pass(millis(10));
    let cause = EvictCause::Group;
    assert!(client.worlds[control].has(EventKind::Evicted { replica: 0, cause }));
    // It comes back by a replay of both.
    client.pass(Duration::from_secs(2));
    assert_eq!((client.in_sync(control), client.in_sync(data)), (3, 3));
    client.say(data, b"more");
    client.say(control, b"more");
    client.complete();
}

#[test]
fn a_replica_in_doubt_is_not_asked_for_what_it_does_not_cover() {
    let (mut client, control, data) = talking(2);
    client.worlds[data].servers[0].frozen = true;
    client.say(data, b"say more");
    client.resets(data, 0);
    let before = client.worlds[control].servers[0].read.len();
    client.say(control, b"what was that?");
    client.complete();
    let leg = client.worlds[control].legs[0].as_ref().unwrap();
    assert!(leg.outbox.is_empty());
    assert_eq!(client.worlds[control].servers[0].read.len(), before);
    client.pass(grace());
    let cause = EvictCause::Group;
    assert!(client.worlds[control].has(EventKind::Evicted { replica: 0, cause }));
}

#[test]
fn one_that_is_still_to_come_may_go_on() {
    let mut client = Client::new(2);
    let control = client.connect();
    client.freeze(1, true);
    client.say(control, b"open data");
    let data = client.connect();
    client.say(data, b"bytes");
    client.resets(data, 0);
    client.pass(grace() * 2);
    assert_eq!(client.worlds[data].ended, None);
    client.freeze(1, false);
    client.pass(millis(10));
    client.say(data, b"more");
    client.say(control, b"more");
    client.complete();
    assert!(!client.worlds[data].client.aborted);
    let cause = EvictCause::Group;
    assert!(client.worlds[control].has(EventKind::Evicted { replica: 0, cause }));
}

#[test]
fn what_was_sent_before_a_reset_is_read_first() {
    let (mut client, control, data) = talking(1);
    let world = &mut client.worlds[data];
    world.sending.extend(b"xyz");
    world.client_sends(3);
    world.drive();
    world.serve(0, usize::MAX, usize::MAX);
    world.reset(0);
    client.settle();
    client.say(control, b"and now?");
    client.complete();
    client.pass(grace());
    client.has_lost_only(data, control);
}

#[test]
fn a_process_that_dies_resets_all_and_comes_back_to_all() {
    for servers in [1, 2] {
        let (mut client, control, data) = talking(servers);
        for connection in [data, control] {
            for server in 0..servers {
                client.worlds[connection].servers[server].up = false;
                client.resets(connection, server);
            }
        }
        client.pass(grace() * 2);
        for connection in [data, control] {
            assert_eq!(client.worlds[connection].ended, None);
            assert!(client.worlds[connection].has(EventKind::Orphaned));
        }
        client.say(control, b"anybody?");
        client.start(0);
        client.pass(Duration::from_secs(9));
        client.say(data, b"more");
        client.complete();
        assert_eq!(client.in_sync(data), 1);
    }
}

#[test]
fn a_reset_and_fins_on_all_others_are_a_death() {
    for reset_first in [true, false] {
        let (mut client, control, data) = talking(2);
        if reset_first {
            client.resets(data, 0);
        }
        client.worlds[control].hang_up(0);
        client.settle();
        client.resets(data, 0);
        client.pass(millis(10));
        assert!(matches!(
            client.worlds[control].state(0),
            ReplicaState::Evicted(_)
        ));
        assert!(!client.worlds[control].client.finished);
        client.say(control, b"still there?");
        client.say(data, b"and here?");
        client.complete();
    }
}

#[test]
fn who_resets_where_others_send_fins_has_only_closed_it_too() {
    let (mut client, control, data) = talking(3);
    client.resets(data, 2);
    for server in 0..2 {
        client.worlds[data].servers[server].running.ends_at = Some(0);
    }
    client.settle();
    assert!(client.worlds[data].client.finished);
    client.pass(grace() * 2);
    assert_eq!(client.in_sync(control), 3);
    client.say(control, b"how was it?");
    client.worlds[data].ends = true;
    client.settle();
    assert_eq!(client.worlds[data].ended, Some(EndCause::Closed));
    client.complete();
}

#[test]
fn a_connection_that_its_client_has_ended_is_over_when_it_is_reset() {
    let (mut client, control, data) = talking(3);
    for server in &mut client.worlds[data].servers {
        server.running.follows = false;
    }
    client.worlds[data].ends = true;
    client.settle();
    for server in 0..3 {
        client.resets(data, server);
    }
    assert_eq!(client.in_sync(control), 3);
    client.pass(grace());
    client.has_lost_only(data, control);
}

#[test]
fn what_the_servers_have_said_arrives_before_the_reset() {
    let (mut client, control, data) = talking(2);
    let world = &mut client.worlds[data];
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(1);
    world.drive();
    for server in 0..2 {
        world.serve(server, usize::MAX, usize::MAX);
    }
    world.drive();
    world.reset(0);
    world.reset(1);
    world.drive();
    for _ in 0..grace().as_millis() / 10 {
        client
            .worlds
            .iter_mut()
            .for_each(|w| w.now = w.now + millis(10));
        client.drive();
    }
    assert!(!client.worlds[data].client.outbox.is_empty());
    assert_eq!(client.worlds[data].ended, None);
    assert_ne!(client.worlds[data].client.phase, Phase::Lost(Loss::Aborted));
    client.settle();
    client.has_lost_only(data, control);
    let world = &client.worlds[data];
    assert_eq!(world.received.len(), world.expected().len());
}
