//! One measurement at a time: each takes CPUs for itself, and two would measure each other.

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What is locked, by every user of the machine.
const FILE: &str = "/tmp/lockstep-perf.lock";

/// The turn of one measurement: the kernel ends it with the process, whatever that ends of.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is locked until it is dropped")] File);

impl Turn {
    /// Takes it; `what` is the measurement.
    ///
    /// # Errors
    ///
    /// At once, when another one has it: with what that is.
    pub fn take(what: &str) -> Result<Self> {
        Self::take_by(Path::new(FILE), what)
    }

    fn take_by(path: &Path, what: &str) -> Result<Self> {
        let mut file = open(path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who has just taken it may not have said who it is.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another measurement",
                    holder => holder,
                };
                bail!(
                    "{holder} is under way, and two at once would measure each other: wait for \
                     its end, or end it"
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        let own = std::process::id();
        writeln!(file, "lockstep-perf {what} (process {own})")?;
        Ok(Turn(file))
    }
}

/// The file, which each user may lock: so it is not made anew where it is there, which the kernel
/// forbids for those of others in /tmp.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits());
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    match options.create_new(true).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(0o666))?;
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            options.create_new(false).open(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_measurement_is_refused_with_who_has_the_turn_until_that_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let first = Turn::take_by(&path, "experiments").expect("nobody has it");
        let error = Turn::take_by(&path, "compare").expect_err("it is taken");
        let wanted = format!("lockstep-perf experiments (process {})", std::process::id());
        assert!(error.to_string().contains(&wanted), "{error}");
        drop(first);
        let third = Turn::take_by(&path, "core").expect("it is free again");
        let error = Turn::take_by(&path, "compare").expect_err("it is taken");
        assert!(error.to_string().contains("lockstep-perf core (process"));
        drop(third);
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        std::os::unix::fs::symlink(directory.path().join("other"), &path).expect("a link");
        assert!(Turn::take_by(&path, "compare").is_err());
    }
}
