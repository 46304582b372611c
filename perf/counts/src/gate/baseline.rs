//! The file of the counts that are right.

use super::Counts;
use crate::callgrind;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The counts, and what they were counted with.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// With what.
    pub origin: Origin,
    /// How many.
    pub counts: Counts,
}

/// What counts depend on beside the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The architecture and system: counts of two of them have nothing to do with each other.
    pub host: String,
    /// The compiler, which makes the instructions.
    pub rustc: String,
    /// Callgrind's, whose processor the program sees.
    pub valgrind: String,
    /// The C library, whose `memcpy` is counted too.
    pub libc: String,
}

impl Origin {
    /// Of what is counted here and now.
    pub fn here() -> Result<Self> {
        // Where there is another C library there is no such name, or no such program.
        let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
        let libc = libc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(Origin {
            host: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            rustc: env!("LOCKSTEP_RUSTC").to_owned(),
            valgrind: callgrind::version()?,
            libc: libc.unwrap_or_default(),
        })
    }

    /// What is another one than there, in words; nothing where all is the same.
    pub fn differences(&self, there: &Origin) -> String {
        let differences: Vec<String> = self
            .parts()
            .into_iter()
            .zip(there.parts())
            .filter(|((_, here), (_, there))| here != there)
            .map(|((_, here), (_, there))| format!("{there}, here it is {here}"))
            .collect();
        differences.join("; ")
    }

    fn parts(&self) -> [(&'static str, &String); 4] {
        [
            ("host", &self.host),
            ("rustc", &self.rustc),
            ("valgrind", &self.valgrind),
            ("libc", &self.libc),
        ]
    }
}

impl Baseline {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let how = || format!("{}: make gate UPDATE=1 writes it anew", file.display());
        let text = std::fs::read_to_string(file).with_context(how)?;
        Self::parse(&text).with_context(how)
    }

    /// Writes one.
    pub fn write(&self, file: &Path) -> Result<()> {
        let written = std::fs::write(file, self.render()?);
        written.with_context(|| format!("cannot write {}", file.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let part = |name: &str| {
            let part = value["counted_with"][name].as_str();
            part.map(str::to_owned)
                .with_context(|| format!("counted_with has no {name}"))
        };
        let counts = value["instructions"]
            .as_object()
            .context("no instructions")?;
        let counts = counts.iter().map(|(path, count)| {
            let count = count.as_f64().filter(|&count| count > 0.0);
            let count = count.with_context(|| format!("{path} has no count"))?;
            Ok((path.clone(), count))
        });
        Ok(Baseline {
            origin: Origin {
                host: part("host")?,
                rustc: part("rustc")?,
                valgrind: part("valgrind")?,
                libc: part("libc")?,
            },
            counts: counts.collect::<Result<_>>()?,
        })
    }

    pub(super) fn render(&self) -> Result<String> {
        let parts = self.origin.parts();
        let parts = parts.map(|(name, part)| (name.to_owned(), json!(part)));
        let value = json!({
            "counted_with": Value::Object(parts.into_iter().collect()),
            "instructions": self.counts,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}
