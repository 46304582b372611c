//! A file for results: found out to be possible before anything is measured, and whole or not there.

use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file that is to be written.
#[derive(Debug)]
pub struct Pending {
    name: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    /// Beside the file, whose place it takes. It goes if it is not written.
    Beside(NamedTempFile, PathBuf),
    /// A device or a pipe: it stays what it is.
    There(File),
}

impl Pending {
    /// Tries whether it can be written. What is in the file stays until then.
    pub fn new(name: &Path) -> Result<Self> {
        let to = open(name).with_context(|| {
            format!(
                "cannot write {}: name a file in a directory that is there",
                name.display()
            )
        })?;
        Ok(Pending {
            name: name.to_owned(),
            to,
        })
    }

    /// Writes all of it, or changes nothing.
    pub fn write(self, text: &str) -> Result<()> {
        let written = match self.to {
            To::There(mut file) => file.write_all(text.as_bytes()),
            To::Beside(mut file, place) => file
                .write_all(text.as_bytes())
                // Some file systems find out only then that there is no room.
                .and_then(|()| file.as_file().sync_all())
                .and_then(|()| Ok(file.persist(place).map(|_| ())?)),
        };
        written.with_context(|| format!("cannot write {}", self.name.display()))
    }
}

fn open(name: &Path) -> std::io::Result<To> {
    // Of a link, what it is to.
    let place = match fs::canonicalize(name) {
        Ok(place) if !fs::metadata(&place)?.is_file() => {
            return Ok(To::There(OpenOptions::new().write(true).open(place)?));
        }
        Ok(place) => place,
        Err(_) => name.to_owned(),
    };
    let directory = match place.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".lockstep-perf-")
        // As any other file: the user's mask takes some of it away.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    Ok(To::Beside(file, place))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::symlink;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("latency.hgrm");
        drop(Pending::new(&name).unwrap());
        assert_eq!(names(directory.path()), Vec::<String>::new());
        fs::write(&name, "old").unwrap();
        let pending = Pending::new(&name).unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "old");
        pending.write("new").unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "new");
        let link = directory.path().join("link");
        symlink(&name, &link).unwrap();
        Pending::new(&link).unwrap().write("newer").unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "newer");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(directory.path()), ["latency.hgrm", "link"]);
    }

    #[test]
    fn what_cannot_be_written_is_found_out_before_or_said() {
        for name in ["/nope/x", "/tmp", "/dev/null/x"] {
            let error = format!("{:#}", Pending::new(Path::new(name)).unwrap_err());
            assert!(error.contains(&format!("cannot write {name}: ")), "{error}");
        }
        let full = Pending::new(Path::new("/dev/full")).unwrap();
        let error = format!("{:#}", full.write("too much").unwrap_err());
        assert!(error.contains("No space left"), "{error}");
        // A device stays one.
        let null = Pending::new(Path::new("/dev/null")).unwrap();
        null.write("nothing").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
