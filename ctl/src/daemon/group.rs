//! Shares with the other balancers of the group, by a store.

use super::parts::{Ending, Wires};

/// Lets other parts of the daemon keep values with the group.
#[derive(Debug, Clone)]
pub struct Shared;

/// The part, and how others use it.
pub fn new(mut wires: Wires) -> (impl Future<Output = ()> + Send, Shared) {
    let part = async move {
        let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
    };
    (part, Shared)
}
