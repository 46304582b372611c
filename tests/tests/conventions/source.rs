//! A Rust file as tokens: comments and strings cannot be taken for code, and tests can be told
//! from what ships.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// One token, in the order of the file. Groups are flattened: their brackets are tokens too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The identifier, the punctuation character, a bracket, or a literal as it is written.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
    /// Whether it belongs to a test: a `#[test]` function, a `#[cfg(test)]` item, a test file.
    pub test: bool,
}

/// A Rust file of the workspace.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path from the workspace's folder, with `/`.
    pub path: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Its lines that are not in an inline `#[cfg(test)]` module.
    pub lines: usize,
    /// Whether it holds tests, benchmarks or examples and nothing that ships.
    pub test: bool,
}

impl SourceFile {
    /// Reads a file by its path from the workspace's folder.
    pub fn read(root: &Path, path: &str) -> Self {
        let text = fs::read_to_string(root.join(path)).expect("a file that was listed is there");
        Self::parse(path, &text)
    }

    /// Takes a file's text apart.
    pub fn parse(path: &str, text: &str) -> Self {
        let stream = TokenStream::from_str(text)
            .unwrap_or_else(|error| panic!("{path} is not Rust: {error}"));
        let mut tokens = Vec::new();
        let mut test_lines = 0;
        flatten(stream, is_test_file(path), &mut tokens, &mut test_lines);
        SourceFile {
            path: path.to_owned(),
            tokens,
            lines: text.lines().count() - test_lines,
            test: is_test_file(path),
        }
    }

    /// The modules in other files that it declares for tests only (`#[cfg(test)] mod fixtures;`),
    /// as paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let home = match file {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        let declared = self.tokens.windows(3).filter_map(|window| match window {
            [word, name, end] if word.test && word.text == "mod" && end.text == ";" => Some(name),
            _ => None,
        });
        declared
            .map(|name| format!("{home}/{}", name.text))
            .collect()
    }

    /// Where these tokens stand one after the other.
    pub fn find<'a>(&'a self, pattern: &'a [&str]) -> impl Iterator<Item = &'a Token> {
        let windows = self.tokens.windows(pattern.len());
        windows
            .filter(move |window| {
                let texts = window.iter().map(|token| token.text.as_str());
                texts.eq(pattern.iter().copied())
            })
            .map(|window| &window[0])
    }
}

/// Marks what files declare for tests only in other files.
pub fn mark_test_modules(files: &mut [SourceFile]) {
    let modules: Vec<String> = files.iter().flat_map(SourceFile::test_modules).collect();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        let within = |module: &String| {
            let rest = stem.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if modules.iter().any(within) {
            file.test = true;
            file.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
}

/// A crate's `tests`, `benches`, `examples` and `fuzz` folders, and modules called `tests`. The
/// crate `tests/` itself is the lab, which is code like any other.
fn is_test_file(path: &str) -> bool {
    let inner = path.strip_prefix("tests/").unwrap_or(path);
    let mut parts = inner.split('/');
    parts.any(|part| {
        let kinds = [
            "tests",
            "tests.rs",
            "benches",
            "examples",
            "fuzz",
            "fuzz_targets",
        ];
        kinds.contains(&part)
    })
}

fn flatten(stream: TokenStream, test: bool, tokens: &mut Vec<Token>, test_lines: &mut usize) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    // The item after `#[test]` or `#[cfg(test)]` reaches to its `;` or the end of its braces.
    let mut in_test_item = false;
    let mut item_start = 0;
    for (index, tree) in trees.iter().enumerate() {
        if !in_test_item && is_test_attribute(&trees[index..]) {
            in_test_item = true;
            item_start = tree.span().start().line;
        }
        let test_here = test || in_test_item;
        let push = |tokens: &mut Vec<Token>, text: String, line: usize| {
            tokens.push(Token {
                text,
                line,
                test: test_here,
            });
        };
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                push(tokens, open.to_owned(), group.span_open().start().line);
                flatten(group.stream(), test_here, tokens, test_lines);
                let end = group.span_close().end().line;
                push(tokens, close.to_owned(), end);
                if in_test_item && group.delimiter() == Delimiter::Brace {
                    in_test_item = false;
                    if !test {
                        *test_lines += end + 1 - item_start;
                    }
                }
            }
            TokenTree::Punct(punct) => {
                push(
                    tokens,
                    punct.as_char().to_string(),
                    punct.span().start().line,
                );
                in_test_item &= punct.as_char() != ';';
            }
            other => push(tokens, other.to_string(), other.span().start().line),
        }
    }
}

fn is_test_attribute(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = trees else {
        return false;
    };
    let words: Vec<String> = words(group.stream());
    let is_cfg = words.first().is_some_and(|word| word == "cfg");
    let says_test = words.iter().any(|word| word == "test");
    let negated = words.iter().any(|word| word == "not");
    hash.as_char() == '#'
        && group.delimiter() == Delimiter::Bracket
        && says_test
        && !negated
        && (is_cfg || words.last().is_some_and(|word| word == "test"))
}

fn words(stream: TokenStream) -> Vec<String> {
    let words = stream.into_iter().flat_map(|tree| match tree {
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
    });
    words.collect()
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

#[test]
fn tests_are_told_from_what_ships() {
    let text = "
fn ships() { a.unwrap(); /* b.unwrap() */ \"c.unwrap()\"; }
#[cfg(not(test))]
fn ships_too() { d.unwrap(); }
#[test]
fn tested() { e.unwrap(); }
#[cfg(test)]
use x;
fn ships_as_well() { f.unwrap(); }
#[cfg(all(test, unix))]
mod tests {
    fn helper() { g.unwrap(); }
}
";
    let file = SourceFile::parse("engine/src/main.rs", text);
    let unwraps: Vec<(usize, bool)> = file
        .find(&[".", "unwrap", "(", ")"])
        .map(|token| (token.line, token.test))
        .collect();
    assert_eq!(
        unwraps,
        [(2, false), (4, false), (6, true), (9, false), (12, true)]
    );
    // 13 lines, less the function of two and the module of four.
    assert_eq!(file.lines, 7);
}

#[test]
fn files_of_tests_are_known_by_their_place() {
    let rows = [
        ("engine/wire/src/flow.rs", false),
        ("engine/wire/src/flow/tests.rs", true),
        ("engine/xsk/tests/ring.rs", true),
        ("engine/xsk/benches/ring.rs", true),
        ("engine/wire/examples/ns.rs", true),
        ("tests/src/lab.rs", false),
        ("tests/tests/scenarios/http.rs", true),
        ("topology/src/tests/against_host.rs", true),
    ];
    for (path, test) in rows {
        assert_eq!(is_test_file(path), test, "{path}");
    }
}

#[test]
fn a_module_that_is_declared_for_tests_only_is_one_with_all_that_is_in_it() {
    let mut files = [
        ("a/src/lib.rs", "#[cfg(test)]\nmod fixtures;\nmod fix;"),
        ("a/src/fixtures.rs", "mod packets;"),
        ("a/src/fixtures/packets.rs", "fn f() {}"),
        ("a/src/fix.rs", "#[cfg(test)] mod made;"),
        ("a/src/fix/made.rs", "fn f() {}"),
        ("a/src/made.rs", "fn f() {}"),
    ]
    .map(|(path, text)| SourceFile::parse(path, text));
    mark_test_modules(&mut files);
    let test = files.each_ref().map(|file| file.test);
    assert_eq!(test, [false, true, true, false, true, false]);
    assert!(files[2].tokens.iter().all(|token| token.test));
}
