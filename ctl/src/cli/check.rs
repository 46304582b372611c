//! `lockstep check FILE...`: every error of files at once, and of several together, without asking
//! anybody.

use super::output::{Out, say};
use super::{Answer, Failure, read_file};
use clap::{Args, ValueEnum};
use lockstep_api::FileKind;
use lockstep_ctl_core::config::{Config, ConfigFile};
use lockstep_ctl_core::services::ServicesFile;
use lockstep_ctl_core::{across, config, services};
use lockstep_topology::Topology;
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics, Severity, nearest};
use serde::Serialize;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Arguments of `lockstep check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A services.toml, lockstepd.toml or topology.toml; `-` is standard input. Several of one
    /// balancer are compared with each other too.
    #[arg(required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the file is, where its content does not tell.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
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
    const ALL: [Kind; 3] = [Kind::Services, Kind::Topology, Kind::Lockstepd];

    /// The keys at its top.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Services => &["service"],
            Kind::Lockstepd => &config::SECTIONS,
            Kind::Topology => &OF_TOPOLOGY,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Services => "services",
            Kind::Lockstepd => "lockstepd",
            Kind::Topology => "topology",
        }
    }

    /// By the keys at the top, those that are nearly right where none is; by its name where they do
    /// not tell.
    fn of(text: &str, file: &str) -> Option<Self> {
        let (document, _) = DeTable::parse_recoverable(text);
        let keys = || document.get_ref().keys().map(|key| key.get_ref().as_ref());
        let known = |kind: Kind| keys().any(|key| kind.keys().contains(&key));
        let near =
            |kind: Kind| keys().any(|key| nearest(key, kind.keys().iter().copied()).is_some());
        let named = |kind: Kind| file.contains(kind.name());
        let mut all = Kind::ALL.into_iter();
        let known = all.clone().find(|kind| known(*kind));
        let near = || all.clone().find(|kind| near(*kind));
        known
            .or_else(near)
            .or_else(|| all.find(|kind| named(*kind)))
    }

    /// As [`of`](Self::of), where it can be told.
    fn told(text: &str, file: &str, help: &str) -> Result<Self, Failure> {
        Kind::of(text, file).ok_or_else(|| {
            let keys = |kind: Kind| format!("{}.toml ({})", kind.name(), kind.keys().join(", "));
            let keys = Kind::ALL.map(keys).join(", ");
            Failure::Usage(format!(
                "cannot tell what {file} is: it has no key at its top of a {keys}; {help}"
            ))
        })
    }
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    /// What it was read as: "services", "lockstepd" or "topology".
    kind: Kind,
    ok: bool,
    diagnostics: Vec<Entry>,
}

/// The answer about several files as JSON.
#[derive(Debug, Serialize)]
struct Reports {
    ok: bool,
    files: Vec<Report>,
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

impl Report {
    fn new(file: &str, kind: Kind, found: &Diagnostics) -> Self {
        Report {
            file: file.to_owned(),
            kind,
            ok: !found.has_errors(),
            diagnostics: found.iter().map(Entry::new).collect(),
        }
    }

    /// What was found, a line each, and the summary where nothing is wrong.
    fn lines(&self, found: &Diagnostics, summary: &str) -> Vec<String> {
        let file = &self.file;
        let ok = self.ok.then(|| format!("{file}: {summary}"));
        found.iter().map(ToString::to_string).chain(ok).collect()
    }
}

/// Prints errors and warnings; the answer is no when there are errors.
pub fn report(
    file: &str,
    kind: Kind,
    summary: &str,
    found: &Diagnostics,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let report = Report::new(file, kind, found);
    out.answer(&report, || report.lines(found, summary).join("\n"))?;
    Ok(if report.ok { Answer::Yes } else { Answer::No })
}

/// A file, and what is found in it.
struct Checked {
    file: String,
    text: String,
    kind: Kind,
    parsed: Parsed,
    summary: String,
    found: Diagnostics,
}

/// What a file says, where it has no errors.
enum Parsed {
    Services(ServicesFile),
    Lockstepd(Box<Config>),
    Topology(Box<Topology>),
    Not,
}

impl Checked {
    fn new(path: &Path, kind: Option<Kind>) -> Result<Self, Failure> {
        let text = read_file(path)?;
        let file = path.display().to_string();
        let kind = match kind {
            Some(kind) => kind,
            None => Kind::told(&text, &file, "say it with --kind")?,
        };
        let parsed = match kind {
            Kind::Services => services(&file, &text),
            Kind::Lockstepd => lockstepd(&file, &text),
            Kind::Topology => topology(&file, &text),
        };
        let (parsed, summary, found) = match parsed {
            Ok((parsed, summary, warnings)) => (parsed, summary, warnings),
            Err(errors) => (Parsed::Not, String::new(), errors),
        };
        Ok(Checked {
            file,
            text,
            kind,
            parsed,
            summary,
            found,
        })
    }

    fn read<'a, T>(&'a self, value: &'a T) -> across::Read<'a, T> {
        across::Read {
            file: &self.file,
            text: &self.text,
            value,
        }
    }
}

/// Checks files, each by itself and all together.
pub fn run(arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    if arguments.kind.is_some() && arguments.files.len() > 1 {
        let text = "--kind is about one file; several have to tell by themselves what they are";
        return Err(Failure::Usage(text.to_owned()));
    }
    let mut files = Vec::new();
    for path in &arguments.files {
        let checked = Checked::new(path, arguments.kind)?;
        if let Some(same) = files.iter().find(|f: &&Checked| f.kind == checked.kind) {
            let (one, other, kind) = (&same.file, &checked.file, checked.kind.name());
            let text = format!("{one} and {other} are both a {kind}.toml: a balancer has one");
            return Err(Failure::Usage(text));
        }
        files.push(checked);
    }
    for one in together(&files) {
        if let Some(file) = files.iter_mut().find(|f| f.file == one.file) {
            file.found.push(one);
        }
    }
    let reports: Vec<Report> = (files.iter())
        .map(|f| Report::new(&f.file, f.kind, &f.found))
        .collect();
    if arguments.kind.is_none() {
        for Checked { file, kind, .. } in files.iter().filter(|f| f.found.has_errors()) {
            say(format!("{file}: read as a {}.toml", kind.name()));
        }
    }
    let ok = reports.iter().all(|report| report.ok);
    let lines = files.iter().zip(&reports);
    let lines = lines.flat_map(|(f, report)| report.lines(&f.found, &f.summary));
    let text = lines.collect::<Vec<_>>().join("\n");
    match &reports[..] {
        [one] => out.answer(one, || text)?,
        _ => out.answer(&Reports { ok, files: reports }, || text)?,
    }
    Ok(if ok { Answer::Yes } else { Answer::No })
}

/// What is wrong with the files together.
fn together(files: &[Checked]) -> Vec<Diagnostic> {
    let mut all = across::Files::default();
    for file in files {
        match &file.parsed {
            Parsed::Services(services) => all.services = Some(file.read(services)),
            Parsed::Lockstepd(config) => all.config = Some(file.read(config)),
            Parsed::Topology(topology) => all.topology = Some(file.read(topology)),
            Parsed::Not => {}
        }
    }
    across::compare(&all)
}

/// Which of the daemon's files it is, and what is found in it.
pub fn daemons(file: &str, text: &str) -> Result<(Kind, FileKind, Diagnostics), Failure> {
    let help = "the daemon has a services.toml and a lockstepd.toml";
    let kind = Kind::told(text, file, help)?;
    let (of_daemon, parsed) = match kind {
        Kind::Services => (FileKind::Services, services(file, text)),
        Kind::Lockstepd => (FileKind::Config, lockstepd(file, text)),
        Kind::Topology => {
            return Err(Failure::Usage(format!(
                "{file} is a topology.toml: it belongs to the engine, which reads it when it starts"
            )));
        }
    };
    let found = parsed.map_or_else(|errors| errors, |(_, _, warnings)| warnings);
    Ok((kind, of_daemon, found))
}

/// What a file says, in a sentence too, and its warnings.
type Found = Result<(Parsed, String, Diagnostics), Diagnostics>;

fn services(file: &str, text: &str) -> Found {
    let mut parsed = services::parse(file, text)?;
    let vips: usize = parsed.services.iter().map(|s| s.vips.len()).sum();
    let backends: usize = parsed.services.iter().map(|s| s.backends.len()).sum();
    let summary = format!(
        "no errors: {}, {}, {}",
        counted(parsed.services.len(), "service"),
        counted(vips, "VIP"),
        counted(backends, "backend")
    );
    let warnings = std::mem::take(&mut parsed.warnings);
    Ok((Parsed::Services(parsed), summary, warnings))
}

fn lockstepd(file: &str, text: &str) -> Found {
    let ConfigFile { config, warnings } = config::parse(file, text)?;
    let summary = "no errors: settings of lockstepd".to_owned();
    Ok((Parsed::Lockstepd(Box::new(config)), summary, warnings))
}

/// A topology by itself; `lockstep topology check` compares it with this host too.
fn topology(file: &str, text: &str) -> Found {
    let topology = Topology::parse(file, text)?;
    let workers = counted(topology.workers().len(), "worker");
    let interfaces = counted(topology.interfaces().len(), "interface");
    let summary = format!("no errors: {workers}, {interfaces}");
    Ok((
        Parsed::Topology(Box::new(topology)),
        summary,
        Diagnostics::new(),
    ))
}

fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_keys_then_by_its_name() {
        let (services, lockstepd) = (Some(Kind::Services), Some(Kind::Lockstepd));
        let topology = Some(Kind::Topology);
        for (text, file, kind) in [
            ("[[service]]\n", "topology.toml", services),
            ("[engine]\n", "x.toml", topology),
            ("[[worker]]\n[[", "x.toml", topology),
            ("", "topology.toml", topology),
            ("[log]\n", "x.toml", lockstepd),
            ("[[bgp.peer]]\n[[", "services.toml", lockstepd),
            ("", "/etc/lockstep/lockstepd.toml", lockstepd),
            ("[engine]\n", "lockstepd.toml", topology),
            ("[metric]\n", "services.toml", lockstepd),
            ("[metric]\n[log]\n", "x.toml", lockstepd),
            ("[[services]]\n", "x.toml", services),
            ("[wroker]\n", "x.toml", topology),
            ("", "services.toml", services),
            ("", "x.toml", None),
            ("[[", "x.toml", None),
            ("[other]", "x.toml", None),
        ] {
            assert_eq!(Kind::of(text, file), kind, "{text:?} in {file}");
        }
    }
}
