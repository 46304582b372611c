//! Numbers as random.org writes them.

use super::request::{Base, Format, Layout, Range};
use std::fmt::Write;

/// The document of an answer: columns between tabs, each row a line. In the bases 2, 8 and 16 all
/// numbers of a range have as many digits as the one that needs most, a minus before them; in base
/// 10 they have those that they need.
pub fn document(numbers: &[i32], range: Range, layout: Layout) -> String {
    let plain = plain(numbers, range, layout);
    match layout.format {
        Format::Plain => plain,
        Format::Html => format!(
            "<!DOCTYPE html>\n<html>\n<head><title>Random integers</title></head>\n<body>\n\
             <pre class=\"data\">{plain}</pre>\n</body>\n</html>\n"
        ),
    }
}

/// The MIME type of a document.
pub const fn mime(format: Format) -> &'static str {
    match format {
        Format::Plain => "text/plain; charset=utf-8",
        Format::Html => "text/html; charset=utf-8",
    }
}

fn plain(numbers: &[i32], range: Range, layout: Layout) -> String {
    let largest = range.min.unsigned_abs().max(range.max.unsigned_abs());
    let width = digits(largest, layout.base, 0).len();
    let columns = usize::try_from(layout.col).unwrap_or(usize::MAX);
    let mut text = String::new();
    for (at, &number) in numbers.iter().enumerate() {
        let end = match (at + 1).is_multiple_of(columns) || at + 1 == numbers.len() {
            true => '\n',
            false => '\t',
        };
        let sign = if number < 0 { "-" } else { "" };
        let digits = digits(number.unsigned_abs(), layout.base, width);
        write!(text, "{sign}{digits}{end}").expect("a String takes everything");
    }
    text
}

fn digits(number: u32, base: Base, width: usize) -> String {
    match base {
        Base::Binary => format!("{number:0width$b}"),
        Base::Octal => format!("{number:0width$o}"),
        Base::Decimal => number.to_string(),
        Base::Hexadecimal => format!("{number:0width$x}"),
    }
}

/// The numbers in an answer of another service: decimal, between white space.
///
/// # Errors
/// What is wrong with it, for a log.
pub fn read(text: &str, range: Range) -> Result<Vec<i32>, String> {
    if let Some(error) = text.lines().next().filter(|l| l.starts_with("Error:")) {
        return Err(error.chars().take(200).collect());
    }
    let mut numbers = Vec::new();
    for word in text.split_ascii_whitespace() {
        let number = word.parse().ok();
        let fits = number.filter(|n| (range.min..=range.max).contains(n));
        numbers.push(fits.ok_or_else(|| {
            let word: String = word.chars().take(32).collect();
            format!("{word:?} is no number from {} to {}", range.min, range.max)
        })?);
        if numbers.len() > usize::from(range.num) {
            break;
        }
    }
    match numbers.len() == usize::from(range.num) {
        true => Ok(numbers),
        false => Err(format!("it has not exactly {} numbers", range.num)),
    }
}

#[cfg(test)]
mod tests;
