//! A run of the lab: the name that everything it makes carries, and its directory.

use super::{interrupted, mounts, netns};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

const DIRECTORY: &str = "lockstep-";
const REMOVE_ATTEMPTS: usize = 5;

/// What the namespaces and files of one lab have in common: `ls<pid>x<count>`, unique on the host.
#[derive(Debug)]
pub struct Run {
    name: String,
    dir: TempDir,
    logs: AtomicU32,
}

impl Run {
    /// A run of this process; what killed runs of dead processes left is removed first.
    pub fn start() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        interrupted::must_not_have_begun()?;
        for dead in found()?.into_iter().filter(|name| !owner_lives(name)) {
            remove_run(&dead);
        }
        let name = format!("ls{}x{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new()
            .prefix(&format!("{DIRECTORY}{name}-"))
            .tempdir()
            .context("cannot make a directory for the lab's files")?;
        Ok(Run {
            name,
            dir,
            logs: AtomicU32::new(0),
        })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new log file's path; they sort in the order of their start.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        self.dir().join(format!("{number:02}-{name}.log"))
    }

    /// Where its configurations, sockets and logs are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// What is there of a run that should be gone: namespaces, mounts, directories.
pub fn leftovers(run: &str) -> Result<Vec<String>> {
    let mut left = netns::list()?;
    left.retain(|name| run_of(name) == Some(run));
    let of_run = |path: &Path| directory_run(path) == Some(run);
    left.extend(
        mounts::mounts()?
            .iter()
            .filter(|m| of_run(m))
            .map(|path| display(path)),
    );
    left.extend(
        directories()
            .iter()
            .filter(|d| of_run(d))
            .map(|path| display(path)),
    );
    Ok(left)
}

/// Removes what this process has made, while another of its threads may still be making it.
pub(super) fn remove_runs_of_this_process() {
    let mine = |run: &String| owner(run) == Some(id());
    for _ in 0..REMOVE_ATTEMPTS {
        let runs = found().unwrap_or_default();
        let mut mine = runs.iter().filter(|run| mine(run)).peekable();
        if mine.peek().is_none() {
            return;
        }
        mine.for_each(|run| remove_run(run));
    }
}

/// Removes all of a run by its name. Best effort: what cannot be removed is tried again by the
/// next run.
fn remove_run(run: &str) {
    let names = netns::list().unwrap_or_default();
    for name in names.iter().filter(|name| run_of(name) == Some(run)) {
        netns::remove(name);
    }
    let of_run = |path: &PathBuf| directory_run(path) == Some(run);
    for mount in mounts::mounts()
        .unwrap_or_default()
        .iter()
        .filter(|m| of_run(m))
    {
        mounts::unmount(mount);
    }
    for dir in directories().iter().filter(|d| of_run(d)) {
        let _ = fs::remove_dir_all(dir);
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// The runs that anything on this host carries the name of.
fn found() -> Result<Vec<String>> {
    let namespaces = netns::list()?;
    let directories = directories();
    let mut runs: Vec<String> = (namespaces.iter().filter_map(|n| run_of(n)))
        .chain(directories.iter().filter_map(|d| directory_run(d)))
        .map(String::from)
        .collect();
    runs.sort();
    runs.dedup();
    Ok(runs)
}

fn directories() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    (entries.flatten().map(|entry| entry.path()))
        .filter(|path| directory_run(path).is_some())
        .collect()
}

/// The run in a path below the directory for temporary files.
fn directory_run(path: &Path) -> Option<&str> {
    let below = path.strip_prefix(std::env::temp_dir()).ok()?;
    let top = below.components().next()?.as_os_str().to_str()?;
    run_of(top.strip_prefix(DIRECTORY)?)
}

/// The run in `ls<pid>x<count>-<rest>`.
fn run_of(name: &str) -> Option<&str> {
    let (run, _) = name.split_once('-')?;
    owner(run).map(|_| run)
}

fn owner(run: &str) -> Option<u32> {
    let (pid, count) = run.strip_prefix("ls")?.split_once('x')?;
    count.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn owner_lives(run: &str) -> bool {
    owner(run).is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
}
