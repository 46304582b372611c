//! The page of `lockstepd.toml` has the keys that the daemon reads, section by section.

use crate::source::{SourceFile, Token};
use crate::{assert_none, root, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Where the sections are read.
const CODE: &str = "ctl/core/src/config";
/// Where they are described.
const PAGE: &str = "docs/src/operations/lockstepd.md";

/// The keys of the structs that the file is read into: those where an unknown key is an error.
fn keys(file: &SourceFile) -> BTreeMap<String, BTreeSet<String>> {
    let mut structs = BTreeMap::new();
    let (mut strict, mut at) = (false, 0);
    while at < file.tokens.len() {
        match file.tokens[at].text.as_str() {
            "deny_unknown_fields" => strict = !file.tokens[at].test,
            "enum" | "fn" | "impl" => strict = false,
            "struct" if strict => {
                let name = file.tokens[at + 1].text.clone();
                structs.insert(name, fields(&file.tokens[at + 2..]));
                strict = false;
            }
            _ => {}
        }
        at += 1;
    }
    structs
}

/// The fields of a struct from its braces on, by the names that the file has for them.
fn fields(tokens: &[Token]) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let (mut depth, mut renamed) = (0, None);
    for (at, token) in tokens.iter().enumerate() {
        let next = |n: usize| tokens.get(at + n).map_or("", |token| token.text.as_str());
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            "rename" if next(1) == "=" => renamed = Some(next(2).trim_matches('"').to_owned()),
            // A name and one colon; a path has two.
            name if depth == 1 && name != ":" && next(1) == ":" && next(2) != ":" => {
                let name = name.trim_start_matches("r#");
                fields.insert(renamed.take().unwrap_or_else(|| name.to_owned()));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    fields
}

/// The keys of each section that the page describes: rows of tables that begin with `key`.
fn documented(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut section, mut in_table) = (String::new(), false);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches(['`', '[', ']']).to_owned();
            sections.entry(section.clone()).or_default();
        }
        in_table = line.starts_with("| key |") || in_table && line.starts_with('|');
        let key = line
            .strip_prefix("| `")
            .and_then(|row| row.split('`').next());
        if let Some(key) = key.filter(|_| in_table) {
            sections
                .entry(section.clone())
                .or_default()
                .insert(key.to_owned());
        }
    }
    sections
}

/// The keys of each section that is read: those of `[x]` are in `x.rs`, and in what it has beside it.
fn read() -> BTreeMap<String, BTreeSet<String>> {
    let document = keys(&SourceFile::read(&root(), &format!("{CODE}.rs")));
    let [(_, sections)] = document.iter().collect::<Vec<_>>()[..] else {
        panic!("{CODE}.rs has another number of documents than one: {document:?}");
    };
    let files = text::files(&root());
    let files = files
        .iter()
        .filter(|path| path.starts_with(&format!("{CODE}/")));
    let mut read: BTreeMap<String, BTreeSet<String>> = sections
        .iter()
        .map(|s| (s.clone(), BTreeSet::new()))
        .collect();
    for path in files.filter(|path| path.ends_with(".rs")) {
        let file = path.trim_start_matches(&format!("{CODE}/"));
        let home = file.split(['/', '.']).next().unwrap_or(file);
        for (name, keys) in keys(&SourceFile::read(&root(), path)) {
            let section = section_of(home, &name);
            read.entry(section).or_default().extend(keys);
        }
    }
    read
}

/// The section that a struct of a file is of.
fn section_of(file: &str, name: &str) -> String {
    match file {
        // Three sections of few keys share a file.
        "operation" => name.trim_start_matches("Raw").to_lowercase(),
        // A key of a peer.
        "bfd" => "bgp".to_owned(),
        file => file.to_owned(),
    }
}

#[test]
fn every_key_of_lockstepd_toml_is_documented_and_every_documented_one_is_read() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let (read, documented) = (read(), documented(&page));
    assert!(read.len() > 3, "{CODE} has its sections otherwise now");
    let sections: BTreeSet<&String> = read.keys().chain(documented.keys()).collect();
    let mut found = Vec::new();
    for section in sections {
        match (read.get(section), documented.get(section)) {
            (Some(read), Some(documented)) => {
                let missing = read.difference(documented);
                found.extend(
                    missing.map(|key| format!("{PAGE}: `{key}` of [{section}] is missing")),
                );
                let unknown = documented.difference(read);
                found.extend(unknown.map(|key| format!("{PAGE}: [{section}] has no key `{key}`")));
            }
            (Some(_), None) => found.push(format!("{PAGE}: [{section}] has no heading")),
            (None, Some(keys)) if !keys.is_empty() => {
                found.push(format!("{PAGE}: there is no section [{section}]"));
            }
            (None, _) => {}
        }
    }
    assert_none("The keys of lockstepd.toml and their page:", found);
}

#[test]
fn keys_are_found_by_the_names_of_the_file() {
    let text = "
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RawPeer {
            #[serde(default, rename = \"of\")]
            number: Option<std::num::NonZero<u32>>,
            pub(super) map: BTreeMap<String, a::B>,
            r#as: u32,
        }
        struct Other { hidden: u8 }
        #[serde(deny_unknown_fields)]
        enum Not { A { b: u8 } }
        struct Another { hidden: u8 }";
    let found = keys(&SourceFile::parse("x.rs", text));
    let expected: BTreeSet<String> = ["as", "map", "of"].map(str::to_owned).into();
    assert_eq!(found, BTreeMap::from([("RawPeer".to_owned(), expected)]));
    let page = "## `[a]`\n| key | what |\n|---|---|\n| `x` | |\n\n| path | |\n| `y` | |\n### `[[a.b]]`\n| key |\n| `z` |\n";
    let expected: BTreeSet<String> = ["x", "z"].map(str::to_owned).into();
    assert_eq!(
        documented(page),
        BTreeMap::from([("a".to_owned(), expected)])
    );
}
