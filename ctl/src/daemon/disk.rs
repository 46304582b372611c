//! Small files that are there as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tempfile::NamedTempFile;

/// The largest file with a key, a password or certificates, in bytes.
const MAX_NAMED: u64 = 16 << 20;

/// What is in a file of at most so many bytes; `None` where there is none.
///
/// # Errors
/// When it cannot be read, is larger, or no regular file: a pipe would be waited for.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    match file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(Some(bytes)),
    }
}

/// What is in a file that an operator has named.
///
/// # Errors
/// As [`read`]; also when there is none.
pub fn read_named(path: &Path) -> io::Result<Vec<u8>> {
    read(path, MAX_NAMED)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Puts a file in the place of what was there, synced.
///
/// # Errors
/// When the system refuses; what was there still is.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(dir)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself is in the directory.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = read_named(path).unwrap_err();
            assert!(error.to_string().contains("regular"), "{error}");
        }
        let missing = read_named(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        replace(&dir.path().join("file"), b"text", 0o600).unwrap();
        assert_eq!(read_named(&dir.path().join("file")).unwrap(), b"text");
    }
}
