//! CPUs that programs with a real-time priority have all of the time. The kernel keeps 50 ms of each second for
//! the others otherwise, and every latency of tens of milliseconds in a measurement was its.

use anyhow::{Context, Result};
use lockstep_tests::lab::interrupted;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// For all CPUs together: microseconds of a period, or -1.
const RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";
/// Where debugfs usually is.
const DEBUG: &str = "/sys/kernel/debug";

/// In the file of changes: a debugfs that was mounted there.
const MOUNTED: &str = "mounted";

/// What was changed in which files, a line each: who is killed cannot put it back, and the next one does.
const CHANGES: &str = "/run/lockstep-perf.changes";

/// What is changed, to be put back, the last first.
static CHANGED: Mutex<Vec<Change>> = Mutex::new(Vec::new());

enum Change {
    /// Lines in the file of changes.
    Noted(PathBuf),
    /// A file, and what it had.
    File(PathBuf, String),
    /// A debugfs that was not mounted before.
    Mount(PathBuf),
}

/// As long as this lives.
#[derive(Debug)]
pub struct WholeCpus(());

impl WholeCpus {
    /// On these CPUs, as far as this kernel, or the container it is seen from, allows: where it does not, that is
    /// said, and what stands still for it is in the results.
    pub fn on(cpus: &[usize]) -> Self {
        interrupted::undo_too(put_back);
        let whole = WholeCpus(());
        if let Err(error) = take(cpus) {
            eprintln!(
                "The kernel keeps up to 50 ms of each second for programs without a real-time priority, and \
                 that cannot be changed here: {error:#}. Latencies of tens of milliseconds may be its."
            );
        }
        whole
    }
}

impl Drop for WholeCpus {
    fn drop(&mut self) {
        put_back();
    }
}

fn take(cpus: &[usize]) -> Result<()> {
    let changes = Path::new(CHANGES);
    let debug = debugfs();
    put_back_from(changes, debug.as_deref().unwrap_or(Path::new(DEBUG)));
    if let Ok(place) = debug.as_deref()
        && place != DEBUG
    {
        write_down(MOUNTED, place, changes)?;
    }
    set(Path::new(RUNTIME), "-1", changes)?;
    let debug = debug?;
    for cpu in cpus {
        let server = debug.join(format!("sched/fair_server/cpu{cpu}/runtime"));
        // Linux 6.12 and later; before, the first switch is all there is.
        if server.exists() {
            set(&server, "0", changes)?;
        }
    }
    Ok(())
}

/// Where it is mounted, by now.
fn debugfs() -> Result<PathBuf> {
    let usual = PathBuf::from(DEBUG);
    if usual.join("sched").exists() {
        return Ok(usual);
    }
    let place = std::env::temp_dir().join(format!("lockstep-debugfs-{}", std::process::id()));
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let none = None::<&str>;
    let mounted = mount(none, &place, Some("debugfs"), MsFlags::empty(), none);
    if let Err(error) = mounted {
        let _ = fs::remove_dir(&place);
        return Err(error).context("cannot mount debugfs");
    }
    note(Change::Mount(place.clone()));
    Ok(place)
}

fn set(file: &Path, value: &str, changes: &Path) -> Result<()> {
    let before = fs::read_to_string(file);
    let before = before.with_context(|| format!("cannot read {}", file.display()))?;
    let before = before.trim().to_owned();
    write_down(&before, file, changes)?;
    // Held meanwhile: whoever puts back at a signal comes before or after both.
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(file, value).with_context(|| format!("cannot write {}", file.display()))?;
    changed.push(Change::File(file.to_owned(), before));
    Ok(())
}

/// For the next one, should this one be killed: what a file had, or [`MOUNTED`].
fn write_down(before: &str, file: &Path, changes: &Path) -> Result<()> {
    let noted = OpenOptions::new().create(true).append(true).open(changes);
    noted
        .and_then(|mut noted| writeln!(noted, "{before} {}", file.display()))
        .with_context(|| format!("cannot write {}", changes.display()))?;
    note(Change::Noted(changes.to_owned()));
    Ok(())
}

/// What one that was killed has left. The first line of each file, put back last, is of before it.
fn put_back_from(changes: &Path, debug: &Path) {
    let left = fs::read_to_string(changes).unwrap_or_default();
    for (before, file) in left.lines().rev().filter_map(|line| line.split_once(' ')) {
        let mut file = PathBuf::from(file);
        if before == MOUNTED {
            if file != debug && file.starts_with(std::env::temp_dir()) {
                let _ = umount2(&file, MntFlags::MNT_DETACH);
                let _ = fs::remove_dir(&file);
            }
            continue;
        }
        // The debugfs that it was in may be gone, or goes.
        if let Some((_, inside)) = file.to_str().and_then(|file| file.split_once("/sched/")) {
            file = debug.join("sched").join(inside);
        }
        match fs::write(&file, before) {
            Ok(()) => eprintln!(
                "{} is {before} again: a measurement was killed before it could put it back",
                file.display()
            ),
            Err(error) => eprintln!("cannot put {} back: {error}", file.display()),
        }
    }
    let _ = fs::remove_file(changes);
}

fn note(change: Change) {
    (CHANGED.lock().unwrap_or_else(PoisonError::into_inner)).push(change);
}

/// As it was.
pub fn put_back() {
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(change) = changed.pop() {
        let done = match &change {
            Change::File(file, before) => fs::write(file, before),
            // The first one removes it.
            Change::Noted(changes) => {
                let _ = fs::remove_file(changes);
                Ok(())
            }
            Change::Mount(place) => umount2(place, MntFlags::MNT_DETACH)
                .map_err(Into::into)
                .and_then(|()| fs::remove_dir(place)),
        };
        let (Change::File(path, _) | Change::Mount(path) | Change::Noted(path)) = &change;
        if let Err(error) = done {
            eprintln!("cannot put {} back as it was: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_changed_is_put_back_the_first_value_too() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let (one, two) = (of("one"), of("two"));
        fs::write(&one, "950000\n").unwrap();
        fs::write(&two, "50000000\n").unwrap();
        let changes = of("changes");
        set(&one, "-1", &changes).unwrap();
        set(&two, "0", &changes).unwrap();
        set(&one, "7", &changes).unwrap();
        let missing = set(&of("three"), "1", &changes).unwrap_err();
        assert!(missing.to_string().contains("three"), "{missing}");
        assert_eq!(fs::read_to_string(&one).unwrap(), "7");
        put_back();
        assert_eq!(fs::read_to_string(&one).unwrap(), "950000");
        assert_eq!(fs::read_to_string(&two).unwrap(), "50000000");
        assert!(!changes.exists());
        // Only once.
        fs::write(&one, "1").unwrap();
        put_back();
        assert_eq!(fs::read_to_string(&one).unwrap(), "1");
    }
    #[test]
    fn what_a_killed_one_has_left_is_put_back_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let (plain, gone, debug) = (of("plain"), of("gone"), of("debug"));
        let server = "sched/fair_server/cpu1/runtime";
        for root in [&gone, &debug] {
            fs::create_dir_all(root.join("sched/fair_server/cpu1")).unwrap();
            fs::write(root.join(server), "50000000\n").unwrap();
        }
        fs::write(&plain, "950000\n").unwrap();
        let changes = of("changes");
        set(&plain, "-1", &changes).unwrap();
        let empty = of("mounted-for-it");
        fs::create_dir(&empty).unwrap();
        write_down(MOUNTED, &empty, &changes).unwrap();
        set(&gone.join(server), "0", &changes).unwrap();
        // A second one that did not look.
        set(&plain, "-1", &changes).unwrap();
        // Killed: nobody has it in mind any more, and its debugfs is not mounted.
        CHANGED.lock().unwrap().clear();
        fs::write(debug.join(server), "0").unwrap();

        put_back_from(&changes, &debug);
        assert_eq!(fs::read_to_string(&plain).unwrap(), "950000");
        assert_eq!(fs::read_to_string(debug.join(server)).unwrap(), "50000000");
        assert!(!changes.exists() && !empty.exists());
        // Nothing is left: nothing is done.
        put_back_from(&changes, &debug);
    }
}
