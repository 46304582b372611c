//! Printing: calm tables for people, JSON for programs.

use super::{Failure, Format};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, BufWriter, Stdout, Write};

/// Where answers go.
pub struct Out {
    format: Format,
    to: BufWriter<Stdout>,
}

impl Out {
    /// Standard output, in a format.
    pub fn new(format: Format) -> Self {
        Out {
            format,
            to: BufWriter::new(io::stdout()),
        }
    }

    /// Whether programs read this.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints an answer: the value as JSON, or the text.
    pub fn answer(
        &mut self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&text()),
            Format::Json => {
                serde_json::to_writer_pretty(&mut self.to, json).map_err(io::Error::from)?;
                self.text("")
            }
        }
    }

    /// Prints a value as JSON in one line, for programs that read as it comes.
    pub fn json_line(&mut self, json: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, json).map_err(io::Error::from)?;
        self.raw("\n")
    }

    /// Prints text and ends its line.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(text)?;
        match text.ends_with('\n') {
            true => Ok(()),
            false => self.raw("\n"),
        }
    }

    /// Prints text as it is.
    pub fn raw(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.to.write_all(text.as_bytes())?)
    }

    /// Sends what is still held back.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

/// A column: its head, and `>` in front of it where it holds numbers.
pub type Column = &'static str;

/// A table without borders; numbers stand to the right. Empty without rows.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|c| c.trim_start_matches('>')));
    table.add_rows(rows);
    if table.is_empty() {
        return String::new();
    }
    for (at, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// A line for a person, on standard error. Where nobody reads it, nothing can be done about it.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_borders_and_numbers_to_the_right() {
        let row = |name: &str, n: &str| vec![name.to_owned(), n.to_owned(), "x".to_owned()];
        let text = table(
            &["NAME", ">FLOWS", "END"],
            [row("a", "1"), row("long", "12,345")],
        );
        assert_eq!(
            text,
            "NAME   FLOWS  END\na          1  x\nlong  12,345  x\n"
        );
        assert_eq!(table(&["NAME"], []), "");
    }
}
