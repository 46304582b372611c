//! What was handed out, on disk: a line for each [`Record`], synced before anybody hears of it.
//!
//! A line that was being written when the power went was heard by nobody, and is cut off. One that
//! is damaged otherwise is an error: to go on without it could hand out other numbers.

use super::super::disk;
use lockstep_ctl_core::drains::Timestamp;
use lockstep_ctl_core::random::book::{Book, Record};
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The largest log that is read, in bytes. It is written anew long before.
const MAX_LOG: u64 = 2 << 30;
/// What a log may be larger than what is kept in it needs, before it is written anew.
const SLACK: u64 = 1 << 20;

/// A book, and the file it stands in.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    book: Book,
    /// `None` where the file has to be written anew first: something went wrong with the last
    /// line.
    file: Option<File>,
    length: u64,
    /// The length at which it is written anew.
    rewrite_at: u64,
}

/// Why something cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

impl Log {
    /// Reads what was kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: PathBuf) -> Result<Self, NotKept> {
        let error = |error: io::Error| NotKept(format!("cannot read {}: {error}", path.display()));
        let bytes = disk::read(&path, MAX_LOG).map_err(error)?;
        let mut book = Book::default();
        let bytes = bytes.unwrap_or_default();
        for (at, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let record = std::str::from_utf8(line).ok().and_then(Record::from_line);
            let record = record.ok_or_else(|| {
                NotKept(format!(
                    "{} is damaged in line {}; move the file away, and what it has of random \
                     numbers is forgotten",
                    path.display(),
                    at + 1
                ))
            })?;
            book.keep(record);
        }
        Ok(Log {
            path,
            book,
            file: None,
            length: 0,
            rewrite_at: 0,
        })
    }

    /// What is kept.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// Whether one more can be kept; for a session, which client's it is.
    ///
    /// # Errors
    /// When it cannot.
    pub fn has_room(&mut self, client: Option<IpAddr>, now: Timestamp) -> Result<(), NotKept> {
        let room = self.book.has_room(client, now);
        room.map_err(|full| NotKept(full.to_string()))
    }

    /// Counts something that the group keeps as one more thing that is kept.
    pub fn note(&mut self, record: Record) {
        self.book.keep(record);
    }

    /// Keeps something. It is on disk when this returns.
    ///
    /// # Errors
    /// When it is not, or nobody knows: it must not be handed out then.
    pub fn keep(&mut self, record: Record, now: Timestamp) -> Result<(), NotKept> {
        let room = self.book.make_room(&record, now);
        room.map_err(|full| NotKept(full.to_string()))?;
        if self.file.is_none() || self.length > self.rewrite_at {
            self.rewrite()?;
        }
        let line = record.to_line();
        let written = match &mut self.file {
            Some(file) => append(file, line.as_bytes()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = written {
            // Half of the line may be there, and what the system has of it is not certain.
            self.file = None;
            return Err(cannot(&self.path, &error));
        }
        self.length += line.len() as u64;
        self.book.keep(record);
        Ok(())
    }

    /// Writes a new file with what is kept, in the place of the old one.
    fn rewrite(&mut self) -> Result<(), NotKept> {
        self.file = None;
        let text: String = self.book.records().map(|r| r.to_line()).collect();
        let written = disk::replace(&self.path, text.as_bytes(), 0o600)
            .and_then(|()| File::options().append(true).open(&self.path));
        self.file = Some(written.map_err(|error| cannot(&self.path, &error))?);
        self.length = text.len() as u64;
        self.rewrite_at = 2 * self.length + SLACK;
        Ok(())
    }
}

fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    file.write_all(line)?;
    file.sync_data()
}

fn cannot(path: &Path, error: &io::Error) -> NotKept {
    NotKept(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_ctl_core::random::request::{Key, Range, Which};
    use lockstep_ctl_core::random::{Kept, Numbers};
    use std::fs;

    fn record(num: u16, until: u64) -> Record {
        Record::answer(
            key(num),
            Kept {
                until: Timestamp(until),
                numbers: Numbers::List(vec![1; usize::from(num)]),
            },
        )
    }

    fn key(num: u16) -> Key {
        let range = Range {
            num,
            min: 1,
            max: 6,
        };
        Key::new(range, &Which::Current).unwrap()
    }

    #[test]
    fn what_was_kept_is_there_after_a_crash_in_the_middle_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(path.clone()).unwrap();
        log.keep(record(1, 100), Timestamp(0)).unwrap();
        log.keep(record(2, 100), Timestamp(0)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for cut in text.len() / 2..text.len() {
            fs::write(&path, &text[..cut]).unwrap();
            let mut log = Log::open(path.clone()).unwrap();
            assert_eq!(log.book().len(), 1, "{cut}");
            // What comes after the cut is whole again.
            log.keep(record(3, 100), Timestamp(0)).unwrap();
            assert_eq!(Log::open(path.clone()).unwrap().book().len(), 2);
        }
    }

    #[test]
    fn a_damaged_log_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, record(1, 9).to_line() + "{}\n").unwrap();
        let error = Log::open(path).unwrap_err().to_string();
        assert!(
            error.contains("is damaged in line 2; move the file"),
            "{error}"
        );
    }

    #[test]
    fn a_log_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(path.clone()).unwrap();
        for now in 0..400 {
            log.keep(record(10_000, now + 1), Timestamp(now)).unwrap();
        }
        let length = fs::metadata(&path).unwrap().len();
        assert!(length < 2 * SLACK, "{length} bytes");
        let read = Log::open(path).unwrap();
        let kept = read.book().answer(&key(10_000), Timestamp(399));
        assert_eq!(kept.unwrap().until, Timestamp(400));
    }
}
