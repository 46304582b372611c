//! The parts of a document that stand for themselves: what is wrong in one says nothing about
//! another.

use super::shape::Step;
use super::{Diagnostic, Diagnostics, Position, Severity, Source};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key at the top, or a table of a list under it: the outermost such list. Both by where they
/// begin in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    top: usize,
    element: Option<usize>,
}

impl Unit {
    fn with(self, element: &Spanned<DeValue<'_>>) -> Self {
        let begins = matches!(element.get_ref(), DeValue::Table(_)).then(|| element.span().start);
        Unit {
            element: self.element.or(begins),
            ..self
        }
    }

    /// Whether `other` is this one or a part of it.
    fn has(self, other: Unit) -> bool {
        self.top == other.top && (self.element.is_none() || self.element == other.element)
    }
}

/// The unit that a path leads into.
pub(super) fn of_path(document: &Spanned<DeTable<'_>>, path: &[Step]) -> Option<Unit> {
    let (Step::Key(top), way) = path.split_first()? else {
        return None;
    };
    let (key, mut value) = document.get_ref().get_key_value(top.as_str())?;
    let mut unit = Unit {
        top: key.span().start,
        element: None,
    };
    for step in way {
        value = match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str())?,
            (Step::Index(index), DeValue::Array(array)) => {
                let element = array.get(*index)?;
                unit = unit.with(element);
                element
            }
            _ => return None,
        };
    }
    Some(unit)
}

/// The errors that stand in no broken unit; those about the file as a whole are among them.
pub(super) fn sound(
    source: Source<'_>,
    document: &Spanned<DeTable<'_>>,
    broken: &[Unit],
    found: &Diagnostics,
) -> Vec<Diagnostic> {
    let mut units = BTreeMap::new();
    for (key, value) in document.get_ref() {
        let unit = Unit {
            top: key.span().start,
            element: None,
        };
        units.insert(key.span().start, unit);
        note(value, unit, &mut units);
    }
    let is_sound = |position: Position| {
        let unit = units.get(&source.offset(position));
        unit.is_some_and(|unit| !broken.iter().any(|broken| broken.has(*unit)))
    };
    let errors = found.iter().filter(|d| d.severity == Severity::Error);
    errors
        .filter(|d| d.position.is_none_or(is_sound))
        .cloned()
        .collect()
}

/// Notes where everything in a value begins.
fn note(value: &Spanned<DeValue<'_>>, unit: Unit, units: &mut BTreeMap<usize, Unit>) {
    units.insert(value.span().start, unit);
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                units.insert(key.span().start, unit);
                note(value, unit, units);
            }
        }
        DeValue::Array(array) => {
            for element in array {
                note(element, unit.with(element), units);
            }
        }
        _ => {}
    }
}
