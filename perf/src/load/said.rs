//! What goes to standard output: nobody may listen there any more, and there may be no room.

use anyhow::{Context, Result};
use std::fmt;
use std::io::{ErrorKind, Write, stdout};

/// Nobody listens any more: what is being done has no purpose, and nothing went wrong.
#[derive(Debug)]
struct Unheard;

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for Unheard {}

/// Writes `text` to standard output, and a line's end.
///
/// # Errors
///
/// When that is not possible. Where nobody listens any more, that is an error as well, so that what is
/// on the interfaces goes as with every other; [`heard`] forgives it.
pub fn say(text: impl fmt::Display) -> Result<()> {
    to(&mut stdout().lock(), text)
}

fn to(output: &mut impl Write, text: impl fmt::Display) -> Result<()> {
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unheard.into()),
        written => written.context("cannot write the results to standard output"),
    }
}

/// Ends without a word where nobody would have heard one.
pub fn heard(result: Result<()>) -> Result<()> {
    result.or_else(|error| match error.is::<Unheard>() {
        true => Ok(()),
        false => Err(error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs::OpenOptions;
    use std::io::pipe;

    #[test]
    fn without_a_reader_it_ends_quietly_and_on_a_full_disk_it_says_so() {
        let (reader, mut writer) = pipe().unwrap();
        to(&mut writer, "somebody reads").unwrap();
        drop(reader);
        heard(to(&mut writer, "nobody reads")).unwrap();
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = heard(to(&mut full, "too much")).unwrap_err();
        let said = format!("{error:#}");
        assert!(
            said.contains("standard output") && said.contains("No space left"),
            "{said}"
        );
    }
}
