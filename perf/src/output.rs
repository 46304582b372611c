//! Where results go: files that are whole or not there, and a terminal that may be gone.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fmt::Arguments;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// As the standard library's, but what cannot be printed ends nothing: a measurement of an hour does
/// not fail since `head` has read enough.
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// See [`println`].
macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

/// See [`println`].
macro_rules! eprintln {
    () => { $crate::output::tell(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints to standard output, if there is one.
pub fn print(text: Arguments<'_>) {
    let Err(error) = std::io::stdout().lock().write_fmt(text) else {
        return;
    };
    // Who has closed a pipe knows it.
    if error.kind() != ErrorKind::BrokenPipe {
        static SAID: Once = Once::new();
        SAID.call_once(|| eprintln!("cannot print to standard output: {error}"));
    }
}

/// Prints to standard error, if there is one.
pub fn tell(text: Arguments<'_>) {
    // There is nowhere else to say it.
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// Bytes that there has to be room for: more than any file of results has.
const ROOM: usize = 256 * 1024;

/// The directory, beside whole results, of those that are not.
const PARTIAL: &str = "partial";

/// Where the results of a run go that was not of everything: they do not take the place of whole ones.
pub fn partial(results: &Path) -> PathBuf {
    results.join(PARTIAL)
}

/// The file for the results of a run: the one that was named, else the usual one; beside that, and it is said,
/// where the run `lacks` something.
pub fn place(named: Option<&PathBuf>, usual: &str, lacks: Option<&str>) -> PathBuf {
    match (named, lacks) {
        (Some(named), _) => named.clone(),
        (None, None) => usual.into(),
        (None, Some(lacks)) => {
            let file = partial_file(Path::new(usual));
            say_where(lacks, &file);
            file
        }
    }
}

/// Says that results do not go where whole ones go.
pub fn say_where(lacks: &str, to: &Path) {
    eprintln!(
        "A run with {lacks} does not take the place of a whole one: its results go to {}",
        to.display()
    );
}

fn partial_file(output: &Path) -> PathBuf {
    let directory = output.parent().unwrap_or(Path::new(""));
    partial(directory).join(output.file_name().unwrap_or_default())
}

/// Whether results can be written there, tried before anything is measured.
///
/// # Errors
///
/// When they cannot.
pub fn must_be_writable(directory: &Path) -> Result<()> {
    let directory = named(directory);
    let advice = || {
        format!(
            "no results can be written into {}: name a directory with --results, or a file with \
             --output, that can be written",
            directory.display()
        )
    };
    fs::create_dir_all(directory).with_context(advice)?;
    ensure!(directory.is_dir(), "{}", advice());
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(advice)?;
    has_room(file.as_file_mut()).with_context(advice)
}

/// On a disk that is full a file can be made, but nothing written.
fn has_room(file: &mut fs::File) -> Result<()> {
    file.write_all(&[0; ROOM])?;
    Ok(file.sync_all()?)
}

/// The same for a file's directory, and the file itself.
///
/// # Errors
///
/// When it cannot be written.
pub fn file_must_be_writable(output: &Path) -> Result<()> {
    if is_no_file(output) && !output.is_dir() {
        return Ok(());
    }
    ensure!(
        !output.is_dir() && output.file_name().is_some(),
        "{} is no file that results could be written to",
        output.display()
    );
    must_be_writable(output.parent().unwrap_or(Path::new("")))
}

/// Writes results as JSON, and says where.
///
/// # Errors
///
/// When they cannot be written; what was there before is there then.
pub fn write(output: &Path, rows: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    write_bytes(output, text.as_bytes())?;
    println!("written to {}", output.display());
    Ok(())
}

/// Writes a file.
///
/// # Errors
///
/// When it cannot be written; what was there before is there then.
pub fn write_bytes(output: &Path, bytes: &[u8]) -> Result<()> {
    replace(output, bytes).with_context(|| format!("cannot write {}", output.display()))
}

/// A file is the old one or the new one, whatever happens meanwhile.
fn replace(output: &Path, bytes: &[u8]) -> Result<()> {
    if is_no_file(output) {
        return Ok(fs::write(output, bytes)?);
    }
    // Of a link, what it leads to.
    let to = fs::canonicalize(output);
    let output = to.as_deref().unwrap_or(output);
    let directory = named(output.parent().unwrap_or(Path::new("")));
    fs::create_dir_all(directory)?;
    // The user's mask takes what others may not.
    let mut file = tempfile::Builder::new()
        .prefix(".lockstep-perf-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    if let Ok(old) = fs::metadata(output) {
        // What root measures in a user's checkout stays the user's. Not root's to give: then it was not.
        let _ = fchown(file.as_file(), Some(old.uid()), Some(old.gid()));
    }
    file.as_file().sync_all()?;
    file.persist(output)?;
    Ok(())
}

/// Whether something else is there, such as a device or a pipe: nothing can take its place.
fn is_no_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| !there.is_file())
}

/// The parent of a name alone is the working directory.
fn named(directory: &Path) -> &Path {
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("new/core.json");
        write(&file, &[1]).expect("it is written");
        write(&file, &[2]).expect("it is replaced");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "[\n  2\n]\n");
        let beside = fs::read_dir(file.parent().expect("new")).expect("a directory");
        assert_eq!(beside.count(), 1);
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
    }

    #[test]
    fn a_device_stays_one_and_a_link_leads_to_the_same_file() {
        file_must_be_writable(Path::new("/dev/null")).expect("it can be written");
        write(Path::new("/dev/null"), &[1]).expect("it takes everything");
        assert!(is_no_file(Path::new("/dev/null")));
        let directory = tempfile::tempdir().expect("a directory");
        let [file, link] = ["file", "link"].map(|name| directory.path().join(name));
        fs::write(&file, "old").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        write(&link, &[1]).expect("it is written");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "[\n  1\n]\n");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("results");
        fs::write(&file, "whole").expect("a file");
        let error = must_be_writable(&file).expect_err("a file is no directory");
        assert!(format!("{error:#}").contains(&file.display().to_string()));
        assert!(must_be_writable(&file.join("below")).is_err());
        assert!(write(&file.join("core.json"), &[1]).is_err());
        assert_eq!(fs::read_to_string(&file).expect("a file"), "whole");
        assert!(file_must_be_writable(directory.path()).is_err());
        file_must_be_writable(&file).expect("it can be replaced");
    }

    #[test]
    fn a_disk_that_is_full_is_told_before() {
        let directory = tempfile::tempdir().expect("a directory");
        must_be_writable(directory.path()).expect("there is room");
        let left = fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(left.count(), 0);
        let full = fs::File::options().write(true).open("/dev/full");
        let error = has_room(&mut full.expect("Linux has it")).expect_err("it is full");
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
    }

    #[test]
    fn what_is_not_whole_has_a_place_of_its_own() {
        let usual = "perf/results/core.json";
        assert_eq!(place(None, usual, None), Path::new(usual));
        assert_eq!(
            place(None, usual, Some("few rounds")),
            Path::new("perf/results/partial/core.json")
        );
        let named = PathBuf::from("mine.json");
        assert_eq!(place(Some(&named), usual, Some("few rounds")), named);
        assert_eq!(
            partial_file(Path::new("a.json")),
            Path::new("partial/a.json")
        );
    }
}
