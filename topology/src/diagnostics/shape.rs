//! From text to a type, with everything that is wrong with the shape of the text at once.
//!
//! serde stops at its first error. Here the value it stopped at is taken out of the document and
//! the rest is tried again, until it passes or nothing is left to take out.

use super::units::{self, Unit};
use super::{Diagnostic, Diagnostics, Source, suggest};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

/// At most this many errors of shape are reported: enough to mend a file in one go, few enough
/// that a file of another format does not fill the terminal.
const MAX_ERRORS: usize = 50;

/// Reads a value from TOML text, and reports every error of its shape at once: syntax, unknown
/// keys (with the nearest known one; the type needs `deny_unknown_fields`), missing keys, values
/// of another type.
///
/// `file` is the name to report under; nothing is read from it.
///
/// # Errors
/// Everything found, in the order of the file, never empty.
pub fn from_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Diagnostics> {
    let source = Source::new(file, text);
    let shape = Shape::of(source, parse(source, text)?);
    match shape.value {
        Some(value) if shape.found.is_empty() => Ok(value),
        _ => Err(shape.found),
    }
}

/// Reads a value as [`from_toml`] does, and has `judge` look at what it means: every error of both
/// kinds is reported at once. What is wrong with the shape is left out of the value that is judged,
/// and errors of the meaning are passed over where they stand in the same table of a list, or under
/// the same key at the top: they may be its consequences.
///
/// Returns what `judge` makes of the value, with its warnings.
///
/// # Errors
/// Everything found, in the order of the file, never empty.
pub fn read_toml<T: DeserializeOwned, U>(
    file: &str,
    text: &str,
    judge: impl FnOnce(T, &mut Diagnostics) -> Option<U>,
) -> Result<(U, Diagnostics), Diagnostics> {
    let source = Source::new(file, text);
    let Shape {
        value,
        mut found,
        broken,
    } = Shape::of(source, parse(source, text)?);
    let Some(value) = value else {
        return Err(found);
    };
    let mut meant = Diagnostics::new();
    let judged = judge(value, &mut meant);
    if found.is_empty() {
        return match judged {
            Some(judged) if !meant.has_errors() => Ok((judged, meant)),
            _ => Err(meant),
        };
    }
    let sound = units::sound(source, &parse(source, text)?, &broken, &meant);
    found.extend(sound);
    Err(found)
}

fn parse<'t>(source: Source<'_>, text: &'t str) -> Result<Spanned<DeTable<'t>>, Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(text);
    match errors.is_empty() {
        true => Ok(document),
        false => Err(syntax(source, &errors)),
    }
}

/// What a document has of the shape of a type.
struct Shape<T> {
    /// What could be read of it, if anything.
    value: Option<T>,
    /// What is wrong.
    found: Diagnostics,
    /// Where something was taken out.
    broken: Vec<Unit>,
}

impl<T: DeserializeOwned> Shape<T> {
    fn of(source: Source<'_>, document: Spanned<DeTable<'_>>) -> Self {
        let mut shape = Shape {
            value: None,
            found: Diagnostics::new(),
            broken: Vec::new(),
        };
        shape.read(source, document);
        shape
    }

    fn read(&mut self, source: Source<'_>, mut document: Spanned<DeTable<'_>>) {
        let found = &mut self.found;
        let mut removed = Vec::new();
        loop {
            let error = match T::deserialize(Deserializer::from(document.clone())) {
                Ok(value) => {
                    self.value = Some(value);
                    return;
                }
                Err(error) => error,
            };
            let cause = Cause::parse(error.message());
            let place = error.span().and_then(|span| find(&document, &span));
            if !cause.is_consequence(error.span(), &removed) {
                found.push(describe(source, &error, &cause, place.as_ref()));
            }
            let Some(place) = place.filter(|p| !p.path.is_empty() && found.len() < MAX_ERRORS)
            else {
                return;
            };
            self.broken.extend(units::of_path(&document, &place.path));
            removed.push(Removed {
                table: place.parent.clone(),
                key: place.key().to_owned(),
            });
            take_out(&mut document, &place.path);
        }
    }
}

/// Syntax errors, one a line: what follows the first on a line is mostly its consequence.
fn syntax(source: Source<'_>, errors: &[toml::de::Error]) -> Diagnostics {
    let mut found = Diagnostics::new();
    for error in errors.iter().take(MAX_ERRORS) {
        let diagnostic = match error.span() {
            Some(span) => source.error(span, error.message()),
            None => source.whole(error.message()),
        };
        let line = |d: &Diagnostic| d.position.map(|p| p.line);
        if !found.iter().any(|known| line(known) == line(&diagnostic)) {
            found.push(diagnostic);
        }
    }
    found
}

/// What serde and toml say, taken apart. Their wording is not a contract: what is not recognized
/// is passed on as it is, and the tests notice when an update changes it.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    UnknownKey { key: String, allowed: Vec<String> },
    UnknownValue { value: String, allowed: Vec<String> },
    MissingKey(String),
    WrongType { is: String, wanted: String },
    Other(String),
}

impl Cause {
    fn parse(message: &str) -> Self {
        let quoted = |rest: &str| -> Vec<String> {
            let parts = rest.split('`').skip(1).step_by(2);
            parts.map(str::to_owned).collect()
        };
        if let Some(rest) = message.strip_prefix("unknown field ") {
            let mut names = quoted(rest).into_iter();
            return Cause::UnknownKey {
                key: names.next().unwrap_or_default(),
                allowed: names.collect(),
            };
        }
        if let Some(rest) = message.strip_prefix("unknown variant ") {
            let mut names = quoted(rest).into_iter();
            return Cause::UnknownValue {
                value: names.next().unwrap_or_default(),
                allowed: names.collect(),
            };
        }
        if let Some(rest) = message.strip_prefix("missing field ") {
            return Cause::MissingKey(quoted(rest).into_iter().next().unwrap_or_default());
        }
        if message.starts_with("invalid length ") && message.contains(", expected struct ") {
            return Cause::WrongType {
                is: "a list".to_owned(),
                wanted: "a table".to_owned(),
            };
        }
        let unexpected = message
            .strip_prefix("invalid type: ")
            .or_else(|| message.strip_prefix("invalid value: "));
        if let Some((is, wanted)) = unexpected.and_then(|rest| rest.rsplit_once(", expected ")) {
            return Cause::WrongType {
                is: plain_type(is),
                wanted: plain_type(wanted),
            };
        }
        Cause::Other(message.to_owned())
    }

    /// Whether an entry that was taken out before (and reported) is what is missing now.
    fn is_consequence(&self, table: Option<Range<usize>>, removed: &[Removed]) -> bool {
        match self {
            Cause::MissingKey(key) => removed
                .iter()
                .any(|r| r.key == *key && Some(&r.table) == table.as_ref()),
            _ => false,
        }
    }
}

/// Rust's and serde's names of types in the words of somebody who writes TOML.
fn plain_type(serde: &str) -> String {
    let bounds = match serde {
        "u8" => (u64::MIN, u64::from(u8::MAX)),
        "u16" => (u64::MIN, u64::from(u16::MAX)),
        "u32" => (u64::MIN, u64::from(u32::MAX)),
        // TOML's own integers end at 2^63 - 1.
        "u64" | "usize" => (u64::MIN, i64::MAX as u64),
        "sequence" | "a sequence" => return "a list".to_owned(),
        "map" | "a map" => return "a table".to_owned(),
        _ if serde.starts_with("struct ") => return "a table".to_owned(),
        _ => {
            return match serde.split_once(' ') {
                Some(("integer" | "floating", value)) => value.replace("point ", ""),
                Some(("string" | "boolean", value)) => value.to_owned(),
                _ => serde.to_owned(),
            };
        }
    };
    format!("a whole number from {} to {}", bounds.0, bounds.1)
}

fn describe(
    source: Source<'_>,
    error: &toml::de::Error,
    cause: &Cause,
    place: Option<&Place>,
) -> Diagnostic {
    let key = place.map(Place::key).unwrap_or_default();
    let (message, help) = match cause {
        Cause::UnknownKey { key, allowed } => (
            format!("unknown key `{key}`"),
            Some(suggest(key, allowed.iter().map(String::as_str))),
        ),
        Cause::UnknownValue { value, allowed } => (
            format!("`{key}` cannot be `{value}`"),
            Some(suggest(value, allowed.iter().map(String::as_str))),
        ),
        Cause::MissingKey(missing) if key.is_empty() => (format!("`{missing}` is missing"), None),
        Cause::MissingKey(missing) => (format!("`{missing}` is missing in `{key}`"), None),
        Cause::WrongType { is, wanted } if key.is_empty() => {
            (format!("the file is {is}, not {wanted}"), None)
        }
        Cause::WrongType { is, wanted } => (
            format!("`{key}` cannot be {is}"),
            Some(format!("it takes {wanted}")),
        ),
        Cause::Other(message) if key.is_empty() => (message.clone(), None),
        Cause::Other(message) => (format!("`{key}`: {message}"), None),
    };
    let whole = place.is_some_and(|p| p.path.is_empty());
    let diagnostic = match error.span().filter(|_| !whole) {
        Some(span) => source.error(span, message),
        None => source.whole(message),
    };
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// An entry that was reported and taken out: the table it stood in, and its key.
struct Removed {
    table: Range<usize>,
    key: String,
}

/// The way from the document to a value.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Where an error stands in the document.
struct Place {
    /// Empty for the document itself.
    path: Vec<Step>,
    /// The span of the table or list that holds it.
    parent: Range<usize>,
}

impl Place {
    /// The innermost key on the way, empty for the document itself.
    fn key(&self) -> &str {
        let keys = self.path.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.unwrap_or_default()
    }
}

/// The entry whose key or value stands at exactly `span`.
fn find(document: &Spanned<DeTable<'_>>, span: &Range<usize>) -> Option<Place> {
    let mut path = Vec::new();
    let parent = in_table(document.get_ref(), document.span(), span, &mut path);
    match parent {
        Some(parent) => Some(Place { path, parent }),
        None => (document.span() == *span).then(|| Place {
            path: Vec::new(),
            parent: document.span(),
        }),
    }
}

/// Leaves the way in `path` and returns the span of the holder when `span` is found.
fn in_table(
    table: &DeTable<'_>,
    table_span: Range<usize>,
    span: &Range<usize>,
    path: &mut Vec<Step>,
) -> Option<Range<usize>> {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        if key.span() == *span {
            return Some(table_span);
        }
        if let Some(parent) = in_value(value, &table_span, span, path) {
            return Some(parent);
        }
        path.pop();
    }
    None
}

fn in_value(
    value: &Spanned<DeValue<'_>>,
    holder: &Range<usize>,
    span: &Range<usize>,
    path: &mut Vec<Step>,
) -> Option<Range<usize>> {
    let deeper = match value.get_ref() {
        DeValue::Table(table) => in_table(table, value.span(), span, path),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, element)| {
            path.push(Step::Index(index));
            let found = in_value(element, &value.span(), span, path);
            if found.is_none() {
                path.pop();
            }
            found
        }),
        _ => None,
    };
    deeper.or_else(|| (value.span() == *span).then(|| holder.clone()))
}

fn take_out(document: &mut Spanned<DeTable<'_>>, path: &[Step]) {
    let Some((last, way)) = path.split_last() else {
        return;
    };
    let Some((Step::Key(first), rest)) = way.split_first() else {
        if let Step::Key(key) = last {
            document.get_mut().remove(key.as_str());
        }
        return;
    };
    let Some(mut value) = document.get_mut().get_mut(first.as_str()) else {
        return;
    };
    for step in rest {
        let next = match (step, value.get_mut()) {
            (Step::Key(key), DeValue::Table(table)) => table.get_mut(key.as_str()),
            (Step::Index(index), DeValue::Array(array)) => array.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return };
        value = next;
    }
    match (last, value.get_mut()) {
        (Step::Key(key), DeValue::Table(table)) => {
            table.remove(key.as_str());
        }
        (Step::Index(index), DeValue::Array(array)) => {
            let kept = std::mem::replace(array, DeArray::new())
                .into_iter()
                .enumerate();
            *array = kept
                .filter_map(|(at, element)| (at != *index).then_some(element))
                .collect();
        }
        _ => {}
    }
}
