//! Rules about any file of the project.

use crate::{assert_none, root};
use std::fs;
use std::path::Path;

/// Folders that hold what was built or is not ours.
const NOT_OURS: [&str; 3] = [".git", "target", "perf/out"];

/// Every file of the project, as paths from its folder with `/`, in order. Not by git: an archive
/// without its history is checked too.
pub fn files(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder of ours can be read") {
            let entry = entry.expect("a folder of ours can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = match folder.as_str() {
                "" => name.clone(),
                folder => format!("{folder}/{name}"),
            };
            let kind = entry.file_type().expect("an entry has a type");
            let ours = !NOT_OURS.contains(&path.as_str()) && name != "target";
            if kind.is_dir() && ours {
                folders.push(path);
            } else if kind.is_file() && ours {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A path of the machine that it was written on is right nowhere else.
#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    // In two parts, so that this file does not name one either.
    let homes = [
        ("/wor", "k/"),
        ("/hom", "e/"),
        ("/User", "s/"),
        ("/roo", "t/"),
    ];
    let homes = homes.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for path in files(&root()) {
        // What is not text has no paths to read.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if homes.iter().any(|home| names_a_path(line, home)) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    assert_none("Paths of a machine do not belong here:", found);
}

/// Whether `home` begins a path in the line, and is not a part of an address or a longer path.
fn names_a_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/~".contains(c))
    })
}

#[test]
fn a_path_is_told_from_a_part_of_one() {
    let home = format!("/hom{}", "e/");
    for (line, is) in [
        (format!("cd {home}x"), true),
        (format!("\"{home}x\""), true),
        (format!("https://example.com{home}x"), false),
        (format!("$ROOT/{home}"), false),
        ("home/x".to_owned(), false),
    ] {
        assert_eq!(names_a_path(&line, &home), is, "{line}");
    }
}

#[test]
fn what_was_built_is_not_taken_for_source() {
    let files = files(&root());
    assert!(files.contains(&"Cargo.toml".to_owned()));
    assert!(files.contains(&"tests/tests/conventions/text.rs".to_owned()));
    let built = files.iter().find(|path| path.contains("target/"));
    assert_eq!(built, None);
}
