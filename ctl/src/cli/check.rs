//! `lockstep check FILE`: every error of a file at once, without asking anybody.

use super::output::Out;
use super::{Answer, Failure, read_file};
use clap::{Args, ValueEnum};
use lockstep_api::FileKind;
use lockstep_ctl_core::{config, services};
use lockstep_topology::Topology;
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics, Severity};
use serde::Serialize;
use std::path::PathBuf;
use toml::de::DeTable;

/// Arguments of `lockstep check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A services.toml, lockstepd.toml or topology.toml; `-` is standard input.
    file: PathBuf,
    /// What the file is, where its content does not tell.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// services.toml
    Services,
    /// lockstepd.toml
    Lockstepd,
    /// topology.toml
    Topology,
}

/// What only a topology.toml has at its top.
const OF_TOPOLOGY: [&str; 5] = ["engine", "interface", "worker", "sessions", "nat"];

impl Kind {
    /// By the keys at the top; by its name where they do not tell.
    fn of(text: &str, file: &str) -> Self {
        let (document, _) = DeTable::parse_recoverable(text);
        let has = |key: &str| document.get_ref().contains_key(key);
        if has("service") {
            Kind::Services
        } else if OF_TOPOLOGY.into_iter().any(has) {
            Kind::Topology
        } else if config::SECTIONS.into_iter().any(has) || file.contains("lockstepd") {
            Kind::Lockstepd
        } else if file.contains("topology") {
            Kind::Topology
        } else {
            Kind::Services
        }
    }
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    ok: bool,
    diagnostics: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    severity: &'static str,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    help: Option<String>,
}

impl Entry {
    fn new(found: &Diagnostic) -> Self {
        Entry {
            severity: match found.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            line: found.position.map(|p| p.line),
            column: found.position.map(|p| p.column),
            message: found.message.clone(),
            help: found.help.clone(),
        }
    }
}

/// Prints errors and warnings; the answer is no when there are errors.
pub fn report(
    file: &str,
    summary: &str,
    found: &Diagnostics,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let ok = !found.has_errors();
    let entries = found.iter().map(Entry::new).collect();
    let report = Report {
        file: file.to_owned(),
        ok,
        diagnostics: entries,
    };
    out.answer(&report, || {
        let mut lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        if ok {
            lines.push(format!("{file}: {summary}"));
        }
        lines.join("\n")
    })?;
    Ok(if ok { Answer::Yes } else { Answer::No })
}

/// Checks a file.
pub fn run(arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let text = read_file(&arguments.file)?;
    let file = arguments.file.display().to_string();
    let (summary, found) = match arguments.kind.unwrap_or_else(|| Kind::of(&text, &file)) {
        Kind::Services => services(&file, &text),
        Kind::Lockstepd => lockstepd(&file, &text),
        Kind::Topology => topology(&file, &text),
    };
    report(&file, &summary, &found, out)
}

/// Which of the daemon's files it is, and what is found in it.
pub fn daemons(file: &str, text: &str) -> Result<(FileKind, Diagnostics), Failure> {
    match Kind::of(text, file) {
        Kind::Services => Ok((FileKind::Services, services(file, text).1)),
        Kind::Lockstepd => Ok((FileKind::Config, lockstepd(file, text).1)),
        Kind::Topology => Err(Failure::Usage(format!(
            "{file} is a topology.toml: it belongs to the engine, which reads it when it starts"
        ))),
    }
}

fn services(file: &str, text: &str) -> (String, Diagnostics) {
    match services::parse(file, text) {
        Err(errors) => (String::new(), errors),
        Ok(parsed) => {
            let vips: usize = parsed.services.iter().map(|s| s.vips.len()).sum();
            let backends: usize = parsed.services.iter().map(|s| s.backends.len()).sum();
            let services = parsed.services.len();
            let summary = format!(
                "no errors: {}, {}, {}",
                counted(services, "service"),
                counted(vips, "VIP"),
                counted(backends, "backend")
            );
            (summary, parsed.warnings)
        }
    }
}

fn lockstepd(file: &str, text: &str) -> (String, Diagnostics) {
    match config::parse(file, text) {
        Err(errors) => (String::new(), errors),
        Ok(parsed) => ("no errors".to_owned(), parsed.warnings),
    }
}

/// A topology by itself; `lockstep topology check` compares it with this host too.
fn topology(file: &str, text: &str) -> (String, Diagnostics) {
    match Topology::parse(file, text) {
        Err(errors) => (String::new(), errors),
        Ok(topology) => {
            let workers = counted(topology.workers().len(), "worker");
            let interfaces = counted(topology.interfaces().len(), "interface");
            (
                format!("no errors: {workers}, {interfaces}"),
                Diagnostics::new(),
            )
        }
    }
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_keys_then_by_its_name() {
        for (text, file, kind) in [
            ("[[service]]\n", "topology.toml", Kind::Services),
            ("[engine]\n", "x.toml", Kind::Topology),
            ("[[worker]]\n[[", "x.toml", Kind::Topology),
            ("", "topology.toml", Kind::Topology),
            ("[log]\n", "x.toml", Kind::Lockstepd),
            ("[[bgp.peer]]\n[[", "services.toml", Kind::Lockstepd),
            ("", "/etc/lockstep/lockstepd.toml", Kind::Lockstepd),
            ("[engine]\n", "lockstepd.toml", Kind::Topology),
            ("", "x.toml", Kind::Services),
            ("[[", "x.toml", Kind::Services),
        ] {
            assert_eq!(Kind::of(text, file), kind, "{text:?} in {file}");
        }
    }
}
