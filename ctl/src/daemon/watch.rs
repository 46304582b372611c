//! Watches a file.
//!
//! Directories are watched, not the file: editors and configuration management write a new file
//! and rename it over the old one. Where the file is reached by links, the directory of each of
//! them is watched: Kubernetes replaces a ConfigMap by moving a link (`..data`) that may be in
//! another directory than ours. What another process is still writing is not read: only its
//! closing counts, and then a short silence.

use super::actor::Event;
use anyhow::Context;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// The silence after which a change is taken for complete.
const SILENCE: Duration = Duration::from_millis(30);
/// Where changes do not end, the file is read anyway after this.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the file is looked at where no event came: network file systems report none.
const LOOK: Duration = Duration::from_secs(2);
/// Links on the way to a file; the kernel follows no more (`MAXSYMLINKS` of Linux).
const LINKS: usize = 40;

/// A file that is watched until this is dropped.
#[derive(Debug)]
pub struct Watched(JoinHandle<()>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends [`Event::FileChanged`] when the file may have changed.
///
/// # Errors
/// When its directory cannot be watched.
pub fn start(file: &Path, events: mpsc::Sender<Event>) -> anyhow::Result<Watched> {
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
    let mut links = Links {
        watcher,
        first: directory.to_owned(),
        others: BTreeSet::new(),
    };
    links.follow(file);
    let task = tokio::spawn(settle(file.to_owned(), links, touches, events));
    Ok(Watched(task))
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

/// The directories in which the way to a file may change.
struct Links {
    watcher: RecommendedWatcher,
    /// The one that the file is in by its name, watched as long as there is this.
    first: PathBuf,
    others: BTreeSet<PathBuf>,
}

impl Links {
    /// Watches the way as it is now. One that cannot be watched is looked at all the same.
    fn follow(&mut self, file: &Path) {
        let now = directories(file);
        for gone in self.others.difference(&now) {
            // One that was removed is watched no more.
            let _ = self.watcher.unwatch(gone);
        }
        // Also those that were watched: another one may have come in the place of one.
        for directory in now.iter().chain([&self.first]) {
            let watched = self.watcher.watch(directory, RecursiveMode::NonRecursive);
            if let Err(error) = watched {
                tracing::debug!("cannot watch {}: {error}", directory.display());
            }
        }
        self.others = now;
    }
}

/// The directories of the file and of every link on the way to it, without links themselves.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(file) = std::path::absolute(file) else {
        return found;
    };
    let mut ahead: VecDeque<OsString> = names(&file);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let path = at.join(&name);
        let Ok(target) = fs::read_link(&path) else {
            if ahead.is_empty() {
                found.insert(at.clone());
            }
            at = path;
            continue;
        };
        links += 1;
        if links > LINKS {
            return found;
        }
        found.insert(at.clone());
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let mut way = names(&target);
        way.append(&mut ahead);
        ahead = way;
    }
    found
}

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

async fn settle(
    file: PathBuf,
    mut links: Links,
    mut touches: mpsc::Receiver<()>,
    events: mpsc::Sender<Event>,
) {
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
        // Before it is read: what changes later is seen.
        links.follow(&file);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_directory_of_every_link_is_on_the_way() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        for dir in ["etc", "config/v1", "deep/er"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("config/v1/a.toml"), "").unwrap();
        symlink("v1", root.join("config/..data")).unwrap();
        symlink("../config/..data/a.toml", root.join("etc/a.toml")).unwrap();
        symlink(root.join("etc"), root.join("deep/er/etc")).unwrap();
        let found = directories(&root.join("deep/er/etc/a.toml"));
        let wanted = ["deep/er", "etc", "config", "config/v1"].map(|dir| root.join(dir));
        assert_eq!(found, BTreeSet::from(wanted));
        let missing = directories(&root.join("etc/missing.toml"));
        assert_eq!(missing, BTreeSet::from([root.join("etc")]));
        // Links that go round end.
        symlink("b.toml", root.join("etc/b.toml")).unwrap();
        let round = directories(&root.join("etc/b.toml"));
        assert_eq!(round, BTreeSet::from([root.join("etc")]));
    }
}
