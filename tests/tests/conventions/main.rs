//! What the project agreed on and a compiler does not see: who may import whom, where `unsafe`
//! may stand, how long a file is, that every drop reason is used and documented, what may enter
//! the dependency graph, that the documentation names what there is.
//!
//! Each test fails with the list of everything that breaks its rule, as `FILE:LINE: what`.

#![forbid(unsafe_code)]

mod crates;
mod daemon;
mod documentation;
mod package;
mod source;
mod text;
mod tokens;

use source::SourceFile;
use std::path::PathBuf;

/// The workspace's folder.
fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let parent = tests
        .parent()
        .expect("the crate is a folder of the workspace");
    parent.to_owned()
}

/// Fails with everything that was found, and the rule that it breaks.
#[track_caller]
fn assert_none(rule: &str, found: Vec<String>) {
    assert!(
        found.is_empty(),
        "{rule}\n  {}\n({} found)",
        found.join("\n  "),
        found.len()
    );
}

/// Every Rust file of the workspace, read and taken apart.
fn sources() -> Vec<SourceFile> {
    let files = text::files(&root());
    let rust = files.iter().filter(|path| path.ends_with(".rs"));
    let mut sources: Vec<SourceFile> = rust.map(|path| SourceFile::read(&root(), path)).collect();
    source::mark_test_modules(&mut sources);
    assert!(
        sources.len() > 10,
        "the sources are not where they should be"
    );
    sources
}
