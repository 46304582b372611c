//! Keeps how the VIPs of a cluster are announced: a daemon that is started while the API server is
//! away goes on with that, and announces none of them where it is not meant to be.

use super::disk;
use super::parts::{Ending, Wires};
use super::store::ADVERTISED;
use lockstep_ctl_core::announce::ways::{Advertisements, to_json};
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

/// Between two writes: Services come and go by the hundreds.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes them whenever they are others, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let mut kept: Option<Advertisements> = None;
    loop {
        tokio::select! {
            changed = wires.announcements.changed() => if changed.is_err() {
                return;
            },
            _ = wires.ending.wait_for(|e| *e != Ending::Running) => return,
        }
        let announced = wires.announcements.borrow_and_update().clone();
        // Nothing of a cluster, now as before: most balancers are in none.
        if kept.as_ref() == Some(&announced.ways) || kept.is_none() && announced.ways.is_empty() {
            continue;
        }
        let path = wires.state_dir.join(ADVERTISED);
        let text = to_json(&announced.ways);
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        if written.is_ok_and(|done| done) {
            kept = Some(announced.ways.clone());
        }
        sleep(PAUSE).await;
    }
}

/// Whether it could be written.
fn write(path: &Path, text: &str) -> bool {
    let result = disk::replace(path, text.as_bytes(), 0o644);
    if let Err(error) = &result {
        tracing::warn!(
            "cannot write {}: {error}; a restart while the API server is away announces VIPs of \
             the cluster as it was before",
            path.display()
        );
    }
    result.is_ok()
}
