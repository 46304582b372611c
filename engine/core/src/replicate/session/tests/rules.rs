//! The rules of the design note, one by one.

mod endings;
mod opening;
mod outputs;
mod pace;
mod replay;

use super::world::{World, policy};
use core::num::NonZeroU8;
use lockstep_plan::{Commit, Replicate};

fn min_sync(count: u8) -> Replicate {
    policy(|p| p.min_sync = NonZeroU8::new(count).unwrap())
}

fn quorum(k: u8) -> Replicate {
    policy(|p| {
        p.commit = Commit::Quorum(NonZeroU8::new(k).unwrap());
        p.min_sync = NonZeroU8::new(k).unwrap();
    })
}

/// The client has what one server alone would have said.
fn complete(world: &World) {
    assert_eq!(world.received.len(), world.expected().len());
    assert!(world.expected().iter().eq(&world.received));
}

/// More than the limit of a log of 64 KiB.
fn small_log(change: impl FnOnce(&mut Replicate)) -> Replicate {
    policy(|p| {
        p.log_memory = 64 << 10;
        p.log_disk = 0;
        change(p);
    })
}
