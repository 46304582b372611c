//! What is wrong with a configuration file, said so that it can be put right at once: file, line,
//! column, what is wrong, what is allowed.
//!
//! `topology.toml` and `services.toml` report through the same types. [`from_toml`] finds
//! everything that the shape of the file gives away (syntax, unknown and missing keys, wrong
//! types), the caller then checks what the values mean and collects that in [`Diagnostics`] too:
//!
//! ```
//! use lockstep_topology::diagnostics::{Diagnostics, Source, from_toml};
//! use toml::Spanned;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct File {
//!     port: Spanned<u16>,
//! }
//!
//! let text = "port = 0\n";
//! let file: File = from_toml("example.toml", text).expect("the shape is right");
//! let source = Source::new("example.toml", text);
//! let mut found = Diagnostics::new();
//! if *file.port.get_ref() == 0 {
//!     found.push(source.error(file.port.span(), "port 0 cannot be listened on").help("1 to 65535"));
//! }
//! assert_eq!(found.to_string(), "example.toml:1:8: port 0 cannot be listened on; 1 to 65535");
//! ```

use std::fmt;
use std::ops::Range;

mod shape;
mod units;

pub use shape::{from_toml, read_toml};

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters (not bytes).
    pub column: usize,
}

/// Whether the configuration can be used as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can be used, but is hardly what was meant.
    Warning,
}

/// One thing that is wrong.
///
/// It prints as one line, `FILE:LINE:COLUMN: MESSAGE; HELP`, the form that editors jump to;
/// warnings have `warning: ` before the message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// Whether the configuration can be used as it is.
    pub severity: Severity,
    /// The file's name, as the operator gave it.
    pub file: String,
    /// Where in the file; `None` when it concerns the file as a whole.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What is allowed, or what to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a position of a file, or about a file as a whole.
    pub fn error(file: &str, position: Option<Position>, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            position,
            message: message.into(),
            help: None,
        }
    }

    /// A warning at a position of a file, or about a file as a whole.
    pub fn warning(file: &str, position: Option<Position>, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(file, position, message)
        }
    }

    /// The same with what is allowed, or what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the file. It prints as one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// None yet.
    pub const fn new() -> Self {
        Diagnostics(Vec::new())
    }

    /// Adds one, at its place in the order of the file. What concerns the file as a whole comes
    /// first.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let at = self
            .0
            .partition_point(|known| known.position <= diagnostic.position);
        self.0.insert(at, diagnostic);
    }

    /// Whether there is nothing to say, not even a warning.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, warnings included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.iter().any(|d| d.severity == Severity::Error)
    }

    /// Each, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The value when there is no error (warnings are dropped then), everything found when there
    /// is one.
    ///
    /// # Errors
    /// These diagnostics, when one of them is an error.
    pub fn into_result<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.has_errors() {
            Err(self)
        } else {
            Ok(value)
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics(vec![diagnostic])
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        more.into_iter().for_each(|d| self.push(d));
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(all: I) -> Self {
        let mut diagnostics = Diagnostics::new();
        diagnostics.extend(all);
        diagnostics
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A file's name and text: turns the byte ranges that `toml::Spanned` gives into diagnostics.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// The text of a file, under the name that the operator knows it by.
    pub const fn new(file: &'a str, text: &'a str) -> Self {
        Source { file, text }
    }

    /// The file's name.
    pub const fn file(&self) -> &'a str {
        self.file
    }

    /// Where a byte range begins. A range that is not in the text stands for its end.
    pub fn at(&self, span: Range<usize>) -> Position {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The byte at a position, as [`at`](Self::at) gives it.
    fn offset(&self, position: Position) -> usize {
        let lines = self.text.split_inclusive('\n');
        let before: usize = lines.take(position.line - 1).map(str::len).sum();
        let line = &self.text[before..];
        let column = line.char_indices().nth(position.column - 1);
        before + column.map_or(line.len(), |(at, _)| at)
    }

    /// An error at a byte range.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.file, Some(self.at(span)), message)
    }

    /// A warning at a byte range.
    pub fn warning(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.file, Some(self.at(span)), message)
    }

    /// An error about the file as a whole.
    pub fn whole(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.file, None, message)
    }
}

/// The candidate that `word` is most likely a misspelling of, when one is near enough to be worth
/// proposing: at most a third of its letters differ, or a swap of two neighbours.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word, &c.to_lowercase()), c))
        .filter(|&(distance, c)| distance <= (c.chars().count() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The help for a word that is none of those allowed:
/// ``did you mean `queues`? (allowed: core, queues)``, or the list alone when none is near.
pub fn suggest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let list: Vec<&str> = allowed.clone().into_iter().collect();
    let list = list.join(", ");
    match nearest(word, allowed.clone()).or_else(|| within(word, allowed)) {
        Some(near) => format!("did you mean `{near}`? (allowed: {list})"),
        None => format!("allowed: {list}"),
    }
}

/// The candidate that is one of the words of `word`, as others name the same thing: `as` of
/// `remote_as`.
fn within<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let has = |candidate: &&str| word.split(['_', '-']).any(|part| part == *candidate);
    candidates.into_iter().find(has)
}

#[cfg(test)]
mod tests;
