//! Files that every nginx of the lab serves: the same ones, in memory.

use super::run::Run;
use crate::pattern::Pattern;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

const PIECE: usize = 1 << 20;

/// A file at `/files/NAME` of every nginx, gone when dropped. It is one inode for all of them, so that
/// `ETag` and `Last-Modified` agree, and its bytes stand in memory without a name of their own: a
/// run that is killed leaves none.
#[derive(Debug)]
pub struct Content {
    name: String,
    size: u64,
    sha256: String,
    pattern: Pattern,
    link: PathBuf,
    _file: File,
}

impl Content {
    /// A file of `size` bytes that `seed` stands for.
    pub fn new(run: &Run, name: &str, size: u64, seed: u64) -> Result<Self> {
        let file =
            memfd_create(name, MFdFlags::MFD_CLOEXEC).context("cannot make a file in memory")?;
        let mut file = File::from(file);
        let (pattern, mut hash) = (Pattern::new(seed), Sha256::new());
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < size {
            let length = (PIECE as u64).min(size - at) as usize;
            pattern.fill(at, &mut piece[..length]);
            file.write_all(&piece[..length])?;
            hash.update(&piece[..length]);
            at += length as u64;
        }
        let link = run.dir().join("files").join(name);
        fs::create_dir_all(run.dir().join("files"))?;
        // What follows the link opens the file anew: no reader moves another one's offset.
        let opened = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        symlink(&opened, &link).with_context(|| format!("cannot link {}", link.display()))?;
        Ok(Content {
            name: name.to_owned(),
            size,
            sha256: hex(&hash.finalize()),
            pattern,
            link,
            _file: file,
        })
    }

    /// The path in its URL.
    pub fn path(&self) -> String {
        format!("files/{}", self.name)
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its SHA-256, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its bytes by their offset.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        // Gone already with the run's directory is as good.
        let _ = fs::remove_file(&self.link);
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
