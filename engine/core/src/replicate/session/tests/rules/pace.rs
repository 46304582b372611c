//! Rules 5, 6 and 9: slow replicas, those ahead, and the order of causes.

use super::super::world::{World, millis, policy};
use super::{complete, min_sync, small_log};
use crate::replicate::event::{EventKind, EvictCause, SwitchCause};
use crate::replicate::session::ReplicaState;
use core::num::NonZeroU8;
use core::time::Duration;
use lockstep_plan::Replicate;

#[test]
fn rule_5_a_frozen_replica_costs_grace_then_lags_then_is_cut_off() {
    let mut world = World::opened(small_log(|_| {}), 2);
    world.servers[1].frozen = true;
    let at = world.now;
    world.sending.extend([b'.'; 200_000]);
    world.settle();
    assert!(!world.sending.is_empty(), "the client waits");
    world.pass(Replicate::DEFAULT.grace);
    assert!(world.has(EventKind::Lagging { replica: 1 }));
    assert_eq!(world.now, at + Replicate::DEFAULT.grace);
    world.pass(millis(50));
    assert!(world.sending.is_empty(), "and goes on");
    assert!(world.has(EventKind::LogCut));
    let cause = EvictCause::LogCut;
    assert!(world.has(EventKind::Evicted { replica: 1, cause }));
    assert!(world.session.report().memory <= 64 << 10);
    complete(&world);
}

#[test]
fn rule_5_a_lagging_primary_is_replaced() {
    let mut world = World::opened(small_log(|_| {}), 2);
    world.servers[0].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(millis(300));
    let cause = SwitchCause::Lagging;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    complete(&world);
}

#[test]
fn rule_5_a_lagging_replica_that_catches_up_is_in_sync_again() {
    let mut world = World::opened(policy(|p| p.max_lag = 10_000), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(millis(300));
    assert_eq!(world.state(1), ReplicaState::Lagging);
    world.servers[1].frozen = false;
    world.settle();
    assert_eq!(world.state(1), ReplicaState::InSync);
    assert_eq!(world.servers[1].read, world.sent);
    world.kill(0);
    world.say(b"abcZ");
    complete(&world);
}

#[test]
fn rule_5_a_replica_that_stays_behind_is_evicted() {
    let mut world = World::opened(policy(|p| p.max_lag = 10_000), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 100_000]);
    world.pass(Replicate::DEFAULT.lag_timeout + millis(300));
    let cause = EvictCause::Lagging;
    assert!(world.has(EventKind::Evicted { replica: 1, cause }));
}

#[test]
fn rule_5_replicas_that_are_needed_hold_the_client_up() {
    let mut world = World::opened(small_log(|p| p.min_sync = NonZeroU8::new(2).unwrap()), 2);
    world.servers[1].frozen = true;
    world.sending.extend([b'.'; 300_000]);
    world.pass(Duration::from_secs(5));
    assert!(!world.sending.is_empty());
    assert!(world.session.report().memory <= 64 << 10);
    assert_eq!(world.state(1), ReplicaState::InSync);
    world.servers[1].frozen = false;
    world.pass(millis(100));
    assert!(world.sending.is_empty());
    assert_eq!(world.servers[1].read, world.sent);
}

#[test]
fn rule_5_all_of_them_slow_means_a_slow_service_not_a_slow_replica() {
    let mut world = World::opened(small_log(|_| {}), 3);
    world.sending.extend([b'.'; 200_000]);
    for _ in 0..400 {
        for index in 0..3 {
            world.serve(index, 500, 9000);
        }
        world.client_sends(20_000);
        world.drive();
        world.now = world.now + millis(3);
    }
    assert!(
        !world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Lagging { .. }))
    );
    world.pass(millis(300));
    complete(&world);
}

#[test]
fn rule_6_a_replica_that_is_ahead_is_not_read() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[0].frozen = true;
    world.sending.extend(b"ZZZZZZZZ");
    world.drive();
    world.client_sends(99);
    world.drive();
    world.serve(1, 99, usize::MAX);
    world.drive();
    let leg = world.legs[1].as_ref().unwrap();
    assert_eq!(leg.inbox.len(), world.replica_rooms.0);
}

#[test]
fn rule_9_input_waits_for_the_output_that_caused_it() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[1].frozen = true;
    world.say(b"abc");
    // The client has read the answer to that, and asks on.
    world.say(b"def");
    assert_eq!(world.servers[0].read, b"abcdef");
    let leg = world.legs[1].as_ref().unwrap();
    assert_eq!(leg.outbox, b"abc");
    world.servers[1].frozen = false;
    world.settle();
    assert_eq!(world.servers[1].read, b"abcdef");
}
