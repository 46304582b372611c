//! Serves the metrics of daemon and engine to Prometheus.

use super::parts::{Ending, Wires};

/// Listens where the configuration says, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let _ = wires.ending.wait_for(|e| *e != Ending::Running).await;
}
