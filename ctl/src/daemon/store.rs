//! What outlives the daemon: drains under way, the last services without errors, and the services
//! file itself when `lockstep apply` replaces it. Every write is atomic: a new file, synced, then
//! renamed over the old one, so that a crash leaves one or the other.

use super::{CONFIG, Options};
use lockstep_ctl_core::announce::ways::{Advertisements, from_json};
use lockstep_ctl_core::drains::{Drains, DrainsFileError};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The largest services file read, in bytes: some ten times what the limits of a snapshot need.
const MAX_FILE: u64 = 64 << 20;

/// How VIPs of a cluster were announced, in the state directory.
pub const ADVERTISED: &str = "advertised.json";

/// Why something on disk cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("cannot {what} {}: {reason}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The saved drains are not what the daemon wrote.
    #[error("{}: {error}", .path.display())]
    Drains {
        /// Their file.
        path: PathBuf,
        /// What is wrong with them.
        error: DrainsFileError,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io {
        what,
        path,
        reason: match error.kind() {
            // Root may not read everything here: it has no CAP_DAC_OVERRIDE.
            io::ErrorKind::PermissionDenied => format!(
                "{error}; the user that lockstepd runs as has to be allowed to, also where that is root"
            ),
            _ => error.to_string(),
        },
    }
}

/// The files of a daemon.
#[derive(Debug)]
pub struct Store {
    services: PathBuf,
    config: Option<PathBuf>,
    drains: PathBuf,
    balancer_drained: PathBuf,
    last_good: PathBuf,
    last_good_config: PathBuf,
    advertised: PathBuf,
}

impl Store {
    /// The files in a state directory, which is made when there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(options: &Options) -> Result<Self, StoreError> {
        let state_dir = &options.state_dir;
        fs::create_dir_all(state_dir).map_err(io_error("make the state directory", state_dir))?;
        Ok(Store {
            services: options.services.clone(),
            config: options.config.clone(),
            drains: state_dir.join("drains.json"),
            balancer_drained: state_dir.join("balancer-drained"),
            last_good: state_dir.join("services.last-good.toml"),
            last_good_config: state_dir.join("lockstepd.last-good.toml"),
            advertised: state_dir.join(ADVERTISED),
        })
    }

    /// The drains that were saved; none when none ever were.
    ///
    /// # Errors
    /// When they cannot be read: to go on without them would send flows to backends that were
    /// taken out.
    pub fn load_drains(&self) -> Result<Drains, StoreError> {
        let Some(text) = self.read(&self.drains)? else {
            return Ok(Drains::default());
        };
        Drains::from_json(&text).map_err(|error| StoreError::Drains {
            path: self.drains.clone(),
            error,
        })
    }

    /// Saves the drains.
    ///
    /// # Errors
    /// When they cannot be written; what was saved before is still there then.
    pub fn save_drains(&self, drains: &Drains) -> Result<(), StoreError> {
        replace(&self.drains, &drains.to_json())?.commit()
    }

    /// Whether the whole balancer is drained.
    pub fn load_balancer_drained(&self) -> bool {
        self.balancer_drained.exists()
    }

    /// Keeps whether it is.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn save_balancer_drained(&self, drained: bool) -> Result<(), StoreError> {
        let path = &self.balancer_drained;
        if drained {
            return replace(path, "by `lockstep drain --balancer`\n")?.commit();
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// How VIPs of a cluster were announced last. What cannot be read is said, and is nothing.
    pub fn load_advertised(&self) -> Advertisements {
        let text = self.read(&self.advertised).map_err(|e| e.to_string());
        let read = text.and_then(|text| text.map_or(Ok(Advertisements::new()), |t| from_json(&t)));
        read.unwrap_or_else(|error| {
            let path = self.advertised.display();
            tracing::warn!(
                "{path}: {error}; until the API server is there VIPs are announced by every way"
            );
            Advertisements::new()
        })
    }

    /// The text of the configuration file; an empty one where the operator named none and there
    /// is none at the usual place.
    ///
    /// # Errors
    /// When there is none where the operator said, or it cannot be read.
    pub fn load_config(&self) -> Result<String, StoreError> {
        match &self.config {
            None => Ok(self.read(Path::new(CONFIG))?.unwrap_or_default()),
            Some(path) => {
                let missing = || io_error("read", path)(io::ErrorKind::NotFound.into());
                self.read(path)?.ok_or_else(missing)
            }
        }
    }

    /// The text of the last configuration that had no errors.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn load_last_good_config(&self) -> Result<Option<String>, StoreError> {
        self.read(&self.last_good_config)
    }

    /// Keeps the text of a configuration without errors, for the daemon only: it may hold
    /// passwords.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_last_good_config(&self, text: &str) -> Result<(), StoreError> {
        replace_with_mode(&self.last_good_config, text, 0o600)?.commit()
    }

    /// The text of the last services file that had no errors.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn load_last_good(&self) -> Result<Option<String>, StoreError> {
        self.read(&self.last_good)
    }

    /// Keeps the text of a services file without errors.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_last_good(&self, text: &str) -> Result<(), StoreError> {
        replace(&self.last_good, text)?.commit()
    }

    /// The text of the services file.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn load_services(&self) -> Result<String, StoreError> {
        let missing = || io_error("read", &self.services)(io::ErrorKind::NotFound.into());
        self.read(&self.services)?.ok_or_else(missing)
    }

    /// Writes a new services file beside the one there is, to replace it by
    /// [`Replacement::commit`] or leave it by dropping the replacement.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_services(&self, text: &str) -> Result<Replacement, StoreError> {
        // What a link points to is replaced, not the link.
        let path = fs::canonicalize(&self.services).unwrap_or_else(|_| self.services.clone());
        replace(&path, text)
    }

    /// Writes a new configuration file likewise.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_config(&self, text: &str) -> Result<Replacement, StoreError> {
        let path = self.config.as_deref().unwrap_or(Path::new(CONFIG));
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // It may hold passwords.
        let mode = fs::metadata(&path).map_or(0o600, |old| old.permissions().mode() & 0o7777);
        replace_with_mode(&path, text, mode)
    }

    fn read(&self, path: &Path) -> Result<Option<String>, StoreError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io_error("read", path))?,
        };
        let mut text = String::new();
        let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
        match read.map_err(io_error("read", path))? as u64 {
            0..=MAX_FILE => Ok(Some(text)),
            _ => Err(io_error("read", path)(io::ErrorKind::FileTooLarge.into())),
        }
    }
}

/// A file that is written and synced, but not in place yet.
#[derive(Debug)]
pub struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    /// Puts the file in place.
    ///
    /// # Errors
    /// When the system refuses; the file that was there still is.
    pub fn commit(self) -> Result<(), StoreError> {
        let Replacement { file, path } = self;
        file.persist(&path)
            .map_err(|e| io_error("write", &path)(e.error))?;
        // The rename itself is in the directory.
        let dir = directory(&path);
        let sync = File::open(dir).and_then(|d| d.sync_all());
        sync.map_err(io_error("sync the directory of", &path))
    }
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn replace(path: &Path, text: &str) -> Result<Replacement, StoreError> {
    let mode = fs::metadata(path).map_or(0o644, |old| old.permissions().mode() & 0o7777);
    replace_with_mode(path, text, mode)
}

fn replace_with_mode(path: &Path, text: &str, mode: u32) -> Result<Replacement, StoreError> {
    let write = || {
        let mut file = NamedTempFile::new_in(directory(path))?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    let file = write().map_err(io_error("write", path))?;
    Ok(Replacement {
        file,
        path: path.to_owned(),
    })
}
