//! Rules 1, 2, 3 and 11: opening, elections, switchovers.

use super::super::world::{World, millis};
use super::{complete, min_sync};
use crate::replicate::event::{EndCause, EventKind, SwitchCause};
use crate::replicate::leg::Loss;
use crate::replicate::session::{SessionState, SwitchError};
use core::time::Duration;
use lockstep_plan::Replicate;

#[test]
fn rule_1_the_client_is_answered_when_enough_have_accepted() {
    let mut world = World::new(min_sync(2), 3);
    world.drive();
    assert!(!world.answered);
    world.serve(0, 0, 0);
    world.drive();
    assert!(!world.answered);
    world.serve(2, 0, 0);
    world.drive();
    assert!(world.answered);
    assert_eq!(world.protection(), SessionState::Degraded);
    world.serve(1, 0, 0);
    world.drive();
    assert_eq!(world.protection(), SessionState::Protected);
    assert!(world.has(EventKind::Joined { replica: 1 }));
}

#[test]
fn rule_1_the_client_is_refused_when_too_few_accept_in_time() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].up = false;
    world.pass(Replicate::DEFAULT.open_timeout - Duration::from_micros(1));
    assert!(!world.refused);
    world.pass(Duration::from_micros(1));
    assert!(world.refused && !world.answered);
    assert_eq!(world.ended, Some(EndCause::OpenFailed));
}

#[test]
fn rule_1_a_replica_that_comes_up_while_the_client_waits_is_used() {
    let mut world = World::new(min_sync(2), 2);
    world.servers[1].up = false;
    world.pass(millis(700));
    world.servers[1].up = true;
    world.pass(millis(600));
    assert!(world.answered);
}

#[test]
fn rule_1_every_replica_gets_all_input_then_the_end() {
    let mut world = World::opened(min_sync(3), 3);
    world.say(b"hello.world.");
    complete(&world);
    world.ends = true;
    world.settle();
    for server in &world.servers {
        assert_eq!(server.read, b"hello.world.");
        assert!(server.saw_end);
    }
    assert_eq!(world.ended, Some(EndCause::Closed));
    complete(&world);
}

#[test]
fn rule_2_the_first_primary_has_the_shortest_round_trip() {
    let mut world = World::new(min_sync(3), 3);
    world.rtts = [30, 10, 20].map(|ms| Some(millis(ms))).to_vec();
    world.update();
    world.settle();
    assert!(world.has(EventKind::Opened { primary: 1 }));
}

#[test]
fn rule_2_who_is_furthest_ahead_follows_a_lost_primary() {
    let mut world = World::opened(min_sync(3), 3);
    world.client.outbox_room = 100;
    world.sending.extend(b"Z");
    world.drive();
    world.client_sends(usize::MAX);
    world.drive();
    // The client takes nothing; the second replica has said less than the third.
    world.serve(1, 9, 200);
    world.serve(2, 9, 300);
    world.drive();
    world.kill(0);
    world.drive();
    let cause = SwitchCause::Lost(Loss::Reset);
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 2,
        cause
    }));
    world.settle();
    complete(&world);
}

#[test]
fn rule_3_a_new_primary_that_is_behind_is_waited_for_and_checked() {
    let mut world = World::opened(min_sync(2), 2);
    world.servers[1].frozen = true;
    world.say(b"Zebra.Z");
    assert_eq!(world.received.len(), world.expected().len());
    world.kill(0);
    world.settle();
    assert_eq!(world.primary(), Some(1));
    let before = world.received.len();
    world.say(b"abc");
    assert_eq!(world.received.len(), before);
    world.servers[1].frozen = false;
    world.settle();
    complete(&world);
    assert!(
        !world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Diverged { .. }))
    );
    assert!(
        world
            .events
            .iter()
            .any(|e| matches!(e, EventKind::Resumed { .. }))
    );
}

#[test]
fn rule_11_a_header_stands_before_the_input() {
    let mut world = World::with_prefix(min_sync(2), 2, b"PROXY.");
    world.settle();
    world.say(b"abc");
    for server in &world.servers {
        assert_eq!(server.read, b"PROXY.abc");
    }
}

#[test]
fn a_switchover_is_made_when_asked_for() {
    let mut world = World::opened(min_sync(1), 2);
    assert_eq!(
        world.session.switch_to(world.now, 0),
        Err(SwitchError::AlreadyPrimary)
    );
    assert_eq!(
        world.session.switch_to(world.now, 7),
        Err(SwitchError::NoSuchReplica)
    );
    world.session.switch_to(world.now, 1).unwrap();
    world.settle();
    let cause = SwitchCause::Asked;
    assert!(world.has(EventKind::Switched {
        from: 0,
        to: 1,
        cause
    }));
    world.kill(0);
    world.settle();
    assert_eq!(
        world.session.switch_to(world.now, 0),
        Err(SwitchError::NotInSync)
    );
}
