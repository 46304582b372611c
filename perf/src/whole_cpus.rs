//! CPUs that programs with a real-time priority have all of the time. The kernel keeps 50 ms of each second for
//! the others otherwise, and every latency of tens of milliseconds in a measurement was its.

use anyhow::{Context, Result};
use lockstep_tests::lab::interrupted;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// For all CPUs together: microseconds of a period, or -1.
const RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";
/// Where debugfs usually is.
const DEBUG: &str = "/sys/kernel/debug";

/// What is changed, to be put back, the last first.
static CHANGED: Mutex<Vec<Change>> = Mutex::new(Vec::new());

enum Change {
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
    set(Path::new(RUNTIME), "-1")?;
    let debug = debugfs()?;
    for cpu in cpus {
        let server = debug.join(format!("sched/fair_server/cpu{cpu}/runtime"));
        // Linux 6.12 and later; before, the first switch is all there is.
        if server.exists() {
            set(&server, "0")?;
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

fn set(file: &Path, value: &str) -> Result<()> {
    let before = fs::read_to_string(file);
    let before = before.with_context(|| format!("cannot read {}", file.display()))?;
    fs::write(file, value).with_context(|| format!("cannot write {}", file.display()))?;
    note(Change::File(file.to_owned(), before.trim().to_owned()));
    Ok(())
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
            Change::Mount(place) => umount2(place, MntFlags::MNT_DETACH)
                .map_err(Into::into)
                .and_then(|()| fs::remove_dir(place)),
        };
        if let (Err(error), Change::File(path, _) | Change::Mount(path)) = (done, &change) {
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
        set(&one, "-1").unwrap();
        set(&two, "0").unwrap();
        set(&one, "7").unwrap();
        let missing = set(&of("three"), "1").unwrap_err();
        assert!(missing.to_string().contains("three"), "{missing}");
        assert_eq!(fs::read_to_string(&one).unwrap(), "7");
        put_back();
        assert_eq!(fs::read_to_string(&one).unwrap(), "950000");
        assert_eq!(fs::read_to_string(&two).unwrap(), "50000000");
        // Only once.
        fs::write(&one, "1").unwrap();
        put_back();
        assert_eq!(fs::read_to_string(&one).unwrap(), "1");
    }
}
