//! Watches the services file.
//!
//! The directory is watched, not the file: editors and configuration management write a new file
//! and rename it over the old one, and Kubernetes moves a link beside it. What another process is
//! still writing is not read: only its closing counts, and then a short silence.

use super::actor::Event;
use anyhow::Context;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The silence after which a change is taken for complete.
const SILENCE: Duration = Duration::from_millis(30);
/// Where changes do not end, the file is read anyway after this.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the file is looked at where no event came: network file systems report none.
const LOOK: Duration = Duration::from_secs(2);

/// Sends [`Event::FileChanged`] when the file may have changed. Ends with the watcher returned.
///
/// # Errors
/// When the directory cannot be watched.
pub fn start(file: &Path, events: mpsc::Sender<Event>) -> anyhow::Result<RecommendedWatcher> {
    let directory = file
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // One that waits stands for all: what changed is found by reading.
    let (touched, touches) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_complete(event.kind)) {
            let _ = touched.try_send(());
        }
    })
    .context("cannot watch files")?;
    watcher
        .watch(directory, RecursiveMode::NonRecursive)
        .with_context(|| {
            format!(
                "cannot watch {}: make the directory first",
                directory.display()
            )
        })?;
    tokio::spawn(settle(file.to_owned(), touches, events));
    Ok(watcher)
}

/// Whether an event is the end of a change. Our own reading is none.
fn is_complete(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(modify) => {
            matches!(modify, ModifyKind::Name(_) | ModifyKind::Metadata(_))
        }
        // A file that is being made is closed later; a link to one is seen by looking.
        EventKind::Create(_) => false,
        EventKind::Remove(_) => true,
        EventKind::Any | EventKind::Other => true,
    }
}

async fn settle(file: PathBuf, mut touches: mpsc::Receiver<()>, events: mpsc::Sender<Event>) {
    let mut reported = Signature::of(&file);
    let mut seen = reported;
    loop {
        match timeout(LOOK, touches.recv()).await {
            Ok(None) => return,
            Ok(Some(())) => quiet(&mut touches).await,
            Err(_) => {
                // Two looks that see the same new file: nobody is writing it any more.
                let before = std::mem::replace(&mut seen, Signature::of(&file));
                if seen == reported || seen != before {
                    continue;
                }
            }
        }
        seen = Signature::of(&file);
        reported = seen;
        if events.send(Event::FileChanged).await.is_err() {
            return;
        }
    }
}

async fn quiet(touches: &mut mpsc::Receiver<()>) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline
        && timeout(SILENCE, touches.recv())
            .await
            .is_ok_and(|t| t.is_some())
    {}
}

/// What tells one state of a file from another without reading it; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature(Option<(u64, u64, i64, i64)>);

impl Signature {
    fn of(file: &Path) -> Self {
        let facts = fs::metadata(file).map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        Signature(facts.ok())
    }
}
