//! The documentation says what the code does: names that stand in both stand in both alike.

use crate::source::{SourceFile, Token};
use crate::{assert_none, root, sources, text};
use std::collections::BTreeSet;
use std::fs;

/// The pages of the book.
const BOOK: &str = "docs/src";
/// Files that a command of ours writes: named in the documentation, not there in a clean checkout.
const WRITTEN_LATER: [&str; 2] = ["perf/results/core.json", "target/release"];
/// What every path of the project begins with, as far as the documentation names it.
const FOLDERS: [&str; 10] = [
    ".ci/",
    "bpf/",
    "ctl/",
    "docs/",
    "engine/",
    "perf/",
    "scripts/",
    "target/",
    "tests/",
    "topology/",
];

/// A page: its path from the workspace's folder, and its text.
struct Page {
    path: String,
    text: String,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        Page {
            path: path.to_owned(),
            text: text.unwrap_or_else(|error| panic!("{path}: {error}")),
        }
    }

    /// Its lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The rows of its tables, as cells.
    fn rows(&self) -> impl Iterator<Item = Vec<&str>> {
        self.text
            .lines()
            .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
    }
}

/// README and book.
fn pages() -> Vec<Page> {
    let files = text::files(&root());
    let pages: Vec<Page> = files
        .iter()
        .filter(|path| *path == "README.md" || is_of_book(path))
        .map(|path| Page::read(path))
        .collect();
    assert!(pages.len() > 10, "the pages are not where they should be");
    pages
}

fn is_of_book(path: &str) -> bool {
    path.starts_with(BOOK) && path.ends_with(".md")
}

/// The code spans of a line: what stands between backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Where the links of a line lead, `[text](here)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let ends = line.match_indices("](");
    ends.filter_map(|(at, _)| line[at + 2..].split(')').next())
}

/// What is in one set and not in the other, both ways.
fn differences(
    code: &BTreeSet<String>,
    in_code: &str,
    page: &BTreeSet<String>,
    in_page: &str,
) -> Vec<String> {
    let only_code = code.difference(page);
    let only_page = page.difference(code);
    only_code
        .map(|name| format!("{in_page}: `{name}` is missing, which {in_code} has"))
        .chain(only_page.map(|name| format!("{in_page}: `{name}` is not in {in_code}")))
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let code = "engine/src/agent/metrics.rs";
    let files = [
        code,
        "engine/src/agent/metrics/sessions.rs",
        "ctl/src/daemon/exporter/page.rs",
        "ctl/src/daemon/exporter/page/cluster.rs",
        "ctl/src/daemon/exporter/page/parts.rs",
    ];
    let names: BTreeSet<String> = files
        .iter()
        .flat_map(|file| SourceFile::read(&root(), file).tokens)
        .filter(|token| !token.test && token.text.starts_with("\"lockstep_"))
        .map(|token| token.text.trim_matches('"').to_owned())
        .collect();
    assert!(names.len() > 10, "{code} names its metrics otherwise now");
    let page = Page::read("docs/src/operations/metrics.md");
    // Name, type, labels, meaning: the page has other tables too.
    let documented = page
        .rows()
        .filter(|cells| cells.len() == 4)
        .filter_map(|cells| Some(code_spans(cells[0]).next()?.to_owned()))
        .collect();
    let found = differences(&names, code, &documented, &page.path);
    assert_none("Metrics and their page:", found);
}

#[test]
fn every_command_is_documented_and_every_documented_one_exists() {
    let commands = commands("cli", "lockstep");
    assert!(commands.contains("lockstep status"), "{commands:?}");
    assert!(
        commands.contains("lockstep topology detect"),
        "{commands:?}"
    );
    let page = Page::read("docs/src/operations/commands.md");
    let documented = page
        .text
        .lines()
        .filter(|line| line.starts_with('#'))
        .flat_map(code_spans)
        .filter(|span| span.starts_with("lockstep "))
        .map(str::to_owned)
        .collect();
    let found = differences(&commands, "ctl/src/cli.rs", &documented, &page.path);
    assert_none("Commands and their page:", found);
}

/// The commands that a module's `enum Command` makes, those inside of other ones included.
fn commands(module: &str, before: &str) -> BTreeSet<String> {
    let file = SourceFile::read(&root(), &format!("ctl/src/{module}.rs"));
    let mut commands = BTreeSet::new();
    for (name, payload) in variants(&file, "Command") {
        let command = format!("{before} {}", name.to_lowercase());
        match payload.as_slice() {
            [inner, .., last] if last == "Command" => {
                commands.extend(self::commands(&format!("cli/{inner}"), &command));
            }
            _ => {
                commands.insert(command);
            }
        }
    }
    commands
}

/// The variants of an enum with the tokens of what they hold.
fn variants(file: &SourceFile, name: &str) -> Vec<(String, Vec<String>)> {
    let is_enum = |window: &[Token]| {
        let texts = window.iter().map(|token| token.text.as_str());
        texts.eq(["enum", name, "{"])
    };
    let start = file.tokens.windows(3).position(is_enum);
    let start = start.unwrap_or_else(|| panic!("{} has no enum {name}", file.path)) + 3;
    let mut variants: Vec<(String, Vec<String>)> = Vec::new();
    let (mut depth, mut in_payload) = (1, false);
    for token in &file.tokens[start..] {
        match token.text.as_str() {
            "(" | "{" | "[" => {
                in_payload |= depth == 1 && token.text != "[";
                depth += 1;
            }
            ")" | "}" | "]" => {
                depth -= 1;
                in_payload &= depth > 1;
            }
            text if in_payload => {
                if let Some((_, payload)) = variants.last_mut() {
                    payload.push(text.to_owned());
                }
            }
            "#" | "," => {}
            text if depth == 1 => variants.push((text.to_owned(), Vec::new())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    variants
}

#[test]
fn the_variants_of_an_enum_are_found_with_what_they_hold() {
    let text = "
        enum Other { A }
        enum Command {
            /// Looks
            Check(check::Arguments),
            #[command(subcommand)]
            Decap(decap::Command),
            Status,
        }
        enum Last { B }";
    let file = SourceFile::parse("x.rs", text);
    let variants = variants(&file, "Command");
    let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Check", "Decap", "Status"]);
    assert_eq!(variants[1].1, ["decap", ":", ":", "Command"]);
    assert!(variants[2].1.is_empty());
}

#[test]
fn the_key_tables_of_topology_toml_are_those_of_its_crate() {
    let source = Page::read("topology/src/lib.rs");
    let page = Page::read("docs/src/operations/topology.md");
    let rows: Vec<&str> = source
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert!(
        rows.len() > 10,
        "{} has its tables otherwise now",
        source.path
    );
    let of_page: Vec<&str> = page.text.lines().filter(|l| l.starts_with("| `")).collect();
    let missing = rows.iter().filter(|row| !of_page.contains(row));
    let unknown = of_page.iter().filter(|row| !rows.contains(row));
    let found = missing
        .map(|row| format!("{}: missing: {row}", page.path))
        .chain(unknown.map(|row| format!("{}: not in the source: {row}", page.path)))
        .collect();
    assert_none("The keys of topology.toml and their page:", found);
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = Page::read("Cargo.toml");
    let manifest: toml::Table = manifest.text.parse().expect("Cargo.toml is TOML");
    let names: BTreeSet<String> = manifest["workspace"]["dependencies"]
        .as_table()
        .expect("dependencies are a table")
        .keys()
        .filter(|name| !name.starts_with("lockstep-"))
        .cloned()
        .collect();
    let page = Page::read("docs/src/adr/0006-dependencies.md");
    let documented = page
        .rows()
        .filter_map(|cells| cells.first().copied())
        .flat_map(code_spans)
        .map(str::to_owned)
        .collect();
    let found = differences(&names, "Cargo.toml", &documented, &page.path);
    assert_none("Dependencies and their page:", found);
}

#[test]
fn the_readme_shows_the_network_that_the_demo_shows() {
    let demo = Page::read("tests/src/bin/demo.rs");
    let picture = demo
        .text
        .split_once("const PICTURE: &str = \"\n")
        .and_then(|(_, rest)| rest.split_once("\n\";"))
        .map(|(picture, _)| picture.trim_end());
    let picture = picture.expect("the demo has its picture in a constant");
    let readme = Page::read("README.md");
    assert!(
        readme.text.contains(picture),
        "README.md shows another picture than the demo:\n{picture}"
    );
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let summary = Page::read(&format!("{BOOK}/SUMMARY.md"));
    let listed: Vec<String> = summary
        .text
        .lines()
        .flat_map(links)
        .map(|link| format!("{BOOK}/{link}"))
        .collect();
    let set: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(
        set.len(),
        listed.len(),
        "a page stands twice in {}",
        summary.path
    );
    let files: BTreeSet<String> = text::files(&root())
        .into_iter()
        .filter(|path| is_of_book(path) && *path != summary.path)
        .collect();
    let found = differences(&files, BOOK, &set, &summary.path);
    assert_none("Pages and the table of contents:", found);
}

#[test]
fn every_test_of_the_failure_matrix_exists() {
    let sources = sources();
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|file| file.tokens.windows(2))
        .filter(|pair| pair[0].text == "fn" && pair[1].test)
        .map(|pair| pair[1].text.as_str())
        .collect();
    let (mut found, mut rows) = (Vec::new(), 0);
    for path in ["docs/src/operations/failures.md", "docs/src/sessions.md"] {
        let page = Page::read(path);
        // Tables whose last column is the test; the heads are rows as well.
        let mut is_matrix = false;
        for cells in page.rows() {
            if cells.last().is_some_and(|cell| *cell == "test") {
                is_matrix = true;
                continue;
            }
            let Some(cell) = cells.last().filter(|_| is_matrix) else {
                continue;
            };
            rows += 1;
            let mut named = code_spans(cell).peekable();
            if named.peek().is_none() {
                found.push(format!("{}: no test: {}", page.path, cells.join(" | ")));
            }
            let unknown = named.filter(|name| !tests.contains(name));
            found.extend(unknown.map(|name| format!("{}: no test {name}", page.path)));
        }
    }
    assert!(
        rows > 40,
        "the failure matrices have their tables otherwise now"
    );
    assert_none("The tests of the failure matrix:", found);
}

#[test]
fn every_path_and_link_in_the_documentation_leads_somewhere() {
    let mut found = Vec::new();
    for page in pages() {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in page.lines() {
            let paths = code_spans(line).filter(|span| is_path(span));
            let local = links(line)
                .filter(|link| !link.contains("://") && !link.starts_with('#'))
                .map(|link| resolved(folder, link.split('#').next().unwrap_or(link)));
            let wrong = paths
                .map(str::to_owned)
                .chain(local)
                .filter(|path| !root().join(path).exists())
                .filter(|path| !WRITTEN_LATER.iter().any(|later| path.starts_with(later)));
            found.extend(wrong.map(|path| format!("{}:{number}: {path}", page.path)));
        }
    }
    assert_none("What the documentation points at and is not there:", found);
}

/// Whether a code span is a path of the project and nothing else.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    FOLDERS.iter().any(|folder| span.starts_with(folder)) && span.chars().all(plain)
}

/// A relative link as a path from the workspace's folder.
fn resolved(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn links_and_paths_are_told_from_other_text() {
    let line = "[a](../b.md#c) and `engine/src`, `http://x/y`, [d](https://e.f), `topology.toml`";
    assert_eq!(
        links(line).collect::<Vec<_>>(),
        ["../b.md#c", "https://e.f"]
    );
    let paths: Vec<&str> = code_spans(line).filter(|span| is_path(span)).collect();
    assert_eq!(paths, ["engine/src"]);
    assert_eq!(resolved("docs/src/adr", "../walk.md"), "docs/src/walk.md");
    assert_eq!(resolved("", "docs/src/walk.md"), "docs/src/walk.md");
}
