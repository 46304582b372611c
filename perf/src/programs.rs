//! The programs that a measurement starts: looked for before it begins, not an hour later.

use anyhow::{Result, ensure};
use lockstep_tests::lab::find_binary;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What every lab needs.
pub const LAB: &[&str] = &[
    "ip", "nft", "tc", "ss", "ethtool", "sysctl", "taskset", "chrt",
];
/// Ours, which are beside this one.
pub const OURS: &[&str] = &["lockstep", "lockstepd", "lockstep-engine"];
/// nginx's module for streams, which is a package of its own.
pub const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// Of tests, which measure the programs in the directory that it names; here it can only mislead.
const PROGRAMS: &str = "LOCKSTEP_PROGRAMS";

/// Refuses to begin without these: names that are looked for on the PATH, files, and [`OURS`].
///
/// # Errors
///
/// When any of them is missing: with all that are, and how to get them.
pub fn must_be_there(wanted: &BTreeSet<&str>) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = missing(wanted, &path);
    ensure!(
        missing.is_empty(),
        "These programs are missing: {}. `make deps` installs them.",
        missing.join(", ")
    );
    if !OURS.iter().any(|name| wanted.contains(name)) {
        return Ok(());
    }
    for name in OURS {
        let found = find_binary(name)?;
        agrees(&found, std::env::var_os(PROGRAMS).map(PathBuf::from))?;
    }
    Ok(())
}

fn missing<'a>(wanted: &BTreeSet<&'a str>, path: &OsStr) -> Vec<&'a str> {
    let there = |name: &str| {
        let mut directories = std::env::split_paths(path);
        match name.starts_with('/') {
            true => Path::new(name).exists(),
            false => directories.any(|directory| directory.join(name).is_file()),
        }
    };
    let others = wanted.iter().filter(|name| !OURS.contains(name));
    others.copied().filter(|name| !there(name)).collect()
}

/// What is measured is beside this program; who names another directory would be told of other programs.
fn agrees(found: &Path, named: Option<PathBuf>) -> Result<()> {
    let Some(named) = named else { return Ok(()) };
    let program = named.join(found.file_name().unwrap_or_default());
    let same = match (program.canonicalize(), found.canonicalize()) {
        (Ok(program), Ok(found)) => program == found,
        _ => false,
    };
    ensure!(
        same,
        "{PROGRAMS} names {}, but what is measured is {}: run the lockstep-perf of that directory, or unset it",
        program.display(),
        found.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("wrk"), "").expect("a file");
        let wanted = BTreeSet::from(["wrk", "nginx", "haproxy", "/nowhere/module.so", "lockstepd"]);
        let found = missing(&wanted, directory.path().as_os_str());
        assert_eq!(found, ["/nowhere/module.so", "haproxy", "nginx"]);
        assert_eq!(missing(&wanted, OsStr::new("")).len(), 4);
        let error = must_be_there(&BTreeSet::from(["no-such-program"])).expect_err("it is not");
        assert!(
            error.to_string().contains("no-such-program. `make deps`"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_of_other_programs_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = directory.path().join("lockstep-engine");
        std::fs::write(&engine, "").expect("a file");
        assert!(agrees(&engine, None).is_ok());
        assert!(agrees(&engine, Some(directory.path().into())).is_ok());
        let error = agrees(&engine, Some("/nope".into())).expect_err("it is not there");
        assert!(
            error.to_string().contains("/nope/lockstep-engine"),
            "{error}"
        );
        let other = tempfile::tempdir().expect("a directory");
        std::fs::write(other.path().join("lockstep-engine"), "").expect("a file");
        assert!(agrees(&engine, Some(other.path().into())).is_err());
    }
}
