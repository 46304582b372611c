//! A directory of pins in the BPF file system, and the lock that says whose it is.

use crate::BpfError;
use libbpf_rs::{MapHandle, MapMut, Program, ProgramMut};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Where the kernel has a place for a BPF file system.
const SYSFS_MOUNT: &str = "/sys/fs/bpf";

/// The pins of one interface. The directory is locked while this lives, and the kernel frees the
/// lock of a process that was killed, so a locked directory belongs to a live engine.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
    _lock: File,
}

impl Pins {
    /// The directory for `interface` under `pin_dir`, made where it is missing, with what a
    /// predecessor left there.
    pub(crate) fn claim(pin_dir: &Path, interface: &str) -> Result<Self, BpfError> {
        ensure_bpffs(pin_dir)?;
        let directory = pin_dir.join(component(interface));
        fs::create_dir_all(&directory).map_err(|source| pin_error(&directory, "create", source))?;
        Pins::lock(directory, interface)
    }

    /// What is left under `pin_dir` for `interface`, if anything.
    pub(crate) fn left(pin_dir: &Path, interface: &str) -> Result<Option<Self>, BpfError> {
        let directory = pin_dir.join(component(interface));
        if directory.is_dir() {
            Pins::lock(directory, interface).map(Some)
        } else {
            Ok(None)
        }
    }

    fn lock(directory: PathBuf, interface: &str) -> Result<Self, BpfError> {
        let lock =
            File::open(&directory).map_err(|source| pin_error(&directory, "open", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Pins {
                directory,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(BpfError::InUse {
                interface: interface.to_owned(),
                path: directory,
            }),
            Err(TryLockError::Error(source)) => Err(pin_error(&directory, "lock", source)),
        }
    }

    pub(crate) fn pin_map(&self, map: &mut MapMut<'_>, name: &str) -> Result<(), BpfError> {
        let path = self.directory.join(name);
        map.pin(&path)
            .map_err(|error| pin_error(&path, "pin a map", io::Error::other(error)))
    }

    pub(crate) fn pin_program(
        &self,
        program: &mut ProgramMut<'_>,
        name: &str,
    ) -> Result<(), BpfError> {
        let path = self.directory.join(name);
        program
            .pin(&path)
            .map_err(|error| pin_error(&path, "pin the program", io::Error::other(error)))
    }

    /// The kernel's number of the program that is pinned as `name`.
    pub(crate) fn program(&self, name: &str) -> Option<u32> {
        let program = Program::fd_from_pinned_path(self.directory.join(name)).ok()?;
        Program::id_from_fd(program.as_fd()).ok()
    }

    /// The map that is pinned as `name`.
    pub(crate) fn map(&self, name: &str) -> Option<MapHandle> {
        MapHandle::from_pinned_path(self.directory.join(name)).ok()
    }

    /// Removes one pin; fine if it is not there.
    pub(crate) fn unpin(&self, name: &str) -> Result<(), BpfError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(pin_error(&path, "remove", source))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn clear(&self) -> Result<(), BpfError> {
        let list = |source| pin_error(&self.directory, "list", source);
        for entry in fs::read_dir(&self.directory).map_err(list)? {
            let path = entry.map_err(list)?.path();
            fs::remove_file(&path).map_err(|source| pin_error(&path, "remove", source))?;
        }
        Ok(())
    }

    /// Removes the pins and the directory.
    pub(crate) fn remove(self) -> Result<(), BpfError> {
        self.clear()?;
        fs::remove_dir(&self.directory)
            .map_err(|source| pin_error(&self.directory, "remove", source))
    }
}

/// The file name for an interface. The BPF file system refuses names with dots, which those of VLAN
/// interfaces have.
fn component(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

fn ensure_bpffs(pin_dir: &Path) -> Result<(), BpfError> {
    let none = |path: &Path, reason: String| BpfError::NoBpffs {
        path: path.to_owned(),
        reason,
    };
    let nearest = pin_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    if is_bpffs(nearest).map_err(|error| none(nearest, error.to_string()))? {
        return Ok(());
    }
    // Mounting hides what is in a directory, so only an empty one will do: the one that sysfs has
    // for this, or the one that was asked for.
    let place = if pin_dir.starts_with(SYSFS_MOUNT) {
        Path::new(SYSFS_MOUNT)
    } else {
        fs::create_dir_all(pin_dir).map_err(|error| none(pin_dir, error.to_string()))?;
        pin_dir
    };
    match fs::read_dir(place).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(none(place, "the directory has other files".to_owned())),
        Err(error) => return Err(none(place, error.to_string())),
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=700"))
        .map_err(|error| none(place, error.to_string()))
}

fn is_bpffs(path: &Path) -> nix::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

fn pin_error(path: &Path, doing: &'static str, source: io::Error) -> BpfError {
    BpfError::Pin {
        path: path.to_owned(),
        doing,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_directory_of_its_own_without_dots() {
        assert_eq!(component("eth0"), "eth0");
        assert_eq!(component("eth0.100"), "eth0%2E100");
        assert_eq!(component("eth0%2E100"), "eth0%252E100");
    }
}
