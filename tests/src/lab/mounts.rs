//! File systems of a balancer's own: a BPF one for what the engine pins, and one in memory that can
//! be full.
//!
//! `ip netns exec` mounts a fresh `/sys`, so `/sys/fs/bpf` is not there inside; a mount elsewhere,
//! made on the host before, is.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// A mounted BPF file system, unmounted on drop.
#[derive(Debug)]
pub struct Bpffs(PathBuf);

impl Bpffs {
    /// Mounts one at `at`, a directory that is made.
    pub fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at).with_context(|| format!("cannot make {}", at.display()))?;
        mount(
            Some("bpf"),
            &at,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount a bpf file system at {}", at.display()))?;
        Ok(Bpffs(at))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A mounted file system in memory, unmounted on drop.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `size` bytes at `at`, a directory that is made. What is to see it has to be
    /// started later.
    pub fn mount(at: PathBuf, size: u64) -> Result<Self> {
        fs::create_dir(&at).with_context(|| format!("cannot make {}", at.display()))?;
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            &at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("cannot mount a tmpfs at {}", at.display()))?;
        Ok(Tmpfs(at))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Unmounts `at`, now or, when something still looks at it, as soon as that ends.
pub(super) fn unmount(at: &Path) {
    if let Err(error) = umount2(at, MntFlags::MNT_DETACH) {
        eprintln!("lab: cannot unmount {}: {error}", at.display());
    }
}

/// Every file system of this host that could be a run's.
pub(super) fn mounts() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    Ok(table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == "bpf" || kind == "tmpfs").then(|| PathBuf::from(at))
        })
        .collect())
}
