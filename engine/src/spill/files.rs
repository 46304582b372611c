//! The files of spilled logs: one for each session, in a directory that only this engine uses.

use super::SpillCounters;
use lockstep_core::replicate::chunks::{CHUNK, Chunk};
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::spill::{SpillReply, SpillRequest};
use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Files that are kept open, so that sessions do not need a descriptor each.
const OPEN: usize = 64;
/// Between warnings.
const QUIET: Duration = Duration::from_secs(60);
/// Locked while an engine uses the directory.
const LOCK: &str = "engine.lock";

/// Why there is no place for spilled logs.
#[derive(Debug, Error)]
pub enum SpillError {
    /// The directory cannot be used.
    #[error("{} cannot hold spilled logs; `spill` in topology.toml says where they go", .path.display())]
    Directory {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another engine uses it.
    #[error("another engine spills its logs to {}: give each its own directory, `spill` in topology.toml", .0.display())]
    InUse(PathBuf),
    /// There is no thread to be had.
    #[error("the thread for spilled logs cannot be started: {0}")]
    Thread(io::Error),
}

/// See the module.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    limit: u64,
    stored: u64,
    sessions: HashMap<SessionId, Spilled>,
    /// The ones used last, at the back.
    open: VecDeque<(SessionId, File)>,
    counters: Arc<SpillCounters>,
    warned: Option<Instant>,
    /// Dropped, it is unlocked.
    _lock: File,
}

/// What there is of a session.
#[derive(Debug, Clone, Copy)]
enum Spilled {
    /// A file with this many bytes.
    File(u64),
    /// Nothing, since a chunk of it could not be written: those that follow are of no use. Until
    /// the log has heard of it and has it removed.
    Broken,
}

impl Files {
    /// Makes the directory, and clears it of what an earlier run left.
    pub fn open(
        directory: &Path,
        limit: u64,
        counters: Arc<SpillCounters>,
    ) -> Result<Self, SpillError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SpillError::Directory { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
        let lock = directory.join(LOCK);
        let lock_file = options().create(true).open(&lock).map_err(failed(&lock))?;
        lock_file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => SpillError::InUse(directory.to_owned()),
            std::fs::TryLockError::Error(error) => failed(&lock)(error),
        })?;
        for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
            let entry = entry.map_err(failed(directory))?;
            if entry.file_name().to_str().is_some_and(is_ours) {
                std::fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            limit,
            stored: 0,
            sessions: HashMap::new(),
            open: VecDeque::with_capacity(OPEN),
            counters,
            warned: None,
            _lock: lock_file,
        })
    }

    /// Does what is asked.
    pub fn carry_out(&mut self, request: SpillRequest) -> Option<SpillReply> {
        match request {
            SpillRequest::Append {
                session,
                offset,
                chunk,
            } => Some(self.append(session, offset, chunk)),
            SpillRequest::Read {
                session,
                offset,
                chunk,
            } => Some(self.read(session, offset, chunk)),
            SpillRequest::Remove { session } => {
                self.remove(session);
                None
            }
        }
    }

    /// Removes every file.
    pub fn remove_all(&mut self) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.remove(session);
        }
    }

    fn append(&mut self, session: SessionId, offset: u64, chunk: Chunk) -> SpillReply {
        match self.try_append(session, offset, &chunk) {
            Ok(()) => {
                count(&self.counters.written, CHUNK as u64);
                SpillReply::Appended {
                    session,
                    offset,
                    chunk,
                }
            }
            Err(error) => {
                self.warn(&error);
                // What is there of it is of no use, and may be what the disk is full with.
                if self.sessions.contains_key(&session) {
                    self.remove(session);
                    self.sessions.insert(session, Spilled::Broken);
                }
                count(&self.counters.failures, 1);
                SpillReply::NotAppended {
                    session,
                    offset,
                    chunk,
                }
            }
        }
    }

    fn try_append(&mut self, session: SessionId, offset: u64, chunk: &Chunk) -> io::Result<()> {
        let length = match self.sessions.get(&session) {
            None => 0,
            Some(Spilled::File(length)) => *length,
            Some(Spilled::Broken) => {
                return Err(io::Error::other("the chunk before was not written"));
            }
        };
        if offset != length {
            return Err(io::Error::other("the chunk is not the next one"));
        }
        if self.stored + CHUNK as u64 > self.limit {
            return Err(io::Error::other(
                "`spill_limit` of topology.toml is reached",
            ));
        }
        if length == 0 {
            self.make(session)?;
        }
        self.file(session)?.write_all_at(chunk.bytes(), offset)?;
        self.sessions
            .insert(session, Spilled::File(length + CHUNK as u64));
        self.store(self.stored + CHUNK as u64);
        Ok(())
    }

    fn read(&mut self, session: SessionId, offset: u64, mut chunk: Chunk) -> SpillReply {
        let there = match self.sessions.get(&session) {
            Some(Spilled::File(length)) => offset + CHUNK as u64 <= *length,
            Some(Spilled::Broken) | None => false,
        };
        let filled = if there {
            let file = self.file(session);
            file.and_then(|file| file.read_exact_at(chunk.bytes_mut(), offset))
        } else {
            Err(io::Error::other("nothing is stored there"))
        };
        let Err(error) = filled else {
            count(&self.counters.read, CHUNK as u64);
            return SpillReply::Filled {
                session,
                offset,
                chunk,
            };
        };
        self.warn(&error);
        count(&self.counters.failures, 1);
        SpillReply::NotFilled {
            session,
            offset,
            chunk,
        }
    }

    /// Tells the operator, now and then: a full disk fails every session.
    fn warn(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.warned.is_some_and(|at| now - at < QUIET) {
            return;
        }
        self.warned = Some(now);
        tracing::warn!(
            directory = %self.directory.display(), %error,
            "the log of a session cannot be kept in a file: no replica can join that session any more. Make room \
             there, raise `spill_limit`, or keep less with `log_disk`"
        );
    }

    /// Removes a session's file. One that was not there is removed already.
    fn remove(&mut self, session: SessionId) {
        let Some(Spilled::File(length)) = self.sessions.remove(&session) else {
            return;
        };
        self.open.retain(|(of, _)| *of != session);
        // What cannot be removed now is removed at the next start.
        let _ = std::fs::remove_file(self.path(session));
        self.store(self.stored - length);
        self.counters.files.fetch_sub(1, Ordering::Relaxed);
    }

    /// A new file. One of that name would be somebody else's: ours were removed at the start.
    fn make(&mut self, session: SessionId) -> io::Result<()> {
        let file = options().create_new(true).open(self.path(session))?;
        self.sessions.insert(session, Spilled::File(0));
        self.keep_open(session, file);
        count(&self.counters.files, 1);
        Ok(())
    }

    /// The session's file, opened again if need be.
    fn file(&mut self, session: SessionId) -> io::Result<&File> {
        let open = self.open.iter().position(|(of, _)| *of == session);
        let file = match open.and_then(|index| self.open.remove(index)) {
            Some((_, file)) => file,
            None => options().open(self.path(session))?,
        };
        Ok(self.keep_open(session, file))
    }

    fn keep_open(&mut self, session: SessionId, file: File) -> &File {
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back((session, file));
        let last = self.open.back().expect("one was pushed");
        &last.1
    }

    fn path(&self, session: SessionId) -> PathBuf {
        self.directory.join(name(session))
    }

    fn store(&mut self, bytes: u64) {
        self.stored = bytes;
        self.counters.stored.store(bytes, Ordering::Relaxed);
    }
}

/// Clients' bytes are in there: for the owner only, and never through somebody's link.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}

fn name(session: SessionId) -> String {
    format!("session-{session}.spill")
}

/// Whether a file is one that [`name`] may have named.
fn is_ours(name: &str) -> bool {
    let numbers = name
        .strip_prefix("session-")
        .and_then(|rest| rest.strip_suffix(".spill"))
        .and_then(|rest| rest.split_once('-'));
    numbers.is_some_and(|(worker, number)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits(worker) && digits(number)
    })
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
