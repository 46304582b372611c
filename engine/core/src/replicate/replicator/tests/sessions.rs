use super::world::*;
use crate::replicate::event::{EndCause, EventKind};
use lockstep_plan::Replicate;
use smoltcp::socket::tcp::State;
use std::vec::Vec;

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n ^ n >> 8) as u8).collect()
}

#[test]
fn one_client_is_answered_by_three_replicas_as_by_one() {
    let mut world = World::default();
    let socket = world.connect(4_000);
    world.until(50, "open", |w| w.is_open(socket));
    assert_eq!(world.replicator.len(), 1);
    world.exchange(socket, b"hello", 50);
    world.exchange(socket, &bytes(300_000), 5_000);
    for server in &world.servers {
        assert_eq!(server.accepted, 1);
    }
    world.clients[0].get(socket).close();
    world.until(100, "closed", |w| w.state(socket) == State::TimeWait);
    world.until(2_000, "gone", |w| w.replicator.is_empty());
    assert!(world.events.contains(&EventKind::Ended(EndCause::Closed)));
    assert_eq!(world.drops, Default::default());
    world.assert_whole();
}

#[test]
fn the_wire_may_lose_repeat_and_reorder() {
    for seed in 0..6 {
        let policy = Replicate {
            dead_after: core::time::Duration::from_secs(60),
            stall_timeout: core::time::Duration::from_secs(60),
            open_timeout: core::time::Duration::from_secs(60),
            ..Replicate::DEFAULT
        };
        let mut world = World::new(config(), policy);
        world.dice = Dice(seed);
        world.weather = Weather {
            lost: 20,
            repeated: 20,
            delayed: 100,
        };
        let socket = world.connect(4_000);
        world.until(60_000, "open", |w| w.is_open(socket));
        world.exchange(socket, &bytes(100_000), 300_000);
        world.clients[0].get(socket).close();
        world.weather = Weather::default();
        world.until(200_000, "gone", |w| w.replicator.is_empty());
        assert!(
            world.events.contains(&EventKind::Ended(EndCause::Closed)),
            "{:?}",
            world.events
        );
        world.assert_whole();
    }
}
