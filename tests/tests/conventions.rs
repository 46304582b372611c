//! What the architecture fixes, checked on the sources: who may import whom, where `unsafe` and an
//! operating system may be, that every drop reason is given, that nothing waits by sleeping.

#![allow(clippy::unwrap_used, reason = "a test")]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use lockstep_plan::DropReason;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest source file, tests apart.
const LINES_MAX: usize = 600;
/// The only crate that may contain `unsafe`.
const UNSAFE: &str = "lockstep-xsk";
/// Crates that build without an operating system.
const SANS_IO: [&str; 3] = ["lockstep-wire", "lockstep-plan", "lockstep-core"];

/// A crate imports only from tiers below its own.
const TIERS: [(&str, u8); 12] = [
    ("lockstep-perf", 4),
    ("lockstep-tests", 3),
    ("lockstep-engine", 3),
    ("lockstep-ctl", 3),
    ("lockstep-core", 2),
    ("lockstep-ctl-core", 2),
    ("lockstep-plan", 1),
    ("lockstep-xsk", 1),
    ("lockstep-topology", 1),
    ("lockstep-api", 1),
    ("lockstep-wire", 0),
    ("lockstep-bpf", 0),
];

#[test]
fn imports_go_down_only() {
    for package in workspace().workspace_packages() {
        let own = tier(&package.name);
        let imports = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development);
        for import in imports.filter(|d| d.name.starts_with("lockstep-")) {
            let (user, used) = (&package.name, &import.name);
            assert!(
                tier(used) < own,
                "{user} must not import {used}: imports go down only"
            );
        }
    }
}

#[test]
fn unsafe_is_forbidden_in_every_crate_but_one() {
    for package in workspace().workspace_packages() {
        for root in package.targets.iter().filter(|t| t.is_lib() || t.is_bin()) {
            let text = fs::read_to_string(&root.src_path).unwrap();
            let forbidden = text.contains("#![forbid(unsafe_code)]");
            assert_eq!(forbidden, *package.name != UNSAFE, "{}", root.src_path);
        }
    }
}

#[test]
fn the_dataplane_knows_no_operating_system() {
    for package in workspace().workspace_packages() {
        if SANS_IO.contains(&package.name.as_str()) {
            let root = root_of(package).join("src/lib.rs");
            let text = fs::read_to_string(&root).unwrap();
            assert!(text.contains("#![no_std]"), "{}", root.display());
        }
    }
}

#[test]
fn every_drop_reason_is_given_somewhere() {
    let metadata = workspace();
    let code: String = ["engine/core/src", "engine/src"]
        .iter()
        .flat_map(|dir| sources(&metadata.workspace_root.as_std_path().join(dir)))
        .filter(|path| !is_test(path))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for reason in DropReason::ALL {
        let given = code.contains(&format!("DropReason::{reason:?}"));
        assert!(
            given,
            "nothing drops a packet as {reason}: its counter can only be 0"
        );
    }
}

#[test]
fn files_stay_readable_and_nothing_sleeps_to_wait() {
    for package in workspace().workspace_packages() {
        for path in sources(&root_of(package)) {
            let text = fs::read_to_string(&path).unwrap();
            if !is_test(&path) {
                let lines = text.lines().count();
                assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
            }
            let sleeps = text.contains(concat!("thread::", "sleep"));
            assert!(
                !sleeps || path.ends_with("tests/src/lab/wait.rs"),
                "{} sleeps: wait for a condition instead",
                path.display()
            );
        }
    }
}

fn workspace() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .unwrap()
}

fn tier(name: &str) -> u8 {
    let entry = TIERS.iter().find(|(known, _)| *known == name);
    entry
        .unwrap_or_else(|| panic!("{name} has no tier: say where it stands"))
        .1
}

fn root_of(package: &Package) -> PathBuf {
    package
        .manifest_path
        .parent()
        .unwrap()
        .as_std_path()
        .to_owned()
}

/// The Rust files below a directory, those of packages further down apart.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.join("Cargo.toml").exists() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// `tests.rs`, or something below a directory `tests` of a package.
fn is_test(path: &Path) -> bool {
    let in_tests = path.parent().is_some_and(|dir| dir.ends_with("tests"));
    path.ends_with("tests.rs") || in_tests
}
