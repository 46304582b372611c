//! Checks backends, and tells the actor what it has found.

use super::parts::{Ending, Wires};

/// Checks what it is told to, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
}
