//! Tells neighbors on the link which VIPs are here: ARP and neighbor discovery.

use super::parts::{Ending, Wires};

/// Owns the VIPs that are its turn, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
}
