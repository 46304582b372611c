//! Rules about the dependency graph.

use crate::{assert_none, root};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use spdx::{Expression, LicenseReq, ParseMode};
use std::collections::{BTreeMap, BTreeSet};

/// The tiers of the architecture. Imports go down only.
const TIERS: [(&str, u8); 15] = [
    ("lockstep-wire", 0),
    ("lockstep-bpf", 0),
    ("lockstep-plan", 1),
    ("lockstep-xsk", 1),
    ("lockstep-topology", 1),
    ("lockstep-api", 1),
    ("lockstep-kubernetes", 1),
    ("lockstep-process", 1),
    ("lockstep-core", 2),
    ("lockstep-ctl-core", 2),
    ("lockstep-engine", 3),
    ("lockstep-ctl", 3),
    ("lockstep-tests", 3),
    ("lockstep-perf", 3),
    ("lockstep-counts", 3),
];

/// What goes down and is forbidden all the same, with the reason.
const FORBIDDEN: [(&str, &str, &str); 11] = [
    ("lockstep-core", "lockstep-xsk", SANS_IO),
    ("lockstep-core", "lockstep-bpf", SANS_IO),
    ("lockstep-core", "lockstep-topology", SANS_IO),
    ("lockstep-core", "lockstep-api", SANS_IO),
    ("lockstep-ctl", "lockstep-wire", BY_API),
    ("lockstep-ctl", "lockstep-xsk", BY_API),
    ("lockstep-ctl", "lockstep-core", BY_API),
    ("lockstep-ctl-core", "lockstep-wire", BY_API),
    ("lockstep-ctl-core", "lockstep-xsk", BY_API),
    (
        "lockstep-ctl-core",
        "lockstep-bpf",
        "the control plane's core does no I/O",
    ),
    ("lockstep-api", "lockstep-wire", BY_API),
];
const SANS_IO: &str = "the dataplane takes bytes, time and randomness as arguments";
const BY_API: &str = "the control plane knows the engine by api and plan only";

/// On one tier and allowed: the measurements run in the lab, and measure what the gate counts.
const BESIDE: [(&str, &str); 2] = [
    ("lockstep-perf", "lockstep-tests"),
    ("lockstep-perf", "lockstep-counts"),
];

/// Crates that must build without an operating system.
const NO_OS: [&str; 3] = ["lockstep-wire", "lockstep-plan", "lockstep-core"];

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.current_dir(root());
    command.other_options(["--locked".to_owned()]);
    command
        .exec()
        .expect("cargo metadata answers, from a lock file that is up to date")
}

fn tier(name: &str) -> Option<u8> {
    let found = TIERS.iter().find(|(package, _)| *package == name);
    found.map(|(_, tier)| *tier)
}

/// The root files of the workspace's libraries and programs, as paths from its folder.
pub fn roots() -> BTreeSet<String> {
    let metadata = metadata();
    let targets = metadata
        .workspace_packages()
        .into_iter()
        .flat_map(|p| &p.targets);
    targets
        .filter(|target| target.is_lib() || target.is_bin())
        .filter_map(|target| target.src_path.strip_prefix(&metadata.workspace_root).ok())
        .map(|path| path.as_str().to_owned())
        .collect()
}

#[test]
fn every_crate_has_its_tier() {
    let metadata = metadata();
    let names = metadata
        .workspace_packages()
        .into_iter()
        .map(|p| p.name.as_str());
    let unknown = names.filter(|name| tier(name).is_none()).map(str::to_owned);
    assert_none(
        "Put these into the table of tiers, here and in docs/:",
        unknown.collect(),
    );
}

#[test]
fn imports_go_down_only() {
    let metadata = metadata();
    let mut found = Vec::new();
    for package in metadata.workspace_packages() {
        let own = tier(&package.name).unwrap_or(0);
        for dependency in &package.dependencies {
            let (from, to) = (package.name.as_str(), dependency.name.as_str());
            let Some(other) = tier(to) else { continue };
            // Tests may use a neighbour on their own tier, which never ships with them.
            let beside =
                BESIDE.contains(&(from, to)) || dependency.kind == DependencyKind::Development;
            if !(other < own || beside && other == own) {
                found.push(format!("{from} (tier {own}) imports {to} (tier {other})"));
            }
            let forbidden = FORBIDDEN.iter().find(|(a, b, _)| (*a, *b) == (from, to));
            if let Some((_, _, why)) = forbidden {
                found.push(format!("{from} imports {to}: {why}"));
            }
        }
    }
    assert_none("Imports go down the tiers only:", found);
}

/// `x86_64-unknown-none` in `make lint` shows that they build; this, that they are on its list.
#[test]
fn crates_without_an_operating_system_say_so() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    let checked = makefile.lines().find(|line| line.starts_with("NO_OS :="));
    let checked: Vec<&str> = checked.unwrap_or_default().split_whitespace().collect();
    let metadata = metadata();
    let mut found = Vec::new();
    for package in metadata.workspace_packages() {
        if !NO_OS.contains(&package.name.as_str()) {
            continue;
        }
        if !checked.contains(&package.name.as_str()) {
            found.push(format!("{} is not in NO_OS of the Makefile", package.name));
        }
        let library = package.targets.iter().find(|target| target.is_lib());
        let text = library.and_then(|l| std::fs::read_to_string(&l.src_path).ok());
        // `std` as a feature is allowed: `#![cfg_attr(not(feature = "std"), no_std)]`.
        if !text.is_some_and(|text| text.contains("no_std")) {
            found.push(format!("{} is not `#![no_std]`", package.name));
        }
    }
    assert_none("These know no operating system:", found);
}

#[test]
fn dependencies_come_from_the_registry_with_a_version() {
    let metadata = metadata();
    let mut found = Vec::new();
    for package in &metadata.packages {
        let source = package.source.as_ref();
        if let Some(source) = source.filter(|source| !source.is_crates_io()) {
            found.push(format!("{} comes from {source}", package.name));
        }
    }
    for package in metadata.workspace_packages() {
        let wild = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_none() && dependency.req.to_string() == "*");
        found.extend(wild.map(|d| format!("{} wants any version of {}", package.name, d.name)));
    }
    assert_none("Dependencies are versions on crates.io:", found);
}

/// The part of deny.toml that says which licences may be used.
struct Licences {
    allow: BTreeSet<String>,
    exceptions: BTreeMap<String, BTreeSet<String>>,
}

impl Licences {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).expect("there is a deny.toml");
        let file: toml::Table = text.parse().expect("deny.toml is TOML");
        let strings = |value: &toml::Value| -> BTreeSet<String> {
            let items = value.as_array().expect("a list of licences");
            let texts = items
                .iter()
                .map(|item| item.as_str().expect("an SPDX name"));
            texts.map(str::to_owned).collect()
        };
        let licences = &file["licenses"];
        let exceptions = licences["exceptions"].as_array().expect("a list of crates");
        let exceptions = exceptions.iter().map(|exception| {
            let name = exception["crate"].as_str().expect("the name of a crate");
            (name.to_owned(), strings(&exception["allow"]))
        });
        Licences {
            allow: strings(&licences["allow"]),
            exceptions: exceptions.collect(),
        }
    }

    fn allows(&self, package: &str, licence: &str) -> bool {
        let exception = self.exceptions.get(package);
        let allowed = |requirement: &LicenseReq| {
            let name = requirement.to_string();
            self.allow.contains(&name) || exception.is_some_and(|allow| allow.contains(&name))
        };
        // Cargo's own older form has a slash where SPDX has OR.
        let expression = Expression::parse_mode(licence, ParseMode::LAX);
        expression.is_ok_and(|expression| expression.evaluate(allowed))
    }
}

#[test]
fn licences_of_all_dependencies_are_allowed() {
    let licences = Licences::read();
    let named = |package: &Package| package.license.clone().unwrap_or_else(|| "none".to_owned());
    let found = metadata()
        .packages
        .iter()
        .filter(|package| !licences.allows(&package.name, &named(package)))
        .map(|package| format!("{} {}: {}", package.name, package.version, named(package)))
        .collect();
    assert_none("deny.toml does not allow these licences:", found);
}

#[test]
fn a_licence_expression_is_weighed_as_a_whole() {
    let licences = Licences {
        allow: BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]),
        exceptions: BTreeMap::from([("odd".to_owned(), BTreeSet::from(["CC0-1.0".to_owned()]))]),
    };
    let rows = [
        ("any", "MIT", true),
        ("any", "MIT OR GPL-3.0-only", true),
        ("any", "MIT/GPL-3.0", true),
        ("any", "MIT AND GPL-3.0-only", false),
        ("any", "(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("any", "Apache-2.0 WITH LLVM-exception", false),
        ("any", "CC0-1.0", false),
        ("odd", "CC0-1.0", true),
        ("any", "none", false),
    ];
    for (package, licence, allowed) in rows {
        assert_eq!(
            licences.allows(package, licence),
            allowed,
            "{package}: {licence}"
        );
    }
}
